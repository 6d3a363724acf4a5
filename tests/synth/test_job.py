"""Everything a synthetic city hands out, from a configuration, in bytes that depend on nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cityweave.cameras import RPC, Pinhole, geodetic_transform
from cityweave.config import Config
from cityweave.errors import ConfigError, DataError
from cityweave.plan import load_config
from cityweave.render.rasterise import rasterise_pinhole
from cityweave.synth.job import write_sources

VIEWS = [
    {"name": "a", "off_nadir_deg": 5, "azimuth_deg": 200, "date": "2025-06-18", "sun_azimuth_deg": 140}
    | {"sun_elevation_deg": 60},
    {"name": "b", "off_nadir_deg": 20, "azimuth_deg": 20, "date": "2025-06-18", "sun_azimuth_deg": 140}
    | {"sun_elevation_deg": 60},
]


def small(**synth: object) -> Config:
    return load_config(
        {
            "city": {
                "name": "small",
                "crs": "EPSG:32637",
                "vertical": "ellipsoid",
                "bounds_m": [315456, 4161600, 315520, 4161664],
                "heights_m": [550, 700],
            },
            "seed": 7,
            "tiles": {"size_m": 64},
            "synth": {"margin_m": 30, "gsd_m": 0.6, "views": VIEWS, "test_size_px": 96, "max_height_m": 40}
            | {"test_headings_deg": [20], "test_heights_m": [200]}
            | synth,
        }
    )


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    write_sources(small(), folder, threads=1)
    return folder


def test_same_bytes_with_more_threads_and_in_another_folder(sources: Path, tmp_path: Path) -> None:
    write_sources(small(), tmp_path / "elsewhere", threads=2)
    files = sorted(p.relative_to(sources) for p in sources.rglob("*") if p.is_file())
    assert len(files) == 14
    assert files == sorted(p.relative_to(tmp_path / "elsewhere") for p in (tmp_path / "elsewhere").rglob("*.*"))
    for file in files:
        assert (sources / file).read_bytes() == (tmp_path / "elsewhere" / file).read_bytes(), file


def test_views_show_what_their_rpc_says(sources: Path) -> None:
    """Laid on the true surface through their RPCs, two views agree, and moved by a pixel they agree less."""
    import rasterio

    with rasterio.open(sources / "truth" / "dsm.tif") as file:
        dsm, t = file.read(1), file.transform
    rows, cols = np.mgrid[60 : dsm.shape[0] - 60, 60 : dsm.shape[1] - 60]
    x, y = t.c + (cols + 0.5) * t.a, t.f + (rows + 0.5) * t.e
    geodetic = geodetic_transform("EPSG:32637")(x.ravel(), y.ravel(), dsm[rows, cols].ravel())
    laid = []
    for name in "ab":
        with rasterio.open(sources / "views" / f"{name}.tif") as file:
            assert file.nodata == 0 and file.dtypes == ("uint16",) * 3
            assert file.tags()["ACQUISITION_TIME"] == "2025-06-18"
            assert float(file.tags()["SUN_ELEVATION"]) == 60.0
            rpc, image = RPC.from_tags(file.tags(ns="RPC")), file.read(2).astype(float)
        u, v = (c.reshape(x.shape) for c in rpc.project(*geodetic))
        laid.append(lambda du, u=u, v=v, image=image: image[v.astype(int), (u + du).astype(int)])
    agreement = [np.corrcoef(laid[0](0).ravel(), laid[1](d).ravel())[0, 1] for d in (-2, 0, 2)]
    assert agreement[1] > 0.6
    assert agreement[1] > max(agreement[0], agreement[2]) + 0.03


def test_truth_agrees_with_itself(sources: Path) -> None:
    import rasterio

    layers = {}
    for name in ("dsm", "dtm", "building_mask", "tree_mask"):
        with rasterio.open(sources / "truth" / f"{name}.tif") as file:
            layers[name] = file.read(1)
            assert file.crs.to_epsg() == 32637
    assert (layers["dsm"] - layers["dtm"] > -0.02).all()
    high = layers["dsm"] - layers["dtm"] > 5.0
    assert layers["building_mask"][high].mean() > 0.8
    assert not (layers["building_mask"] & layers["tree_mask"]).any()
    with rasterio.open(sources / "reference.tif") as file:
        np.testing.assert_array_equal(file.read(1), layers["dsm"])


def test_unseen_views_fit_the_true_mesh(sources: Path) -> None:
    """The camera's file and the mesh's file together say which pixels see nothing; the picture is black there."""
    from PIL import Image

    document = json.loads((sources / "truth" / "test_views.json").read_text())
    entry = document["views"][0]
    mesh = np.load(sources / "truth" / "mesh.npz")
    camera = Pinhole(
        np.array(entry["position"]) - mesh["origin_m"], np.array(entry["rotation"]), entry["focal_px"], entry["cx"]
    , entry["cy"], entry["width"], entry["height"])  # fmt: skip
    points = (mesh["vertices"] - camera.position) @ camera.rotation.T
    seen = rasterise_pinhole(points, mesh["faces"], camera.focal_px, camera.cx, camera.cy, camera.width, camera.height)
    picture = np.asarray(Image.open(sources / "truth" / entry["picture"]))
    black = (picture == 0).all(axis=-1)
    assert 0.1 < black.mean() < 0.9
    assert (black == ~seen.seen).mean() > 0.97
    pitch = np.degrees(np.arcsin(-camera.rotation[2, 2]))
    assert pitch == pytest.approx(45.0, abs=0.01)
    aim = camera.position + camera.rotation[2] * (200 * np.sqrt(2))
    assert (aim[:2] > 0).all() and (aim[:2] < 64).all()


def test_city_outside_the_stated_heights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="heights_m"):
        write_sources(small(ground_m=690.0), tmp_path)


def write_obj(path: Path) -> Path:
    """A house of 20 m x 20 m x 9 m with a ridge, in the middle of the small city, its foot at 562 m."""
    corners = [(x, y, z) for z in (562, 568) for x, y in ((0, 0), (20, 0), (20, 20), (0, 20))] + [
        (0, 10, 571),
        (20, 10, 571),
    ]
    faces = [[0, 3, 2, 1], [0, 1, 5, 4], [2, 3, 7, 6], [1, 2, 6, 9, 5], [3, 0, 4, 8, 7], [4, 5, 9, 8], [6, 7, 8, 9]]
    lines = [f"v {315478 + x} {4161622 + y} {z}" for x, y, z in corners]
    path.write_text("\n".join(lines + ["f " + " ".join(str(i + 1) for i in f) for f in faces]))
    return path


def test_a_loaded_model_is_photographed_where_it_stands(tmp_path: Path) -> None:
    import rasterio

    write_sources(small(model=write_obj(tmp_path / "house.obj")), tmp_path / "out")
    with rasterio.open(tmp_path / "out" / "truth" / "dsm.tif") as file:
        dsm = file.read(1)
        row, col = file.index(315488, 4161632.2)
    assert dsm[row, col] == pytest.approx(571.0, abs=0.2)
    assert dsm[10, 10] == pytest.approx(562.0, abs=0.5)
    with rasterio.open(tmp_path / "out" / "truth" / "building_mask.tif") as file:
        assert file.read(1).sum() * 0.25 == pytest.approx(400.0, rel=0.02)


def test_a_model_elsewhere_is_refused(tmp_path: Path) -> None:
    path = write_obj(tmp_path / "house.obj")
    with pytest.raises(DataError, match="accepted"):
        write_sources(small(model=path, model_offset_m=[5000, 0, 0]), tmp_path / "out")


def test_a_real_city_model_is_photographed(shared_data: Path, tmp_path: Path) -> None:
    import rasterio

    config = load_config(
        {
            "city": {
                "name": "delft",
                "crs": "EPSG:28992",
                "vertical": "ellipsoid",
                "bounds_m": [84928, 447520, 84992, 447584],
                "heights_m": [-15, 60],
            },
            "tiles": {"size_m": 64},
            "synth": {"margin_m": 30, "gsd_m": 0.6, "views": VIEWS, "test_size_px": 64, "test_headings_deg": [0]}
            | {"model": str(shared_data / "delft" / "delft.city.json"), "test_heights_m": [200]},
        }
    )
    notes = write_sources(config, tmp_path)
    assert notes["triangles"]["wall"] > 200
    with rasterio.open(tmp_path / "truth" / "building_mask.tif") as file:
        assert 0.15 < file.read(1).mean() < 0.7


def test_pointing_errors_move_the_rpc_and_nothing_else(sources: Path, tmp_path: Path) -> None:
    import rasterio

    write_sources(small(pointing_error_px=3.0), tmp_path, threads=1)
    cards = json.loads((tmp_path / "synth.json").read_text())["views"]
    errors = np.array([cards[name]["pointing_error_px"] for name in "ab"])
    assert np.abs(errors).max() <= 3 and len(set(errors.ravel())) == 4
    for name, error in zip("ab", errors, strict=True):
        images, cameras = [], []
        for folder in (sources, tmp_path):
            with rasterio.open(folder / "views" / f"{name}.tif") as file:
                images.append(file.read())
                cameras.append(RPC.from_tags(file.tags(ns="RPC")))
        assert (images[0] == images[1]).all()
        assert cameras[1].samp_off - cameras[0].samp_off == pytest.approx(error[0], abs=1e-6)
        assert cameras[1].line_off - cameras[0].line_off == pytest.approx(error[1], abs=1e-6)
