"""What the lab is built from, as far as it can be told without building it."""

import shutil
from pathlib import Path

import pytest

from kit.errors import LabError
from kit.lab import image, packages

DEPENDS = "linux-image-amd64\n  Depends: linux-image-6.12.9-amd64\n"


@pytest.fixture
def apt(tmp_path, monkeypatch):
    """apt with the given answers: ("show", "name") -> text."""
    made = packages.Apt(tmp_path)
    answers = {}
    monkeypatch.setattr(made, "_cache", lambda *args: answers.get(args, ""))
    return made, answers


@pytest.mark.parametrize(("tool", "package"), [
    ("xz", "xz-utils"), ("ssh-keygen", "openssh-client"), ("strip", "binutils")])
def test_missing_tool_is_named_with_its_remedy(monkeypatch, tool, package):
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None if name == tool else f"/usr/bin/{name}")
    with pytest.raises(LabError, match=package) as raised:
        packages.check_host()
    assert package in raised.value.remedy


def test_machine_without_apt(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None)
    with pytest.raises(LabError, match="apt-get") as raised:
        packages.check_host()
    assert "Debian" in raised.value.remedy


def test_kernel_release_is_taken_from_what_apt_resolves(apt):
    made, answers = apt
    answers["depends", "linux-image-amd64"] = DEPENDS
    assert made.kernel() == packages.Kernel("6.12.9-amd64", ("linux-image-6.12.9-amd64",))


def test_no_kernel_package(apt):
    with pytest.raises(LabError, match="no kernel package") as raised:
        apt[0].kernel()
    assert "linux-image-amd64" in raised.value.remedy


@pytest.mark.parametrize("source", ["Version: 6.12.8-1\n", ""])
def test_source_of_another_version_is_refused(apt, source):
    made, answers = apt
    answers["show", "linux-image-6.12.9-amd64"] = "Version: 6.12.9-1\n"
    answers["show", "linux-source-6.12"] = source
    with pytest.raises(LabError, match=r"linux-source-6\.12"):
        made.build_packages(packages.Kernel("6.12.9-amd64", ("linux-image-6.12.9-amd64",)))


def test_key_follows_versions_and_sources(monkeypatch):
    old, new = ([Path(f"perftest_{version}_amd64.deb"), Path("bash_5.2_amd64.deb")] for version in ("4.5", "4.6"))
    assert image.image_key(old) == image.image_key(old[::-1])
    assert image.image_key(old) != image.image_key(new)
    before = image.image_key(old)
    monkeypatch.setattr(image, "_sources_hash", lambda: "other")
    assert image.image_key(old) != before


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("KIT_CACHE", str(tmp_path / "own"))
    assert image.cache() == tmp_path / "own"
    monkeypatch.delenv("KIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert image.cache() == tmp_path / "erdma-kit"
