"""`kit pd down`, and `kit clean` after everything on the controller's side was killed, leave no process of the run."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from served_lab import DEADLINE_S, SECRETS, of_run, processes, shown, site_file

from kit.lab.pd import lab
from kit.sites import open_site
from kit.store import key_of

pytestmark = pytest.mark.lab
STACK = "mooncake-direct"


@pytest.fixture
def run_ids(own_lab, tmp_path, monkeypatch):
    """The ids of the run that `kit pd up SITE STACK` makes; nothing carries them in the end."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    lab.up(say=lambda _: None)     # of this process, so that killing the command leaves the nodes as they are
    run_id = f"kit-pd-{key_of([site_file(tmp_path), STACK])}"
    yield f"{run_id}-a", f"{run_id}-b"
    assert of_run(f"{run_id}-a", f"{run_id}-b") == {}


def kit(*words):
    return subprocess.Popen([sys.executable, "-m", "kit.cli", *words], text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, start_new_session=True)


def said(process):
    output, _ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, output
    return output


def instances(run_ids):
    return [words for words in of_run(*run_ids).values() if "serve" in words and "python" in words[0]]


def kill_all_of(process):
    """The command and all that it has started on this side; what came over ssh is none of it."""
    family, grown = {process.pid}, True
    while grown:
        parents = {pid: parent_of(pid) for pid in processes()}
        more = {pid for pid, parent in parents.items() if parent in family} - family
        family, grown = family | more, bool(more)
    for pid in family:
        os.kill(pid, signal.SIGKILL)
    process.communicate(timeout=20)


def parent_of(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def test_down_leaves_nothing_and_clean_ends_what_a_killed_up_left(run_ids, tmp_path):
    site = site_file(tmp_path)
    output = said(kit("pd", "up", site, STACK))
    assert "prompt tokens came from the prefiller, the same words" in output
    assert len(instances(run_ids)) == 2
    assert said(kit("pd", "status", site, STACK)).count(": up\n") == 3
    assert shown() == []
    assert not any(value in output for value in SECRETS.values())
    ended = said(kit("pd", "down", site, STACK))
    assert int(ended.split()[0]) >= 4
    assert of_run(*run_ids) == {}
    assert said(kit("pd", "status", site, STACK)).count(": down\n") == 3

    again = kit("pd", "up", site, STACK)
    deadline, pause = time.monotonic() + DEADLINE_S, threading.Event()
    while len(instances(run_ids)) < 2 and time.monotonic() < deadline:
        pause.wait(0.3)
    kill_all_of(again)
    assert len(instances(run_ids)) == 2, "the nodes go on without the controller"
    with open_site(site, run_id="look") as pair:
        assert pair.a.host.run_id == "look-a", "the nodes are there"
    assert "processes ended" in said(kit("clean"))
    assert of_run(*run_ids) == {}
    assert lab.is_up(), "the lab itself is left alone"
