"""What a solver needs beside the base installation; asked before any job starts."""

from __future__ import annotations

from importlib.util import find_spec

from cityweave.config import GeometryConfig
from cityweave.errors import MissingCapability


def require_solver(settings: GeometryConfig) -> None:
    needed = {"torch": settings.solver in ("flexicubes", "full_sdf")}
    needed["fast_simplification"] = settings.triangles_per_m2 is not None
    missing = [name for name, wanted in needed.items() if wanted and find_spec(name) is None]
    if missing:
        raise MissingCapability(
            f"geometry.solver {settings.solver} needs {' and '.join(missing)}; accepted: make setup EXTRAS=published, "
            "or solver direct, which needs neither"
        )
