"""`kit record`: run an experiment and keep what the nodes answered, for notebooks that are executed against replay."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from kit.errors import StoreError
from kit.files import write_atomic
from kit.params import Experiment, Stage
from kit.paths import root
from kit.runner import Labs, all_parameters, execute
from kit.store import Run

_KEPT = {"points.parquet", "requests.parquet", "samples", "verdict.json", "fingerprint.json", "run.lock.yaml",
         "recording"}
_NOTEBOOK_S = 600


def record(experiment: Experiment, say: Callable[[str], None]) -> list[Path]:
    """Run every stage anew with recording; a site's last run becomes ``results/reference/SITE``. The folders made.

    Raises StoreError, and keeps the old reference, where an outcome is not the expected one.
    """
    labs, made = Labs(say), []
    try:
        for name in dict.fromkeys(reference_of(stage) for stage in experiment.stages):
            stages = [stage for stage in experiment.stages if reference_of(stage) == name]
            site = stages[0].site
            labs.need(site)
            with tempfile.TemporaryDirectory(prefix="kit-record-") as scratch:
                folder = Path(scratch)
                os.environ["KIT_RECORD"] = str(folder / "recording")
                for stage in stages:
                    say(f"recording {stage.stage} on {site}")
                    execute(root() / "notebooks" / f"{stage.stage}.ipynb", folder,
                            {"site": site, "run_folder": str(folder), **all_parameters(stage)}, say)
                    if not Run(folder).verdict.get("expected"):
                        raise StoreError(f"{stage.stage} on {site}: {Run(folder).verdict.get('reason')}",
                                         remedy="nothing was replaced; record again")
                made.append(_keep(folder, root() / "results" / "reference" / name))
            labs.release(set())
    finally:
        os.environ.pop("KIT_RECORD", None)
        labs.release(set())
    return made


def reference_of(stage: Stage) -> str:
    """The folder under ``results/reference/``: a site's, where its last run is kept.

    The transfer engine has one of its own because a comparison reads its points beside those of the benchmark; a launch
    because it asks what a benchmark of the same stack asks too, and gets other answers.
    """
    return stage.site + {"04_transfer_engine": "-engine", "05_pd_launch": "-launch"}.get(stage.stage, "")


def refresh_notebooks(say: Callable[[str], None]) -> None:
    """Execute the notebooks in git with their own defaults, which replay a recording, and store their outputs."""
    for notebook in sorted((root() / "notebooks").glob("*.ipynb")):
        say(f"executing {notebook.name} against its recording")
        subprocess.run([sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "--inplace", str(notebook)],
                       check=True, timeout=_NOTEBOOK_S, capture_output=True)
        _strip(notebook)


def _strip(notebook: Path) -> None:
    """Drop what changes from one execution to the next and says nothing: widget state, times, the kernel's version."""
    import nbformat

    book = nbformat.read(notebook, as_version=4)  # type: ignore[no-untyped-call]
    book.metadata.pop("widgets", None)
    book.metadata["language_info"] = {"name": "python"}
    for cell in book.cells:
        cell.metadata.pop("execution", None)
    write_atomic(notebook, nbformat.writes(book) + "\n")  # type: ignore[no-untyped-call]


def _keep(folder: Path, reference: Path) -> Path:
    shutil.rmtree(reference, ignore_errors=True)
    reference.mkdir(parents=True)
    for name in sorted(name for name in _KEPT if (folder / name).exists()):
        (shutil.copytree if (folder / name).is_dir() else shutil.copy)(folder / name, reference / name)
    return reference
