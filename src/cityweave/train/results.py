"""One table of a training, gathered from what its runs wrote."""

from __future__ import annotations

import csv
import io
import json
import statistics
from pathlib import Path
from typing import Any

from cityweave.errors import DataError
from cityweave.train.runs import CONFIG, FAILED, RESULT, read_run

LOG = "log.jsonl"


def gather(folder: Path) -> str:
    """Write results.csv and results.md; returns the latter."""
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
    groups: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        if result := _result(run):
            changes = {key: value for key, value in result["changes"].items() if key != "seed"}
            groups.setdefault(json.dumps(changes), []).append(result)
    if all(len(group) < 2 for group in groups.values()):
        return ""
    rows = []
    for changes_text, group in groups.items():
        row: dict[str, Any] = {**json.loads(changes_text), "seeds": len(group)}
        for name in _figures(group[0]):
            values = [result["figures"][name] for result in group]
            row[name] = f"{statistics.fmean(values):.3f} ({min(values):.3f} to {max(values):.3f})"
        rows.append(row)
    return _markdown(list(rows[0]), rows)


def _markdown(columns: list[str], rows: list[dict[str, Any]]) -> str:
    def cell(value: Any) -> str:
        text = f"{value:.3f}" if isinstance(value, float) and abs(value) >= 0.01 else str(value)
        return text.replace("|", "\\|").replace("\n", " ")

    lines = [columns, ["---"] * len(columns), *([cell(row.get(column, "")) for column in columns] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
