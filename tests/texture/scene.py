"""A small city of boxes whose colour is a known function of space: meshes, views, and a run made of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from cityweave.aoi import AoiWriter, compound_crs_wkt
from cityweave.cameras import RPC, PolyCamera, geodetic_transform
from cityweave.grid import CellGrid, Tile
from cityweave.manifest import Run, run_job
from cityweave.mesh import RIM, STEPS_PER_M, SURFACE, TileMesh, save_levels
from cityweave.plan import city_tiles, load_config
from cityweave.render.rasterise import rasterise
from cityweave.texture.atlas import Triangles
from cityweave.texture.charts import face_frame
from cityweave.texture.views import SourceView

CRS = "EPSG:32637"
GAIN, OFFSET = 4.0, 100.0  # digital numbers of a view: GAIN * colour + OFFSET


def box_heights(cells: int, seed: int = 0, highest_m: float = 30.0) -> np.ndarray:
    """[rows from the south, cols] metres: boxes on level ground, free of the rim."""
    rng = np.random.default_rng(seed)
    heights = np.full((cells, cells), 5.0)
    for _ in range(cells * cells // 220):
        j, i = rng.integers(3, cells - 16, 2)
        d, w = rng.integers(5, 13, 2)
        heights[j : j + d, i : i + w] = np.round(rng.uniform(9, highest_m) * 8) / 8
    return heights


def stepped_mesh(
    heights: np.ndarray,
    window: tuple[int, int, int] | None = None,
    origin_m: tuple[float, float, float] = (0.0, 0.0, 0.0),
    cell: int = 1,
    rim_base_m: float | None = None,
) -> TileMesh:
    """Flat tops and vertical walls of the cells [j0, j0+n) x [i0, i0+n) of `window` (i0, j0, n), metres from there.

    A wall belongs to the cell of lower index, so tiles of one array tile the city. `cell` is its side in metres.
    """
    rows, cols = heights.shape
    i0, j0, n = window or (0, 0, rows)
    vertices: dict[tuple[int, int, int], int] = {}
    faces: list[tuple[int, int, int]] = []
    part: list[int] = []

    def at(i: int, j: int, z: float) -> int:
        key = (i * cell * STEPS_PER_M, j * cell * STEPS_PER_M, round(float(z) * STEPS_PER_M))
        return vertices.setdefault(key, len(vertices))

    def quad(a: int, b: int, c: int, d: int, label: int = SURFACE) -> None:
        faces.extend([(a, b, c), (a, c, d)])
        part.extend([label, label])

    def wall(i: int, j: int, di: int, dj: int, low: float, high: float, label: int = SURFACE) -> None:
        """From (i, j) to (i+di, j+dj), seen from the right of that direction."""
        quad(at(i, j, low), at(i + di, j + dj, low), at(i + di, j + dj, high), at(i, j, high), label)

    for j in range(j0, j0 + n):
        for i in range(i0, i0 + n):
            z = heights[j, i]
            quad(at(i, j, z), at(i + 1, j, z), at(i + 1, j + 1, z), at(i, j + 1, z))
            if i + 1 < cols and heights[j, i + 1] > z:
                wall(i + 1, j + 1, 0, -1, z, heights[j, i + 1])
            elif i + 1 < cols and heights[j, i + 1] < z:
                wall(i + 1, j, 0, 1, heights[j, i + 1], z)
            if j + 1 < rows and heights[j + 1, i] > z:
                wall(i, j + 1, 1, 0, z, heights[j + 1, i])
            elif j + 1 < rows and heights[j + 1, i] < z:
                wall(i + 1, j + 1, -1, 0, heights[j + 1, i], z)
            if rim_base_m is not None:
                for rim, start, step in (
                    (j == 0, (i, j), (1, 0)),
                    (i + 1 == cols, (i + 1, j), (0, 1)),
                    (j + 1 == rows, (i + 1, j + 1), (-1, 0)),
                    (i == 0, (i, j + 1), (0, -1)),
                ):
                    if rim:
                        wall(*start, *step, rim_base_m, z, RIM)
    absolute = np.array(list(vertices), np.int64)
    ids = (absolute[:, 0] << 42) + (absolute[:, 1] << 21) + absolute[:, 2]
    local = absolute - np.array([i0 * cell * STEPS_PER_M, j0 * cell * STEPS_PER_M, 0])
    return TileMesh(origin_m, local.astype(np.int32), ids, np.array(faces, np.int32), np.array(part, np.uint8))


def paint(points: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """True colour (k,3) in 0..255 of points in metres; walls are darker."""
    x, y, z = points.T
    base = np.stack(
        [
            128 + 70 * np.sin(x / 5) * np.cos(y / 6),
            128 + 70 * np.cos(x / 7 + z / 5),
            128 + 60 * np.sin((y + z) / 6),
        ],
        axis=1,
    )
    return base * np.where(normals[:, 2:] > 0.5, 1.0, 0.7)


def satellite(lean_x: float, lean_y: float, gsd_m: float, side_m: float, high_m: float = 40.0):
    """A parallel camera whose rays move (lean_x, lean_y) metres per metre up; with its picture size (cols, rows)."""
    matrix = np.array([[1.0, 0.0, -lean_x], [0.0, -1.0, lean_y]]) / gsd_m
    corners = np.array([[x, y, z] for x in (0, side_m) for y in (0, side_m) for z in (0, high_m)]) @ matrix.T
    low = np.floor(corners.min(axis=0)) - 12
    cols, rows = np.ceil(corners.max(axis=0) - low + 12).astype(int)
    coefficients = np.zeros((2, 10))
    coefficients[:, 0], coefficients[:, 1:4] = -low, matrix
    return PolyCamera(coefficients, np.zeros(3), np.ones(3), 0.0), (int(cols), int(rows))


def photograph(
    camera: PolyCamera, size: tuple[int, int], scene: Triangles, shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
) -> tuple[np.ndarray, np.ndarray]:
    """uint16 [3, rows, cols] and valid [rows, cols]; pixels are means of four samples. Paint is at point + shift."""
    cols, rows = size
    screen = np.stack(camera.project(*scene.xyz.T), axis=1) * 2
    seen = rasterise(screen, scene.xyz[:, 2], scene.faces, cols * 2, rows * 2, "largest")
    points = seen.interpolate(scene.faces, scene.xyz)
    normal = face_frame(scene.xyz, scene.faces).normal
    image = np.zeros((rows * 2, cols * 2, 3))
    image[seen.seen] = paint(points[seen.seen] + np.asarray(shift), normal[seen.face[seen.seen]])
    image = image.reshape(rows, 2, cols, 2, 3).mean(axis=(1, 3))
    valid = seen.seen.reshape(rows, 2, cols, 2).all(axis=(1, 3))
    return np.clip(GAIN * image + OFFSET, 1, 65535).astype(np.uint16).transpose(2, 0, 1), valid


LEANS = [(0.1, 0.05), (-0.4, 0.1), (0.3, 0.35), (0.05, -0.45), (0.45, -0.1)]


def source_views(scene: Triangles, side_m: float, gsd_m: float = 0.4) -> list[SourceView]:
    views = []
    for number, (lean_x, lean_y) in enumerate(LEANS):
        camera, size = satellite(lean_x, lean_y, gsd_m, side_m)
        image, valid = photograph(camera, size, scene)
        gain, offset = np.full(3, 1 / GAIN), np.full(3, -OFFSET / GAIN)
        views.append(SourceView(f"v{number}", image, valid, camera, gain, offset))
    return views


def linear_rpc(camera: PolyCamera, tile: Tile, z0_m: float, to_geodetic) -> RPC:
    """An RPC with linear terms only, which is what a parallel camera is over so little ground."""
    box = tile.core
    x, y, z = (
        a.ravel()
        for a in np.meshgrid(
            np.linspace(box.xmin, box.xmax, 5),
            np.linspace(box.ymin, box.ymax, 5),
            [z0_m, z0_m + 40],
            indexing="ij",
        )
    )
    u, v = camera.project(x - box.xmin, y - box.ymin, z - z0_m)
    ground = np.stack(to_geodetic(x, y, z), axis=1)
    off, scale = ground.mean(axis=0), np.ptp(ground, axis=0)
    terms = np.concatenate([np.ones((len(x), 1)), (ground - off) / scale], axis=1)
    (samp, line), *_ = (np.linalg.lstsq(terms, np.stack([u - 0.5, v - 0.5], axis=1), rcond=None)[0].T,)

    def padded(values) -> tuple[float, ...]:
        return (*map(float, values), *([0.0] * 16))

    one = padded([1, 0, 0, 0])
    return RPC(
        padded(line), one, padded(samp), one, 0.0, 1.0, 0.0, 1.0,
        off[1], scale[1], off[0], scale[0], off[2], scale[2],
    )  # fmt: skip


def make_run(
    folder: Path, side_m: int = 64, quarantined: tuple[int, int] | str | None = None, pictures: bool = True
) -> Run:
    """A run of 2 x 2 tiles with survey, dsm and, with `pictures`, ingest and mesh done.

    `quarantined`: the tile that is out, (i, j) or "all".
    """
    config = load_config(
        {
            "city": {
                "name": "boxes",
                "crs": CRS,
                "vertical": "ellipsoid",
                "bounds_m": [315392, 4161536, 315392 + 2 * side_m, 4161536 + 2 * side_m],
                "heights_m": [600.0, 660.0],
                "max_building_m": 40.0,
            },
            "tiles": {"size_m": side_m},
            "sources": {"views": [{"name": f"v{k}", "path": f"v{k}.tif"} for k in range(len(LEANS))]},
        }
    )
    run = Run(folder, config)
    heights = box_heights(2 * side_m)
    exposure = {"gain": [1.0] * 3, "offset": [0.0] * 3}
    display = {"low": [OFFSET] * 3, "high": [OFFSET + 255 * GAIN] * 3}
    facts = [
        {
            "name": f"v{k}",
            "off_nadir_deg": float(np.degrees(np.arctan(np.hypot(*lean)))),
            "acquired": f"2023-02-0{k + 1}T08:00:00Z",
            "exposure": exposure,
            "display": display,
        }
        for k, lean in enumerate(LEANS)
    ]

    def survey(products) -> None:
        with products.path("survey", ".json") as path:
            path.write_text(json.dumps({"views": facts}))

    run_job(run, "survey", survey)
    whole = stepped_mesh(heights) if pictures else None
    for number, tile in enumerate(city_tiles(config)):
        place = (number % 2, number // 2)
        reason = "no picture shows it" if quarantined in ("all", place) else None
        _make_tile(run, tile, heights, whole, place, reason)
    return run


def _make_tile(
    run: Run, tile: Tile, heights: np.ndarray, whole: TileMesh | None, place: tuple[int, int], reason: str | None
) -> None:
    from cityweave.errors import Quarantine

    side, z0 = run.config.tiles.size_m, run.config.city.z0_m
    origin = (tile.core.xmin, tile.core.ymin, z0)
    window = (place[0] * side, place[1] * side, side)
    to_geodetic = geodetic_transform(CRS)

    def ingest(products) -> None:
        if reason:
            raise Quarantine(reason)
        shifted = whole.xyz() - [window[0], window[1], 0.0]
        scene = Triangles(shifted, whole.faces)
        with products.path("aoi", ".zarr") as path:
            wkt = compound_crs_wkt(CRS, None)
            with AoiWriter(path, tile, crs_wkt=wkt, vertical="ellipsoid", halo_m=16, z0_m=z0) as aoi:
                for k, lean in enumerate(LEANS):
                    camera, size = satellite(*lean, 0.4, side)
                    image, valid = photograph(camera, size, scene, (*window[:2], 0.0))
                    mask = np.where(valid, 0, 1).astype(np.uint8)
                    aoi.add_view(f"v{k}", image, linear_rpc(camera, tile, z0, to_geodetic), (0, 0), mask=mask)

    def mesh(products) -> None:
        if reason:
            raise Quarantine(reason)
        fine = stepped_mesh(heights, window, origin, rim_base_m=-10.0)
        coarse = stepped_mesh(heights[::4, ::4], tuple(n // 4 for n in window), origin, cell=4, rim_base_m=-10.0)
        with products.path("mesh", ".npz") as path:
            save_levels(path, [fine, coarse])

    def dsm(products) -> None:
        if reason:
            raise Quarantine(reason)
        with products.path("dsm", ".zarr") as path:
            write_heights(path, CellGrid.covering(tile.core.grow(8), 0.5), heights, run)

    if whole is not None:
        run_job(run, "ingest", ingest, tile=tile)
        run_job(run, "geometry", mesh, name="mesh", tile=tile)
    run_job(run, "dsm", dsm, tile=tile)


def write_heights(path: Path, grid: CellGrid, heights: np.ndarray, run: Run) -> None:
    """The layers of a dsm product on `grid`, from the cells of `heights` (1 m, from the south-west of the city)."""
    import zarr

    box = run.config.city.box
    i = np.clip(np.floor(grid.x_centres - box.xmin).astype(int), 0, heights.shape[1] - 1)
    j = np.clip(np.floor(grid.y_centres - box.ymin).astype(int), 0, heights.shape[0] - 1)
    surface = (heights[np.ix_(j, i)] + run.config.city.z0_m).astype(np.float32)
    layers = {
        "dsm": surface,
        "dtm": np.full_like(surface, run.config.city.z0_m + 5),
        "sigma": np.full_like(surface, 0.3),
        "count": np.full(surface.shape, 5, np.uint8),
        "source": np.ones(surface.shape, np.uint8),
        "deck": np.zeros(surface.shape, np.uint8),
    }
    group = zarr.create_group(path)
    for name, layer in layers.items():
        group.create_array(name, data=layer, dimension_names=("y", "x"))
    group.create_array("x", data=grid.x_centres, dimension_names=("x",))
    group.create_array("y", data=grid.y_centres, dimension_names=("y",))
