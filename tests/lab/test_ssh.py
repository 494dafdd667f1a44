"""The host contract over ssh against a real server, and everything that can go wrong with a connection."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import paramiko
import pytest

from kit.command import command, script
from kit.errors import CommandError, HostKeyError, UnreachableError
from kit.hosts.ssh import SshHost
from kit.hosts.trust import scan, trust

sys.path.insert(0, str(Path(__file__).parents[1] / "hosts"))
from contract import HostContract

pytestmark = pytest.mark.lab


def connect(lab, **changes):
    node = lab.nodes[0]
    given = {"host": node.host, "port": node.ssh_port, "user": node.user, "key_file": node.key_file,
             "known_hosts": lab.known_hosts, "run_id": f"kit-test-{uuid.uuid4().hex[:8]}"} | changes
    return SshHost("a", given.pop("host"), given.pop("port"), given.pop("user"), **given)


@pytest.fixture
def host(siw_lab):
    host = connect(siw_lab)
    yield host
    host.stop(host.run_id)
    host.close()


@pytest.fixture
def other(siw_lab):
    host = connect(siw_lab)
    yield host
    host.stop(host.run_id)
    host.close()


@pytest.fixture
def port():
    return 20000 + uuid.uuid4().int % 10000


@pytest.fixture
def folder(host):
    folder = f"/tmp/{host.run_id}"
    host.run(command("mkdir", folder), check=True)
    yield folder
    host.run(command("rm", "-r", folder), check=True)


class TestSsh(HostContract):
    pass


class Cut:
    """A road to the server that can be cut: a relay on a port of its own, with the server's key for that port."""

    def __init__(self, lab, folder):
        self.node, self.listening = lab.nodes[0], socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        self.ends: list[socket.socket] = []
        self.known_hosts = folder / "known_hosts"
        trust(self.known_hosts, "127.0.0.1", self.port, scan(self.node.host, self.node.ssh_port)[0])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self.listening.accept()
            except OSError:
                return
            far = socket.create_connection((self.node.host, self.node.ssh_port))
            self.ends += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    @staticmethod
    def _copy(source, sink):
        try:
            while chunk := source.recv(65536):
                sink.sendall(chunk)
        except OSError:
            pass

    def cut(self):
        for end in self.ends:
            end.shutdown(socket.SHUT_RDWR)
            end.close()
        self.ends.clear()


@pytest.fixture
def road(siw_lab, tmp_path):
    road = Cut(siw_lab, tmp_path)
    yield road
    road.listening.close()
    road.cut()


def test_a_lost_connection_is_made_again_but_no_command_twice(siw_lab, host, folder, road, monkeypatch):
    monkeypatch.setattr("kit.hosts.ssh._FRESH_S", 0)
    far = connect(siw_lab, host="127.0.0.1", port=road.port, known_hosts=road.known_hosts)
    assert far.run(command("true")).ok
    road.cut()
    assert far.run(command("true")).ok, "lost before the command was sent"
    cutter = threading.Thread(target=lambda: (host.run(script('until [ -e "$1" ]; do sleep 0.05; done',
                                                              f"{folder}/ran")), road.cut()))
    cutter.start()
    with pytest.raises(UnreachableError, match="connection was lost") as caught:
        far.run(script('echo x >>"$1"; sleep 30', f"{folder}/ran"), deadline_s=40)
    cutter.join()
    assert caught.value.remedy
    assert host.read(f"{folder}/ran") == b"x\n"
    far.close()


def test_a_write_cut_short_leaves_the_old_file(siw_lab, host, folder, road):
    far = connect(siw_lab, host="127.0.0.1", port=road.port, known_hosts=road.known_hosts)
    host.write(f"{folder}/file", b"old")
    assert far.run(command("true")).ok
    cutter = threading.Thread(target=lambda: (host.run(script(
        'until [ "$(cat "$1"/*kit-part 2>/dev/null | wc -c)" -gt 100000 ]; do sleep 0.01; done', folder)), road.cut()))
    cutter.start()
    with pytest.raises((UnreachableError, CommandError)):
        far.write(f"{folder}/file", bytes(200 << 20))
    cutter.join()
    host.run(script('while ls "$1"/*kit-part 2>/dev/null; do sleep 0.05; done', folder), check=True)
    assert host.read(f"{folder}/file") == b"old"
    far.close()


def test_a_killed_controller(siw_lab, host):
    """What it started is found by the run's id, and ends by itself at its deadline."""
    node = siw_lab.nodes[0]
    program = ("import sys, signal; from pathlib import Path; from kit.hosts.ssh import SshHost\n"
               "from kit.command import command\n"
               "name, port, user, key, known, run, deadline = sys.argv[1:]\n"
               "host = SshHost('a', name, int(port), user, run_id=run, key_file=Path(key), known_hosts=Path(known))\n"
               "print(host.start(command('sleep', 60), deadline_s=int(deadline)).folder, flush=True); signal.pause()")
    folders = []
    for run_id, deadline_s in ((host.run_id, 60), (f"{host.run_id}-2", 2)):
        controller = subprocess.Popen([sys.executable, "-c", program, node.host, str(node.ssh_port), node.user,
                                       str(node.key_file), str(siw_lab.known_hosts), run_id, str(deadline_s)],
                                      stdout=subprocess.PIPE, text=True)
        folders.append(controller.stdout.readline().strip())
        os.kill(controller.pid, signal.SIGKILL)
        controller.communicate()
    host.run(script('until [ -e "$1"/rc ]; do sleep 0.1; done', folders[1]), check=True)
    assert host.stop(f"{host.run_id}-2") == 0
    assert host.stop(host.run_id) >= 1
    assert host.stop(host.run_id) == 0


def spoiled(lab, folder, key):
    node = lab.nodes[0]
    known_hosts = folder / "spoiled"
    trust(known_hosts, node.host, node.ssh_port, key)
    return connect(lab, known_hosts=known_hosts)


@pytest.mark.parametrize("kind", ["same type", "another type"])
def test_a_changed_host_key(siw_lab, tmp_path, kind):
    if kind == "another type":
        key = paramiko.ECDSAKey.generate()
    else:
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
        key = paramiko.Ed25519Key(filename=str(tmp_path / "key"))
    with pytest.raises(HostKeyError, match="CHANGED") as caught:
        spoiled(siw_lab, tmp_path, key).run(command("true"))
    assert str(caught.value).count("SHA256:") == 2
    assert "kit trust SITE" in caught.value.remedy


def test_an_unknown_host_key_until_it_is_trusted(siw_lab, tmp_path):
    node = siw_lab.nodes[0]
    host = connect(siw_lab, known_hosts=tmp_path / "known_hosts")
    with pytest.raises(HostKeyError, match=r"unknown: \S+ SHA256:") as caught:
        host.run(command("true"))
    assert "kit trust SITE" in caught.value.remedy
    for key in scan(node.host, node.ssh_port):
        trust(tmp_path / "known_hosts", node.host, node.ssh_port, key)
    assert host.run(command("true")).ok
    host.close()


def test_nobody_listens(siw_lab):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(UnreachableError, match=f"no ssh connection to 127.0.0.1:{port}") as caught:
        connect(siw_lab, port=port).run(command("true"))
    assert caught.value.remedy
    with pytest.raises(UnreachableError, match="no ssh server"):
        scan("127.0.0.1", port)


def test_a_server_that_says_nothing(siw_lab):
    started = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(UnreachableError):
        connect(siw_lab, port=silent.getsockname()[1], connect_s=1).run(command("true"))
    assert time.monotonic() - started < 10


def test_a_key_that_is_not_let_in(siw_lab, tmp_path):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    with pytest.raises(UnreachableError, match="refused the key of user"):
        connect(siw_lab, key_file=tmp_path / "key").run(command("true"))
    with pytest.raises(UnreachableError, match="no key file"):
        connect(siw_lab, key_file=tmp_path / "none").run(command("true"))


def test_over_a_jump_host(siw_lab, host, tmp_path):
    """The node is its own jump host; behind it, its key is checked as well."""
    node = siw_lab.nodes[0]
    inside = int(host.run(script('set -- $SSH_CONNECTION; echo "$4"'), check=True).stdout)
    known_hosts = tmp_path / "known_hosts"
    trust(known_hosts, node.host, node.ssh_port, scan(node.host, node.ssh_port)[0])
    far = connect(siw_lab, port=inside, host="127.0.0.2", known_hosts=known_hosts,
                  jump=connect(siw_lab, known_hosts=known_hosts))
    with pytest.raises(HostKeyError, match=r"127\.0\.0\.2"):
        far.run(command("true"))
    trust(known_hosts, "127.0.0.2", inside, scan(node.host, node.ssh_port)[0])
    assert far.run(command("echo", "hop"), check=True).stdout == "hop\n"
    far.close()
