"""A node's facts from what the script really printed, and from any damage to it."""

import contextlib

import pytest
from cases import DATA
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.device import split_sections
from kit.errors import ParseError
from kit.hosts.local import LocalHost
from kit.prepare.facts import Facts, Question, User, facts_of, read_facts

TEXTS = {path.stem: path.read_text() for path in (DATA.parent / "prepare_facts").glob("*.txt")}


def facts(name):
    return facts_of(split_sections(TEXTS[name]), "a")


def test_a_bare_guest():
    it = facts("guest_bare")
    assert (it.os_id, it.os_version, it.kernel) == ("debian", "12", "6.1.0-56-amd64")
    assert (it.rights, it.modinfo, it.modinfo_version, it.loaded) == ("root", True, "0.0-lab-stand-in", False)
    assert (it.netdev, it.mtu_bytes, it.ipv4, it.memlock_bytes) == ("eth1", 1500, ("10.77.0.1",), 8 << 20)
    assert (it.devices, it.users, it.files, it.problems) == ({}, (), {}, {})


def test_a_prepared_guest():
    it = facts("guest_compat")
    assert (it.loaded, it.params["compat_mode"], it.devices) == (True, "Y", {"erdma_0": "InfiniBand"})
    assert set(range(30608, 30624)) <= it.listening
    assert (it.mtu_bytes, it.memlock_bytes) == (9000, None)
    assert b"options erdma compat_mode=Y\n" in it.files["/etc/modprobe.d/zz-erdma-kit.conf"]


def test_this_machine():
    it = read_facts(LocalHost("a", run_id="kit-test-facts"), Question("127.0.0.1", files=("/etc/os-release",)))
    assert it.netdev == "lo"
    assert it.clock_s > 1.7e9
    assert b"ID=" in it.files["/etc/os-release"]


USED = """
@@kit holders
71 ib_write_bw
@@kit rdma_qp
[{"ifname":"erdma_0","pid":72,"comm":"python3"},{"ifname":"erdma_0","comm":"[ib_core]"}]
@@exit 0
@@kit rdma_cm
[{"ifname":"erdma_0","state":"LISTEN","pid":71,"comm":"ib_write_bw"}]
@@exit 0
@@kit dpkg
dpkg-query: no packages found matching perftest
iproute2\t6.1.0-3\tinstalled
dkms\t3.0\tconfig-files

@@exit 1
@@kit policy
perftest:
  Installed: (none)
  Candidate: 4.5+0.17-1
  Version table:
     4.5+0.17-1 500
eadm:
  Installed: (none)
  Candidate: (none)
@@exit 0
@@kit containers
docker erdma-kit running 4c76d160e5c9
docker other running
@@kit end
"""


def test_users_packages_and_containers():
    it = facts_of(split_sections(USED), "a")
    assert it.users == (User(71, "ib_write_bw"), User(72, "python3"))
    assert (it.packages, it.candidates) == ({"iproute2": "6.1.0-3"}, {"perftest": "4.5+0.17-1"})
    assert {name: each.plan for name, each in it.containers.items()} == {"erdma-kit": "4c76d160e5c9", "other": ""}


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.sampled_from(sorted(TEXTS)), st.data())
def test_damaged_text_is_facts_or_a_parse_error(name, data):
    lines = TEXTS[name].split("\n")
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(lines) - 1))
        lines[at] = data.draw(st.one_of(st.just(""), st.text(max_size=30), st.just(lines[at][::-1])))
    with contextlib.suppress(ParseError):
        assert isinstance(facts_of(split_sections("\n".join(lines)), "a"), Facts)


@pytest.mark.parametrize("text", ["", "@@kit kernel\n6.1\n"])
def test_a_cut_off_answer_is_told(text):
    with pytest.raises(ParseError, match="too early"):
        split_sections(text)
