"""What every stage needs: a run folder named after what determines the run, its lock, and its verdict."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import kit
from kit.files import write_atomic, write_json
from kit.params import Closed, Site
from kit.paths import root
from kit.sites import read_site
from kit.store import Run, key_of

# A stage's version goes into its runs' keys: raise it when the stage measures something else than before.
VERSIONS = {
    "01_driver_setup": 1, "02_device_info": 1, "03_link_perftest": 1, "04_transfer_engine": 1, "05_pd_launch": 1,
    "06_serve_bench": 1,
}


@dataclass(frozen=True)
class Folder:
    """A run's folder; ``record`` is where the nodes' answers are to be recorded, if anywhere."""

    run: Run
    record: Path | None


@dataclass(frozen=True)
class Progress:
    """After each point of a run: how many are done of how many, the last in a few words, and the time left."""

    done: int
    total: int
    last: str
    left_s: float


def run_key(stage: str, site: Site, params: Closed) -> str:
    """The key of a run: stage, its version, site and parameters."""
    return key_of({"stage": stage, "version": VERSIONS[stage], "site": site.model_dump(),
                   "params": params.model_dump()})


def run_name(stage: str, site: Site, params: Closed) -> str:
    """The name of a run's folder: readable, and unique by the key."""
    return f"{stage}-{site.name}-{run_key(stage, site, params)}"


def open_folder(stage: str, site_name: str, params: Closed, run_folder: str) -> Folder:
    """Make the run's folder and write its lock. A replayed run that names no folder gets a temporary one."""
    site = read_site(site_name)
    if run_folder:
        folder = root() / run_folder
    elif site.replay is not None:
        folder = Path(tempfile.mkdtemp(prefix="kit-replay-"))
    else:
        folder = root() / "results" / "walkthrough" / run_name(stage, site, params)
    run = Run(folder)
    write_lock(run, stage, site_name, params)
    recording = os.environ.get("KIT_RECORD")
    return Folder(run, Path(recording) if recording else None)


def run_id_of(folder: Folder) -> str:
    """Marks everything the run starts on a node; the same for a repeated run, so that it finds its own left-overs."""
    return f"kit-{key_of(str(folder.run.folder.resolve()))}"


def write_lock(run: Run, stage: str, site_name: str, params: Closed) -> None:
    """``run.lock.yaml``: an experiment file that repeats this run."""
    lock = {
        "name": stage,
        "title": f"locked by kit {kit.__version__}, stage version {VERSIONS[stage]}",
        "stages": [{"stage": stage, "site": site_name, "params": params.model_dump()}],
    }
    write_atomic(run.folder / "run.lock.yaml", yaml.safe_dump(lock, sort_keys=False))


def write_verdict(run: Run, stage: str, site: Site, verdict: dict[str, Any]) -> None:
    """``verdict.json``, the last file of a run: while it is absent, the run is not finished."""
    write_json(run.folder / "verdict.json", {**verdict, "stage": stage, "site": site.name, "title": site.title,
                                             "kit": kit.__version__})
