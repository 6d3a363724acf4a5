"""What machine this is, as far as figures and times depend on it. Standard library only; Linux says most."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h of glibc
_NUMERIC = ("sse", "ssse", "avx", "fma", "f16c", "bmi", "popcnt", "amx", "neon", "asimd", "sve")


@cache
def _cpuinfo() -> dict[str, str]:
    """Of the first processor."""
    found: dict[str, str] = {}
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return found
    for line in text.split("\n\n")[0].splitlines():
        key, _, value = line.partition(":")
        found[key.strip()] = value.strip()
    return found


def cpu_model() -> str:
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def cpu_features() -> list[str]:
    """Instruction sets that decide how sums are taken, so that the last bits of a figure may depend on them."""
    info = _cpuinfo()
    flags = (info.get("flags") or info.get("Features") or "").split()
    return [platform.machine(), *sorted(flag for flag in flags if flag.startswith(_NUMERIC))]


def cpu_kind() -> str:
    """Family, model and stepping: a linear algebra library chooses its kernels by them."""
    info = _cpuinfo()
    return " ".join(info.get(key, "?") for key in ("vendor_id", "cpu family", "model", "stepping"))


def usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_mb() -> float:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e6)


def keep_freed_memory() -> None:
    """For the rest of this process, arrays that are freed make room for the next ones.

    The C library of most Linux systems gives large blocks back at once; the system then clears every page of the next
    one, which takes matching a tenth of its time. Other C libraries are left as they are.
    """
    limit = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if limit:
        limit(_M_MMAP_MAX, 0)
        limit(_M_TRIM_THRESHOLD, 2**31 - 1)


def gpus() -> list[dict[str, Any]]:
    """Name, memory and driver of every GPU that the driver's own program lists."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    try:
        text = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[part.strip() for part in line.split(",")] for line in text.splitlines() if line.count(",") == 2]
    return [{"name": name, "memory_mib": memory, "driver": driver} for name, memory, driver in rows]


def describe() -> dict[str, Any]:
    return {
        "host": platform.node(),
        "system": f"{platform.system()} {platform.release()}",
        "cpu": cpu_model(),
        "cpu_kind": cpu_kind(),
        "cpu_features": cpu_features(),
        "cores": usable_cores(),
        "memory_mb": memory_mb(),
        "gpus": gpus(),
    }
