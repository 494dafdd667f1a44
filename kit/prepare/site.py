"""A site's preparation: read, planned, said, applied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kit.errors import HostError, ParamsError
from kit.params import Artifacts, Prepare, load
from kit.paths import root
from kit.prepare import container, driver, exporter, limits, mode, network, stack, storage, userspace
from kit.prepare.engine import Done, Planned, apply_node, both_nodes, plan_node, undo_node
from kit.prepare.facts import Question, read_facts
from kit.prepare.item import Item, Wanted
from kit.prepare.reach import unreachable
from kit.sites import Pair, open_site, read_site

Say = Callable[[str], None]
# In the order in which they build on each other.
ITEMS: tuple[Item, ...] = (limits.ITEM, network.ITEM, driver.ITEM, userspace.ITEM, mode.ITEM,
                           storage.ITEM, container.ITEM, stack.ITEM, exporter.ITEM)
RUN_ID = "kit-prepare"


def read_wanted(name: str) -> Wanted:
    """A preparation by its file's name under ``params/prepare/`` or by a path. Raises ParamsError."""
    path = Path(name)
    if path.suffix not in {".yaml", ".yml"}:
        folder = root() / "params" / "prepare"
        path = folder / f"{name}.yaml"
        if not path.exists():
            known = ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
            raise ParamsError(f"no preparation {name!r}; there are: {known}",
                              remedy="copy one under the site's name, or name one: --with NAME")
    return Wanted(load(Prepare, path), read_artifacts())


def read_artifacts() -> Artifacts:
    """``params/artifacts.yaml``. Raises ParamsError."""
    return load(Artifacts, root() / "params" / "artifacts.yaml")


def question(address: str, wanted: Wanted) -> Question:
    """What to ask a node, so that every item finds its facts."""
    want, packages = wanted.prepare.user_space, ["nfs-common", "nfs-utils", "dkms"]
    for name in want.packages if want else []:
        packages += dict.fromkeys([name, userspace.RPM_NAMES.get(name, name)])
    files = [limits.PATH, network.PATH, mode.PATH, userspace.KEY, userspace.SOURCE, userspace.PIN, exporter.PATH]
    units, containers, programs = [exporter.UNIT], [exporter.CONTAINER], []
    if wanted.prepare.storage is not None:
        files += storage.files(wanted.prepare.storage)
        units.append(storage.unit_of(wanted.prepare.storage.path))
    if wanted.prepare.container is not None:
        containers.append(wanted.prepare.container.name)
    if wanted.prepare.exporter is not None:
        programs.append(wanted.prepare.exporter.binary)
    return Question(address, tuple(packages), tuple(units), tuple(containers), tuple(programs), tuple(files))


@dataclass
class Preparation:
    """An open site with what its nodes shall be."""

    pair: Pair
    wanted: Wanted
    name: str

    def plan(self) -> list[Planned]:
        """Every item of both nodes. Reads facts, changes nothing."""
        def one(end_name: str) -> list[Planned]:
            end = self.pair[end_name]
            return plan_node(read_facts(end.host, question(end.address, self.wanted)), self.wanted, ITEMS)

        found = self.pair.both(lambda end: one(end.name))
        return [*found["a"], *found["b"]]

    def apply(self, say: Say) -> list[Done]:
        """Both nodes at once, item by item."""
        addresses = {end.name: end.address for end in self.pair}
        done = both_nodes([end.host for end in self.pair], lambda host: apply_node(
            host, question(addresses[host.name], self.wanted), self.wanted, ITEMS, say))
        return [*done, *self._ports(), *self._models()]

    def _ports(self) -> list[Done]:
        """Whether the nodes reach each other; nothing here can be put right from within a node."""
        network = self.wanted.prepare.network
        if network is None or not network.ports:
            return []
        try:
            found = unreachable(self.pair, network.ports)
        except HostError as error:
            return [Done(end.name, "ports", "failed", str(error)) for end in self.pair]
        why = {end.name: "; ".join(it.what for it in found if it.node == end.name) for end in self.pair}
        return [Done(name, "ports", "failed" if text else "unchanged", text) for name, text in why.items()]

    def _models(self) -> list[Done]:
        """Whether both nodes read the same models."""
        want = self.wanted.prepare.storage
        if want is None or want.check_file is None:
            return []
        found = storage.digest_findings(self.pair, want)
        return [Done(end.name, "models", "failed" if found else "unchanged", "; ".join(it.what for it in found))
                for end in self.pair]

    def undo(self, item: Item, say: Say) -> list[Done]:
        """Take one item back on both nodes."""
        addresses = {end.name: end.address for end in self.pair}
        return both_nodes([end.host for end in self.pair], lambda host: [undo_node(
            host, question(addresses[host.name], self.wanted), self.wanted, item, say)])

    def close(self) -> None:
        self.pair.close()


def open_preparation(site: str, name: str = "") -> Preparation:
    """Open a site with its preparation, by default the one of its own name. Raises ParamsError."""
    name = name or read_site(site).name
    wanted = read_wanted(name)
    return Preparation(open_site(site, run_id=RUN_ID), wanted, name)


def item_named(name: str) -> Item:
    """Raises ParamsError with the names that there are."""
    for item in ITEMS:
        if name in (item.name, item.part):
            return item
    raise ParamsError(f"no item {name!r}; there are: {', '.join(item.part for item in ITEMS)}")


def shown(rows: list[Planned], *, commands: bool = True) -> str:
    """A plan for a reader: what is refused or needs a reboot first, then every command."""
    lines = []
    for row in rows:
        at = f"{row.node}: {row.item.name}"
        if row.plan.refused:
            lines += [f"{at}: CANNOT: {row.plan.refused.why}", f"  remedy: {row.plan.refused.remedy}"]
        if row.plan.reboot:
            lines.append(f"{at}: NEEDS A REBOOT to finish: {row.plan.reboot}")
    for node in dict.fromkeys(row.node for row in rows):
        mine = [row for row in rows if row.node == node]
        rights = {"root": "as root", "sudo": "by sudo", "none": "as a user without sudo"}[mine[0].facts.rights]
        missing = sum(len(row.plan.steps) for row in mine)
        lines.append(f"{node}: {missing} steps, {rights}" if missing else f"{node}: nothing to do")
        for row in mine:
            if row.plan.waits:
                lines.append(f"  {row.item.name}: later: {row.plan.waits}")
            for step in row.plan.steps:
                lines.append(f"  {row.item.name}: {step.what}")
                if commands:
                    lines += [f"      {line}" for line in step.shown()]
    return "\n".join(lines)


def table(done: list[Done]) -> str:
    """The end: one row an item, one column a node, then why where something failed."""
    nodes = list(dict.fromkeys(row.node for row in done))
    names = list(dict.fromkeys(row.item for row in done))
    cells = {(row.item, row.node): row.outcome for row in done}
    width = max(map(len, [*names, "item"]))
    lines = ["  ".join(["item".ljust(width), *(node.ljust(9) for node in nodes)]).rstrip()]
    lines += ["  ".join([name.ljust(width), *(cells.get((name, node), "-").ljust(9) for node in nodes)]).rstrip()
              for name in names]
    lines += [f"{row.node}: {row.item}: {row.why}" for row in done if row.why and row.outcome != "unchanged"]
    return "\n".join(lines)
