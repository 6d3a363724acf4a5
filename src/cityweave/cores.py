"""The cores that a job may use: parts of a compiled loop side by side. Results don't depend on how many there are.

What runs here must let go of the interpreter: numba functions with `nogil=True`, or numpy on large arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

Part = TypeVar("Part")
Result = TypeVar("Result")

_used = 1


def use(cores: int) -> None:
    """For the rest of this process; a job is told by its rule."""
    global _used
    _used = max(1, cores)


def in_use() -> int:
    return _used


def side_by_side(work: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
    """`work` of every part, in their order."""
    if _used == 1 or len(parts) < 2:
        return [work(part) for part in parts]
    with ThreadPoolExecutor(min(_used, len(parts))) as pool:
        return list(pool.map(work, parts))


def shares(size: int) -> list[tuple[int, int]]:
    """0 to `size` as one stretch for every core."""
    ends = [size * k // _used for k in range(_used + 1)]
    return [(first, end) for first, end in pairwise(ends) if end > first]
