"""fit and mesh as the workflow calls them, over height models written as the dsm stage writes them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import zarr

from cityweave.config import GeometryConfig
from cityweave.errors import DataError, MissingCapability, Quarantine
from cityweave.geometry import job, solvers
from cityweave.grid import DIVISIONS, CellGrid
from cityweave.manifest import Manifest, Run, run_job
from cityweave.mesh import load_levels
from cityweave.plan import city_tiles, dsm_box
from tests.geometry import city
from tests.geometry.audit import audit

X0, Y0, SIZE_M = 320000, 4160000, 64


@pytest.fixture
def run(tmp_path, city_values) -> Run:
    city_values["city"] |= {"bounds_m": [X0, Y0, X0 + 2 * SIZE_M, Y0 + 2 * SIZE_M], "heights_m": [-5.0, 150.0]}
    city_values["tiles"] = {"size_m": SIZE_M}
    (tmp_path / "config.json").write_text(json.dumps(city_values))
    return Run.open(tmp_path)


def write_heights(run: Run, broken: int | None = None) -> None:
    for number, tile in enumerate(city_tiles(run.config)):
        grid = CellGrid.covering(dsm_box(run.config, tile), run.config.dsm.gsd_m)

        def work(products, grid=grid, number=number):
            if number == broken:
                raise Quarantine("clouds")
            heights = city.raster(grid.box.xmin - X0, grid.box.ymin - Y0, grid.cols, grid.rows, grid.gsd_m, 0.1)
            with products.path("dsm", ".zarr") as path:
                group = zarr.create_group(path)
                group["dsm"] = heights[::-1]
                group["sigma"] = np.full(heights.shape, 0.3, np.float32)
                group["source"] = np.ones(heights.shape, np.uint8)

        run_job(run, "dsm", work, tile=tile)


def run_all(run: Run) -> dict[str, Manifest]:
    for tile in city_tiles(run.config):
        for division in DIVISIONS:
            job.fit(run, tile, division)
    for tile in city_tiles(run.config):
        job.mesh(run, tile)
    return {t.name: Manifest.read(run.manifest_path("mesh", t)) for t in city_tiles(run.config)}


def test_a_city_of_four_tiles_closes(run):
    write_heights(run)
    manifests = run_all(run)
    for level in range(2):
        meshes = [load_levels(m.product("mesh"))[level] for m in manifests.values()]
        found = audit((mesh.ids, mesh.faces) for mesh in meshes)
        assert (found.boundary_edges, found.nonmanifold_edges) == (0, 0)
    assert all(len(m.notes["neighbours"]) == 3 for m in manifests.values())

    first = {name: m.path.read_bytes() for name, m in manifests.items()}
    assert {name: m.path.read_bytes() for name, m in run_all(run).items()} == first


def test_a_quarantined_tile_is_passed_on_and_walled_off(run):
    write_heights(run, broken=3)
    manifests = run_all(run)
    reasons = [m.quarantined for m in manifests.values()]
    assert reasons == [None, None, None, "clouds"]
    missing = [m.notes.get("quarantined_neighbours") for m in manifests.values()]
    assert missing == [[list(manifests)[3]]] * 3 + [None]
    meshes = [load_levels(m.product("mesh"))[0] for m in manifests.values() if not m.quarantined]
    found = audit((mesh.ids, mesh.faces) for mesh in meshes)
    assert (found.boundary_edges, found.nonmanifold_edges) == (0, 0)


def test_a_height_model_of_another_size_is_refused(run):
    write_heights(run)
    tile = city_tiles(run.config)[0]
    dsm = Manifest.read(run.manifest_path("dsm", tile)).product("dsm")
    del zarr.open_group(dsm)["sigma"]
    zarr.open_group(dsm)["sigma"] = np.zeros((3, 3), np.float32)
    with pytest.raises(DataError, match="sigma has"):
        job.read_heights(run.config, tile, 0, dsm)


@pytest.mark.parametrize("solver", ["grid", "marching_cubes", "flexicubes", "full_sdf"])
def test_other_solvers_make_an_open_mesh_of_the_tile(solver, tmp_path, city_values):
    if solver in ("flexicubes", "full_sdf"):
        pytest.importorskip("torch")
    city_values["city"] |= {"bounds_m": [X0, Y0, X0 + SIZE_M, Y0 + SIZE_M], "heights_m": [-5.0, 150.0]}
    city_values["tiles"] = {"size_m": SIZE_M}
    city_values["geometry"] = {"solver": solver, "cell_m": 2.0, "published": {"steps": 2}}
    (tmp_path / "config.json").write_text(json.dumps(city_values))
    run = Run.open(tmp_path)
    write_heights(run)
    (manifest,) = run_all(run).values()
    fine, coarse = load_levels(manifest.product("mesh"))
    assert len(fine.faces) == len(coarse.faces) > SIZE_M * SIZE_M / 4  # nothing asked to simplify
    xyz, plan = fine.xyz(), fine.xyz()[fine.faces]
    area = np.cross(plan[:, 1] - plan[:, 0], plan[:, 2] - plan[:, 0])[:, 2].sum() / 2
    assert area == pytest.approx(SIZE_M**2, rel=0.01)
    assert xyz[:, :2].min() >= 0 and xyz[:, :2].max() <= SIZE_M
    at = (xyz[:, :2] * 2).astype(int).clip(0, 2 * SIZE_M - 1)
    true = city.raster(0, 0, 2 * SIZE_M, 2 * SIZE_M, 0.5, 0.0)
    edge = city.near_edge(0, 0, 2 * SIZE_M, 2 * SIZE_M, 0.5)
    off = np.abs(fine.world()[:, 2] - true[at[:, 1], at[:, 0]])[~edge[at[:, 1], at[:, 0]]]
    assert np.median(off) < 0.3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"triangles_per_m2": 0.3}, "other solvers"),
        ({"solver": "grid", "cell_m": 3.0}, "twice it"),
        ({"cell_m": 0.3}, "cell_m"),
        ({"blend_m": 4.0}, "blend_m"),
        ({"level_errors_m": [1.0, 0.1]}, "rise"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        GeometryConfig(**values)


@pytest.mark.parametrize(("values", "named"), [({"solver": "flexicubes"}, "torch"), ({"solver": "direct"}, None)])
def test_what_a_solver_lacks_is_said_before_any_job(monkeypatch, values, named):
    monkeypatch.setattr(solvers, "find_spec", lambda name: None)
    if named is None:
        solvers.require_solver(GeometryConfig(**values))
    else:
        with pytest.raises(MissingCapability, match=named):
            solvers.require_solver(GeometryConfig(**values))
