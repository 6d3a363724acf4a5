"""The rational polynomial camera of satellite images, RPC00B, and the correction of its pointing.

Image coordinates as everywhere (see `cameras`): from the corner of the first pixel. An RPC counts from its centre.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np

from cityweave.errors import DataError

Coefficients = tuple[float, ...]
_COEFFICIENTS = ("line_num", "line_den", "samp_num", "samp_den")
_SCALES = ("line_scale", "samp_scale", "lat_scale", "long_scale", "height_scale")


def _rpc_terms(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """The 20 monomials of RPC00B for normalised longitude x, latitude y, height z; shape (20, n)."""
    one = np.ones_like(x)
    # fmt: off
    return np.stack([
        one, x, y, z, x * y, x * z, y * z, x * x, y * y, z * z,
        x * y * z, x**3, x * y * y, x * z * z, x * x * y, y**3, y * z * z, x * x * z, y * y * z, z**3,
    ])
    # fmt: on


def _rpc_slopes(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Derivatives of the 20 monomials by x, y and z; shape (3, 20, n)."""
    one, nil = np.ones_like(x), np.zeros_like(x)
    # fmt: off
    return np.stack([
        np.stack([
            nil, one, nil, nil, y, z, nil, 2 * x, nil, nil,
            y * z, 3 * x * x, y * y, z * z, 2 * x * y, nil, nil, 2 * x * z, nil, nil,
        ]),
        np.stack([
            nil, nil, one, nil, x, nil, z, nil, 2 * y, nil,
            x * z, nil, 2 * x * y, nil, x * x, 3 * y * y, z * z, nil, 2 * y * z, nil,
        ]),
        np.stack([
            nil, nil, nil, one, nil, x, y, nil, nil, 2 * z,
            x * y, nil, nil, 2 * x * z, nil, nil, 2 * y * z, x * x, y * y, 3 * z * z,
        ]),
    ])
    # fmt: on


@dataclass(frozen=True)
class Correction:
    """What is added to the image position that an RPC gives, in pixels.

    u grows by du_px + affine[0] (u - about_px[0]) + affine[1] (v - about_px[1]); v likewise by dv_px and the rest.
    """

    du_px: float
    dv_px: float
    about_px: tuple[float, float] = (0.0, 0.0)
    affine: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)

    def apply(self, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if not any(self.affine):
            return u + self.du_px, v + self.dv_px
        a, b, c, d = self.affine
        x, y = u - self.about_px[0], v - self.about_px[1]
        return u + (self.du_px + a * x + b * y), v + (self.dv_px + c * x + d * y)

    def at_edge(self) -> list[float]:
        """The linear part at the image's edge, half its size from `about_px`: pixels."""
        return [value * max(self.about_px) for value in self.affine]


@dataclass(frozen=True)
class RPC:
    """Rational polynomial camera, RPC00B. Heights are above the WGS 84 ellipsoid."""

    line_num: Coefficients
    line_den: Coefficients
    samp_num: Coefficients
    samp_den: Coefficients
    line_off: float
    line_scale: float
    samp_off: float
    samp_scale: float
    lat_off: float
    lat_scale: float
    long_off: float
    long_scale: float
    height_off: float
    height_scale: float
    correction: Correction | None = None

    def __post_init__(self) -> None:
        for name in _COEFFICIENTS:
            values = getattr(self, name)
            if len(values) != 20:
                raise DataError(f"an RPC has 20 coefficients in {name}, found {len(values)}")
            if not np.isfinite(values).all():
                raise DataError(f"RPC {name} must be finite numbers, found {values}")
        for name in _SCALES:
            if not np.isfinite(getattr(self, name)) or getattr(self, name) == 0:
                raise DataError(f"RPC {name} must be finite and not 0, found {getattr(self, name)}")
        for name in OFFSETS:
            if not np.isfinite(getattr(self, name)):
                raise DataError(f"RPC {name} must be a finite number, found {getattr(self, name)}")

    def _normalised(self, lon: np.ndarray, lat: np.ndarray, height_m: np.ndarray) -> list[np.ndarray]:
        x = (np.asarray(lon, np.float64) - self.long_off) / self.long_scale
        y = (np.asarray(lat, np.float64) - self.lat_off) / self.lat_scale
        z = (np.asarray(height_m, np.float64) - self.height_off) / self.height_scale
        return list(np.broadcast_arrays(x, y, z))

    def project(self, lon: np.ndarray, lat: np.ndarray, height_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ground (degrees, metres above the ellipsoid) to image (u, v)."""
        terms = _rpc_terms(*self._normalised(lon, lat, height_m))
        samp = np.tensordot(self.samp_num, terms, 1) / np.tensordot(self.samp_den, terms, 1)
        line = np.tensordot(self.line_num, terms, 1) / np.tensordot(self.line_den, terms, 1)
        u, v = samp * self.samp_scale + self.samp_off + 0.5, line * self.line_scale + self.line_off + 0.5
        return (u, v) if self.correction is None else self.correction.apply(u, v)

    def project_with_slopes(
        self, lon: np.ndarray, lat: np.ndarray, height_m: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(u, v) and their derivatives (2, 3, n) by longitude, latitude (per degree) and height (per metre)."""
        local = self._normalised(lon, lat, height_m)
        shape = local[0].shape
        flat = [value.ravel() for value in local]
        coefficients = np.array([self.samp_num, self.line_num, self.samp_den, self.line_den])
        values = coefficients @ _rpc_terms(*flat)
        slopes = coefficients @ _rpc_slopes(*flat)  # (3, 4, n)
        ratio = values[:2] / values[2:]
        scale = np.array([self.samp_scale, self.line_scale])
        units = np.array([self.long_scale, self.lat_scale, self.height_scale])
        d = (slopes[:, :2] - ratio * slopes[:, 2:]) / values[2:] * scale[:, None] / units[:, None, None]
        d = np.moveaxis(d, 0, 1).reshape(2, 3, *shape)
        u = (ratio[0] * self.samp_scale + self.samp_off + 0.5).reshape(shape)
        v = (ratio[1] * self.line_scale + self.line_off + 0.5).reshape(shape)
        if self.correction is None:
            return u, v, d
        a, b, c, e = self.correction.affine
        turned = np.stack([d[0] + a * d[0] + b * d[1], d[1] + c * d[0] + e * d[1]])
        return (*self.correction.apply(u, v), turned)

    def localise(self, u: np.ndarray, v: np.ndarray, height_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Image (u, v) at a height to longitude and latitude, by Newton steps on the forward model."""
        u, v, height_m = np.broadcast_arrays(*(np.asarray(a, np.float64) for a in (u, v, height_m)))
        lon, lat = np.full(u.shape, self.long_off), np.full(u.shape, self.lat_off)
        for _ in range(20):
            u0, v0, d = self.project_with_slopes(lon, lat, height_m)
            determinant = d[0, 0] * d[1, 1] - d[0, 1] * d[1, 0]
            du, dv = u - u0, v - v0
            lon = lon + (d[1, 1] * du - d[0, 1] * dv) / determinant
            lat = lat + (d[0, 0] * dv - d[1, 0] * du) / determinant
            if not np.any(np.hypot(du, dv) > 1e-7):
                break
        return lon, lat

    def shifted(self, du: float, dv: float) -> RPC:
        """The camera of a crop that starts at (du, dv): image coordinates become smaller by that."""
        moved = self.correction
        if moved is not None:
            moved = replace(moved, about_px=(moved.about_px[0] - du, moved.about_px[1] - dv))
        return replace(self, samp_off=self.samp_off - du, line_off=self.line_off - dv, correction=moved)

    def corrected(self, correction: Correction | None) -> RPC:
        """This camera with its pointing corrected: the one way in which every stage comes to a corrected camera."""
        return replace(self, correction=correction)

    @staticmethod
    def from_tags(tags: Mapping[str, str], where: str = "image") -> RPC:
        """From GDAL's RPC metadata domain."""
        upper = {key.upper(): value for key, value in tags.items()}
        values: dict[str, float | Coefficients] = {}
        for name in VENDOR_FIELDS:
            key = name.upper() + ("_COEFF" if name in _COEFFICIENTS else "")
            if key not in upper:
                raise DataError(f"{where}: RPC without {key}; all of the RPC00B fields are needed")
            parts = upper[key].replace(",", " ").split()
            # GDAL hands on the unit that some files write behind an offset.
            numbers = tuple(map(float, parts if name in _COEFFICIENTS else parts[:1]))
            values[name] = numbers if name in _COEFFICIENTS else numbers[0]
        return RPC(**values)  # type: ignore[arg-type]

    def to_tags(self) -> dict[str, str]:
        """The vendor's camera; a correction has no place in it."""
        tags = {}
        for name in VENDOR_FIELDS:
            value = getattr(self, name)
            if isinstance(value, tuple):
                tags[f"{name.upper()}_COEFF"] = " ".join(repr(float(number)) for number in value)
            else:
                tags[name.upper()] = repr(float(value))
        return tags


VENDOR_FIELDS = tuple(field.name for field in fields(RPC) if field.name != "correction")
OFFSETS = ("line_off", "samp_off", "lat_off", "long_off", "height_off")
