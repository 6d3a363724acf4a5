"""How well the views' cameras agree, before and after their correction."""

from __future__ import annotations

from html import escape
from typing import Any

from cityweave.manifest import Manifest, Run
from cityweave.report import page
from cityweave.report.page import Page

_LEAD = (
    "Ties are places found in two views. What separates them across the epipolar line can't be height: it is the error "
    "of the cameras' pointing. Medians over the ties of a pair."
)


def add_section(out: Page, run: Run) -> None:
    found: dict[str, Any] | None = Manifest.read(run.manifest_path("survey")).notes.get("pointing")
    if found is None:
        return
    out.section("Pointing of the views", _LEAD)
    for warning in found["warnings"]:
        out.add(f'<div class="notice">{escape(warning)}</div>')
    if not found["applied"]:
        out.add("<p>The RPCs agree: none was corrected.</p>")
    rows = [
        [
            escape(" – ".join(pair["views"])), f"{pair['ties']} of {pair['tried']}", str(pair["windows"]),
            f"{pair['before_px']:.2f}", f"{pair['after_px']:.2f}", f"{pair['spread_px']:.2f}",
            f"{pair['reprojection_before_px']:.2f}", f"{pair['reprojection_after_px']:.2f}",
        ]
        for pair in found["pairs"]
    ]  # fmt: skip
    head = (
        *("pair", "ties of places tried", "windows", "across before, px", "after", "spread"),
        *("reprojection before, px", "after"),
    )
    out.add(page.table(head, rows))
    moved = [[escape(name), str(view["ties"]), *_moves(view)] for name, view in found["views"].items()]
    out.add(page.table(("view", "ties", "right, px", "down, px"), moved))


def _moves(view: dict[str, Any]) -> list[str]:
    if "left_out" in view:
        return ["left out", "left out"]
    return [f"{view[key]:+.3f}" if key in view else page.UNKNOWN for key in ("du_px", "dv_px")]
