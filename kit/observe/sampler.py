"""The program that samples one node. It is sent there as text and run with the node's own python3 (3.7 or later).

It needs nothing but the standard library, changes nothing, and is told all in one JSON argument (`kit.observe.collect`
writes it): ``out`` file, ``now`` file, ``period_s``, ``deadline_s``, ``devices``, ``interfaces``, ``addresses``,
``urls``, ``eadm`` and ``gpu``. It ends at its deadline or on SIGTERM, after one last look.

``out`` gets JSON lines. A key is a metric in Prometheus' notation, ``tx_bytes{interface="eth0"}``; values stay the text
that was read:

    {"begun": t, "clock_ahead_s": s}       the node's clock, and how far it is ahead of the controller's
    {"id": n, "source": s, "key": k}       a key, before its first value
    {"t": t, "source": s, "v": [[n, v], …]}   what has changed since the source's last look; no mention: no change
    {"t": t, "source": s, "down": why}     no answer; afterwards all values are told again
    {"ready": t}                           every source has been looked at once

A source is ``rdma``, ``net``, ``sampler``, a name of ``urls``, or ``eadm/DEVICE`` and ``gpu/NUMBER``: of two devices
one may answer and the other not. Times are seconds since 1970 by the node's clock as it stood at the start, carried on
by the monotonic clock: a step of the wall clock in mid-run moves nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

_WALL, _MONO = time.time(), time.monotonic()
_SIOCGIFADDR = 0x8915
_HTTP_S = 2.0           # a server that is slower than this has no answer for this look
_MOST_KEYS = 4000       # of one source: a label that grows without end must not fill the disk
_SKIPPED = ("_bucket", "_created")
_FOREIGN = ("python_", "http_", "process_virtual")
_NET = ("rx_bytes", "rx_packets", "rx_errs", "rx_drop", "tx_bytes", "tx_packets", "tx_errs", "tx_drop")
_NET_COLUMNS = (0, 1, 2, 3, 8, 9, 10, 11)      # of /proc/net/dev, after the name
_GPU = ("utilization.gpu", "memory.used", "power.draw")
_GPU_NAMES = ("utilization_percent", "memory_used_mib", "power_w")


class Writer:
    """The file of samples: one line a look, only what changed. Used by all threads."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "w", encoding="utf-8")  # noqa: SIM115
        self._lock = threading.Lock()
        self._ids: dict[tuple[str, str], int] = {}
        self._last: dict[str, dict[str, str]] = {}

    def line(self, **what: Any) -> None:
        self._file.write(json.dumps(what, separators=(",", ":")) + "\n")
        self._file.flush()

    def look(self, source: str, values: dict[str, str]) -> None:
        with self._lock:
            last = self._last.setdefault(source, {})
            changed = []
            for key, value in values.items():
                if last.get(key) == value:
                    continue
                number = self._ids.get((source, key))
                if number is None:
                    if len(last) >= _MOST_KEYS:
                        continue
                    number = self._ids[source, key] = len(self._ids)
                    self.line(id=number, source=source, key=key)
                last[key] = value
                changed.append([number, value])
            self.line(t=_now(), source=source, v=changed)

    def down(self, source: str, why: object) -> None:
        with self._lock:
            self._last.pop(source, None)
            self.line(t=_now(), source=source, down=str(why)[:200])


def _now() -> float:
    return round(_WALL + time.monotonic() - _MONO, 4)


def repeat(work: Callable[[], None], period_s: float, until: float, stop: threading.Event) -> None:
    """Work after every period, and once more at the end; a period that was missed is left out."""
    begun = time.monotonic()
    ended = False
    while not ended:
        turn = int((time.monotonic() - begun) / period_s) + 1
        ended = stop.wait(max(min(begun + turn * period_s, until) - time.monotonic(), 0)) or time.monotonic() >= until
        work()


def read(path: str) -> str:
    """A small file of /sys or /proc, without Python's own buffers: fifty of them are read every second."""
    file = os.open(path, os.O_RDONLY)
    try:
        return os.read(file, 65536).decode("ascii", "replace")
    finally:
        os.close(file)


def rdma(devices: list[str] | None, root: str = "/sys/class/infiniband") -> dict[str, str]:
    """Every counter of every port, as the driver names it: eRDMA's two families, rxe, and InfiniBand's own bytes."""
    found: dict[str, str] = {}
    for device in sorted(devices or (os.listdir(root) if os.path.isdir(root) else ())):
        for port in _names(f"{root}/{device}/ports"):
            for folder in ("hw_counters", "counters"):
                at = f"{root}/{device}/ports/{port}/{folder}"
                for name in _names(at):
                    if name == "lifespan":      # how long the kernel caches the others: a setting
                        continue
                    with contextlib.suppress(OSError):     # a counter that this device cannot read
                        count = read(f"{at}/{name}").strip()
                        if count.isdigit():
                            found[f'{name}{{device="{device}",port="{port}"}}'] = count
    return found


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def net(interfaces: set[str] | None) -> dict[str, str]:
    """Bytes, packets, errors and drops of the interfaces; None: of all."""
    found: dict[str, str] = {}
    for line in read("/proc/net/dev").splitlines()[2:]:
        name, _, rest = line.partition(":")
        name, columns = name.strip(), rest.split()
        if interfaces is None or name in interfaces:
            for at, column in zip(_NET, _NET_COLUMNS):  # noqa: B905  (strict= needs Python 3.10)
                found[f'{at}{{interface="{name}"}}'] = columns[column]
    return found


def interfaces_of(addresses: list[str]) -> set[str]:
    """The interfaces that have one of these IPv4 addresses. The loopback interface has all of 127.0.0.0/8."""
    found = {"lo" for address in addresses if address.startswith("127.")}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):      # an interface without an address
                answer = fcntl.ioctl(asked, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                if socket.inet_ntoa(answer[20:24]) in addresses:
                    found.add(name)
    return found


def metrics(text: str) -> dict[str, str]:
    """Key -> value of every sample but buckets and what is about the program itself. Labels are not looked into."""
    found: dict[str, str] = {}
    for line in text.split("\n"):
        if not line or line[0] == "#":
            continue
        end = line.rfind("}") + 1 or line.find(" ")
        key, rest = line[:end], line[end:].split()
        name = key.partition("{")[0]
        if rest and not name.endswith(_SKIPPED) and not name.startswith(_FOREIGN):
            found[key] = rest[0]
    return found


class Server:
    """One /metrics URL; its connection is kept."""

    def __init__(self, source: str, url: str, writer: Writer) -> None:
        parts = urlsplit(url)
        self._source, self._writer = source, writer
        self._where = (parts.hostname or "localhost", parts.port or 80)
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._connection: http.client.HTTPConnection | None = None

    def look(self) -> None:
        for last in (self._connection is None, True):       # a kept connection may have been closed by the server
            try:
                self._writer.look(self._source, metrics(self._get()))
                return
            except (OSError, http.client.HTTPException) as error:
                if self._connection is not None:
                    self._connection.close()
                self._connection = None
                if last:
                    self._writer.down(self._source, f"{type(error).__name__}: {error}")
                    return

    def _get(self) -> str:
        if self._connection is None:
            self._connection = http.client.HTTPConnection(*self._where, timeout=_HTTP_S)
        self._connection.request("GET", self._path)
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise http.client.HTTPException(f"status {answer.status}")
        return body.decode("utf-8", "replace")


def eadm(device: str, writer: Writer) -> None:
    """`eadm stat -d DEVICE`: lines ``name : count``."""
    source = f"eadm/{device}"
    try:
        done = subprocess.run(["eadm", "stat", "-d", device], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, timeout=_HTTP_S)
    except (OSError, subprocess.SubprocessError) as error:
        writer.down(source, f"{type(error).__name__}: {error}")
        return
    found: dict[str, str] = {}
    for line in done.stdout.decode("ascii", "replace").splitlines():
        name, _, count = (word.strip() for word in line.partition(":"))
        if name.isidentifier() and count.isdigit():
            found[f'{name}{{device="{device}"}}'] = count
    if found:
        writer.look(source, found)
    else:
        writer.down(source, f"exit status {done.returncode}, no counters")


def gpu(period_s: float, writer: Writer, stop: threading.Event) -> None:
    """One nvidia-smi that repeats itself: starting it every second would cost ten times as much."""
    command = ["nvidia-smi", f"--query-gpu=index,{','.join(_GPU)}", "--format=csv,noheader,nounits",
               f"--loop-ms={max(int(1000 * period_s), 100)}"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL) as child:
        threading.Thread(target=_end, args=(child, stop), daemon=True).start()
        assert child.stdout is not None  # noqa: S101
        for line in child.stdout:
            words = [word.strip() for word in line.decode("ascii", "replace").split(",")]
            if len(words) == 1 + len(_GPU):
                writer.look(f"gpu/{words[0]}", {
                    f'{name}{{gpu="{words[0]}"}}': word
                    for name, word in zip(_GPU_NAMES, words[1:])  # noqa: B905
                    if word.replace(".", "", 1).isdigit()})
    if not stop.is_set():
        writer.down("gpu", f"nvidia-smi ended with exit status {child.returncode}")


def _end(child: subprocess.Popen[bytes], stop: threading.Event) -> None:
    stop.wait()
    child.terminate()


def main(asked: dict[str, Any]) -> None:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    until = _MONO + asked["deadline_s"]
    writer = Writer(asked["out"])
    told = os.stat(asked["now"]).st_mtime
    with open(asked["now"], encoding="ascii") as file:
        writer.line(begun=_now(), clock_ahead_s=round(told - float(file.read()), 4))
    wanted = set(asked["interfaces"]) | interfaces_of(asked["addresses"]) or None

    def look() -> None:
        counters = rdma(asked["devices"])
        if counters:
            writer.look("rdma", counters)
        writer.look("net", net(wanted))
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        writer.look("sampler", {"cpu_s": f"{sum(each.ru_utime + each.ru_stime for each in used):.4f}"})

    works = [Server(source, url, writer).look for source, url in asked["urls"].items()]
    if shutil.which("eadm"):
        works += [lambda device=device: eadm(device, writer) for device in asked["eadm"]]  # type: ignore[misc]
    threads = [threading.Thread(target=repeat, args=(work, asked["period_s"], until, stop)) for work in works]
    if asked["gpu"] and shutil.which("nvidia-smi"):
        threads.append(threading.Thread(target=gpu, args=(asked["period_s"], writer, stop)))
    for work in (look, *works):
        work()
    writer.line(ready=_now())
    for thread in threads:
        thread.daemon = True
        thread.start()
    repeat(look, asked["period_s"], until, stop)
    stop.set()
    for thread in threads:
        thread.join(_HTTP_S)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
