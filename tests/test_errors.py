from __future__ import annotations

import pytest

from cityweave.errors import CityweaveError, ConfigError, DataError, MissingCapability, Quarantine


@pytest.mark.parametrize(("kind", "code"), [(ConfigError, 2), (DataError, 3), (MissingCapability, 4)])
def test_the_kind_of_error_is_the_exit_code(kind: type[CityweaveError], code: int) -> None:
    assert kind("why").exit_code == code
    assert issubclass(kind, CityweaveError)


def test_a_quarantine_is_no_error_of_the_program() -> None:
    assert not issubclass(Quarantine, CityweaveError)
    assert Quarantine("all nodata").reason == "all nodata"
