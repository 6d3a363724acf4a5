"""Are heights worse at the tiles' borders? python bench/stereo_borders.py FOLDER

Each variant of the suite `stereo`, by `cityweave border`: the city is computed twice, the second time with tiles moved
by half a tile, and errors near the borders of the one are compared with those of the same cells inside the other's.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
SEEDS = (1, 2)


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    suite = yaml.safe_load((ROOT / "config" / "bench" / "stereo.yaml").read_text())
    print("| variant | seed | border ratio | its 95 % interval |\n|---|---|---|---|")
    for seed in SEEDS:
        for name, variant in suite["variants"].items():
            config: dict[str, Any] = yaml.safe_load(yaml.safe_dump(suite["config"]))
            for section, values in variant.get("config", {}).items():
                config[section] = config.get(section, {}) | values
            config["city"]["name"] = f"{name}_{seed}"
            config |= {"seed": seed, "workflow": config["workflow"] | {"results": str(folder)}}
            file = folder / f"{name}_{seed}.yaml"
            file.write_text(yaml.safe_dump(config, sort_keys=False))
            program = str(Path(sys.executable).with_name("snakemake"))
            snakemake = [program, "--cores", "all", "--quiet", "all", "--configfile"]
            for command in (
                [*snakemake, str(file)],
                [*snakemake, str(file), "--config", "tiles={shift_m: half}", "--", "heights"],
                [sys.executable, "-m", "cityweave", "border", "--config", str(file)],
            ):
                subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
            found = json.loads((folder / f"{name}_{seed}" / "metrics.json").read_text())["dsm"]
            low, high = found["border_ratio_interval"]
            print(f"| {name} | {seed} | {found['border_ratio']:.3f} | {low:.3f} to {high:.3f} |", flush=True)


if __name__ == "__main__":
    main()
