"""A benchmark suite: what is run, on which data, how often, and what is shown of it.

Read at parse time: nothing heavy is imported. A suite lies in config/bench/{name}.yaml; its `city` counts from there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from cityweave.config import Config, Section
from cityweave.errors import ConfigError
from cityweave.plan import canonical_json, load_config, run_folder, stage_params
from cityweave.profiles import merged

# Stages that a run can take over from an earlier one, in the order of work: each reads only what is before it.
SHARED_STAGES = ("synth", "survey", "ingest", "dsm", "geometry", "texture", "merge")


class Metric(Section):
    """A figure of metrics.json that the suite's tables show."""

    key: str = Field(description="where it is in metrics.json, such as mesh.f1.1")
    label: str = Field(description="what the tables call it")
    unit: str = Field("", description="of the figure")
    better: Literal["lower", "higher"] | None = Field(None, description="which way is better; none: it has no better")
    tolerance: float = Field(
        ge=0,
        description="how far it may differ on a CPU with other features, in its unit; differences below mean nothing",
    )


class Variant(Section):
    """One row of the tables."""

    config: dict[str, Any] = Field(default_factory=dict, description="laid over the suite's configuration")
    axis: str | None = Field(None, description="what it varies, in a suite about cost against work")
    at_once: int = Field(1, ge=1, description="how many of a job run side by side when it is timed")


class Published(Section):
    """Somebody else's figures on the same data, shown beside ours."""

    name: str = Field(description="of the method")
    source: str = Field(description="paper or page, with its table")
    second_hand: bool = Field(False, description="taken from somebody who cites it, not from the source itself")
    figures: dict[str, float] = Field(description="by the key of the metric")
    remark: str = Field("", description="what differs from our conditions")


class Timing(Section):
    repeats: int = Field(3, ge=1, description="every stage's job is timed this often; the median counts")
    seeds: int | None = Field(None, ge=1, description="how many of the seeds are timed; default: all")
    variants: tuple[str, ...] | None = Field(
        None, description="which of the variants are timed, [] for none; default: all"
    )
    profile: bool = Field(False, description="one more run of each job under a profiler: where its time goes")


class SuiteConfig(Section):
    """The file of a suite."""

    description: str = Field(description="what it is for, in one or two sentences")
    city: Path | None = Field(None, description="configuration that it starts from; default: `config` alone")
    config: dict[str, Any] = Field(default_factory=dict, description="laid over `city`")
    data: dict[Path, str] = Field(
        default_factory=dict, description="real input files by sha256, paths as in the configuration"
    )
    variants: dict[str, Variant] = Field(
        min_length=1, description="by name; the first is what the others are read against"
    )
    seeds: tuple[int, ...] = Field(min_length=1, description="every variant is repeated with each")
    metrics: tuple[Metric, ...] = Field((), description="what the tables show")
    published: tuple[Published, ...] = Field((), description="figures to show beside ours")
    timing: Timing = Timing()
    report: bool = Field(False, description="make and time the page of every run, too")
    remarks: str = Field("", description="Markdown below the suite's tables: what the figures mean")


@dataclass(frozen=True)
class BenchRun:
    """One variant with one seed."""

    suite: str
    variant: str
    seed: int
    values: Mapping[str, Any]  # the configuration of its city, adoption included
    timed: bool
    adopts: BenchRun | None = None  # the run that its first stages are taken over from

    @property
    def name(self) -> str:
        return f"{self.variant}-s{self.seed}"

    @property
    def rule_prefix(self) -> str:
        return f"{self.variant}_s{self.seed}"

    @cached_property
    def config(self) -> Config:
        return load_config(self.values)

    @property
    def folder(self) -> Path:
        return run_folder(self.config)


@dataclass(frozen=True)
class Suite:
    name: str
    file: Path
    plan: SuiteConfig
    runs: tuple[BenchRun, ...]

    @property
    def folder(self) -> Path:
        return Path("results") / "bench" / self.name


def read_suite(name: str, folder: Path, over: Mapping[str, Any] | None = None) -> Suite:
    """`name` of a file in `folder`, or a path to one; `over` is laid over the configuration of every run."""
    file = Path(name).expanduser() if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
        raise ConfigError(f"suite {name!r}: {file} is not there; accepted: {known}, or a path to a .yaml file")
    try:
        values = yaml.safe_load(file.read_text())
        if isinstance(values, dict):  # for what several variants repeat
            values = {key: value for key, value in values.items() if not key.startswith(".")}
        plan = SuiteConfig.model_validate(values)
    except (yaml.YAMLError, ValidationError) as error:
        raise ConfigError(f"{file}: {_complaint(error)}") from None
    base: dict[str, Any] = {}
    if plan.city is not None:
        city = file.parent / plan.city
        if not city.is_file():
            raise ConfigError(f"{file}: city {plan.city} is not there; accepted: a path from the suite's own folder")
        base = yaml.safe_load(city.read_text())
    base = merged(merged(base, plan.config), over or {})
    return Suite(file.stem, file, plan, tuple(_runs(file.stem, plan, base)))


def _complaint(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
    return str(error)


def _runs(name: str, plan: SuiteConfig, base: dict[str, Any]) -> list[BenchRun]:
    runs: list[BenchRun] = []
    chains: list[tuple[BenchRun, list[str]]] = []
    for variant in plan.variants:
        if not variant.isidentifier() or re.fullmatch(r"s\d+|tables", variant):
            raise ConfigError(f"variant {variant!r}: accepted are letters, digits and underscores, not tables or s1")
    timed = plan.seeds[: plan.timing.seeds]
    which = plan.variants.keys() if plan.timing.variants is None else set(plan.timing.variants)
    if unknown := which - plan.variants.keys():
        raise ConfigError(f"timing.variants: {', '.join(sorted(unknown))} not among {', '.join(plan.variants)}")
    for seed in plan.seeds:
        for variant, entry in plan.variants.items():
            place = {"results": f"results/bench/{name}/{variant}-s{seed}"}
            values = merged(merged(base, entry.config), {"seed": seed, "workflow": place})
            run = BenchRun(
                name, variant, seed, values, seed in timed and variant in (plan.variants if which is None else which)
            )
            chain = _chain(run.config)
            if source := _longest_shared(chain, chains):
                other, stages = source
                adopted = {"run": str(other.folder), "stages": list(stages)}
                values = merged(values, {"workflow": {"adopt": adopted}})
                run = BenchRun(name, variant, seed, values, run.timed, other)
            chains.append((run, chain))
            runs.append(run)
    return runs


def _chain(config: Config) -> list[str]:
    """Per shared stage, all that its result depends on beside the code and the source files."""
    params = [f"{config.seed}", *(canonical_json(stage_params(config, stage)) for stage in SHARED_STAGES)]
    return ["\n".join(params[: k + 2]) for k in range(len(SHARED_STAGES))]


def _longest_shared(
    chain: list[str], earlier: list[tuple[BenchRun, list[str]]]
) -> tuple[BenchRun, tuple[str, ...]] | None:
    best: tuple[BenchRun, tuple[str, ...]] | None = None
    for run, other in earlier:
        same = next((k for k, (a, b) in enumerate(zip(chain, other, strict=True)) if a != b), len(chain))
        stages = SHARED_STAGES[:same] if run.config.synth else SHARED_STAGES[1:same]
        if stages and (best is None or len(stages) > len(best[1])):
            best = run, stages
    return best
