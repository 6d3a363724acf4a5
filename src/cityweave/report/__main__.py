"""python -m cityweave.report --run results/demo --output picture.png: the picture that a README shows."""

from __future__ import annotations

import argparse
from pathlib import Path

from cityweave.manifest import Run
from cityweave.report.scenes import write_hero


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m cityweave.report", description="An aerial picture of the city.")
    parser.add_argument("--run", type=Path, required=True, metavar="FOLDER", help="such as results/demo")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="a .png or .jpg file")
    parser.add_argument("--size", type=int, nargs=2, default=(1600, 900), metavar=("WIDTH", "HEIGHT"))
    arguments = parser.parse_args()
    write_hero(Run.open(arguments.run), arguments.output, *arguments.size)


if __name__ == "__main__":
    main()
