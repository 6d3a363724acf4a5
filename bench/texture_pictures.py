"""An unseen view beside the truth, enlarged: python bench/texture_pictures.py SEED VIEW LEFT TOP OUT.png VARIANT …

Variants of suite `texture`, from results/bench/texture, and before them the truth, from the pictures that the
evaluation kept; SIDE pixels from (LEFT, TOP) on, every pixel as a square.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIDE, TIMES, GAP = 190, 3, 4


def halves(seed: str, view: str, variant: str) -> tuple[Image.Image, Image.Image]:
    (path,) = Path(f"results/bench/texture/{variant}-s{seed}").glob(f"*/city/pictures.*/{view}.jpg")
    with Image.open(path) as picture:
        width = (picture.width - GAP) // 2
        return picture.crop((0, 0, width, picture.height)), picture.crop(
            (width + GAP, 0, picture.width, picture.height)
        )


def enlarged(picture: Image.Image, left: int, top: int, name: str) -> np.ndarray:
    part = picture.crop((left, top, left + SIDE, top + SIDE)).resize((SIDE * TIMES,) * 2, Image.Resampling.NEAREST)
    ImageDraw.Draw(part).text((10, 6), name, (255, 255, 255), ImageFont.load_default(24), stroke_width=2, stroke_fill=0)
    return np.asarray(part)


def main() -> None:
    seed, view, left, top, out, *variants = sys.argv[1:]
    place = int(left), int(top)
    parts = [enlarged(halves(seed, view, variants[0])[0], *place, "truth")]
    parts += [enlarged(halves(seed, view, variant)[1], *place, variant.replace("_", " ")) for variant in variants]
    Image.fromarray(np.concatenate(parts, axis=1)).save(out, optimize=True)


if __name__ == "__main__":
    main()
