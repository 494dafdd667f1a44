"""Ending what runs in the lab, on real processes."""

import os
import subprocess
import sys
import time

import pytest

from kit.lab.pd import processes


@pytest.fixture
def started():
    """Start a process with a mark; whatever is left of it is ended."""
    made = []

    def start(folder, *argv, **env):
        made.append(subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, start_new_session=True,
                                     env={"PATH": os.environ["PATH"], processes.MARK: str(folder / "b"), **env}))
        return made[-1]

    yield start
    for process in made:
        process.kill()
        process.communicate()


def test_marked_processes_and_their_descendants_end(started, tmp_path):
    process = started(tmp_path, "sh", "-c", "env -i sleep 60 & echo $!; wait")
    child = int(process.stdout.readline())
    assert processes.running(tmp_path) == 2
    assert processes.end_all(tmp_path) == 2
    assert process.wait(5) != 0
    assert not os.path.exists(f"/proc/{child}/exe") or processes._parent(child) == 0
    assert processes.running(tmp_path) == 0
    assert processes.end_all(tmp_path) == 0


def test_what_ignores_term_is_killed(started, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "_TERM_S", 0.3)
    process = started(tmp_path, "sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 1; done")
    process.stdout.readline()
    begun = time.monotonic()
    assert processes.end_all(tmp_path) >= 1
    assert process.wait(5) == -9
    assert time.monotonic() - begun < 10


def test_another_lab_is_left_alone(started, tmp_path):
    process = started(tmp_path / "other", "sleep", "60")
    assert processes.end_all(tmp_path) == 0
    assert process.poll() is None


def test_it_does_not_end_itself(started, tmp_path):
    text = ("import sys; from pathlib import Path; from kit.lab.pd import processes;"
            "print(processes.end_all(Path(sys.argv[1])))")
    process = started(tmp_path, sys.executable, "-c", text, str(tmp_path), PYTHONPATH=os.getcwd())
    assert process.communicate(timeout=30)[0] == "0\n"
    assert process.returncode == 0
