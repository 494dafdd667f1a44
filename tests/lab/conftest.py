"""The lab as a fixture: booted once for all tests, ended only when it was not up before."""

import pytest

from kit.lab import guests


@pytest.fixture(scope="session")
def siw_lab():
    was_up = guests.is_up("siw")
    lab = guests.up("siw")
    yield lab
    if not was_up:
        guests.down("siw")
