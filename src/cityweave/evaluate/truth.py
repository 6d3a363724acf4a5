"""What is known to be true: the files of a synthetic city, or a reference height raster inside the AOIs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cityweave.aoi import REFERENCE, Aoi
from cityweave.cameras import Pinhole
from cityweave.errors import DataError
from cityweave.evaluate.surface import Triangles
from cityweave.grid import CellGrid, Tile
from cityweave.io.raster import open_raster, warp_to_grid
from cityweave.manifest import Manifest, Run

STREET = "street_"  # what the names of views from there begin with


@dataclass(frozen=True)
class TestView:
    """An unseen view: camera in the frame that counts from `origin`, and the true picture."""

    __test__ = False  # not a test case, whatever pytest thinks of its name

    name: str
    camera: Pinhole
    picture: Path

    @property
    def from_street(self) -> bool:
        return self.name.startswith(STREET)

    def pixels(self) -> NDArray[np.uint8]:
        from PIL import Image

        with Image.open(self.picture) as image:
            return np.asarray(image.convert("RGB"))


class Truth:
    """Height references for any real city; mesh, masks and views for a synthetic one.

    `origin` (E, N, height) is what every mesh and camera of the evaluation counts from.
    """

    def __init__(self, run: Run) -> None:
        config = run.config
        self.run = run
        self.origin = np.array([config.city.box.xmin, config.city.box.ymin, config.city.z0_m])
        # A shifted run has its sources in the city's own folder.
        folder = run.folder.parent / config.city.name / "sources" / "truth"
        self.folder: Path | None = folder if config.synth is not None else None
        if self.folder is not None and not self.folder.is_dir():
            raise DataError(
                f"{self.folder} is not there; rerun with: snakemake --force {folder.parent.parent}/city/synth.json"
            )

    @property
    def is_synthetic(self) -> bool:
        return self.folder is not None

    def heights(self, grid: CellGrid) -> NDArray[np.float32]:
        """True surface heights, NaN where unknown."""
        if self.folder is not None:
            return self._raster(self.folder / "dsm.tif", grid)
        return self._from_aois(grid)

    def ground(self, grid: CellGrid) -> NDArray[np.float32] | None:
        return self._raster(self.folder / "dtm.tif", grid) if self.folder is not None else None

    def buildings(self, grid: CellGrid) -> NDArray[np.bool_] | None:
        if self.folder is None:
            return None
        share = self._raster(self.folder / "building_mask.tif", grid)
        return np.nan_to_num(share, nan=0.0) > 0.5  # type: ignore[no-any-return]

    def _raster(self, path: Path, grid: CellGrid) -> NDArray[np.float32]:
        same = read_cells(path, grid)
        return warp_to_grid(path, grid, self.run.config.city.crs).values[0] if same is None else same

    def _from_aois(self, grid: CellGrid) -> NDArray[np.float32]:
        """Ingest has brought the reference onto the city's cells and into its vertical reference."""
        out = np.full(grid.shape, np.nan, np.float32)
        for tile, aoi in self._aois:
            core = CellGrid.covering(tile.core, grid.gsd_m)
            part = grid.overlap(core)
            if part is None:
                continue
            aoi_grid, values = aoi.raster(REFERENCE)
            if aoi_grid.gsd_m != grid.gsd_m:
                raise DataError(f"{aoi.path}: reference at {aoi_grid.gsd_m} m, the height model has {grid.gsd_m} m")
            common = part.overlap(aoi_grid)
            if common is not None:
                out[grid.window_of(common)] = values[aoi_grid.window_of(common)]
        return out

    @cached_property
    def _aois(self) -> list[tuple[Tile, Aoi]]:
        from cityweave.plan import city_tiles

        found = []
        for tile in city_tiles(self.run.config):
            path = self.run.manifest_path("ingest", tile)
            if path.is_file():
                manifest = Manifest.read(path)
                if manifest.quarantined is None:
                    aoi = Aoi(manifest.product("aoi"))
                    if aoi.has(REFERENCE):
                        found.append((tile, aoi))
        return found

    @cached_property
    def mesh(self) -> Triangles | None:
        """The true mesh in metres from `origin`, materials as labels."""
        if self.folder is None or not (self.folder / "mesh.npz").is_file():
            return None
        with np.load(self.folder / "mesh.npz", allow_pickle=False) as data:
            points = data["vertices"].astype(np.float64) + (data["origin_m"] - self.origin)
            return Triangles(
                points, np.arange(len(points)), data["faces"].astype(np.int32), data["material"].astype(np.uint8)
            )

    def views(self) -> list[TestView]:
        if self.folder is None or not (self.folder / "test_views.json").is_file():
            return []
        document = json.loads((self.folder / "test_views.json").read_text())
        return [self._view(entry) for entry in document["views"]]

    def _view(self, entry: dict[str, Any]) -> TestView:
        assert self.folder is not None
        camera = Pinhole(
            np.asarray(entry["position"], np.float64) - self.origin,
            np.asarray(entry["rotation"], np.float64),
            float(entry["focal_px"]),
            float(entry["cx"]),
            float(entry["cy"]),
            int(entry["width"]),
            int(entry["height"]),
        )
        return TestView(entry["name"], camera, self.folder / entry["picture"])


def read_cells(path: Path, grid: CellGrid, band: int = 1) -> NDArray[np.float32] | None:
    """The raster's cells on `grid`, NaN outside and at nodata; None when its cells are others."""
    from rasterio.windows import Window

    with open_raster(path) as dataset:
        t = dataset.transform
        col, row = (grid.box.xmin - t.c) / grid.gsd_m, (t.f - grid.box.ymax) / grid.gsd_m
        aligned = (
            t.b == 0 and t.d == 0 and np.isclose(t.a, grid.gsd_m, rtol=1e-9) and np.isclose(t.e, -grid.gsd_m, rtol=1e-9)
            and abs(col - round(col)) < 1e-3 and abs(row - round(row)) < 1e-3
        )  # fmt: skip
        if not aligned:
            return None
        window = Window(round(col), round(row), grid.cols, grid.rows)
        values = dataset.read(band, window=window, boundless=False) if _inside(dataset, window) else None
        if values is None:
            values = dataset.read(band, window=window, boundless=True, fill_value=dataset.nodata or 0)
            outside = np.ones(grid.shape, np.bool_)
            top, left = max(0, -window.row_off), max(0, -window.col_off)
            bottom, right = max(0, dataset.height - window.row_off), max(0, dataset.width - window.col_off)
            outside[top:bottom, left:right] = False
        else:
            outside = np.zeros(grid.shape, np.bool_)
        if dataset.nodata is not None and not np.isnan(dataset.nodata):
            outside |= values == dataset.nodata
    out = values.astype(np.float32)
    out[outside] = np.nan
    return out


def _inside(dataset: Any, window: Any) -> bool:
    return (  # type: ignore[no-any-return]
        window.row_off >= 0
        and window.col_off >= 0
        and window.row_off + window.height <= dataset.height
        and window.col_off + window.width <= dataset.width
    )
