"""The model folder by NFS: mounted once, again after a boot, and the same content on both nodes.

Sources: nfs(5), systemd.mount(5) and systemd.unit(5) (the unit is named after its escaped path).
"""

from __future__ import annotations

import re

from kit.command import command
from kit.errors import HostError
from kit.hosts.base import Host
from kit.params import StorageWanted
from kit.prepare.facts import Facts
from kit.prepare.finding import Finding
from kit.prepare.item import Item, Plan, Step, Wanted, refuse, remove_file, shell, write_file
from kit.prepare.userspace import RPM_INSTALL, install
from kit.sites import Pair

_UNITS = "/etc/systemd/system"
_MOUNT = 'mkdir -p -- "$4" && exec mount -t "$1" -o "$2" "$3" "$4"'
_ENABLE = 'systemctl daemon-reload && systemctl enable -q -- "$1"'
_START = 'systemctl start -- "$1"'
_UNMOUNT = 'umount -- "$1"'
_DIGEST_S = 900


def plan(facts: Facts, wanted: Wanted) -> Plan:
    """The mount, and with systemd a unit that brings it back after a boot."""
    want = _want(wanted)
    there = facts.mounts.get(want.path)
    source = f"{want.server}:{want.export}"
    if there is not None and (there[0] != source or not there[1].startswith("nfs")):
        return refuse(f"{there[0]} is mounted on {want.path} already", f"umount {want.path}, or choose another path")
    steps: list[Step] = []
    # With addr= among the options the kernel mounts by itself and needs no helper.
    helper = "mount.nfs" in facts.tools
    if not helper and "addr=" not in want.options:
        if "apt-get" in facts.tools:
            steps.append(install(["nfs-common"]))
        elif facts.tools & {"dnf", "yum"}:
            steps.append(shell("install nfs-utils", RPM_INSTALL, "nfs-utils", deadline_s=1800))
        else:
            return refuse("mount.nfs is missing, and the node has neither apt nor dnf", "install nfs-common by hand")
    if not facts.systemd:
        if there is None:
            kind = "nfs" if helper or steps else "nfs4"
            steps.append(shell(f"mount {source} on {want.path}", _MOUNT, kind, want.options, source, want.path))
        return Plan(tuple(steps))
    unit = unit_of(want.path)
    enabled, active = facts.units.get(unit, ("no", "inactive"))
    if facts.text(f"{_UNITS}/{unit}") != unit_text(want) or enabled != "enabled":
        steps += [write_file(f"{_UNITS}/{unit}", unit_text(want)), shell(f"enable {unit}", _ENABLE, unit)]
    if there is None or active != "active":
        steps.append(shell(f"mount {source} on {want.path}", _START, unit, deadline_s=120))
    return Plan(tuple(steps))


def undo(facts: Facts, wanted: Wanted) -> Plan:
    """Unmounted (it fails while somebody uses it), and the unit removed."""
    want = _want(wanted)
    steps = [shell(f"unmount {want.path}", _UNMOUNT, want.path)] if want.path in facts.mounts else []
    unit = f"{_UNITS}/{unit_of(want.path)}"
    return Plan((*steps, *([remove_file(unit)] if unit in facts.files else [])))


def files(want: StorageWanted) -> tuple[str, ...]:
    """What the facts must read for this item."""
    return (f"{_UNITS}/{unit_of(want.path)}",)


def unit_of(path: str) -> str:
    """The name that systemd wants for a mount's unit."""
    plain = path.strip("/")
    escaped = re.sub(r"[^A-Za-z0-9:_./]", lambda found: f"\\x{ord(found[0]):02x}", plain)
    return f"{escaped.replace('/', '-')}.mount"


def unit_text(want: StorageWanted) -> str:
    """The unit's content."""
    return ("# Written whole by erdma-kit; changes to it are lost.\n"
            f"[Unit]\nDescription=models for erdma-kit\nWants=network-online.target\nAfter=network-online.target\n\n"
            f"[Mount]\nWhat={want.server}:{want.export}\nWhere={want.path}\nType=nfs\nOptions={want.options},_netdev\n\n"
            "[Install]\nWantedBy=remote-fs.target\n")


def digest(host: Host, path: str) -> str:
    """SHA-256 of a file on the node. Raises HostError."""
    return host.run(command("sha256sum", "--", path), deadline_s=_DIGEST_S, check=True).stdout.split(" ")[0]


def digest_findings(pair: Pair, want: StorageWanted) -> list[Finding]:
    """Whether the named file is there on both nodes, and the same."""
    if want.check_file is None:
        return []
    path = f"{want.path}/{want.check_file}"
    remedy = "see that both nodes mount the same export: kit plan SITE"
    try:
        sums = pair.both(lambda end: digest(end.host, path))
    except HostError as error:
        return [Finding("stops", "05_pd_launch", error.node or "a, b",
                        f"{path} cannot be read: {error.output or error}", remedy)]
    if sums["a"] == sums["b"]:
        return []
    return [Finding("stops", "05_pd_launch", "a, b", f"{path} is not the same on both nodes", remedy)]


def _want(wanted: Wanted) -> StorageWanted:
    assert wanted.prepare.storage is not None, "only asked for what is wanted"  # noqa: S101
    return wanted.prepare.storage


ITEM = Item("storage", "storage", plan, undo, after=("network",))
