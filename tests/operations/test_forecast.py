from __future__ import annotations

import json
from pathlib import Path

import pytest

from cityweave.cli import main
from cityweave.config import Config
from cityweave.errors import ConfigError, DataError
from cityweave.operations.costs import KINDS, is_needed, reference_table
from cityweave.operations.forecast import KindForecast, forecast
from cityweave.plan import load_config, read_config
from cityweave.profiles import Profile, read_profile, read_values

DEMO = Path(__file__).resolve().parents[2] / "config" / "config.yaml"


@pytest.fixture
def demo() -> Config:
    return read_config(DEMO)


def profile(folder: Path, text: str) -> Profile:
    (folder / "config.v9+.yaml").write_text(text)
    return read_profile(folder)


SLURM = """
executor: slurm
jobs: 10
max-jobs-per-timespan: 30/1m
config: ["workflow={pack: {divisions: true, tiles: 3}}"]
default-resources: {slurm_partition: cpu, mem_mb: "500 * attempt", runtime: 30m}
set-resources:
  stereo: {slurm_partition: gpu, gpu: 1, gpu_model: h100, mem_mb: "max(16000, 100) * attempt", runtime: "2h"}
  mesh: {gres: "gpu:a100:2", mem_mb: mem_of_input}
"""


def test_the_recorded_city_is_forecast_as_recorded(demo: Config) -> None:
    table = reference_table()
    result = forecast(demo, table, slots=2)
    assert [kind.kind for kind in result.kinds] == [kind for kind in KINDS if is_needed(kind, demo)]
    for kind in result.kinds:
        recorded = table.kinds[kind.kind]
        assert kind.units == recorded.units and kind.times_recorded == pytest.approx(1)
        assert kind.bytes == pytest.approx(recorded.bytes, abs=kind.units)
        assert kind.peak_mb == pytest.approx(recorded.peak_rss_mb)
        assert (kind.job_s - table.start_s) * kind.jobs == pytest.approx(recorded.work_s)
    assert table.details["hardware"] in result.as_text() and table.details["date"] in result.as_text()


def test_four_times_the_ground_is_four_times_the_tiles_and_no_costlier_tile(demo: Config) -> None:
    city = demo.city.model_copy(update={"bounds_m": (315392, 4161536, 316416, 4162560)})
    one, four = (forecast(c, reference_table(), slots=1) for c in (demo, demo.model_copy(update={"city": city})))
    by_kind = {kind.kind: kind for kind in four.kinds}
    for kind in one.kinds:
        if kind.kind in ("ingest", "dsm", "fit", "mesh", "texture"):
            assert by_kind[kind.kind].job_s == pytest.approx(kind.job_s)
            assert by_kind[kind.kind].jobs == 4 * kind.jobs
    assert four.total("inodes") > 3 * one.total("inodes")


def test_finer_cells_and_more_views_cost_more(demo: Config) -> None:
    assert demo.synth is not None
    views = tuple(view.model_copy(update={"name": f"w{n}"}) for n, view in enumerate(demo.synth.views * 2))
    finer = demo.model_copy(update={"synth": demo.synth.model_copy(update={"views": views})})
    one, more = (forecast(c, reference_table(), slots=1) for c in (demo, finer))
    ratios = {a.kind: b.job_s / a.job_s for a, b in zip(one.kinds, more.kinds, strict=True)}
    assert ratios["dsm"] > 2 and ratios["texture"] > 1.5 and ratios["mesh"] == pytest.approx(1)


def test_a_profile_packs_grants_and_is_held_against_the_forecast(demo: Config, tmp_path: Path) -> None:
    granted = profile(tmp_path, SLURM)
    config = load_config(read_values(DEMO, granted))
    assert config.workflow.pack.tiles == 3 and config.tiles.size_m == demo.tiles.size_m
    result = forecast(config, reference_table(), granted)
    kinds = {kind.kind: kind for kind in result.kinds}
    assert result.slots == 10 and kinds["dsm"].jobs == 2 and kinds["fit"].jobs == 2
    assert kinds["dsm"].gpu_h == pytest.approx(kinds["dsm"].job_s * 2 / 3600) and kinds["fit"].gpu_h == 0
    assert "asks for 500 MB" in kinds["evaluate"].remark and not kinds["dsm"].remark
    assert "recorded without a GPU" in result.as_text()


def test_tiles_of_a_pack_side_by_side_take_less_time_and_more_memory(demo: Config) -> None:
    def heights_of(**pack: int) -> KindForecast:
        workflow = demo.workflow.model_copy(update={"pack": demo.workflow.pack.model_copy(update=pack)})
        kinds = forecast(demo.model_copy(update={"workflow": workflow}), reference_table(), slots=1, start_s=0.0).kinds
        return next(kind for kind in kinds if kind.kind == "dsm")

    one, two, many = heights_of(tiles=4), heights_of(tiles=4, at_once=2), heights_of(tiles=4, at_once=64)
    assert two.job_s == pytest.approx(one.job_s / 2) and many.job_s == pytest.approx(one.job_s / 4)
    assert one.peak_mb < two.peak_mb < 2 * one.peak_mb and two.cpu_h == one.cpu_h


def test_requests_are_read_for_the_first_attempt(tmp_path: Path) -> None:
    asked = profile(tmp_path, SLURM)
    dsm, mesh, other = (asked.requests(rule) for rule in ("stereo", "mesh", "texture"))
    assert (dsm.partition, dsm.gpus, dsm.gpu_model, dsm.mem_mb, dsm.runtime_min) == ("gpu", 1, "h100", 16000, 120)
    assert (mesh.gpus, mesh.gpu_model, mesh.mem_mb) == (2, "a100", None)
    assert (other.partition, other.gpus, other.mem_mb, other.runtime_min) == ("cpu", 0, 500, 30)
    assert asked.jobs_per_minute == 30 and asked.status_command == "sacct"


def test_a_throttle_bounds_the_time(demo: Config, tmp_path: Path) -> None:
    slow = profile(tmp_path, "executor: slurm\njobs: 1000\nmax-jobs-per-timespan: 1/10m\n")
    assert forecast(demo, reference_table(), slow).wall_h == pytest.approx(34 / 6)


def test_no_profile_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="profiles/slurm"):
        read_profile(tmp_path)


def test_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["plan", "--config", str(DEMO), "--slots", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["totals"]["jobs"] == 34
    (tmp_path / "config.json").write_text(json.dumps(read_config(DEMO).model_dump(mode="json")))
    assert main(["plan", "--config", str(DEMO), "--from", str(tmp_path)]) == DataError.exit_code
