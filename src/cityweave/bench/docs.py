"""docs/benchmarks.md and its plots, from the committed records alone."""

from __future__ import annotations

from pathlib import Path

from cityweave.bench.gpu_tables import gpu_markdown
from cityweave.bench.record import read_records
from cityweave.bench.tables import as_markdown, plots

_HEAD = """# Benchmarks

Made by `cityweave bench docs` from the records under `bench/records/`, each with its configuration, commit, versions,
machine, checksums and costs, and from tables beside them that scripts in `bench/` print. [reproduce.md](reproduce.md)
says how to make every table again. Don't edit this page."""


def docs_files(records: Path, page: Path) -> dict[Path, str]:
    """Every file of the documentation with what it holds."""
    files: dict[Path, str] = {}
    parts = [_HEAD]
    plots_folder = page.parent / page.stem
    for entry in sorted(records.iterdir()):
        if entry.suffix == ".md":
            parts.append(entry.read_text(encoding="utf-8").strip())
        elif entry.name == "gpu":
            parts.append(gpu_markdown(entry))
        elif entry.is_dir():
            suite = read_records([entry])
            parts.append(f"## {entry.name}\n\n{as_markdown(suite, f'{page.stem}/').strip()}")
            files |= {plots_folder / name: text for name, text in plots(suite).items()}
    files[page] = "\n\n".join(parts) + "\n"
    return files


def write_docs(records: Path, page: Path) -> str:
    files = docs_files(records, page)
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return f"{page} and {len(files) - 1} plots"
