"""The page of the made-up city, its parts and its pictures."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cityweave.evaluate import job as evaluate
from cityweave.manifest import Run, write_json
from cityweave.report import job, maps, page, plots, scenes
from cityweave.report.colours import ERROR, UNKNOWN_RGB, look_up
from tests.evaluate import fake_city


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One tile of four is quarantined."""
    run = fake_city.make_run(tmp_path_factory.mktemp("results"), quarantined="E352_N640")
    values = run.config.model_dump(mode="json")
    values["report"] = {"width_px": 320}
    from cityweave.plan import load_config

    run = Run(run.folder, load_config(values))
    write_json(run.folder / "config.json", values)
    evaluate.run(run)
    job.run(run)
    return run


class _Tags(HTMLParser):
    """Every element closed in order; sources and links collected."""

    VOID = ("meta", "img", "br", "rect", "line", "polyline", "circle")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.outside: list[str] = []
        self.headings: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        for key in ("src", "href"):
            if key in values and not (values[key] or "").startswith("data:"):
                self.outside.append(f"{tag} {key}={values[key]}")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("h1", "h2"):
            self.headings.append(data)


def test_page_is_whole_and_needs_nothing_from_outside(run: Run) -> None:
    html = (run.folder / "report.html").read_text()
    tags = _Tags()
    tags.feed(html)
    assert tags.open == [] and tags.outside == []
    assert "url(" not in html and "@import" not in html and "<script" not in html
    assert tags.headings == [
        "fake", "Height model", "Mesh", "Texture", "Borders of the tiles", "Tiles", "Cost", "How it was made",
    ]  # fmt: skip
    assert len(html) < 8e6


def test_quarantine_and_unknown_figures_are_named(run: Run) -> None:
    html = (run.folder / "report.html").read_text()
    assert "1 tiles are not in the city" in html or "1 tile is not in the city" in html
    assert "E352_N640: no data" in html
    assert "needs a second run" in html
    assert html.count("data:image/") >= 8


def test_run_json_says_how_it_was_made(run: Run) -> None:
    import json

    document = json.loads((run.folder / "run.json").read_text())
    assert document["versions"]["numpy"] == np.__version__
    assert document["stages"]["fit"]["jobs"] == 3 * 4
    assert document["stages"]["mesh"]["work_s"] == 6.0


def test_manifest_does_not_depend_on_times(run: Run) -> None:
    before = run.manifest_path("report").read_bytes()
    job.run(run)
    assert run.manifest_path("report").read_bytes() == before


def test_hero_is_written_and_shows_the_city(run: Run, tmp_path: Path) -> None:
    scenes.write_hero(run, tmp_path / "hero.png", 320, 180)
    with Image.open(tmp_path / "hero.png") as image:
        picture = np.asarray(image).astype(int)
    assert picture.shape == (180, 320, 3)
    sky = scenes.sky(320, 180).astype(int)
    covered = (np.abs(picture - sky).sum(axis=2) > 30).mean()
    assert 0.25 < covered < 0.9
    assert np.abs(picture[:3] - sky[:3]).max() <= 1  # nothing is cut off at the top


def test_clay_walls_are_darker_than_roofs_and_shadows_fall(run: Run) -> None:
    stage = scenes.Stage.of(run)
    assert stage is not None
    picture = scenes.clay_picture(stage, 200, 120).astype(int).sum(axis=2)
    drawn = np.abs(picture - scenes.sky(200, 120).astype(int).sum(axis=2)) > 30
    assert np.percentile(picture[drawn], 5) < 0.6 * np.percentile(picture[drawn], 95)


def test_maps() -> None:
    error = np.array([[-9.0, -3.0, 0.0], [3.0, 9.0, np.nan]])
    colours = maps.error_picture(error)
    assert (colours[0, 0] == colours[0, 1]).all() and (colours[1, 0] == colours[1, 1]).all()
    assert colours[0, 0, 2] > colours[0, 0, 0] and colours[1, 0, 0] > colours[1, 0, 2]
    assert tuple(colours[1, 2]) == UNKNOWN_RGB
    assert colours[0, 2].min() > 240
    assert tuple(look_up(np.array([0.0]), 0, 1, ERROR)[0]) == ERROR[0][1]


def test_relief_lights_the_north_west_and_darkens_narrow_places() -> None:
    y, x = np.mgrid[0:60, 0:60].astype(float)
    towards = maps.relief(-(60 - y) - (0 - x) * -1, 1.0)  # rises to the south-east: faces north-west
    away = maps.relief((60 - y) - x, 1.0)
    assert towards[30, 30] > 1.5 * away[30, 30]


def test_numbers_for_reading() -> None:
    assert page.number(None) == "–"
    assert page.number(0.123456) == "0.123"
    assert page.number(1234567) == "1\u202f234\u202f567"
    assert page.number(0) == "0"
    assert page.share(0.9876) == "98.8"
    assert page.measured("–", "m") == "–"


def test_plots_escape_and_stay_inside() -> None:
    chart = plots.bars([("a<b", 1.0, "1 s"), ("c", 0.0, "0 s")])
    assert "a&lt;b" in chart
    lines = plots.lines([("p", [(0, 0.2), (4, 2.0)])], "x", "y", (0, 1), [0, 4], [0, 1])
    ys = [float(v) for pair in re.findall(r'points="([^"]+)"', lines) for v in re.findall(r",([\d.]+)", pair)]
    assert min(ys) >= 0 and max(ys) <= 260


def test_page_of_a_city_without_truth(tmp_path: Path) -> None:
    run = fake_city.make_real_run(tmp_path, with_reference=False)
    run = Run(
        run.folder, run.config.model_copy(update={"report": run.config.report.model_copy(update={"width_px": 320})})
    )
    evaluate.run(run)
    job.run(run)
    html = (run.folder / "report.html").read_text()
    assert "There are no reference heights to compare with." in html
    assert "there is no true mesh" in html


def test_pointing_is_told_pair_by_pair(tmp_path: Path) -> None:
    from cityweave.report.pointing import add_section

    pair = {"views": ["a", "b"], "tried": 900, "found": 700, "ties": 637, "windows": 6, "apart_px": -2.167}
    pair |= {"before_px": 2.167, "after_px": 0.085, "spread_px": 0.13}
    pair |= {"reprojection_before_px": 1.083, "reprojection_after_px": 0.063}
    views = {"a": {"ties": 637, "du_px": 1.058, "dv_px": 0.269}, "<b>": {"ties": 0, "left_out": "clouds"}}
    told = {"applied": True, "pairs": [pair], "views": views, "warnings": ["view <b> is left out: clouds"]}
    run = Run(tmp_path, None)  # type: ignore[arg-type]
    (tmp_path / "city").mkdir()
    for notes, words in (({"pointing": told}, ["637 of 900", "2.17", "0.09", "+1.058", "left out"]), ({}, [])):
        write_json(run.manifest_path("survey"), {"notes": notes})
        out = page.Page("", "", "")
        add_section(out, run)
        html = out.html()
        assert all(word in html for word in words) and ("Pointing" in html) == bool(notes)
        assert "<b>" not in html.split("<main>")[1]


def test_a_map_says_when_texels_were_seen(run: Run) -> None:
    stage = scenes.Stage.of(run)
    assert stage is not None
    number, dates = scenes.plan_dates(stage, 64)
    assert dates == ["2024-05-01", "2025-06-18"]
    plan = scenes.plan_view(stage, 64)
    columns = np.array([tile.i % 2 for tile in stage.tiles] + [255])[plan.tile]
    seen = (plan.tile != scenes.NO_TILE) & (plan.provenance == 4)
    assert seen.any() and (number[seen] == columns[seen]).all()
    assert (number[(plan.provenance == 254) | (plan.tile == scenes.NO_TILE)] == 255).all()
    colours = maps.dates_picture(number, dates)
    assert (colours[number == 255] == UNKNOWN_RGB).all()
    assert len(np.unique(colours[number < 2], axis=0)) == 2
    assert "When the view was taken that a texel owes most to" in (run.folder / "report.html").read_text()
