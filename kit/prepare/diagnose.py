"""What a node's facts say about the stages to come: pure rules, each with its remedy.

Sources: the eRDMA driver (modes, SRQ, GID table), vLLM and LMCache (locked memory), the vendor's pages (MTU).
"""

from __future__ import annotations

from collections.abc import Iterator

from kit.device import NodeFacts
from kit.prepare import mode
from kit.prepare.facts import Facts
from kit.prepare.finding import Finding
from kit.prepare.item import Wanted

_DRIVER, _DEVICE, _LINK, _ENGINE, _SERVE, _BENCH = ("01_driver_setup", "02_device_info", "03_link_perftest",
                                                    "04_transfer_engine", "05_pd_launch", "06_serve_bench")
_LOCKED_BYTES = 1 << 30     # less than a transfer engine's smallest sensible segment


def device_findings(facts: NodeFacts, name: str) -> Iterator[Finding]:
    """Of one node, from its device's facts."""
    node = facts.node
    device = next((it for it in facts.devices if it.hca_id == name), None)
    if device is None:
        there = ", ".join(it.hca_id for it in facts.devices) or "none"
        yield Finding("stops", _DEVICE, node, f"there is no RDMA device {name} (there are: {there})",
                      "kit plan SITE shows what the driver lacks; in a container pass in /dev/infiniband")
        return
    summary = facts.summary(name)
    if summary.state and summary.state != "PORT_ACTIVE":
        yield Finding("stops", _DEVICE, node, f"{name} is {summary.state}",
                      f"ip link set {facts.netdevs.get(name, 'DEV')} up")
    if summary.mode == "standard":
        yield Finding("stops", _LINK, node,
                      f"{name} is in standard mode: whatever connects without RDMA_CM fails with `Failed to modify QP "
                      "to RTS`, that is perftest out of band (without -R) and NCCL-like users",
                      "connections: [rdma_cm] needs no change; else `mode: {mode: compat}` in the preparation of both "
                      "nodes and kit apply SITE, which reloads the driver")
    elif summary.needs_rdma_cm:
        yield Finding("stops", _LINK, node, f"{name} is iWARP: what connects without RDMA_CM fails",
                      "connections: [rdma_cm]")
    if not facts.perftest_path and not facts.perftest_version:
        yield Finding("stops", _LINK, node, "perftest is not installed", "apt install perftest")
    limit = facts.memlock_bytes
    if limit is not None and limit < _LOCKED_BYTES and "memlock" not in facts.problems:
        yield Finding("stops", _ENGINE, node, f"only {limit // 1024} KiB of memory may be locked: registering KV "
                      "memory fails",
                      "`limits: {}` in the preparation, then kit apply SITE; --ulimit memlock=-1 in containers")
    if summary.family == "erdma" and not summary.srq:
        yield Finding("spoils", _SERVE, node, f"{name} has no shared receive queue (max_srq 0): UCX, NIXL cannot run",
                      "use Mooncake's transfer engine; or a driver of installer 1.5.4 or newer in compat mode")
    if summary.active_mtu_bytes == 1024 and summary.family == "erdma":
        yield Finding("spoils", _LINK, node, f"jumbo frames are off (active MTU 1024, interface "
                      f"{summary.netdev_mtu_bytes or 'unknown'})", "mtu_bytes: 8500 in the preparation of both nodes")


def node_findings(facts: Facts) -> Iterator[Finding]:
    """Of one node, from what a preparation knows."""
    if facts.rights == "none":
        yield Finding("stops", _DRIVER, facts.node, "commands cannot become root: no sudo without a password",
                      "connect as root, or add the user to /etc/sudoers.d with NOPASSWD")
    if facts.half_installed:
        yield Finding("stops", _DRIVER, facts.node, "a package installation was interrupted", "dpkg --configure -a")
    if facts.modinfo and facts.loaded and facts.loaded_version and facts.loaded_version != facts.modinfo_version:
        yield Finding("spoils", _DEVICE, facts.node, f"driver {facts.loaded_version} is loaded, "
                      f"{facts.modinfo_version} is installed", "kit apply SITE reloads it, or reboot")
    if not facts.modinfo and not facts.loaded and not facts.devices:
        yield Finding("stops", _DEVICE, facts.node, f"there is no erdma module for kernel {facts.kernel}",
                      "`driver:` in the preparation, then kit apply SITE; after a kernel update DKMS needs its headers")
    others = sorted({line.partition(":")[0] for line in facts.erdma_options} - {mode.PATH})
    if others:
        yield Finding("spoils", _DRIVER, facts.node, f"options of erdma are set in {', '.join(others)}, too",
                      f"remove them there: {mode.PATH} is read last, and one place is enough")
    if not facts.ipv4:
        yield Finding("stops", _LINK, facts.node, f"no interface has {facts.address} as an IPv4 address",
                      "bring the RDMA interface up with its address, or correct rdma_address in the site")
    if not facts.gpus:
        yield Finding("spoils", _SERVE, facts.node, "no NVIDIA GPU is to be seen: serving runs on the CPU",
                      "nvidia-smi tells why, where there should be one")


def wanted_findings(facts: Facts, planned: list[tuple[str, str, str, int]]) -> Iterator[Finding]:
    """Of a preparation: (item, why refused, remedy, missing steps)."""
    for item, why, remedy, missing in planned:
        if why:
            yield Finding("stops", _DRIVER, facts.node, f"{item} cannot be prepared: {why}", remedy)
        elif missing:
            yield Finding("spoils", _DRIVER, facts.node, f"{item} is not as the preparation wants it "
                          f"({missing} steps)", "kit plan SITE shows them, kit apply SITE does them")


def pair_findings(a: Facts, b: Facts, wanted: Wanted | None, apart_s: float) -> Iterator[Finding]:
    """Of the two nodes together. ``apart_s`` is how far apart in time they may have been asked."""
    if None not in (a.mtu_bytes, b.mtu_bytes) and a.mtu_bytes != b.mtu_bytes:
        yield Finding("stops", _LINK, "a, b", f"different MTU: a {a.mtu_bytes}, b {b.mtu_bytes} bytes; large messages "
                      "stall", "one mtu_bytes in the preparation, then kit apply SITE")
    kinds = {name: sorted(set(facts.devices.values())) for name, facts in (("a", a), ("b", b)) if facts.devices}
    if len(kinds) == 2 and kinds["a"] != kinds["b"]:
        yield Finding("stops", _LINK, "a, b", f"different modes: a has {', '.join(kinds['a'])}, b has "
                      f"{', '.join(kinds['b'])}; they do not connect", "the same `mode` on both, then kit apply SITE")
    allowed = wanted.prepare.network.max_clock_skew_s if wanted and wanted.prepare.network else 1.0
    skew = abs(a.clock_s - b.clock_s)
    if a.clock_s and b.clock_s and skew > allowed + apart_s + a.asked_s + b.asked_s:
        yield Finding("spoils", _BENCH, "a, b", f"the clocks differ by {skew:.0f} s: times of the two nodes cannot be "
                      "laid side by side", "run chrony or systemd-timesyncd on both")


