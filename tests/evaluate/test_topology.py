"""Edges of a city that is cut into tiles, counted as if it were one mesh."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cityweave.evaluate.topology import EdgeCount, count_edges


def count(tiles: dict[str, np.ndarray]) -> EdgeCount:
    names = [(name, [other for other in tiles if other != name]) for name in tiles]
    return count_edges(names, lambda name: tiles[name], lambda name: np.unique(tiles[name]))


def brute_force(tiles: dict[str, np.ndarray]) -> EdgeCount:
    faces = np.concatenate(list(tiles.values()))
    uses = Counter(tuple(sorted((f[k], f[(k + 1) % 3]))) for f in faces.tolist() for k in range(3))
    return EdgeCount(sum(n == 1 for n in uses.values()), sum(n > 2 for n in uses.values()), len(faces))


TETRAHEDRON = np.array([[1, 3, 2], [1, 2, 4], [2, 3, 4], [3, 1, 4]], np.int64) * 1_000_003


def test_closed_over_two_tiles() -> None:
    assert count({"a": TETRAHEDRON[:2], "b": TETRAHEDRON[2:]}) == EdgeCount(0, 0, 4)


def test_a_hole_opens_three_edges() -> None:
    assert count({"a": TETRAHEDRON[:2], "b": TETRAHEDRON[2:3]}) == EdgeCount(3, 0, 3)


def test_a_third_triangle_on_an_edge_of_two_tiles() -> None:
    fin = np.array([[TETRAHEDRON[0, 0], TETRAHEDRON[0, 1], 77]], np.int64)
    assert count({"a": TETRAHEDRON, "b": fin}) == EdgeCount(2, 1, 5)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_equals_counting_the_whole(seed: int, tiles: int) -> None:
    """Random triangles on few vertices: every kind of sharing inside and between tiles occurs."""
    rng = np.random.default_rng(seed)
    faces = np.array([rng.choice(9, 3, replace=False) for _ in range(14)], np.int64)
    owner = rng.integers(0, tiles, len(faces))
    parts = {str(k): faces[owner == k] for k in range(tiles)}
    assert count(parts) == brute_force(parts)


def test_empty_city() -> None:
    assert count({"a": np.zeros((0, 3), np.int64)}) == EdgeCount(0, 0, 0)
