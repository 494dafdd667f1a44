"""A site's preparation: planned on both nodes, said in full, then applied item by item and proven by new facts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal

from kit.command import Command
from kit.errors import HostError
from kit.hosts.base import Host
from kit.prepare.facts import Facts, Question, read_facts
from kit.prepare.item import Item, Plan, Refusal, Step, Wanted

Outcome = Literal["unchanged", "changed", "failed", "reboot", "not tried"]
Say = Callable[[str], None]
_WRONG = re.compile(r"^(E|W|Err): |[Ee]rror|mismatch|fatal|FATAL|denied|No such|not found|in use|expected")
_SHOWN_LINES = 4
_NO_SUDO = Refusal("commands must run as root, and this user may not use sudo without a password",
                   "connect as root, or allow it: a line `USER ALL=(ALL) NOPASSWD:ALL` in /etc/sudoers.d")


@dataclass(frozen=True)
class Planned:
    """One item on one node, as it stands."""

    node: str
    item: Item
    facts: Facts
    plan: Plan


@dataclass(frozen=True)
class Done:
    """One cell of the table: what became of an item on a node, and why."""

    node: str
    item: str
    outcome: Outcome
    why: str = ""


def plan_node(facts: Facts, wanted: Wanted, items: Iterable[Item]) -> list[Planned]:
    """Every item that the preparation names, planned from one reading of the facts. Runs nothing."""
    return [Planned(facts.node, item, facts, planned(item, facts, wanted))
            for item in items if getattr(wanted.prepare, item.part) is not None]


def planned(item: Item, facts: Facts, wanted: Wanted) -> Plan:
    """The item's plan; refused where it has steps and the node lets nobody become root."""
    plan = item.plan(facts, wanted)
    if plan.steps and plan.refused is None and facts.rights == "none":
        return replace(plan, refused=_NO_SUDO)
    return plan


def as_root(command: Command, facts: Facts) -> Command:
    """The command as root: as it is, or by sudo, which never asks."""
    if facts.rights == "root":
        return command
    assigned = [f"{name}={value}" for name, value in command.env]
    return Command(("sudo", "-n", "--", *(["env", *assigned] if assigned else []), *command.argv))


def apply_node(host: Host, question: Question, wanted: Wanted, items: Iterable[Item], say: Say) -> list[Done]:
    """Bring one node to what is wanted, item by item; what builds on a failed item is not tried.

    Raises HostError only when the node cannot be asked for its facts.
    """
    facts = read_facts(host, question)
    done: list[Done] = []
    for item in items:
        if getattr(wanted.prepare, item.part) is None:
            continue
        failed = [other.item for other in done if other.item in item.after and other.outcome in ("failed", "not tried")]
        if failed:
            done.append(Done(host.name, item.name, "not tried", f"builds on {failed[0]}"))
            continue
        result, facts = _apply(host, question, wanted, item, facts, say)
        done.append(result)
        say(f"{host.name}: {item.name}: {result.outcome}{': ' if result.why else ''}{result.why}")
    return done


def undo_node(host: Host, question: Question, wanted: Wanted, item: Item, say: Say) -> Done:
    """Take back what an item brought; what it cannot take back is said by the item's own undo."""
    facts = read_facts(host, question)
    if item.undo is None:
        return Done(host.name, item.name, "not tried", "there is no undo for it")
    backwards = Item(item.name, item.part, item.undo)
    return _apply(host, question, wanted, backwards, facts, say)[0]


def _apply(host: Host, question: Question, wanted: Wanted, item: Item, facts: Facts,
           say: Say) -> tuple[Done, Facts]:
    plan = planned(item, facts, wanted)
    if plan.refused is not None:
        return Done(host.name, item.name, "failed", plan.refused.why), facts
    if plan.waits:
        return Done(host.name, item.name, "failed", f"still waiting: {plan.waits}"), facts
    if not plan.steps:
        return Done(host.name, item.name, "reboot" if plan.reboot else "unchanged", plan.reboot), facts
    try:
        for step in plan.steps:
            say(f"{host.name}: {item.name}: {step.what}")
            if failure := _run(host, step, facts):
                return Done(host.name, item.name, "failed", failure), _facts_again(host, question, facts)
        facts = read_facts(host, question)
    except HostError as error:
        return Done(host.name, item.name, "failed", str(error)), facts
    left = planned(item, facts, wanted)
    if left.refused is not None or left.steps:
        why = left.refused.why if left.refused else f"still to do after its own commands: {left.steps[0].what}"
        return Done(host.name, item.name, "failed", why), facts
    reboot = plan.reboot or left.reboot
    return Done(host.name, item.name, "reboot" if reboot else "changed", reboot), facts


def _run(host: Host, step: Step, facts: Facts) -> str:
    """Run a step; why it failed, or nothing. Raises HostError when the node is lost."""
    done = host.run(as_root(step.command, facts), deadline_s=step.deadline_s)
    if not done.ok:
        ended = f"not ended after {step.deadline_s:g} s" if done.exit_code is None else f"exit code {done.exit_code}"
        return "; ".join([f"{step.what}: {ended}", *_telling(done.stdout + done.stderr)])
    if step.fresh_session:
        host.close()     # limits are those of a login; the next command makes a new one
    return ""


def _telling(output: str) -> list[str]:
    """The lines that say what went wrong; the last ones, where none looks like it."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    telling = [line for line in lines if _WRONG.search(line)]
    return list(dict.fromkeys(telling or lines))[-_SHOWN_LINES:]


def _facts_again(host: Host, question: Question, known: Facts) -> Facts:
    try:
        return read_facts(host, question)
    except HostError:
        return known


def both_nodes(hosts: Iterable[Host], work: Callable[[Host], list[Done]]) -> list[Done]:
    """The same work on both nodes at once. A node that cannot be asked is one failed row."""
    def safely(host: Host) -> list[Done]:
        try:
            return work(host)
        except HostError as error:
            return [Done(host.name, "facts", "failed", str(error))]

    with ThreadPoolExecutor(2) as pool:
        return [done for rows in pool.map(safely, hosts) for done in rows]
