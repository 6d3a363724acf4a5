"""Every error a user can meet. The class decides the exit code, the message says what would be accepted."""

from __future__ import annotations

import sys


class CityweaveError(Exception):
    """A failure with a known cause. Anything else that escapes is a defect of the program (exit 1)."""

    exit_code = 1


class ConfigError(CityweaveError):
    """The configuration asks for something that can't be."""

    exit_code = 2


class DataError(CityweaveError):
    """An input can't be used, or a product that should be there isn't."""

    exit_code = 3


class MissingCapability(CityweaveError):  # noqa: N818 - says what it is
    """This machine lacks a grid, weights, a GPU or a program that the configuration needs."""

    exit_code = 4


class Quarantine(Exception):  # noqa: N818 - a verdict on data, not an error of the program
    """One tile can't be used. The job records the reason and the rest of the city goes on."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def say(error: CityweaveError) -> int:
    """For the person who ran the command; returns the exit code."""
    print(f"cityweave: {type(error).__name__}: {error}", file=sys.stderr)
    return error.exit_code
