"""All kinds of lab under one name each: guests with an RDMA device, and the serving part on this machine."""

from __future__ import annotations

from kit.lab import guests
from kit.lab.pd import lab as pd
from kit.lab.steps import Say

KINDS: tuple[str, ...] = (*guests.KINDS, "pd")


def up(kind: str, say: Say = print) -> list[str]:
    """Build and start what is missing; a line on each node. Raises LabError."""
    if kind == "pd":
        return [f"{node.name}: {node.host}, ssh port {node.ssh_port}" for node in pd.up(say=say).nodes]
    lab = guests.up(next(known for known in guests.KINDS if known == kind), say=say)
    return [f"{node.name}: {node.rdma_device} at {node.rdma_address}, ssh port {node.ssh_port}" for node in lab.nodes]


def is_up(kind: str) -> bool:
    return pd.is_up() if kind == "pd" else guests.is_up(kind)


def down(kind: str | None = None) -> None:
    """One kind, or all."""
    if kind in (None, "pd"):
        pd.down()
    if kind != "pd":
        guests.down(kind)


def status() -> list[str]:
    return [*guests.status(), *pd.status()]
