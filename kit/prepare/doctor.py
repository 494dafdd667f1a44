"""`kit doctor`: every fact and check of the chain, read-only; what would stop which stage, worst first."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from kit.device import NodeFacts
from kit.device import read_facts as read_device
from kit.errors import HostError, ParamsError
from kit.prepare.diagnose import device_findings, node_findings, pair_findings, wanted_findings
from kit.prepare.engine import planned
from kit.prepare.facts import Facts, Question, read_facts
from kit.prepare.finding import Finding, worst_first
from kit.prepare.item import Wanted
from kit.prepare.reach import unreachable
from kit.prepare.site import ITEMS, question, read_wanted
from kit.prepare.storage import digest_findings
from kit.sites import End, Pair

T = TypeVar("T")
_ALWAYS_PORTS = [18515]     # perftest's own; a preparation names the rest


def examine(pair: Pair, name: str = "") -> list[Finding]:
    """Everything that can be known without changing the nodes. A node that cannot be asked is a finding itself."""
    wanted = _wanted(name or pair.site.name, needed=bool(name))
    found: list[Finding] = []
    devices = _asked(pair, found, "device facts", lambda end: read_device(end.host, device=end.device))
    started = time.monotonic()
    facts = _asked(pair, found, "preparation facts", lambda end: read_facts(
        end.host, question(end.address, wanted) if wanted else Question(end.address)))
    apart_s = time.monotonic() - started
    for end in pair:
        found += _of_node(end, devices.get(end.name), facts.get(end.name), wanted)
    if len(facts) == 2:
        found += pair_findings(facts["a"], facts["b"], wanted, apart_s)
        found += _reach(pair, wanted)
    if wanted is not None and wanted.prepare.storage is not None:
        found += digest_findings(pair, wanted.prepare.storage)
    return worst_first(found)


def shown(findings: list[Finding]) -> str:
    """The findings for a reader, then one line that sums them up."""
    stopped = sorted({it.stage for it in findings if it.weight == "stops"})
    lines = [str(it) for it in findings]
    lines.append(f"stopped: {', '.join(stopped)}" if stopped else "nothing stops any stage")
    return "\n".join(lines)


def _of_node(end: End, device: NodeFacts | None, facts: Facts | None, wanted: Wanted | None) -> list[Finding]:
    found: list[Finding] = []
    if device is not None:
        found += device_findings(device, end.device)
    if facts is None:
        return found
    lacks = {it.what for it in found}
    found += [it for it in node_findings(facts) if it.what not in lacks]
    if wanted is not None:
        plans = [(item.name, planned(item, facts, wanted)) for item in ITEMS
                 if getattr(wanted.prepare, item.part) is not None]
        found += wanted_findings(facts, [(name, plan.refused.why if plan.refused else "",
                                          plan.refused.remedy if plan.refused else "", len(plan.steps))
                                         for name, plan in plans])
    return found


def _asked(pair: Pair, found: list[Finding], what: str, ask: Callable[[End], T]) -> dict[str, T]:
    """Both ends' answers; where one does not answer, a finding instead."""
    def safely(end: End) -> T | HostError:
        try:
            return ask(end)
        except HostError as error:
            return error

    answers = pair.both(safely)
    good: dict[str, T] = {}
    for name, answer in answers.items():
        if isinstance(answer, HostError):
            found.append(Finding("unknown", "01_driver_setup", name, f"{what} could not be read: {answer.what}",
                                 answer.remedy or "see that the node is reachable: kit trust SITE, ssh"))
        else:
            good[name] = answer
    return good


def _reach(pair: Pair, wanted: Wanted | None) -> list[Finding]:
    network = wanted.prepare.network if wanted else None
    ports = sorted({*_ALWAYS_PORTS, *(network.ports if network else [])})
    try:
        return unreachable(pair, ports)
    except HostError as error:
        return [Finding("unknown", "03_link_perftest", error.node or "a, b", f"the ports were not tried: {error.what}",
                        "see that python3 or nc is on both nodes")]


def _wanted(name: str, *, needed: bool) -> Wanted | None:
    try:
        return read_wanted(name)
    except ParamsError:
        if needed:
            raise
        return None
