"""The lab's two guests: up, down, status.

A guest is a QEMU process that carries ``KIT_LAB=<run folder>`` and ``KIT_GUEST=<node>`` in its environment; by these
it is found and ended, never by a process id from a file. While it boots, a guard holds a pipe from `up`: when `up` dies
the pipe closes and the guard ends the guest, so that a killed `up` leaves nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kit.errors import LabError
from kit.files import write_atomic, write_json
from kit.lab.image import Image, cache, image
from kit.lab.steps import Say, alone

Rdma = Literal["siw", "rxe", "erdma"]
NODES = ("a", "b")
KINDS: dict[Rdma, str] = {"siw": "siw0", "rxe": "rxe0", "erdma": "erdma_0"}     # and their devices
_MEMORY_MIB = 384
_KERNEL = ("console=ttyS0 quiet loglevel=4 rdinit=/init mitigations=off nopti random.trust_cpu=on no_timer_check "
           "panic=-1 net.ifnames=0")
# $1 the guest's socket, $2 its log, then the guest, whose process id is said first. A word on standard input lets it
# live; the end of input ends it.
_GUARD = r"""
socket=$1 log=$2; shift 2
"$@" </dev/null >"$log" 2>&1 &
echo $!
read -r word
[ "$word" = keep ] || { kill -KILL $!; rm -f "$socket"; }
"""


@dataclass(frozen=True)
class LabNode:
    """How to reach one guest, and its device."""

    name: str
    ssh_port: int
    key_file: Path
    rdma_device: str
    rdma_address: str
    host: str = "127.0.0.1"
    user: str = "root"


@dataclass(frozen=True)
class Lab:
    """Two guests that are up."""

    rdma: Rdma
    nodes: tuple[LabNode, ...]
    known_hosts: Path


def up(rdma: Rdma, *, deadline_s: float = 90, say: Say = print) -> Lab:
    """Boot the guests, or give them as they are when both run. Not ready in time: once more, then LabError."""
    folder = _folder(rdma)
    with alone(folder / ".busy"):
        if is_up(rdma):
            return _read(rdma)
        built = image(say)
        for last in (False, True):
            started = time.monotonic()
            _end(folder)
            try:
                lab = _boot(rdma, built, folder, deadline_s)
            except LabError as error:
                _end(folder)
                if last:
                    raise
                say(f"lab {rdma}: {error.what.splitlines()[0]}; once more")
                continue
            say(f"lab {rdma}: both guests up after {time.monotonic() - started:.1f} s")
            return lab
    raise AssertionError("the loop returns or raises")


def down(rdma: str | None = None) -> None:
    """End the guests of one kind, or all; remove their sockets."""
    for kind in KINDS if rdma is None else (rdma,):
        folder = _folder(kind)
        with alone(folder / ".busy"):
            _end(folder)


def is_up(rdma: str) -> bool:
    """Whether both guests of this kind run and were ready."""
    return bool(_state(_folder(rdma)).get("ready")) and set(_pids(_folder(rdma))) == set(NODES)


def pid_of(rdma: str, node: str) -> int:
    """The process of a guest. Raises LabError when it does not run."""
    found = _pids(_folder(rdma)).get(node)
    if found is None:
        raise LabError(f"guest {node} of lab {rdma} is not up")
    return found


def status() -> list[str]:
    """One line a kind: which guests run, and their ssh ports."""
    lines = []
    for rdma in KINDS:
        pids = _pids(_folder(rdma))
        if is_up(rdma):
            ports = ", ".join(f"{node.name}: ssh port {node.ssh_port}, pid {pids[node.name]}" for node in
                              _read(rdma).nodes)
            lines.append(f"{rdma}: up ({ports})")
        else:
            state = "booting" if len(pids) > 1 else f"only {', '.join(pids)} is up"
            lines.append(f"{rdma}: {state if pids else 'down'}")
    return lines


def _boot(rdma: Rdma, built: Image, folder: Path, deadline_s: float) -> Lab:
    ports = {name: _free_port() for name in NODES}
    state = {"image": str(built.folder), "ports": ports}
    write_json(folder / "state.json", state | {"ready": False})
    write_atomic(folder / "known_hosts",
                 "".join(f"[127.0.0.1]:{port} {built.host_key(name)}\n" for name, port in ports.items()))
    guards: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name in NODES:
            guards[name] = _launch(rdma, built, folder, name, ports[name])
        deadline = time.monotonic() + deadline_s
        for name, guard in guards.items():
            _wait_until_ready(folder, name, guard, ports[name], deadline)
        write_json(folder / "state.json", state | {"ready": True})
        for guard in guards.values():
            guard.communicate(b"keep\n", timeout=10)
    finally:
        for guard in guards.values():     # of a failed boot: the end of input ends the guest
            for pipe in (guard.stdin, guard.stdout):
                if pipe is not None:
                    pipe.close()
            guard.wait(10)
    return _read(rdma)


def _launch(rdma: Rdma, built: Image, folder: Path, name: str, port: int) -> subprocess.Popen[bytes]:
    number = NODES.index(name) + 1
    peer = NODES[2 - number]
    libraries = [built.tools / "usr/lib/x86_64-linux-gnu", built.tools / "lib/x86_64-linux-gnu"]
    path = f"{built.tools}/usr/bin:{os.environ.get('PATH', '/usr/bin:/bin')}"
    qemu = shutil.which("qemu-system-x86_64", path=path)
    if qemu is None:
        raise LabError("QEMU is missing from the cache", remedy=f"remove {built.folder} and try again")
    firmware = [word for share in ("qemu", "seabios") for word in ("-L", f"{built.tools}/usr/share/{share}")
                if (built.tools / "usr/share" / share).exists()]
    console = folder / f"{name}.console"
    console.unlink(missing_ok=True)
    argv = [
        qemu, *firmware, "-name", f"kit-lab-{rdma}-{name}", "-accel", "tcg,thread=multi,tb-size=256", "-machine", "q35",
        "-cpu", "max", "-smp", "1", "-m", str(_MEMORY_MIB), "-nodefaults", "-no-user-config", "-display", "none",
        "-no-reboot", "-kernel", str(built.kernel), "-initrd", str(built.initramfs),
        "-append", f"{_KERNEL} lab.id={number} lab.rdma={rdma}", "-serial", f"file:{console}",
        "-netdev", f"user,id=ssh,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22",
        "-device", f"virtio-net-pci,netdev=ssh,mac=52:54:00:00:00:0{number},romfile=",
        # Relative to the run folder: a socket's path has 107 bytes at most, and a cache may lie deep.
        "-netdev", f"dgram,id=link,local.type=unix,local.path={name}.sock,remote.type=unix,remote.path={peer}.sock",
        "-device", f"virtio-net-pci,netdev=link,mac=52:54:00:77:00:0{number},mrg_rxbuf=on,host_mtu=9000,romfile=",
    ]
    # Nothing of ours but its own mark: a guest booted inside a run must not be taken for a process of that run.
    environment = {"PATH": path, "LD_LIBRARY_PATH": ":".join(map(str, libraries)), "KIT_LAB": str(folder),
                   "KIT_GUEST": name}
    return subprocess.Popen(["sh", "-c", _GUARD, "kit", f"{name}.sock", f"{name}.log", *argv], cwd=folder,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                            start_new_session=True, env=environment)


def _wait_until_ready(folder: Path, name: str, guard: subprocess.Popen[bytes], port: int, deadline: float) -> None:
    """Until the console says so and sshd answers. Raises LabError with the console's last lines."""
    console = folder / f"{name}.console"
    with _watched(guard) as ended:
        while time.monotonic() < deadline:
            text = console.read_text(errors="replace") if console.exists() else ""
            if re.search("lab: (rdma|bare,) ready", text) and _ssh_answers(port):
                return
            if "lab: no rdma device" in text or ended(0.1):
                break
    text = console.read_text(errors="replace") if console.exists() else ""
    log = folder / f"{name}.log"
    last = [*text.splitlines()[-8:], *(log.read_text(errors="replace").splitlines()[-4:] if log.exists() else [])]
    raise LabError("\n".join([f"guest {name} did not get ready; its console ends with:", *last]),
                   remedy="see that the machine is not overloaded and has 1.5 GiB of memory to spare")


@contextlib.contextmanager
def _watched(guard: subprocess.Popen[bytes]) -> Iterator[Callable[[float], bool]]:
    """A function that waits for the guard's guest to end, and says whether it has."""
    assert guard.stdout is not None, "opened as a pipe"  # noqa: S101
    handle = os.pidfd_open(int(guard.stdout.readline()))     # the guard has not waited for it: the number is still its
    try:
        yield lambda wait_s: bool(select.select([handle], [], [], wait_s)[0])
    finally:
        os.close(handle)


def _ssh_answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.settimeout(5)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def _end(folder: Path) -> None:
    """End every guest of this folder, by its mark, and remove what it left."""
    for pid in _pids(folder, every=True).values():
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(pid)
            try:
                if _mark(folder) not in _environment(pid):     # the number went to another process meanwhile
                    continue
                signal.pidfd_send_signal(handle, signal.SIGTERM)
                if not select.select([handle], [], [], 5)[0]:
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                    select.select([handle], [], [], 5)
            finally:
                os.close(handle)
    for name in NODES:
        (folder / f"{name}.sock").unlink(missing_ok=True)
    (folder / "state.json").unlink(missing_ok=True)


def _pids(folder: Path, *, every: bool = False) -> dict[str, int]:
    """Guest -> process id, of the QEMU processes with this folder's mark; with ``every`` of their guards, too."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        environment = _environment(int(entry.name))
        if _mark(folder) not in environment:
            continue
        name = next((item[10:].decode() for item in environment if item.startswith(b"KIT_GUEST=")), "unnamed")
        with contextlib.suppress(OSError):
            if (entry / "comm").read_text().strip() != "sh":
                found[name] = int(entry.name)
            elif every:
                found[f"{name} guard"] = int(entry.name)
    return found


def _mark(folder: Path) -> bytes:
    return f"KIT_LAB={folder}".encode()


def _environment(pid: int) -> list[bytes]:
    """Of a process that has ended, or is another user's: nothing."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def _read(rdma: Rdma) -> Lab:
    folder = _folder(rdma)
    state = _state(folder)
    built = Image(Path(state["image"]))
    nodes = tuple(LabNode(name, state["ports"][name], built.user_key, KINDS[rdma], f"10.77.0.{number}")
                  for number, name in enumerate(NODES, 1))
    return Lab(rdma, nodes, folder / "known_hosts")


def _state(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / "state.json").read_text()))
    except (OSError, ValueError):
        return {}


def _folder(rdma: str) -> Path:
    folder = cache() / "lab" / "run" / rdma
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
