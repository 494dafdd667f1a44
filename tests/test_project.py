"""The project's own files agree with each other."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent


def test_environment_names_the_versions_of_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = set(project["project"]["dependencies"])
    dev = set(project["dependency-groups"]["dev"])
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = next(entry for entry in environment if isinstance(entry, dict))["pip"]
    conda = {entry for entry in environment if isinstance(entry, str)} - {"pip"}
    assert conda == wanted | {"python" + project["project"]["requires-python"]}
    assert set(pip) <= dev


def test_lock_pins_every_dependency_by_hash_and_names_no_index():
    lock = (ROOT / "requirements.lock").read_text()
    pins = dict(re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", lock, re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for entry in project["project"]["dependencies"] + project["dependency-groups"]["dev"]:
        assert re.split(r"[<>=]", entry)[0] in pins
    assert lock.count("--hash=sha256:") >= len(pins)
    assert "://" not in lock
    assert "--index" not in lock
