"""A running stack, sampled while it is benchmarked: which node, which pages, which counters (`kit.observe`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kit.observe.collect import Recorded, Sources, Watched, fetch, start
from kit.serving.launch import Deployment
from kit.serving.parts import Part, Wiring
from kit.sites import Pair


@contextmanager
def observed(pair: Pair, deployment: Deployment, *, deadline_s: float) -> Iterator[list[Recorded]]:
    """Sample every node of the stack once a second; the list holds what was seen once the block has ended.

    A node that cannot be sampled spoils nothing: its `Recorded` says why.
    """
    samplings = start(watched(pair, deployment.wiring, deployment.parts), deadline_s=deadline_s)
    seen: list[Recorded] = []
    try:
        yield seen
    finally:
        seen += fetch(samplings)


def watched(pair: Pair, wiring: Wiring, parts: tuple[Part, ...]) -> tuple[Watched, ...]:
    """One entry an engine, under its role; the store's master is on the prefiller's node."""
    found = []
    for part in parts:
        if part.role in ("server", "prefiller", "decoder"):
            found.append(Watched(part.role, pair[part.end].host, _sources(wiring, part, parts)))
    return tuple(found)


def _sources(wiring: Wiring, part: Part, parts: tuple[Part, ...]) -> Sources:
    seat, serving, ports = wiring.seat_of(part.role), wiring.serving, wiring.stack.ports
    urls = {"vllm": f"{part.url}/metrics"}
    if part.role == "prefiller" and any(other.role == "master" for other in parts):
        urls["mooncake"] = f"http://{seat.address}:{ports.master_metrics}/metrics"
    if serving.exporter_port is not None:
        urls["erdma-exporter"] = f"http://{seat.address}:{serving.exporter_port}/metrics"
    return Sources(urls=urls, devices=(seat.device,) if seat.device else None,
                   interfaces=(serving.interface,) if serving.interface else (),
                   addresses=() if serving.interface else (seat.address,),
                   eadm=(seat.device,) if seat.device.startswith("erdma") else ())
