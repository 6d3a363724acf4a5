"""Two sets of records against each other: what changed, in what, and whether it is more than noise.

The rule. Differences are taken between runs with the same seed, so that easy and hard cities don't count as noise. A
figure has changed when the mean difference is larger than the metric's tolerance, which is what a change without
meaning does to it, and, with two seeds or more, larger than the spread (standard deviation) of the differences over the
seeds. The pipeline is deterministic: two runs of the same variant on one machine have no difference at all. (Student's
t was the other way: an effect varies from city to city by about its own size, and with three seeds even the loss of
half the views passed for noise.)
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cityweave.bench.record import figure, figures
from cityweave.errors import ConfigError
from cityweave.plan import canonical_json
from cityweave.plots import short

Verdict = Literal["same", "noise", "better", "worse", "changed"]
TIME_CHANGE = 0.15  # a job's median has to move by this much, and out of the range of the repeats, to be mentioned
_NUMERIC_PACKAGES = ("numpy", "numba", "llvmlite", "scipy", "rasterio", "pyproj", "pillow", "shapely")
Record = dict[str, Any]


@dataclass(frozen=True)
class Change:
    metric: dict[str, Any]
    before: float | None  # means over the shared seeds
    after: float | None
    differences: tuple[float, ...]
    spread: float | None  # standard deviation of the differences over the seeds; None with one
    verdict: Verdict


@dataclass(frozen=True)
class Comparison:
    before: str
    after: str
    seeds: tuple[int, ...]
    changes: tuple[Change, ...]
    causes: tuple[str, ...]
    times: tuple[str, ...]

    @property
    def worse(self) -> bool:
        return any(change.verdict == "worse" for change in self.changes)

    def as_text(self) -> str:
        seeds = f"{len(self.seeds)} shared seed{'s' if len(self.seeds) > 1 else ''}"
        lines = [f"{self.before} -> {self.after} ({seeds}: {', '.join(map(str, self.seeds))})"]
        if all(change.verdict == "same" for change in self.changes):
            lines.append("  every figure is the same to the bit")
        else:
            lines += [f"  {_change_line(change)}" for change in self.changes]
        lines += [f"  differs: {cause}" for cause in self.causes]
        lines += [f"  time: {line}" for line in self.times]
        return "\n".join(lines)


def _change_line(change: Change) -> str:
    unit = change.metric["unit"] and f" {change.metric['unit']}"
    before, after = ("no figure" if x is None else f"{short(x)}{unit}" for x in (change.before, change.after))
    text = f"{change.metric['label']:28} {before} -> {after}"
    if change.differences and change.verdict != "same":
        mean = statistics.mean(change.differences)
        spread = "one seed" if change.spread is None else f"spread {change.spread:.2g}"
        text += f", by {mean:+.3g} ({spread}, tolerance {change.metric['tolerance']:g})"
    return f"{text}: {change.verdict}"


def compare(before: Sequence[Record], after: Sequence[Record]) -> list[Comparison]:
    """By variant. Where each side holds one variant only, these two are compared, whatever their names."""
    sides = [_by_variant(before), _by_variant(after)]
    pairs = [(name, name) for name in sides[0] if name in sides[1]]
    if len(sides[0]) == len(sides[1]) == 1:
        pairs = [(next(iter(sides[0])), next(iter(sides[1])))]
    if not pairs:
        raise ConfigError(f"no variant is on both sides: {', '.join(sides[0])} against {', '.join(sides[1])}")
    return [_compared(a, b, sides[0][a], sides[1][b]) for a, b in pairs]


def _by_variant(records: Sequence[Record]) -> dict[str, dict[int, Record]]:
    found: dict[str, dict[int, Record]] = {}
    for record in records:
        found.setdefault(record["variant"], {})[record["seed"]] = record
    return found


def _compared(a: str, b: str, before: dict[int, Record], after: dict[int, Record]) -> Comparison:
    seeds = tuple(sorted(before.keys() & after.keys()))
    if not seeds:
        raise ConfigError(f"{a} and {b} share no seed: {sorted(before)} against {sorted(after)}")
    pairs = [(before[seed], after[seed]) for seed in seeds]
    metrics = pairs[0][1]["shown"]["metrics"]
    changes = [
        _change(metric, [[figure(r["metrics"], metric["key"]) for r in pair] for pair in pairs]) for metric in metrics
    ]
    return Comparison(a, b, seeds, tuple(changes), tuple(_causes(*pairs[0])), tuple(_times(*pairs[0])))


def _change(metric: dict[str, Any], pairs: list[list[float | None]]) -> Change:
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    before, after = (_mean([pair[k] for pair in pairs if pair[k] is not None]) for k in (0, 1))
    if len(known) < len(pairs):
        lost = any(b is None and a is not None for a, b in pairs)
        gained = any(a is None and b is not None for a, b in pairs)
        return Change(metric, before, after, (), None, "worse" if lost else "changed" if gained else "same")
    differences = tuple(b - a for a, b in known)
    spread = statistics.stdev(differences) if len(differences) > 1 else None
    return Change(metric, before, after, differences, spread, _verdict(metric, differences, spread))


def _mean(values: Sequence[float | None]) -> float | None:
    return statistics.mean(v for v in values if v is not None) if values else None


def _verdict(metric: dict[str, Any], differences: Sequence[float], spread: float | None) -> Verdict:
    if not any(differences):
        return "same"
    mean = statistics.mean(differences)
    if abs(mean) <= max(metric["tolerance"], spread or 0.0):
        return "noise"
    if metric["better"] is None:
        return "changed"
    return "better" if (mean < 0) == (metric["better"] == "lower") else "worse"


def _causes(before: Record, after: Record) -> list[str]:
    """What isn't the same in two records, as far as it may be a cause."""
    found = []
    a, b = _flat(before["config"]), _flat(after["config"])
    keys = [key for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key) and not key.startswith("workflow.")]
    found += [f"{key}: {_short(a.get(key))} -> {_short(b.get(key))}" for key in keys]
    code = [s for s, h in after["source"]["code"].items() if h != before["source"]["code"].get(s)]
    if code:
        found.append(f"code of {', '.join(code)}")
    versions = set(before["versions"] | after["versions"])
    for name in sorted(versions):
        old, new = before["versions"].get(name), after["versions"].get(name)
        if old != new:
            found.append(f"{name} {old} -> {new}")
    cpus = [(record["machine"] or {}).get("cpu") for record in (before, after)]
    if cpus[0] != cpus[1]:
        found.append(f"machine: {cpus[0]} -> {cpus[1]}")
    inputs = [{name: entry["sha256"] for name, entry in record["inputs"].items()} for record in (before, after)]
    if inputs[0] != inputs[1]:
        found.append("input files")
    return found


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(values, dict):
        return {prefix.rstrip("."): values}
    return {key: value for name, part in values.items() for key, value in _flat(part, f"{prefix}{name}.").items()}


def _short(value: Any) -> str:
    if isinstance(value, list) and any(isinstance(part, dict) for part in value):
        return f"{len(value)} entries"
    text = canonical_json(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _times(before: Record, after: Record) -> list[str]:
    """Jobs that take longer or shorter than the repeats explain. Decides nothing: machines differ by the hour."""
    lines = []
    for kind in after["stages"]:
        a, b = (record["stages"].get(kind, {}).get("timed") for record in (before, after))
        if not a or not b or a == b:
            continue
        apart = min(b["all_seconds"]) > max(a["all_seconds"]) or max(b["all_seconds"]) < min(a["all_seconds"])
        if apart and abs(b["seconds"] / a["seconds"] - 1) > TIME_CHANGE:
            lines.append(f"{kind} {a['seconds']:.2f} s -> {b['seconds']:.2f} s a job")
    return lines


def verify(records: Sequence[Record], references: Sequence[Record]) -> tuple[list[str], list[str]]:
    """(what was verified, what isn't equal): to the bit on a CPU of the same kind, within the tolerances on another."""
    known = {(r["suite"], r["variant"], r["seed"]): r for r in references}
    verified, unequal = [], []
    for record in records:
        name = f"{record['variant']}-s{record['seed']}"
        reference = known.get((record["suite"], record["variant"], record["seed"]))
        if reference is None:
            unequal.append(f"{name}: there is no reference")
            continue
        exact, why = _same_arithmetic(record, reference)
        wrong = [text for key in figures(reference["metrics"]) if (text := _unequal(key, record, reference, exact))]
        configs = [_flat({k: v for k, v in r["config"].items() if k != "workflow"}) for r in (record, reference)]
        if configs[0] != configs[1]:
            wrong.insert(0, "the configuration is another one")
        unequal += [f"{name}: {text}" for text in wrong]
        verified.append(
            f"{name}: {'not equal' if wrong else 'equal'} {'to the bit' if exact else f'within tolerance: {why}'}"
        )
    return verified, unequal


def _same_arithmetic(record: Record, reference: Record) -> tuple[bool, str]:
    machines = [r["machine"] or {} for r in (record, reference)]
    for key, what in (("cpu_features", "another CPU"), ("cpu_kind", "another CPU")):
        if machines[0].get(key) != machines[1].get(key):
            return False, what
    others = [name for name in _NUMERIC_PACKAGES if record["versions"].get(name) != reference["versions"].get(name)]
    return not others, f"other versions of {', '.join(others)}"


def _unequal(key: str, record: Record, reference: Record, exact: bool) -> str | None:
    new, old = figures(record["metrics"]).get(key), figures(reference["metrics"])[key]
    if new == old:
        return None
    if not exact and isinstance(new, int | float) and isinstance(old, int | float):
        tolerances = reference["tolerances"]
        allowed = tolerances["metrics"].get(key, tolerances["other"] * max(abs(new), abs(old)))
        if abs(new - old) <= allowed:
            return None
    return f"{key} is {new}, the reference has {old}"
