"""How far a predicted surface is from the true one: precision, recall, F1 and chamfer distance on sampled points."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cityweave.evaluate.sampling import face_normals, sample_faces
from cityweave.evaluate.visibility import Hemisphere
from cityweave.grid import Box

THRESHOLDS_M = (0.5, 1.0, 2.0, 3.6)
CAP_M = 20.0  # a point without a neighbour within this counts as that far away
OCCLUDERS_M = 40.0  # within this, what may stand between a point and the sky
OTHER, ROOF, GROUND, FACADE = 0, 1, 2, 3
CLASSES = {"roof": ROOF, "ground": GROUND, "facade": FACADE}
_LOOKS_DOWN = -0.05  # a face whose normal points lower is an underside, even if low light grazes it (a crown's)
STEEP = 0.35  # |z| of the normal under which a face is a facade (about 70 degrees)


@njit(cache=True)
def _meets(points, faces, xmin, ymin, xmax, ymax):  # type: ignore[no-untyped-def]
    out = np.empty(faces.shape[0], np.bool_)
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        x0, x1, x2 = points[a, 0], points[b, 0], points[c, 0]
        y0, y1, y2 = points[a, 1], points[b, 1], points[c, 1]
        out[f] = (
            max(x0, x1, x2) >= xmin and min(x0, x1, x2) <= xmax and max(y0, y1, y2) >= ymin and min(y0, y1, y2) <= ymax
        )
    return out


@dataclass(frozen=True)
class Triangles:
    """Triangles in metres from the city's origin. `ids` name vertices across the city; `label` is free to use."""

    points: NDArray[np.float64]
    ids: NDArray[np.int64]
    faces: NDArray[np.int32]
    label: NDArray[np.uint8]

    def near(self, box: Box) -> Triangles:
        """Faces whose bounding box in plan meets the box; vertices are kept."""
        keep = _meets(self.points, self.faces, *box.as_tuple())
        return Triangles(self.points, self.ids, self.faces[keep], self.label[keep])

    @staticmethod
    def joined(parts: list[Triangles]) -> Triangles:
        if not parts:
            return Triangles(np.zeros((0, 3)), np.zeros(0, np.int64), np.zeros((0, 3), np.int32), np.zeros(0, np.uint8))
        start = np.cumsum([0] + [len(part.points) for part in parts])
        return Triangles(
            np.concatenate([part.points for part in parts]),
            np.concatenate([part.ids for part in parts]),
            np.concatenate([part.faces + np.int32(s) for part, s in zip(parts, start, strict=False)]),
            np.concatenate([part.label for part in parts]),
        )


@dataclass(frozen=True)
class Samples:
    """Points (n, 3) with the unit normal of their face (n, 3) and a class or label (n,)."""

    points: NDArray[np.float64]
    normals: NDArray[np.float64]
    label: NDArray[np.uint8]

    def chosen(self, keep: NDArray[np.bool_]) -> Samples:
        return Samples(self.points[keep], self.normals[keep], self.label[keep])

    def inside(self, box: Box) -> NDArray[np.bool_]:
        x, y = self.points[:, 0], self.points[:, 1]
        return (x >= box.xmin) & (x < box.xmax) & (y >= box.ymin) & (y < box.ymax)  # type: ignore[no-any-return]

    @staticmethod
    def joined(parts: list[Samples]) -> Samples:
        empty = Samples(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0, np.uint8))
        parts = [empty, *parts]
        return Samples(
            np.concatenate([part.points for part in parts]),
            np.concatenate([part.normals for part in parts]),
            np.concatenate([part.label for part in parts]),
        )


def reachable_samples(sampled: Triangles, occluders: Triangles, keep: Box, per_m2: float, seed: int) -> Samples:
    """Points on `sampled` inside the box that light from the upper hemisphere reaches past `occluders`."""
    points, owner = sample_faces(sampled.points, sampled.ids, sampled.faces, per_m2, seed)
    normals, _ = face_normals(sampled.points, sampled.faces)
    samples = Samples(points, normals[owner], sampled.label[owner])
    inside = samples.inside(keep) & (samples.normals[:, 2] > _LOOKS_DOWN)
    if not inside.any():
        return samples.chosen(inside)
    used = np.unique(occluders.faces)
    compact = np.zeros(len(occluders.points), np.int32)
    compact[used] = np.arange(len(used), dtype=np.int32)
    sky = Hemisphere(occluders.points[used], compact[occluders.faces])
    inside[inside] = sky.reaches(points[inside], owner[inside], normals)
    return samples.chosen(inside)


@dataclass
class _Side:
    """Distances of one side's points to the other side: counts and a sum."""

    points: int = 0
    within: list[int] = field(default_factory=lambda: [0] * len(THRESHOLDS_M))
    distance_sum: float = 0.0

    def add(self, distance: NDArray[np.float64]) -> None:
        self.points += len(distance)
        for k, threshold in enumerate(THRESHOLDS_M):
            self.within[k] += int((distance <= threshold).sum())
        self.distance_sum += float(np.minimum(distance, CAP_M).sum())

    def share(self, k: int) -> float | None:
        return self.within[k] / self.points if self.points else None


def threshold_key(metres: float) -> str:
    return f"{metres:g}"


@dataclass
class SurfaceScore:
    """Precision: share of predicted points near the truth; recall: of true points near the prediction.

    A class is scored against the whole other side: a facade that another method calls roof is still there.
    """

    predicted: dict[int, _Side] = field(default_factory=dict)
    true: dict[int, _Side] = field(default_factory=dict)

    def add(self, label: NDArray[np.uint8], distance: NDArray[np.float64], of_truth: bool) -> None:
        sides = self.true if of_truth else self.predicted
        sides.setdefault(-1, _Side()).add(distance)
        for code in CLASSES.values():
            sides.setdefault(code, _Side()).add(distance[label == code])

    def figures(self, code: int = -1) -> dict[str, Any]:
        """{"precision": {"0.5": ...}, "recall": ..., "f1": ...}; null where a side has no points."""
        ours, truth = self.predicted.get(code, _Side()), self.true.get(code, _Side())
        out: dict[str, dict[str, float | None]] = {"precision": {}, "recall": {}, "f1": {}}
        for k, metres in enumerate(THRESHOLDS_M):
            p, r = ours.share(k), truth.share(k)
            key = threshold_key(metres)
            out["precision"][key], out["recall"][key] = p, r
            if p is None or r is None:
                out["f1"][key] = None
            else:
                out["f1"][key] = 2 * p * r / (p + r) if p + r > 0 else 0.0
        return out

    def chamfer_m(self) -> float | None:
        """Mean of both directions' mean distances, each capped at 20 m."""
        sides = (self.predicted.get(-1, _Side()), self.true.get(-1, _Side()))
        if not all(side.points for side in sides):
            return None
        return sum(side.distance_sum / side.points for side in sides) / 2
