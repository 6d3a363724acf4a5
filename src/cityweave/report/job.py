"""The job: report.html, one file that shows the city, and run.json, which says how it was made."""

from __future__ import annotations

from cityweave.manifest import Manifest, Products, Run, run_job, write_json
from cityweave.report.facts import run_document
from cityweave.report.sections import build_page


def run(run: Run) -> Manifest:
    inputs = {name: run.manifest_path(name) for name in ("evaluate", "merge_city", "survey")}

    def work(products: Products) -> None:
        # Both hold times, so they are never the same twice and stay out of the manifest.
        write_json(run.folder / "run.json", run_document(run))
        html = build_page(run)
        aside = run.folder / ".report.html.tmp"
        aside.write_text(html, encoding="utf-8")
        aside.replace(run.folder / "report.html")

    return run_job(run, "report", work, inputs=inputs)
