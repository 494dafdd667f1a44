"""A lab of the tests' own: what was built is the cache's, the run folder and the servers are not."""

import pytest

from kit.lab.image import cache
from kit.lab.pd import lab
from kit.lab.pd.environments import NAMES, environment


@pytest.fixture
def own_lab(tmp_path, monkeypatch):
    """A deep cache of its own with no lab up, holding the real environments; they are built when they are not yet."""
    real = cache() / "lab" / "pd"
    for name in NAMES:
        environment(name)
    own = tmp_path / ("deep" * 20) / "cache"
    (own / "lab/pd").mkdir(parents=True)
    for folder in real.iterdir():
        if folder.name.partition("-")[0] in {*NAMES, "debian"}:
            (own / "lab/pd" / folder.name).symlink_to(folder)
    monkeypatch.setenv("KIT_CACHE", str(own))
    yield own
    lab.down()
