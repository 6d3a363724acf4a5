"""The texture product of a tile: one atlas for all levels of detail, and how to cut a level's picture out of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cityweave.errors import DataError

PNG_LEVEL = 6  # fixed: the bytes of a product must not follow a library's default
# Provenance beside the number of views that saw a texel: restored views alone, colours from around, no texel.
GENERATED, INFERRED, OUTSIDE = 253, 254, 255
MAX_COUNT = 252
NO_VIEW = 255  # leads where no satellite saw it


@dataclass(frozen=True)
class AtlasLayout:
    """Size in texels; `band_rows` = rows where level 0's walls start, level 1's, ..., and the height.

    `top_origin_m`: west and north edge of the plan view in tile-local metres.
    """

    width: int
    height: int
    band_rows: tuple[int, ...]
    top_texel_m: float
    top_origin_m: tuple[float, float]

    @property
    def levels(self) -> int:
        return len(self.band_rows) - 1

    def plan_px(self, xyz_nx3: np.ndarray) -> np.ndarray:
        """Local metres to atlas texels (n,2) of the plan view: x right, y down."""
        west, north = self.top_origin_m
        return np.stack([xyz_nx3[:, 0] - west, north - xyz_nx3[:, 1]], axis=1) / self.top_texel_m


@dataclass(frozen=True)
class TileTexture:
    """colour uint8 [h,w,3]; provenance uint8 [h,w]; lead uint8 [h,w], number of the view that a colour owes most to, as
    the manifest lists them; uv per level float32 (m,3,2) in 0..1, v down."""

    layout: AtlasLayout
    colour: np.ndarray
    provenance: np.ndarray
    lead: np.ndarray
    uv: list[np.ndarray]


def save_png(path: Path, picture: np.ndarray) -> None:
    from PIL import Image

    Image.fromarray(np.ascontiguousarray(picture)).save(path, format="PNG", compress_level=PNG_LEVEL)


def load_png(path: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image)


def save_texture(folder: Path, texture: TileTexture) -> None:
    """atlas.png, provenance.png, lead.png and uv.npz; bytes follow from the content alone."""
    folder.mkdir(parents=True, exist_ok=True)
    save_png(folder / "atlas.png", texture.colour)
    save_png(folder / "provenance.png", texture.provenance)
    save_png(folder / "lead.png", texture.lead)
    layout = texture.layout
    arrays = {f"l{k}_uv": uv for k, uv in enumerate(texture.uv)}
    arrays["band_rows"] = np.asarray(layout.band_rows, np.int64)
    arrays["plan"] = np.asarray([layout.top_texel_m, *layout.top_origin_m], np.float64)
    with (folder / "uv.npz").open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def load_texture(folder: Path) -> TileTexture:
    for name in ("atlas.png", "provenance.png", "lead.png", "uv.npz"):
        if not (folder / name).is_file():
            raise DataError(f"{folder} is no texture product: {name} is missing")
    colour, provenance, lead = (load_png(folder / f"{name}.png") for name in ("atlas", "provenance", "lead"))
    with np.load(folder / "uv.npz", allow_pickle=False) as data:
        band_rows = tuple(int(row) for row in data["band_rows"])
        texel, west, north = (float(value) for value in data["plan"])
        uv = [data[f"l{k}_uv"] for k in range(len(band_rows) - 1)]
    layout = AtlasLayout(colour.shape[1], colour.shape[0], band_rows, texel, (west, north))
    return TileTexture(layout, colour, provenance, lead, uv)


def level_picture(texture: TileTexture, level: int) -> tuple[np.ndarray, np.ndarray]:
    """A level's own picture, uint8 [h,w,3], and its texture coordinates (m,3,2) in that picture.

    The plan view is averaged over 2^level x 2^level texels; the level's walls are already that coarse.
    """
    layout, k = texture.layout, level
    top, start, stop = layout.band_rows[0], layout.band_rows[k], layout.band_rows[k + 1]
    width = layout.width >> k
    above = halved(texture.colour[:top], k)
    picture = np.concatenate([above, texture.colour[start:stop, :width]])
    px = texture.uv[k].astype(np.float64) * [layout.width, layout.height]
    # Only walls have a corner below the top band, and all their corners do.
    wall = (px[:, :, 1] > top).all(axis=1)
    out = px / 2**k
    out[wall] = px[wall] + [0.0, (top >> k) - start]
    return picture, (out / [width, picture.shape[0]]).astype(np.float32)


def halved(picture: np.ndarray, times: int) -> np.ndarray:
    """Mean over 2^times squares, rounded; sides are cut to a multiple."""
    side = 2**times
    if side == 1:
        return picture
    rows, cols = picture.shape[0] // side, picture.shape[1] // side
    blocks = picture[: rows * side, : cols * side].reshape(rows, side, cols, side, -1)
    mean = (blocks.sum(axis=(1, 3), dtype=np.uint32) + side * side // 2) // (side * side)
    return mean.astype(np.uint8).reshape((rows, cols, *picture.shape[2:]))
