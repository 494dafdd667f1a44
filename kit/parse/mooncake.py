"""Reader of mooncake_master's log: its periodic status line, and what became of its clients.

Format: Mooncake 0.3.7 rpc_service.cpp and 0.3.13 master_admin_service.cpp. 0.3.7 counts requests since the start,
later versions print rates a second: `MasterStatus.rates` says which. For figures, prefer the master's /metrics
(`kit.parse.prometheus`), which counts in both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from kit.errors import ParseError

_STATUS = re.compile(r"Master (?:Admin )?Metrics: (.*)")
_UNITS = {"B": 1, "KB": 2**10, "MB": 2**20, "GB": 2**30, "TB": 2**40}
_SIZE = r"(\d{1,15}(?:\.\d{1,3})?) (B|KB|MB|GB|TB)"
_MEMORY = re.compile(rf"Mem Storage: {_SIZE} / {_SIZE}")
_KEYS = re.compile(r"Keys: (\d{1,15}) \(soft-pinned: (\d{1,15})\)")
_REQUESTS = re.compile(r"\| Requests \(Success/Total( per sec)?\): ([^|]*)")
_REQUEST = re.compile(r"(\w+)=(\d{1,15}(?:\.\d+)?)/(\d{1,15}(?:\.\d+)?)")
_BATCHES = re.compile(r"\| Batch Requests \([^)]*\): ([^|]*)")
_BATCH = re.compile(r"(\w+):\(Req=(\S+?)/(\S+?)/(\S+?), Item=([\d.]+)/([\d.]+)\)")
_EVICTION = re.compile(rf"\| Eviction: Success/Attempts=(\d{{1,15}})/(\d{{1,15}}),.*? keys=(\d{{1,15}}), size={_SIZE}")
_EXPIRED = re.compile(r"client_id=(\S+), action=client_expired")
_STARTED = re.compile(r"Master service started on port (\d{1,5})")


@dataclass(frozen=True)
class MasterStatus:
    """One status line. ``requests`` and ``items``: name -> (succeeded, all); ``items`` are those of batch requests."""

    allocated_bytes: int
    capacity_bytes: int
    keys: int
    soft_pinned_keys: int
    rates: bool
    requests: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    items: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    evictions: int = 0
    eviction_attempts: int = 0
    evicted_keys: int = 0
    evicted_bytes: int = 0


@dataclass(frozen=True)
class MasterLog:
    """A master's log: the RPC port it took, its status lines in order, and the clients that it gave up."""

    port: int | None = None
    statuses: tuple[MasterStatus, ...] = ()
    expired_clients: tuple[str, ...] = ()


def parse_master_log(text: str) -> MasterLog:
    """Other lines do not matter; a last line without its end is not read. Raises ParseError for a damaged status."""
    port: int | None = None
    statuses: list[MasterStatus] = []
    expired: list[str] = []
    for line in text.split("\n")[:-1]:
        if row := _STATUS.search(line):
            statuses.append(_status(row[1], line))
        elif row := _EXPIRED.search(line):
            expired.append(row[1])
        elif row := _STARTED.search(line):
            port = int(row[1])
    return MasterLog(port, tuple(statuses), tuple(expired))


def _status(text: str, line: str) -> MasterStatus:
    memory, keys, requests = _MEMORY.search(text), _KEYS.search(text), _REQUESTS.search(text)
    batches, eviction = _BATCHES.search(text), _EVICTION.search(text)
    if not (memory and keys and requests and batches and eviction):
        raise ParseError("a damaged status line of mooncake_master", line=line)
    return MasterStatus(
        _bytes(memory[1], memory[2]), _bytes(memory[3], memory[4]), int(keys[1]), int(keys[2]),
        rates=requests[1] is not None,
        requests={name: (float(good), float(every)) for name, good, every in _REQUEST.findall(requests[2])},
        items={row[0]: (_figure(row[4], line), _figure(row[5], line)) for row in _BATCH.findall(batches[1])},
        evictions=int(eviction[1]), eviction_attempts=int(eviction[2]), evicted_keys=int(eviction[3]),
        evicted_bytes=_bytes(eviction[4], eviction[5]))


def _bytes(figure: str, unit: str) -> int:
    """Printed with two decimals, in powers of 1024."""
    return round(float(figure) * _UNITS[unit])


def _figure(word: str, line: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise ParseError("a damaged status line of mooncake_master", line=line) from None
