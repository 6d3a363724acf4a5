"""The geometry jobs: `fit` turns a height model into the field of one division, `mesh` fields into a tile's mesh.

`sdf_{d}` holds the node heights `h` (float32, [j, i], j north, absolute heights), the index `first` of its
first node, the range `nodes` (i0, j0, i1, j1) that the division owns, and `pitch_m`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cityweave.config import Config, GeometryConfig
from cityweave.errors import DataError, Quarantine
from cityweave.geometry import direct
from cityweave.geometry.blend import FittedDivision, gather
from cityweave.geometry.field import FieldShape, Lattice
from cityweave.geometry.simplify import simplify
from cityweave.geometry.solid import close
from cityweave.geometry.surface import LATTICE_RING, SurfaceSettings, extract
from cityweave.geometry.target import pixel_weights
from cityweave.grid import DIVISIONS, Box, CellGrid, Tile
from cityweave.manifest import Manifest, Products, Run, run_job
from cityweave.mesh import TileMesh, save_levels
from cityweave.plan import city_tiles, dsm_box, halos_m

FILLED = 2  # in the layer `source` of a height model


def fit(run: Run, tile: Tile, division: int) -> None:
    heights = run.manifest_path("dsm", tile)

    def work(products: Products) -> None:
        manifest = Manifest.read(heights)
        if manifest.quarantined:
            raise Quarantine(manifest.quarantined)
        fitted, steps = fit_division(run.config, tile, division, manifest.product("dsm"))
        with products.path(f"sdf_{division}", ".npz") as path:
            _save(path, fitted)
        products.notes["steps"] = steps

    run_job(run, "geometry", work, name=f"sdf_{division}", tile=tile, inputs={"dsm": heights})


def mesh(run: Run, tile: Tile) -> None:
    members = set(city_tiles(run.config))
    around = [t for t in tile.ring(1) if t in members]
    files = {f"{t.name}/sdf_{d}": run.manifest_path(f"sdf_{d}", t) for t in around for d in DIVISIONS}

    def work(products: Products) -> None:
        divisions: dict[Tile, list[FittedDivision]] = {}
        for t in around:
            manifests = [Manifest.read(files[f"{t.name}/sdf_{d}"]) for d in DIVISIONS]
            reasons = [manifest.quarantined for manifest in manifests if manifest.quarantined]
            if not reasons:
                divisions[t] = [_load(manifests[d].product(f"sdf_{d}")) for d in DIVISIONS]
            elif t == tile:
                raise Quarantine(reasons[0])
        levels = build(run.config, tile, divisions)
        with products.path("mesh", ".npz") as path:
            save_levels(path, levels)
        products.notes["triangles"] = [len(level.faces) for level in levels]
        products.notes["neighbours"] = sorted(t.name for t in divisions if t != tile)

    run_job(run, "geometry", work, name="mesh", tile=tile, inputs=files)


def fit_division(config: Config, tile: Tile, division: int, dsm: Path) -> tuple[FittedDivision, int]:
    settings, gsd_m = config.geometry, config.dsm.gsd_m
    pitch_m = settings.pitch_m
    box = tile.division(division)
    halo_m = halos_m(config)["geometry"]
    halo = round(halo_m / pitch_m)
    i0, j0, i1, j1 = (round(edge / pitch_m) for edge in box.as_tuple())
    target, sigma, source = _read_heights(dsm, CellGrid.covering(dsm_box(config, tile), gsd_m), box.grow(halo_m))
    if not np.isfinite(target).any():
        raise Quarantine(f"{tile.name}: the height model of division {division} is empty")
    lattice, steps = direct.fit(
        target,
        pixel_weights(sigma, source == FILLED, target),
        i0 - halo,
        j0 - halo,
        _shape(settings),
        gsd_m,
        direct.FitSettings(
            steps=settings.steps,
            lr_m=settings.lr_m,
            tv=settings.tv,
            laplacian=settings.laplacian,
            normal_tv=settings.normal_tv,
            jump_m=settings.wall_jump_m,
        ),
    )
    return FittedDivision(lattice, i0, j0, i1, j1), steps


def build(config: Config, tile: Tile, divisions: dict[Tile, list[FittedDivision]]) -> list[TileMesh]:
    """Every level of detail of a tile; `divisions` holds the tile's own and those of the neighbours that exist."""
    settings, city = config.geometry, config.city
    cell_m = settings.cell_m or settings.pitch_m
    core = tile.core
    n = round(tile.size_m / cell_m)
    i0, j0 = round(core.xmin / settings.pitch_m), round(core.ymin / settings.pitch_m)
    nodes = round(tile.size_m / settings.pitch_m) + 2 * LATTICE_RING
    lattice = gather(
        [d for fitted in divisions.values() for d in fitted],
        i0 - LATTICE_RING, j0 - LATTICE_RING, nodes, nodes, settings.ramp_nodes,
    )  # fmt: skip
    present = np.array([t in divisions for t in tile.ring(1)]).reshape(3, 3)
    patch = extract(
        lattice,
        _shape(settings),
        SurfaceSettings(cell_m, settings.wall_jump_m, settings.wall_slope_deg),
        round(core.xmin / cell_m),
        round(core.ymin / cell_m),
        n,
        present,
        (core.xmin, core.ymin),
        city.z0_m,
        city.base_m,
    )
    origin_m = (core.xmin, core.ymin, city.z0_m)
    return [close(patch, tri, origin_m) for tri in simplify(patch, settings.level_errors_m)]


def _shape(settings: GeometryConfig) -> FieldShape:
    return FieldShape(settings.pitch_m, settings.softness_m, settings.beta, settings.reading)


def _read_heights(path: Path, grid: CellGrid, box: Box) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dsm, sigma and source of the cells under `box`, rows ascending."""
    import zarr

    group = zarr.open_group(path, mode="r")
    window = grid.window_of(CellGrid.covering(box, grid.gsd_m))
    layers = []
    for name in ("dsm", "sigma", "source"):
        array: Any = group[name]
        if array.shape != grid.shape:
            raise DataError(f"{path}: {name} has {array.shape} cells, the tile and its halo need {grid.shape}")
        layers.append(np.asarray(array[window])[::-1])
    return layers[0], layers[1], layers[2]


def _save(path: Path, fitted: FittedDivision) -> None:
    with path.open("wb") as file:
        np.savez(
            file,
            h=fitted.lattice.h,
            first=np.array([fitted.lattice.i0, fitted.lattice.j0]),
            nodes=np.array([fitted.i0, fitted.j0, fitted.i1, fitted.j1]),
            pitch_m=np.array(fitted.lattice.pitch_m),
        )


def _load(path: Path) -> FittedDivision:
    with np.load(path, allow_pickle=False) as data:
        i0, j0 = data["first"].tolist()
        return FittedDivision(Lattice(data["h"], i0, j0, float(data["pitch_m"])), *data["nodes"].tolist())
