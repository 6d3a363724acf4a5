"""The synth job: build the city, photograph it, write every source and the truth under results/{city}/sources."""

from __future__ import annotations

import json
import os
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cityweave.cameras import Pinhole, ToGeodetic, geodetic_transform
from cityweave.config import Config, SynthConfig, SynthView
from cityweave.errors import ConfigError
from cityweave.grid import Box, CellGrid
from cityweave.io.satellite import DISPLAY_TAG
from cityweave.manifest import Products, Run, run_job
from cityweave.plan import vertical_grid
from cityweave.synth import files, sensor, views
from cityweave.synth.cameras import angles_from, ecef_of, satellite_over
from cityweave.synth.city import build_city
from cityweave.synth.layout import Layout
from cityweave.synth.noise import CODE_POINTING, CODE_SENSOR, generator
from cityweave.synth.scene import Material, Scene
from cityweave.synth.shading import Shaded, Sun, SunMap, prepare, sun_map
from cityweave.synth.street_level import street_cameras
from cityweave.synth.truth import coarse_terrain, true_heights

TRUTH_NOTE = "surface and class of the highest point of the true mesh at the cell's centre"


def run(run: Run) -> None:
    config = run.config
    if config.synth is None:
        raise ConfigError("synth: the configuration has no synth section; a synthetic city needs one")

    def work(products: Products) -> None:
        with products.fixed(run.folder / "sources") as folder:
            products.notes.update(write_sources(config, folder))

    inputs = {"model": config.synth.model} if config.synth.model else {}
    run_job(run, "synth", work, inputs=inputs)


def write_sources(config: Config, folder: Path, threads: int | None = None) -> dict[str, Any]:
    """Everything into `folder`; returns what is worth noting. Threads change nothing but the time."""
    if config.synth is None:
        raise ConfigError("synth: the configuration has no synth section; a synthetic city needs one")
    from rasterio.errors import NotGeoreferencedWarning

    for name in ("views", "truth/test_views"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    studio = Studio(config, config.synth, folder)
    studio.warm()
    cards: dict[str, Any] = {}

    def picture(view: SynthView) -> Callable[[], None]:
        def take() -> None:
            cards[view.name] = studio.satellite(view)

        return take

    tasks = [picture(view) for view in studio.synth.views]
    tasks += [studio.true_ortho, studio.truth, studio.test_views]
    # Views have an RPC instead of a geotransform. Warning filters are the process's: set around all threads.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with ThreadPoolExecutor(threads or min(2, len(os.sched_getaffinity(0)))) as pool:
            for done in [pool.submit(task) for task in tasks]:
                done.result()
    notes = {"views": {view.name: cards[view.name] for view in studio.synth.views}, **studio.notes()}
    (folder / "synth.json").write_text(json.dumps(notes, indent=1, sort_keys=True) + "\n")
    return notes


@dataclass(frozen=True)
class Studio:
    """One scene with its lights; each method takes one picture or writes one group of files."""

    config: Config
    synth: SynthConfig
    folder: Path

    @cached_property
    def box(self) -> Box:
        return self.config.city.box.grow(self.synth.margin_m)

    @cached_property
    def ground_m(self) -> float:
        given = self.synth.ground_m
        return self.config.city.heights_m[0] + 10.0 if given is None else given

    @cached_property
    def scene(self) -> Scene:
        city, box = self.config.city, self.config.city.box
        origin = (box.xmin, box.ymin, city.z0_m)
        if self.synth.model is not None:
            from cityweave.synth.loaded import build_loaded

            return build_loaded(self.synth, self.box, origin, self.config.seed, city.crs)
        layout = Layout(self.config.seed, self.ground_m, self.synth.relief_m)
        return build_city(self.box, origin, layout, min(self.synth.max_height_m, city.max_building_m))

    @cached_property
    def shaded(self) -> Shaded:
        return prepare(self.scene, self.config.seed)

    @cached_property
    def to_geodetic(self) -> ToGeodetic:
        return geodetic_transform(self.config.city.crs, vertical_grid(self.config.city.vertical))

    @cached_property
    def ecef(self) -> NDArray[np.float64]:
        return views.ecef_vertices(self.scene, self.to_geodetic)

    @cached_property
    def suns(self) -> dict[tuple[float, float], SunMap]:
        wanted = {(v.sun_azimuth_deg, v.sun_elevation_deg) for v in self.synth.views}
        return {angles: sun_map(self.scene, Sun(*angles)) for angles in sorted(wanted)}

    @cached_property
    def nadir(self) -> SynthView:
        """The steepest view: its date and sun serve the orthophotos and the unseen views."""
        return min(self.synth.views, key=lambda v: (v.off_nadir_deg, v.name))

    def warm(self) -> None:
        """Compute what all pictures share before threads ask for it."""
        self._check()
        assert self.shaded and len(self.ecef) and self.suns

    def _check(self) -> None:
        low, high = self.config.city.heights_m
        top = float(self.scene.vertices[:, 2].max()) + self.scene.origin_m[2]
        bottom = float(self.scene.terrain.min()) + self.scene.origin_m[2]
        if bottom < low or top > high:
            raise ConfigError(
                f"the synthetic city reaches from {bottom:.1f} m to {top:.1f} m, outside city.heights_m "
                f"[{low:g}, {high:g}]: change those, synth.ground_m, synth.relief_m or synth.max_height_m"
            )

    def sun_of(self, view: SynthView) -> SunMap:
        return self.suns[(view.sun_azimuth_deg, view.sun_elevation_deg)]

    def middle(self) -> tuple[float, float, float]:
        box = self.config.city.box
        x, y = np.array([(box.xmin + box.xmax) / 2]), np.array([(box.ymin + box.ymax) / 2])
        z = self.scene.ground(x - self.scene.origin_m[0], y - self.scene.origin_m[1]) + self.scene.origin_m[2]
        lon, lat, height = self.to_geodetic(x, y, z)
        return float(lon[0]), float(lat[0]), float(height[0])

    def satellite(self, view: SynthView) -> dict[str, Any]:
        synth, middle = self.synth, self.middle()
        camera = satellite_over(middle, view.off_nadir_deg, view.azimuth_deg, synth.altitude_km * 1000.0, synth.gsd_m)
        scene_low = float(self.scene.terrain.min()) + self.scene.origin_m[2]
        scene_high = float(self.scene.vertices[:, 2].max()) + self.scene.origin_m[2]
        placed = views.place(camera, self.box, (scene_low, scene_high), self.to_geodetic)
        radiance = views.satellite_radiance(
            self.shaded, self.sun_of(view), placed, self.ecef, synth.supersample, synth.blur_px
        )
        # By name: a view keeps its noise when others come or go.
        rng = generator(self.config.seed, CODE_SENSOR, zlib.crc32(view.name.encode()))
        gain = 1.0 + synth.gain_spread * rng.uniform(-1.0, 1.0)
        haze_dn = 20.0 + 40.0 * rng.random()
        dn = sensor.digitise(radiance, gain, haze_dn, synth.noise_dn, rng)
        angles = angles_from(placed.camera.position_at(placed.height / 2), middle)
        tags = {
            "ACQUISITION_TIME": view.date,
            "SUN_AZIMUTH": f"{view.sun_azimuth_deg:.3f}",
            "SUN_ELEVATION": f"{view.sun_elevation_deg:.3f}",
            "VIEW_AZIMUTH": f"{angles['view_azimuth_deg']:.3f}",
            "OFF_NADIR": f"{angles['off_nadir_deg']:.3f}",
            "INCIDENCE": f"{angles['incidence_deg']:.3f}",
            "BITS": "11",
            # The calibration, as vendors give gain and bias: with it the counts mean what they mean in every picture.
            DISPLAY_TAG: f"{haze_dn:.3f} {haze_dn + gain * 255 * sensor.DN_PER_GREY:.3f}",
            "RPC_ERROR_PX": f"{placed.rpc_error_px:.5f}",
        }
        off = self._pointing_error(view)
        files.write_view(self.folder / "views" / f"{view.name}.tif", dn, placed.rpc.shifted(-off[0], -off[1]), tags)
        if view is self.nadir:
            self._leaning_ortho(radiance, placed)
        card: dict[str, Any] = {"size_px": [placed.width, placed.height], "rpc_error_px": placed.rpc_error_px}
        if any(off):
            card["pointing_error_px"] = list(off)
        return card | {
            "gain": round(gain, 6),
            "offset_dn": round(haze_dn, 4),
            **{k: round(x, 3) for k, x in angles.items()},
        }

    def _pointing_error(self, view: SynthView) -> tuple[float, float]:
        """How much farther right and down than in truth the view's RPC sees the ground."""
        size = self.synth.pointing_error_px
        if size == 0:
            return 0.0, 0.0
        rng = generator(self.config.seed, CODE_POINTING, zlib.crc32(view.name.encode()))
        u, v = rng.uniform(-size, size, 2)
        return round(float(u), 3), round(float(v), 3)

    def _ortho_grid(self) -> CellGrid:
        return CellGrid.covering(self.box, self.synth.ortho_gsd_m)

    def _leaning_ortho(self, radiance: NDArray[np.float32], placed: views.Placed) -> None:
        """The steepest view laid on the terrain: roofs stay where the view shows them."""
        grid = self._ortho_grid()
        out = np.zeros((*grid.shape, 3), dtype=np.uint8)
        for top in range(0, grid.rows, 256):
            rows = slice(top, min(top + 256, grid.rows))
            x, y = np.meshgrid(grid.x_centres, grid.y_centres[rows])
            z = self.scene.ground(x - self.scene.origin_m[0], y - self.scene.origin_m[1]) + self.scene.origin_m[2]
            u, v = placed.camera.project(ecef_of(*self.to_geodetic(x.ravel(), y.ravel(), z.ravel())))
            sampled = views.sample_bilinear(radiance, u.reshape(x.shape), v.reshape(x.shape))
            out[rows] = sensor.to_grey(sampled)
        self._write("ortho.tif", out, grid, 0)

    def true_ortho(self) -> None:
        grid = self._ortho_grid()
        radiance = views.plan_radiance(
            self.shaded, self.sun_of(self.nadir), grid, self.synth.supersample, self.synth.blur_px
        )
        self._write("true_ortho.tif", sensor.to_grey(radiance), grid, 0)

    def _write(self, name: str, values: NDArray[Any], grid: CellGrid, nodata: float | None, **tags: str) -> None:
        files.write_raster(self.folder / name, values, grid, self.config.city.crs, nodata, tags)

    def truth(self) -> None:
        synth, seed = self.synth, self.config.seed
        grid = CellGrid.covering(self.box, synth.truth_gsd_m)
        heights = true_heights(self.scene, grid)
        self._write("reference.tif", heights.dsm, grid, float("nan"), MEANING=TRUTH_NOTE)
        self._write("truth/dsm.tif", heights.dsm, grid, float("nan"), MEANING=TRUTH_NOTE)
        self._write("truth/dtm.tif", heights.dtm, grid, float("nan"), MEANING="terrain mesh at the cell's centre")
        self._write("truth/building_mask.tif", heights.building, grid, None, MEANING=TRUTH_NOTE)
        self._write("truth/tree_mask.tif", heights.tree, grid, None, MEANING=TRUTH_NOTE)
        coarse = CellGrid.covering(self.box, synth.terrain_gsd_m)
        self._write(
            "terrain.tif", coarse_terrain(self.scene, coarse, synth.terrain_noise_m, seed), coarse, float("nan")
        )
        scene = self.scene
        with (self.folder / "truth" / "mesh.npz").open("wb") as file:
            np.savez(
                file,
                origin_m=np.array(scene.origin_m),
                vertices=scene.vertices,
                faces=scene.faces,
                material=scene.material,
                materials=np.array([m.name for m in Material]),
            )

    def cameras(self) -> list[tuple[str, Pinhole]]:
        """In the scene's frame, aimed at the ground of the core: from high up somewhat beyond its middle, so that the
        foreground is core as well. Then those from the street."""
        box, synth = self.config.city.box, self.synth
        side = min(box.width, box.height)
        out = []
        for height_m in synth.test_heights_m:
            for number, heading_deg in enumerate(synth.test_headings_deg):
                a = np.radians(heading_deg)
                ahead = np.array([np.sin(a), np.cos(a)])
                aside = np.array([ahead[1], -ahead[0]]) * (0.1 if number % 2 else -0.1)
                middle = np.array([box.width, box.height]) / 2
                beyond = 0.08 if height_m > 0.6 * side else -0.08
                aim = middle + (aside + beyond * ahead) * side
                z = float(self.scene.ground(aim[:1], aim[1:])[0])
                camera = Pinhole.look_at(
                    np.array([*(aim - ahead * height_m), z + height_m]),
                    np.array([*aim, z]),
                    45.0,
                    synth.test_size_px,
                    synth.test_size_px,
                )
                out.append((f"h{height_m:03.0f}_{heading_deg:03.0f}", camera))
        return out + street_cameras(self.scene, box, synth.test_street_views, synth.test_size_px)

    def test_views(self) -> None:
        from PIL import Image

        light, offset = self.sun_of(self.nadir), np.array(self.scene.origin_m)
        cards = []
        for name, camera in self.cameras():
            radiance = views.pinhole_radiance(self.shaded, light, camera, self.synth.supersample, self.synth.blur_px)
            Image.fromarray(sensor.to_grey(radiance)).save(self.folder / "truth" / "test_views" / f"{name}.png")
            position = camera.position + offset
            numbers = {"focal_px": camera.focal_px, "cx": camera.cx, "cy": camera.cy}
            size = {"width": camera.width, "height": camera.height}
            frame = {"position": position.tolist(), "rotation": camera.rotation.tolist()}
            cards.append({"name": name, "picture": f"test_views/{name}.png", **frame, **numbers, **size})
        document = {"views": cards, "sun_of_view": self.nadir.name, "dn_per_grey": sensor.DN_PER_GREY}
        text = json.dumps(document, indent=1, sort_keys=True) + "\n"
        (self.folder / "truth" / "test_views.json").write_text(text)

    def notes(self) -> dict[str, Any]:
        count = np.bincount(self.scene.material, minlength=len(Material))
        return {
            "triangles": {m.name.lower(): int(count[m]) for m in Material if count[m]},
            "dn_per_grey": sensor.DN_PER_GREY,
            "dn_per_radiance": sensor.DN_PER_RADIANCE,
        }
