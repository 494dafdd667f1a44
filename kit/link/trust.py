"""From both ends' raw output to one row of the table, or the symptom that says why it is no result."""

from __future__ import annotations

from typing import Any

from kit.hosts.base import Completed
from kit.link.perftest import Point
from kit.parse.perftest import judge
from kit.parse.perftest_types import Asked, End, normal_gid

_FIELDS = ("bandwidth_gbps", "bandwidth_peak_gbps", "msg_rate_mpps", "t_min_us", "t_typical_us", "t_avg_us",
           "t_max_us", "t_p99_us", "t_p999_us", "iterations")


def expectation(point: Point, length: dict[str, int], device: str, gids: frozenset[str]) -> Asked:
    """What a point's output must show to be its result; ``gids`` are those of the client's device."""
    return Asked(size_bytes=(point.size_bytes,), qps=point.qps, iterations=length.get("iterations"),
                 duration_s=length.get("duration_s"), device=device,
                 gids=frozenset(normal_gid(gid) for gid in gids) or None)


def trusted_row(client: Completed, server: Completed, asked: Asked) -> dict[str, Any]:
    """The row's measured columns. Raises ParseError with the symptom of whatever makes it untrue."""
    output = judge(_end(client), _end(server), asked=asked)
    row = output.rows[-1]
    return {name: getattr(row, name) for name in _FIELDS} | {
        "mtu_bytes": output.mtu_bytes, "transport": output.transport}


def _end(completed: Completed) -> End:
    return End(command=completed.command, stdout=completed.stdout, stderr=completed.stderr,
               exit_code=completed.exit_code, timed_out=completed.exit_code is None)
