"""``transfer_engine_bench`` command lines for one point of a sweep (flags: Mooncake 0.3.7 to 0.3.13, ``DEFINE_*``)."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from typing import Any

from kit.command import Command, command, script
from kit.errors import ParamsError
from kit.params import EngineParams
from kit.serving.runtime import Place, started
from kit.sites import Pair
from kit.store import key_of

# The engine reaches its peer through P2PHANDSHAKE: no metadata server, the target's RPC port is in its log.
_METADATA = "P2PHANDSHAKE"
# Flags that a build without GPU support does not define (the non-cuda wheel ends with "unknown command line flag").
_GPU_FLAGS = "use_vram,gpu_id"

# $1 run id, $2 seconds. Waits until the run's youngest service has logged its memory, and prints where it listens.
# Exit 3: it ended before; 4: not ready in time; both with its log.
AWAIT_TARGET = r"""
log=$(ls -td "${TMPDIR:-/tmp}/kit-$(id -u)/$1"/*/ | head -n 1)
clock() { read -r up _ </proc/uptime; clock=${up%.*}; }
clock; until=$((clock + $2))
while :; do
    if grep -qs '[DV]RAM is used' "${log}err"; then
        sed -n 's/.* listening on \([^ ]*:[0-9]*\).*/\1/p' "${log}err" | head -n 1
        exit 0
    fi
    if [ -e "${log}rc" ]; then cat "${log}err" >&2; exit 3; fi
    clock
    if [ "$clock" -ge "$until" ]; then cat "${log}err" >&2; exit 4; fi
    sleep 0.05
done
"""


@dataclass(frozen=True)
class Point:
    """One combination of the axes, and which repeat of it. ``direction`` a->b: node a initiates."""

    operation: str
    block_bytes: int
    batch: int
    threads: int
    protocol: str
    memory: str
    direction: str
    repeat: int

    @property
    def initiator(self) -> str:
        return self.direction[0]

    @property
    def target(self) -> str:
        return self.direction[-1]

    @property
    def in_flight_bytes(self) -> int:
        """What all threads have under way at once; also the least buffer that both ends need."""
        return self.block_bytes * self.batch * self.threads

    def axes(self) -> dict[str, Any]:
        return asdict(self)

    def key(self, params: EngineParams) -> str:
        """Names the point's record; everything that changes what is measured is in it."""
        measured = {"duration_s", "gid_index", "gpu_id", "environment", "program", "env"}
        return key_of({**self.axes(), **params.model_dump(include=measured)})

    def __str__(self) -> str:
        return (f"{self.operation} {self.batch} x {self.block_bytes} B, {self.threads} threads, {self.protocol}, "
                f"{self.memory}, {self.direction}, repeat {self.repeat}")


def points(params: EngineParams) -> list[Point]:
    """Every point, repeats outermost, so that a slow drift of the machine touches all points alike."""
    return [Point(operation, block, batch, threads, protocol, memory, direction, repeat)
            for repeat in range(params.repeats)
            for protocol, memory, direction, operation, block, batch, threads in itertools.product(
                params.protocols, params.memories, params.directions, params.operations, params.block_bytes,
                params.batches, params.threads)]


def bench_command(point: Point, params: EngineParams, *, device: str, own_address: str, port: int,
                  segment: str | None = None, place: Place | None = None) -> Command:
    """The target's command, or with ``segment`` (the target's ``host:port``) the initiator's.

    ``place`` is the serving environment that has the program; without it the node's PATH does.
    """
    flags: dict[str, str | int] = {
        "mode": "target" if segment is None else "initiator",
        "metadata_server": _METADATA,
        "local_server_name": f"{own_address}:{port}",
        "protocol": point.protocol,
        "device_name": device if point.protocol == "rdma" else "",
        "buffer_size": point.in_flight_bytes,
        "block_size": point.block_bytes,
        "batch_size": point.batch,
        "threads": point.threads,
        "undefok": _GPU_FLAGS,
        "use_vram": "true" if point.memory == "vram" else "false",
        "gpu_id": params.gpu_id,
    }
    if segment is not None:
        flags |= {"segment_id": segment, "operation": point.operation, "duration": params.duration_s,
                  "report_unit": "MB"}
    argv = [params.program, *(f"--{name}={value}" for name, value in flags.items())]
    env: dict[str, str] = dict(params.env)
    if params.library_path:
        env["LD_LIBRARY_PATH"] = params.library_path
    if params.gid_index is not None:
        env["MC_GID_INDEX"] = str(params.gid_index)
    if place is not None:
        return started(place, argv, env)
    return command(*argv).with_env(**env) if env else command(*argv)


def place_of(pair: Pair, params: EngineParams, end: str) -> Place | None:
    """The environment of the site that ``params`` name, for a command on this end. Raises ParamsError."""
    if params.environment is None:
        return None
    known = pair.serving.environments if pair.serving is not None else {}
    if pair.serving is None or params.environment not in known:
        raise ParamsError(f"the site {pair.site.name} has no environment {params.environment!r}; it has: "
                          f"{', '.join(known) or 'none'}", remedy="name it under its serving.environments")
    return Place(pair.serving, known[params.environment], "/tmp", pair.serving.model,  # noqa: S108
                 f"{pair[end].host.run_id}-engine-{end}")


def await_target(run_id: str, seconds: int) -> Command:
    """The question where the target listens; it answers once the target has its memory."""
    return script(AWAIT_TARGET, run_id, seconds)
