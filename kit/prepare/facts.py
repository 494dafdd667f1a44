"""What a preparation must know of a node, read in one command that changes nothing (`kit/prepare/facts.sh`)."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from kit.command import script
from kit.device import Section, split_sections
from kit.errors import CommandError, ParseError
from kit.hosts.base import Host
from kit.parse.kernel import Module, parse_lsmod, parse_memlock, parse_os_release, parse_uname_r
from kit.parse.rdma import CmId, parse_rdma_cm_ids

_SCRIPT = Path(__file__).with_suffix(".sh")
_DEADLINE_S = 120
T = TypeVar("T")
Rights = Literal["root", "sudo", "none"]

# node_type of the device, as sysfs prints it: Linux, ib_verbs.h
_NODE_TYPES = {"1": "InfiniBand", "4": "iWARP"}


@dataclass(frozen=True)
class User:
    """A process that holds RDMA objects."""

    pid: int
    name: str


@dataclass(frozen=True)
class Container:
    """A container by its name: which runtime has it, its state, and the plan it was made from."""

    runtime: str
    status: str
    plan: str


@dataclass(frozen=True)
class Facts:
    """One node before a preparation. Sizes in bytes, times in seconds; None where the node did not tell.

    ``packages`` are the installed ones with their versions, ``candidates`` what apt would install now.
    ``modinfo`` is the erdma module for the running kernel, on disk; ``loaded`` and ``params`` that in the kernel.
    ``stacks`` is the digest of the requirements that a container was last given.
    ``clock_s`` is the node's clock somewhere within the ``asked_s`` that the question took.
    ``rights`` is how commands become root; ``address`` the node's own on the RDMA network.
    """

    node: str = "a"
    rights: Rights = "root"
    address: str = ""
    os_id: str = ""
    os_version: str = ""
    codename: str = ""
    kernel: str = ""
    in_container: bool = False
    systemd: bool = False
    tools: frozenset[str] = frozenset()
    executables: frozenset[str] = frozenset()
    modinfo: bool = False
    modinfo_version: str = ""
    loaded: bool = False
    loaded_version: str = ""
    refcount: int = 0
    used_by: tuple[str, ...] = ()
    params: dict[str, str] = field(default_factory=dict)
    devices: dict[str, str] = field(default_factory=dict)
    dev_files: tuple[str, ...] = ()
    users: tuple[User, ...] = ()
    listening: frozenset[int] = frozenset()
    erdma_options: tuple[str, ...] = ()
    initramfs_s: int | None = None
    modprobe_file_s: int = 0
    memlock_bytes: int | None = None
    netdev: str = ""
    mac: str = ""
    mtu_bytes: int | None = None
    max_mtu_bytes: int | None = None
    ipv4: tuple[str, ...] = ()
    mounts: dict[str, tuple[str, str]] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)
    candidates: dict[str, str] = field(default_factory=dict)
    half_installed: bool = False
    dkms: tuple[str, ...] = ()
    units: dict[str, tuple[str, str]] = field(default_factory=dict)
    containers: dict[str, Container] = field(default_factory=dict)
    stacks: dict[str, str] = field(default_factory=dict)
    gpus: int = 0
    files: dict[str, bytes] = field(default_factory=dict)
    clock_s: float = 0.0
    asked_s: float = 0.0
    problems: dict[str, str] = field(default_factory=dict)

    def text(self, path: str) -> str | None:
        """A file's content as text; None where there is no such file."""
        raw = self.files.get(path)
        return None if raw is None else raw.decode(errors="replace")


@dataclass(frozen=True)
class Question:
    """What the items want to know beside the usual: packages, units, containers, and files to read whole."""

    address: str
    packages: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    containers: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


def read_facts(host: Host, question: Question) -> Facts:
    """Read a node's facts in one round trip. Raises HostError when the node cannot be asked."""
    words = (question.packages, question.units, question.containers, question.programs)
    answer = host.run(script(_SCRIPT.read_text(encoding="utf-8"), question.address, *map(" ".join, words),
                             *question.files), deadline_s=_DEADLINE_S)
    try:
        return replace(facts_of(split_sections(answer.stdout), host.name), asked_s=answer.wall_s)
    except ParseError as error:
        raise CommandError("the node's facts could not be read", node=host.name, command="kit/prepare/facts.sh",
                           output=answer.stderr or answer.stdout, remedy=str(error)) from error


class _Reading:
    def __init__(self, sections: dict[str, Section]) -> None:
        self.sections = sections
        self.problems: dict[str, str] = {}

    def text(self, name: str) -> str:
        return self.sections.get(name, Section("")).text

    def lines(self, name: str) -> list[str]:
        return [line.strip() for line in self.text(name).splitlines() if line.strip()]

    def get(self, name: str, parse: Callable[[str], T], otherwise: T) -> T:
        section = self.sections.get(name, Section(""))
        if section.missing or not section.text.strip() or section.exit_code not in (0, None):
            return otherwise
        try:
            return parse(section.text)
        except ParseError as error:
            self.problems[name] = str(error)
            return otherwise

    def pairs(self, name: str) -> dict[str, str]:
        rows = (line.partition(" ") for line in self.lines(name))
        return {key: value.strip() for key, _, value in rows}

    def number(self, name: str, key: str) -> int | None:
        value = self.pairs(name).get(key, "")
        return int(value) if re.fullmatch(r"[0-9]{1,18}", value) else None


def facts_of(sections: dict[str, Section], node: str) -> Facts:
    """The script's sections as facts; what cannot be read is a problem, not an exception."""
    reading = _Reading(sections)
    release = reading.get("os", parse_os_release, dict[str, str]())
    modules = {module.name: module for module in reading.get("modules", parse_lsmod, list[Module]())}
    erdma = reading.pairs("erdma")
    has_module = sections.get("modinfo", Section("", 1)).exit_code == 0
    version = re.search(r"^version:\s+(\S+)", reading.text("modinfo"), re.MULTILINE) if has_module else None
    address = reading.text("address").strip()
    link = _interface(reading, address)
    return Facts(
        node=node, rights=_rights(reading), address=address, os_id=release.get("ID", ""),
        os_version=release.get("VERSION_ID", ""), codename=release.get("VERSION_CODENAME", ""),
        kernel=reading.get("kernel", parse_uname_r, ""), in_container=reading.text("inside").strip() == "container",
        systemd=reading.text("systemd").strip() == "yes", tools=frozenset(reading.lines("tools")),
        executables=frozenset(reading.lines("executables")),
        modinfo=has_module, modinfo_version=version[1] if version else "",
        loaded="erdma" in modules, loaded_version=erdma.get("version", ""),
        refcount=reading.number("erdma", "refcount") or 0,
        used_by=modules["erdma"].used_by if "erdma" in modules else (),
        params={key.removeprefix("param."): value for key, value in erdma.items() if key.startswith("param.")},
        devices={name: _NODE_TYPES.get(kind[:1], kind) for name, kind in reading.pairs("devices").items()},
        dev_files=tuple(reading.lines("dev_files")), users=_users(reading),
        listening=frozenset(int(line) for line in reading.lines("listening") if re.fullmatch(r"[0-9]{1,5}", line)),
        erdma_options=tuple(reading.lines("modprobe_d")), initramfs_s=reading.number("boot", "initramfs"),
        modprobe_file_s=reading.number("boot", "modprobe_file") or 0,
        memlock_bytes=_memlock(reading),
        netdev=link.get("ifname", ""), mac=link.get("address", ""), mtu_bytes=link.get("mtu"),
        max_mtu_bytes=link.get("max_mtu"), ipv4=link.get("ipv4", ()),
        mounts=_mounts(reading), packages=_packages(reading), candidates=_candidates(reading),
        half_installed=bool(reading.text("dpkg_audit").strip()), dkms=tuple(reading.lines("dkms")),
        units=_units(reading), containers=_containers(reading),
        stacks=reading.pairs("stacks"), gpus=len(reading.lines("gpus")),
        files=_files(reading.text("files")),
        clock_s=_clock(reading), problems=reading.problems)


def _rights(reading: _Reading) -> Rights:
    if reading.text("user").strip() == "0":
        return "root"
    return "sudo" if reading.text("sudo").strip() == "yes" else "none"


def _memlock(reading: _Reading) -> int | None:
    """A limit that cannot be read is taken for none at all, so that the item says so."""
    nothing: int | None = 0
    return reading.get("memlock", parse_memlock, nothing)


def _users(reading: _Reading) -> tuple[User, ...]:
    """Who holds RDMA objects: by open device files, by connection manager ids, by queue pairs of a process."""
    found = {int(pid): name for pid, name in reading.pairs("holders").items() if pid.isdecimal()}
    for cm_id in reading.get("rdma_cm", parse_rdma_cm_ids, list[CmId]()):
        if cm_id.pid is not None:
            found.setdefault(cm_id.pid, cm_id.comm)
    for row in reading.get("rdma_qp", _json_rows, list[dict[str, Any]]()):
        if isinstance(row.get("pid"), int):
            found.setdefault(row["pid"], str(row.get("comm", "")))
    return tuple(User(pid, name) for pid, name in sorted(found.items()))


def _json_rows(text: str) -> list[dict[str, Any]]:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ParseError("not JSON", line=text.split("\n", 1)[0]) from error
    if not isinstance(rows, list):
        raise ParseError("not a JSON array", line=text.split("\n", 1)[0])
    return [row for row in rows if isinstance(row, dict)]


def _interface(reading: _Reading, address: str) -> dict[str, Any]:
    """The network interface that has the address: name, MAC, MTU, the largest MTU, its IPv4 addresses."""
    for row in reading.get("ip_address", _json_rows, list[dict[str, Any]]()):
        infos = [info for info in row.get("addr_info", []) if isinstance(info, dict)]
        if address not in [info.get("local") for info in infos]:
            continue
        name = str(row.get("ifname", ""))
        links = reading.get("ip_link", _json_rows, list[dict[str, Any]]())
        largest = [link.get("max_mtu") for link in links if link.get("ifname") == name]
        mtu = row.get("mtu")
        return {"ifname": name, "address": str(row.get("address", "")), "mtu": mtu if isinstance(mtu, int) else None,
                "max_mtu": next((value for value in largest if isinstance(value, int)), None),
                "ipv4": tuple(str(info.get("local")) for info in infos if info.get("family") == "inet")}
    return {}


def _mounts(reading: _Reading) -> dict[str, tuple[str, str]]:
    """Mount point -> what is mounted there, and its file system."""
    rows = (line.split() for line in reading.lines("mounts"))
    return {row[1]: (row[0], row[2]) for row in rows if len(row) >= 3}


def _packages(reading: _Reading) -> dict[str, str]:
    rows = [line.split("\t") for name in ("dpkg", "rpm") for line in reading.lines(name)]
    return {row[0]: row[1] for row in rows if len(row) == 3 and row[2] == "installed"}


def _candidates(reading: _Reading) -> dict[str, str]:
    """`apt-cache policy`: package -> the version that apt would install."""
    found = re.findall(r"^([a-z0-9][a-z0-9.+-]*):\n(?:  .*\n)*?  Candidate: (\S+)", reading.text("policy"),
                       re.MULTILINE)
    return {name: version for name, version in found if version != "(none)"}


def _units(reading: _Reading) -> dict[str, tuple[str, str]]:
    rows = (line.split() for line in reading.lines("units"))
    return {row[0]: (row[1], row[2]) for row in rows if len(row) == 3}


def _containers(reading: _Reading) -> dict[str, Container]:
    rows = (line.split() for line in reading.lines("containers"))
    return {row[1]: Container(row[0], row[2], row[3] if len(row) > 3 else "") for row in rows if len(row) >= 3}


def _files(text: str) -> dict[str, bytes]:
    """``@@file SIZE PATH`` and the content in base64, of every file that is there."""
    found: dict[str, bytes] = {}
    for head, body in re.findall(r"^@@file ([0-9]+ .+)\n(.*)$", text, re.MULTILINE):
        try:
            found[head.partition(" ")[2]] = base64.b64decode(body, validate=True)
        except ValueError:     # binascii's own, or text that is not ASCII
            continue
    return found


def _clock(reading: _Reading) -> float:
    text = reading.text("clock").strip()
    return int(text) / 1e9 if re.fullmatch(r"[0-9]{10,20}", text) else 0.0
