from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cityweave.bench.gpu_tables import gpu_markdown
from cityweave.manifest import write_json

ROOT = Path(__file__).resolve().parent.parent.parent
ALLOWED = {"numpy", "torch", "numba", "scipy"}


def test_needs_nothing_but_numpy_and_torch() -> None:
    """On a bare node only these are sure to be there: the module must come up without pydantic and the rest."""
    code = (
        "import sys\n"
        "for name in ('pydantic', 'yaml', 'pyproj', 'rasterio', 'zarr', 'shapely', 'scipy', 'numba'):\n"
        "    sys.modules[name] = None\n"
        "import cityweave.bench.gpu, cityweave.bench.calibrate as c\n"
        "assert c.calibrate()['rates'].startswith('unknown')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_a_gpu_it_says_so_and_writes_nothing(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""}
    script = [str(ROOT / "bench" / "gpu.sh"), str(tmp_path / "out")]
    done = subprocess.run(script, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 4 and "accepted: a node with" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_node_without_twins_is_told_as_such(tmp_path: Path) -> None:
    rates = dict.fromkeys(("copy_gb_s", "to_device_gb_s", "from_device_gb_s"), 1000.0)
    rates |= {"float32_matmul_tflop_s": 50.0, "bf16_matmul_tflop_s": 700.0, "launch_us": 4.5}
    record = {"gpu": {"name": "H", "rates": rates}, "stages": {}, "notes": ["no stage has a GPU path yet"]}
    write_json(tmp_path / "H.json", record)
    text = gpu_markdown(tmp_path)
    assert "| H | 1000 | 1000 | 1000 | 50 | 700 | 4.5 |" in text and "No stage has a GPU path yet." in text


def test_a_twin_works_without_numba() -> None:
    code = (
        "import sys\n"
        "for name in ('pydantic', 'yaml', 'pyproj', 'rasterio', 'zarr', 'shapely', 'scipy', 'numba'):\n"
        "    sys.modules[name] = None\n"
        "from cityweave.bench import twins\n"
        "twins.NODES, twins.STEPS = 24, 3\n"
        "division = twins.FIT.make()\n"
        "found = twins.FIT.cpu(division)\n"
        "assert found.shape == (28, 28) and 0 < abs(found - division[0]).max() < 2\n"
    )
    pytest.importorskip("torch")
    subprocess.run([sys.executable, "-c", code], check=True)
