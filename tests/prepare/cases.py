"""A case is one file: facts in, commands out. Fields that a case leaves out are those of a bare Debian 12 node."""

from __future__ import annotations

from typing import Any

import yaml

from kit.params import Artifacts, Prepare, check, load
from kit.paths import root
from kit.prepare.facts import Container, Facts, User
from kit.prepare.item import Plan, Step, Wanted

DATA = root() / "tests" / "data" / "prepare"
BARE = {"address": "192.168.0.11", "os_id": "debian", "os_version": "12", "codename": "bookworm",
        "kernel": "6.1.0-56-amd64", "systemd": True, "netdev": "eth1", "mac": "00:16:3e:00:00:01", "mtu_bytes": 1500,
        "max_mtu_bytes": 8500, "ipv4": ["192.168.0.11"], "memlock_bytes": 8388608,
        "tools": ["apt-get", "curl", "modprobe", "update-initramfs", "systemctl", "udevadm", "python3", "bash"],
        "initramfs_s": 1000}
SUM = "0" * 64
PRINT = "A" * 40


def facts_from(values: dict[str, Any]) -> Facts:
    given = BARE | values
    for name in ("tools", "executables", "listening"):
        given[name] = frozenset(given.get(name, ()))
    for name in ("used_by", "dev_files", "erdma_options", "ipv4", "dkms"):
        given[name] = tuple(given.get(name, ()))
    given["users"] = tuple(User(**user) for user in given.get("users", ()))
    given["files"] = {path: text.encode() for path, text in given.get("files", {}).items()}
    given["mounts"] = {path: tuple(entry) for path, entry in given.get("mounts", {}).items()}
    given["units"] = {name: tuple(entry) for name, entry in given.get("units", {}).items()}
    given["containers"] = {name: Container(*entry) for name, entry in given.get("containers", {}).items()}
    return Facts(**given)


def wanted_from(values: dict[str, Any], *, recorded: bool) -> Wanted:
    """``recorded``: as if every artifact had a sum and every key a fingerprint."""
    artifacts = load(Artifacts, root() / "params" / "artifacts.yaml")
    if recorded:
        table = {name: it.model_copy(update={"sha256": it.sha256 or SUM,
                                             "fingerprint": PRINT if "key" in name else None})
                 for name, it in artifacts.artifacts.items()}
        artifacts = artifacts.model_copy(update={"artifacts": table})
    return Wanted(check(Prepare, {"name": "case", **values}, where="case"), artifacts)


def as_data(plan: Plan) -> dict[str, Any]:
    """A plan as a case writes it down: what each step is for, then its command, or the inputs of its program."""
    found: dict[str, Any] = {"steps": [[step.what, *map(str, _words(step))] for step in plan.steps]}
    if plan.refused:
        found["refused"] = [plan.refused.why, plan.refused.remedy]
    if plan.waits:
        found["waits"] = plan.waits
    if plan.reboot:
        found["reboot"] = plan.reboot
    return found


def _words(step: Step) -> tuple[Any, ...]:
    return step.command.argv[4:] if step.command.argv[:2] == ("sh", "-c") else step.command.argv


def read_case(name: str) -> dict[str, Any]:
    case: dict[str, Any] = yaml.safe_load((DATA / f"{name}.yaml").read_text())
    return case
