"""The geometry jobs: `fit` turns a height model into the field of one division, `mesh` fields into a tile's mesh.

`sdf_{d}` holds the node heights `h` (float32, [j, i], j north, absolute heights), the index `first` of its
first node, the range `nodes` (i0, j0, i1, j1) that the division owns, and `pitch_m`. Solvers other than `direct` leave
the division's mesh there instead: `vertices` (float64, metres from the tile's corner and z0) and `triangles`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cityweave import gpu
from cityweave.codes import FILLED
from cityweave.config import Config, GeometryConfig
from cityweave.errors import DataError, Quarantine
from cityweave.geometry import direct, marching
from cityweave.geometry.blend import FittedDivision, gather
from cityweave.geometry.field import FieldShape, Lattice
from cityweave.geometry.pieces import Piece, clipped, joined
from cityweave.geometry.simplify import simplify
from cityweave.geometry.solid import close
from cityweave.geometry.surface import LATTICE_RING, SurfaceSettings, extract
from cityweave.geometry.target import pixel_weights
from cityweave.grid import DIVISIONS, Box, CellGrid, Tile
from cityweave.manifest import Manifest, Products, Run, run_job
from cityweave.mesh import TileMesh, save_levels
from cityweave.plan import city_tiles, dsm_box, halos_m

PIECE_HALO_CELLS = 4  # what a division's mesh reaches beyond it before it is cut: nothing is blended


def fit(run: Run, tile: Tile, division: int) -> None:
    dsm = run.manifest_path("dsm", tile)

    def work(products: Products) -> None:
        manifest = Manifest.read(dsm)
        if manifest.quarantined:
            raise Quarantine(manifest.quarantined)
        heights = read_heights(run.config, tile, division, manifest.product("dsm"))
        if run.config.geometry.solver == "direct":
            fitted, steps = fit_division(run.config, heights)
            arrays = _arrays(fitted)
            products.notes["steps"] = steps
        else:
            piece = fit_piece(run.config, tile, division, heights)
            arrays = {"vertices": piece.vertices, "triangles": piece.triangles}
        with products.path(f"sdf_{division}", ".npz") as path, path.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    run_job(run, "geometry", work, name=f"sdf_{division}", tile=tile, inputs={"dsm": dsm})


def mesh(run: Run, tile: Tile) -> None:
    members = set(city_tiles(run.config))
    around = [t for t in tile.ring(1) if t in members]
    files = {f"{t.name}/sdf_{d}": run.manifest_path(f"sdf_{d}", t) for t in around for d in DIVISIONS}

    def work(products: Products) -> None:
        found: dict[Tile, list[Path]] = {}
        for t in around:
            manifests = [Manifest.read(files[f"{t.name}/sdf_{d}"]) for d in DIVISIONS]
            reasons = [manifest.quarantined for manifest in manifests if manifest.quarantined]
            if not reasons:
                found[t] = [manifests[d].product(f"sdf_{d}") for d in DIVISIONS]
            elif t == tile:
                raise Quarantine(reasons[0])
        if run.config.geometry.solver == "direct":
            levels = build(run.config, tile, {t: [_load(path) for path in paths] for t, paths in found.items()})
        else:
            levels = build_of_pieces(run.config, tile, found[tile])
        with products.path("mesh", ".npz") as path:
            save_levels(path, levels)
        products.notes["triangles"] = [len(level.faces) for level in levels]
        products.notes["neighbours"] = sorted(t.name for t in found if t != tile)
        if missing := sorted(t.name for t in around if t not in found):
            products.notes["quarantined_neighbours"] = missing  # the rim goes round them

    run_job(run, "geometry", work, name="mesh", tile=tile, inputs=files)


@dataclass(frozen=True)
class Heights:
    """What a division and the halo around it are fitted to; arrays [y ascending, x]."""

    box: Box
    i0: int  # the first node of the division itself, without the halo
    j0: int
    i1: int
    j1: int
    halo: int  # nodes
    target: np.ndarray
    sigma: np.ndarray
    source: np.ndarray


def read_heights(config: Config, tile: Tile, division: int, dsm: Path) -> Heights:
    import zarr

    settings, pitch_m = config.geometry, config.geometry.pitch_m
    own = tile.division(division)
    halo_m = halos_m(config)["geometry"]
    if settings.solver != "direct":
        halo_m = min(halo_m, PIECE_HALO_CELLS * settings.resolution_m)
    box = own.grow(halo_m)
    grid = CellGrid.covering(dsm_box(config, tile), config.dsm.gsd_m)
    group = zarr.open_group(dsm, mode="r")
    window = grid.window_of(CellGrid.covering(box, grid.gsd_m))
    layers = []
    for name in ("dsm", "sigma", "source"):
        array: Any = group[name]
        if array.shape != grid.shape:
            raise DataError(f"{dsm}: {name} has {array.shape} cells, the tile and its halo need {grid.shape}")
        layers.append(np.asarray(array[window])[::-1])
    if not np.isfinite(layers[0]).any():
        raise Quarantine(f"{tile.name}: the height model of division {division} is empty")
    i0, j0, i1, j1 = (round(edge / pitch_m) for edge in own.as_tuple())
    return Heights(box, i0, j0, i1, j1, round(halo_m / pitch_m), *layers)


def fit_division(config: Config, heights: Heights) -> tuple[FittedDivision, int]:
    settings, target = config.geometry, heights.target
    lattice, steps = direct.fit(
        target,
        pixel_weights(heights.sigma, heights.source == FILLED, target),
        heights.i0 - heights.halo,
        heights.j0 - heights.halo,
        _shape(settings),
        config.dsm.gsd_m,
        direct.FitSettings(
            steps=settings.steps,
            lr_m=settings.lr_m,
            tv=settings.tv,
            laplacian=settings.laplacian,
            normal_tv=settings.normal_tv,
            jump_m=settings.wall_jump_m,
        ),
        gpu.in_use(),
    )
    return FittedDivision(lattice, heights.i0, heights.j0, heights.i1, heights.j1), steps


def fit_piece(config: Config, tile: Tile, division: int, heights: Heights) -> Piece:
    """The mesh of one division by one of the other solvers."""
    settings, own = config.geometry, tile.division(division)
    if settings.solver in ("marching_cubes", "grid"):
        surface = marching.surface(heights.target, config.dsm.gsd_m, settings.resolution_m, settings.solver)
    else:
        from cityweave.geometry import published  # torch

        paper = settings.published
        fitted = published.fit(
            heights.target,
            heights.box.width,
            heights.i1 - heights.i0 + 2 * heights.halo,
            _shape(settings),
            published.PublishedSettings(
                cells=round(heights.box.width / settings.resolution_m),
                unit_m=paper.unit_m or own.width / 2,
                steps=paper.steps,
                lr=paper.lr,
                data=paper.data,
                laplacian=paper.laplacian,
                normal_tv=paper.normal_tv,
                regulariser=paper.regulariser,
                monotone=settings.solver == "flexicubes",
            ),
        )
        surface = fitted.vertices_m, fitted.triangles
    corner = (heights.box.xmin - tile.core.xmin, heights.box.ymin - tile.core.ymin, -config.city.z0_m)
    x0, y0 = own.xmin - tile.core.xmin, own.ymin - tile.core.ymin
    return clipped(Piece(surface[0] + corner, surface[1]), Box(x0, y0, x0 + own.width, y0 + own.height))


def build_of_pieces(config: Config, tile: Tile, paths: list[Path]) -> list[TileMesh]:
    pieces = []
    for path in paths:
        with np.load(path, allow_pickle=False) as data:
            pieces.append(Piece(data["vertices"], data["triangles"]))
    origin_m = (tile.core.xmin, tile.core.ymin, config.city.z0_m)
    settings = config.geometry
    return joined(pieces, tile, origin_m, settings.triangles_per_m2, len(settings.level_errors_m))


def build(config: Config, tile: Tile, divisions: dict[Tile, list[FittedDivision]]) -> list[TileMesh]:
    """Every level of detail of a tile; `divisions` holds the tile's own and those of the neighbours that exist."""
    settings, city = config.geometry, config.city
    cell_m = settings.resolution_m
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


def _arrays(fitted: FittedDivision) -> dict[str, np.ndarray]:
    return {
        "h": fitted.lattice.h,
        "first": np.array([fitted.lattice.i0, fitted.lattice.j0]),
        "nodes": np.array([fitted.i0, fitted.j0, fitted.i1, fitted.j1]),
        "pitch_m": np.array(fitted.lattice.pitch_m),
    }


def _load(path: Path) -> FittedDivision:
    with np.load(path, allow_pickle=False) as data:
        i0, j0 = data["first"].tolist()
        return FittedDivision(Lattice(data["h"], i0, j0, float(data["pitch_m"])), *data["nodes"].tolist())
