"""The lab's serving part: up, down, status.

Two nodes on this machine, a at 127.0.0.1 and b at 127.0.0.2, each behind an ssh server of its own, with the serving
environments and a tiny model. What is served on them is the launch stage's business.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.errors import LabError
from kit.files import write_atomic, write_json
from kit.lab.image import cache
from kit.lab.pd import sshd
from kit.lab.pd.debian import debian, library_path
from kit.lab.pd.environments import NAMES, Environment, Name, built, environment
from kit.lab.pd.model import Model, make_model
from kit.lab.pd.processes import end_all, running, servers
from kit.lab.steps import Say, alone


@dataclass(frozen=True)
class PdNode:
    """How to reach one node."""

    name: str
    host: str
    ssh_port: int
    key_file: Path
    user: str


@dataclass(frozen=True)
class PdLab:
    """Two nodes that answer, what they can serve with, and what they serve."""

    nodes: tuple[PdNode, ...]
    known_hosts: Path
    environments: dict[str, Environment]
    model: Model

    @property
    def proxy(self) -> Path:
        """LMCache's ``disagg_proxy_server.py`` as published."""
        return self.environments["recipe"].proxy


def up(names: Sequence[Name] = NAMES, *, deadline_s: float = 20, say: Say = print) -> PdLab:
    """Build what is missing and start the ssh servers, or give them as they are when both run.

    ``names`` are the environments that are wanted; ``deadline_s`` is for the servers alone. Raises LabError.
    """
    folder = _folder()
    with alone(folder / ".busy"):
        environments: dict[str, Environment] = {name: environment(name, say) for name in names}
        model = make_model(cache() / "lab" / "pd")
        if not is_up():
            end_all(folder)
            _start(folder, deadline_s, say)
        return _read(folder, environments, model)


def down() -> int:
    """End the servers and everything that was started through them; how many processes that was."""
    folder = _folder()
    with alone(folder / ".busy"):
        (folder / "state.json").unlink(missing_ok=True)
        return end_all(folder)


def is_up() -> bool:
    """Whether both servers run and were ready."""
    folder = _folder()
    return bool(_state(folder).get("ready")) and set(servers(folder)) == set(sshd.ADDRESSES)


def status() -> list[str]:
    """One line a part: the nodes, and the environments."""
    folder = _folder()
    pids = servers(folder)
    if is_up():
        ports = _state(folder)["ports"]
        lines = [f"pd: up ({', '.join(f'{node}: ssh port {ports[node]}, pid {pids[node]}' for node in sorted(pids))}; "
                 f"{running(folder) - len(pids)} other processes)"]
    else:
        lines = [f"pd: only {', '.join(sorted(pids))} is up" if pids else "pd: down"]
    return lines + [f"pd environment {name}: {'built' if built(name) else 'not built'}" for name in NAMES]


def _start(folder: Path, deadline_s: float, say: Say) -> None:
    started = time.monotonic()
    tools, libraries = debian(say), library_path(say)
    ports = {name: sshd.free_port(address) for name, address in sshd.ADDRESSES.items()}
    write_json(folder / "state.json", {"ports": ports, "ready": False})
    made = [sshd.prepare(folder / name, address, ports[name], tools) for name, address in sshd.ADDRESSES.items()]
    write_atomic(folder / "known_hosts", "".join(f"[{one.address}]:{one.port} {one.host_key}\n" for one in made))
    try:
        processes = [sshd.start(one, tools, libraries) for one in made]
        for one, process in zip(made, processes, strict=True):
            sshd.wait_until_ready(one, process, started + deadline_s)
    except LabError:
        end_all(folder)
        raise
    write_json(folder / "state.json", {"ports": ports, "ready": True})
    say(f"lab pd: both nodes up after {time.monotonic() - started:.1f} s")


def _read(folder: Path, environments: dict[str, Environment], model: Model) -> PdLab:
    ports = _state(folder)["ports"]
    user = (folder / "a" / "passwd").read_text().partition(":")[0]
    nodes = tuple(PdNode(name, address, ports[name], folder / name / "id_ed25519", user)
                  for name, address in sshd.ADDRESSES.items())
    return PdLab(nodes, folder / "known_hosts", environments, model)


def _state(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / "state.json").read_text()))
    except (OSError, ValueError):
        return {}


def _folder() -> Path:
    folder = cache() / "lab" / "pd" / "run"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
