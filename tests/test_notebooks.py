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
