"""The host contract on this machine, and what happens when the controller is killed."""

import os
import signal
import socket
import subprocess
import sys
import uuid

import pytest
from contract import HostContract

from kit.command import command
from kit.hosts.local import LocalHost

LISTENER = "import socket, sys; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); s.accept()"


def fresh():
    return LocalHost(run_id=f"kit-test-{uuid.uuid4().hex[:8]}")


@pytest.fixture
def host():
    host = fresh()
    yield host
    host.stop(host.run_id)


@pytest.fixture
def other():
    host = fresh()
    yield host
    host.stop(host.run_id)


@pytest.fixture
def port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture
def folder(tmp_path):
    return str(tmp_path)


class TestLocal(HostContract):
    @pytest.fixture
    def listener(self):
        return lambda port: command(sys.executable, "-c", LISTENER, port)


def test_a_killed_controller_leaves_what_stop_can_find(host):
    program = ("import sys; from kit.hosts.local import LocalHost; from kit.command import command\n"
               "LocalHost(run_id=sys.argv[1]).start(command('sleep', 60), deadline_s=60)\n"
               "print('started', flush=True); import signal; signal.pause()")
    controller = subprocess.Popen([sys.executable, "-c", program, host.run_id], stdout=subprocess.PIPE, text=True)
    assert controller.stdout.readline() == "started\n"
    os.kill(controller.pid, signal.SIGKILL)
    controller.wait()
    controller.stdout.close()
    assert host.stop(host.run_id) >= 1
    assert host.stop(host.run_id) == 0
