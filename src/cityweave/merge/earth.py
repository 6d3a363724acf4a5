"""From the city's CRS to earth-centred coordinates and a tile's own upright frame, exactly and in float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cityweave.cameras import ToGeodetic

_A = 6378137.0  # WGS 84
_F = 1.0 / 298.257223563
_E2 = _F * (2.0 - _F)


def geodetic_to_ecef(lon_deg: np.ndarray, lat_deg: np.ndarray, height_m: np.ndarray) -> np.ndarray:
    """EPSG:4979 to EPSG:4978, (n,3) metres."""
    lon, lat = np.radians(lon_deg), np.radians(lat_deg)
    sine = np.sin(lat)
    normal = _A / np.sqrt(1.0 - _E2 * sine * sine)
    across = (normal + height_m) * np.cos(lat)
    return np.stack([across * np.cos(lon), across * np.sin(lon), (normal * (1.0 - _E2) + height_m) * sine], axis=-1)


@dataclass(frozen=True)
class LocalFrame:
    """East, north, up at one point of the ellipsoid. `rotation` has these three as columns."""

    origin: np.ndarray  # (3,) ECEF
    rotation: np.ndarray  # (3,3)

    @staticmethod
    def at(lon_deg: float, lat_deg: float, height_m: float) -> LocalFrame:
        lon, lat = np.radians(lon_deg), np.radians(lat_deg)
        east = np.array([-np.sin(lon), np.cos(lon), 0.0])
        north = np.array([-np.sin(lat) * np.cos(lon), -np.sin(lat) * np.sin(lon), np.cos(lat)])
        up = np.array([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
        origin = geodetic_to_ecef(np.array([lon_deg]), np.array([lat_deg]), np.array([height_m]))[0]
        return LocalFrame(origin, np.stack([east, north, up], axis=1))

    def local(self, ecef_nx3: np.ndarray) -> np.ndarray:
        return (ecef_nx3 - self.origin) @ self.rotation

    def ecef(self, local_nx3: np.ndarray) -> np.ndarray:
        return local_nx3 @ self.rotation.T + self.origin

    def matrix(self) -> list[float]:
        """4x4, column by column, as 3D Tiles wants a transform."""
        m = np.eye(4)
        m[:3, :3], m[:3, 3] = self.rotation, self.origin
        return [float(value) for value in m.T.ravel()]


@dataclass(frozen=True)
class Placement:
    """How one tile's vertices get to earth: its frame, and the way there from the city's CRS."""

    frame: LocalFrame
    to_geodetic: ToGeodetic

    @staticmethod
    def of_tile(centre_m: tuple[float, float, float], to_geodetic: ToGeodetic) -> Placement:
        lon, lat, height = to_geodetic(*(np.array([value]) for value in centre_m))
        return Placement(LocalFrame.at(float(lon[0]), float(lat[0]), float(height[0])), to_geodetic)

    def place(self, world_nx3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Each vertex on its own way: metres in the tile's frame (n,3), and lon, lat (degrees), height (n,3)."""
        geodetic = np.stack(self.to_geodetic(*np.ascontiguousarray(world_nx3.T)), axis=-1)
        return self.frame.local(geodetic_to_ecef(*geodetic.T)), geodetic
