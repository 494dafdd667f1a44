"""`kit pd down`, and `kit clean` after a controller that was killed without a word: no process of the run is left."""

import os
import signal
import subprocess
import sys

import pytest
from served_lab import DEADLINE_S, of_run

from kit.store import key_of

pytestmark = pytest.mark.lab
WHAT = ("lab-pd", "mooncake-direct")
RUN_IDS = tuple(f"kit-pd-{key_of(list(WHAT))}-{node}" for node in "ab")


def kit(*words):
    return subprocess.run([sys.executable, "-m", "kit.cli", *words], capture_output=True, text=True,
                          timeout=DEADLINE_S, check=True).stdout


def test_down_ends_all_and_so_does_clean_after_a_kill(own_lab):
    said = kit("pd", "up", *WHAT)
    assert "prompt tokens came from the prefiller" in said
    assert kit("pd", "status", *WHAT).count(": up") == 3
    running = of_run(*RUN_IDS)
    assert len(running) > 6                       # servers, engines, workers, proxy
    assert kit("pd", "down", *WHAT).strip().endswith("processes ended")
    assert of_run(*RUN_IDS) == {}
    assert kit("pd", "status", *WHAT).count(": down") == 3

    up = subprocess.Popen([sys.executable, "-m", "kit.cli", "pd", "up", *WHAT], stdout=subprocess.PIPE, text=True,
                          start_new_session=True)
    try:
        next(line for line in up.stdout if "listens after" in line)      # the proxy; the engines are on their way
        assert of_run(*RUN_IDS)
    finally:
        os.killpg(up.pid, signal.SIGKILL)
        up.wait()
    assert of_run(*RUN_IDS), "the nodes' processes outlive their controller"
    kit("clean")
    assert of_run(*RUN_IDS) == {}
