from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from cityweave.bench.docs import docs_files
from cityweave.bench.growth import exponent
from cityweave.bench.record import figure
from cityweave.bench.tables import as_csv, as_markdown, plots, with_spread

from .conftest import stage

ROOT = Path(__file__).resolve().parent.parent.parent


def test_the_page_is_in_step_with_the_committed_records() -> None:
    records, page = ROOT / "bench" / "records", ROOT / "docs" / "benchmarks.md"
    for path, text in docs_files(records, page).items():
        assert path.read_text() == text, f"refresh {path.relative_to(ROOT)} with: cityweave bench docs"


def test_committed_records_are_references() -> None:
    for file in (ROOT / "bench" / "records").glob("*/*.json"):
        assert not json.loads(file.read_text()).get("refused"), file


def test_mean_and_spread_over_seeds(make) -> None:
    records = [make(seed=seed, mae=mae) for seed, mae in ((1, 0.40), (2, 0.44), (3, 0.42))] + [make("coarse", mae=0.7)]
    text = as_markdown(records, "")
    assert "| default | 0.420 ± 0.020 |" in text and "| coarse | 0.7 |" in text
    assert "4 records; seeds 1, 2, 3; commit aaaaaaaaaaaa" in text
    assert with_spread(None, None) == "–" and with_spread(12345.6, 230.0) == "12346 ± 230"


def test_published_figures_say_where_they_come_from(make) -> None:
    record = make()
    entry = {"name": "Theirs", "source": "A paper, table 2", "second_hand": True, "figures": {"dsm.mae_m": 0.5}}
    record["shown"] = record["shown"] | {"published": [entry | {"remark": "other tiles"}]}
    text = as_markdown([record], "")
    assert "| Theirs [1] | 0.5 | – | – |" in text and "[1] A paper, table 2 (second-hand). other tiles" in text


def test_a_refused_record_is_named(make) -> None:
    assert "- default-s1: the tree was not clean" in as_markdown([make(refused=["the tree was not clean"])], "")


def test_csv_has_a_line_per_figure(make) -> None:
    lines = as_csv([make()]).splitlines()
    assert f"tiny,default,1,{'a' * 40},quality,dsm.mae_m,0.4" in lines
    assert f"tiny,default,1,{'a' * 40},dsm,job.seconds,2.0" in lines


def test_exponents() -> None:
    assert exponent([(x, 3 * x**1.5) for x in (1.0, 2.0, 5.0)]) == pytest.approx(1.5)
    assert exponent([(1.0, 1.0), (2.0, 2.0)]) is None


def growing(make, power: float) -> list[dict]:
    records = []
    for variant, pixels in (("default", 1e6), ("coarse", 4e6), ("other", 16e6)):
        entry = stage(2 * (pixels / 1e6) ** power, pixels, measured_in=f"{variant}-s1")
        entry["timed"]["profile"] = {"imports_share": 0.1, "top": [{"function": "cityweave.dsm.sgm.f", "share": 0.6}]}
        records.append(make(variant, stages={"dsm": entry}))
        records[-1]["shown"] = records[-1]["shown"] | {"axis": None if variant == "default" else "views"}
    return records


def test_what_grows_faster_than_linearly_is_named(make) -> None:
    text = as_markdown(growing(make, 1.5), "")
    assert "| dsm | 1.50 |" in text and "**dsm** grows with views to the power of 1.50" in text
    assert "`dsm.sgm.f` 60%" in text
    assert "No stage grows faster than linearly. **dsm** is" in as_markdown(growing(make, 0.9), "")


def test_plots_are_well_formed(make) -> None:
    for text in (plots([make()]) | plots(growing(make, 1.0))).values():
        assert ElementTree.fromstring(text).tag.endswith("svg")


def test_a_figure_is_found_by_names_that_hold_dots() -> None:
    metrics = {"mesh": {"f1": {"0.5": 0.7, "1": 0.9}}}
    assert figure(metrics, "mesh.f1.0.5") == 0.7 and figure(metrics, "mesh.f1.1") == 0.9
    assert figure(metrics, "mesh.f1.2") is None and figure(metrics, "mesh.f1") is None and figure(None, "mesh") is None
