"""What this machine can do, measured in three seconds: a figure to set times beside, rates to compute floors from.

Needs numpy; numba where it is. Run as a program it prints JSON, so that whoever times jobs stays small.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from cityweave.machine import usable_cores

_COPY_MB = 128  # far more than the caches hold
_CACHED = 4096  # numbers that stay in the nearest cache
_ROUNDS = 20_000


def calibrate() -> dict[str, Any]:
    """Bandwidths count what is read and what is written; rates are those of one core."""
    figures: dict[str, Any] = {
        "workload_s": round(_best(_workload, 3), 4),
        "copy_gb_s": round(_copy_gb_s(1), 2),
        "copy_all_cores_gb_s": round(_copy_gb_s(usable_cores()), 2),
        "cores": usable_cores(),
    }
    try:
        figures |= {name: round(rate, 2) for name, rate in _rates().items()}
    except ImportError:
        figures["rates"] = "unknown: numba is not there"
    return figures


def _best(work: Callable[[], Any], times: int) -> float:
    """Seconds of the quickest: what disturbs only ever makes it slower."""
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def _workload() -> float:
    """Fixed work of the kinds that the stages do: sorting, transforming, gathering, elementwise arithmetic."""
    values = np.random.default_rng(7).random(1 << 20)
    spectrum = np.fft.rfft(values)
    gathered = values[np.argsort(values)[::-1]]
    return float(np.abs(spectrum).sum() + np.sqrt(gathered * gathered + 1.0).sum())


def _copy_gb_s(threads: int) -> float:
    size = _COPY_MB * 1_000_000 // 8 // threads
    pairs = [(np.ones(size), np.empty(size)) for _ in range(threads)]
    for source, target in pairs:
        np.copyto(target, source)  # pages are there from here on
    with ThreadPoolExecutor(threads) as pool:
        seconds = _best(lambda: list(pool.map(lambda pair: np.copyto(pair[1], pair[0]), pairs)), 7)
    return 2 * 8 * size * threads / seconds / 1e9


def _rates() -> dict[str, float]:
    """Billions of operations a second that compiled code reaches on numbers in the nearest cache."""
    from numba import njit

    from cityweave.dsm.sweep import popcount

    @njit(fastmath=True)
    def multiply_add(a, b, rounds):  # type: ignore[no-untyped-def]
        for _ in range(rounds):
            for i in range(len(a)):
                a[i] = a[i] * np.float32(0.999) + b[i]

    @njit
    def add_least(a, b, rounds):  # type: ignore[no-untyped-def]
        for k in range(rounds):
            for i in range(len(a)):
                a[i] = min(np.int16(a[i] + np.int16(k)), b[i])

    @njit
    def unlike_bits(a, b, rounds):  # type: ignore[no-untyped-def]
        total = np.uint64(0)
        for k in range(rounds):
            for i in range(len(a)):
                total += popcount(a[i] ^ (b[i] + np.uint64(k)))
        return total

    rates = {}
    for name, kernel, kind, each in (
        ("float32_gop_s", multiply_add, np.float32, 2),
        ("int16_gop_s", add_least, np.int16, 2),
        ("popcount_gop_s", unlike_bits, np.uint64, 1),
    ):
        a, b = np.ones(_CACHED, kind), np.ones(_CACHED, kind)
        kernel(a, b, 1)  # compiles
        rates[name] = each * _CACHED * _ROUNDS / _best(partial(kernel, a, b, _ROUNDS), 3) / 1e9
    return rates


if __name__ == "__main__":
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    print(json.dumps(calibrate()))
