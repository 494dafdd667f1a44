"""The lab as a fixture: booted once for all tests, ended only when it was not up before."""

import pytest

from kit.lab import guests


@pytest.fixture(scope="session")
def _leave_as_found():
    was_up = guests.is_up("siw")
    yield
    if not was_up:
        guests.down("siw")


@pytest.fixture
def siw_lab(_leave_as_found):
    """The lab as it is now: a test may have killed a guest, and ports are new after a boot."""
    return guests.up("siw")
