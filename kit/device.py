"""A node's facts about its RDMA devices: read in one command that changes nothing, kept, compared, demanded.

`kit/device.sh` prints them in sections; a tool that is missing or fails is a fact too, kept under ``problems``.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from kit.command import script
from kit.describe import DeviceSummary, Mode, compare_pair, describe, family, mode
from kit.errors import CommandError, DeviceError, ParseError
from kit.hosts.base import Host
from kit.parse.ibv import Gid, IbvDevice, parse_ibv_devices, parse_ibv_devinfo
from kit.parse.kernel import (
    Counters,
    Module,
    parse_cpu_list,
    parse_cpu_model,
    parse_hw_counters,
    parse_lsmod,
    parse_mem_total,
    parse_memlock,
    parse_os_release,
    parse_uname_r,
)
from kit.parse.rdma import RdmaLink, RdmaResource, parse_rdma_links, parse_rdma_resources

__all__ = ["DeviceSummary", "Mode", "NodeFacts", "Section", "compare_pair", "describe", "family", "mode",
           "read_facts", "require_device", "split_sections"]

_SCRIPT = Path(__file__).with_suffix(".sh")
_DEADLINE_S = 90  # above the script's own 10 s for each of its eight tools
_RDMA_MODULE = re.compile(r"(erdma|siw|rdma_\w+|ib_\w+|iw_cm|mlx5_ib|mlx5_core|mlx_compat|irdma|nvidia_peermem)")
_VERSION = re.compile(r"Version: ([0-9][\w.+-]*)", re.ASCII)
_PACKAGE = re.compile(r"([a-z0-9][\w.+-]*) ([0-9][\w.:+~-]*)", re.ASCII)
T = TypeVar("T")


@dataclass(frozen=True)
class Section:
    """One section of the script's output. ``exit_code`` is None for plain values and for a missing tool."""

    text: str
    exit_code: int | None = None
    missing: bool = False


def split_sections(text: str) -> dict[str, Section]:
    """The script's output by section. Raises ParseError when it was cut off before its last one."""
    found: dict[str, Section] = {}
    for part in re.split(r"(?m)^@@kit ", text)[1:]:
        name, _, body = part.partition("\n")
        ended = re.search(r"\n?^@@exit ([0-9]{1,3})\s*\Z", body, re.MULTILINE)
        text_of = body[:ended.start()] if ended else body
        missing = body.strip() == "@@missing"
        found[name.strip()] = Section("" if missing else text_of.strip("\n"), int(ended[1]) if ended else None, missing)
    if "end" not in found:
        raise ParseError("the facts end too early", line=text.rstrip().rpartition("\n")[2], symptom="truncated")
    return found


@dataclass(frozen=True)
class NodeFacts:
    """What is known of one node. Keys of ``gids`` and ``netdevs`` are device names, of ``counters`` ``device/port``.

    ``memlock_bytes`` None means unlimited; ``problems`` says why something could not be read.
    """

    node: str
    device: str | None = None
    kernel: str = ""
    os_name: str = ""
    cpu_model: str = ""
    cpu_count: int | None = None
    memory_bytes: int | None = None
    memlock_bytes: int | None = None
    systemd: bool = False
    modules: tuple[str, ...] = ()
    module_params: dict[str, str] = field(default_factory=dict)
    driver_version: str = ""
    dev_files: tuple[str, ...] = ()
    names: tuple[tuple[str, str], ...] = ()
    devices: tuple[IbvDevice, ...] = ()
    links: tuple[RdmaLink, ...] = ()
    resources: tuple[RdmaResource, ...] = ()
    counters: dict[str, Counters] = field(default_factory=dict)
    gids: dict[str, tuple[Gid, ...]] = field(default_factory=dict)
    netdevs: dict[str, str] = field(default_factory=dict)
    mtus: dict[str, int] = field(default_factory=dict)
    perftest_version: str = ""
    perftest_path: str = ""
    packages: dict[str, str] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    def gids_of(self, device: str) -> frozenset[str]:
        """The device's GIDs in use, as IPv6 text, so that they compare with those of a perftest header."""
        printed = [gid for it in self.devices if it.hca_id == device for port in it.ports for gid in port.gids]
        return frozenset(_ipv6(gid.gid) for gid in self.gids.get(device) or printed)

    def netdev_mtu(self, device: str) -> int | None:
        """Bytes; of the network interface under the device."""
        return self.mtus.get(self.netdevs.get(device, ""))

    def summary(self, device: str) -> DeviceSummary:
        """The named device, described with all that the node says. Raises DeviceError when there is none."""
        return describe(_find(self, device, self.node), module_params=self.module_params,
                        gid_count=len(self.gids_of(device)), netdev_mtu_bytes=self.netdev_mtu(device))

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain data, keys sorted, the same text for the same facts."""
        return {key: _sorted(value) for key, value in sorted(asdict(self).items())}

    def fingerprint(self) -> dict[str, str]:
        """What can change a result, flat and sorted; nothing that changes by itself (counters, open objects)."""
        memory = "" if self.memory_bytes is None else f"{self.memory_bytes / 2**30:.1f}"
        memlock = "" if "memlock" in self.problems else str(self.memlock_bytes or "unlimited")
        found = {"kernel": self.kernel, "os": self.os_name, "cpu": self.cpu_model, "cpus": str(self.cpu_count or ""),
                 "memory_gib": memory, "memlock_bytes": memlock, "modules": " ".join(self.modules),
                 "perftest": self.perftest_version, "device": self.device or ""}
        found |= {f"package.{name}": version for name, version in self.packages.items()}
        found |= {f"param.erdma.{name}": value for name, value in self.module_params.items()}
        for device in self.devices:
            facts = self._device_print(device)
            found |= {f"device.{device.hca_id}.{name}": value for name, value in facts.items()}
            if device.hca_id == self.device:
                found |= {"driver": facts["driver"], "mode": facts["mode"]}
        return {name: value for name, value in sorted(found.items()) if value}

    def _device_print(self, device: IbvDevice) -> dict[str, str]:
        kind = family(device)
        version = self.driver_version if kind == "erdma" else ""
        port = device.ports[0] if device.ports else None
        return {"driver": f"{kind} {version}".strip(), "mode": mode(device, self.module_params),
                "transport": device.transport or "", "firmware": device.fw_ver or "",
                "active_mtu": str(port.active_mtu_bytes or "") if port else "",
                "netdev": self.netdevs.get(device.hca_id, ""), "mtu": str(self.netdev_mtu(device.hca_id) or "")}


def _ipv6(gid: str) -> str:
    try:
        return str(ipaddress.IPv6Address(gid))
    except ValueError:
        return gid


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [_sorted(item) for item in value]
    return value


class _Reading:
    """Sections on their way to facts; what cannot be read becomes a problem instead of an exception."""

    def __init__(self, sections: dict[str, Section]) -> None:
        self.sections = sections
        self.problems: dict[str, str] = {}

    def text(self, name: str) -> str:
        return self.sections.get(name, Section("")).text

    def get(self, name: str, parse: Callable[[str], T], otherwise: T) -> T:
        section = self.sections.get(name, Section(""))
        if section.missing:
            self.problems[name] = "not installed"
            return otherwise
        try:
            return parse(section.text)
        except ParseError as error:
            self.problems[name] = str(error)
            return otherwise


def _sysfs(text: str) -> dict[str, str]:
    """Lines ``path value``, the path below /sys."""
    rows = (line.partition(" ") for line in text.split("\n"))
    return {path: value.strip() for path, _, value in rows if path}


def _per_port(values: dict[str, str], kind: str) -> dict[tuple[str, str], dict[str, str]]:
    """``class/infiniband/<device>/ports/<port>/<kind>/<name>`` -> (device, port) -> name -> value."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for path, value in values.items():
        if at := re.fullmatch(rf"class/infiniband/([^/]+)/ports/([^/]+)/{kind}/([^/]+)", path):
            found.setdefault((at[1], at[2]), {})[at[3]] = value
    return found


def _below(values: dict[str, str], folder: str) -> dict[str, str]:
    return {path.removeprefix(folder): value for path, value in values.items() if path.startswith(folder)}


def _gids(values: dict[str, str]) -> dict[str, tuple[Gid, ...]]:
    kinds = _per_port(values, "gid_attrs/types")
    found: dict[str, tuple[Gid, ...]] = {}
    for (device, port), entries in _per_port(values, "gids").items():
        rows = [Gid(int(index), gid, kinds.get((device, port), {}).get(index, ""))
                for index, gid in entries.items() if re.fullmatch(r"[0-9]{1,5}", index)]
        found[device] = (*found.get(device, ()), *sorted(rows, key=lambda gid: gid.index))
    return found


def _counters(values: dict[str, str], devices: tuple[IbvDevice, ...]) -> dict[str, Counters]:
    """Per ``device/port``; a port without any counter (siw) has family ``none``."""
    ports = _per_port(values, "hw_counters")
    for device in devices:
        for port in device.ports:
            ports.setdefault((device.hca_id, str(port.number)), {})
    # a driver may list a counter that cannot be read at the moment: leave that one out
    return {f"{name_of}/{number}": parse_hw_counters("\n".join(
                f"{name} {value}" for name, value in rows.items() if re.fullmatch(r"[0-9]{1,20}", value)))
            for (name_of, number), rows in ports.items()}


def read_facts(host: Host, *, device: str | None = None) -> NodeFacts:
    """Read a node's facts in one round trip. ``device`` is the one that the run is about, for the fingerprint.

    Raises HostError when the node cannot be asked; a missing tool or device is no error here.
    """
    answer = host.run(script(_SCRIPT.read_text(encoding="utf-8")), deadline_s=_DEADLINE_S)
    try:
        return _facts(split_sections(answer.stdout), host.name, device)
    except ParseError as error:
        raise CommandError("the node's facts could not be read", node=host.name, command="kit/device.sh",
                           output=answer.stderr or answer.stdout, remedy=str(error)) from error


def _facts(sections: dict[str, Section], node: str, device: str | None) -> NodeFacts:
    reading = _Reading(sections)
    values = _sysfs(reading.text("sysfs"))
    devices = tuple(reading.get("ibv_devinfo", parse_ibv_devinfo, list[IbvDevice]()))
    links = tuple(reading.get("rdma_link", parse_rdma_links, list[RdmaLink]()))
    ndevs = {name: rows["0"] for (name, _), rows in _per_port(values, "gid_attrs/ndevs").items() if rows.get("0")}
    packages = {row[1]: row[2] for name in ("dpkg", "rpm") for line in reading.text(name).split("\n")
                if (row := _PACKAGE.fullmatch(line.strip()))}
    if utility := re.search(r"iproute2-([0-9][\w.+-]*)", reading.text("iproute2")):
        packages.setdefault("iproute2", utility[1])
    version = reading.get("perftest", _VERSION.search, None)
    modules = reading.get("modules", parse_lsmod, list[Module]())
    mtus = {path.removesuffix("/mtu"): int(value) for path, value in _below(values, "class/net/").items()
            if path.endswith("/mtu") and re.fullmatch(r"[0-9]{1,6}", value)}
    release = reading.get("os", parse_os_release, dict[str, str]())
    return NodeFacts(
        node=node, device=device or (devices[0].hca_id if len(devices) == 1 else None),
        kernel=reading.get("kernel", parse_uname_r, ""),
        os_name=release.get("PRETTY_NAME") or release.get("NAME", ""),
        cpu_model=reading.get("cpu", parse_cpu_model, ""),
        cpu_count=reading.get("cpus", parse_cpu_list, None),
        memory_bytes=reading.get("memory", parse_mem_total, None),
        memlock_bytes=reading.get("memlock", parse_memlock, None),
        systemd=reading.text("systemd").strip() == "yes",
        modules=tuple(sorted(module.name for module in modules if _RDMA_MODULE.fullmatch(module.name))),
        module_params=_below(values, "module/erdma/parameters/"),
        driver_version=values.get("module/erdma/version", ""),
        dev_files=tuple(sorted(reading.text("dev_files").split())),
        names=tuple(reading.get("ibv_devices", parse_ibv_devices, [])), devices=devices, links=links,
        resources=tuple(reading.get("rdma_resource", parse_rdma_resources, [])),
        counters=_counters(values, devices), gids=_gids(values),
        netdevs=ndevs | {link.ifname: link.netdev for link in links if link.netdev}, mtus=mtus,
        perftest_version=version[1] if version else "", perftest_path=reading.text("perftest_path").strip(),
        packages=packages, problems=reading.problems)


def _find(facts: NodeFacts, name: str, node: str) -> IbvDevice:
    for device in facts.devices:
        if device.hca_id == name:
            return device
    there = ", ".join(device.hca_id for device in facts.devices) or "none"
    raise DeviceError(
        f"no RDMA device {name!r}; there are: {there}", node=node, command="ibv_devinfo -v",
        output=facts.problems.get("ibv_devinfo", ""),
        remedy="Put one of the devices that exist in the site file." if facts.devices else
               "Load the device's driver and install its libibverbs provider; in a container pass in /dev/infiniband.")


def require_device(facts: NodeFacts, name: str, node: str) -> IbvDevice:
    """The named device, with an ACTIVE port. Raises DeviceError with the devices that exist, or the port's state."""
    device = _find(facts, name, node)
    if not any(port.state == "PORT_ACTIVE" for port in device.ports):
        states = ", ".join(f"port {port.number} is {port.state}" for port in device.ports) or "it has no port"
        raise DeviceError(
            f"RDMA device {name!r} is not active: {states}", node=node, command="ibv_devinfo -v",
            remedy=f"Bring the network interface under it up: ip link set {facts.netdevs.get(name, 'DEV')} up")
    return device
