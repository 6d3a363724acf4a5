"""Every vendor's file is written from one camera and must project as that camera does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cityweave.config import ViewSource
from cityweave.errors import DataError
from cityweave.io.raster import open_raster
from cityweave.io.rpc_files import check_rpc, read_rpc_file, rpc_beside
from cityweave.io.satellite import read_rpc
from cityweave.rpc import RPC, VENDOR_FIELDS
from tests import pictures

GROUPS = ("line_num", "line_den", "samp_num", "samp_den")
PLAIN = [name for name in VENDOR_FIELDS if name not in GROUPS]


def camera() -> RPC:
    """Every coefficient different and none of them 0, so that a swapped one is noticed."""
    rng = np.random.default_rng(4)

    def numbers(first: float, size: float) -> list[float]:
        return [first, *map(float, size * rng.uniform(0.5, 1, 19) * rng.choice([-1, 1], 19))]

    fields: dict[str, Any] = {name: numbers(1.0, 2e-4) for name in ("line_den", "samp_den")}
    for name, towards in (("line_num", 2), ("samp_num", 1)):
        fields[name] = numbers(1e-3, 1e-3)
        fields[name][towards] = 1.0
    fields |= {
        "line_off": 412.25, "samp_off": 388.75, "line_scale": 500.0, "samp_scale": 450.0, "lat_off": 37.5383,
        "lat_scale": 0.0123, "long_off": 36.9127, "long_scale": 0.0151, "height_off": 640.0, "height_scale": 310.0,
    }  # fmt: skip
    return RPC(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})


def rpb(rpc: RPC) -> str:
    def name(field: str) -> str:
        first, last = field.split("_")
        return first + {"off": "Offset", "num": "NumCoef", "den": "DenCoef"}.get(last, last.title())

    lines = ['satId = "WV02";', 'bandId = "P";', 'SpecId = "RPC00B";', "BEGIN_GROUP = IMAGE", "\terrBias = 1.5;"]
    lines += [f"\t{name(field)} = {getattr(rpc, field)!r};" for field in PLAIN]
    for field in GROUPS:
        lines.append(
            f"\t{name(field)} = (\n\t\t\t" + ",\n\t\t\t".join(f"{v:+.17E}" for v in getattr(rpc, field)) + ");"
        )
    return "\n".join([*lines, "END_GROUP = IMAGE", "END;"]) + "\n"


def rpc_txt(rpc: RPC) -> str:
    units = {"line": "pixels", "samp": "pixels", "lat": "degrees", "long": "degrees", "height": "meters"}
    lines = [f"{field.upper()}: {getattr(rpc, field):+.17g} {units[field.split('_')[0]]}" for field in PLAIN]
    for field in GROUPS:
        lines += [f"{field.upper()}_COEFF_{k}: {value:+.17E}" for k, value in enumerate(getattr(rpc, field), 1)]
    return "\r\n".join(lines) + "\r\n"


def geom(rpc: RPC) -> str:
    lines = ["type:  ossimRpcModel", "polynomial_format:  B"]
    lines += [f"{field}:  {getattr(rpc, field)!r}" for field in PLAIN]
    for field in GROUPS:
        lines += [f"{field}_coeff_{k:02d}:  {value!r}" for k, value in enumerate(getattr(rpc, field))]
    return "\n".join(lines) + "\n"


def dimap(rpc: RPC) -> str:
    """As Airbus writes it: pixels count from 1, and the other direction's model stands before ours."""

    def coefficients(values: Any) -> str:
        return "".join(
            f"<{field.upper()}_COEFF_{k}>{v!r}</{field.upper()}_COEFF_{k}>"
            for field in GROUPS
            for k, v in enumerate(values(field), 1)
        )

    offsets = "".join(
        f"<{field.upper()}>{getattr(rpc, field) + (field in ('line_off', 'samp_off'))!r}</{field.upper()}>"
        for field in PLAIN
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?><Dimap_Document><Rational_Function_Model><Global_RFM>'
        f"<Direct_Model>{coefficients(lambda field: [7.0] * 20)}</Direct_Model>"
        f"<Inverse_Model>{coefficients(lambda field: getattr(rpc, field))}</Inverse_Model>"
        f"<RFM_Validity><Direct_Model_Validity_Domain><FIRST_ROW>1</FIRST_ROW></Direct_Model_Validity_Domain>"
        f"{offsets}</RFM_Validity></Global_RFM></Rational_Function_Model></Dimap_Document>"
    )


FILES = {
    "image.RPB": rpb,
    "image_RPC.TXT": rpc_txt,
    "image_rpc.txt": rpc_txt,
    "image.geom": geom,
    "RPC_image.XML": dimap,
}


def apart_px(a: RPC, b: RPC) -> float:
    rng = np.random.default_rng(1)
    x, y, z = rng.uniform(-1, 1, (3, 500))
    ground = (a.long_off + x * a.long_scale, a.lat_off + y * a.lat_scale, a.height_off + z * a.height_scale)
    return float(np.abs(np.subtract(a.project(*ground), b.project(*ground))).max())


@pytest.mark.parametrize("name", FILES)
def test_a_file_beside_the_image_is_found_and_read(tmp_path: Path, name: str) -> None:
    image = pictures.write_view(tmp_path / "image.tif", np.ones((800, 800), np.uint16), None)
    (tmp_path / "other.RPB").write_text("not ours")
    (tmp_path / name).write_text(FILES[name](camera()))
    assert rpc_beside(image) == tmp_path / name
    assert apart_px(read_rpc_file(tmp_path / name), camera()) < 1e-6
    with open_raster(image) as dataset:
        assert apart_px(read_rpc(dataset), camera()) < 1e-6


def test_dimap_counts_from_one_as_gdal_knows(tmp_path: Path) -> None:
    """GDAL's own reader of Pléiades products is the oracle."""
    image = pictures.write_view(tmp_path / "IMG_PHR1A_P_1_R1C1.TIF", np.ones((8, 8), np.uint16), None)
    (tmp_path / "RPC_PHR1A_P_1.XML").write_text(dimap(camera()))
    with open_raster(image) as dataset:
        tags = dataset.tags(ns="RPC")
    assert tags, "GDAL no longer reads this product"
    assert apart_px(RPC.from_tags(tags), read_rpc_file(tmp_path / "RPC_PHR1A_P_1.XML")) < 1e-6
    assert rpc_beside(image) == tmp_path / "RPC_PHR1A_P_1.XML"
    assert rpc_beside(tmp_path / "IMG_PHR1A_P_1_R1C2.TIF") == tmp_path / "RPC_PHR1A_P_1.XML"


def test_a_named_file_goes_before_the_tags_and_a_crop_is_counted_from_its_corner(tmp_path: Path) -> None:
    wrong = pictures.view_rpc(pictures_box(), 0.5, (0.1, 0.1), 10.0)[0]
    image = pictures.write_view(tmp_path / "image.tif", np.ones((500, 400), np.uint16), wrong)
    (tmp_path / "full.geom").write_text(geom(camera()))
    source = ViewSource(name="a", path=image, rpc=tmp_path / "full.geom", crop_px=(100, 200))
    with open_raster(image) as dataset:
        found = read_rpc(dataset, source)
        assert apart_px(read_rpc(dataset), wrong) < 1e-6
    ground = (np.array([36.91]), np.array([37.54]), np.array([600.0]))
    assert np.subtract(camera().project(*ground), found.project(*ground)).ravel() == pytest.approx([100, 200])


def pictures_box() -> Any:
    from cityweave.grid import Box

    return Box(315392, 4161536, 315520, 4161664)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.RPB", lambda: rpb(camera()).replace("sampOffset", "sampOfset"), "without samp_off"),
        ("a.RPB", lambda: rpb(camera()).replace("RPC00B", "RPC00A"), "SpecId is RPC00A, RPC00B is accepted"),
        ("a_RPC.TXT", lambda: rpc_txt(camera()).replace("SAMP_DEN_COEFF_20", "X"), "in samp_den, found 19"),
        ("a_RPC.TXT", lambda: rpc_txt(camera()).replace("LAT_SCALE: +0.0123", "LAT_SCALE: 0"), "finite and not 0"),
        ("a_RPC.TXT", lambda: rpc_txt(camera()).replace("LAT_SCALE: +0.0123", "LAT_SCALE: many"), "no number"),
        ("a.geom", lambda: geom(camera()).replace("format:  B", "format:  A"), "polynomial_format is A"),
        ("RPC_a.XML", lambda: dimap(camera())[:500], "no whole RPC file"),
        ("RPC_a.XML", lambda: dimap(camera()).replace("Inverse", "Direct"), "no Inverse_Model"),
        ("a.prj", lambda: "", "no kind of RPC file"),
        ("a.RPB", lambda: rpb(camera()).replace(f"{camera().line_num[3]:+.17E}", "nan"), "must be finite numbers"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_named_with_what_would_do(tmp_path: Path, name: str, text: Any, message: str) -> None:
    (tmp_path / name).write_text(text())
    with pytest.raises(DataError, match=message) as caught:
        read_rpc_file(tmp_path / name)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"line_off": 9000.0}, "beside the image of 800 x 800 pixels"),
        (
            {"samp_den": (1.0, 1.5, *([0.0] * 18))},
            "no finite position|can't be inverted|beside the image|its own range",
        ),
        ({"samp_num": camera().line_num}, "can't be inverted"),
        ({"lat_off": 375.383}, "latitude 375.383"),
        ({"line_scale": 60.0, "samp_scale": 60.0}, "times its own range away"),
    ],
)
def test_a_camera_that_can_t_be_the_image_s_is_refused(change: dict[str, Any], message: str) -> None:
    from dataclasses import replace

    check_rpc(camera(), (800, 800), "a.tif")
    with pytest.raises(DataError, match=message) as caught:
        check_rpc(replace(camera(), **change), (800, 800), "a.tif")
    assert "a.tif" in str(caught.value) and "accepted" in str(caught.value)


def test_the_named_gdal_camera_is_ours() -> None:
    """The same tags through rasterio's transformer, corner of the first pixel to corner."""
    from rasterio import rpc as rasterio_rpc
    from rasterio.transform import RPCTransformer

    rpc = camera()
    rng = np.random.default_rng(1)
    x, y, z = rng.uniform(-0.8, 0.8, (3, 200))
    ground = (rpc.long_off + x * rpc.long_scale, rpc.lat_off + y * rpc.lat_scale, rpc.height_off + z * rpc.height_scale)
    with RPCTransformer(rasterio_rpc.RPC.from_gdal(rpc.to_tags() | {"ERR_BIAS": "0", "ERR_RAND": "0"})) as gdal:
        rows, cols = gdal.rowcol(ground[0], ground[1], zs=ground[2], op=lambda value: value)
    u, v = rpc.project(*ground)
    assert np.abs(np.asarray(cols) - u).max() < 1e-6 and np.abs(np.asarray(rows) - v).max() < 1e-6
