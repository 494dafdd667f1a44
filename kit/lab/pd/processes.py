"""Finding and ending what runs in the lab.

Everything that is started through the lab's ssh servers has ``KIT_PD_LAB=<folder>`` in its environment. The servers
themselves write their title over theirs; they are known by the configuration file in it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterable
from pathlib import Path

MARK = "KIT_PD_LAB"
_TERM_S, _KILL_S = 12.0, 5.0     # a vLLM server takes 6 s to end by itself


def servers(folder: Path) -> dict[str, int]:
    """Node -> process id, of the lab's ssh servers under ``folder``, whose nodes are folders in it."""
    found = {}
    for pid in _pids():
        said = _read(pid, "cmdline")
        for node in ("a", "b"):
            if f"{folder / node}/sshd_config".encode() in said and _read(pid, "comm").strip() == b"sshd":
                found[node] = pid
    return found


def end_all(folder: Path) -> int:
    """End the servers and everything that was started through them, and their descendants; how many there were.

    TERM first; what is left after 12 s is killed. Never this process or one that it descends from.
    """
    ended, deadline, sign = 0, time.monotonic() + _TERM_S, signal.SIGTERM
    while found := _family(folder):
        handles = [handle for pid in found if (handle := _open(pid)) is not None]
        try:
            for handle in handles:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handle, sign)
            ended = max(ended, len(handles))
            _wait(handles, deadline)
        finally:
            for handle in handles:
                os.close(handle)
        if time.monotonic() >= deadline:
            if sign == signal.SIGKILL:
                break
            sign, deadline = signal.SIGKILL, time.monotonic() + _KILL_S
    return ended


def running(folder: Path) -> int:
    """How many processes the lab has, servers included."""
    return len(_family(folder))


def _family(folder: Path) -> set[int]:
    parents = {pid: _parent(pid) for pid in _pids()}
    marks = {f"{MARK}={folder / node}".encode() for node in ("a", "b")}
    found = set(servers(folder).values()) | {pid for pid in parents
                                             if marks & set(_read(pid, "environ").split(b"\0"))}
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        found |= more
        grown = bool(more)
    return found - _lineage(parents)


def _lineage(parents: dict[int, int]) -> set[int]:
    """This process and those it descends from."""
    line, pid = {0, 1}, os.getpid()
    while pid not in line:
        line.add(pid)
        pid = parents.get(pid, 0)
    return line


def _pids() -> Iterable[int]:
    return [int(entry.name) for entry in Path("/proc").glob("[0-9]*")]


def _parent(pid: int) -> int:
    """0 for a process that has ended; one that waits to be collected counts as ended."""
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return int(fields[1]) if len(fields) > 1 and fields[0] not in {b"Z", b"X"} else 0


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def _open(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _wait(handles: list[int], deadline: float) -> None:
    left = set(handles)
    while left and (wait_s := deadline - time.monotonic()) > 0:
        left -= set(select.select(left, [], [], wait_s)[0])
