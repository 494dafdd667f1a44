"""`make bench`: the kit beside the plain way, in one run on this machine; every figure is a ratio of medians.

The numbers depend on the machine and on what else it does; only their ratio is worth quoting.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nbformat

from kit.lab import guests
from kit.link.study import open_study
from kit.runner import execute

HERE = Path(__file__).parent
ITERATIONS = 100
SWEEP = {"tools": ["ib_write_bw", "ib_write_lat"], "sizes_bytes": [64, 1024, 2048, 4096, 16384, 65536],
         "repeats": 1, "iterations": ITERATIONS}


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def show(what: str, ours: float, theirs: float, limit: float | None = None) -> None:
    goal = "" if limit is None else f"   (goal: at most {limit:g})"
    print(f"{what:<64} {ours:7.2f} s / {theirs:6.2f} s = {ours / theirs:5.2f}{goal}", flush=True)


def kit_sweep() -> float:
    """Seconds of the sweep; connecting and the nodes' facts are outside, as the loop's master connection is."""
    with tempfile.TemporaryDirectory() as folder:
        study = open_study("lab-siw", folder, **SWEEP)
        study.look()
        started = time.perf_counter()
        points = study.measure()
        took = time.perf_counter() - started
        study.close()
        assert (points["outcome"] == "VALID").all(), points["symptom"].dropna().to_list()
        assert len(points) == 12
        print(f"  kit {took:.1f} s, attempts {points['attempts'].sum()}", flush=True)
        return took


def ssh_config(folder: Path) -> Path:
    lab = guests.up("siw")
    lines = []
    for node in lab.nodes:
        lines += [f"Host {node.name}", f"  HostName {node.host}", f"  Port {node.ssh_port}", f"  User {node.user}",
                  f"  IdentityFile {node.key_file}"]
    lines += ["Host *", f"  UserKnownHostsFile {lab.known_hosts}", "  StrictHostKeyChecking yes",
              "  ControlMaster auto", f"  ControlPath {folder}/%n", "  ControlPersist 60", "  BatchMode yes"]
    path = folder / "config"
    path.write_text("\n".join(lines) + "\n")
    return path


def loop(config: Path, pause: str) -> float:
    server = guests.up("siw").nodes[1]
    points = "".join(f"{tool} {size} {ITERATIONS}\n" for tool in SWEEP["tools"] for size in SWEEP["sizes_bytes"])
    for node in ("a", "b"):
        subprocess.run(["ssh", "-F", str(config), node, "true"], check=True, timeout=30, stdin=subprocess.DEVNULL)
    argv = ["bash", str(HERE / "loop.sh"), str(config), pause, server.rdma_address, server.rdma_device]
    return timed(lambda: subprocess.run(argv, input=points, text=True, check=True, timeout=300))


def sweeps(rounds: int = 3) -> None:
    if shutil.which("ssh") is None:
        print("the sweep was not compared: apt install openssh-client for the plain loops")
        return
    was_up = guests.is_up("siw")
    guests.up("siw")
    try:
        with tempfile.TemporaryDirectory() as name:
            config = ssh_config(Path(name))
            times: dict[str, list[float]] = {"kit": [], "probe": [], "2": []}
            for _ in range(rounds):    # in turn, so that a drift of the machine touches all three
                times["kit"].append(kit_sweep())
                times["probe"].append(loop(config, "probe"))
                times["2"].append(loop(config, "2"))
            for host in ("a", "b"):
                subprocess.run(["ssh", "-F", str(config), "-O", "exit", host], check=False, capture_output=True)
    finally:
        if not was_up:
            guests.down("siw")
    ours = statistics.median(times["kit"])
    show("12 points: kit / loop that probes, multiplexed ssh", ours, statistics.median(times["probe"]), 1.0)
    show("12 points: kit / loop with `sleep 2`", ours, statistics.median(times["2"]), 0.6)


def startup(rounds: int = 7) -> None:
    def median(*argv: str) -> float:
        return statistics.median(timed(lambda: subprocess.run([sys.executable, *argv], check=True, capture_output=True))
                                 for _ in range(rounds))

    bare = median("-c", "pass")
    show("import kit / bare python (goal: under 0.35 s)", median("-c", "import kit"), bare)
    show("kit --help / bare python (goal: under 0.35 s)", median("-m", "kit.cli", "--help"), bare)


def stage_overhead(rounds: int = 5) -> None:
    """Papermill in our child process beside papermill alone, both on a notebook without work."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x = 1")])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook.cells[0].metadata["tags"] = ["parameters"]
        nbformat.write(notebook, folder / "empty.ipynb")
        plain = [sys.executable, "-m", "papermill", str(folder / "empty.ipynb"), str(folder / "out.ipynb"),
                 "--no-progress-bar"]
        ours, theirs = [], []
        for turn in range(rounds):
            (folder / str(turn)).mkdir()
            ours.append(timed(lambda turn=turn: execute(folder / "empty.ipynb", folder / str(turn), {"x": 2})))
            theirs.append(timed(lambda: subprocess.run(plain, check=True, capture_output=True)))
    show("an empty stage: kit / papermill", statistics.median(ours), statistics.median(theirs), 1.5)


if __name__ == "__main__":
    startup()
    stage_overhead()
    sweeps()
