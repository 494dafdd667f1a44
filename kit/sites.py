"""A site opened: its two ends, each a host with its RDMA device, whatever kind of site it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from kit.errors import ParamsError
from kit.hosts.base import Host
from kit.params import Node, Site, load, secret
from kit.paths import root

if TYPE_CHECKING:
    from kit.hosts.ssh import SshHost

T = TypeVar("T")


@dataclass(frozen=True)
class End:
    """One node of an open site."""

    name: str
    host: Host
    device: str
    address: str
    rdma_port: int = 1


@dataclass(frozen=True)
class Pair:
    """An open site. Use as a context manager, or call `close`."""

    site: Site
    a: End
    b: End

    def __iter__(self) -> Iterator[End]:
        return iter((self.a, self.b))

    def __getitem__(self, name: str) -> End:
        return {"a": self.a, "b": self.b}[name]

    def both(self, ask: Callable[[End], T]) -> dict[str, T]:
        """The same question to both ends at once: name -> answer."""
        with ThreadPoolExecutor(2) as pool:
            return dict(zip("ab", pool.map(ask, self), strict=True))

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for end in self:
            end.host.close()


def read_site(name: str) -> Site:
    """A site by its file's name under ``params/sites/``, or by a path. Raises ParamsError with the known names."""
    path = Path(name)
    if path.suffix in {".yaml", ".yml"}:
        return load(Site, path if path.is_absolute() or path.exists() else root() / path)
    folder = root() / "params" / "sites"
    if not (folder / f"{name}.yaml").exists():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
        raise ParamsError(f"no site {name!r}; there are: {known}")
    return load(Site, folder / f"{name}.yaml")


def open_site(name: str, *, run_id: str, record: Path | None = None) -> Pair:
    """Open a site by name. A lab site is booted when it is down. Nothing connects before the first command.

    With ``record``, every answer is kept under that folder, to be replayed later.
    """
    site = read_site(name)
    if site.replay is not None:
        return _replayed(site, run_id)
    nodes, known_hosts = nodes_of(site)
    ends = {key: End(key, _ssh(key, node, run_id, known_hosts), node.rdma_device, node.rdma_address, node.rdma_port)
            for key, node in nodes.items()}
    if record is not None:
        ends = {key: _recorded(end, record) for key, end in ends.items()}
    return Pair(site, ends["a"], ends["b"])


def nodes_of(site: Site) -> tuple[dict[str, Node], Path]:
    """The nodes and the known_hosts file of a site that is not a replay; a lab is booted when it is down."""
    if site.lab is not None:
        from kit.lab.guests import up

        lab = up(site.lab)
        return {node.name: Node(host=node.host, port=node.ssh_port, user=node.user, key_file=str(node.key_file),
                                rdma_device=node.rdma_device, rdma_address=node.rdma_address)
                for node in lab.nodes}, Path(lab.known_hosts)
    assert site.nodes is not None, "the schema lets no other kind through"  # noqa: S101
    return {str(name): node for name, node in site.nodes.items()}, root() / site.known_hosts


def _ssh(name: str, node: Node, run_id: str, known_hosts: Path) -> SshHost:
    from kit.hosts.ssh import SshHost

    jump = None
    if node.jump is not None:
        jump = SshHost(f"{name}-jump", node.jump.host, node.jump.port, node.jump.user, run_id=run_id,
                       key_file=_key(node.jump.key_file), known_hosts=known_hosts)
    return SshHost(name, node.host, node.port, node.user, run_id=run_id, key_file=_key(node.key_file),
                   known_hosts=known_hosts, jump=jump)


def _key(reference: str | None) -> Path | None:
    return None if reference is None else Path(os.path.expanduser(secret(reference)))


def _recorded(end: End, folder: Path) -> End:
    from kit.hosts.replay import RecordingHost

    host = RecordingHost(end.host, folder / f"{end.name}.json",
                         about={"device": end.device, "address": end.address})
    return End(end.name, host, end.device, end.address, end.rdma_port)


def _replayed(site: Site, run_id: str) -> Pair:
    from kit.hosts.replay import ReplayHost

    assert site.replay is not None, "only called for a replay"  # noqa: S101
    ends = {}
    for name in ("a", "b"):
        host = ReplayHost(name, root() / site.replay / f"{name}.json", run_id=run_id)
        ends[name] = End(name, host, host.about["device"], host.about["address"])
    return Pair(site, ends["a"], ends["b"])
