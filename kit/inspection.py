"""The device stage as the notebook walks through it: open, look, describe, judge. It only reads."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from kit.device import DeviceSummary, NodeFacts, compare_pair, read_facts, require_device
from kit.files import write_json
from kit.params import DeviceParams, check
from kit.sites import End, Pair, open_site
from kit.stage import open_folder, run_id_of, write_verdict
from kit.store import Run

if TYPE_CHECKING:
    import pandas as pd

STAGE = "02_device_info"


@dataclass(frozen=True)
class Verdict:
    """VALID: both devices are there, active, and fit each other."""

    outcome: str
    reason: str
    expected: bool

    def __str__(self) -> str:
        return f"{self.outcome}: {self.reason}"


@dataclass
class Inspection:
    """One look at a site's two devices."""

    pair: Pair
    run: Run
    facts: dict[str, NodeFacts] = field(default_factory=dict)

    def look(self) -> pd.DataFrame:
        """Read both nodes and keep the fingerprint. Raises HostError; an absent device is left to the verdict."""
        import pandas as pd

        self.facts = self.pair.both(lambda end: read_facts(end.host, device=end.device))
        prints = {name: facts.fingerprint() for name, facts in self.facts.items()}
        write_json(self.run.folder / "fingerprint.json", prints)
        return pd.DataFrame(prints).fillna("")

    def devices(self) -> pd.DataFrame:
        """The lines of the two devices that decide what the link can carry."""
        import pandas as pd

        def column(device: DeviceSummary) -> dict[str, Any]:
            memory = "no limit" if device.max_mr_size_gib is None else f"{device.max_mr_size_gib:g} GiB"
            return {"device": device.name, "driver": device.family, "mode": device.mode, "state": device.state,
                    "queue pairs": device.qp_types, "connects": "RDMA_CM only" if device.needs_rdma_cm else "both ways",
                    "registered memory": memory, "active MTU": device.active_mtu_bytes,
                    "interface MTU": device.netdev_mtu_bytes, "GIDs": device.gid_count}

        return pd.DataFrame({end.name: column(self._summary(end)) for end in self.pair})

    def raw(self, name: str, *, lines: int) -> str:
        """The first lines of what ``ibv_devinfo -v`` prints on a node."""
        from kit.command import command

        end = self.pair[name]
        answer = end.host.run(command("ibv_devinfo", "-d", end.device, "-v"), check=True)
        return "\n".join(line.expandtabs(4) for line in answer.stdout.splitlines()[:lines])

    def modules(self) -> pd.DataFrame:
        """Which RDMA modules each node has loaded."""
        import pandas as pd

        names = sorted({module for facts in self.facts.values() for module in facts.modules})
        return pd.DataFrame({name: ["loaded" if module in facts.modules else "-" for module in names]
                             for name, facts in self.facts.items()}, index=names)

    def counters(self) -> pd.DataFrame:
        """The device's counters on each node, by the driver's own names."""
        import pandas as pd

        columns = {}
        for end in self.pair:
            found = self.facts[end.name].counters.get(f"{end.device}/{end.rdma_port}")
            columns[end.name] = dict(found.raw) if found is not None else {}
        return pd.DataFrame(columns)

    def notes(self) -> list[str]:
        """What to know before going on: of each device, then of the pair."""
        summaries = [self._summary(end) for end in self.pair]
        found = [f"node {end.name}, {summary.name}: {note}"
                 for end, summary in zip(self.pair, summaries, strict=True) for note in summary.notes]
        return [*found, *compare_pair(*summaries)]

    def verdict(self) -> Verdict:
        """Raises DeviceError, with what there is, where a device is absent or not active."""
        for end in self.pair:
            require_device(self.facts[end.name], end.device, end.name)
        a, b = (self._summary(end) for end in self.pair)
        apart = a.needs_rdma_cm != b.needs_rdma_cm or a.mode != b.mode
        reason = f"{a.name} and {b.name} " + ("do not fit each other" if apart else "are active and of one kind")
        verdict = Verdict("FAILED" if apart else "VALID", reason, not apart)
        write_verdict(self.run, STAGE, self.pair.site, asdict(verdict))
        return verdict

    def close(self) -> None:
        self.pair.close()

    def _summary(self, end: End) -> DeviceSummary:
        return self.facts[end.name].summary(end.device)


def open_inspection(site: str, run_folder: str = "", **parameters: Any) -> Inspection:
    """Check the parameters, open the site, make the run's folder. Raises ParamsError."""
    params = check(DeviceParams, parameters, where=STAGE)
    folder = open_folder(STAGE, site, params, run_folder)
    return Inspection(open_site(site, run_id=run_id_of(folder), record=folder.record), folder.run)
