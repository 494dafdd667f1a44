"""What the perftest programs report, as data. Units are in the names; None stands for "not measured or not printed"."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

#: Size of -a's rows: 2 bytes to 8 MiB.
ALL_SIZES = tuple(2**power for power in range(1, 24))

#: Bits in one MB or MiB of perftest's: both spellings are 2^20 bytes (24.07 renamed the first to the second).
BITS_PER_MIB = 8 * 2**20


@dataclass(frozen=True)
class Address:
    """One queue pair as the header names it. ``gid`` is IPv6 text, None where none is printed."""

    side: str
    qpn: int
    lid: int | None = None
    psn: int | None = None
    gid: str | None = None


@dataclass(frozen=True)
class Row:
    """One line of results.

    Bandwidth is in 10^9 bits per second whatever unit was printed; the figures as printed are kept beside it.
    Latency is half a round trip for WRITE and SEND, a full one for READ and ATOMIC (see ``PerftestOutput.round_trip``).
    """

    size_bytes: int
    iterations: int
    bandwidth_gbps: float | None = None
    bandwidth_peak_gbps: float | None = None
    msg_rate_mpps: float | None = None
    t_min_us: float | None = None
    t_max_us: float | None = None
    t_typical_us: float | None = None
    t_avg_us: float | None = None
    t_stdev_us: float | None = None
    t_p99_us: float | None = None
    t_p999_us: float | None = None
    tps: float | None = None
    cpu_util_percent: float | None = None
    bandwidth_printed: float | None = None
    bandwidth_peak_printed: float | None = None
    counters: Mapping[str, int] = field(default_factory=dict)
    extra: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class PerftestOutput:
    """One end's output. ``other`` holds header fields without an attribute; ``unit`` is that of the bandwidth printed.

    ``unit_source``: header, caller, or msg_rate (inferred from message rate times size); None: unit not known, and
    then the rows have no ``bandwidth_gbps``. ``complete`` is False where the closing rule is missing.
    """

    title: str = ""
    verb: str = ""
    metric: str = ""
    bidirectional: bool = False
    device: str | None = None
    qps: int | None = None
    transport: str | None = None
    connection_type: str | None = None
    link_type: str | None = None
    mtu_bytes: int | None = None
    gid_index: int | None = None
    max_inline_bytes: int | None = None
    outstanding_reads: int | None = None
    tx_depth: int | None = None
    rx_depth: int | None = None
    cq_moderation: int | None = None
    rdma_cm: bool | None = None
    data_exchange: str | None = None
    unit: str | None = None
    unit_source: str | None = None
    complete: bool = False
    addresses: tuple[Address, ...] = ()
    warnings: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()
    other: Mapping[str, str] = field(default_factory=dict)

    @property
    def round_trip(self) -> bool:
        """True where latencies are full round trips (READ, ATOMIC), False where they are halves."""
        return self.verb in ("read", "atomic")

    def gids(self, side: str) -> tuple[str, ...]:
        """The distinct GIDs of the ``local`` or the ``remote`` side."""
        return tuple(dict.fromkeys(a.gid for a in self.addresses if a.side == side and a.gid is not None))

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self) | {"round_trip": self.round_trip}


@dataclass(frozen=True)
class End:
    """One end of a run. ``exit_code`` None: not known; negative or above 128: ended by a signal."""

    command: str | None
    stdout: str
    stderr: str = ""
    exit_code: int | None = None
    timed_out: bool = False

    @property
    def text(self) -> str:
        """All that was printed."""
        return f"{self.stdout}\n{self.stderr}"

    @property
    def by_signal(self) -> bool:
        """Ended by a signal; a shell tells so with 128 + its number."""
        return self.exit_code is not None and (self.exit_code < 0 or 128 < self.exit_code < 160)


@dataclass(frozen=True)
class Asked:
    """What the caller expects; None: anything. ``gids``: those of the device that is to be measured."""

    size_bytes: tuple[int, ...] | None = None
    qps: int | None = None
    iterations: int | None = None
    duration_s: float | None = None
    device: str | None = None
    gids: frozenset[str] | None = None


def normal_gid(text: str) -> str:
    """A GID as IPv6 text in its shortest form. ValueError: not a GID."""
    return str(ipaddress.IPv6Address(text))


def gid_from_decimals(text: str) -> str | None:
    """perftest prints each of the 16 bytes of a GID with %02d, in decimal. None: not sixteen bytes."""
    parts = text.strip().split(":")
    if len(parts) != 16 or not all(part.isascii() and part.isdigit() and len(part) <= 3 for part in parts):
        return None
    octets = [int(part) for part in parts]
    return str(ipaddress.IPv6Address(bytes(octets))) if max(octets) < 256 else None


def gid_kind(gid: str) -> str:
    """``zero``, ``mac`` (iWARP: a MAC address, then zeros), ``ipv4`` (mapped), ``ipv6``."""
    packed = ipaddress.IPv6Address(gid).packed
    if not any(packed):
        return "zero"
    if ipaddress.IPv6Address(gid).ipv4_mapped is not None:
        return "ipv4"
    # An IPv6 address ends in an interface identifier, hence never in ten zero bytes.
    return "mac" if any(packed[:6]) and not any(packed[6:]) else "ipv6"
