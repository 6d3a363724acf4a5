"""`cityweave bench ...`: parse and call, no more."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cityweave.bench.suite import BenchRun, Suite
    from cityweave.manifest import Run


def add_bench(commands: argparse._SubParsersAction) -> None:  # type: ignore[type-arg]
    bench = commands.add_parser("bench", help="records of benchmark runs: compare, verify, publish, tables, docs")
    actions = bench.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, call in (("measure", _measure), ("record", _record)):
        job = actions.add_parser(name, help="job of the workflow")
        job.add_argument("name", metavar="VARIANT-sSEED")
        job.add_argument("--suite", required=True, metavar="FILE")
        job.add_argument("--run", type=Path, metavar="FOLDER", help="default: where the suite has it")
        job.add_argument("--output", type=Path, required=True)
        job.set_defaults(call=call)
    tables = actions.add_parser("tables", help="Markdown, CSV and plots from records")
    tables.add_argument("records", type=Path, nargs="+")
    tables.add_argument("--output", type=Path, required=True, help="the Markdown file; the others lie beside it")
    tables.set_defaults(call=_tables)
    compare = actions.add_parser("compare", help="what changed between two sets of records; 1 when something is worse")
    for side, text in (("before", "what was"), ("after", "what is")):
        compare.add_argument(side, help=f"{text}: a record, a folder of them, or FOLDER:VARIANT")
    compare.set_defaults(call=_compare)
    verify = actions.add_parser("verify", help="are the figures those of the committed records? 1 when not")
    verify.add_argument("records", type=Path, nargs="+")
    verify.add_argument("--against", type=Path, required=True, metavar="FOLDER", help="such as bench/records/synthetic")
    verify.set_defaults(call=_verify)
    publish = actions.add_parser("publish", help="copy records to bench/records; none when one is no reference")
    publish.add_argument("records", type=Path, nargs="+")
    publish.add_argument("--to", type=Path, default=Path("bench/records"), metavar="FOLDER")
    publish.set_defaults(call=_publish)
    docs = actions.add_parser("docs", help="docs/benchmarks.md and its plots, from bench/records")
    docs.add_argument("--records", type=Path, default=Path("bench/records"), metavar="FOLDER")
    docs.add_argument("--output", type=Path, default=Path("docs/benchmarks.md"), metavar="FILE")
    docs.set_defaults(call=_docs)


def _opened(arguments: argparse.Namespace) -> tuple[Suite, BenchRun, Run]:
    from cityweave.bench.suite import read_suite
    from cityweave.errors import ConfigError
    from cityweave.manifest import Run

    suite = read_suite(arguments.suite, Path("config/bench"))
    named = {run.name: run for run in suite.runs}
    if arguments.name not in named:
        raise ConfigError(f"{arguments.name} is not in suite {suite.name}; accepted: {', '.join(named)}")
    run = named[arguments.name]
    return suite, run, Run.open(arguments.run or run.folder)


def _measure(arguments: argparse.Namespace) -> None:
    from cityweave.bench.timing import measure
    from cityweave.manifest import write_json

    write_json(arguments.output, measure(*_opened(arguments)))


def _record(arguments: argparse.Namespace) -> None:
    from cityweave.bench.record import make_record
    from cityweave.bench.source import source_state
    from cityweave.manifest import write_json

    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.output, make_record(*_opened(arguments), source_state()))


def _compare(arguments: argparse.Namespace) -> int:
    from cityweave.bench.compare import compare
    from cityweave.bench.record import read_selected

    comparisons = compare(read_selected(arguments.before), read_selected(arguments.after))
    print("\n".join(comparison.as_text() for comparison in comparisons))
    return int(any(comparison.worse for comparison in comparisons))


def _verify(arguments: argparse.Namespace) -> int:
    from cityweave.bench.compare import verify
    from cityweave.bench.record import read_records

    verified, unequal = verify(read_records(arguments.records), read_records([arguments.against]))
    print("\n".join([*verified, *unequal]))
    return int(bool(unequal))


def _publish(arguments: argparse.Namespace) -> None:
    from cityweave.bench.record import publish, read_records

    for file in publish(read_records(arguments.records), arguments.to):
        print(file)


def _docs(arguments: argparse.Namespace) -> None:
    from cityweave.bench.docs import write_docs

    print(write_docs(arguments.records, arguments.output))


def _tables(arguments: argparse.Namespace) -> None:
    from cityweave.bench.record import read_records
    from cityweave.bench.tables import write_tables

    print(write_tables(read_records(arguments.records), arguments.output))
