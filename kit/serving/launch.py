"""Start a stack's parts on two nodes, wait until they are well, and end them again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from kit.command import Command, command, script
from kit.errors import CommandError, DeadlineError
from kit.hosts.base import Listening, Service
from kit.parse.sockets import parse_listening_sockets
from kit.serving.ask import ask
from kit.serving.parts import Part, Role, Wiring, parts
from kit.serving.preflight import SOCKETS
from kit.serving.runtime import revealed
from kit.sites import Pair

Say = Callable[[str], None]
_PROXY_S = 90.0     # LMCache's proxy imports torch
_HEALTH_S = 30.0
_AGAIN_S = 1.0

# Prints a folder for the run's own files, made so that nobody else can write there. $1 run id.
_FOLDER = r"""
umask 077
base=${TMPDIR:-/tmp}/kit-$(id -u)
mkdir -p "$base/$1/files"
[ -O "$base" ] && [ ! -L "$base" ] || { echo "$base is not a folder of ours" >&2; exit 1; }
echo "$base/$1/files"
"""


@dataclass
class Deployment:
    """A stack that was started. ``start_s``: role -> seconds until it was ready."""

    wiring: Wiring
    parts: tuple[Part, ...]
    services: dict[Role, Service] = field(default_factory=dict)
    start_s: dict[Role, float] = field(default_factory=dict)
    ready_s: float = 0.0

    def part(self, role: Role) -> Part:
        return next(part for part in self.parts if part.role == role)

    @property
    def front(self) -> Part:
        """The part that clients talk to: the proxy, or the one server."""
        return self.parts[-1]


def folders_on(pair: Pair) -> dict[str, str]:
    """End -> the run's folder there, made when it is not."""
    return pair.both(lambda end: end.host.run(script(_FOLDER, end.host.run_id), check=True).stdout.strip())


def launch(pair: Pair, wiring: Wiring, *, lifetime_s: float, say: Say = lambda _: None) -> Deployment:
    """Start all parts: what others need first, the rest side by side. The nodes end them after ``lifetime_s``.

    Raises PortTakenError, CommandError (a part ended before it was ready) or DeadlineError; whatever was started is
    ended before.
    """
    deployment = Deployment(wiring, parts(wiring))
    begun = time.monotonic()
    try:
        first = [part for part in deployment.parts if part.role == "master"]
        rest = [part for part in deployment.parts if part.role != "master"]
        for group in (first, rest):
            _start(pair, deployment, group, lifetime_s, say)
        for part in deployment.parts:
            if part.health is not None:
                _until_well(pair, part)
    except BaseException:
        end(pair, wiring)
        raise
    deployment.ready_s = time.monotonic() - begun
    return deployment


def end(pair: Pair, wiring: Wiring | None = None) -> int:
    """End whatever of the run is alive on both nodes; how many processes there were. With ``wiring`` containers too."""
    ended = sum(pair.both(lambda one: one.host.stop(one.host.run_id)).values())
    if wiring is not None and wiring.serving.runtime == "container":
        for part in parts(wiring):
            pair[part.end].host.run(command(wiring.serving.engine, "rm", "-f", f"{wiring.run_id}-{part.role}"))
    return ended


def sent(pair: Pair, command: Command) -> Command:
    """A command of a part with the values of its secrets; a replay has no use for them. Raises ParamsError."""
    return command if pair.site.replay is not None else revealed(command)


def listening(pair: Pair, wiring: Wiring) -> list[tuple[Part, bool]]:
    """Each part, and whether its port listens on its node."""
    sockets = pair.both(lambda one: parse_listening_sockets(one.host.run(script(SOCKETS), check=True).stdout))
    return [(part, any(socket.port == part.port and (socket.everywhere or socket.address == part.address)
                       for socket in sockets[part.end])) for part in parts(wiring)]


def _start(pair: Pair, deployment: Deployment, group: Iterable[Part], lifetime_s: float, say: Say) -> None:
    """Start these parts at once and wait for all of them. After the first trouble the others are not waited for."""
    def one(part: Part) -> None:
        host, begun = pair[part.end].host, time.monotonic()
        for path, content in part.files.items():
            host.write(path, content.encode())
        limit_s = _PROXY_S if part.role in ("proxy", "master") else deployment.wiring.serving.start_s
        deployment.services[part.role] = host.start(sent(pair, part.command), deadline_s=lifetime_s,
                                                    ready=Listening(part.port), ready_s=limit_s)
        deployment.start_s[part.role] = time.monotonic() - begun
        say(f"{part.role} on node {part.end} listens after {deployment.start_s[part.role]:.0f} s")

    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(one, part) for part in group]
        answered, left = wait(waiting, return_when=FIRST_EXCEPTION)
        while left:
            end(pair, deployment.wiring)      # again: one may have been started just after
            left = wait(left, timeout=_AGAIN_S).not_done
    for each in (*answered, *waiting):
        each.result()


def _until_well(pair: Pair, part: Part) -> None:
    """Ask for its health until it is well. Raises CommandError when the part says no, DeadlineError when nothing."""
    answer = ask(pair[part.end].host, f"{part.url}{part.health}", until_s=_HEALTH_S)
    if not answer.ok:
        kind = DeadlineError if answer.status == 0 else CommandError
        raise kind(f"the {part.role} listens but is not well: {answer.status} {answer.body[:200]}",
                   node=part.end, command=str(part.command), remedy="read its log; kit clean ends what is left")
