"""What the report says, section by section. A figure that isn't known is shown as a dash, with its reason below."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cityweave.io.textures import GENERATED
from cityweave.manifest import Manifest, Run
from cityweave.mesh import SURFACE
from cityweave.plan import city_cells
from cityweave.render.city import tile_levels
from cityweave.report import maps, page, plots, pointing, scenes
from cityweave.report.colours import ABOVE, COUNT, ERROR, GENERATED_RGB, INFERRED_RGB, UNKNOWN_RGB, css_gradient
from cityweave.report.facts import (
    error_by_border_distance,
    read_json,
    stage_costs,
    tile_rows,
    versions,
)
from cityweave.report.page import Page, measured, number, share

THRESHOLDS = ("0.5", "1", "2", "3.6")
_MAX_TILE_ROWS = 200
_STAGE_COLUMNS = ("ingest", "dsm", "fit", "mesh", "texture")


class Material:
    """What the sections read, opened once."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.metrics = read_json(run.folder / "metrics.json")
        self.pictures: Path = Manifest.read(run.manifest_path("evaluate")).product("pictures")
        with np.load(self.pictures / "maps.npz", allow_pickle=False) as data:
            self.step = int(data["step"])
            self.truth, self.error, self.source = data["truth"], data["error"], data["source"]
        self.dsm = maps.read_thinned(run.folder / "city_dsm.tif", self.step)
        self.dtm = maps.read_thinned(run.folder / "city_dtm.tif", self.step)
        self.cell_m = run.config.dsm.gsd_m * self.step
        self.stage = scenes.Stage.of(run)
        self.rows = tile_rows(run)

    def borders_px(self) -> tuple[list[float], list[float]]:
        """Columns and rows of the thinned maps where tiles meet."""
        grid = city_cells(self.run.config)
        cores = [row.tile.core for row in self.rows]
        xs = sorted({core.xmin for core in cores} - {grid.box.xmin})
        ys = sorted({core.ymin for core in cores} - {grid.box.ymin})
        return [(x - grid.box.xmin) / self.cell_m for x in xs], [(grid.box.ymax - y) / self.cell_m for y in ys]

    def bordered(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return maps.with_borders(picture, *self.borders_px())


def build_page(run: Run) -> str:
    material = Material(run)
    city, tiles = run.config.city, material.metrics["tiles"]
    box = city.box
    vertical = (
        "heights above the ellipsoid" if city.vertical == "ellipsoid" else f"heights in EPSG:{city.vertical.epsg}"
    )
    done = f"{tiles['done']} of {tiles['expected']} tiles"
    subtitle = f"{done} · {box.width:,.0f} × {box.height:,.0f} m · {escape(city.crs)}, {vertical}"
    out = Page("cityweave", city.name, subtitle)
    _overview(out, material)
    _heights(out, material)
    _mesh(out, material)
    _texture(out, material)
    _borders(out, material)
    pointing.add_section(out, run)
    _tiles(out, material)
    _cost(out, material)
    _about(out, material)
    return out.html()


def _overview(out: Page, m: Material) -> None:
    width = m.run.config.report.width_px
    if m.stage is not None:
        picture = scenes.textured_picture(m.stage, width, width * 9 // 16)
        out.add(page.figure(page.embedded(picture, 86), "", "The textured city from the air", kind="hero"))
    dsm, mesh, texture, cost = (m.metrics[key] for key in ("dsm", "mesh", "texture", "cost"))
    f1 = (mesh["f1"] or {}).get("1")
    closed = mesh["boundary_edges"] == 0 and mesh["nonmanifold_edges"] == 0
    cards = [
        page.card(number(dsm["mae_m"]), "m", "mean height error (DSM)"),
        page.card(share(dsm["completeness"]), "%", "measured and within 1 m"),
        page.card(number(f1), "", "mesh F1 at 1 m"),
        page.card(number(texture["psnr"]), "dB", f"PSNR on unseen views, SSIM {number(texture['ssim'])}"),
        page.card(number(mesh["triangles"]), "", "triangles, " + ("watertight" if closed else "not closed")),
        page.card(number(cost["wall_s"]), "s", "all jobs, one after the other"),
    ]
    out.add(f'<div class="cards">{"".join(cards)}</div>')
    troubled = [row for row in m.rows if row.status != "done"]
    if troubled:
        names = "; ".join(f"{row.tile.name}: {escape(row.reason or row.status)}" for row in troubled[:20])
        out.add(f'<div class="notice"><b>{len(troubled)} tiles are not in the city.</b> {names}</div>')


def _heights(out: Page, m: Material) -> None:
    out.section(
        "Height model",
        "Colour is the height above the ground, light the relief of the surface. "
        "Errors compare every cell with the true height.",
    )
    above = m.dsm - m.dtm
    top_m = float(np.ceil(max(10.0, np.nanpercentile(above, 99.9) if np.isfinite(above).any() else 10.0) / 5) * 5)
    heights = page.legend(css_gradient(ABOVE), "0 m", f"{top_m:g} m above the ground")
    ours = m.bordered(maps.height_picture(m.dsm, m.dtm, m.cell_m, top_m))
    first = page.figure(page.embedded(ours), "Our height model, with the borders of the tiles", "DSM", heights)
    if not np.isfinite(m.truth).any():
        out.grid("two", first, "<p>There are no reference heights to compare with.</p>")
    else:
        true = maps.height_picture(m.truth, m.dtm, m.cell_m, top_m)
        unknown = (f"rgb{UNKNOWN_RGB}", "not known")
        scale = f"{maps.ERROR_RANGE_M:g} m"
        colours = page.legend(css_gradient(ERROR), f"−{scale}", f"+{scale}", unknown)
        out.grid(
            "three",
            first,
            page.figure(page.embedded(true), "The truth, in the same colours", "True heights", heights),
            page.figure(
                page.embedded(maps.error_picture(m.error)), "Error: blue too low, red too high", "Error map", colours
            ),
        )
    d = m.metrics["dsm"]
    head = ("", "MAE", "RMSE", "median", "NMAD", "within 1 m", "measured", "complete", "predicted", "on buildings")
    lengths = [measured(number(d[key]), "m") for key in ("mae_m", "rmse_m", "median_m", "nmad_m")]
    shares = [
        measured(share(d[key]), "%") for key in ("within_1m", "measured_share", "completeness", "predicted_share")
    ]
    out.add(page.table(head, [["DSM", *lengths, *shares, measured(number(d["building_mae_m"]), "m")]]))


def _mesh(out: Page, m: Material) -> None:
    out.section("Mesh", "The geometry alone, under sun and sky, and how close its surface is to the true one.")
    width = m.run.config.report.width_px
    if m.stage is not None:
        picture = scenes.clay_picture(m.stage, width, width * 9 // 16)
        out.grid("one", page.figure(page.embedded(picture), "The mesh without its texture", "Untextured mesh"))
    mesh = m.metrics["mesh"]
    if not mesh["f1"]:
        out.add(f"<p>{escape(m.metrics['reasons'].get('mesh.f1', ''))}</p>")
        return
    names = [("all", mesh), *((name, mesh["by_class"][name]) for name in ("roof", "ground", "facade"))]
    series = []
    for name, part in names:
        points = [(float(key), part["f1"][key]) for key in THRESHOLDS if part["f1"][key] is not None]
        series.append((name, points))
    lowest = min((y for _, points in series for _, y in points), default=0.0)
    low = min(float(np.floor(lowest * 5) / 5), 0.8)
    ticks = [round(low + k * (1 - low) / 4, 3) for k in range(5)]
    chart = plots.lines(series, "distance, m", "F1", (low, 1), [0.5, 1, 2, 3.6], ticks)
    rows = [
        [name, *(f"{number(part[kind][key])}" for kind in ("precision", "recall") for key in ("0.5", "1", "2"))]
        for name, part in names
    ]
    head = ("", "P 0.5 m", "P 1 m", "P 2 m", "R 0.5 m", "R 1 m", "R 2 m")
    edges = {
        "chamfer distance": measured(number(mesh["chamfer_m"]), "m"),
        "open edges": number(mesh["boundary_edges"]),
        "crowded edges (three or more triangles)": number(mesh["nonmanifold_edges"]),
        "walls within 5° of vertical": measured(share(mesh["vertical_wall_share"]), "%"),
        "stair steps": f"{share(mesh['riser_share'])} % of the surface",
    }
    out.grid("two", chart, page.table(head, rows) + page.facts(edges))


def _texture(out: Page, m: Material) -> None:
    t = m.metrics["texture"]
    out.section("Texture", "Views that no stage has seen: what is really there on the left, our city on the right.")
    views = sorted(m.pictures.glob("*.jpg"))
    out.grid(
        "two",
        *(page.figure(page.embedded_file(path), f"{escape(path.stem)}: truth and ours", path.stem) for path in views),
    )
    out.add(
        page.table(
            (
                "",
                "PSNR",
                "SSIM",
                "ST-LPIPS",
                "sharpness, and that of the truth",
                "pixels in the core",
                "of them observed",
                "colour step at borders",
            ),
            [
                [
                    "unseen views",
                    measured(number(t["psnr"]), "dB"),
                    number(t["ssim"]),
                    number(t["st_lpips"]),
                    f"{number(t['sharpness'])}, {number(t['true_sharpness'])}",
                    measured(share(t["scored_share"]), "%"),
                    measured(share(t["observed_share"]), "%"),
                    measured(number(t["seam_step"]), "×"),
                ],
                *_street_row(t),
            ],
        )
    )
    if m.stage is None:
        return
    plan = scenes.plan_view(m.stage, maps.MAX_SIDE_PX)
    drawn = plan.tile != scenes.NO_TILE
    chips = [(f"rgb{INFERRED_RGB}", "inferred"), (f"rgb{UNKNOWN_RGB}", "no texture")]
    if (plan.provenance[drawn] == GENERATED).any():
        chips.insert(1, (f"rgb{GENERATED_RGB}", "generated"))
    provenance = maps.provenance_picture(plan.provenance, drawn)
    colours = page.legend(css_gradient(COUNT), "1 view", f"{maps.MAX_VIEWS} views and more", *chips)
    out.grid(
        "two",
        page.figure(page.embedded(plan.rgb), "The textured city straight from above", "Plan view"),
        page.figure(page.embedded(provenance), "How many views each texel comes from", "Provenance", colours),
    )
    number_of, dates = scenes.plan_dates(m.stage, maps.MAX_SIDE_PX)
    if len(dates) > 1:
        when = page.legend(css_gradient(COUNT), dates[0], dates[-1], (f"rgb{UNKNOWN_RGB}", "no satellite saw it"))
        picture = page.embedded(maps.dates_picture(number_of, dates))
        out.grid("two", page.figure(picture, "When the view was taken that a texel owes most to", "Dates", when))


def _street_row(t: dict[str, Any]) -> list[list[str]]:
    if t["street_psnr"] is None:
        return []
    return [
        [
            "from the street",
            measured(number(t["street_psnr"]), "dB"),
            number(t["street_ssim"]),
            number(t["street_st_lpips"]),
            f"{number(t['street_sharpness'])}, {number(t['street_true_sharpness'])}",
            "",
            measured(share(t["street_observed_share"]), "%"),
            "",
        ]
    ]


def _borders(out: Page, m: Material) -> None:
    d, reasons = m.metrics["dsm"], m.metrics["reasons"]
    out.section("Borders of the tiles", "A city cut into tiles should not show where it was cut.")
    line = error_by_border_distance(m.run, m.error, m.step)
    chart = ""
    if len(line) > 2:
        highest = float(np.ceil(max(y for _, y in line) * 4) / 4) or 0.25
        ticks = [k * highest / 4 for k in range(5)]
        spacing = 2.0 ** np.floor(np.log2(max(x for x, _ in line) / 3))
        x_ticks = [float(x) for x in np.arange(0, max(x for x, _ in line), spacing)]
        chart = plots.lines(
            [("", line)], "metres from a border between tiles", "mean error, m", (0, highest), x_ticks, ticks
        )
    if d["border_ratio"] is None:
        ratio = f"not measured: {reasons.get('dsm.border_ratio', '')}"
    else:
        low, high = d["border_ratio_interval"]
        ratio = f"{number(d['border_ratio'], 4)} (95 % interval {number(low, 4)} to {number(high, 4)})"
    text = page.facts(
        {
            "error beside borders over the same cells inside a tile": ratio,
            "colour step across borders over steps beside them": number(m.metrics["texture"]["seam_step"]),
            "open edges of the closed city": number(m.metrics["mesh"]["boundary_edges"]),
        }
    )
    out.grid("two", chart, text)


def _tiles(out: Page, m: Material) -> None:
    out.section("Tiles")
    shown = [row for row in m.rows if row.status != "done"]
    shown += [row for row in m.rows if row.status == "done"][: max(0, _MAX_TILE_ROWS - len(shown))]
    order = {row.tile: k for k, row in enumerate(m.rows)}
    rows = []
    for row in sorted(shown, key=lambda row: order[row.tile]):
        triangles = "–"
        if row.status == "done":
            mesh = tile_levels(m.run, row.tile)[0]
            triangles = number(int((mesh.part == SURFACE).sum()))
        seconds = [f"{row.work_s[s]:.1f}" if row.work_s.get(s) else "–" for s in _STAGE_COLUMNS]
        status = f'<span class="{row.status}">{row.status}</span>'
        if row.reason:
            status += f" – {escape(row.reason)}"
        rows.append([row.tile.name, status, triangles, *seconds, f"{row.peak_rss_mb:.0f}"])
    head = ("tile", "status", "triangles", *(f"{name}, s" for name in _STAGE_COLUMNS), "peak MB")
    out.add(page.table(head, rows, text_columns=(1,)))
    if len(shown) < len(m.rows):
        out.add(f"<p>{len(m.rows) - len(shown)} more tiles are done; cityweave status lists them all.</p>")


def _cost(out: Page, m: Material) -> None:
    costs, _ = stage_costs(m.run)
    c = m.metrics["cost"]
    out.section("Cost", "Seconds of work per stage, start-up of the jobs left out.")
    bars = plots.bars([(name, cost.work_s, f"{cost.work_s:.1f} s") for name, cost in costs.items()])
    rows = [
        [name, number(cost.jobs), f"{cost.work_s:.1f}", f"{cost.cpu_s:.1f}", f"{cost.peak_rss_mb:.0f}"]
        for name, cost in costs.items()
    ]
    text = page.facts(
        {
            "all jobs one after the other": measured(number(c["wall_s"]), "s"),
            "per square kilometre": measured(number(c["per_km2_s"]), "s"),
            "start-up and waiting": measured(share(c["overhead_share"]), "%"),
            "largest memory of a job": measured(number(c["peak_rss_mb"], 4), "MB"),
        }
    )
    out.grid("two", bars + text, page.table(("stage", "jobs", "work, s", "CPU, s", "peak MB"), rows))


def _about(out: Page, m: Material) -> None:
    out.section("How it was made")
    costs, places = stage_costs(m.run)
    mixed = [name for name, cost in costs.items() if len(cost.code) > 1]
    if mixed:
        out.add(f'<div class="notice">Different versions of the code made parts of: {escape(", ".join(mixed))}.</div>')
    config = m.run.config
    values: dict[str, Any] = {
        "tiles": f"{config.tiles.size_m} m"
        + (f", shifted by {config.tiles.shift_m} m" if config.tiles.shift_m else ""),
        "height cells": f"{config.dsm.gsd_m:g} m",
        "lattice": f"{config.geometry.pitch_m:g} m",
        "seed": config.seed,
        "source": "synthetic city" if config.synth is not None else f"{len(config.sources.views)} satellite views",
    }
    where = {"machine": ", ".join(places["machine"]), "Python": ", ".join(places["python"]), **versions()}
    out.grid("two", page.facts(values), page.facts(where))
    reasons: dict[str, str] = m.metrics["reasons"]
    if reasons:
        out.add("<h3>Figures that are not known, and why</h3>", page.facts(reasons))
    resolved = json.dumps(config.model_dump(mode="json", exclude_defaults=True), indent=1)
    out.add(f"<details><summary>Configuration</summary><pre>{escape(resolved)}</pre></details>")
    figures = json.dumps(m.metrics, indent=1)
    out.add(f"<details><summary>All figures (metrics.json)</summary><pre>{escape(figures)}</pre></details>")
