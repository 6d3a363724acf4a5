"""What the share of tall cities in training does to heights above 60 m, and to usual ones.

    python bench/tall_share.py training/cityscale_share docs

Scores every run of config/train/cityscale_share_sweep.yaml in the unseen cities of config/train/regions.yaml, of usual
height and tall; writes cityscale_tall_share.svg and prints a table.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from cityweave.plots import Panel, Series, panels
from cityweave.train.regions import Regions, evaluate
from cityweave.train.runs import CONFIG, RESULT, WEIGHTS
from cityweave.train.settings import read_yaml, validated

TALL_M = 80.0
REGIONS = {"in_domain": "usual height", "in_domain_tall": "tall"}


def tall_share(run: Path) -> float:
    """Of the windows that are drawn: cities in which the tallest building has TALL_M at least."""
    entries = json.loads((run / CONFIG).read_text())["settings"]["data"]["train"]["synthetic"]
    drawn = [(entry["max_height_m"][0] >= TALL_M, entry["weight"] * entry["count"]) for entry in entries]
    return sum(weight for tall, weight in drawn if tall) / sum(weight for _, weight in drawn)


def scored(runs: dict[float, Path]) -> dict[str, dict[float, dict[str, Any]]]:
    values = read_yaml(Path("config/train/regions.yaml"))
    values["cityscale"] = {f"{share:.4f}": str(run / WEIGHTS) for share, run in runs.items()}
    values["heights"] = {}
    values["regions"] = {name: values["regions"][name] for name in REGIONS}
    figures = evaluate(validated(Regions, values, "config/train/regions.yaml"))
    return {name: {share: figures[name][f"{share:.4f}"] for share in runs} for name in REGIONS}


def main(folder: Path, to: Path) -> None:
    runs = {tall_share(result.parent): result.parent for result in folder.glob(f"run-*/{RESULT}")}
    figures = scored(dict(sorted(runs.items())))
    drawn = []
    for key, label in (("mae_m", "MAE, m"), ("slope_above_60m", "slope above 60 m")):
        rows = {REGIONS[name]: each for name, each in figures.items() if key == "mae_m" or name == "in_domain_tall"}
        lines = tuple(
            Series(name, tuple((100 * share, row[key]) for share, row in each.items())) for name, each in rows.items()
        )
        drawn.append(Panel(label, "share of tall cities, %", "", lines))
    (to / "cityscale_tall_share.svg").write_text(panels(drawn))
    print("| tall cities | MAE, usual height | MAE, tall | MAE above 60 m | slope above 60 m |")
    print("|---|---|---|---|---|")
    for share in sorted(runs):
        usual, tall = (figures[name][share] for name in REGIONS)
        above = tall["bands"]["above 60 m"]["mae_m"]
        cells = (usual["mae_m"], tall["mae_m"], above, tall["slope_above_60m"])
        print(f"| {share:.0%} | " + " | ".join(f"{cell:.2f}" for cell in cells) + " |")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
