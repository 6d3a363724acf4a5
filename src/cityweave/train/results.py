"""One table of a training, and plots, gathered from what its runs wrote."""

from __future__ import annotations

import csv
import io
import json
import statistics
from pathlib import Path
from typing import Any

from cityweave.errors import DataError
from cityweave.plots import Panel, Row, Series, dots, panels, short
from cityweave.train.runs import CONFIG, FAILED, RESULT, read_run

LOG = "log.jsonl"
MOST_LINES = 8  # of one plot


def gather(folder: Path) -> str:
    """Write results.csv, results.md and, where there are several results, plots; returns results.md."""
    runs = sorted(path.parent for path in folder.glob(f"run-*/{CONFIG}"))
    if not runs:
        raise DataError(
            f"{folder} holds no runs; accepted: a folder that cityweave train made, such as training/heights"
        )
    rows = [_row(run) for run in runs]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    _write(folder / "results.csv", text.getvalue())
    baselines = _baselines(runs)
    parts = [f"# {folder.name}\n", _markdown(columns, rows)]
    if seeds := _over_seeds(runs):
        parts += ["\nOver seeds: mean (lowest to highest).\n", seeds]
    if baselines:
        parts += ["\nThe same figures without a model.\n", _markdown(list(baselines[0]), baselines)]
    document = "\n".join(parts) + "\n"
    _write(folder / "results.md", document)
    for name, plot in _plots(folder.name, runs).items():
        _write(folder / name, plot)
    return document


def _write(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.tmp")
    aside.write_text(text)
    aside.replace(path)


def _row(run: Path) -> dict[str, Any]:
    config = read_run(run)
    row: dict[str, Any] = {"run": run.name, "state": _state(run, config), **config["changes"]}
    if result := _result(run):
        row |= _figures(result)
        row |= {name: result[name] for name in ("best_step", "steps", "stopped", "parameters")}
        row |= {"minutes": round(result["cost"]["seconds"] / 60, 2), "starts": result["cost"]["starts"]}
    return row


def _figures(result: dict[str, Any]) -> dict[str, float]:
    """The one that decides comes first."""
    figures: dict[str, float] = result["figures"]
    return {result["watch"]: figures[result["watch"]], **figures}


def _result(run: Path) -> dict[str, Any] | None:
    file = run / RESULT
    return json.loads(file.read_text()) if file.is_file() else None


def _state(run: Path, config: dict[str, Any]) -> str:
    if (run / RESULT).is_file():
        return "done"
    if (run / FAILED).is_file():
        return "failed: " + (run / FAILED).read_text().strip().splitlines()[-1]
    lines = (run / LOG).read_text().splitlines() if (run / LOG).is_file() else []
    if not lines:
        return "not started"
    try:
        step = json.loads(lines[-1])["step"]
    except (ValueError, KeyError):
        step = "?"
    return f"at step {step} of {config['settings']['loop']['steps']}"


def _baselines(runs: list[Path]) -> list[dict[str, Any]]:
    for run in runs:
        if result := _result(run):
            return [
                {"baseline": name, **_figures(result | {"figures": figures})}
                for name, figures in result["baselines"].items()
            ]
    return []


def _over_seeds(runs: list[Path]) -> str:
    """Runs that differ in nothing but their seed, put together."""
    groups = _groups(runs)
    if all(len(group) < 2 for group in groups.values()):
        return ""
    rows = []
    for changes, group in groups.items():
        results = list(group.values())
        row: dict[str, Any] = {**json.loads(changes), "seeds": len(group)}
        for name in _figures(results[0]):
            values = [result["figures"][name] for result in results]
            row[name] = f"{statistics.fmean(values):.3f} ({min(values):.3f} to {max(values):.3f})"
        rows.append(row)
    return _markdown(list(rows[0]), rows)


def _groups(runs: list[Path]) -> dict[str, dict[Path, dict[str, Any]]]:
    """Changes as JSON -> the runs that differ in nothing else but their seed -> results."""
    groups: dict[str, dict[Path, dict[str, Any]]] = {}
    for run in runs:
        if result := _result(run):
            changes = {key: value for key, value in result["changes"].items() if key != "seed"}
            groups.setdefault(json.dumps(changes), {})[run] = result
    return groups


def _plots(name: str, runs: list[Path]) -> dict[str, str]:
    """Every figure of every change of settings, best ones first, and how the best ones went."""
    groups = [(_label(changes), group) for changes, group in _groups(runs).items()]
    if len(groups) < 2:
        return {}
    watch = next(iter(groups[0][1].values()))["watch"]

    def mean(group: dict[Path, dict[str, Any]], figure: str) -> float:
        return statistics.fmean(result["figures"][figure] for result in group.values())

    groups.sort(key=lambda named: mean(named[1], watch))
    figures = _figures(next(iter(groups[0][1].values())))
    rows = [
        (
            figure,
            [
                Row(label, tuple(r["figures"][figure] for r in group.values()), short(mean(group, figure)))
                for label, group in groups
            ],
        )
        for figure in figures
    ]
    lines = tuple(Series(label, _course(next(iter(group)), watch)) for label, group in groups[:MOST_LINES])
    course = Panel(f"{name}: the best, first seed", "step", watch, lines)
    return {"results.svg": dots(name, rows), "courses.svg": panels([course])}


def _label(changes: str) -> str:
    values = json.loads(changes)
    return ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in values.items()) or "as it is"


def _course(run: Path, watch: str) -> tuple[tuple[float, float], ...]:
    """Validations by step."""
    lines = [json.loads(line) for line in (run / LOG).read_text().splitlines()]
    known = [line for line in lines if line.get("validation", {}).get(watch) is not None]
    return tuple((line["step"], line["validation"][watch]) for line in known)


def _markdown(columns: list[str], rows: list[dict[str, Any]]) -> str:
    def cell(value: Any) -> str:
        text = f"{value:.3f}" if isinstance(value, float) and abs(value) >= 0.01 else str(value)
        return text.replace("|", "\\|").replace("\n", " ")

    lines = [columns, ["---"] * len(columns), *([cell(row.get(column, "")) for column in columns] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
