"""Shared by all tests: nothing a test starts may survive it, nothing it sets may leak."""

import pytest
from hypothesis import settings

settings.register_profile("kit", deadline=None)     # a busy machine is no failure
settings.load_profile("kit")


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch):
    for name in ("KIT_RUN_ID", "KIT_RECORD", "KIT_ROOT"):
        monkeypatch.delenv(name, raising=False)
