"""Cost against work: exponents by stage and axis, plots, and which stage stands out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from cityweave.operations.costs import KINDS
from cityweave.plots import Panel, Series, panels

Record = dict[str, Any]
UNKNOWN = "–"
FASTER_THAN_LINEAR = 1.1  # exponents up to here are linear, within what times of a second scatter
LEAST_WORK_S = 0.05  # CPU seconds; below it is the clock and the file system more than the stage


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def points(records: Sequence[Record], kind: str, x: str, y: str) -> list[tuple[float, float]]:
    """(work, cost) of the job by variant; `x` pixels or km2, `y` work_cpu_s or peak_rss_mb."""
    found = []
    for record in records:
        stage = record["stages"].get(kind)
        if stage and stage["timed"] and stage["timed"][y] > 0:
            found.append((float(stage[x]), float(stage["timed"][y])))
    return sorted(found)


def exponent(line: Sequence[tuple[float, float]]) -> float | None:
    """Slope of the least-squares line through the logarithms; None for fewer than three works or costs too small."""
    if len({x for x, _ in line}) < 3:
        return None
    xs, ys = [math.log(x) for x, _ in line], [math.log(y) for _, y in line]
    mx, my = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((x - mx) * (y - my) for x, y in zip(xs, ys, strict=True)) / sum((x - mx) ** 2 for x in xs)


def axes(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Records by what they vary; the first variant, which varies nothing, belongs to every axis."""
    base = [record for record in records if record["variant"] == records[0]["variant"]]
    names = dict.fromkeys(r["shown"]["axis"] for r in records if r["shown"]["axis"])
    return {name: [*base, *(r for r in records if r["shown"]["axis"] == name)] for name in names}


def _work_of(axis: str) -> str:
    return "km2" if axis in ("area", "tile size") else "pixels"


def growth_plots(records: Sequence[Record]) -> dict[str, str]:
    drawn = []
    for axis, group in axes(records).items():
        if axis == "cores":
            continue
        x = _work_of(axis)
        for y, label in (("work_cpu_s", "CPU seconds of work"), ("peak_rss_mb", "peak memory, MB")):
            lines = [Series(kind, tuple(points(group, kind, x, y))) for kind in KINDS]
            x_label = "km² of a job" if x == "km2" else "source pixels of a job"
            known = tuple(line for line in lines if exponent(line.points) is not None)
            drawn.append(Panel(f"by {axis}", x_label, label, known, logarithmic=True, slope_one=True))
    return {f"{records[0]['suite']}_growth.svg": panels(drawn)}


def growth_markdown(records: Sequence[Record], plots_folder: str) -> list[str]:
    groups = axes(records)
    scaled = [axis for axis in groups if axis != "cores"]
    head = [
        "job",
        *(
            f"{axis}: {'time' if y == 'work_cpu_s' else 'memory'}"
            for axis in scaled
            for y in ("work_cpu_s", "peak_rss_mb")
        ),
    ]
    rows, stand_out = [], []
    for kind in KINDS:
        cells = []
        for axis in scaled:
            line = points(groups[axis], kind, _work_of(axis), "work_cpu_s")
            power = exponent(line)
            small = max((y for _, y in line), default=0.0) < LEAST_WORK_S
            cells.append("–" if power is None else f"({power:.2f})" if small else f"{power:.2f}")
            if power is not None and power > FASTER_THAN_LINEAR and not small:
                stand_out.append((power, f"**{kind}** grows with {axis} to the power of {power:.2f}"))
            memory = exponent(points(groups[axis], kind, _work_of(axis), "peak_rss_mb"))
            cells.append("–" if memory is None else f"{memory:.2f}")
        if any(cell != "–" for cell in cells):
            rows.append([kind, *cells])
    parts = [
        "Exponents of the growth of one job's work (CPU seconds without start and imports, which other programs on the "
        "machine disturb least) and of its peak memory, with km² (area, tile size) or source pixels: "
        f"1 is linear. In brackets where the longest job worked under {LEAST_WORK_S:g} s.",
        markdown_table(head, rows),
        f"![seconds and memory against work]({plots_folder}{records[0]['suite']}_growth.svg)",
        "The dashed line has slope 1.",
    ]
    if "cores" in groups:
        parts.append(_cores(groups["cores"]))
    parts.append(_floors(records, sorted(stand_out, reverse=True)))
    return parts


def _cores(group: Sequence[Record]) -> str:
    """What a job takes while others of its kind run beside it, against alone."""
    alone, beside = group[0], group[1:]
    head = ["job", "alone, s", *(f"{r['shown']['at_once']} at once, s" for r in beside), "jobs per second, times"]
    rows = []
    for kind in KINDS:
        entries = [record["stages"].get(kind, {}).get("timed") for record in group]
        if not all(entries):
            continue
        gain = beside[-1]["shown"]["at_once"] * entries[0]["seconds"] / entries[-1]["seconds"]
        rows.append([kind, *(f"{entry['seconds']:.2f}" for entry in entries), f"{gain:.2f}"])
    if not rows:
        return f"Cores: {beside[-1]['timing'].get('note', 'not timed')}." if beside else ""
    cores = alone["machine"]["cores"]
    said = f"Cores: the same job on {cores} cores, alone and side by side, start and imports included."
    return f"{said}\n\n{markdown_table(head, rows)}"


def _floors(records: Sequence[Record], stand_out: Sequence[tuple[float, str]]) -> str:
    """The largest case of every stage against its floor, where its time goes, and what is worst."""
    rows, far = [], []
    for kind in KINDS:
        known = [
            r["stages"][kind] for r in records if r["stages"].get(kind, {}).get("timed") and r["shown"]["at_once"] == 1
        ]
        if not known:
            continue
        stage = max(known, key=lambda entry: entry["timed"]["work_cpu_s"])
        job, floor = stage["timed"], (stage["floor"] or {}).get("seconds")
        ratio = job["work_cpu_s"] / floor if floor else None
        rows.append(
            [
                f"{kind} ({job['measured_in']})",
                f"{job['seconds']:.2f}",
                f"{job['work_cpu_s']:.2f}",
                f"{floor:.2g}" if floor else "–",
                f"{ratio:.0f}" if ratio else "–",
                _where_time_goes(job),
            ]
        )
        if ratio and job["work_cpu_s"] >= LEAST_WORK_S:
            far.append((ratio, f"**{kind}** is {ratio:.0f} times above its floor"))
    far = sorted(far, reverse=True)
    worst = [text for _, text in [*stand_out, *far[:2]]]
    named = "; ".join(worst) if worst else "no stage stands out"
    grows = "" if stand_out else "No stage grows faster than linearly. "
    return "\n\n".join(
        [
            "The largest case of every job against its physical floor: what it must read and write at the bandwidth of "
            "one core, or what it must compute at the rate of one core, whichever takes longer "
            "(`src/cityweave/bench/work.py` counts).",
            markdown_table(
                ["job", "seconds", "CPU s of work", "floor, s", "work / floor", "where the time goes"], rows
            ),
            f"What stands out: {grows}{named}.",
        ]
    )


def _where_time_goes(job: Record) -> str:
    profile = job.get("profile")
    if profile is None:
        return "–"
    top = [f"`{entry['function'].removeprefix('cityweave.')}` {entry['share']:.0%}" for entry in profile["top"][:3]]
    return f"imports {profile['imports_share']:.0%}, {', '.join(top)}"
