"""What becomes of an item: changed only when new facts prove it, and nothing is built on a failed one."""

from dataclasses import dataclass, field, replace

import pytest
from cases import facts_from, wanted_from

from kit.command import Command, command
from kit.errors import UnreachableError
from kit.hosts.base import Completed
from kit.prepare import engine
from kit.prepare.engine import apply_node, both_nodes, planned
from kit.prepare.facts import Question
from kit.prepare.item import Item, Plan, Step, refuse

WANTED = wanted_from({"limits": {}, "network": {}, "mode": {"mode": "compat"}}, recorded=True)
SET = Step("set it", command("set-it"))


@dataclass
class Node:
    """A node whose one fact is whether ``set-it`` has run."""

    works: bool = True
    exit_code: int | None = 0
    output: str = ""
    name: str = "a"
    run_id: str = "test"
    is_set: bool = False
    ran: list[Command] = field(default_factory=list)
    closed: int = 0

    def run(self, command, *, deadline_s=30, check=False):
        self.ran.append(command)
        self.is_set = self.is_set or (self.works and self.exit_code == 0)
        return Completed(str(command), self.output, "", self.exit_code, 0.1)

    def close(self):
        self.closed += 1


@pytest.fixture(autouse=True)
def _facts(monkeypatch):
    monkeypatch.setattr(engine, "read_facts", lambda node, question: facts_from({"systemd": node.is_set}))


def once(facts, wanted):
    return Plan() if facts.systemd else Plan((SET,))


def applied(node, *items):
    return [(row.item, row.outcome, row.why) for row in
            apply_node(node, Question(""), WANTED, items, lambda _: None)]


def test_changed_then_unchanged():
    node, item = Node(), Item("limits", "limits", once)
    assert applied(node, item) == [("limits", "changed", "")]
    assert applied(node, item) == [("limits", "unchanged", "")]
    assert len(node.ran) == 1


def test_a_command_that_ends_well_and_changes_nothing_is_a_failure():
    (row,) = applied(Node(works=False), Item("limits", "limits", once))
    assert row[1:] == ("failed", "still to do after its own commands: set it")


@pytest.mark.parametrize(("node", "why"), [
    (Node(exit_code=3, output="noise\nE: Hash Sum mismatch\nmore noise"), "set it: exit code 3; E: Hash Sum mismatch"),
    (Node(exit_code=1, output="only this"), "set it: exit code 1; only this"),
    (Node(exit_code=None), "set it: not ended after 60 s"),
])
def test_a_failure_says_why_in_a_line(node, why):
    (row,) = applied(node, Item("limits", "limits", once))
    assert row[1:] == ("failed", why)


def test_what_builds_on_a_failed_item_is_not_tried_and_the_rest_is():
    rows = applied(Node(), Item("limits", "limits", lambda *_: refuse("no", "")),
                   Item("network", "network", once, after=("limits",)), Item("mode", "mode", once))
    assert [row[1] for row in rows] == ["failed", "not tried", "changed"]


def test_a_reboot_and_a_wait_are_told():
    (reboot,) = applied(Node(), Item("limits", "limits", lambda *_: Plan(reboot="modules in use")))
    assert reboot[1:] == ("reboot", "modules in use")
    (waits,) = applied(Node(), Item("limits", "limits", lambda *_: Plan(waits="no device yet")))
    assert waits[1] == "failed"


def test_sudo_goes_before_the_command_and_keeps_its_environment():
    facts = replace(facts_from({}), rights="sudo")
    assert str(engine.as_root(command("make").with_env(A="1 2"), facts)) == "sudo -n -- env 'A=1 2' make"
    assert planned(Item("limits", "limits", once), replace(facts, rights="none", systemd=False), WANTED).refused


def test_a_fresh_session_is_made_where_only_that_shows_the_effect():
    node = Node()
    item = Item("limits", "limits",
                lambda facts, _: Plan() if facts.systemd else Plan((replace(SET, fresh_session=True),)))
    applied(node, item)
    assert node.closed == 1


def test_a_lost_node_is_one_row_and_the_other_goes_on():
    def work(host):
        if host.name == "a":
            raise UnreachableError("no answer", node="a")
        return []

    (row,) = both_nodes([Node(name="a"), Node(name="b")], work)
    assert (row.node, row.outcome) == ("a", "failed")
