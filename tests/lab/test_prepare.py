"""Preparation on the lab's bare guests: a real module, real files, real limits, a real NFS server."""

import os
import signal
import subprocess
import sys

import pytest
import yaml
from click.testing import CliRunner

from kit.cli import main
from kit.command import command, script
from kit.hosts.base import Listening
from kit.lab import guests
from kit.prepare.doctor import examine
from kit.prepare.facts import read_facts
from kit.prepare.reach import unreachable
from kit.prepare.site import item_named, open_preparation, question
from kit.prepare.storage import digest_findings

pytestmark = pytest.mark.lab
QUIET = {"say": lambda _: None}

# An NFSv4 server without its user space: what mountd would answer is told to the kernel beforehand.
SERVE_MODELS = r"""
mkdir -p /srv/models && mount -t tmpfs tmpfs /srv/models && echo weights >/srv/models/model.bin &&
modprobe nfsd && { [ -e /proc/fs/nfsd/threads ] || mount -t nfsd nfsd /proc/fs/nfsd; } || exit 1
echo 10 >/proc/fs/nfsd/nfsv4leasetime; echo 10 >/proc/fs/nfsd/nfsv4gracetime; echo "-2 -3 +4" >/proc/fs/nfsd/versions
later=$(($(date +%s) + 86400))
for ip in 10.77.0.1 10.77.0.2; do echo "nfsd $ip $later kit" >/proc/net/rpc/auth.unix.ip/channel; done
echo "kit /srv/models $later 9219 65534 65534 0" >/proc/net/rpc/nfsd.export/channel
echo "kit 1 \\x00000000 $later /srv/models" >/proc/net/rpc/nfsd.fh/channel
echo "tcp 2049" >/proc/fs/nfsd/portlist; echo 2 >/proc/fs/nfsd/threads
"""
# As after a boot, but for what nobody may care about.
RESET = r"""
modprobe -r erdma; ip link set eth1 mtu 1500
rm -f /etc/modprobe.d/zz-erdma-kit.conf /etc/security/limits.d/90-erdma-kit.conf
"""


@pytest.fixture(scope="module")
def fresh_guests():
    was_up = guests.is_up("erdma")
    guests.down("erdma")
    guests.up("erdma", **QUIET)
    yield
    if not was_up:
        guests.down("erdma")


@pytest.fixture
def prepared(fresh_guests, tmp_path):
    """Opens the lab with what its nodes shall be; everything is closed at the end."""
    opened = []

    def open_with(**wanted):
        path = tmp_path / f"{len(opened)}.yaml"
        path.write_text(yaml.safe_dump({"name": "case", **wanted}))
        opened.append(open_preparation("lab", str(path) if wanted else ""))
        return opened[-1]

    yield open_with
    for preparation in opened:
        for end in preparation.pair:
            end.host.stop(end.host.run_id)
        preparation.close()


def outcomes(done):
    return {row.item: row.outcome for row in done if row.node == "a"}


def test_from_bare_to_ready_and_nothing_the_second_time(prepared):
    lab = prepared()
    lab.pair.a.host.run(script(SERVE_MODELS), check=True)     # its grace period ends while the tests go on
    before = examine(lab.pair, "lab")
    assert ("stops", "02_device_info", "a, b") in {(it.weight, it.stage, it.node) for it in before}
    assert outcomes(lab.apply(**QUIET)) == {"limits": "changed", "network": "changed", "mode": "changed",
                                            "ports": "unchanged"}
    assert all(row.plan.nothing for row in lab.plan())
    again = CliRunner().invoke(main, ["apply", "lab", "--yes"])
    assert again.exit_code == 0
    assert again.output.endswith("mode     unchanged  unchanged\nports    unchanged  unchanged\n")
    facts = read_facts(lab.pair.a.host, question(lab.pair.a.address, lab.wanted))
    assert (facts.params["compat_mode"], facts.devices) == ("Y", {"erdma_0": "InfiniBand"})
    assert (facts.mtu_bytes, facts.memlock_bytes) == (9000, None)
    assert {30608, 30623} <= facts.listening
    assert {it.weight for it in examine(lab.pair, "lab")} == {"spoils"}     # no GPU in a guest


def test_a_device_in_use_is_left_alone(prepared):
    lab = prepared(mode={"mode": "standard"})
    server = lab.pair.a.host.start(command("ib_write_bw", "-d", "erdma_0", "-R", "-p", 18777), deadline_s=60,
                                   ready=Listening(18777))
    by_node = {row.node: row for row in lab.plan()}
    assert "ib_write_bw (pid " in by_node["a"].plan.refused.why
    assert by_node["b"].plan.refused is None
    facts = by_node["a"].facts
    with pytest.raises(Exception, match="in use"):     # and the kernel says so, too
        lab.pair.a.host.run(command("modprobe", "-r", "erdma"), check=True)
    lab.pair.a.host.finish(server, deadline_s=0)
    assert facts.params["compat_mode"] == "Y"
    assert outcomes(lab.apply(**QUIET)) == {"mode": "changed"}
    facts = read_facts(lab.pair.a.host, question(lab.pair.a.address, lab.wanted))
    assert (facts.params["compat_mode"], facts.devices) == ("N", {"erdma_0": "iWARP"})
    assert 30608 not in facts.listening
    found = [it for it in examine(lab.pair) if "standard mode" in it.what]
    assert [(it.weight, it.stage, it.node) for it in found] == [("stops", "03_link_perftest", "a, b")]


def test_a_taken_port_is_named_and_the_kernel_agrees(prepared):
    lab = prepared(mode={"mode": "compat"})
    host = lab.pair.b.host
    listener = host.start(command("nc", "-l", "-p", 30610), deadline_s=60, ready=Listening(30610))
    refused = {row.node: row.plan.refused for row in lab.plan()}
    assert "30610" in refused["b"].why
    assert refused["a"] is None
    assert not host.run(script("modprobe -r erdma; modprobe erdma compat_mode=Y")).ok
    host.finish(listener, deadline_s=0)
    assert outcomes(lab.apply(**QUIET)) == {"mode": "changed"}


def test_a_blocked_network_is_found(prepared):
    lab = prepared()
    lab.pair.a.host.run(command("ip", "route", "add", "blackhole", "10.77.0.2/32"), check=True)
    try:
        found = unreachable(lab.pair, [18515, 18516])
    finally:
        lab.pair.a.host.run(command("ip", "route", "del", "blackhole", "10.77.0.2/32"), check=True)
    assert [(it.weight, it.node, it.what) for it in found] == [
        ("stops", "a", "cannot connect to node b on TCP port 18515, 18516"),
        ("stops", "b", "cannot connect to node a on TCP port 18515, 18516")]


def test_undo_takes_back_the_file(prepared):
    lab = prepared(limits={})
    lab.apply(**QUIET)
    assert {row.outcome for row in lab.undo(item_named("limits"), **QUIET)} == {"changed"}
    assert {row.outcome for row in lab.undo(item_named("limits"), **QUIET)} == {"unchanged"}
    facts = read_facts(lab.pair.a.host, question(lab.pair.a.address, lab.wanted))
    assert facts.text("/etc/security/limits.d/90-erdma-kit.conf") is None
    assert facts.memlock_bytes == 8 << 20


KILLED_AT = """
import os, sys, signal
from kit.prepare.engine import apply_node
from kit.prepare.site import ITEMS, open_preparation, question
left = int(sys.argv[1])
def say(line):
    global left
    if line.count(": ") >= 2 and "changed" not in line:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
lab = open_preparation("lab")
end = lab.pair[sys.argv[2]]
apply_node(end.host, question(end.address, lab.wanted), lab.wanted, ITEMS, say)
"""


@pytest.mark.parametrize("steps", [(1, 2), (3, 4)], ids=str)
def test_killed_at_any_step_it_ends_in_the_same_state(prepared, steps):
    """Node a is killed at one of its four steps, node b at another."""
    lab = prepared()
    lab.pair.both(lambda end: end.host.run(script(RESET), check=True))
    runs = [subprocess.Popen([sys.executable, "-c", KILLED_AT, str(step), end.name], env=dict(os.environ))
            for step, end in zip(steps, lab.pair, strict=True)]
    assert [run.wait(60) for run in runs] == [-signal.SIGKILL] * 2
    lab.pair.close()     # a login from before the limits
    assert {row.outcome for row in lab.apply(**QUIET)} <= {"changed", "unchanged"}
    for row in lab.plan():
        assert row.plan.nothing
        assert (row.facts.params["compat_mode"], row.facts.mtu_bytes, row.facts.memlock_bytes) == ("Y", 9000, None)


def test_models_by_nfs_are_the_same_on_both_nodes(prepared):
    storage = {"server": "10.77.0.1", "export": "/", "options": "addr=10.77.0.1,vers=4.2,ro", "check_file": "model.bin"}
    lab = prepared(storage=storage)
    assert outcomes(lab.apply(**QUIET)) == {"storage": "changed", "models": "unchanged"}
    assert outcomes(lab.apply(**QUIET)) == {"storage": "unchanged", "models": "unchanged"}
    lab.pair.b.host.run(script("umount /data/models && echo others >/data/models/model.bin"), check=True)
    assert [it.what for it in digest_findings(lab.pair, lab.wanted.prepare.storage)] == [
        "/data/models/model.bin is not the same on both nodes"]
