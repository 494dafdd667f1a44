"""The sweep: each point a fresh server and a client, both ends' output kept raw, a failed point recorded and passed.

While a client runs, a second thread prepares the next point's server and fetches the last one's output, so a point
costs its client. The time for that is right after the client has met its server: with RDMA_CM perftest connects twice,
a second apart, and its server does not listen in between. A server that is kept busy just then refuses its client (seen
in the lab: 5 of 24). Ends that did not meet, or had no clock to measure by, try again, and the table says how often.

A record is written as soon as its server's output is there: a kill loses the point that runs and the one before it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from kit.errors import CommandError, DeadlineError, KitError, ParseError, PortTakenError
from kit.hosts.base import Completed, Listening, Service
from kit.link.perftest import Point, length_of, perftest_command
from kit.link.table import COLUMNS
from kit.link.trust import expectation, trusted_row
from kit.params import LinkParams
from kit.parse.perftest import without_clock
from kit.sites import Pair
from kit.stage import Progress
from kit.store import Run
from kit.symptoms import named

VALID, FAILED = "VALID", "FAILED"
_CONNECTED = "\n remote address:"     # perftest prints the peer's queue pairs once both ends have connected
_NOT_MET = {"rdma_cm_rejected", "server_unreachable", "deadline", "ended_by_signal"}   # perftest 4.5 may crash of it
_NO_CLOCK = "clock_not_calibrated"
_ATTEMPTS = 3        # to measure anything; a measurement is never repeated to get a better number
_PORTS = 16          # ports in turn: a server that just ended leaves its own in TIME_WAIT
_READY_S = 15.0
_LINGER_S = 3.0      # a server still there this long after its client ended is waiting for nobody


@dataclass(frozen=True)
class Served:
    """A prepared server, or why there is none."""

    service: Service | None
    port: int
    error: KitError | None = None


def sweep(pair: Pair, params: LinkParams, run: Run, todo: list[Point], *,
          gids: dict[str, frozenset[str]], versions: dict[str, str],
          on_point: Callable[[Progress], None] = lambda _: None) -> None:
    """Measure every point of ``todo`` and keep its record in ``run``.

    ``gids`` and ``versions`` are each node's: the device's GIDs, against which the result is checked, and perftest's
    version. ``on_point`` is called from another thread. Raises UnreachableError when a node is lost, StoreError when a
    record cannot be written; finished points are kept.
    """
    started = time.monotonic()

    def serve(turn: int, attempt: int = 1, after: int | None = None) -> Served:
        return _serve(pair, params, todo[turn], turn + (attempt - 1) * _PORTS // 2, after)

    def keep(turn: int, served: Served, client: Completed | None, attempt: int = 1) -> bool:
        """Fetch the server's output and keep the point, unless its ends should try again."""
        record = _record(pair, params, todo[turn], served, client, gids, versions) | {"attempts": attempt}
        if attempt < _ATTEMPTS and _nothing_measured(record):
            return False
        run.keep_point(todo[turn].key(params), record)
        left_s = (time.monotonic() - started) / (turn + 1) * (len(todo) - turn - 1)
        on_point(Progress(turn + 1, len(todo), _said(record), left_s))
        return True

    with ThreadPoolExecutor(max_workers=1) as aside:
        prepared: Future[Served] | None = aside.submit(serve, 0) if todo else None
        last: tuple[int, Served, Completed] | None = None      # measured; its server's output is still on the node
        try:
            for turn, point in enumerate(todo):
                served = prepared.result() if prepared is not None else serve(turn)
                keeping = aside.submit(keep, *last) if last is not None else None
                prepared = aside.submit(serve, turn + 1, after=served.port) if turn + 1 < len(todo) else None
                client = _measure(pair, params, point, served)
                if keeping is not None:
                    keeping.result()
                last = (turn, served, client) if client is not None and _done_with(client) else None
                attempt = 1
                while last is None and not keep(turn, served, client, attempt):
                    attempt += 1
                    served = serve(turn, attempt)
                    client = _measure(pair, params, point, served)
            if last is not None:
                keep(*last)
        finally:
            if prepared is not None:
                _discard(pair, prepared)


def _serve(pair: Pair, params: LinkParams, point: Point, turn: int, after: int | None) -> Served:
    """Start the point's server once the one on port ``after``, if it is on the same node, has met its client."""
    end = pair[point.server]
    port = params.base_port + turn % _PORTS
    server = perftest_command(point, params, device=end.device, rdma_port=end.rdma_port, port=port)
    # It is started while the point before it runs, so it may have to wait for that long as well.
    deadline_s = 2 * params.deadline_s + _READY_S
    try:
        service = end.host.start(server, deadline_s=deadline_s, ready=Listening(port, after), ready_s=_READY_S)
    except (CommandError, DeadlineError, PortTakenError) as error:
        return Served(None, port, error)
    return Served(service, port)


def _measure(pair: Pair, params: LinkParams, point: Point, served: Served) -> Completed | None:
    if served.error is not None:
        return None
    end = pair[point.client]
    client = perftest_command(point, params, device=end.device, rdma_port=end.rdma_port, port=served.port,
                              server_address=pair[point.server].address)
    return end.host.run(client, deadline_s=params.deadline_s)


def _done_with(client: Completed) -> bool:
    """Whether the point is done with, as far as the client tells: its record can wait."""
    return client.ok and without_clock(client.stderr) is None


def _nothing_measured(record: dict[str, Any]) -> bool:
    """The ends did not meet, or the client had no clock: the failures that are worth another try."""
    if record.get("symptom") == _NO_CLOCK:
        return True
    client = record["raw"]["client"]
    met = client is not None and _CONNECTED in client["stdout"]
    return record.get("symptom") in _NOT_MET and client is not None and not met


def _record(pair: Pair, params: LinkParams, point: Point, served: Served, client: Completed | None,
            gids: dict[str, frozenset[str]], versions: dict[str, str]) -> dict[str, Any]:
    server = None
    if served.service is not None:
        server = pair[point.server].host.finish(served.service, deadline_s=_LINGER_S)
    record: dict[str, Any] = {
        **point.axes(),
        "site": pair.site.name,
        "device": pair[point.client].device,
        "client_version": versions[point.client],
        "server_version": versions[point.server],
        "wall_s": client.wall_s if client else None,
        "raw": {"client": asdict(client) if client else None, "server": asdict(server) if server else None},
    }
    try:
        if client is None or server is None:
            record |= _failure_of(served.error)
        else:
            asked = expectation(point, length_of(point, params), pair[point.client].device, gids[point.client])
            record |= {"outcome": VALID, **trusted_row(client, server, asked)}
    except ParseError as error:
        record |= {"outcome": FAILED, "symptom": error.symptom, "remedy": error.remedy, "line": error.line}
    record["expected"] = is_expected(record, params)
    return record


def _failure_of(error: KitError | None) -> dict[str, Any]:
    """A server that did not get ready: its own last words tell the symptom, where they are known."""
    from kit.symptoms import find

    if isinstance(error, PortTakenError):
        return {"outcome": FAILED, "symptom": "port_taken", "remedy": named("port_taken").remedy, "line": error.what}
    found = find(getattr(error, "output", ""))
    if found is not None:
        symptom, line = found
        return {"outcome": FAILED, "symptom": symptom.name, "remedy": symptom.remedy, "line": line}
    name = "deadline" if isinstance(error, DeadlineError) else "no_result"
    return {"outcome": FAILED, "symptom": name, "remedy": named(name).remedy, "line": error.what if error else ""}


def is_expected(record: dict[str, Any], params: LinkParams) -> bool:
    """Whether the outcome is the one that the experiment expects: VALID where nothing is said."""
    for rule in params.expect:
        if all(record[axis] == value for axis, value in rule.when.items()):
            return bool(record["outcome"] == FAILED and record.get("symptom") == rule.symptom)
    return bool(record["outcome"] == VALID)


def row_of(record: dict[str, Any]) -> dict[str, Any]:
    """The record's line in the table."""
    return {name: record.get(name) for name in COLUMNS}


def _discard(pair: Pair, prepared: Future[Served]) -> None:
    """A prepared server that nobody will use: stop it, on the way out of an error."""
    try:
        served = prepared.result()
        if served.service is not None:
            pair[served.service.node].host.finish(served.service, deadline_s=0)
    except KitError:
        return  # the node is lost: its own deadline ends the server


def _said(record: dict[str, Any]) -> str:
    """A record in a few words."""
    if record["outcome"] != VALID:
        return f"{record['tool']} {record['outcome']}: {record.get('symptom')}"
    if record.get("bandwidth_gbps") is not None:
        return f"{record['tool']} {record['size_bytes']} B: {record['bandwidth_gbps']:.3g} Gb/s"
    value = record.get("t_typical_us") or record.get("t_avg_us") or 0.0
    return f"{record['tool']} {record['size_bytes']} B: {value:.3g} us"
