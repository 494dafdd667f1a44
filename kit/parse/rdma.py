"""Readers of iproute2's `rdma -j …`: links, resources, connection manager ids, counters.

All print a JSON array of flat objects (iproute2, rdma/). Older versions follow it with an error text and exit 1 when
one device of several cannot answer; that is a ParseError here, never half an answer.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, NoReturn

from kit.errors import ParseError


@dataclass(frozen=True)
class RdmaLink:
    """One port of one device, as `rdma -j link show`; ``netdev`` is the network interface under it, if any."""

    ifname: str
    port: int
    state: str
    physical_state: str
    netdev: str | None = None


@dataclass(frozen=True)
class RdmaResource:
    """How many objects of each kind (``qp``, ``mr``, ``cm_id``, …) are open on a device."""

    ifname: str
    counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class CmId:
    """A connection manager id; a server under RDMA_CM shows as state ``LISTEN`` with its port, even without socket."""

    ifname: str
    state: str
    src_addr: str = ""
    src_port: int | None = None
    dst_addr: str = ""
    dst_port: int | None = None
    pid: int | None = None
    comm: str = ""
    lqpn: int | None = None


@dataclass(frozen=True)
class RdmaStatistic:
    """Counters of one port as the driver names them."""

    ifname: str
    port: int
    counters: dict[str, int] = field(default_factory=dict)


_FAILURES = (
    (re.compile(r"Failed to open NETLINK_RDMA socket"), "no_rdma_netlink",
     "The kernel has no RDMA core loaded: `modprobe ib_core`, or boot a kernel that has it."),
    (re.compile(r"error: (Invalid argument|Operation not supported|No such file or directory)"), "not_supported",
     "A device on this node does not answer this question (siw keeps no counters): ask for another device."),
    (re.compile(r"(Wrong device name|.*Cannot find device|Error: .*No such device)"), "device_not_found",
     "Ask `rdma link show` for the names on this node and put the right one in the site file."),
)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _rows(text: str) -> list[dict[str, Any]]:
    for line in text.split("\n"):
        for pattern, symptom, remedy in _FAILURES:
            if pattern.match(line):
                raise ParseError("the tool reports a failure", line=line, symptom=symptom, remedy=remedy)
    try:
        # NaN and numbers of thousands of digits are ValueErrors too: iproute2 prints only u64
        rows = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        first = next((line for line in text.split("\n") if line.strip()), "")
        raise ParseError("not the JSON of rdma", line=first) from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ParseError("not an array of objects as rdma prints it", line=text.strip().split("\n")[0])
    return rows


def _text(row: dict[str, Any], key: str, *default: str) -> str:
    value = row.get(key, *default)
    if not isinstance(value, str):
        raise ParseError(f"no text under {key!r}", line=json.dumps(row))
    return value


def _count(row: dict[str, Any], key: str) -> int:
    value = row.get(key)
    if not _is_count(value):
        raise ParseError(f"no whole number under {key!r}", line=json.dumps(row))
    return int(row[key])


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**64


def _counts(row: dict[str, Any], *but: str) -> dict[str, int]:
    return {key: _count(row, key) for key in row if key not in but}


def parse_rdma_links(text: str) -> list[RdmaLink]:
    """`rdma -j link show`"""
    return [RdmaLink(_text(row, "ifname"), _count(row, "port"), _text(row, "state", ""),
                     _text(row, "physical_state", ""), _text(row, "netdev") if "netdev" in row else None)
            for row in _rows(text)]


def parse_rdma_resources(text: str) -> list[RdmaResource]:
    """`rdma -j resource show`: summary per device."""
    return [RdmaResource(_text(row, "ifname"), _counts(row, "ifname", "ifindex")) for row in _rows(text)]


def parse_rdma_statistics(text: str) -> list[RdmaStatistic]:
    """`rdma -j statistic show`: counters per port."""
    return [RdmaStatistic(_text(row, "ifname"), _count(row, "port"), _counts(row, "ifname", "ifindex", "port"))
            for row in _rows(text)]


def _address(row: dict[str, Any], key: str) -> tuple[str, int | None]:
    """``0.0.0.0:18515`` -> host and TCP-like port; IPv6 may come in brackets or bare."""
    address = _text(row, key, "")
    split = re.fullmatch(r"\[?(.*?)\]?:([0-9]{1,5})", address)
    return (split[1], int(split[2])) if split else (address, None)


def _cm_id(row: dict[str, Any]) -> CmId:
    src, src_port = _address(row, "src-addr")
    dst, dst_port = _address(row, "dst-addr")
    return CmId(_text(row, "ifname"), _text(row, "state", ""), src, src_port, dst, dst_port,
                _count(row, "pid") if "pid" in row else None, _text(row, "comm", ""),
                _count(row, "lqpn") if "lqpn" in row else None)


def parse_rdma_cm_ids(text: str) -> list[CmId]:
    """`rdma -j resource show cm_id`"""
    return [_cm_id(row) for row in _rows(text)]
