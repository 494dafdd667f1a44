"""A site opened: its two ends, each a host with its RDMA device, whatever kind of site it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from kit.errors import ParamsError
from kit.hosts.base import Host
from kit.params import Node, Serving, Site, load, secret
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
    """An open site. Use as a context manager, or call `close`.

    ``serving`` and ``lmcache_proxy`` (a file on this machine) are None where the site says nothing of them.
    """

    site: Site
    a: End
    b: End
    serving: Serving | None = None
    lmcache_proxy: Path | None = None

    def __iter__(self) -> Iterator[End]:
        return iter((self.a, self.b))

    def __getitem__(self, name: str) -> End:
        return {"a": self.a, "b": self.b}[name]

    def both(self, ask: Callable[[End], T]) -> dict[str, T]:
        """The same question to both ends at once: name -> answer."""
        with ThreadPoolExecutor(2) as pool:
            return dict(zip("ab", pool.map(ask, self), strict=True))

    @property
    def prefill(self) -> End:
        """The end whose node is for prefill: node a where the site does not say."""
        nodes = self.site.nodes or {}
        return self.b if any(node.role == "prefill" for name, node in nodes.items() if name == "b") else self.a

    @property
    def decode(self) -> End:
        """The other end."""
        return self.a if self.prefill is self.b else self.b

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
    ground = nodes_of(site)
    ends = {}
    for key, node in ground.nodes.items():
        apart = ground.one_machine or node.local
        host = _host(key, node, f"{run_id}-{key}" if apart else run_id, ground.known_hosts)
        ends[key] = End(key, host, node.rdma_device or "", node.rdma_address, node.rdma_port)
    if record is not None:
        ends = {key: _recorded(end, record, ground) for key, end in ends.items()}
    return Pair(site, ends["a"], ends["b"], ground.serving, ground.lmcache_proxy)


@dataclass(frozen=True)
class Ground:
    """What a site that is not a replay stands on.

    ``one_machine``: both nodes are this machine, so that each needs a run id of its own, or the end of one's processes
    would be the end of the other's; a node with ``host: local`` has its own anyway. ``aliases``: paths that are another
    on every machine -> what recordings call them.
    """

    nodes: dict[str, Node]
    known_hosts: Path
    serving: Serving | None = None
    lmcache_proxy: Path | None = None
    one_machine: bool = False
    aliases: dict[str, str] = field(default_factory=dict)


def nodes_of(site: Site) -> Ground:
    """The nodes and the known_hosts file of a site that is not a replay; a lab is booted when it is down."""
    if site.lab == "pd":
        return _serving_lab(site)
    if site.lab is not None:
        from kit.lab.guests import up

        lab = up(site.lab)
        return Ground({node.name: Node(host=node.host, port=node.ssh_port, user=node.user, key_file=str(node.key_file),
                                       rdma_device=node.rdma_device, rdma_address=node.rdma_address)
                       for node in lab.nodes}, Path(lab.known_hosts))
    assert site.nodes is not None, "the schema lets no other kind through"  # noqa: S101
    proxy = site.serving.lmcache_proxy if site.serving is not None else None
    nodes = {str(name): node for name, node in site.nodes.items()}
    return Ground(nodes, root() / site.known_hosts, site.serving, None if proxy is None else root() / proxy)


def _serving_lab(site: Site) -> Ground:
    """The lab's two nodes on this machine; its environments and its model take the places that the site leaves open."""
    from kit.lab.pd.lab import up

    lab = up()
    assert site.serving is not None, "the lab's own site says how it serves"  # noqa: S101
    environments = {name: given.model_copy(update={"at": str(made.folder), "prefix": list(made.prefix),
                                                   "env": {**made.variables, **given.env}})
                    for name, given in site.serving.environments.items() if (made := lab.environments[name])}
    serving = site.serving.model_copy(update={"environments": environments, "model": str(lab.model.folder)})
    nodes = {node.name: Node(host=node.host, port=node.ssh_port, user=node.user, key_file=str(node.key_file),
                             rdma_address=node.host) for node in lab.nodes}
    return Ground(nodes, Path(lab.known_hosts), serving, lab.proxy, True, {str(lab.model.folder.parent): "LAB"})


def _host(name: str, node: Node, run_id: str, known_hosts: Path) -> Host:
    if node.local:
        from kit.hosts.local import LocalHost

        return LocalHost(name, run_id=run_id)
    return _ssh(name, node, run_id, known_hosts)


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


def _recorded(end: End, folder: Path, ground: Ground) -> End:
    from kit.hosts.replay import RecordingHost

    about = {"device": end.device, "address": end.address}
    if ground.serving is not None:
        about["serving"] = ground.serving.model_dump_json()
    host = RecordingHost(end.host, folder / f"{end.name}.json", about=about, aliases=ground.aliases)
    return End(end.name, host, end.device, end.address, end.rdma_port)


def _replayed(site: Site, run_id: str) -> Pair:
    from kit.hosts.replay import ReplayHost

    assert site.replay is not None, "only called for a replay"  # noqa: S101
    hosts = [ReplayHost(name, root() / site.replay / f"{name}.json", run_id=run_id) for name in ("a", "b")]
    a, b = (End(host.name, host, host.about["device"], host.about["address"]) for host in hosts)
    told = hosts[0].about.get("serving")
    return Pair(site, a, b, None if told is None else Serving.model_validate_json(told))
