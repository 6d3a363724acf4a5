"""Several jobs of a stage one after another, or in processes side by side that share what was imported.

Much of a tile's work is one core's, so many cores do more on several tiles than on one.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from cityweave.errors import CityweaveError, say

Unit = TypeVar("Unit")


def work_through(call: Callable[[Unit], None], units: Sequence[Unit], at_once: int) -> None:
    """`call` of every unit. Where one fails, what others beside it finish still counts, and the process ends with its
    exit code."""
    at_once = min(at_once, len(units))
    if at_once == 1:
        for unit in units:
            call(unit)
        return
    # A copy of this process knows all modules and the run already. Threads aren't copied: none may run here yet.
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_worker, args=(call, units[k::at_once]), daemon=True) for k in range(at_once)]
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        signal.signal(signal.SIGTERM, before)
    codes = [worker.exitcode for worker in workers]
    if killed := [code for code in codes if code and code < 0]:
        sys.exit(f"cityweave: a process was killed by signal {-killed[0]}, for want of memory most likely")
    if failed := [code for code in codes if code]:
        sys.exit(failed[0])


def _worker(call: Callable[[Unit], None], units: Sequence[Unit]) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for unit in units:
        try:
            call(unit)
        except CityweaveError as error:
            sys.exit(say(error))


def _stop(number: int, _: object) -> None:
    """A job that is told to end takes its processes along, as they are daemons."""
    raise SystemExit(128 + number)
