"""A suite of the mini city, really run: same figures everywhere, shared work done once, records that tell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cityweave.bench.compare import compare, verify
from cityweave.bench.record import publish, read_records
from cityweave.cli import main
from cityweave.errors import DataError

pytestmark = pytest.mark.workflow
ROOT = Path(__file__).resolve().parent.parent.parent
SEED = 11
METRICS = [
    {"key": "dsm.mae_m", "label": "DSM mean error", "unit": "m", "better": "lower", "tolerance": 0.005},
    {"key": "mesh.f1.1", "label": "mesh F1 at 1 m", "better": "higher", "tolerance": 0.002},
]


class Bench:
    """A suite in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        suite = {
            "description": "The mini city.",
            "config": yaml.safe_load((ROOT / "tests" / "workflow" / "mini.yaml").read_text())
            | {"workflow": {"pack": {"tiles": 2}}},
            "seeds": [SEED],
            "variants": {"default": {}, "loose": {"config": {"geometry": {"level_errors_m": [1.5, 3.0]}}}},
            "metrics": METRICS,
            "timing": {"repeats": 1},
        }
        (folder / "mini.yaml").write_text(yaml.safe_dump(suite, sort_keys=False))
        self.results = folder / "results" / "bench" / "mini"

    def call(self, *arguments: str, cores: int = 2) -> str:
        command = [str(Path(sys.executable).with_name("snakemake")), "--snakefile", str(ROOT / "Snakefile")]
        command += ["--cores", str(cores), "--config", "suite=mini.yaml", "--", *arguments]
        if arguments and arguments[0].startswith("-"):
            command = [*command[:5], *arguments[:-1], *command[5:8], arguments[-1]]
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=1200, check=False
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
        return done.stdout + done.stderr

    def planned(self, target: str) -> set[str]:
        """Rules of which a dry run would do jobs."""
        text = self.call("--dry-run", "--quiet", "rules", target)
        rows = (line.rpartition(" ") for line in text.splitlines())
        names = {name.strip() for name, _, count in rows if count.isdigit() and " " not in name.strip()}
        return names - {"total", target}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Run once to its end, on two cores."""
    bench = Bench(tmp_path_factory.mktemp("bench"))
    bench.call("bench")
    return bench


def record(bench: Bench, variant: str) -> dict:
    return read_records([bench.results / "records" / f"{variant}-s{SEED}.json"])[0]


def test_records_hold_what_was_asked(bench: Bench) -> None:
    found = record(bench, "default")
    assert found["metrics"]["tiles"] == {"expected": 4, "done": 4, "quarantined": []}
    assert set(found["stages"]) == {
        *("synth", "survey", "ingest", "dsm", "fit", "mesh", "texture"),
        *("merge_heights", "merge_city", "evaluate"),
    }
    for stage in found["stages"].values():
        assert stage["timed"]["seconds"] > stage["timed"]["work_s"] > 0 and stage["timed"]["peak_rss_mb"] > 50
        assert stage["peak_rss_mb"] > 50 and stage["work_s"] > 0 and stage["floor"]["seconds"] > 0
    assert found["calibration"]["copy_gb_s"] > 0 and found["machine"]["cpu"]
    assert found["products"]["city/city_dsm.tif"] and found["inputs"]["sources"]["sha256"]
    text = (bench.results / "tables.md").read_text()
    assert "| default |" in text and "dsm, default-s11" in text and (bench.results / "mini_figures.svg").is_file()


def test_what_variants_share_is_taken_over(bench: Bench) -> None:
    default, loose = record(bench, "default"), record(bench, "loose")
    for kind in ("synth", "survey", "ingest", "dsm"):
        assert loose["stages"][kind]["adopted_from"] == [f"results/bench/mini/default-s{SEED}/mini"]
        assert loose["stages"][kind]["timed"]["measured_in"] == f"default-s{SEED}"
    assert loose["stages"]["mesh"]["adopted_from"] == [] and "loose" in loose["stages"]["mesh"]["timed"]["measured_in"]
    places = [bench.results / f"{variant}-s{SEED}" / "mini" for variant in ("default", "loose")]
    stores = [next((place / "tiles").glob("*/dsm.*.zarr/dsm/zarr.json")) for place in places]
    assert stores[0].stat().st_ino == stores[1].stat().st_ino, "a link, not a copy"
    same = {name for name, sha256 in default["products"].items() if loose["products"][name] == sha256}
    assert {name.rpartition("/")[2] for name in same} >= {"aoi", "dsm", "survey", "sources", "city_dsm.tif"}
    assert loose["products"]["city/city.glb"] != default["products"]["city/city.glb"]


def test_a_worse_variant_is_told_apart_and_the_same_one_is_not(bench: Bench) -> None:
    folder = bench.results / "records"
    (comparison,) = compare([record(bench, "default")], [record(bench, "loose")])
    verdicts = {change.metric["key"]: change.verdict for change in comparison.changes}
    assert verdicts == {"dsm.mae_m": "same", "mesh.f1.1": "worse"}
    assert any(cause.startswith("geometry.level_errors_m") for cause in comparison.causes)
    assert main(["bench", "compare", f"{folder}:default", f"{folder}:loose"]) == 1
    assert main(["bench", "compare", str(folder), str(folder)]) == 0


def test_one_variant_alone_is_run_again_alone(bench: Bench) -> None:
    assert bench.planned("bench") == set()
    (bench.results / f"loose-s{SEED}" / "mini" / "city" / "evaluate.json").rename(bench.folder / "kept.json")
    loose = {f"loose_s{SEED}_{name}" for name in ("evaluate", "measure", "record")}
    assert bench.planned("bench_loose") == loose
    assert bench.planned("bench") == loose | {"bench_tables"}
    (bench.folder / "kept.json").rename(bench.results / f"loose-s{SEED}" / "mini" / "city" / "evaluate.json")


def test_equal_to_the_bit_in_another_folder_on_one_core(bench: Bench, tmp_path: Path) -> None:
    other = Bench(tmp_path / "other")
    run = Path("results/bench/mini") / f"default-s{SEED}" / "mini"
    other.call(str(run / "city" / "evaluate.json"), cores=1)
    output = tmp_path / f"default-s{SEED}.json"
    arguments = ["--suite", str(other.folder / "mini.yaml"), "--run", str(other.folder / run), "--output", str(output)]
    assert main(["bench", "record", f"default-s{SEED}", *arguments]) == 0
    again, reference = read_records([output])[0], record(bench, "default")
    again["machine"] = reference["machine"]  # this very one; the second folder timed nothing
    assert verify([again], [reference]) == ([f"default-s{SEED}: equal to the bit"], [])
    assert again["products"] == reference["products"]


def test_a_record_from_a_changed_tree_is_no_reference(bench: Bench, tmp_path: Path) -> None:
    found = record(bench, "default")
    dirty = found | {"refused": ["the tree was not clean: src/x.py"]}
    with pytest.raises(DataError, match="not clean"):
        publish([dirty], tmp_path)
    state = found["source"]
    assert (state["commit"] is None or not state["clean"]) == bool(found["refused"]), json.dumps(found["refused"])
