"""The doctor, on the replay of a node that printed what the seed's node printed: eRDMA in standard mode."""

import json
from dataclasses import replace

import pytest
from cases import DATA, facts_from, wanted_from
from click.testing import CliRunner

from kit import device
from kit.cli import main
from kit.command import script
from kit.device import split_sections
from kit.hosts.base import Completed
from kit.prepare import facts as prepare_facts
from kit.prepare.diagnose import device_findings, node_findings, pair_findings
from kit.prepare.facts import Question
from kit.prepare.finding import Finding, worst_first

DEVINFO = (DATA.parent / "ibv_devinfo" / "erdma_standard_v.txt").read_text()
# All that was published of that node is its ibv_devinfo; the rest is what a loaded driver must show beside it.
DEVICE = f"""
@@kit kernel
5.15.0-139-generic
@@kit memlock
unlimited
@@kit perftest_path
/usr/bin/ib_write_bw
@@kit sysfs
module/erdma/parameters/compat_mode N
@@kit ibv_devinfo
{DEVINFO}
@@exit 0
@@kit end
"""
NODE = """
@@kit user
0
@@kit kernel
5.15.0-139-generic
@@kit modules
erdma 217088 0 - Live 0x0
@@kit erdma
refcount 0
param.compat_mode N
@@kit address
192.168.0.{number}
@@kit devices
erdma_0 4: RNIC
@@kit ip_address
[{"ifname":"eth1","mtu":1500,"addr_info":[{"family":"inet","local":"192.168.0.{number}"}]}]
@@exit 0
@@kit gpus
0000:00:03.0
@@kit end
"""


@pytest.fixture
def seed_site(tmp_path):
    for number, name in enumerate("ab", 1):
        address = f"192.168.0.{number}"
        asked = {script(device._SCRIPT.read_text()): DEVICE,
                 _question(Question(address)): NODE.replace("{number}", str(number))}
        answers = {f"run {command}": [{"command": "", "stdout": text.split("\n"), "stderr": [""], "exit_code": 0,
                                       "wall_s": 0.1}] for command, text in asked.items()}
        (tmp_path / f"{name}.json").write_text(json.dumps(
            {"format": 1, "about": {"device": "erdma_0", "address": address}, "answers": answers}))
    site = tmp_path / "seed.yaml"
    site.write_text(f"name: seed\nreplay: {tmp_path}\n")
    return str(site)


def _question(question):
    """The very command that reads the facts."""
    class Asked:
        name = "a"

        def run(self, command, *, deadline_s=30, check=False):
            self.command = command
            return Completed("", "@@kit end\n", "", 0, 0.0)

    host = Asked()
    prepare_facts.read_facts(host, question)
    return host.command


def test_the_seed_is_stopped_by_its_standard_mode(seed_site):
    done = CliRunner().invoke(main, ["doctor", seed_site])
    assert done.exit_code == 1
    first, remedy = done.output.splitlines()[:2]
    assert first.startswith("stops 03_link_perftest (node a, b): erdma_0 is in standard mode")
    assert "perftest out of band (without -R) and NCCL-like users" in first
    assert "connections: [rdma_cm]" in remedy
    assert "mode: compat" in remedy
    assert "stopped: 03_link_perftest" in done.output


def test_the_seed_has_further_limits(seed_site):
    output = CliRunner().invoke(main, ["doctor", seed_site]).output
    assert "no shared receive queue" in output
    assert "unknown 03_link_perftest" in output      # a recording cannot be asked for a connection
    assert output.index("stops ") < output.index("spoils ") < output.index("unknown ")


def test_a_driver_in_compat_mode_is_not_stopped():
    text = DEVICE.replace("eRDMA (1)", "InfiniBand (0)").replace("compat_mode N", "compat_mode Y")
    node = device._facts(split_sections(text), "a", "erdma_0")
    assert "standard" not in " ".join(it.what for it in device_findings(node, "erdma_0"))


@pytest.mark.parametrize(("given", "stage", "word"), [
    ({"rights": "none"}, "01_driver_setup", "root"),
    ({"half_installed": True}, "01_driver_setup", "interrupted"),
    ({"modinfo": True, "modinfo_version": "2", "loaded": True, "loaded_version": "1"}, "02_device_info", "1 is loaded"),
    ({}, "02_device_info", "no erdma module"),
    ({"ipv4": []}, "03_link_perftest", "IPv4"),
    ({}, "05_pd_launch", "GPU"),
    ({"erdma_options": ["/etc/modprobe.d/erdma.conf:options erdma compat_mode=Y"]}, "01_driver_setup", "erdma.conf"),
])
def test_what_a_node_lacks(given, stage, word):
    assert any(it.stage == stage and word in it.what for it in node_findings(facts_from(given)))


def test_a_ready_node_has_nothing_to_say():
    ready = {"modinfo": True, "loaded": True, "devices": {"erdma_0": "iWARP"}, "gpus": 1,
             "erdma_options": ["/etc/modprobe.d/zz-erdma-kit.conf:options erdma compat_mode=Y"]}
    assert list(node_findings(facts_from(ready))) == []


@pytest.mark.parametrize(("b", "word"), [
    ({"mtu_bytes": 8500}, "different MTU"),
    ({"devices": {"erdma_0": "InfiniBand"}}, "different modes"),
    ({"clock_s": 1005.0}, "clocks differ by 5 s"),
])
def test_two_nodes_that_do_not_fit(b, word):
    one = {"devices": {"erdma_0": "iWARP"}, "clock_s": 1000.0}
    wanted = wanted_from({"network": {"max_clock_skew_s": 2.0}}, recorded=True)
    found = list(pair_findings(facts_from(one), facts_from(one | b), wanted, 0.5))
    assert [word in it.what for it in found] == [True]
    assert not list(pair_findings(facts_from(one), facts_from(one), wanted, 0.5))


def test_a_slow_answer_is_no_wrong_clock():
    a, b = facts_from({"clock_s": 1000.0}), replace(facts_from({"clock_s": 1004.0}), asked_s=3.5)
    assert not list(pair_findings(a, b, None, 0.0))


def test_worst_first_and_both_nodes_in_one():
    rows = [Finding("unknown", "01", "a", "u", ""), Finding("spoils", "02", "a", "s", ""),
            Finding("stops", "03", "b", "x", ""), Finding("stops", "03", "a", "x", "")]
    assert [(it.weight, it.node) for it in worst_first(rows)] == [("stops", "b, a"), ("spoils", "a"), ("unknown", "a")]
