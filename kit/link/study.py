"""The link stage as the notebook walks through it: open, look, plan, sweep, judge. Each step can be repeated."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kit.device import NodeFacts, read_facts, require_device
from kit.files import write_json
from kit.link.perftest import Point, perftest_command, points
from kit.link.sweep import is_expected, row_of, sweep
from kit.link.table import table
from kit.link.verdict import Verdict, judge
from kit.params import LinkParams, check
from kit.paths import root
from kit.sites import Pair, open_site
from kit.stage import Progress, open_folder, run_id_of, write_verdict
from kit.store import Run, hold, open_run

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

STAGE = "03_link_perftest"


@dataclass
class LinkStudy:
    """One link run: its site, its parameters, its folder."""

    pair: Pair
    params: LinkParams
    run: Run
    facts: dict[str, NodeFacts] = field(default_factory=dict)

    def look(self) -> pd.DataFrame:
        """Read both nodes' facts, check the devices, keep the fingerprint. Raises DeviceError, HostError."""
        import pandas as pd

        self.facts = self.pair.both(lambda end: read_facts(end.host, device=end.device))
        for end in self.pair:
            require_device(self.facts[end.name], end.device, end.name)
        prints = {name: facts.fingerprint() for name, facts in self.facts.items()}
        write_json(self.run.folder / "fingerprint.json", prints)
        return pd.DataFrame(prints).fillna("")

    def todo(self) -> list[Point]:
        """The points that have no finished record: not measured, or failed against expectation."""
        kept = self.run.finished_points()
        return [point for point in self._points() if not self._finished(kept.get(point.key(self.params)))]

    def plan(self) -> pd.DataFrame:
        """Every command that the points still to do would run: one row a point. Runs none of them."""
        import pandas as pd

        def line(point: Point, end: str, address: str | None) -> str:
            node = self.pair[end]
            return str(perftest_command(point, self.params, device=node.device, rdma_port=node.rdma_port,
                                        port=self.params.base_port, server_address=address))

        return pd.DataFrame([{
            "point": str(point), "server": line(point, point.server, None),
            "client": line(point, point.client, self.pair[point.server].address),
        } for point in self.todo()], columns=["point", "server", "client"])

    def measure(self, on_point: Callable[[Progress], None] = lambda _: None) -> pd.DataFrame:
        """Sweep what is still to do, and give all points as one table; also kept as points.parquet."""
        if not self.facts:
            self.look()
        with hold(self.run.folder):
            self.pair.both(lambda end: end.host.stop(end.host.run_id))    # left behind by a killed sweep of this run
            sweep(self.pair, self.params, self.run, self.todo(), on_point=on_point,
                  gids={name: facts.gids_of(self.pair[name].device) for name, facts in self.facts.items()},
                  versions={name: facts.perftest_version for name, facts in self.facts.items()})
        kept = self.run.finished_points()
        rows = [kept[point.key(self.params)] for point in self._points()]
        frame = table([row_of({**row, "expected": is_expected(row, self.params)}) for row in rows])
        self.run.keep_points(frame)
        return frame

    def verdict(self) -> Verdict:
        """Judge the kept points, and mark the run as finished."""
        baseline = None
        if self.params.baseline:
            baseline = open_run(root() / self.params.baseline).points
        verdict = judge(self.run.points, nominal_gbps=self.pair.site.nominal_gbps, baseline=baseline)
        write_verdict(self.run, STAGE, self.pair.site, verdict.to_dict())
        return verdict

    def close(self) -> None:
        self.pair.close()

    def _points(self) -> list[Point]:
        return points(self.params)

    def _finished(self, record: dict[str, Any] | None) -> bool:
        return record is not None and is_expected(record, self.params)


def open_study(site: str, run_folder: str = "", **parameters: Any) -> LinkStudy:
    """Check the parameters, open the site, make the run's folder. Nothing is touched on a node.

    ``run_folder`` is chosen from the parameters when empty. Raises ParamsError.
    """
    params = check(LinkParams, parameters, where=STAGE)
    folder = open_folder(STAGE, site, params, run_folder)
    pair = open_site(site, run_id=run_id_of(folder), record=folder.record)
    return LinkStudy(pair, params, folder.run)


def named_in(names: dict[str, Any]) -> dict[str, Any]:
    """A notebook's variables that are parameters of this stage: ``open_study(site, **named_in(globals()))``."""
    return {name: names[name] for name in LinkParams.model_fields if name in names}
