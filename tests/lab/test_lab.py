"""The lab's life, on a real one of its own: the image is the cache's, the run folder and the guests are not."""

import os
import select
import signal
import subprocess
import sys
import time

import paramiko
import pytest

from kit.errors import LabError
from kit.lab import guests
from kit.lab.image import cache, image

pytestmark = pytest.mark.lab
SAY_NOTHING = {"say": lambda _: None}
UP = "from kit.lab import guests; guests.up('rxe'); print('booted', flush=True)"


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """A deep cache with no lab up, holding the real image."""
    real = image(lambda _: None).folder
    assert real.parent == cache() / "lab"
    own = tmp_path / ("deep" * 20) / "cache"
    (own / "lab").mkdir(parents=True)
    (own / "lab" / real.name).symlink_to(real)
    (own / "lab/index.json").write_bytes((real.parent / "index.json").read_bytes())
    monkeypatch.setenv("KIT_CACHE", str(own))
    yield own
    guests.down()


def said_by(node, known_hosts, line):
    client = paramiko.SSHClient()
    client.load_host_keys(str(known_hosts))
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    client.connect(node.host, node.ssh_port, node.user, key_filename=str(node.key_file), allow_agent=False,
                   look_for_keys=False, timeout=20, banner_timeout=20, auth_timeout=20)
    try:
        return client.exec_command(line, timeout=20)[1].read().decode()
    finally:
        client.close()


def left(folder):
    """Processes with the mark of any lab in this cache, and sockets in it."""
    mark = f"KIT_LAB={folder}".encode()
    return ([pid for pid in os.listdir("/proc") if pid.isdigit() and mark in environment(pid)],
            [path for path in folder.rglob("*") if path.is_socket()])


def environment(pid):
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read()
    except OSError:
        return b""


def until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert condition()


def test_guests_run_the_real_tools(siw_lab):
    for node in siw_lab.nodes:
        said = said_by(node, siw_lab.known_hosts, "ibv_devinfo; ib_write_bw --version; ulimit -l")
        assert "iWARP" in said
        assert node.rdma_device in said
        assert "PORT_ACTIVE" in said
        assert "Version: " in said
        assert said.endswith("unlimited\n")


def test_each_guest_has_its_own_host_key(siw_lab):
    keys = [line.split(maxsplit=1)[1] for line in siw_lab.known_hosts.read_text().splitlines()]
    assert len(set(keys)) == len(keys) == 2


def test_up_again_gives_the_same_guests(siw_lab):
    pids = [guests.pid_of("siw", name) for name in guests.NODES]
    started = time.monotonic()
    assert guests.up("siw", say=pytest.fail) == siw_lab
    assert time.monotonic() - started < 1
    assert [guests.pid_of("siw", name) for name in guests.NODES] == pids


def test_life_of_a_lab(own_cache):
    """Up in a deep folder, beside another lab; a killed guest is noticed and replaced; down leaves nothing."""
    lab = guests.up("rxe", **SAY_NOTHING)
    assert "rxe0" in said_by(lab.nodes[1], lab.known_hosts, "ibv_devinfo")
    pid = guests.pid_of("rxe", "b")
    assert b"KIT_RUN_ID" not in environment(pid), "no run may take the guest for its own"

    handle = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    assert select.select([handle], [], [], 10)[0]
    os.close(handle)
    assert not guests.is_up("rxe")
    assert any("only a is up" in line for line in guests.status())
    with pytest.raises(LabError, match="guest b"):
        guests.pid_of("rxe", "b")

    lab = guests.up("rxe", **SAY_NOTHING)
    assert guests.pid_of("rxe", "b") != pid
    assert "rxe0" in said_by(lab.nodes[1], lab.known_hosts, "ibv_devinfo")

    guests.down()
    assert left(own_cache / "lab/run/rxe") == ([], [])
    assert guests.status() == [f"{kind}: down" for kind in guests.KINDS]


def test_a_killed_up_leaves_nothing(own_cache):
    folder = own_cache / "lab/run/rxe"
    boot = subprocess.Popen([sys.executable, "-c", UP], stdout=subprocess.DEVNULL)
    until(lambda: (folder / "a.console").exists() and (folder / "b.console").exists())
    until(lambda: len(left(folder)[0]) == 4)
    assert not guests.is_up("rxe"), "guests that boot are not up"
    boot.kill()
    boot.wait(10)
    until(lambda: left(folder) == ([], []))
    assert not guests.is_up("rxe")


def test_a_guest_that_ends_while_booting_is_noticed_at_once(own_cache, monkeypatch):
    monkeypatch.setattr(guests, "_MEMORY_MIB", "none")
    started = time.monotonic()
    with pytest.raises(LabError, match="none") as raised:
        guests.up("rxe", **SAY_NOTHING)
    assert raised.value.remedy
    assert time.monotonic() - started < 20
    assert left(own_cache / "lab/run/rxe") == ([], [])


def test_a_guest_that_is_late_is_booted_once_more(own_cache):
    said = []
    with pytest.raises(LabError, match="did not get ready"):
        guests.up("rxe", deadline_s=0.3, say=said.append)
    assert len([line for line in said if "once more" in line]) == 1
    assert left(own_cache / "lab/run/rxe") == ([], [])
