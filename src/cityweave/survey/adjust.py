"""Bundle adjustment of the views' pointing: corrections in image space, every tie with a ground point of its own.

The ground may move as a whole without any tie noticing. Among the corrections that fit, those of the least sum of
squares are taken, so what all views share stays as the RPCs say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cityweave.rpc import RPC, Correction
from cityweave.survey.ties import Ties

ROUNDS = 30
TUKEY = 4.7  # in standard deviations; a residual beyond has no weight
LEAST_SCALE_PX = 0.05
AGREE_PX = 1.0  # ties of a pair belong together when they lie so close across the epipolar line
ROUND_PX = 1e-3
_METRE_LAT = 1 / 110_574.0  # degrees; scale of the normal equations only


@dataclass(frozen=True)
class Model:
    """Unknowns of a view: a shift, and with `affine` a linear part that is counted in pixels at the image's edge."""

    affine: bool
    prior_px: tuple[float, float]  # standard deviation of shift and linear part: what ties can't tell stays at zero
    middles: tuple[tuple[float, float], ...]  # of the images
    halves: tuple[float, ...]  # half the longer side of the images

    @property
    def unknowns(self) -> int:
        return 6 if self.affine else 2

    def prior_weights(self) -> np.ndarray:
        one = np.array([1 / self.prior_px[0] ** 2] * 2 + [1 / self.prior_px[1] ** 2] * (self.unknowns - 2))
        return np.tile(one, len(self.middles))

    def design(self, view: np.ndarray, image: np.ndarray) -> np.ndarray:
        """(n, 2, unknowns): how an image position answers to its view's unknowns."""
        out = np.zeros((len(view), 2, self.unknowns))
        out[:, 0, 0] = out[:, 1, 1] = 1
        if self.affine:
            local = (image - np.asarray(self.middles)[view]) / np.asarray(self.halves)[view][:, None]
            out[:, 0, 2:4] = out[:, 1, 4:6] = local
        return out

    def corrections(self, solution: np.ndarray) -> list[Correction]:
        """Rounded to what moves no pixel of the image by more than a thousandth."""
        out = []
        for values, middle, half in zip(solution, self.middles, self.halves, strict=True):
            shift = [float(np.round(value / ROUND_PX)) * ROUND_PX for value in values[:2]]
            affine = [float(np.round(value / ROUND_PX)) * ROUND_PX / half for value in values[2:]] or [0.0] * 4
            out.append(Correction(round(shift[0], 3), round(shift[1], 3), middle, tuple(affine)))  # type: ignore[arg-type]
        return out


def across_residuals(rpcs: Sequence[RPC], ties: Ties) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each observation but a master's: its signed distance from the master's epipolar line, in its own pixels.

    Returns the observations' indices, their masters', and the distances.
    """
    rows = np.flatnonzero(~ties.master)
    masters = ties.master_rows()[ties.tie[rows]]
    distance = np.full(len(rows), np.nan)
    pairs = ties.view[masters] * ties.views + ties.view[rows]
    for pair in np.unique(pairs):
        a, b = rpcs[pair // ties.views], rpcs[pair % ties.views]
        here = pairs == pair
        height = ties.height[ties.tie[rows[here]]]
        start = ties.image[masters[here]]
        lows, highs = (
            np.stack(b.project(*a.localise(start[:, 0], start[:, 1], height + dz), height + dz), axis=1)
            for dz in (-20.0, 20.0)
        )
        along = (highs - lows) / np.maximum(np.linalg.norm(highs - lows, axis=1, keepdims=True), 1e-9)
        off = ties.image[rows[here]] - (lows + highs) / 2
        distance[here] = along[:, 0] * off[:, 1] - along[:, 1] * off[:, 0]
    return rows, masters, distance


def agreeing(ties: Ties, rows: np.ndarray, masters: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Observations whose distance across the epipolar line is the usual one of their pair; masters among them.

    Of `across_residuals`: observations, their masters, distances.
    """
    keep = np.zeros(len(ties.tie), bool)
    pairs = np.minimum(ties.view[rows], ties.view[masters]) * ties.views + np.maximum(
        ties.view[rows], ties.view[masters]
    )
    # The sign is the same in both directions of a pair: with the views, the line's direction turns round as well.
    for pair in np.unique(pairs):
        here = pairs == pair
        keep[rows[here]] = np.abs(distance[here] - densest(distance[here], AGREE_PX)) <= AGREE_PX
    keep[ties.master] = True
    return keep


def densest(values: np.ndarray, half: float) -> float:
    """Mean of the values in the interval of that half width that holds most of them."""
    order = np.sort(values)
    last = np.searchsorted(order, order + 2 * half, side="right")
    count = last - np.arange(len(order))
    start = int(np.argmax(count))
    return float(np.median(order[start : last[start]]))


@dataclass(frozen=True)
class Adjusted:
    solution: np.ndarray  # (views, unknowns), pixels
    residual: np.ndarray  # (observations, 2), pixels, before rounding
    weight: np.ndarray  # (observations,) in 0..1
    ground: np.ndarray  # (ties, 3) degrees and metres above the ellipsoid


def adjust(rpcs: Sequence[RPC], ties: Ties, model: Model) -> Adjusted:
    """Iteratively reweighted least squares; ground points are eliminated tie by tie."""
    n, k = len(rpcs), model.unknowns
    solution = np.zeros((n, k))
    weight = np.ones(len(ties.tie))
    ground = ties.geodetic.copy()
    design = model.design(ties.view, ties.image)
    residual, slopes, units = _linearised(rpcs, ties, ground, design, solution)
    shared = _shared_moves(ties, slopes, design, model.affine, n)
    for round_ in range(ROUNDS):
        normal, right, back = _normal_equations(ties, residual, slopes, design, weight, n, k)
        normal += shared @ shared.T * (1e3 * np.trace(normal)) + np.diag(model.prior_weights())
        step = np.linalg.solve(normal, right - model.prior_weights() * solution.ravel()).reshape(n, k)
        ground, solution = ground + back(step) * units, solution + step
        residual, slopes, units = _linearised(rpcs, ties, ground, design, solution)
        if round_ and float(np.abs(step).max()) < 1e-5:
            break
        size = np.linalg.norm(residual, axis=1)
        scale = max(LEAST_SCALE_PX, 1.4826 * float(np.median(size[weight > 0])))
        weight = _paired(ties, np.clip(1 - (size / (TUKEY * scale)) ** 2, 0, 1) ** 2)
    return Adjusted(solution, residual, weight, ground)


def _shared_moves(ties: Ties, slopes: np.ndarray, design: np.ndarray, affine: bool, n: int) -> np.ndarray:
    """(views * unknowns, moves), orthonormal: how the unknowns would answer if the ground moved as a whole.

    A shift of the ground looks like shifts of the images; with an affine model the ground may be bent linearly too.
    """
    k = design.shape[2]
    metre = np.array([np.cos(np.radians(ties.geodetic[0, 1])), 1.0, _METRE_LAT]) / _METRE_LAT
    local = (ties.geodetic - ties.geodetic.mean(axis=0)) * metre
    local /= max(float(np.abs(local).max()), 1.0)
    patterns = [np.ones(ties.count)] + ([local[:, 0], local[:, 1], local[:, 2]] if affine else [])
    moves = []
    for pattern in patterns:
        for axis in range(3):
            effect = slopes[:, :, axis] * pattern[ties.tie][:, None]
            answer = np.zeros((n, k))
            for view in range(n):
                here = ties.view == view
                answer[view] = np.linalg.lstsq(design[here].reshape(-1, k), effect[here].ravel(), rcond=None)[0]
            moves.append(answer.ravel())
    basis, size, _ = np.linalg.svd(np.stack(moves, axis=1), full_matrices=False)
    return basis[:, size > 1e-3 * size[0]]


def reprojection(rpcs: Sequence[RPC], ties: Ties) -> np.ndarray:
    """(observations, 2): how far each lies from the image of its tie's best ground point, pixels."""
    n = len(rpcs)
    ground, design, nothing = ties.geodetic.copy(), np.zeros((len(ties.tie), 2, 1)), np.zeros((n, 1))
    weight = np.ones(len(ties.tie))
    for _ in range(3):
        residual, slopes, units = _linearised(rpcs, ties, ground, design, nothing)
        _, _, back = _normal_equations(ties, residual, slopes, design, weight, n, 1)
        ground = ground + back(nothing) * units
    return _linearised(rpcs, ties, ground, design, nothing)[0]


def _paired(ties: Ties, weight: np.ndarray) -> np.ndarray:
    """An observation left alone in its tie says nothing."""
    others = np.bincount(ties.tie[weight > 0], minlength=ties.count)
    return np.where(others[ties.tie] >= 2, weight, 0.0)


def _linearised(
    rpcs: Sequence[RPC], ties: Ties, ground: np.ndarray, design: np.ndarray, solution: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Observed minus computed (n, 2), slopes (n, 2, 3) per metre, and degrees or metres per metre (ties, 3)."""
    metre_lon = _METRE_LAT / np.cos(np.radians(ground[:, 1]))
    units = np.stack([metre_lon, np.full(len(ground), _METRE_LAT), np.ones(len(ground))], axis=1)
    residual = ties.image - np.einsum("nij,nj->ni", design, solution[ties.view])
    slopes = np.empty((len(ties.tie), 2, 3))
    for view, rpc in enumerate(rpcs):
        here = ties.view == view
        at = ground[ties.tie[here]]
        u, v, d = rpc.project_with_slopes(at[:, 0], at[:, 1], at[:, 2])
        residual[here] -= np.stack([u, v], axis=1)
        slopes[here] = np.moveaxis(d, 2, 0) * units[ties.tie[here]][:, None, :]
    return residual, slopes, units


def _normal_equations(ties, residual, slopes, design, weight, n, k):  # type: ignore[no-untyped-def]
    """Reduced by the ground points: matrix, right side, and the way back from a step to the points' moves in metres."""
    count = ties.count
    w = weight[:, None, None]
    point = _summed(ties.tie, np.einsum("nia,nib->nab", slopes * w, slopes), count)
    point += np.eye(3) * 1e-9  # a tie without weight
    inverse = np.linalg.inv(point)
    pull = _summed(ties.tie, np.einsum("nia,ni->na", slopes * w, residual), count)
    cross = np.zeros((count, n, k, 3))
    np.add.at(cross, (ties.tie, ties.view), np.einsum("nij,nia->nja", design * w, slopes))
    cross = cross.reshape(count, n * k, 3)
    own = _summed(ties.view, np.einsum("nij,nil->njl", design * w, design), n)
    matrix = np.zeros((n, k, n, k))
    matrix[np.arange(n), :, np.arange(n), :] = own
    matrix = matrix.reshape(n * k, n * k)
    reduced = np.einsum("tja,tab->tjb", cross, inverse)
    matrix -= np.tensordot(reduced, cross, ([0, 2], [0, 2]))
    right = _summed(ties.view, np.einsum("nij,ni->nj", design * w, residual), n).ravel()
    right -= np.einsum("tja,ta->j", reduced, pull)

    def back(step: np.ndarray) -> np.ndarray:
        free = pull - np.einsum("tja,j->ta", cross, step.ravel())
        moved: np.ndarray = np.einsum("tab,tb->ta", inverse, free)
        return moved

    return matrix, right, back


def _summed(index: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    out = np.zeros((count, *values.shape[1:]))
    np.add.at(out, index, values)
    return out
