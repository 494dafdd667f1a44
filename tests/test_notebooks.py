"""The stored outputs are really checked: one changed digit fails. And the notebooks keep their conventions."""

import json
import os
import re
import shutil
import statistics
import subprocess
import sys

import nbformat
import pytest

from kit.paths import root
from kit.record import reference_of
from kit.runner import all_parameters, read_experiment
from kit.sites import read_site

NOTEBOOKS = sorted((root() / "notebooks").glob("*.ipynb"))


def nbval(notebook):
    return subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbval",
                           "--nbval-current-env", str(notebook)], capture_output=True, text=True, timeout=120,
                          cwd=notebook.parent, env={**os.environ, "KIT_ROOT": str(root())})


def test_one_changed_digit_fails(tmp_path):
    copy = tmp_path / "02_device_info.ipynb"
    shutil.copy(root() / "notebooks" / copy.name, copy)
    assert nbval(copy).returncode == 0
    text = copy.read_text()
    changed = re.sub(r"(interface MTU\s+)9(000)", r"\g<1>8\2", text, count=1)
    assert changed != text
    copy.write_text(changed)
    done = nbval(copy)
    assert done.returncode == 1
    assert "Cell outputs differ" in done.stdout


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_conventions(path):
    book = nbformat.read(path, as_version=4)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert 13 <= len(book.cells) <= 40
    assert statistics.median(cell.source.count("\n") + 1 for cell in code) <= 5
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in code) == 1
    assert all(cell.execution_count for cell in code), "executed, so that every output is checked"
    assert "def " not in "".join(cell.source for cell in code)
    first = book.cells[0].source
    assert all(word in first for word in ("**Question:**", "changes on the nodes", "takes", "undo"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_parameters_are_explained(path):
    cell = next(cell for cell in json.loads(path.read_text())["cells"] if "parameters" in
                cell["metadata"].get("tags", []))
    for line in "".join(cell["source"]).splitlines():
        assert "  # " in line


@pytest.mark.parametrize("name", ["04_transfer_engine", "06_serve_bench"])
def test_parameters_are_those_of_the_recorded_experiment(name):
    stage = next(stage for stage in read_experiment("lab-pd").stages if stage.stage == name)
    cell = next(cell for cell in nbformat.read(root() / f"notebooks/{name}.ipynb", as_version=4).cells
                if "parameters" in cell.metadata.get("tags", []))
    given = {}
    exec(cell.source, given)  # noqa: S102 - literals, ours
    wanted = all_parameters(stage)
    assert {key: given[key] for key in wanted} == wanted
    assert read_site(given["site"]).replay == f"results/reference/{reference_of(stage)}/recording"


def test_make_lab_runs_what_is_recorded():
    lab, recorded = ({stage.stage: stage.params for stage in read_experiment(name).stages}
                     for name in ("lab", "lab-pd"))
    for name in ("04_transfer_engine", "06_serve_bench"):
        assert lab[name] == recorded[name]
