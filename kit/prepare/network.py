"""The interface under the RDMA device: an IPv4 address, and one MTU on both nodes, now and after the next boot."""

from __future__ import annotations

from kit.prepare.facts import Facts
from kit.prepare.item import Item, Plan, Step, Wanted, refuse, remove_file, shell, write_file

PATH = "/etc/udev/rules.d/90-erdma-kit-mtu.rules"
SET_MTU = 'ip link set dev "$1" mtu "$2"'


def plan(facts: Facts, wanted: Wanted) -> Plan:
    """The wanted MTU; refuses where the interface has no IPv4 address or cannot carry it."""
    network = wanted.prepare.network
    assert network is not None, "only asked for what is wanted"  # noqa: S101
    if not facts.netdev:
        return refuse(f"no network interface has the address {facts.address}",
                      "bring the RDMA interface up with its address (ip addr), or correct rdma_address in the site")
    if not facts.ipv4:
        return refuse(f"{facts.netdev} has no IPv4 address", "eRDMA connects over IPv4: give the interface one")
    if network.mtu_bytes is None:
        return Plan()
    if facts.max_mtu_bytes and network.mtu_bytes > facts.max_mtu_bytes:
        return refuse(f"{facts.netdev} carries at most {facts.max_mtu_bytes} bytes, wanted are {network.mtu_bytes}",
                      "ask for a smaller mtu_bytes, the same on both nodes, or enable jumbo frames for the instance")
    steps: list[Step] = []
    if facts.tools & {"udevadm"} and facts.text(PATH) != _rule(facts.mac, network.mtu_bytes):
        steps.append(write_file(PATH, _rule(facts.mac, network.mtu_bytes)))
    if facts.mtu_bytes != network.mtu_bytes:
        steps.append(shell(f"MTU {facts.mtu_bytes} -> {network.mtu_bytes} of {facts.netdev}", SET_MTU, facts.netdev,
                           network.mtu_bytes))
    return Plan(tuple(steps))


def undo(facts: Facts, wanted: Wanted) -> Plan:
    """The rule is removed; the MTU stays until the next boot, because nobody wrote down what it was."""
    return Plan((remove_file(PATH),) if PATH in facts.files else ())


def _rule(mac: str, mtu_bytes: int) -> str:
    return ("# Written whole by erdma-kit; changes to it are lost.\n"
            f'ACTION=="add", SUBSYSTEM=="net", ATTR{{address}}=="{mac}", ATTR{{mtu}}="{mtu_bytes}"\n')


ITEM = Item("network", "network", plan, undo)
