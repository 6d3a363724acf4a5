"""Pointing errors that were put in must come out, and what can't be tied must be said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cityweave.errors import DataError
from cityweave.plan import load_config
from cityweave.survey import job
from tests import pictures
from tests.survey.scene import BOX, HEIGHTS_M, STEREO, Shot, height, left_px, write


def surveyed(values: dict[str, Any]) -> dict[str, Any]:
    config = load_config(values)
    return job.survey(config, config.sources)


THREE = (
    Shot("a", (0.0, 0.1), (2.4, -1.3)),
    Shot("b", (-0.3, 0.05), (-0.7, 2.9)),
    Shot("c", (0.1, -0.25), (-1.9, -0.4)),
)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    values = write(tmp_path_factory.mktemp("three"), THREE)
    return values, surveyed(values)


def test_errors_that_were_put_in_come_out(three: tuple[dict[str, Any], dict[str, Any]]) -> None:
    facts = three[1]
    assert np.abs(left_px(THREE, {"views": [{}, {}, {}]})).max() > 0.8  # there is something to do
    assert np.abs(left_px(THREE, facts)).max() < 0.1
    for pair in facts["pointing"]["pairs"]:
        assert pair["ties"] >= 40 and pair["windows"] == 1
        assert pair["after_px"] < 0.15 and pair["before_px"] > 4 * pair["after_px"]
        assert pair["reprojection_after_px"] < 0.2


def test_corrections_are_thousandths_and_move_the_ground_as_little_as_can_be(
    three: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    views = three[1]["views"]
    found = np.array([[view["pointing"]["du_px"], view["pointing"]["dv_px"]] for view in views])
    assert np.abs(found * 1000 - np.round(found * 1000)).max() < 1e-6
    assert np.abs(found.mean(axis=0)).max() < 0.01  # level cameras of one pixel size: a shared shift is a ground move


def test_the_same_images_give_the_same_survey(three: tuple[dict[str, Any], dict[str, Any]]) -> None:
    assert surveyed(three[0]) == three[1]


def test_rpcs_that_agree_stay_as_they_are(tmp_path: Path) -> None:
    facts = surveyed(write(tmp_path, STEREO))
    assert facts["pointing"]["applied"] is False and facts["pointing"]["ties"] > 40
    assert not any("pointing" in view for view in facts["views"])


def test_views_in_one_line_are_tied_along_it_too(tmp_path: Path) -> None:
    """Pair by pair nothing shows along the parallax; that all three see one ground does."""
    shots = [Shot("a", (0.3, 0.0), (0.8, 0.0)), Shot("b", (0.0, 0.0), (-1.6, 0.0)), Shot("c", (-0.3, 0.0), (0.8, 0.0))]
    facts = surveyed(write(tmp_path, shots))
    assert np.abs(left_px(shots, {"views": [{}, {}, {}]})).max() > 1
    assert facts["pointing"]["applied"] and np.abs(left_px(shots, facts)).max() < 0.1


def test_an_affine_model_takes_what_a_shift_can_t(tmp_path: Path) -> None:
    bent = (0.0, 0.0, 0.004, 0.0)  # rows off by 1.3 px at the sides, across the epipolar lines
    shots = [Shot("a", (0.0, 0.0)), Shot("b", (-0.3, 0.0), (0.0, 1.0), bent)]
    after = {}
    for model in ("shift", "affine"):
        facts = surveyed(write(tmp_path, shots, model=model))
        (after[model],) = facts["pointing"]["pairs"]
        assert facts["pointing"]["applied"]
    assert after["affine"]["after_px"] < 0.15 and after["shift"]["after_px"] > 0.25


def test_a_view_under_clouds_is_left_out_by_name(tmp_path: Path) -> None:
    def clouds(image: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng(9)
        return 2500 + 5 * rng.normal(size=image.shape)

    shots = [*THREE[:2], replace(THREE[2], alter=clouds)]
    facts = surveyed(write(tmp_path, shots))
    (warning,) = facts["pointing"]["warnings"]
    assert warning.startswith("view c is left out: can't be tied to") and "clouds" in warning
    assert facts["views"][2]["left_out"] in warning and "left_out" not in facts["views"][0]
    assert np.abs(left_px(shots[:2], {"views": facts["views"][:2]})).max() < 0.1


def flat(image: np.ndarray) -> np.ndarray:
    return np.full(image.shape, 700.0)


def test_a_picture_without_texture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"fewer than 2 of 2 views can be tied together.*model: none"):
        surveyed(write(tmp_path, [STEREO[0], replace(STEREO[1], alter=flat)]))
    with pytest.raises(DataError, match="a shows no contrast"):
        surveyed(write(tmp_path, [replace(shot, alter=flat) for shot in STEREO]))


def test_without_correction_anything_goes(tmp_path: Path) -> None:
    facts = surveyed(write(tmp_path, [STEREO[0], replace(STEREO[1], alter=flat)], model="none"))
    assert facts["pointing"] is None


def test_views_of_different_ground_are_refused(tmp_path: Path) -> None:
    values = write(tmp_path, STEREO)
    mask = np.zeros((672, 672), np.uint8)
    for view, part in zip(values["sources"]["views"], (slice(0, 340), slice(320, 672)), strict=True):
        mask[:] = 0
        mask[:, part] = 1
        view["mask"] = str(pictures.write_view(tmp_path / f"{view['name']}_mask.tif", mask, None))
    with pytest.raises(DataError, match=r"can't be tied|no ground of the city that another view shows"):
        surveyed(values)


def test_pictures_beside_each_other_are_refused(tmp_path: Path) -> None:
    values = write(tmp_path, STEREO)
    from cityweave.cameras import RPC
    from cityweave.io.raster import open_raster

    for view, cols in zip(values["sources"]["views"], (slice(0, 250), slice(422, 672)), strict=True):
        with open_raster(Path(view["path"])) as dataset:
            image, rpc = dataset.read(), RPC.from_tags(dataset.tags(ns="RPC"))
        view["path"] = str(pictures.write_view(tmp_path / "part.tif", image[:, :, cols], rpc.shifted(cols.start, 0)))
        (tmp_path / "part.tif").rename(tmp_path / f"{view['name']}_part.tif")
        view["path"] = str(tmp_path / f"{view['name']}_part.tif")
    with pytest.raises(DataError, match=r"a shows no ground of the city that another view shows"):
        surveyed(values)


def test_a_masked_cloud_takes_no_part_in_the_brightness(tmp_path: Path) -> None:
    def cloud(image: np.ndarray) -> np.ndarray:
        out = 0.8 * image
        out[:300] = 3900
        return out

    mask = np.zeros((672, 672), np.uint8)
    mask[:300] = 1
    path = pictures.write_view(tmp_path / "mask.tif", mask, None)
    shots = [STEREO[0], replace(STEREO[1], alter=cloud, extra={"mask": str(path)})]
    facts = surveyed(write(tmp_path, shots))
    assert facts["reference_view"] == "a" and facts["pointing"]["pairs"][0]["after_px"] < 0.15
    assert facts["views"][1]["exposure"]["gain"][0] == pytest.approx(1.25, abs=0.02)


def test_few_ties_do_when_they_agree_with_the_rpcs(tmp_path: Path) -> None:
    """A mask leaves a corner of 60 m to one view."""
    mask = np.ones((672, 672), np.uint8)
    mask[120:280, 120:280] = 0
    path = pictures.write_view(tmp_path / "mask.tif", mask, None)
    for off, message in (((0.1, 0.0), "used uncorrected"), ((0.0, 3.0), "left out")):
        shots = [*STEREO, Shot("c", (0.2, -0.2), off, extra={"mask": str(path)})]
        facts = surveyed(write(tmp_path, shots, least_ties=80))
        about_c = [warning for warning in facts["pointing"]["warnings"] if "c" in warning]
        assert about_c and all(message in warning for warning in about_c)


def test_an_error_beyond_the_allowance_is_refused_by_its_size(tmp_path: Path) -> None:
    values = write(tmp_path, [STEREO[0], replace(STEREO[1], off_px=(0.0, 9.0))])
    values["ingest"] = {"pointing_allowance_px": 4.0}
    with pytest.raises(DataError, match=r"by 8\.9 px apart, more than twice ingest.pointing_allowance_px \(4\)"):
        surveyed(values)
    values["ingest"] = {"pointing_allowance_px": 6.0}
    assert surveyed(values)["pointing"]["pairs"][0]["after_px"] < 0.15


def test_heights_are_known_from_the_views(three: tuple[dict[str, Any], dict[str, Any]]) -> None:
    ((*_, low, high),) = (w for w in three[1]["windows"] if w[:2] == [BOX.xmin, BOX.ymin])
    x, y = np.meshgrid(np.linspace(BOX.xmin, BOX.xmax, 99), np.linspace(BOX.ymin, BOX.ymax, 99))
    true = height(x, y)
    assert HEIGHTS_M[0] < low < true.min() - 5 and true.max() + 5 < high < HEIGHTS_M[1]
    assert low > true.min() - 25 and high < true.max() + 35


def real(shared_data: Path, which: str) -> dict[str, Any]:
    crs, bounds, heights, names = {
        "kahramanmaras_pre": ("EPSG:32637", [315149.5, 4161545, 315684, 4162054], [550, 900], "pre_event_img{}.tif"),
        "s2p_reunion": ("EPSG:32740", [359746, 7651553.5, 360106.5, 7651923], [2100, 2500], "img_0{}.tif"),
    }[which]
    views = [{"name": f"v{n}", "path": str(shared_data / which / names.format(n))} for n in (1, 2)]
    city = {"name": which, "crs": crs, "vertical": "ellipsoid", "bounds_m": bounds, "heights_m": heights}
    return {"city": city | {"max_building_m": 80}, "sources": {"views": views}}


@pytest.mark.parametrize(("which", "apart_px"), [("kahramanmaras_pre", 2.17), ("s2p_reunion", 0.71)])
def test_real_pairs_agree_after_the_correction(shared_data: Path, which: str, apart_px: float) -> None:
    facts = surveyed(real(shared_data, which))
    (pair,) = facts["pointing"]["pairs"]
    assert pair["before_px"] == pytest.approx(apart_px, abs=0.1)
    assert pair["after_px"] < 0.12 and pair["ties"] > 400 and pair["windows"] == 6


@pytest.mark.parametrize("which", ["kahramanmaras_pre", "s2p_reunion"])
def test_swapped_images_are_noticed(shared_data: Path, which: str, tmp_path: Path) -> None:
    from cityweave.cameras import RPC
    from cityweave.io.raster import open_raster

    values = real(shared_data, which)
    images = []
    for view in values["sources"]["views"]:
        with open_raster(Path(view["path"])) as dataset:
            images.append((dataset.read(1), RPC.from_tags(dataset.tags(ns="RPC"))))
    for k, view in enumerate(values["sources"]["views"]):
        view["path"] = str(pictures.write_view(tmp_path / f"{k}.tif", images[k][0], images[1 - k][1]))
    with pytest.raises(DataError, match="swapped images"):
        surveyed(values)
