"""The life of the serving part of the lab, with real ssh servers."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import paramiko
import pytest

from kit.command import command, script
from kit.errors import LabError
from kit.hosts.ssh import SshHost
from kit.lab.pd import debian, lab, processes, sshd

pytestmark = pytest.mark.lab
SAY_NOTHING = {"say": lambda _: None}


def connect(up, node):
    return SshHost(node.name, node.host, node.ssh_port, node.user, run_id="kit-test-pd", key_file=node.key_file,
                   known_hosts=up.known_hosts)


@pytest.fixture
def up(own_lab):
    return lab.up(**SAY_NOTHING)


@pytest.fixture
def hosts(up):
    made = [connect(up, node) for node in up.nodes]
    yield made
    for host in made:
        host.close()


def test_two_nodes_with_a_key_of_their_own(up, hosts):
    assert [node.host for node in up.nodes] == ["127.0.0.1", "127.0.0.2"]
    lines = up.known_hosts.read_text().splitlines()
    assert len({line.split()[2] for line in lines}) == 2
    for host, node in zip(hosts, up.nodes, strict=True):
        said = host.run(script('id -un; echo "$KIT_PD_LAB"; echo "$SSH_CONNECTION"'), check=True).stdout.split()
        assert said[0] == node.user
        assert said[1].endswith(f"/run/{node.name}")
        assert said[4] == node.host
        assert host.run(command("env"), check=True).stdout.count("NSS_WRAPPER") == 0, "the accounts are sshd's alone"


def test_up_twice_starts_nothing(up):
    before = processes.servers(up.known_hosts.parent)
    assert lab.up(**SAY_NOTHING) == up
    assert processes.servers(up.known_hosts.parent) == before
    assert "up (a: ssh port" in lab.status()[0]
    assert lab.status()[1:] == ["pd environment recipe: built", "pd environment current: built"]


def test_the_key_of_one_node_does_not_open_the_other(up):
    client = paramiko.SSHClient()
    client.load_host_keys(str(up.known_hosts))
    with pytest.raises(paramiko.AuthenticationException):
        client.connect(up.nodes[1].host, up.nodes[1].ssh_port, up.nodes[1].user, allow_agent=False, look_for_keys=False,
                       key_filename=str(up.nodes[0].key_file), timeout=20)
    client.close()


def test_down_ends_what_was_started_through_it(up, hosts):
    said = hosts[1].run(script("setsid sleep 600 </dev/null >/dev/null 2>&1 & echo $!"), check=True).stdout
    assert processes.running(up.known_hosts.parent) >= 3
    assert lab.down() >= 3
    assert processes._parent(int(said)) == 0
    assert lab.status()[0] == "pd: down"
    assert lab.down() == 0


def test_a_killed_server_is_replaced(up):
    os.kill(processes.servers(up.known_hosts.parent)["b"], signal.SIGKILL)
    deadline = time.monotonic() + 10
    while lab.is_up() and time.monotonic() < deadline:
        os.sched_yield()
    assert lab.status()[0] == "pd: only a is up"
    again = lab.up(**SAY_NOTHING)
    assert lab.is_up()
    assert connect(again, again.nodes[1]).run(command("true")).ok


def test_a_killed_up_leaves_nothing_that_the_next_one_cannot_use(own_lab):
    text = ("from kit.lab.pd import lab, sshd\n"
            "sshd.wait_until_ready = lambda *_: (print('started', flush=True), __import__('signal').pause())\n"
            "lab.up()")
    half = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True)
    assert half.stdout.readline() == "started\n"
    half.kill()
    half.communicate()
    assert not lab.is_up()
    up = lab.up(**SAY_NOTHING)
    assert lab.is_up()
    assert processes.running(up.known_hosts.parent) == 2


def test_a_server_that_cannot_start_is_told(own_lab, monkeypatch):
    taken = sshd.socket.create_server(("127.0.0.1", 0))
    monkeypatch.setattr(sshd, "free_port", lambda _: taken.getsockname()[1])
    monkeypatch.setattr(sshd, "answers", lambda *_: False)
    with taken, pytest.raises(LabError, match="in use") as raised:
        lab.up(deadline_s=5, **SAY_NOTHING)
    assert "sshd.log" in raised.value.remedy
    assert lab.status()[0] == "pd: down"


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can become another user")
def test_a_plain_user_can_run_one_too():
    """As nobody, whose account has no shell and may be locked."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    tools = folder / "tools"
    real = debian.debian(lambda _: None)
    shutil.copytree(real, tools, symlinks=True)
    libraries = debian.library_path(lambda _: None).replace(str(real), str(tools))
    shutil.os.chown(folder, 65534, 65534)
    port = sshd.free_port("127.0.0.2")
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            server = sshd.prepare(folder / "b", "127.0.0.2", port, tools)
            sshd.wait_until_ready(server, sshd.start(server, tools, libraries), time.monotonic() + 15)
            os._exit(0)
        except BaseException as error:
            print(error, file=sys.stderr)
            os._exit(1)
    try:
        assert os.waitpid(child, 0)[1] == 0
        server = sshd.SshServer(folder / "b", "127.0.0.2", port, (folder / "b/passwd").read_text().partition(":")[0])
        (folder / "known_hosts").write_text(f"[127.0.0.2]:{port} {server.host_key}\n")
        host = SshHost("b", "127.0.0.2", port, server.user, run_id="kit-test-pd", key_file=server.key_file,
                       known_hosts=folder / "known_hosts")
        assert host.run(command("id", "-u"), check=True).stdout == "65534\n"
        host.close()
    finally:
        processes.end_all(folder)
        shutil.rmtree(folder)
