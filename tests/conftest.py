"""Fixtures of all tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

# The same examples in every run: a change that passed doesn't fail elsewhere by luck of the draw.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Small real data that isn't part of the repository; tests that need it skip where it isn't."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no real data: it is expected in ../shared/data beside the clone")
    return folder


@pytest.fixture
def city_values() -> dict:
    """Plain values of a valid configuration with a 2 x 2 tile city; a test changes what it is about."""
    return {
        "city": {
            "name": "test",
            "crs": "EPSG:32637",
            "vertical": "ellipsoid",
            "bounds_m": [315392, 4161536, 315904, 4162048],
            "heights_m": [540.0, 800.0],
        },
        "tiles": {"size_m": 256},
        "sources": {
            "views": [{"name": "a", "path": "views/a.tif"}, {"name": "b", "path": "views/b.tif"}],
        },
    }
