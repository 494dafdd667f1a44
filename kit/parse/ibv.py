"""Readers of `ibv_devices` and `ibv_devinfo`, with and without ``-v``.

The formats are those of rdma-core's libibverbs/examples/device_list.c and devinfo.c, and of vendors' patched copies
(Alibaba's prints the transport as ``eRDMA (1)``). Indentation means something there, but pasted dumps have tabs
turned into spaces, so a line is told by its content first and by its indentation only where that must decide.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kit.errors import ParseError


@dataclass(frozen=True)
class Gid:
    """One entry of a port's GID table; ``kind`` as printed (``RoCE v2``), empty where nothing is."""

    index: int
    gid: str
    kind: str


@dataclass(frozen=True)
class IbvPort:
    """One port. MTUs in bytes; the speed is that of one lane, in Gb/s. None where the tool did not print it."""

    number: int
    state: str
    state_code: int | None = None
    max_mtu_bytes: int | None = None
    active_mtu_bytes: int | None = None
    link_layer: str | None = None
    max_msg_sz_bytes: int | None = None
    gid_tbl_len: int | None = None
    pkey_tbl_len: int | None = None
    active_width: str | None = None
    active_speed_gbps_per_lane: float | None = None
    phys_state: str | None = None
    gids: tuple[Gid, ...] = ()
    attributes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class IbvDevice:
    """One device. Limits are counts unless the name says bytes. None where the tool did not print it.

    ``attributes`` holds every other line as text: ``section.key``, and ``key.flags`` for names listed under a key.
    """

    hca_id: str
    transport: str | None = None
    transport_code: int | None = None
    fw_ver: str | None = None
    node_guid: str | None = None
    sys_image_guid: str | None = None
    vendor_id: int | None = None
    vendor_part_id: int | None = None
    hw_ver: str | None = None
    board_id: str | None = None
    phys_port_cnt: int | None = None
    max_mr_size_bytes: int | None = None
    max_qp: int | None = None
    max_qp_wr: int | None = None
    max_sge: int | None = None
    max_sge_rd: int | None = None
    max_cq: int | None = None
    max_cqe: int | None = None
    max_mr: int | None = None
    max_pd: int | None = None
    max_mw: int | None = None
    max_qp_rd_atom: int | None = None
    max_qp_init_rd_atom: int | None = None
    max_srq: int | None = None
    max_srq_wr: int | None = None
    max_srq_sge: int | None = None
    num_comp_vectors: int | None = None
    atomic_cap: str | None = None
    ports: tuple[IbvPort, ...] = ()
    attributes: dict[str, str] = field(default_factory=dict)


_NO_DEVICES = ("Load the driver (`modprobe erdma`) and see that /dev/infiniband exists; in a container pass the "
               "devices in and install the driver's libibverbs provider.")
_FAILURES: tuple[tuple[re.Pattern[str], str, str], ...] = (
    (re.compile(r"No IB devices found"), "no_devices", _NO_DEVICES),
    (re.compile(r"(Failed to get (IB|RDMA) devices list|ibv_get_device_list failed)"), "no_devices", _NO_DEVICES),
    (re.compile(r"IB device '.*' wasn't found"), "device_not_found",
     "Ask `ibv_devices` for the names on this node and put the right one in the site file."),
    (re.compile(r"Failed to (open device|query )"), "query_failed",
     "The device is listed but does not answer: read dmesg, and check that driver and libibverbs provider match."),
    (re.compile(r"Invalid port requested for device"), "port_not_found", "Use port 1, or a port that the device has."),
)


def _lines(text: str) -> list[str]:
    # not splitlines(): that also breaks at form feeds and Unicode separators, which are just bytes to these tools
    return [line.rstrip("\r").expandtabs(8) for line in text.split("\n")]


def _raise_failure(lines: list[str]) -> None:
    """Raise the named symptom where a line is one of the tools' own error texts."""
    for line in lines:
        for pattern, symptom, remedy in _FAILURES:
            if pattern.match(line.strip()):
                raise ParseError("the tool reports a failure", line=line, symptom=symptom, remedy=remedy)


_DEVICE_ROW = re.compile(r"\s*(\S+)\s+([0-9a-f]{16})\s*")
_HEADER_ROW = re.compile(r"\s*(device\s+node GUID|-+\s+-+)\s*")


def parse_ibv_devices(text: str) -> list[tuple[str, str]]:
    """``(name, node GUID as 16 hex digits)`` per device, in the tool's order; empty where only the header came."""
    lines = _lines(text)
    _raise_failure(lines)
    found: list[tuple[str, str]] = []
    header = False
    for line in lines:
        if row := _DEVICE_ROW.fullmatch(line):
            found.append((row[1], row[2]))
        elif _HEADER_ROW.fullmatch(line):
            header = True
        elif line.strip() and not line.startswith("libibverbs: "):
            raise ParseError("not a line of ibv_devices", line=line)
    if not header and not found:
        raise ParseError("no output of ibv_devices")
    return found


def _number(value: str) -> int:
    """A u64, decimal or hexadecimal, with an optional name of its code behind it: ``4096 (5)``."""
    number = re.fullmatch(r"(0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20})(\s+\(-?[0-9]{1,10}\))?", value)
    if not number:
        raise ValueError
    return int(number[1], 0) if number[1][:2] in ("0x", "0X") else int(number[1])


def _mtu(value: str) -> int | None:
    return None if value.startswith("invalid") else _number(value)


def _lane_speed(value: str) -> float | None:
    if value.startswith("invalid"):
        return None
    speed = re.fullmatch(r"([0-9]{1,6}(\.[0-9]{1,6})?) Gbps(\s+\([0-9]{1,10}\))?", value)
    if not speed:
        raise ValueError
    return float(speed[1])


def _name_and_code(value: str) -> tuple[str, int | None]:
    """``PORT_ACTIVE (4)`` -> name and code; a bare name has no code."""
    name, _, code = value.rpartition("(")
    if not re.fullmatch(r"-?[0-9]{1,10}\)", code):
        return value, None
    return name.rstrip(), int(code[:-1])


def _name(value: str) -> str:
    return _name_and_code(value)[0]


_Reader = Callable[[str], Any]
_COUNTS = (
    "vendor_id", "vendor_part_id", "phys_port_cnt", "max_qp", "max_qp_wr", "max_sge", "max_sge_rd", "max_cq",
    "max_cqe", "max_mr", "max_pd", "max_mw", "max_qp_rd_atom", "max_qp_init_rd_atom", "max_srq", "max_srq_wr",
    "max_srq_sge", "num_comp_vectors",
)
_DEVICE_FIELDS: dict[str, tuple[str, _Reader]] = {
    **{name: (name, _number) for name in _COUNTS},
    **{name: (name, str) for name in ("fw_ver", "node_guid", "sys_image_guid", "hw_ver", "board_id")},
    "max_mr_size": ("max_mr_size_bytes", _number),
    "atomic_cap": ("atomic_cap", _name),
}
_PORT_FIELDS: dict[str, tuple[str, _Reader]] = {
    "max_mtu": ("max_mtu_bytes", _mtu),
    "active_mtu": ("active_mtu_bytes", _mtu),
    "link_layer": ("link_layer", str),
    "max_msg_sz": ("max_msg_sz_bytes", _number),
    "gid_tbl_len": ("gid_tbl_len", _number),
    "pkey_tbl_len": ("pkey_tbl_len", _number),
    "active_width": ("active_width", _name),
    "active_speed": ("active_speed_gbps_per_lane", _lane_speed),
    "phys_state": ("phys_state", _name),
}
# keys printed as a name with its code, kept as two fields
_CODED = {"transport": "transport_code", "state": "state_code"}

_HCA = re.compile(r"\s*hca_id:\s*(\S+)\s*")
_PORT = re.compile(r"\s*port:\s*([0-9]{1,4})\s*")
_GID = re.compile(r"\s*GID\[\s*([0-9]{1,5})\]:\s*([0-9a-fA-F:.]+)(?:,\s*(\S.*))?")
_ABSENT = " not supported"
_KEY = re.compile(r"[A-Za-z][\w /.-]*", re.ASCII)
_FLAG = re.compile(r"\s*(Unknown flags: .*|[A-Z][A-Z0-9_]*( [A-Z][A-Z0-9_]*)*)\s*")


class _Reading:
    """The device being read: where the next line belongs."""

    def __init__(self, hca_id: str, line: str) -> None:
        self.device: dict[str, Any] = {"hca_id": hca_id, "attributes": {}}
        self.ports: list[dict[str, Any]] = []
        self.last_line = line
        self._section = ("", -1)
        self._key = ""

    @property
    def _scope(self) -> dict[str, Any]:
        return self.ports[-1] if self.ports else self.device

    def add(self, line: str) -> None:
        self.last_line = line
        extra: dict[str, str] = self._scope["attributes"]
        if port := _PORT.fullmatch(line):
            self.ports.append({"number": int(port[1]), "attributes": {}, "gids": []})
            self._section, self._key = ("", -1), ""
        elif self.ports and (gid := _GID.fullmatch(line.rstrip())):
            self.ports[-1]["gids"].append(Gid(int(gid[1]), gid[2], gid[3] or ""))
        elif line.rstrip().endswith(_ABSENT):
            extra[line.strip().removesuffix(_ABSENT)] = "not supported"
        elif _FLAG.fullmatch(line) or (":" not in line and self._key and line.startswith(" " * 24)):
            self._flag(line, extra)
        else:
            self._attribute(line, extra)

    def _flag(self, line: str, extra: dict[str, str]) -> None:
        if not self._key:
            raise ParseError("a flag that belongs to no attribute", line=line)
        name = f"{self._key}.flags"
        extra[name] = f"{extra[name]}, {line.strip()}" if name in extra else line.strip()

    def _attribute(self, line: str, extra: dict[str, str]) -> None:
        key, colon, value = (part.strip() for part in line.partition(":"))
        if not (colon and _KEY.fullmatch(key)) or key == "port":
            raise ParseError("not a line of ibv_devinfo", line=line)
        indent = len(line) - len(line.lstrip())
        section, depth = self._section
        if section and indent > depth:
            key = f"{section}.{key}"
        elif not value:
            self._section = (key, indent)
        else:
            self._section = ("", -1)
        self._key = key
        fields = _PORT_FIELDS if self.ports else _DEVICE_FIELDS
        if key == ("state" if self.ports else "transport"):
            self._scope[key], self._scope[_CODED[key]] = _name_and_code(value)
        elif key in fields:
            name, read = fields[key]
            try:
                self._scope[name] = read(value)
            except ValueError:
                raise ParseError(f"not a value of {key}", line=line) from None
        else:
            extra[key] = value

    def done(self) -> IbvDevice:
        """The finished device; one that stops before its transport or its port's state was cut off."""
        if "transport" not in self.device or any("state" not in port for port in self.ports):
            raise ParseError("the output ends too early", line=self.last_line, symptom="truncated")
        ports = tuple(IbvPort(**{**port, "gids": tuple(port["gids"])}) for port in self.ports)
        return IbvDevice(**self.device, ports=ports)


def parse_ibv_devinfo(text: str) -> list[IbvDevice]:
    """Every device of `ibv_devinfo`, in the tool's order; with ``-l`` only names.

    Raises ParseError: ``no_devices``, ``device_not_found``, ``query_failed``, ``port_not_found``, ``truncated`` or
    ``unreadable``.
    """
    lines = _lines(text)
    _raise_failure(lines)
    readings: list[_Reading] = []
    listed: list[IbvDevice] | None = None
    for line in lines:
        if not line.strip() or line.startswith("libibverbs: "):
            continue
        if hca := _HCA.fullmatch(line):
            readings.append(_Reading(hca[1], line))
        elif readings:
            readings[-1].add(line)
        elif re.fullmatch(r"\s*[0-9]+ HCAs? found:\s*", line):
            listed = []
        elif listed is not None and re.fullmatch(r"\s*\S+\s*", line):
            listed.append(IbvDevice(line.strip()))
        else:
            raise ParseError("not a line of ibv_devinfo", line=line)
    if not readings and listed is None:
        raise ParseError("no output of ibv_devinfo")
    return [*(listed or []), *(reading.done() for reading in readings)]
