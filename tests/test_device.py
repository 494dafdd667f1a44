"""A node's facts, read from the sections of kit/device.sh made of real tools' output."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from kit.command import Command
from kit.describe import CM_NOTE, JUMBO_NOTE, SOFT_NOTE, SPEED_NOTE
from kit.device import (
    NodeFacts,
    Section,
    compare_pair,
    describe,
    mode,
    read_facts,
    require_device,
    split_sections,
)
from kit.errors import CommandError, DeviceError, ParseError
from kit.hosts.base import Completed
from kit.parse.ibv import IbvDevice, parse_ibv_devinfo

DATA = Path(__file__).parent / "data"
SCRIPT = Path(__file__).parent.parent / "kit" / "device.sh"


def sample(name: str) -> str:
    return (DATA / name).read_text()


def device_of(name: str, index: int = 0) -> IbvDevice:
    return parse_ibv_devinfo(sample(f"ibv_devinfo/{name}"))[index]


SEED = device_of("erdma_standard_v.txt")

SYSFS = """\
class/net/eth0/mtu 1500
class/net/eth1/mtu 9000
class/infiniband/rxe0/ports/1/gids/0 fe80:0000:0000:0000:5054:00ff:fe77:0001
class/infiniband/rxe0/ports/1/gid_attrs/types/0 RoCE v2
class/infiniband/rxe0/ports/1/gid_attrs/ndevs/0 eth1
class/infiniband/rxe0/ports/1/gids/1 0000:0000:0000:0000:0000:ffff:0a4d:0001
class/infiniband/rxe0/ports/1/gid_attrs/types/1 RoCE v2
class/infiniband/rxe0/ports/1/gid_attrs/ndevs/1 eth1
class/infiniband/siw0/ports/1/gids/0 5254:0077:0001:0000:0000:0000:0000:0000
class/infiniband/siw0/ports/1/gid_attrs/types/0 IB/RoCE v1
"""
GUEST: dict[str, str | tuple[str, int] | None] = {
    "kernel": "6.1.0-56-amd64\n", "cpus": "0\n", "memory": "MemTotal:         353488 kB\n", "memlock": "8192\n",
    "systemd": "", "dev_files": "rdma_cm\nuverbs0\nuverbs1\n", "perftest_path": "/usr/bin/ib_write_bw\n",
    "os": sample("kernel/os_release_debian12.txt"), "modules": sample("kernel/lsmod.txt"),
    "cpu": sample("kernel/cpuinfo_qemu_first_lines.txt"),
    "sysfs": SYSFS + "".join(f"class/infiniband/rxe0/ports/1/hw_counters/{line}\n"
                             for line in sample("kernel/hw_counters_rxe.txt").splitlines()),
    "ibv_devices": (sample("ibv_devices/siw_rxe.txt"), 0), "ibv_devinfo": (sample("ibv_devinfo/siw_rxe_v.txt"), 0),
    "rdma_link": (sample("rdma/link.json"), 0), "rdma_resource": (sample("rdma/resource.json"), 0),
    "perftest": ("Version: 6.06\n", 1), "iproute2": ("rdma utility, iproute2-6.1.0\n", 0), "dpkg": None, "rpm": None,
}
NO_TOOLS: dict[str, str | tuple[str, int] | None] = {
    **GUEST, "sysfs": "class/net/eth0/mtu 1500\n", "ibv_devices": None, "ibv_devinfo": None, "perftest": None,
    "perftest_path": "", "rdma_link": (sample("rdma/err_no_netlink.txt"), 1), "memlock": "unlimited\n",
    "rdma_resource": (sample("rdma/err_no_netlink.txt"), 1), "modules": "", "systemd": "yes\n",
    "dpkg": ("dpkg-query: no packages found matching perftest\niproute2 6.1.0-3\n", 1),
}


def printed(sections: dict[str, str | tuple[str, int] | None]) -> str:
    """The text that kit/device.sh prints for these sections: a tool with its exit code, None for a missing one."""
    text = ""
    for name, body in sections.items():
        text += f"\n@@kit {name}\n"
        if body is None:
            text += "@@missing\n"
        else:
            text += body if isinstance(body, str) else f"{body[0]}\n@@exit {body[1]}\n"
    return text + "\n@@kit end\n"


@dataclass
class OneAnswer:
    """A node that answers every command with the same text."""

    stdout: str
    name: str = "rdma1"
    run_id: str = "test"
    asked: int = 0

    def run(self, command: Command, *, deadline_s: float = 30, check: bool = False) -> Completed:
        self.asked += 1
        return Completed(str(command), self.stdout, "", 0, 0.1)


def facts_of(sections: dict[str, str | tuple[str, int] | None], device: str | None = None) -> NodeFacts:
    return read_facts(OneAnswer(printed(sections)), device=device)  # type: ignore[arg-type]


def test_facts_of_a_guest_in_one_round_trip() -> None:
    host = OneAnswer(printed(GUEST))
    facts = read_facts(host, device="rxe0")  # type: ignore[arg-type]
    assert host.asked == 1
    assert (facts.kernel, facts.cpu_model) == ("6.1.0-56-amd64", "QEMU TCG CPU version 2.5+")
    assert (facts.cpu_count, facts.memory_bytes, facts.memlock_bytes) == (1, 353488 * 1024, 8 * 2**20)
    assert (facts.perftest_version, facts.perftest_path) == ("6.06", "/usr/bin/ib_write_bw")
    assert [device.hca_id for device in facts.devices] == ["siw0", "rxe0"]
    assert (facts.netdevs["siw0"], facts.netdev_mtu("rxe0")) == ("eth1", 9000)
    assert facts.gids_of("rxe0") == {"fe80::5054:ff:fe77:1", "::ffff:a4d:1"}
    assert facts.gids_of("siw0") == {"5254:77:1::"}
    assert [gid.kind for gid in facts.gids["rxe0"]] == ["RoCE v2", "RoCE v2"]
    assert (facts.counters["rxe0/1"].family, facts.counters["siw0/1"].family) == ("rxe", "none")
    assert "rdma_rxe" in facts.modules
    assert "virtio_net" not in facts.modules
    assert facts.packages == {"iproute2": "6.1.0"}
    assert not facts.systemd
    assert facts.problems == {}


def test_the_recorded_answer_of_a_guest() -> None:
    facts = read_facts(OneAnswer(sample("facts/siw_rxe_guest.txt")), device="siw0")  # type: ignore[arg-type]
    assert facts.problems == {}
    assert facts.gids_of("rxe0") == {"fe80::5054:ff:fe77:7", "::ffff:a4d:7"}
    assert facts.counters["rxe0/1"].family == "rxe"
    assert {link.ifname for link in facts.links} == {row.ifname for row in facts.resources} == {"siw0", "rxe0"}
    summary = facts.summary("siw0")
    assert (summary.rc_only, summary.netdev_mtu_bytes, summary.max_mr_size_gib) == (True, 1500, None)


def test_missing_tools_are_facts() -> None:
    facts = facts_of(NO_TOOLS)
    assert facts.devices == ()
    assert facts.problems["ibv_devinfo"] == facts.problems["perftest"] == "not installed"
    assert "NETLINK_RDMA" in facts.problems["rdma_link"]
    assert facts.packages == {"iproute2": "6.1.0-3"}
    assert facts.systemd
    with pytest.raises(DeviceError, match="there are: none") as caught:
        require_device(facts, "erdma_0", "p")
    assert "not installed" in str(caught.value)


def test_fingerprint_is_flat_and_leaves_out_what_moves() -> None:
    facts = facts_of(GUEST, "rxe0")
    found = facts.fingerprint()
    assert list(found) == sorted(found)
    assert (found["driver"], found["mode"], found["device"]) == ("rxe", "not eRDMA", "rxe0")
    assert (found["device.siw0.mtu"], found["device.siw0.active_mtu"]) == ("9000", "1024")
    assert (found["perftest"], found["memlock_bytes"]) == ("6.06", str(8 * 2**20))
    later = replace(facts, counters={}, resources=(), gids={})
    assert later.fingerprint() == found
    assert json.dumps(facts.to_dict()) == json.dumps(facts_of(GUEST, "rxe0").to_dict())
    assert facts_of(NO_TOOLS).fingerprint()["memlock_bytes"] == "unlimited"


def test_the_only_device_is_the_one_meant() -> None:
    facts = facts_of({**GUEST, "ibv_devinfo": (sample("ibv_devinfo/erdma_standard_v.txt"), 0), "sysfs":
                      "module/erdma/version 0.2.37\nmodule/erdma/parameters/compat_mode N\nclass/net/eth1/mtu 8500\n"})
    found = facts.fingerprint()
    assert (facts.device, found["driver"], found["mode"]) == ("erdma_0", "erdma 0.2.37", "standard")
    assert found["param.erdma.compat_mode"] == "N"


def test_a_cut_answer_is_an_error_about_the_node() -> None:
    with pytest.raises(CommandError, match="rdma1"):
        read_facts(OneAnswer(printed(GUEST)[:-20]))  # type: ignore[arg-type]
    with pytest.raises(ParseError):
        split_sections("")


def test_split_sections() -> None:
    found = split_sections("\n@@kit a\n1\n2\n\n@@kit b\nx\n\n@@exit 3\n\n@@kit c\n@@missing\n\n@@kit end\n")
    assert found["a"] == Section("1\n2")
    assert found["b"] == Section("x", 3)
    assert found["c"] == Section("", missing=True)


def test_the_script_runs_here_and_changes_nothing() -> None:
    done = subprocess.run(["sh", "-c", SCRIPT.read_text(), "kit"], capture_output=True, text=True, check=True)
    facts = read_facts(OneAnswer(done.stdout))  # type: ignore[arg-type]
    assert facts.kernel
    assert facts.cpu_count
    assert facts.memory_bytes


def test_seed_device() -> None:
    summary = describe(SEED, module_params={"compat_mode": "N"})
    assert (summary.family, summary.mode, summary.rc_only, summary.qp_types) == ("erdma", "standard", True, "RC only")
    assert (summary.max_mr_size_gib, summary.active_mtu_bytes, summary.srq) == (64, 4096, False)
    assert summary.notes == (CM_NOTE, SPEED_NOTE)


@pytest.mark.parametrize(("transport", "code", "table", "expected"), [
    ("eRDMA", 1, 1, "standard"),
    ("iWARP", 1, 1, "standard"),
    ("InfiniBand", 0, 16, "compat"),
    ("unknown", None, 16, "compat"),
    ("unknown", None, 1, "standard"),
])
def test_mode_of_an_erdma_device(transport: str, code: int | None, table: int, expected: str) -> None:
    port = replace(SEED.ports[0], gid_tbl_len=table)
    device = replace(SEED, transport=transport, transport_code=code, ports=(port,))
    assert mode(device) == expected
    assert not any("contradiction" in note for note in describe(device).notes)


def test_a_contradiction_on_the_mode_is_a_note() -> None:
    summary = describe(SEED, module_params={"compat_mode": "Y"})
    assert summary.mode == "standard"
    assert any("compat_mode Y says compat" in note for note in summary.notes)


def test_software_devices_and_mtu_notes() -> None:
    siw, rxe = device_of("siw_rxe_v.txt"), device_of("siw_rxe_v.txt", 1)
    assert describe(siw).notes == (SOFT_NOTE, CM_NOTE)
    assert describe(rxe).notes == (SOFT_NOTE, JUMBO_NOTE)
    assert describe(device_of("rxe_v_mtu9000.txt")).notes == (SOFT_NOTE,)
    assert (describe(rxe).gid_count, describe(rxe).srq, describe(rxe).mode) == (2, True, "not eRDMA")
    assert facts_of(GUEST).summary("siw0").gid_count == 1


def test_compare_pair() -> None:
    standard = describe(SEED, netdev_mtu_bytes=8500)
    assert compare_pair(standard, standard) == []
    small = replace(SEED.ports[0], active_mtu_bytes=1024)
    warnings = compare_pair(standard, describe(replace(SEED, ports=(small,)), netdev_mtu_bytes=1500))
    assert len(warnings) == 2
    assert all("MTU" in warning for warning in warnings)
    compat = describe(replace(SEED, transport="InfiniBand", transport_code=0), netdev_mtu_bytes=8500)
    assert "do not connect" in compare_pair(standard, compat)[0]
    siw, rxe = (describe(device) for device in parse_ibv_devinfo(sample("ibv_devinfo/siw_rxe_v.txt")))
    assert any("only siw0 is iWARP" in warning for warning in compare_pair(siw, rxe))


def test_require_device() -> None:
    facts = facts_of(GUEST)
    assert require_device(facts, "siw0", "p").hca_id == "siw0"
    with pytest.raises(DeviceError, match="there are: siw0, rxe0") as caught:
        require_device(facts, "erdma_0", "p")
    assert caught.value.remedy
    down = facts_of({**GUEST, "ibv_devinfo": (sample("ibv_devinfo/port_down.txt"), 0)})
    with pytest.raises(DeviceError, match="port 1 is PORT_DOWN") as caught:
        require_device(down, "siw0", "p")
    assert "ip link set eth1 up" in caught.value.remedy
