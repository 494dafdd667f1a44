"""Nothing that does not match its checksum is ever used: every artifact is tampered with, for real, over http."""

import hashlib

import pytest
from cases import wanted_from
from mirror import mirror

from kit.errors import CommandError
from kit.hosts.local import LocalHost
from kit.prepare.item import Refusal, fetch
from kit.prepare.record import record
from kit.prepare.site import read_artifacts

ARTIFACTS = read_artifacts().artifacts
GOOD = b"an installer\n" * 100


def served(name, content, **how):
    path = ARTIFACTS[name].url.removeprefix("{mirror}")
    return mirror({path: content}, **{key: [path] for key in how})


def wanted_at(url, name, content=GOOD):
    """As if the good content were the published one; a real artifact cannot be had here."""
    wanted = wanted_from({"mirror": url}, recorded=True)
    wanted.artifacts.artifacts[name] = wanted.artifacts.artifacts[name].model_copy(
        update={"sha256": hashlib.sha256(content).hexdigest()})
    return wanted


@pytest.fixture
def host():
    return LocalHost("a", run_id="kit-test-fetch")


@pytest.mark.parametrize("name", sorted(ARTIFACTS))
def test_a_tampered_artifact_is_not_used(name, host, tmp_path):
    target = tmp_path / "there" / "file"
    with served(name, GOOD[:-1] + b"!") as url:
        step = fetch(wanted_at(url, name), name, str(target))
        with pytest.raises(CommandError, match="exit code 65") as caught:
            host.run(step.command, check=True)
    assert "checksum mismatch" in str(caught.value)
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("name", sorted(name for name, it in ARTIFACTS.items() if it.sha256))
def test_the_recorded_sum_is_the_one_that_counts(name, host, tmp_path):
    with served(name, GOOD) as url:
        step = fetch(wanted_from({"mirror": url}, recorded=False), name, str(tmp_path / "file"))
        assert host.run(step.command).exit_code == 65


@pytest.mark.parametrize("name", sorted(name for name, it in ARTIFACTS.items() if not it.sha256))
def test_without_a_sum_it_is_not_even_fetched(name):
    refused = fetch(wanted_from({}, recorded=False), name, "/tmp/file")
    assert isinstance(refused, Refusal)
    assert f"kit artifacts record {name}" in refused.remedy


def test_a_good_one_is_fetched_once(host, tmp_path):
    target = tmp_path / "file"
    with served("env_setup.sh", GOOD) as url:
        step = fetch(wanted_at(url, "env_setup.sh"), "env_setup.sh", str(target))
        host.run(step.command, check=True)
    assert target.read_bytes() == GOOD
    host.run(step.command, check=True)      # the mirror is gone, and nobody asks it


def test_a_half_written_one_is_fetched_again(host, tmp_path):
    target = tmp_path / "file"
    target.write_bytes(GOOD[:50])
    with served("env_setup.sh", GOOD) as url:
        host.run(fetch(wanted_at(url, "env_setup.sh"), "env_setup.sh", str(target)).command, check=True)
    assert target.read_bytes() == GOOD


def test_a_mirror_that_dies_leaves_nothing(host, tmp_path):
    with served("env_setup.sh", GOOD, broken=True) as url:
        step = fetch(wanted_at(url, "env_setup.sh"), "env_setup.sh", str(tmp_path / "file"))
        with pytest.raises(CommandError):
            host.run(step.command, check=True)
    assert list(tmp_path.iterdir()) == []


def test_record_prints_the_sum_and_a_warning_where_it_differs():
    with served("erdma_installer-1.5.7", GOOD) as url:
        lines = record("erdma_installer-1.5.7", url)
    assert f"    sha256: {hashlib.sha256(GOOD).hexdigest()}" in lines
    assert lines[-1].startswith("# DIFFERENT from the recorded cb44f4c4")
