"""The sweep: a fresh target and an initiator a point, both logs kept raw, a failed point recorded and passed."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from kit.engine.bench import Point, await_target, bench_command, place_of
from kit.engine.table import COLUMNS
from kit.errors import CommandError, DeadlineError, KitError, ParseError
from kit.hosts.base import Completed
from kit.link.sweep import FAILED, VALID
from kit.params import EngineParams
from kit.parse.perftest_types import End
from kit.parse.transfer_engine import EngineResult, Wanted, judge_engine
from kit.sites import Pair
from kit.stage import Progress
from kit.store import Run
from kit.symptoms import find, named

_READY_S = 20
_MEET_S = 10         # to reach a target whose memory is not registered yet; a measurement is never repeated
_NOT_MET = "engine_no_target"
_BEGAN = "Worker 0"  # an initiator logs its workers' end
_NOT_FOUND = 127     # a shell's exit code for a program that is not there


def sweep(pair: Pair, params: EngineParams, run: Run, todo: list[Point], *,
          on_point: Callable[[Progress], None] = lambda _: None) -> None:
    """Measure every point of ``todo`` and keep its record in ``run``. Raises UnreachableError, StoreError."""
    started = time.monotonic()
    for turn, point in enumerate(todo):
        record = _point(pair, params, point)
        run.keep_point(point.key(params), record)
        left_s = (time.monotonic() - started) / (turn + 1) * (len(todo) - turn - 1)
        on_point(Progress(turn + 1, len(todo), _said(record), left_s))


def _point(pair: Pair, params: EngineParams, point: Point) -> dict[str, Any]:
    """Start the target, ask where it listens, run the initiator until it meets it, stop the target, judge both."""
    at, end = pair[point.target], pair[point.initiator]
    deadline_s = params.deadline_s + _READY_S
    record = {**point.axes(), "site": pair.site.name, "device": end.device if point.protocol == "rdma" else "",
              "in_flight_bytes": point.in_flight_bytes, "expected": False, "outcome": FAILED}
    service = at.host.start(bench_command(point, params, device=at.device, own_address=at.address,
                                          port=params.base_port, place=place_of(pair, params, point.target)),
                            deadline_s=deadline_s)
    client: Completed | None = None
    trouble: KitError | None = None
    try:
        heard = at.host.run(await_target(at.host.run_id, _READY_S), deadline_s=_READY_S + 5, check=True)
        segment = f"{at.address}:{heard.stdout.strip().rpartition(':')[2]}"
        asked = bench_command(point, params, device=end.device, own_address=end.address, port=params.base_port + 1,
                              segment=segment, place=place_of(pair, params, point.initiator))
        begun = time.monotonic()
        while client is None or (_not_met(client) and time.monotonic() - begun < _MEET_S):
            client = end.host.run(asked, deadline_s=params.deadline_s)
            record["attempts"] = record.get("attempts", 0) + 1
    except (CommandError, DeadlineError) as error:
        trouble = error
    finally:
        server = at.host.finish(service, deadline_s=0)
    record["raw"] = {"initiator": asdict(client) if client else None, "target": asdict(server)}
    record["wall_s"] = client.wall_s if client else None
    if client is None:
        return record | _no_target(trouble, server)
    wanted = Wanted(point.block_bytes, point.batch, params.duration_s, point.memory)
    try:
        result = judge_engine(_end(client), _end(server), wanted)
        return record | {"outcome": VALID, "expected": True} | _measured(result, point)
    except ParseError as error:
        return record | {"symptom": error.symptom, "remedy": error.remedy, "line": error.line or error.what}


def _not_met(client: Completed) -> bool:
    """Whether it measured nothing because the target was not ready. The target says that it has its memory before it
    does (seen, 0.3.14: half a second with GPU memory), and an initiator that finds none dies of it."""
    hit = find(client.stdout + client.stderr, area="serving")
    return (hit is not None and hit[0].name == _NOT_MET) or (
        client.exit_code == -signal.SIGSEGV and _BEGAN not in client.stderr)


def _measured(result: EngineResult, point: Point) -> dict[str, Any]:
    """The rate from the counted batches: the printed one is rounded."""
    rate = result.batches * point.batch * point.block_bytes / result.duration_s
    return {"throughput_gbps": rate * 8e-9, "round_ms": point.in_flight_bytes / rate * 1e3, "batches": result.batches,
            "duration_s": result.duration_s}


def _no_target(error: KitError | None, server: Completed) -> dict[str, Any]:
    """The target did not get ready: its own log tells why, where the reason is known."""
    hit = find(server.stdout + server.stderr, area="serving")
    if hit is not None:
        return {"symptom": hit[0].name, "remedy": hit[0].remedy, "line": hit[1]}
    last = (server.stderr.strip().splitlines() or [error.what if error else ""])[-1]
    name = "program_missing" if server.exit_code == _NOT_FOUND else "no_result"
    if isinstance(error, DeadlineError):
        name = "deadline"
    return {"symptom": name, "remedy": named(name).remedy, "line": last}


def _end(done: Completed) -> End:
    return End(command=done.command, stdout=done.stdout, stderr=done.stderr, exit_code=done.exit_code,
               timed_out=done.exit_code is None)


def row_of(record: dict[str, Any]) -> dict[str, Any]:
    """The record's line in the table."""
    return {name: record.get(name) for name in COLUMNS}


def _said(record: dict[str, Any]) -> str:
    """A record in a few words."""
    if record["outcome"] != VALID:
        return f"{record['operation']} {record['outcome']}: {record.get('symptom')}"
    return f"{record['operation']} {record['block_bytes']} B: {record['throughput_gbps']:.3g} Gb/s"
