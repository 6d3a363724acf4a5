"""Pointing correction: once per city, from ties between all views, and what to say about it.

Rules. A pair counts when enough of the places found in both lie at one distance across the epipolar line. A view that
no pair ties is left out, unless the few ties it has agree with the RPCs. A correction is applied when it moves the
ties of some pair by more than `apply_from_px` and by more than `SURE` standard errors; else the RPCs stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from cityweave.config import PointingConfig
from cityweave.errors import DataError
from cityweave.rpc import RPC, Correction
from cityweave.survey.adjust import Model, across_residuals, adjust, agreeing, reprojection
from cityweave.survey.ties import Reach, Ties, TieView, find_ties

LEAST_SHARE = 0.25  # of the places found in a pair must agree; by chance about a tenth does
FEW_TIES = 3  # that agree with the RPCs to FEW_PX keep a view that has no more
FEW_PX = 0.5
SURE = 4.0
LINEAR_PRIOR_PX = 1.0  # at the image's edge
GAUGE = "least sum of squares: the ground as a whole stays where the RPCs put it"


@dataclass
class Pointing:
    corrections: dict[str, Correction] = field(default_factory=dict)  # those that are applied
    left_out: dict[str, str] = field(default_factory=dict)  # view and reason
    warnings: list[str] = field(default_factory=list)
    report: dict[str, Any] | None = None
    ground: np.ndarray = field(default_factory=lambda: np.empty((0, 3)))  # of the ties: degrees, metres (ellipsoid)


def solve_pointing(views: Sequence[TieView], reach: Reach, settings: PointingConfig) -> Pointing:
    if settings.model == "none" or len(views) < 2:
        return Pointing()
    found = find_ties(views, reach)
    rpcs = [view.rpc for view in views]
    keep, pairs = _judged(views, rpcs, found, reach, settings)
    ties = found.kept(keep)
    out = Pointing()
    groups = _groups(len(views), [pair for pair, verdict in pairs.items() if verdict.tied])
    told = [_solve_group(group, views, ties, pairs, reach, settings, out) for group in groups]
    loose = set(range(len(views))) - {view for group in groups for view in group}
    loose -= _few_but_agreeing(views, found, pairs, loose, out)
    for view in sorted(loose):
        out.left_out[views[view].name] = _why_untied(view, views, found, pairs, settings, reach.allowance_px)
    if len(views) - len(loose) < 2:
        raise DataError(_refusal(views, out))
    out.warnings += [f"view {name} is left out: {reason}" for name, reason in out.left_out.items()]
    if len(groups) > 1:
        named = " and ".join(", ".join(views[k].name for k in group) for group in groups)
        out.warnings.append(f"no ties between {named}: their heights may differ by a step")
    used = np.sum([group["of_view"] for group in told], axis=0) if told else np.zeros(len(views), int)
    out.report = {
        "model": settings.model,
        "applied": bool(out.corrections),
        "gauge": GAUGE,
        "ties": sum(group["ties"] for group in told),
        "views": {view.name: _view_entry(view.name, int(count), out) for view, count in zip(views, used, strict=True)},
        "pairs": [pair for group in told for pair in group["pairs"]],
        "warnings": out.warnings,
    }
    return out


@dataclass
class _Verdict:
    tried: int
    found: int
    agreed: np.ndarray  # observations
    apart_px: float  # across the epipolar line, by the RPCs
    tied: bool  # whether the pair counts


def _judged(
    views: Sequence[TieView], rpcs: Sequence[RPC], ties: Ties, reach: Reach, settings: PointingConfig
) -> tuple[np.ndarray, dict[tuple[int, int], _Verdict]]:
    """Which observations to keep, and each pair's verdict."""
    rows, masters, distance = across_residuals(rpcs, ties)
    keep = agreeing(ties, rows, masters, distance)
    low, high = np.sort([ties.view[rows], ties.view[masters]], axis=0)
    verdicts = {}
    for a, b in combinations(range(len(views)), 2):
        here = rows[(low == a) & (high == b)]
        agreed = here[keep[here]]
        apart = abs(float(np.median(distance[np.isin(rows, agreed)]))) if len(agreed) else 0.0
        enough = len(agreed) >= max(settings.least_ties, LEAST_SHARE * len(here))
        tried = int(ties.tried[a, b] + ties.tried[b, a])
        verdicts[a, b] = _Verdict(tried, len(here), agreed, apart, enough and apart <= 2 * reach.allowance_px)
        if not verdicts[a, b].tied:
            keep[here] = False
    return keep, verdicts


def _groups(count: int, pairs: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Views that ties hold together, directly or through others; those of one view are left away."""
    root = list(range(count))
    for _ in range(count):
        for a, b in pairs:
            root[a] = root[b] = min(root[a], root[b])
    groups = [[k for k in range(count) if root[k] == first] for first in sorted(set(root))]
    return [group for group in groups if len(group) > 1]


def _few_but_agreeing(
    views: Sequence[TieView], found: Ties, pairs: dict[tuple[int, int], _Verdict], loose: set[int], out: Pointing
) -> set[int]:
    """Views with too few ties to be corrected that need no correction: they agree with a partner as it is now."""
    kept: set[int] = set()
    rpcs = [view.rpc.corrected(out.corrections.get(view.name)) for view in views]
    for pair, verdict in pairs.items():
        own = loose.intersection(pair)
        if not own or len(verdict.agreed) < max(FEW_TIES, LEAST_SHARE * verdict.found):
            continue
        rows = np.zeros(len(found.tie), bool)
        rows[verdict.agreed] = True
        rows |= found.master & np.isin(found.tie, found.tie[rows])
        apart = float(np.median(np.abs(across_residuals(rpcs, found.kept(rows))[2])))
        if apart <= FEW_PX:
            kept |= own
            out.warnings.append(
                f"{views[pair[0]].name} and {views[pair[1]].name} have only {len(verdict.agreed)} ties, which agree "
                f"with their RPCs to {apart:.2f} px: {', '.join(views[k].name for k in sorted(own))} used uncorrected"
            )
    return kept


def _why_untied(
    view: int,
    views: Sequence[TieView],
    ties: Ties,
    pairs: dict[tuple[int, int], _Verdict],
    settings: PointingConfig,
    allowance_px: float,
) -> str:
    own = {pair: verdict for pair, verdict in pairs.items() if view in pair}
    tried = sum(verdict.tried for verdict in own.values())
    if tried == 0:
        if ties.plain[view]:
            return "shows no contrast where other views show the same ground"
        return "shows no ground of the city that another view shows"
    (a, b), best = max(own.items(), key=lambda item: (len(item[1].agreed), item[1].found))
    other = views[b if view == a else a].name
    agreed = f"of {best.tried} places tried {best.found} were found in both and {len(best.agreed)} of these agree"
    wanted = f"at least {settings.least_ties} and {LEAST_SHARE:.0%} are needed"
    if best.apart_px > 2 * allowance_px:
        wanted = f"but by {best.apart_px:.1f} px apart, more than twice ingest.pointing_allowance_px ({allowance_px:g})"
    return (
        f"can't be tied to {other}, its best partner: {agreed}, {wanted}; clouds, other places, swapped images or "
        "another image's RPC look like this"
    )


def _refusal(views: Sequence[TieView], out: Pointing) -> str:
    told = list(out.left_out.items())[: 1 if len(views) == 2 else None]  # of two views, each says the same
    reasons = "; ".join(f"{name} {reason}" for name, reason in told)
    return (
        f"pointing: fewer than 2 of {len(views)} views can be tied together. {reasons}. Accepted: two views that show "
        "the same ground clearly, each with its own RPC; a larger ingest.pointing_allowance_px; or "
        "survey.pointing.model: none, which takes the RPCs as they are"
    )


def _solve_group(
    group: list[int],
    views: Sequence[TieView],
    ties: Ties,
    pairs: dict[tuple[int, int], _Verdict],
    reach: Reach,
    settings: PointingConfig,
    out: Pointing,
) -> dict[str, Any]:
    """Adds the group's corrections to `out` where they are worth it; what is to be told about it."""
    own = ties.of_views(group)
    chosen = [views[k] for k in group]
    rpcs = [view.rpc for view in chosen]
    model = Model(
        settings.model == "affine",
        (reach.allowance_px, LINEAR_PRIOR_PX),
        tuple((view.size_px[0] / 2, view.size_px[1] / 2) for view in chosen),
        tuple(max(view.size_px) / 2 for view in chosen),
    )
    adjusted = adjust(rpcs, own, model)
    corrections = model.corrections(adjusted.solution)
    used = own.kept(adjusted.weight > 0)
    out.ground = np.concatenate([out.ground, adjusted.ground[np.unique(own.tie[adjusted.weight > 0])]])
    corrected = [rpc.corrected(correction) for rpc, correction in zip(rpcs, corrections, strict=True)]
    before, after = _Residuals.of(rpcs, used), _Residuals.of(corrected, used)
    worth = any(_is_worth(before, after, pair, settings) for pair in before.pairs(settings.least_ties))
    if worth:
        for view, correction in zip(chosen, corrections, strict=True):
            out.corrections[view.name] = correction
            far = float(np.hypot(correction.du_px, correction.dv_px))
            if far > reach.allowance_px:
                raise DataError(
                    f"pointing: view {view.name} needs a correction of {far:.1f} px, more than "
                    f"ingest.pointing_allowance_px ({reach.allowance_px:g}); accepted: a larger allowance, or the RPC "
                    "that belongs to the image"
                )
    told = after if worth else before
    return {
        "ties": used.count,
        "of_view": np.bincount(np.asarray(group)[used.view], minlength=len(views)),
        "pairs": [
            {"views": [chosen[a].name, chosen[b].name], **_pair_entry(a, b, group, pairs, used, before, told)}
            for a, b in before.pairs(settings.least_ties)
        ],
    }


@dataclass(frozen=True)
class _Residuals:
    """Per observation: across the master's epipolar line (masters: NaN), and from its ground point's image."""

    low: np.ndarray  # of the two views of an observation and its master
    high: np.ndarray
    across: np.ndarray
    off: np.ndarray

    @staticmethod
    def of(rpcs: Sequence[RPC], ties: Ties) -> _Residuals:
        rows, masters, distance = across_residuals(rpcs, ties)
        low, high = np.sort([ties.view[rows], ties.view[masters]], axis=0)
        off = np.linalg.norm(reprojection(rpcs, ties), axis=1)
        return _Residuals(low, high, distance, np.sqrt((off[rows] ** 2 + off[masters] ** 2) / 2))

    def pairs(self, least: int) -> list[tuple[int, int]]:
        """Those with enough ties to tell anything."""
        both, count = np.unique(np.stack([self.low, self.high], axis=1), axis=0, return_counts=True)
        return [(int(a), int(b)) for (a, b), n in zip(both, count, strict=True) if n >= least]

    def here(self, pair: tuple[int, int]) -> np.ndarray:
        return (self.low == pair[0]) & (self.high == pair[1])


def _is_worth(before: _Residuals, after: _Residuals, pair: tuple[int, int], settings: PointingConfig) -> bool:
    """By what it moves across the epipolar lines, or by what it takes off the residuals of ties in several views."""
    here = before.here(pair)
    moved = before.across[here] - after.across[here]
    error = 1.2533 * _spread(after.across[here]) / np.sqrt(len(moved))
    across = float(np.sqrt(np.median(moved**2)))
    taken = float(np.median(before.off[here] ** 2) - np.median(after.off[here] ** 2))
    return max(across, np.sqrt(max(taken, 0.0))) > max(settings.apply_from_px, SURE * error)


def _spread(values: np.ndarray) -> float:
    """Standard deviation, by the median."""
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def _pair_entry(
    a: int,
    b: int,
    group: list[int],
    pairs: dict[tuple[int, int], _Verdict],
    used: Ties,
    before: _Residuals,
    after: _Residuals,
) -> dict[str, Any]:
    verdict, here = pairs[group[a], group[b]], before.here((a, b))
    rows = np.flatnonzero(~used.master)[here]
    cells = used.cell[used.tie[rows]]
    return {
        "tried": verdict.tried,
        "found": verdict.found,
        "ties": int(here.sum()),
        "windows": len(np.unique(cells // used.cells_per_window, axis=0)),
        "apart_px": _rounded(np.median(before.across[here])),
        "before_px": _rounded(np.median(np.abs(before.across[here]))),
        "after_px": _rounded(np.median(np.abs(after.across[here]))),
        "spread_px": _rounded(_spread(after.across[here])),
        "reprojection_before_px": _rounded(np.sqrt(np.mean(before.off[here] ** 2))),
        "reprojection_after_px": _rounded(np.sqrt(np.mean(after.off[here] ** 2))),
    }


def _rounded(value: float) -> float:
    return round(float(value), 3) + 0.0


def _view_entry(name: str, ties: int, out: Pointing) -> dict[str, Any]:
    correction = out.corrections.get(name)
    entry: dict[str, Any] = {"ties": ties}
    if correction is not None:
        entry |= {"du_px": correction.du_px, "dv_px": correction.dv_px}
        if any(correction.affine):
            entry["affine_at_edge_px"] = [_rounded(value) for value in correction.at_edge()]
    if name in out.left_out:
        entry["left_out"] = out.left_out[name]
    return entry
