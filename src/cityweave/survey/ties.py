"""Tie points: distinct places on fixed windows of the CRS, found in every other view that shows them.

Views are laid on a level plane per window. A place at another height moves there along the parallax of the two views,
by how much says how high it is; what it moves across is the error of their pointing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from cityweave.cameras import RPC, PolyCamera, ToGeodetic, fit_local
from cityweave.cores import side_by_side
from cityweave.grid import Box, Tile, tiles_covering
from cityweave.io.raster import open_raster
from cityweave.io.satellite import Crop, crop_for, read_crop, read_excluded
from cityweave.survey.patches import (
    COARSE_HALF,
    FINE_HALF,
    corner_strength,
    halved,
    match_points,
    sample_plane,
)

CELL_M = 16  # one point is tried in each
MOST_WINDOWS = 64
MOST_LOOKS = 800  # in a window, all views together
MOST_ANGLE_DEG = 45.0  # between two views; beyond, roofs and streets look too different
SPREAD = 100.0  # of the brightness in an image that is being compared
MIN_CORRELATION, MIN_MARGIN, MAX_SIGMA_CELLS = 0.6, 0.03, 0.2


@dataclass(frozen=True)
class TieView:
    """A source view as tying needs it. `rpc` as the vendor gave it."""

    name: str
    path: Path
    mask: Path | None
    rpc: RPC
    size_px: tuple[int, int]
    gsd_m: float
    saturation: float | None

    def allowance_m(self, reach: Reach) -> float:
        return reach.allowance_px * self.gsd_m


@dataclass(frozen=True)
class Reach:
    """Where and how far to look."""

    box: Box
    heights_m: tuple[float, float]  # of the whole city
    allowance_px: float  # how far one RPC may point wrong
    window_m: int
    to_geodetic: ToGeodetic
    known_m: Mapping[tuple[float, float], tuple[float, float]] = field(default_factory=dict)  # window's corner to range

    def heights_of(self, window: Tile) -> tuple[float, float]:
        return self.known_m.get((window.core.xmin, window.core.ymin), self.heights_m)


@dataclass
class Ties:
    """One row an observation; a tie has one in its master view, the first of its rows, and one in each other view."""

    views: int
    tie: np.ndarray  # (n,) int
    view: np.ndarray  # (n,) int
    image: np.ndarray  # (n, 2) u, v in pixels of the source image
    master: np.ndarray  # (n,) bool
    geodetic: np.ndarray  # (ties, 3) about where: degrees and metres above the ellipsoid
    cell: np.ndarray  # (ties, 2) of the lattice of CELL_M
    tried: np.ndarray  # (views, views) places of a master (row) that were looked for in another view (column)
    plain: np.ndarray  # (views,) places where a master had no contrast
    cells_per_window: int

    def master_rows(self) -> np.ndarray:
        """(ties,) which observation is each tie's master."""
        out = np.empty(self.count, np.int64)
        rows = np.flatnonzero(self.master)
        out[self.tie[rows]] = rows
        return out

    @property
    def height(self) -> np.ndarray:
        return self.geodetic[:, 2]

    @property
    def count(self) -> int:
        return len(self.geodetic)

    def of_views(self, group: Sequence[int]) -> Ties:
        """The ties within a group of views, which are numbered anew."""
        own = self.kept(np.isin(self.view, group))
        number = np.full(self.views, -1)
        number[list(group)] = np.arange(len(group))
        return replace(own, views=len(group), view=number[own.view])

    def kept(self, observations: np.ndarray) -> Ties:
        """Only some observations, and of the ties those that keep two views; numbered anew."""
        keep = observations.copy()
        keep &= np.bincount(self.tie[keep], minlength=self.count)[self.tie] >= 2
        used, tie = np.unique(self.tie[keep], return_inverse=True)
        # A tie whose master went gets another one, so that every other observation has its partner.
        order = np.lexsort((~self.master[keep], tie))
        master = np.zeros(len(tie), bool)
        master[order[np.unique(tie[order], return_index=True)[1]]] = True
        return replace(
            self,
            tie=tie,
            view=self.view[keep],
            image=self.image[keep],
            master=master,
            geodetic=self.geodetic[used],
            cell=self.cell[used],
        )


def find_ties(views: Sequence[TieView], reach: Reach) -> Ties:
    n = len(views)
    parts = side_by_side(lambda window: _ties_of(views, window, reach), tie_windows(views, reach))
    firsts = np.cumsum([0, *(len(part.ground) for part in parts)])
    rows = [(first + row[0], *row[1:]) for first, part in zip(firsts, parts, strict=False) for row in part.rows]
    table = np.array(rows, np.float64).reshape(-1, 5)
    return Ties(
        n, table[:, 0].astype(np.int64), table[:, 1].astype(np.int64), table[:, 2:4], table[:, 4] > 0,
        _geodetic([point for part in parts for point in part.ground], reach),
        np.array([cell for part in parts for cell in part.cells], np.int64).reshape(-1, 2),
        sum((part.tried for part in parts), np.zeros((n, n), np.int64)),
        sum((part.plain for part in parts), np.zeros(n, np.int64)),
        reach.window_m // CELL_M,
    )  # fmt: skip


@dataclass
class _Found:
    """Ties of one window, numbered within it."""

    tried: np.ndarray
    plain: np.ndarray
    rows: list[tuple[float, ...]] = field(default_factory=list)  # tie, view, u, v, 1 for the master's
    ground: list[np.ndarray] = field(default_factory=list)
    cells: list[tuple[int, int]] = field(default_factory=list)


def _ties_of(views: Sequence[TieView], window: Tile, reach: Reach) -> _Found:
    n = len(views)
    out = _Found(np.zeros((n, n), np.int64), np.zeros(n, np.int64))
    scene = _scene(views, window, reach)
    if scene is None:
        return out
    for master, which in enumerate(scene.which):
        places, of_cell = scene.places(master)
        out.plain[which] += sum(place is None for place in places)
        good = [k for k, place in enumerate(places) if place is not None]
        if not good:
            continue
        points = np.array([places[k] for k in good], np.int64)
        looks = [(other, scene.found(master, other, points)) for other in scene.partners(master)]
        for other, _ in looks:
            out.tried[which, scene.which[other]] += int(scene.shows(other, points).sum())
        own = scene.image(master, points[:, 1] + 0.5, points[:, 0] + 0.5)
        for k, point in enumerate(points):
            seen = [(other, image[k]) for other, image in looks if np.isfinite(image[k, 0])]
            if seen:
                out.rows.append((len(out.ground), which, *own[k], 1))
                out.rows += [(len(out.ground), scene.which[other], *image, 0) for other, image in seen]
                out.ground.append(scene.ground(point))
                out.cells.append(of_cell[good[k]])
    return out


def _geodetic(ground: list[np.ndarray], reach: Reach) -> np.ndarray:
    x, y, z = np.array(ground, np.float64).reshape(-1, 3).T
    return np.stack(reach.to_geodetic(x, y, z), axis=1) if len(x) else np.empty((0, 3))


def tie_windows(views: Sequence[TieView], reach: Reach) -> list[Tile]:
    """Windows of the CRS that at least two views show, a regular part of them when they are many."""
    height = sum(reach.heights_m) / 2
    boxes = [_outline_box(view, height, reach) for view in views]
    windows = [
        window
        for window in tiles_covering(reach.box, reach.window_m)
        if sum(box is not None and box.intersects(window.core) for box in boxes) >= 2
    ]
    step = 1
    while len(windows) > MOST_WINDOWS:
        step *= 2
        windows = [window for window in windows if window.i % step == 0 and window.j % step == 0]
    return windows


def _outline_box(view: TieView, height_m: float, reach: Reach) -> Box | None:
    """What a view shows of the city's heights, roughly: by way of its own linear map around the city's middle."""
    x, y = (reach.box.xmin + reach.box.xmax) / 2, (reach.box.ymin + reach.box.ymax) / 2
    step = 50.0
    u, v = view.rpc.project(
        *reach.to_geodetic(np.array([x, x + step, x]), np.array([y, y, y + step]), np.full(3, height_m))
    )
    linear = np.array([[u[1] - u[0], u[2] - u[0]], [v[1] - v[0], v[2] - v[0]]]) / step
    if not np.isfinite(linear).all() or abs(np.linalg.det(linear)) < 1e-12:
        return None
    corners = np.array([(0, 0), (view.size_px[0], 0), (0, view.size_px[1]), view.size_px], np.float64)
    ground = np.linalg.solve(linear, (corners - [u[0], v[0]]).T)
    slack = (reach.heights_m[1] - reach.heights_m[0]) / 2 + reach.allowance_px * view.gsd_m
    low, high = ground.min(axis=1) - slack, ground.max(axis=1) + slack
    return Box(x + low[0], y + low[1], x + high[0], y + high[1])


@dataclass(frozen=True)
class _Plane:
    """A view laid on the window's level plane."""

    levels: tuple[np.ndarray, np.ndarray, np.ndarray]  # at 1, 2 and 4 cells
    strength: np.ndarray  # of the window without the margin around it
    camera: PolyCamera  # to pixels of the source image
    lean: np.ndarray  # metres east and north of the ray per metre up


@dataclass(frozen=True)
class _Scene:
    window: Tile
    which: list[int]  # view of each plane
    planes: list[_Plane]
    west: float
    north: float
    gsd_m: float
    margin: int  # cells around the window
    heights_m: tuple[float, float]
    allowance_m: float

    @property
    def z_m(self) -> float:
        return sum(self.heights_m) / 2

    def ground(self, point: np.ndarray) -> np.ndarray:
        x, y = self.west + (point[1] + 0.5) * self.gsd_m, self.north - (point[0] + 0.5) * self.gsd_m
        return np.array([x, y, self.z_m])

    def image(self, plane: int, col: np.ndarray, row: np.ndarray) -> np.ndarray:
        """(n, 2) u, v of the source image where the plane's position (col, row), counted from its corner, is."""
        x, y = self.west + col * self.gsd_m, self.north - row * self.gsd_m
        return np.stack(self.planes[plane].camera.project(x, y, np.full(1, self.z_m)), axis=-1)

    def places(self, master: int) -> tuple[list[tuple[int, int] | None], list[tuple[int, int]]]:
        """The most distinct pixel of each cell that is this view's turn, None where it has no contrast."""
        strength, side = self.planes[master].strength, round(CELL_M / self.gsd_m)
        per_window = self.window.size_m // CELL_M
        sparse = -(-(per_window**2) * (len(self.planes) - 1) // MOST_LOOKS)
        places: list[tuple[int, int] | None] = []
        cells = []
        for j in range(per_window):
            for i in range(per_window):
                cell = (self.window.i * per_window + i, self.window.j * per_window + j)
                turn, rest = divmod(cell[0] + 3 * cell[1], len(self.planes))
                if rest != master or turn % sparse or not self._is_shown(i, j):
                    continue
                left = round(i * CELL_M / self.gsd_m)
                top = round((self.window.size_m - (j + 1) * CELL_M) / self.gsd_m)
                block = strength[top : top + side, left : left + side]
                row, col = np.unravel_index(int(np.argmax(block)), block.shape)
                point = (self.margin + top + int(row), self.margin + left + int(col))
                places.append(point if block[row, col] > 0 else None)
                cells.append(cell)
        return places, cells

    def _is_shown(self, i: int, j: int) -> bool:
        """Whether at least two views have data in the middle of a cell of the window."""
        middle = np.array([self.window.size_m - (j + 0.5) * CELL_M, (i + 0.5) * CELL_M]) / self.gsd_m
        point = (self.margin + middle[None, :]).astype(np.int64)
        return sum(bool(self.shows(plane, point)[0]) for plane in range(len(self.planes))) >= 2

    def shows(self, plane: int, points: np.ndarray) -> np.ndarray:
        """(n,) bool: whether a view has data at the points; at other heights it may begin or end elsewhere."""
        shown: np.ndarray = np.isfinite(self.planes[plane].levels[0][points[:, 0], points[:, 1]])
        return shown

    def partners(self, master: int) -> list[int]:
        """Planes whose view isn't too far from the master's."""
        return [k for k in range(len(self.planes)) if k != master and self._angle_deg(master, k) <= MOST_ANGLE_DEG]

    def _angle_deg(self, a: int, b: int) -> float:
        rays = [np.array([*self.planes[k].lean, 1.0]) for k in (a, b)]
        cosine = rays[0] @ rays[1] / np.linalg.norm(rays[0]) / np.linalg.norm(rays[1])
        return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))

    def found(self, master: int, other: int, points: np.ndarray) -> np.ndarray:
        """(n, 2) u, v of the points in the other view's source image, NaN where they are not found for sure."""
        move = self.planes[master].lean - self.planes[other].lean  # on the plane, per metre up
        per_metre = float(np.hypot(*move)) / self.gsd_m
        along = np.array([move[0], -move[1]]) / (per_metre * self.gsd_m) if per_metre > 1e-6 else np.array([1.0, 0.0])
        off = 2 * self.allowance_m / self.gsd_m
        half = (self.heights_m[1] - self.heights_m[0]) / 2 * per_metre + off
        reach, across = int(np.ceil(half / 4)), int(np.ceil(off / 4))
        out = np.empty((len(points), 5))
        levels = (*self.planes[master].levels, *self.planes[other].levels)
        match_points(*levels, points, along, -reach, reach, across, out)
        correlation, second, sigma = out[:, 2:].T
        with np.errstate(invalid="ignore"):
            sure = (correlation >= MIN_CORRELATION) & (correlation - second >= MIN_MARGIN) & (sigma < MAX_SIGMA_CELLS)
        image = self.image(other, points[:, 1] + 0.5 + out[:, 0], points[:, 0] + 0.5 + out[:, 1])
        return np.where(sure[:, None], image, np.nan)


def _scene(views: Sequence[TieView], window: Tile, reach: Reach) -> _Scene | None:
    """Planes of all views that show the window; None when fewer than two do."""
    heights = reach.heights_of(window)
    patch = (COARSE_HALF + 1) * 4 + FINE_HALF
    crops = {}
    for k, view in enumerate(views):
        box = window.core.grow(patch * view.gsd_m)
        crop = crop_for(view.rpc, reach.to_geodetic, box, heights, view.size_px, reach.allowance_px)
        if crop is not None and min(crop.width, crop.height) > 2 * FINE_HALF:
            crops[k] = crop
    if len(crops) < 2:
        return None
    gsd = max(views[k].gsd_m for k in crops)
    allowance = max(views[k].allowance_m(reach) for k in crops)
    cameras = {
        k: fit_local(views[k].rpc, reach.to_geodetic, window.core.grow(patch * gsd), heights, (0.0, 0.0, 0.0))
        for k in crops
    }
    leans = np.array([camera.lean() for camera in cameras.values()])
    widest = np.ptp(leans, axis=0).max() * (heights[1] - heights[0]) / 2 + 2 * allowance
    margin = int(np.ceil(widest / gsd / 4 + patch / 4)) * 4
    side = int(np.ceil(window.size_m / gsd / 4)) * 4 + 2 * margin
    west, north = window.core.xmin - margin * gsd, window.core.ymax + margin * gsd
    planes = []
    for (k, camera), lean in zip(cameras.items(), leans, strict=True):
        planes.append(_plane(views[k], crops[k], camera, lean, (west, north, gsd, sum(heights) / 2), side, margin))
    return _Scene(window, list(crops), planes, west, north, gsd, margin, heights, allowance)


def _plane(
    view: TieView,
    crop: Crop,
    camera: PolyCamera,
    lean: np.ndarray,
    place: tuple[float, float, float, float],
    side: int,
    margin: int,
) -> _Plane:
    fine = np.empty((side, side), np.float32)
    image, full = read_grey(view, crop)
    sample_plane(image, *camera_of_crop(camera, crop), *place, fine)
    strength = np.empty((side - 2 * margin, side - 2 * margin))
    corner_strength(fine, margin, margin, full, strength)
    middle = halved(fine)
    return _Plane((fine, middle, halved(middle)), strength, camera, lean)


def camera_of_crop(camera: PolyCamera, crop: Crop, pixels: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Arrays of the camera to the pixels of a crop, or of its means over `pixels` x `pixels`."""
    coefficients, centre, scale = camera.arrays()
    local = coefficients.copy()
    local[:, 0] -= (crop.left, crop.top)
    return local / pixels, centre, scale


def read_grey(view: TieView, crop: Crop) -> tuple[np.ndarray, float]:
    """Mean of the bands with mean 0 and spread 100, float32, NaN where nothing may be used; and where it is full.

    All 0 when the crop shows one value only.
    """
    with open_raster(view.path) as dataset:
        pixels = read_crop(dataset, crop)
    invalid = pixels.invalid
    if pixels.nodata is None and np.issubdtype(pixels.image.dtype, np.integer):
        # Products cut to one polygon on the ground are filled with 0, often undeclared: edges that look like ties.
        invalid = invalid | (pixels.image == 0).all(axis=0)
    if view.mask is not None:
        invalid = invalid | read_excluded(view.mask, crop, view.size_px)
    grey: np.ndarray = pixels.image.astype(np.float32).mean(axis=0, dtype=np.float32)
    seen = grey[~invalid].astype(np.float64)
    mean, spread = (float(seen.mean()), float(seen.std())) if seen.size else (0.0, 0.0)
    if not spread > 1e-5 * abs(mean):
        return np.where(invalid, np.float32(np.nan), np.float32(0)), np.inf
    grey = (grey - np.float32(mean)) * np.float32(SPREAD / spread)
    grey[invalid] = np.nan
    if view.saturation is None:
        return grey, np.inf
    return grey, (view.saturation * 0.998 - mean) * SPREAD / spread  # interpolated values stay a little below
