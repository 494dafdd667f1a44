"""Kill every part of a running sweep: nothing is left behind, finished points stay, and a resume does the rest."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from kit.command import command
from kit.lab import guests
from kit.runner import folder_of, read_experiment
from kit.sites import open_site
from kit.stage import Folder, run_id_of
from kit.store import Run

pytestmark = pytest.mark.lab

EXPERIMENT = {"name": "faults", "stages": [{
    "stage": "03_link_perftest", "site": "lab-siw",
    "params": {"tools": ["ib_write_bw"], "sizes_bytes": [1024, 4096, 8192], "repeats": 2, "iterations": 8000,
               "deadline_s": 25}}]}
POINTS = 6


class Sweep:
    """One experiment in a scratch folder, run by the real command."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "faults.yaml"
        self.file.write_text(yaml.safe_dump(EXPERIMENT))
        self.results = folder / "results"
        experiment = read_experiment(str(self.file))
        self.run = Run(folder_of(experiment, experiment.stages[0], self.results))
        self.run_id = run_id_of(Folder(self.run, None))

    def start(self, *more: str) -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-m", "kit.cli", "run", str(self.file), "--results",
                                 str(self.results), *more], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def kept(self) -> dict[str, float]:
        """Point file -> when it was written, of the points that were measured."""
        return {key: (self.run.folder / "points" / f"{key}.json").stat().st_mtime
                for key, record in self.run.finished_points().items() if record["expected"]}


@pytest.fixture
def sweep(siw_lab, tmp_path):
    return Sweep(tmp_path)


def wait_for_points(process: subprocess.Popen[str], sweep: Sweep, count: int) -> None:
    for line in process.stdout:
        if f"{count} of {POINTS} points" in line:
            return
    raise AssertionError("the sweep ended before it was killed")


def carriers(run_id: str) -> dict[int, str]:
    """Local processes that carry the run's id: pid -> command line."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"KIT_RUN_ID={run_id}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
    return found


def left_on_nodes(run_id: str) -> int:
    """How many processes of the run are on the two nodes; they are ended by being counted."""
    with open_site("lab-siw", run_id="count") as pair:
        return sum(end.host.stop(run_id) for end in pair)


def kill_local(sweep: Sweep, what: str) -> None:
    victims = [pid for pid, line in carriers(sweep.run_id).items() if what in line]
    assert victims, f"no {what} to kill"
    for pid in victims:
        os.kill(pid, signal.SIGKILL)


def kill_on(node: str) -> None:
    with open_site("lab-siw", run_id="killer") as pair:
        pair[node].host.run(command("pkill", "-KILL", "-x", "ib_write_bw"), check=True)


def kill_guest(node: str) -> None:
    os.kill(guests.pid_of("siw", node), signal.SIGKILL)


@pytest.mark.parametrize("victim", ["kernel", "papermill", "kit run", "client", "server", "guest"])
def test_a_killed_part_loses_nothing(sweep, victim):
    process = sweep.start()
    wait_for_points(process, sweep, 2)
    match victim:
        case "kernel":
            kill_local(sweep, "ipykernel")
        case "papermill":
            kill_local(sweep, "papermill")
        case "kit run":
            process.kill()
        case "client":
            kill_on("a")
        case "server":
            kill_on("b")
        case "guest":
            kill_guest("b")
    process.communicate(timeout=120)
    before = sweep.kept()
    # An end that is killed before the two have met is started again, and the sweep ends well.
    assert process.returncode != 0 or (victim in ("client", "server") and len(before) == POINTS)
    assert len(before) >= 2

    if victim != "guest":
        subprocess.run([sys.executable, "-m", "kit.cli", "clean", "lab-siw"], check=True, timeout=60,
                       capture_output=True)
        assert carriers(sweep.run_id) == {}
        assert left_on_nodes(sweep.run_id) == 0

    again = sweep.start("--resume")
    said, _ = again.communicate(timeout=180)
    assert again.returncode == 0, said
    assert (f"{len(before)} points kept" if len(before) < POINTS else "reused") in said
    after = sweep.kept()
    assert len(after) == POINTS
    assert {key: after[key] for key in before} == before
    assert carriers(sweep.run_id) == {}
    assert left_on_nodes(sweep.run_id) == 0
