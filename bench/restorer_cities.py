"""The cities that the restorer is trained on: python bench/restorer_cities.py [FOLDER]

Synthetic cities of seeds 51 to 66, photographed by 4 to 7 views of random angles over two dates, worked on as far as
their textures by the workflow. Into results/restorer unless told otherwise; what is done isn't done again.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from cityweave.machine import usable_cores
from cityweave.plan import city_tiles, load_config, run_folder

SEEDS = range(51, 67)
SUITE = Path(__file__).resolve().parents[1] / "config/bench/texture.yaml"
SUNS = (
    {"date": "2025-06-18T08:31:00Z", "sun_azimuth_deg": 138, "sun_elevation_deg": 62},
    {"date": "2025-09-07T08:34:00Z", "sun_azimuth_deg": 152, "sun_elevation_deg": 50},
)


def city_of(seed: int, base: dict[str, Any], folder: Path) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    values = copy.deepcopy(base)
    count = int(rng.integers(4, 8))
    values["synth"]["views"] = [
        {
            "name": f"v{k:02d}",
            "off_nadir_deg": float(np.round(3 + rng.random() * 23, 1)),
            "azimuth_deg": float(np.round((k * 360 / count + rng.random() * 40) % 360, 1)),
            **SUNS[0 if k < (count + 1) // 2 else 1],
        }
        for k in range(count)
    ]
    values["synth"] |= {"test_heights_m": [450], "test_headings_deg": [45], "test_size_px": 256, "test_street_views": 0}
    values["city"]["name"] = f"s{seed}"
    return values | {"seed": seed, "workflow": {"pack": {"tiles": 4}, "results": str(folder)}}


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "results/restorer").resolve()
    base = yaml.safe_load(SUITE.read_text())["config"]
    for seed in SEEDS:
        values = city_of(seed, base, folder)
        config = load_config(values)
        wanted = [run_folder(config) / "tiles" / tile.name / "texture.json" for tile in city_tiles(config)]
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump(values, file)
            file.flush()
            command = [str(Path(sys.executable).with_name("snakemake")), "--cores", str(usable_cores())]
            subprocess.run(
                [*command, "--configfile", file.name, "--quiet", "all", "--", *map(str, wanted)],
                check=True,
                env={**os.environ, "PYTHONWARNINGS": "ignore"},
            )


if __name__ == "__main__":
    main()
