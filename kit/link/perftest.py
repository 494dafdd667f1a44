"""perftest command lines for one point of a sweep (flags: perftest 4.4 to 26.x, ``usage()`` and man page)."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from typing import Any

from kit.command import Command, Part, command
from kit.params import LinkParams
from kit.store import key_of

# Above this perftest drops the peak search by itself and warns; its search is quadratic (usage(), -N).
_PEAK_LIMIT = 20_000
_DEFAULT_ITERATIONS = 1000


@dataclass(frozen=True)
class Point:
    """One combination of the axes, and which repeat of it."""

    tool: str
    size_bytes: int
    qps: int
    connection: str
    direction: str
    repeat: int

    @property
    def measures_bandwidth(self) -> bool:
        return self.tool.endswith("_bw")

    @property
    def client(self) -> str:
        return self.direction[0]

    @property
    def server(self) -> str:
        return self.direction[-1]

    def axes(self) -> dict[str, Any]:
        return asdict(self)

    def key(self, params: LinkParams) -> str:
        """Names the point's record; everything that changes what is measured is in it."""
        return key_of({**self.axes(), "length": length_of(self, params), "options": options_of(params)})

    def __str__(self) -> str:
        return (f"{self.tool} {self.size_bytes} B, qps {self.qps}, {self.connection}, {self.direction}, "
                f"repeat {self.repeat}")


def points(params: LinkParams) -> list[Point]:
    """Every point, repeats outermost, so that a slow drift of the machine touches all points alike.

    Latency tools take a single queue pair: they get one point whatever ``qps`` says.
    """
    found: dict[Point, None] = {}
    for repeat in range(params.repeats):
        for connection, direction, tool, size, qps in itertools.product(
                params.connections, params.directions, params.tools, params.sizes_bytes, params.qps):
            queue_pairs = qps if tool.endswith("_bw") else 1
            size_bytes = 8 if tool.startswith("ib_atomic") else size
            found[Point(tool, size_bytes, queue_pairs, connection, direction, repeat)] = None
    return list(found)


def length_of(point: Point, params: LinkParams) -> dict[str, int]:
    """How long a point runs: ``{"duration_s": n}`` or ``{"iterations": n}``, the tool's count a queue pair."""
    if params.duration_s is not None:
        return {"duration_s": params.duration_s}
    return {"iterations": params.iterations or _DEFAULT_ITERATIONS}


def options_of(params: LinkParams) -> dict[str, Any]:
    """The options that hold for all points of a sweep and change what is measured."""
    return params.model_dump(include={"bidirectional", "mtu_bytes", "gid_index", "tx_depth", "inline_bytes"})


def perftest_command(point: Point, params: LinkParams, *, device: str, rdma_port: int, port: int,
                     server_address: str | None = None) -> Command:
    """The server's command, or with ``server_address`` the client's. Both ends get the same mode flags."""
    parts: list[Part] = [point.tool, "-d", device, "-i", rdma_port, "-p", port, "-F"]
    if not point.tool.startswith("ib_atomic"):
        parts += ["-s", point.size_bytes]
    length = length_of(point, params)
    parts += ["-D", length["duration_s"]] if "duration_s" in length else ["-n", length["iterations"]]
    if point.connection == "rdma_cm":
        parts.append("-R")
    if point.measures_bandwidth:
        parts += ["-q", point.qps, "--report_gbits"]
        if params.bidirectional:
            parts.append("-b")
        if length.get("iterations", 0) > _PEAK_LIMIT:
            parts.append("-N")
    for flag, value in (("-m", params.mtu_bytes), ("-x", params.gid_index), ("-I", params.inline_bytes)):
        if value is not None:
            parts += [flag, value]
    if params.tx_depth is not None and point.measures_bandwidth:
        parts += ["-t", params.tx_depth]
    if server_address is not None:
        parts.append(server_address)
    return command(*parts)
