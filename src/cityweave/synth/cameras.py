"""Satellites that scan the city line by line, and the RPCs fitted to them.

Earth-centred coordinates are EPSG:4978, metres. The satellite flies a circular orbit; while it scans it turns so that
its line of sight moves over the ground at one line per line time. Image rows follow the scan, roughly southwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cityweave.cameras import RPC
from cityweave.errors import DataError

GRAVITATION_M3_S2 = 3.986004418e14
LINE_TIME_S = 1.0e-4
HEADING_DEG = 190.0  # of a descending sun-synchronous orbit
SCAN_DEG = 183.0  # direction in which the lines follow each other
MAX_RPC_ERROR_PX = 0.05

Points = NDArray[np.float64]
Project = Callable[[Points], tuple[Points, Points]]


@dataclass(frozen=True)
class Pushbroom:
    """Line v is taken at time v lines; columns lie side by side across the scan."""

    position: Points  # at line 0
    axis: Points  # of the orbit, unit
    turn_per_line: float  # radians
    aim: Points  # ground point of line 0, column 0
    step: Points  # of the aim per line
    focal_px: float
    u0: float
    v0: float

    def project(self, ecef_nx3: Points) -> tuple[Points, Points]:
        """Earth-centred points to (u, v) of the image."""
        out = np.empty((len(ecef_nx3), 2))
        points = np.ascontiguousarray(ecef_nx3, dtype=np.float64)
        _project(points, self.position, self.axis, self.turn_per_line, self.aim, self.step, self.focal_px, out)
        return out[:, 0] + self.u0, out[:, 1] + self.v0

    def position_at(self, v: float) -> Points:
        return _turned(self.position, self.axis, (v - self.v0) * self.turn_per_line)


@njit(cache=True, nogil=True)
def _turned(p, axis, angle):  # type: ignore[no-untyped-def]
    """p, square to the axis, turned about it."""
    c, s = np.cos(angle), np.sin(angle)
    out = np.empty(3)
    out[0] = p[0] * c + (axis[1] * p[2] - axis[2] * p[1]) * s
    out[1] = p[1] * c + (axis[2] * p[0] - axis[0] * p[2]) * s
    out[2] = p[2] * c + (axis[0] * p[1] - axis[1] * p[0]) * s
    return out


@njit(cache=True, nogil=True)
def _project(points, position, axis, turn, aim, step, focal, out):  # type: ignore[no-untyped-def]
    """Per point the line at which the scan passes it, by fixed-point steps that gain three digits each."""
    for n in range(points.shape[0]):
        t = 0.0
        u = 0.0
        for _ in range(12):
            s = _turned(position, axis, t * turn)
            zx, zy, zz = aim[0] + step[0] * t - s[0], aim[1] + step[1] * t - s[1], aim[2] + step[2] * t - s[2]
            length = np.sqrt(zx * zx + zy * zy + zz * zz)
            zx, zy, zz = zx / length, zy / length, zz / length
            along = step[0] * zx + step[1] * zy + step[2] * zz
            yx, yy, yz = step[0] - along * zx, step[1] - along * zy, step[2] - along * zz
            length = np.sqrt(yx * yx + yy * yy + yz * yz)
            yx, yy, yz = yx / length, yy / length, yz / length
            xx, xy, xz = yy * zz - yz * zy, yz * zx - yx * zz, yx * zy - yy * zx
            px, py, pz = points[n, 0] - s[0], points[n, 1] - s[1], points[n, 2] - s[2]
            depth = px * zx + py * zy + pz * zz
            u = focal * (px * xx + py * xy + pz * xz) / depth
            dt = focal * (px * yx + py * yy + pz * yz) / depth
            t += dt
            if abs(dt) < 1e-9:
                break
        out[n, 0] = u
        out[n, 1] = t


@lru_cache(maxsize=1)
def _to_ecef():  # type: ignore[no-untyped-def]
    from pyproj import Transformer

    return Transformer.from_crs("EPSG:4979", "EPSG:4978", always_xy=True, allow_ballpark=False)


def ecef_of(lon: Points, lat: Points, height_m: Points) -> Points:
    return np.stack(_to_ecef().transform(lon, lat, height_m), axis=-1)


def local_axes(lon_deg: float, lat_deg: float) -> Points:
    """Rows east, north, up in earth-centred coordinates."""
    lon, lat = np.radians(lon_deg), np.radians(lat_deg)
    return np.array(
        [
            [-np.sin(lon), np.cos(lon), 0.0],
            [-np.sin(lat) * np.cos(lon), -np.sin(lat) * np.sin(lon), np.cos(lat)],
            [np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)],
        ]
    )


def _compass(axes: Points, azimuth_deg: float) -> Points:
    a = np.radians(azimuth_deg)
    return np.sin(a) * axes[0] + np.cos(a) * axes[1]  # type: ignore[no-any-return]


def satellite_over(
    geodetic: tuple[float, float, float], off_nadir_deg: float, azimuth_deg: float, altitude_m: float, gsd_m: float
) -> Pushbroom:
    """A satellite at `azimuth_deg` from the ground point, which it sees `off_nadir_deg` from its own straight down."""
    lon, lat, height = geodetic
    target = ecef_of(np.array([lon]), np.array([lat]), np.array([height]))[0]
    axes = local_axes(lon, lat)
    below = float(np.linalg.norm(target))  # of the sphere that touches the ellipsoid's horizon here
    radius = below + altitude_m - height
    incidence = np.arcsin(radius / below * np.sin(np.radians(off_nadir_deg)))
    towards = np.sin(incidence) * _compass(axes, azimuth_deg) + np.cos(incidence) * axes[2]
    half = below * np.cos(incidence)
    distance = -half + np.sqrt(half**2 + radius**2 - below**2)
    position = target + distance * towards
    velocity = _compass(axes, HEADING_DEG)
    axis = np.cross(position, velocity)
    axis /= np.linalg.norm(axis)
    turn = np.sqrt(GRAVITATION_M3_S2 / np.linalg.norm(position) ** 3) * LINE_TIME_S
    scan = _compass(axes, SCAN_DEG)
    seen = scan - (scan @ towards) * towards  # what of the scan direction the sensor sees
    step = scan * gsd_m / np.linalg.norm(seen)
    return Pushbroom(position, axis, float(turn), target, step, float(distance / gsd_m), 0.0, 0.0)


def angles_from(position: Points, geodetic: tuple[float, float, float]) -> dict[str, float]:
    """Where a satellite really stands, seen from a ground point and from itself."""
    lon, lat, height = geodetic
    target = ecef_of(np.array([lon]), np.array([lat]), np.array([height]))[0]
    east, north, up = local_axes(lon, lat) @ (position - target)
    back = target - position
    down = target - np.linalg.norm(target) * local_axes(lon, lat)[2] - position
    down /= np.linalg.norm(down)
    return {
        "view_azimuth_deg": float(np.degrees(np.arctan2(east, north)) % 360.0),
        "incidence_deg": float(np.degrees(np.arctan2(np.hypot(east, north), up))),
        "off_nadir_deg": float(np.degrees(np.arccos(np.clip(back @ down / np.linalg.norm(back), -1, 1)))),
        "range_km": float(np.linalg.norm(back) / 1000.0),
    }


def _terms(x: Points, y: Points, z: Points) -> Points:
    one = np.ones_like(x)
    low = [one, x, y, z, x * y, x * z, y * z, x * x, y * y, z * z]
    high = [x * y * z, x**3, x * y * y, x * z * z, x * x * y, y**3, y * z * z, x * x * z, y * y * z, z**3]
    return np.stack(low + high, axis=1)


@njit(cache=True)
def _solve_damped(rows, values, damp):  # type: ignore[no-untyped-def]
    """Least squares with a small ridge, by Cholesky in a fixed order: the same bits whatever the number of threads."""
    n, k = rows.shape
    a, x = np.zeros((k, k)), np.zeros(k)
    for r in range(n):
        for i in range(k):
            x[i] += rows[r, i] * values[r]
            for j in range(i + 1):
                a[i, j] += rows[r, i] * rows[r, j]
    for i in range(k):
        a[i, i] += damp * n
    for i in range(k):
        for j in range(i + 1):
            s = a[i, j]
            for m in range(j):
                s -= a[i, m] * a[j, m]
            a[i, j] = np.sqrt(s) if i == j else s / a[j, j]
    for i in range(k):
        for m in range(i):
            x[i] -= a[i, m] * x[m]
        x[i] /= a[i, i]
    for i in range(k - 1, -1, -1):
        for m in range(i + 1, k):
            x[i] -= a[m, i] * x[m]
        x[i] /= a[i, i]
    return x


def _rational(terms: Points, values: Points) -> tuple[Points, Points]:
    """Numerator and denominator (first coefficient 1) whose ratio is `values`, held small where free."""
    weight = np.ones(len(values))
    numerator, denominator = np.zeros(20), np.ones(1)
    for _ in range(3):
        rows = np.hstack([terms, -values[:, None] * terms[:, 1:]]) * weight[:, None]
        solution = _solve_damped(rows, values * weight, 1e-11)
        numerator, denominator = solution[:20], np.concatenate([[1.0], solution[20:]])
        weight = 1.0 / (terms * denominator).sum(axis=1)
    return numerator, denominator


def _lattice(low: Points, high: Points, counts: tuple[int, int, int]) -> Points:
    axes = [np.linspace(a, b, n) for a, b, n in zip(low, high, counts, strict=True)]
    return np.stack([g.ravel() for g in np.meshgrid(*axes, indexing="ij")], axis=1)


def fit_rpc(project: Project, low: Points, high: Points) -> tuple[RPC, float]:
    """An RPC over a box of (lon, lat, ellipsoidal height), and its largest error in pixels at points not fitted to.

    Raises when that is above what the RPC may be off.
    """
    fitted = _lattice(low, high, (11, 11, 6))
    centre, scale = (low + high) / 2, (high - low) / 2
    u, v = project(ecef_of(*fitted.T))
    samp, line = u - 0.5, v - 0.5
    samp_off, line_off = (samp.max() + samp.min()) / 2, (line.max() + line.min()) / 2
    samp_scale, line_scale = samp.max() - samp_off, line.max() - line_off
    terms = _terms(*((fitted - centre) / scale).T)
    samp_num, samp_den = _rational(terms, (samp - samp_off) / samp_scale)
    line_num, line_den = _rational(terms, (line - line_off) / line_scale)

    def plain(a: Points) -> tuple[float, ...]:
        return tuple(float(x) for x in a)

    rpc = RPC(
        line_num=plain(line_num), line_den=plain(line_den), samp_num=plain(samp_num), samp_den=plain(samp_den),
        line_off=float(line_off), line_scale=float(line_scale),
        samp_off=float(samp_off), samp_scale=float(samp_scale),
        lat_off=float(centre[1]), lat_scale=float(scale[1]), long_off=float(centre[0]), long_scale=float(scale[0]),
        height_off=float(centre[2]), height_scale=float(scale[2]),
    )  # fmt: skip
    tested = _lattice(low, high, (12, 10, 7))
    u, v = project(ecef_of(*tested.T))
    ru, rv = rpc.project(*tested.T)
    error = float(np.ceil(np.hypot(ru - u, rv - v).max() * 1e5) / 1e5)
    if not error < MAX_RPC_ERROR_PX:
        raise DataError(f"the RPC is {error:.3f} px off its camera; below {MAX_RPC_ERROR_PX} px is accepted")
    return rpc, error
