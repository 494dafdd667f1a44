"""Readers of what the kernel and the distribution tell: modules, os-release, cpuinfo, meminfo, hardware counters.

Formats: proc(5), os-release(5), sysfs ``infiniband/<dev>/ports/<n>/hw_counters``. Each reader raises ParseError with
the line that does not fit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from kit.errors import ParseError

CounterFamily = Literal["rxe", "erdma", "erdma-mainline", "other", "none"]


@dataclass(frozen=True)
class Module:
    """A loaded kernel module: size in bytes and the modules that use it."""

    name: str
    size_bytes: int
    used_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Counters:
    """A port's hardware counters since the driver was loaded, under one set of names.

    ``None`` where the driver counts no such thing. ``drops`` are those that tell of a cap or of losses; ``raw`` is
    everything as the driver names it.
    """

    family: CounterFamily
    tx_bytes: int | None = None
    rx_bytes: int | None = None
    tx_packets: int | None = None
    rx_packets: int | None = None
    drops: dict[str, int] = field(default_factory=dict)
    raw: dict[str, int] = field(default_factory=dict)


_ERDMA = {"tx_bytes": "tx_bytes_cnt", "rx_bytes": "rx_bytes_cnt",
          "tx_packets": "tx_packets_cnt", "rx_packets": "rx_packets_cnt"}
# family -> the driver's name of each normalised counter; its presence also tells the family
_NAMES: dict[CounterFamily, dict[str, str]] = {
    "erdma": {ours: f"hw_{theirs}" for ours, theirs in _ERDMA.items()},  # Alibaba's own driver, erdma_stats.c
    "erdma-mainline": _ERDMA,  # Linux, erdma_verbs.c: the same without hw_
    "rxe": {"tx_packets": "sent_pkts", "rx_packets": "rcvd_pkts"},  # Linux, rxe_hw_counters.c: counts no bytes
}
_RXE_DROPS = (
    "duplicate_request", "out_of_seq_request", "rcvd_rnr_err", "send_rnr_err", "rcvd_seq_err", "retry_exceeded_err",
    "retry_rnr_exceeded_err", "completer_retry_err", "send_err",
)
# milliseconds for which the kernel caches the others: a setting, not a counter
_NOT_COUNTERS = ("lifespan",)


def _is_drop(name: str) -> bool:
    return name.endswith("_drop_cnt") or name in _RXE_DROPS


def parse_hw_counters(text: str) -> Counters:
    """Lines ``name value``; no line at all means that the driver has none (siw)."""
    raw: dict[str, int] = {}
    for line in text.split("\n"):
        if not line.strip():
            continue
        row = re.fullmatch(r"\s*([A-Za-z]\w*)\s+([0-9]{1,20})\s*", line, re.ASCII)
        if not row:
            raise ParseError("not a line `name value` of hw_counters", line=line)
        if row[1] not in _NOT_COUNTERS:
            raw[row[1]] = int(row[2])
    if not raw:
        return Counters("none")
    for family, names in _NAMES.items():
        if all(name in raw for name in names.values()):
            return Counters(family, **{ours: raw[theirs] for ours, theirs in names.items()},
                            drops={name: value for name, value in raw.items() if _is_drop(name)}, raw=raw)
    return Counters("other", raw=raw)


def parse_lsmod(text: str) -> list[Module]:
    """`lsmod`, or /proc/modules, which has two columns more and is there without kmod."""
    found: list[Module] = []
    for line in text.split("\n"):
        words = line.split()
        if not words or words[0] == "Module":
            continue
        if len(words) < 3 or not all(re.fullmatch(r"-?[0-9]{1,15}", word) for word in words[1:3]):
            raise ParseError("not a line of lsmod", line=line)
        # /proc/modules shows no users as "-" and "[permanent]" beside real users
        users = words[3].split(",") if len(words) > 3 else []
        found.append(Module(words[0], int(words[1]), tuple(u for u in users if re.fullmatch(r"\w+", u))))
    return found


def parse_os_release(text: str) -> dict[str, str]:
    """os-release(5): ``KEY=value`` with shell quotes; ``PRETTY_NAME`` is the one to show."""
    found: dict[str, str] = {}
    for line in text.split("\n"):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        row = re.fullmatch(r"\s*([A-Z][A-Z0-9_]*)=(.*?)\s*", line)
        if not row:
            raise ParseError("not a line of os-release", line=line)
        value = row[2]
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
            value = re.sub(r"\\(.)", r"\1", value[1:-1])
        found[row[1]] = value
    if not found:
        raise ParseError("an empty os-release")
    return found


def parse_cpu_model(text: str) -> str:
    """The processor's name in /proc/cpuinfo; Arm kernels give only numbers, which then are the name."""
    values: dict[str, str] = {}
    for line in text.split("\n"):
        key, colon, value = line.partition(":")
        if colon:
            values.setdefault(key.strip(), value.strip())
    if model := values.get("model name") or values.get("Model Name") or values.get("cpu model"):
        return model
    if "CPU implementer" in values:
        return f"Arm implementer {values['CPU implementer']} part {values.get('CPU part', '?')}"
    raise ParseError("no processor in cpuinfo", line=text.split("\n", 1)[0])


def parse_cpu_list(text: str) -> int:
    """How many CPUs a kernel list like ``0-3,8`` holds (/sys/devices/system/cpu/online)."""
    total = 0
    for part in text.strip().split(","):
        span = re.fullmatch(r"([0-9]{1,6})(?:-([0-9]{1,6}))?", part)
        if not span or int(span[2] or span[1]) < int(span[1]):
            raise ParseError("not a list of CPUs", line=text.strip())
        total += int(span[2] or span[1]) - int(span[1]) + 1
    return total


def parse_mem_total(text: str) -> int:
    """Bytes of memory, from /proc/meminfo's ``MemTotal: N kB``."""
    for line in text.split("\n"):
        if row := re.fullmatch(r"MemTotal:\s+([0-9]{1,15}) kB\s*", line):
            return int(row[1]) * 1024
    raise ParseError("no MemTotal in meminfo", line=text.split("\n", 1)[0])


def parse_uname_r(text: str) -> str:
    """`uname -r`: one word."""
    release = text.strip()
    if not re.fullmatch(r"[0-9]\S*", release):
        raise ParseError("not a kernel release", line=release.split("\n")[0])
    return release


def parse_memlock(text: str) -> int | None:
    """`ulimit -l` in bytes (it prints KiB); None for unlimited."""
    limit = text.strip()
    if limit == "unlimited":
        return None
    if not re.fullmatch(r"[0-9]{1,15}", limit):
        raise ParseError("not a limit of `ulimit -l`", line=limit.split("\n")[0])
    return int(limit) * 1024
