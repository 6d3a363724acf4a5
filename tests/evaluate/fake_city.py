"""A run folder as the stages before the evaluation leave it: 2 x 2 tiles of 32 m with a block and a step."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from cityweave.cameras import Pinhole
from cityweave.config import Config
from cityweave.grid import CellGrid, Tile
from cityweave.io.textures import AtlasLayout, TileTexture, save_png, save_texture
from cityweave.manifest import Run, write_json
from cityweave.mesh import BOTTOM, RIM, STEPS_PER_M, SURFACE, TileMesh, save_levels
from cityweave.plan import city_tiles, load_config
from cityweave.render.textured import TexturedMesh, render

SIZE_M, GSD_M = 32, 0.5
WEST, SOUTH = 320, 640
GROUND_M, ROOF_M = 100.0, 112.0
BLOCK = (WEST + 20, SOUTH + 22, WEST + 40, SOUTH + 44)  # stands over all four tiles


def config(name: str = "fake", shift_m: int = 0) -> Config:
    return load_config(
        {
            "city": {
                "name": name,
                "crs": "EPSG:32637",
                "vertical": "ellipsoid",
                "bounds_m": [WEST, SOUTH, WEST + 2 * SIZE_M, SOUTH + 2 * SIZE_M],
                "heights_m": [90.0, 140.0],
                "max_building_m": 20.0,
            },
            "tiles": {"size_m": SIZE_M, "shift_m": shift_m},
            "geometry": {"pitch_m": 0.5, "blend_m": 4.0},
            "synth": {},
        }
    )


def true_heights(grid: CellGrid) -> np.ndarray:
    y, x = np.meshgrid(grid.y_centres, grid.x_centres, indexing="ij")
    inside = (x > BLOCK[0]) & (x < BLOCK[2]) & (y > BLOCK[1]) & (y < BLOCK[3])
    return np.where(inside, ROOF_M, GROUND_M).astype(np.float32)


def write_raster(path: Path, values: np.ndarray, grid: CellGrid, nodata: float | None = None) -> None:
    import rasterio

    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        dtype=values.dtype,
        count=1,
        height=grid.rows,
        width=grid.cols,
        crs="EPSG:32637",
        transform=grid.transform,
        nodata=nodata,
    ) as file:
        file.write(values, 1)


def block_mesh(box: tuple[float, ...] = BLOCK, roof_m: float = ROOF_M) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """City-wide true mesh in metres from (WEST, SOUTH, 0): ground with a hole, walls, roof."""
    x0, y0, x1, y1 = box[0] - WEST, box[1] - SOUTH, box[2] - WEST, box[3] - SOUTH
    s = 2 * SIZE_M + 10
    outer = [(-10, -10), (s, -10), (s, s), (-10, s)]
    inner = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    low = [(*p, GROUND_M) for p in outer + inner]
    points = np.array(low + [(*p, roof_m) for p in inner], np.float64)
    faces, material = [], []
    for k in range(4):
        n = (k + 1) % 4
        faces += [(k, n, 4 + n), (k, 4 + n, 4 + k)]
        material += [0, 0]
        faces += [(4 + k, 4 + n, 8 + n), (4 + k, 8 + n, 8 + k)]
        material += [1, 1]
    faces += [(8, 9, 10), (8, 10, 11), (4, 6, 5), (4, 7, 6)]  # roof, and a floor that no light reaches
    material += [3, 3, 10, 10]
    return points, np.array(faces, np.int32), np.array(material, np.uint8)


def tile_mesh(tile: Tile, outside: set[Tile]) -> TileMesh:
    """Surface on a 1 m grid of quads with exact walls, closed by a rim and a bottom at the city's border."""
    xs = np.arange(SIZE_M + 1) + int(tile.core.xmin)
    ys = np.arange(SIZE_M + 1) + int(tile.core.ymin)
    gx, gy = np.meshgrid(xs, ys)
    on_block = (gx >= BLOCK[0]) & (gx <= BLOCK[2]) & (gy >= BLOCK[1]) & (gy <= BLOCK[3])
    key = lambda x, y, kind: ((int(y) << 24) + int(x)) * 4 + kind  # noqa: E731
    ids: dict[int, int] = {}
    points: list[tuple[float, float, float]] = []

    def vertex(x: int, y: int, kind: int) -> int:
        """kind 0 base, 1 ground, 2 roof."""
        number = key(x, y, kind)
        if number not in ids:
            ids[number] = len(points)
            points.append((x, y, (80.0, GROUND_M, ROOF_M)[kind]))
        return ids[number]

    faces: list[tuple[int, int, int]] = []
    part: list[int] = []

    def quad(a: int, b: int, c: int, d: int, kind: int) -> None:
        faces.extend([(a, b, c), (a, c, d)])
        part.extend([kind, kind])

    def level(x: int, y: int) -> int:
        return 2 if BLOCK[0] <= x < BLOCK[2] and BLOCK[1] <= y < BLOCK[3] else 1

    assert on_block.shape == (SIZE_M + 1, SIZE_M + 1)
    for y in ys[:-1]:
        for x in xs[:-1]:
            k = level(x, y)
            quad(*(vertex(x + i, y + j, k) for i, j in ((0, 0), (1, 0), (1, 1), (0, 1))), SURFACE)
            quad(*(vertex(x + i, y + j, 0) for i, j in ((0, 0), (0, 1), (1, 1), (1, 0))), BOTTOM)
            # the wall on a cell's west and south side belongs to the cell
            for (px, py), (qx, qy), (ox, oy) in (((x, y + 1), (x, y), (x - 1, y)), ((x, y), (x + 1, y), (x, y - 1))):
                other = level(ox, oy)
                if other < k:
                    quad(vertex(px, py, 1), vertex(qx, qy, 1), vertex(qx, qy, 2), vertex(px, py, 2), SURFACE)
                elif other > k:
                    quad(vertex(qx, qy, 1), vertex(px, py, 1), vertex(px, py, 2), vertex(qx, qy, 2), SURFACE)
    x0, x1, y0, y1 = xs[0], xs[-1], ys[0], ys[-1]

    def cell(p: int, q: int, end: int) -> int:
        """Lower index of the tile's own cell beside a border edge."""
        return min(p, q, end - 1)

    borders = {
        (-1, 0): [((x0, y + 1), (x0, y)) for y in ys[:-1]],
        (1, 0): [((x1, y), (x1, y + 1)) for y in ys[:-1]],
        (0, -1): [((x, y0), (x + 1, y0)) for x in xs[:-1]],
        (0, 1): [((x + 1, y1), (x, y1)) for x in xs[:-1]],
    }
    for step, chain in borders.items():
        if tile.neighbour(*step) in outside:
            for (px, py), (qx, qy) in chain:
                # up to the surface of the cell beside the border, in two storeys where the block stands
                for k in range(level(cell(px, qx, x1), cell(py, qy, y1))):
                    quad(vertex(px, py, k), vertex(qx, qy, k), vertex(qx, qy, k + 1), vertex(px, py, k + 1), RIM)
    origin = (tile.core.xmin, tile.core.ymin, 90.0)
    local = (np.array(points) - origin) * STEPS_PER_M
    return TileMesh(
        origin,
        local.astype(np.int32),
        np.array(list(ids), np.int64),
        np.array(faces, np.int32),
        np.array(part, np.uint8),
    )


# Of the views of a tile, by its column: texels owe most to the fifth of them, or to none.
ACQUIRED = (["2024-05-01T08:00:00Z"] * 5, [*["2024-05-01T08:00:00Z"] * 4, "2025-06-18"])


def tile_texture(mesh: TileMesh) -> TileTexture:
    """Plan view alone; colour follows the position in the city, so that there is no seam."""
    texel, side = 0.25, SIZE_M * 4
    xyz = mesh.xyz()
    uv = np.stack([xyz[:, 0], SIZE_M - xyz[:, 1]], axis=1)[mesh.faces] / SIZE_M
    y, x = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    east, north = mesh.origin_m[0] + x * texel, mesh.origin_m[1] + SIZE_M - y * texel
    wave = 0.5 + 0.25 * (np.sin(east / 3) + np.sin(north / 4))
    colour = np.stack([80 + 120 * wave, 100 + 80 * wave, 140 - 60 * wave], axis=-1).astype(np.uint8)
    provenance = np.full((side, side), 4, np.uint8)
    provenance[: side // 4] = 254
    return TileTexture(
        AtlasLayout(side, side, (side, side), texel, (0.0, SIZE_M)),
        colour,
        provenance,
        provenance,
        [uv.astype(np.float32)],
    )


def manifest(run: Run, name: str, tile: Tile | None, products: dict[str, str], **values: object) -> None:
    path = run.manifest_path(name, tile)
    entries = []
    for product, relative in products.items():
        file = path.parent / relative
        size = file.stat().st_size if file.is_file() else sum(f.stat().st_size for f in file.rglob("*") if f.is_file())
        entries.append({"name": product, "path": relative, "bytes": size, "sha256": "0"})
    base = {"stage": name, "tile": tile.name if tile else None, "status": "done", "reason": None, "notes": {}}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, base | {"products": entries} | values)
    record = {"stage": name, "work_s": 2.0, "cpu_s": 3.0, "work_cpu_s": 1.5, "peak_rss_mb": 300.0, "python": "3.11.2"}
    write_json(path.with_name(f"{name}.run.json"), record | {"host": "here", "machine": "x86_64", "code": "0"})


def write_truth(folder: Path) -> None:
    box = config().city.box.grow(8.0)
    grid = CellGrid.covering(box, GSD_M)
    heights = true_heights(grid)
    truth = folder / "sources" / "truth"
    write_raster(truth / "dsm.tif", heights, grid, float("nan"))
    write_raster(truth / "dtm.tif", np.full_like(heights, GROUND_M), grid, float("nan"))
    write_raster(truth / "building_mask.tif", (heights > GROUND_M).astype(np.uint8), grid)
    points, faces, material = block_mesh()
    np.savez(truth / "mesh.npz", origin_m=np.array([WEST, SOUTH, 0.0]), vertices=points, faces=faces, material=material)


def view_of(position: tuple[float, float, float], target: tuple[float, float, float]) -> Pinhole:
    return Pinhole.look_at(np.array(position), np.array(target), 45.0, 160, 120)


def write_views(run: Run, meshes: list[TexturedMesh], origin: np.ndarray) -> None:
    """The pictures are our own renderings, so the scores must be perfect where the core is seen."""
    truth = run.folder / "sources" / "truth"
    centre = (SIZE_M, SIZE_M, 10.0)
    cameras = {
        "near": view_of((SIZE_M, -10.0, 60.0), centre),
        "away": view_of((SIZE_M, -10.0, 60.0), (SIZE_M, -300.0, 0.0)),
    }
    (truth / "test_views").mkdir()
    entries = []
    for name, camera in cameras.items():
        save_png(truth / "test_views" / f"{name}.png", render(meshes, camera, 2).averaged())
        entries.append(
            {
                "name": name,
                "picture": f"test_views/{name}.png",
                "position": (camera.position + origin).tolist(),
                "rotation": camera.rotation.tolist(),
                "focal_px": camera.focal_px,
                "cx": camera.cx,
                "cy": camera.cy,
                "width": camera.width,
                "height": camera.height,
            }
        )
    (truth / "test_views.json").write_text(json.dumps({"views": entries}))


def write_heights(run: Run, bias_m: float = 0.0) -> None:
    """city_dsm.tif and the source layer: heights are off by 0.25 m everywhere, 10 % of the rows are filled."""
    import zarr

    boxes = [tile.core for tile in city_tiles(run.config)]
    west, south = min(b.xmin for b in boxes), min(b.ymin for b in boxes)
    east, north = max(b.xmax for b in boxes), max(b.ymax for b in boxes)
    grid = CellGrid.covering(type(boxes[0])(west, south, east, north), GSD_M)
    write_raster(run.folder / "city_dsm.tif", true_heights(grid) + np.float32(0.25 + bias_m), grid, float("nan"))
    write_raster(run.folder / "city_dtm.tif", np.full(grid.shape, GROUND_M, np.float32), grid, float("nan"))
    source = np.ones(grid.shape, np.uint8)
    source[: grid.rows // 10] = 2
    group = zarr.create_group(run.folder / "city.zarr", zarr_format=3)
    group.create_array("source", data=source)


def make_run(folder: Path, quarantined: str | None = None) -> Run:
    run = Run(folder / "fake", config())
    run.folder.mkdir()
    write_json(run.folder / "config.json", run.config.model_dump(mode="json"))
    write_truth(run.folder)
    write_heights(run)
    for name in ("survey", "merge_heights", "merge_city", "synth"):
        manifest(run, name, None, {})
    tiles = [tile for tile in city_tiles(run.config) if tile.name != quarantined]
    origin = np.array([WEST, SOUTH, run.config.city.z0_m])
    textured = []
    for tile in city_tiles(run.config):
        if tile not in tiles:
            manifest(run, "ingest", tile, {}, status="quarantined", reason="no data")
            continue
        mesh = tile_mesh(tile, {other for other in tile.ring(1) if other not in tiles})
        texture = tile_texture(mesh)
        base = run.tile_folder(tile)
        base.mkdir(parents=True)
        save_levels(base / "mesh.npz", [mesh])
        save_texture(base / "texture", texture)
        for name in ("ingest", "dsm", *(f"sdf_{d}" for d in range(4))):
            manifest(run, name, tile, {})
        manifest(run, "mesh", tile, {"mesh": "mesh.npz"})
        notes = {
            "source_error": 255**2 * 1e-3,
            "source_pixels": 100,
            "generated_share": 0.0,
            "novel_error": 0.0,
            "novel_pixels": 0,
            "acquired": ACQUIRED[tile.i % 2],
        }
        manifest(run, "texture", tile, {"texture": "texture"}, notes=notes)
        shown = mesh.part == SURFACE
        textured.append(
            TexturedMesh(
                mesh.world() - origin, mesh.faces[shown], texture.uv[0][shown], texture.colour, texture.provenance
            )
        )
    write_views(run, textured, origin)
    for rule, seconds in (("dsm/a", 10.0), ("evaluate", 99.0), ("mesh/b", 90.0)):
        path = run.folder / "benchmarks" / f"{rule}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"s": seconds, "cpu_time": 1.0}) + "\n")
    return run


def make_real_run(folder: Path, with_reference: bool = True) -> Run:
    """The same city as if photographed for real: no truth but the reference heights inside the AOIs."""
    from cityweave.aoi import REFERENCE, AoiWriter

    synthetic = make_run(folder)
    values = synthetic.config.model_dump(mode="json") | {"synth": None}
    values["sources"] = {"views": [{"name": name, "path": f"{name}.tif"} for name in "ab"]}
    run = Run(synthetic.folder, load_config(values))
    for tile in city_tiles(run.config):
        path = run.tile_folder(tile) / "aoi.zarr"
        with AoiWriter(path, tile, crs_wkt="", vertical="ellipsoid", halo_m=8.0, z0_m=90.0) as aoi:
            if with_reference:
                grid = CellGrid.covering(tile.core.grow(8.0), GSD_M)
                aoi.add_raster(REFERENCE, true_heights(grid), grid)
        manifest(run, "ingest", tile, {"aoi": "aoi.zarr"})
    return run
