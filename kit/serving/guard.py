"""A stack's parts watched while they are used: where one ends, nobody waits for what it can no longer answer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from kit import symptoms
from kit.command import script
from kit.errors import HostError, KitError, PartEndedError
from kit.serving.launch import Deployment, end
from kit.serving.parts import Part
from kit.sites import Pair

_KEPT = 4000      # characters of a tool's own output

# Once a second: does the node still listen on each port? $1 a file that ends the wait after one more look, then the
# ports as /proc/net shows them. Prints the first that is gone.
_WATCH = r"""
over=$1; shift
while :; do
    last=; [ -e "$over" ] && last=yes
    for port; do
        grep -qsi ":$port [0-9A-F]*:0000 0A" /proc/net/tcp /proc/net/tcp6 || { rm -f "$over"; echo "$port"; exit 0; }
    done
    [ -n "$last" ] && break
    sleep 1
done
rm -f "$over"
"""

# The last words of a service, of both its streams. $1 its folder.
_LAST = 'tail -q -c 2000 "$1/out" "$1/err"'


@contextmanager
def guarded(pair: Pair, deployment: Deployment, *, deadline_s: float) -> Iterator[None]:
    """While the block runs, every part must listen. Where one stops, all of the run is ended at once, and with it what
    the block waits for; then PartEndedError is raised, whatever the block has made of it."""
    ends = [one for one in pair if any(part.end == one.name for part in deployment.parts)]
    gone: list[Part] = []

    def watch(name: str) -> None:
        mine = {f"{part.port:04X}": part for part in deployment.parts if part.end == name}
        with contextlib.suppress(HostError):      # a node that cannot be asked, or an older recording: not watched
            said = pair[name].host.run(script(_WATCH, over[name], *mine), deadline_s=deadline_s).stdout.strip()
            if said in mine:
                gone.append(mine[said])
                end(pair, deployment.wiring)

    over = {one.name: f"{_seat(deployment, one.name)}/watched" for one in ends}
    with ThreadPoolExecutor(len(ends)) as pool:
        watches = {one.name: pool.submit(watch, one.name) for one in ends}
        try:
            yield
        finally:
            for name, watched in watches.items():
                if not watched.done():
                    with contextlib.suppress(HostError):
                        pair[name].host.write(over[name], b"")
            pool.shutdown()
            if gone:
                raise ended(pair, deployment, gone[0])


def _seat(deployment: Deployment, end_name: str) -> str:
    wiring = deployment.wiring
    return next(seat.folder for seat in (wiring.prefill, wiring.decode) if seat.end == end_name)


def ended(pair: Pair, deployment: Deployment, part: Part) -> PartEndedError:
    """What is to be said of a part that has ended: its node, its command and its own last lines."""
    output = ""
    service = deployment.services.get(part.role)
    if service is not None:
        with contextlib.suppress(HostError):
            output = pair[part.end].host.run(script(_LAST, service.folder)).stdout
    return PartEndedError(f"the {part.role} ended during the benchmark", node=part.end, command=str(part.command),
                          output=output, remedy=symptoms.named("part_ended").remedy)


def failed(error: KitError) -> dict[str, Any]:
    """The record of a point that came to nothing: the known symptom in the tools' own words, else the error's kind."""
    output = (error.output if isinstance(error, HostError) else "") or str(error)
    known = symptoms.find(output, area="serving")
    if known is not None:
        name, remedy = known[0].name, known[0].remedy
    else:
        name, remedy = _NAMES.get(type(error), type(error).__name__), error.remedy
    return {"outcome": "FAILED", "symptom": name, "reason": error.what, "remedy": remedy, "output": output[-_KEPT:]}


_NAMES: dict[type[KitError], str] = {PartEndedError: "part_ended"}
