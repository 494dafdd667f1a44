"""Every case file: these facts give these commands. A new case is a file."""

import pytest
from cases import DATA, as_data, facts_from, read_case, wanted_from

from kit.prepare.engine import plan_node
from kit.prepare.site import ITEMS, item_named, question, shown

CASES = sorted(path.stem for path in DATA.glob("*.yaml"))


@pytest.mark.parametrize("name", CASES)
def test_case(name):
    case = read_case(name)
    wanted = wanted_from(case["wanted"], recorded=case.get("recorded", True))
    assert as_data(item_named(case["item"]).plan(facts_from(case["facts"]), wanted)) == case["plan"]


@pytest.mark.parametrize("name", CASES)
def test_an_undo_of_what_was_never_done_does_nothing(name):
    case = read_case(name)
    item = item_named(case["item"])
    facts = facts_from(case["facts"])
    if item.undo is not None and not (facts.files or facts.mounts or facts.containers):
        assert item.undo(facts, wanted_from(case["wanted"], recorded=True)).nothing


def test_every_item_has_cases():
    assert {item_named(read_case(name)["item"]) for name in CASES} == set(ITEMS)


def test_no_sudo_is_said_before_anything_is_touched():
    wanted = wanted_from({"limits": {}, "network": {"mtu_bytes": 8500}}, recorded=True)
    rows = plan_node(facts_from({"rights": "none"}), wanted, ITEMS)
    assert all("sudo" in row.plan.refused.why for row in rows)
    assert shown(rows).startswith("a: limits: CANNOT")


def test_sudo_is_said_and_never_asks():
    wanted = wanted_from({"network": {"mtu_bytes": 8500}}, recorded=True)
    text = shown(plan_node(facts_from({"rights": "sudo"}), wanted, ITEMS))
    assert "by sudo" in text


def test_a_reboot_is_said_first():
    wanted = wanted_from({"driver": {}}, recorded=True)
    text = shown(plan_node(facts_from({"devices": {"mlx5_0": "InfiniBand"}}), wanted, ITEMS))
    assert text.startswith("a: driver: NEEDS A REBOOT")


def test_every_file_of_an_item_is_asked_for():
    """An item that looks at a file nobody reads would write it again for ever."""
    for name in CASES:
        case = read_case(name)
        wanted = wanted_from(case["wanted"], recorded=case.get("recorded", True))
        steps = item_named(case["item"]).plan(facts_from(case["facts"]), wanted).steps
        written = {step.command.argv[4] for step in steps if step.what.startswith("write /")}
        assert written <= set(question("192.168.0.11", wanted).files)
