"""Sampling, nearest neighbours and what the sky reaches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from cityweave.evaluate.nearest import nearest_distance
from cityweave.evaluate.sampling import face_normals, sample_faces
from cityweave.evaluate.surface import Triangles, reachable_samples
from cityweave.evaluate.visibility import Hemisphere, directions
from cityweave.grid import Box

SQUARE = np.array([[0, 0, 0], [100, 0, 0], [100, 100, 0], [0, 100, 0]], float)
TWO = np.array([[0, 1, 2], [0, 2, 3]], np.int32)


class TestSampling:
    def test_density(self) -> None:
        points, owner = sample_faces(SQUARE, np.arange(4), TWO, 4.0, 1)
        assert abs(len(points) - 40_000) <= 2
        counts = np.histogram2d(points[:, 0], points[:, 1], bins=10, range=[[0, 100], [0, 100]])[0]
        assert abs(counts - 400).max() < 5 * 20  # a Poisson-like spread
        assert set(owner) == {0, 1}

    def test_small_faces_keep_the_mean(self) -> None:
        n = 200
        x, y = np.meshgrid(np.arange(n + 1) * 0.25, np.arange(n + 1) * 0.25)
        points = np.stack([x, y, 0 * x], -1).reshape(-1, 3)
        i = np.arange((n + 1) ** 2).reshape(n + 1, n + 1)
        faces = np.concatenate(
            [
                np.stack([i[:-1, :-1], i[:-1, 1:], i[1:, 1:]], -1).reshape(-1, 3),
                np.stack([i[:-1, :-1], i[1:, 1:], i[1:, :-1]], -1).reshape(-1, 3),
            ]
        )
        sampled, _ = sample_faces(points, np.arange(len(points)), faces, 4.0, 7)
        assert len(sampled) == pytest.approx(4 * 50 * 50, rel=0.03)

    def test_a_face_draws_the_same_points_wherever_it_stands(self) -> None:
        """Neither its number in the file, nor the order of its vertices, nor which corner is named first matters."""
        ids = np.array([901, 17, 400, 5])
        first, _ = sample_faces(SQUARE, ids, TWO, 0.01, 3)
        order = np.array([2, 0, 3, 1])
        faces = np.argsort(order)[TWO[::-1][:, [1, 2, 0]]]
        second, _ = sample_faces(SQUARE[order], ids[order], faces, 0.01, 3)
        assert len(first) > 50
        np.testing.assert_array_equal(np.sort(first, axis=0), np.sort(second, axis=0))

    def test_seed_matters(self) -> None:
        first, _ = sample_faces(SQUARE, np.arange(4), TWO, 1.0, 3)
        second, _ = sample_faces(SQUARE, np.arange(4), TWO, 1.0, 4)
        assert len(first) != len(second) or not np.array_equal(first, second)


class TestNearest:
    @settings(max_examples=25, deadline=None)
    @given(
        seed=st.integers(0, 2**32 - 1), spread=st.sampled_from([2.0, 20.0, 300.0]), limit=st.sampled_from([1.0, 20.0])
    )
    def test_equals_a_tree(self, seed: int, spread: float, limit: float) -> None:
        rng = np.random.default_rng(seed)
        points, queries = rng.normal(0, spread, (200, 3)), rng.normal(0, spread * 1.2, (150, 3))
        expected = cKDTree(points).query(queries, distance_upper_bound=limit)[0]
        np.testing.assert_allclose(nearest_distance(queries, points, limit), expected, rtol=1e-12)

    def test_nothing_to_find(self) -> None:
        assert np.isinf(nearest_distance(np.zeros((3, 3)), np.zeros((0, 3)), 5.0)).all()
        assert len(nearest_distance(np.zeros((0, 3)), np.zeros((3, 3)), 5.0)) == 0


class TestHemisphere:
    def box(self, low: tuple[float, ...], high: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
        corners = np.array([[x, y, z] for z in (low[2], high[2]) for y in (low[1], high[1]) for x in (low[0], high[0])])
        quads = [(0, 2, 3, 1), (4, 5, 7, 6), (0, 1, 5, 4), (1, 3, 7, 5), (3, 2, 6, 7), (2, 0, 4, 6)]
        return corners, np.array([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))], np.int32)

    def reached(self, points: np.ndarray, faces: np.ndarray, density: float = 4.0) -> tuple[np.ndarray, ...]:
        sampled, owner = sample_faces(points, np.arange(len(points)), faces, density, 0)
        normals, _ = face_normals(points, faces)
        return sampled, normals[owner], Hemisphere(points, faces).reaches(sampled, owner, normals)

    def test_there_are_33_directions_all_downwards(self) -> None:
        assert directions().shape == (33, 3)
        assert (directions()[:, 2] < -0.25).all()
        np.testing.assert_allclose(np.linalg.norm(directions(), axis=1), 1)

    def test_a_table_hides_its_underside_and_what_stands_inside_it(self) -> None:
        ground = (np.array([[-30, -30, 0], [30, -30, 0], [30, 30, 0], [-30, 30, 0]], float), TWO)
        table, inner = self.box((-5, -5, 3), (5, 5, 4)), self.box((-2, -2, 3.2), (2, 2, 3.6))
        points = np.concatenate([ground[0], table[0], inner[0]])
        faces = np.concatenate([ground[1], table[1] + 4, inner[1] + 12])
        sampled, normals, seen = self.reached(points, faces, 8.0)
        z, r = sampled[:, 2], np.abs(sampled[:, :2]).max(axis=1)
        top = (z == 4) & (normals[:, 2] > 0.9)
        assert seen[top].mean() > 0.999
        assert not seen[(z == 3) & (normals[:, 2] < -0.9)].any()
        assert not seen[(z > 3.1) & (z < 3.9) & (r < 4.5)].any()  # 0.4 m under the top
        assert seen[(np.abs(normals[:, 2]) < 0.1) & (r > 4.9)].mean() > 0.98
        # light falls in from the sides, but not into the middle beneath
        ground_seen = seen[(z == 0) & (r < 25)]
        assert ground_seen.mean() > 0.95

    def test_the_bottom_of_a_deep_shaft_is_reached_from_above(self) -> None:
        shaft = self.box((0, 0, 0), (4, 4, 40))
        faces = shaft[1][2:][:, ::-1]  # no lid below... the box turned inside out, its roof taken off
        points, keep = shaft[0], np.ones(len(faces), bool)
        keep[:2] = False
        floor = shaft[1][:2][:, ::-1]
        sampled, normals, seen = self.reached(points, np.concatenate([faces[keep], floor]))
        on_floor = (sampled[:, 2] == 0) & (normals[:, 2] > 0.9)
        assert seen[on_floor].mean() > 0.9
        walls = np.abs(normals[:, 2]) < 0.1
        assert seen[walls & (sampled[:, 2] > 30)].mean() > 0.95
        assert seen[walls & (sampled[:, 2] < 15)].mean() < 0.5


def test_undersides_are_left_out_even_where_low_light_grazes_them() -> None:
    """An octahedron in the air, as a crown is: its lower half is seen from the side, and still an underside."""
    points = np.array([[3, 0, 8], [0, 3, 8], [-3, 0, 8], [0, -3, 8], [0, 0, 11], [0, 0, 5]], float)
    upper = [(k, (k + 1) % 4, 4) for k in range(4)]
    lower = [((k + 1) % 4, k, 5) for k in range(4)]
    crown = Triangles(points, np.arange(6), np.array(upper + lower, np.int32), np.zeros(8, np.uint8))
    samples = reachable_samples(crown, crown, Box(-9, -9, 9, 9), 8.0, 1)
    assert samples.points[:, 2].min() >= 8.0
    assert len(samples.points) == pytest.approx(8 * 4 * np.sqrt(3) / 4 * 18, rel=0.1)
