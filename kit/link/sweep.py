"""The sweep: each point a fresh server and a client, both ends' output kept raw, a failed point recorded and passed.

The next point's server is started while the present client runs, so a point costs its client and the fetching of the
server's output; but not before that client has connected. perftest connects twice with RDMA_CM and its server does not
listen in between, so one that is slowed down by a starting neighbour refuses its client (seen in the lab, 2 of 24).
Ends that did not meet try again, and the table says how often.

A record is written as soon as its point has ended, so a kill loses one point.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from kit.errors import CommandError, DeadlineError, KitError, ParseError, PortTakenError
from kit.hosts.base import Completed, Listening, Service
from kit.link.perftest import Point, length_of, perftest_command
from kit.link.table import COLUMNS
from kit.link.trust import expectation, trusted_row
from kit.params import LinkParams
from kit.sites import Pair
from kit.store import Run
from kit.symptoms import named

VALID, FAILED = "VALID", "FAILED"
_CONNECTED = "\n remote address:"     # perftest prints the peer's queue pairs once both ends have connected
_NOT_MET = {"rdma_cm_rejected", "server_unreachable", "deadline"}
_ATTEMPTS = 3        # to connect; a measurement is never repeated to get a better number
_PORTS = 16          # ports in turn: a server that just ended leaves its own in TIME_WAIT
_READY_S = 15.0
_LINGER_S = 3.0      # a server still there this long after its client ended is waiting for nobody


@dataclass(frozen=True)
class Progress:
    """After each point: how many are done of how many, the record just made, and the time left."""

    done: int
    total: int
    record: dict[str, Any]
    left_s: float


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
    version. Raises UnreachableError when a node is lost, StoreError when a record cannot be written; finished points
    are kept.
    """
    started = time.monotonic()
    with ThreadPoolExecutor(max_workers=1) as pool:
        def serve(turn: int) -> Future[Served]:
            return pool.submit(_serve, pair, params, todo[turn], turn)

        ahead = Ahead(serve, len(todo))
        try:
            for turn, point in enumerate(todo):
                served = ahead.take(turn)
                for attempt in range(1, _ATTEMPTS + 1):
                    client = _measure(pair, params, point, served, partial(ahead.prepare, turn + 1))
                    record = _record(pair, params, point, served, client, gids, versions) | {"attempts": attempt}
                    if not _never_connected(record) or attempt == _ATTEMPTS:
                        break
                    served = _serve(pair, params, point, turn + attempt * _PORTS // 2)
                run.keep_point(point.key(params), record)
                done = turn + 1
                left_s = (time.monotonic() - started) / done * (len(todo) - done)
                on_point(Progress(done, len(todo), record, left_s))
        finally:
            for prepared in ahead.waiting():
                _discard(pair, prepared)


class Ahead:
    """The server that is being prepared for a coming turn; at most one."""

    def __init__(self, serve: Callable[[int], Future[Served]], turns: int) -> None:
        self._serve, self._turns = serve, turns
        self._prepared: dict[int, Future[Served]] = {}

    def prepare(self, turn: int) -> None:
        """Start it, unless it is started already or there is no such turn."""
        if turn < self._turns and turn not in self._prepared:
            self._prepared[turn] = self._serve(turn)

    def take(self, turn: int) -> Served:
        self.prepare(turn)
        served = self._prepared[turn].result()
        del self._prepared[turn]
        return served

    def waiting(self) -> list[Future[Served]]:
        return list(self._prepared.values())


def _serve(pair: Pair, params: LinkParams, point: Point, turn: int) -> Served:
    end = pair[point.server]
    port = params.base_port + turn % _PORTS
    server = perftest_command(point, params, device=end.device, rdma_port=end.rdma_port, port=port)
    # It is started while the point before it runs, so it may have to wait for that long as well.
    deadline_s = 2 * params.deadline_s + _READY_S
    try:
        service = end.host.start(server, deadline_s=deadline_s, ready=Listening(port), ready_s=_READY_S)
    except (CommandError, DeadlineError, PortTakenError) as error:
        return Served(None, port, error)
    return Served(service, port)


def _measure(pair: Pair, params: LinkParams, point: Point, served: Served,
             on_connected: Callable[[], None]) -> Completed | None:
    if served.error is not None:
        return None
    end = pair[point.client]
    client = perftest_command(point, params, device=end.device, rdma_port=end.rdma_port, port=served.port,
                              server_address=pair[point.server].address)

    def look(output: str) -> None:
        if _CONNECTED in output:
            on_connected()

    return end.host.run(client, deadline_s=params.deadline_s, on_output=look)


def _never_connected(record: dict[str, Any]) -> bool:
    """Nothing was measured, because the ends did not meet: the one failure that is worth another try."""
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

