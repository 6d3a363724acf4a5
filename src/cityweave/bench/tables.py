"""Tables and plots of one suite, from its records alone."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cityweave.bench.growth import UNKNOWN, growth_markdown, growth_plots, markdown_table
from cityweave.bench.record import figure
from cityweave.operations.costs import KINDS
from cityweave.plots import Row, dots, short

Record = dict[str, Any]


def write_tables(records: Sequence[Record], file: Path) -> str:
    """The Markdown, and beside it the CSV and the plots; returns what is worth saying."""
    file.parent.mkdir(parents=True, exist_ok=True)
    for name, text in plots(records).items():
        (file.parent / name).write_text(text)
    file.with_suffix(".csv").write_text(as_csv(records))
    file.write_text(f"# Suite {records[0]['suite']}\n\n{as_markdown(records, '')}")
    refused = [record for record in records if record["refused"]]
    said = f"{file}: {len(records)} records"
    return said + (f", {len(refused)} of them no reference: {refused[0]['refused'][0]}" if refused else "")


def as_markdown(records: Sequence[Record], plots_folder: str) -> str:
    """`plots_folder` is where the plots lie, seen from the page."""
    shown = records[0]["shown"]
    parts = [shown["description"], _where(records)]
    if shown["metrics"]:
        parts += [_quality(records), f"![figures by variant]({plots_folder}{records[0]['suite']}_figures.svg)"]
    if any(record["shown"]["axis"] for record in records):
        parts += growth_markdown(records, plots_folder)
    else:
        parts.append(_costs(records))
    if shown["remarks"]:
        parts.append(shown["remarks"].strip())
    if refused := [f"- {_name(r)}: {'; '.join(r['refused'])}" for r in records if r["refused"]]:
        parts.append("No reference:\n\n" + "\n".join(refused))
    return "\n\n".join(parts) + "\n"


def plots(records: Sequence[Record]) -> dict[str, str]:
    """File name -> SVG."""
    suite, shown = records[0]["suite"], records[0]["shown"]
    found = {}
    if shown["metrics"]:
        panels = []
        for metric in shown["metrics"]:
            rows = []
            for variant in variants(records):
                if values := seed_values(records, variant, metric["key"]):
                    rows.append(Row(variant, tuple(values), with_spread(*mean_and_spread(values))))
            panels.append((f"{metric['label']}{', ' + metric['unit'] if metric['unit'] else ''}{_arrow(metric)}", rows))
        found[f"{suite}_figures.svg"] = dots(f"{suite}: a dot per seed, a line at the mean", panels)
    if any(record["shown"]["axis"] for record in records):
        found |= growth_plots(records)
    return found


def _arrow(metric: dict[str, Any]) -> str:
    return {"lower": " (lower is better)", "higher": " (higher is better)"}.get(metric["better"], "")


def _name(record: Record) -> str:
    return f"{record['variant']}-s{record['seed']}"


def variants(records: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(record["variant"] for record in records))


def seed_values(records: Sequence[Record], variant: str, key: str) -> list[float]:
    values = [figure(record["metrics"], key) for record in records if record["variant"] == variant]
    return [value for value in values if value is not None]


def mean_and_spread(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and standard deviation; None with too few values."""
    if not values:
        return None, None
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None


def with_spread(mean: float | None, spread: float | None) -> str:
    """As many digits as the spread has two of."""
    if mean is None:
        return UNKNOWN
    if not spread:
        return short(mean)
    digits = max(0, 1 - math.floor(math.log10(spread)))
    return f"{mean:.{digits}f} ± {spread:.{digits}f}"


def _where(records: Sequence[Record]) -> str:
    commits = sorted({record["source"]["commit"] or "unknown" for record in records})
    machines = sorted({_machine(record) for record in records})
    seeds = sorted({record["seed"] for record in records})
    return (
        f"{len(records)} records; seeds {', '.join(map(str, seeds))}; commit {', '.join(c[:12] for c in commits)}; "
        f"on {'; '.join(machines)}."
    )


def _machine(record: Record) -> str:
    machine, rates = record["machine"], record["calibration"]
    if machine is None:
        return "an unknown machine"
    gpus = "".join(f", {gpu['name']}, driver {gpu['driver']}" for gpu in machine["gpus"])
    kind = machine["cpu_kind"].split(maxsplit=1)[-1]
    return f"{machine['cores']} cores of {machine['cpu']} (family, model, stepping {kind}){gpus}" if rates else "?"


def _quality(records: Sequence[Record]) -> str:
    metrics = records[0]["shown"]["metrics"]
    head = ["variant", *(f"{m['label']}{', ' + m['unit'] if m['unit'] else ''}" for m in metrics)]
    rows = []
    for variant in variants(records):
        cells = [mean_and_spread(seed_values(records, variant, metric["key"])) for metric in metrics]
        rows.append([variant, *(with_spread(*cell) for cell in cells)])
    notes = []
    for number, entry in enumerate(records[0]["shown"]["published"], 1):
        figures = [entry["figures"].get(metric["key"]) for metric in metrics]
        rows.append([f"{entry['name']} [{number}]", *(UNKNOWN if f is None else f"{f:g}" for f in figures)])
        second = " (second-hand)" if entry["second_hand"] else ""
        notes.append(f"[{number}] {entry['source']}{second}. {entry['remark']}".strip())
    seeds = len({record["seed"] for record in records})
    spread = f"Mean ± standard deviation over {seeds} seeds." if seeds > 1 else "One seed."
    return "\n\n".join([markdown_table(head, rows), "\n".join([spread, *notes])])


def timed_stages(record: Record) -> dict[str, Record]:
    """Stages whose job was timed, in the order of work."""
    return {kind: record["stages"][kind] for kind in KINDS if record["stages"].get(kind, {}).get("timed")}


def _costs(records: Sequence[Record]) -> str:
    """Times of one job per stage: of the first variant in full, of the others only what they computed themselves."""
    timed = [record for record in records if timed_stages(record)]
    if not timed:
        return "No job was timed."
    head = ["job", "seconds", "CPU s", "of it work", "peak MB", "GPU MB", "floor, s", "work / floor"]
    rows = []
    first = timed[0]["variant"]
    for record in timed:
        for kind, stage in timed_stages(record).items():
            job = stage["timed"]
            if record["variant"] != first and job["measured_in"] != _name(record):
                continue
            floor = stage["floor"] and stage["floor"]["seconds"]
            rows.append(
                [
                    f"{kind}, {_name(record)}",
                    *(f"{job[key]:.2f}" for key in ("seconds", "cpu_s", "work_cpu_s")),
                    f"{job['peak_rss_mb']:.0f}",
                    UNKNOWN if job["gpu_peak_mb"] is None else f"{job['gpu_peak_mb']:.0f}",
                    f"{floor:.2g}" if floor else UNKNOWN,
                    f"{job['work_cpu_s'] / floor:.0f}" if floor else UNKNOWN,
                ]
            )
    repeats = timed[0]["timing"]["repeats"]
    return "\n\n".join(
        [
            f"One job each, alone on the machine: median of {repeats}, compiled code in its cache, start and imports "
            "included; work is the stage's own part. A variant shows only what it doesn't share with one above.",
            markdown_table(head, rows),
        ]
    )


def as_csv(records: Sequence[Record]) -> str:
    """One figure a line: suite, variant, seed, what, figure, value."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["suite", "variant", "seed", "commit", "of", "figure", "value"])
    for record in records:
        name = [record["suite"], record["variant"], record["seed"], record["source"]["commit"]]
        for metric in record["shown"]["metrics"]:
            writer.writerow([*name, "quality", metric["key"], figure(record["metrics"], metric["key"])])
        for kind, stage in record["stages"].items():
            for key in ("units", "work_s", "cpu_s", "peak_rss_mb", "gpu_s", "gpu_peak_mb", "pixels", "km2"):
                writer.writerow([*name, kind, key, stage[key]])
            for key in ("seconds", "work_s", "cpu_s", "work_cpu_s", "peak_rss_mb", "gpu_peak_mb"):
                writer.writerow([*name, kind, f"job.{key}", stage["timed"] and stage["timed"][key]])
            writer.writerow([*name, kind, "floor_s", stage["floor"] and stage["floor"]["seconds"]])
    return out.getvalue()
