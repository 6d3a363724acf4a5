"""Meshes of single divisions, cut and put side by side."""

from __future__ import annotations

import numpy as np
import pytest

from cityweave.geometry.marching import grid_triangles
from cityweave.geometry.pieces import Piece, clipped, joined
from cityweave.grid import Box, Tile
from cityweave.mesh import SURFACE
from tests.geometry.audit import audit

ORIGIN_M = (64.0, 128.0, 0.0)


def tilted(size: int) -> Piece:
    j, i = np.mgrid[0 : size + 1, 0 : size + 1]
    return Piece(*grid_triangles(0.25 * i + 0.5 * j))


def areas(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    return np.asarray(np.cross(b - a, c - a)[:, 2] / 2)


def test_what_is_cut_covers_the_box_exactly() -> None:
    piece = clipped(tilted(20), Box(2.3, 4.1, 11.75, 9.0))
    plan = areas(piece.vertices, piece.triangles)
    assert plan.sum() == pytest.approx((11.75 - 2.3) * (9.0 - 4.1)) and (plan >= 0).all()
    used = piece.vertices[np.unique(piece.triangles)]
    assert np.allclose(used[:, 2], 0.25 * used[:, 0] + 0.5 * used[:, 1])
    assert used[:, :2].min(axis=0) == pytest.approx([2.3, 4.1]) and used[:, :2].max(axis=0) == pytest.approx([11.75, 9])


def test_pieces_of_one_surface_meet_without_a_gap() -> None:
    whole = tilted(64)
    boxes = [Box(x, y, x + 32, y + 32) for y in (0, 32) for x in (0, 32)]
    (mesh,) = joined([clipped(whole, box) for box in boxes], Tile(1, 2, 64), ORIGIN_M, None, 1)
    assert audit([(mesh.ids, mesh.faces)]).boundary_edges == 4 * 64  # the tile's rim alone
    assert (mesh.part == SURFACE).all() and areas(mesh.xyz(), mesh.faces).sum() == pytest.approx(64 * 64)


def test_ids_of_two_tiles_differ() -> None:
    ids = [joined([tilted(64)], Tile(i, j, 64), ORIGIN_M, None, 1)[0].ids for i, j in ((1, 2), (2, 1), (-1, 2))]
    assert len(np.unique(np.concatenate(ids))) == sum(map(len, ids))


def test_simplified_to_a_budget_level_by_level() -> None:
    pytest.importorskip("fast_simplification")
    piece = tilted(64)
    piece.vertices[:, 2] += np.sin(piece.vertices[:, 0])
    fine, coarse = joined([piece], Tile(1, 2, 64), ORIGIN_M, 0.5, 2)
    assert 0.8 * 2048 < len(fine.faces) <= 2048 and len(coarse.faces) < len(fine.faces)
