"""The bare surfaces of a suite's variants under one sun: python bench/geometry_pictures.py SEED OUT.png VARIANT …

Variants of suite `geometry`, from results/bench/geometry; pictures in rows of three, in the order given.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cityweave.manifest import Run
from cityweave.report.scenes import Stage, clay_picture

WIDTH, HEIGHT, ACROSS = 620, 400, 3


def picture(seed: str, variant: str) -> Image.Image:
    (folder,) = Path(f"results/bench/geometry/{variant}-s{seed}").glob("*/config.json")
    stage = Stage.of(Run.open(folder.parent))
    if stage is None:
        sys.exit(f"{folder.parent} has no textured tile")
    image = Image.fromarray(clay_picture(stage, WIDTH, HEIGHT))
    ImageDraw.Draw(image).text((12, 8), variant.replace("_", " "), (20, 20, 20), ImageFont.load_default(22))
    return image


def main() -> None:
    seed, out, *variants = sys.argv[1:]
    images = [np.asarray(picture(seed, variant)) for variant in variants]
    images += [np.full_like(images[0], 255)] * (-len(images) % ACROSS)
    rows = [np.concatenate(images[k : k + ACROSS], axis=1) for k in range(0, len(images), ACROSS)]
    Image.fromarray(np.concatenate(rows)).save(out, optimize=True)


if __name__ == "__main__":
    main()
