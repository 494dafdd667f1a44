"""The transfer-engine stage as the notebook walks through it: open, plan, sweep, judge. Each step can be repeated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kit.engine.bench import Point, bench_command, place_of, points
from kit.engine.sweep import row_of, sweep
from kit.engine.table import samples_of_engine, table
from kit.engine.verdict import Verdict, judge, link_bounds
from kit.linkmodel import LinkModel, fit_each
from kit.params import EngineParams, check
from kit.paths import root
from kit.sites import Pair, open_site
from kit.stage import Progress, open_folder, run_id_of, write_verdict
from kit.store import Run, hold, open_run

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

STAGE = "04_transfer_engine"


@dataclass
class EngineStudy:
    """One transfer-engine run: its site, its parameters, its folder."""

    pair: Pair
    params: EngineParams
    run: Run

    def todo(self) -> list[Point]:
        """The points that have no valid record."""
        kept = self.run.finished_points()
        return [point for point in points(self.params)
                if kept.get(point.key(self.params), {}).get("outcome") != "VALID"]

    def plan(self) -> pd.DataFrame:
        """Every command that the points still to do would run: one row a point. Runs none of them."""
        import pandas as pd

        def line(point: Point, end: str, segment: str | None, port: int) -> str:
            node = self.pair[end]
            return str(bench_command(point, self.params, device=node.device, own_address=node.address, port=port,
                                     segment=segment, place=place_of(self.pair, self.params, end)))

        return pd.DataFrame([{
            "point": str(point), "target": line(point, point.target, None, self.params.base_port),
            "initiator": line(point, point.initiator, f"{self.pair[point.target].address}:PORT",
                              self.params.base_port + 1),
        } for point in self.todo()], columns=["point", "target", "initiator"])

    def measure(self, on_point: Callable[[Progress], None] = lambda _: None) -> pd.DataFrame:
        """Sweep what is still to do, and give all points as one table; also kept as points.parquet."""
        with hold(self.run.folder):
            self.pair.both(lambda end: end.host.stop(end.host.run_id))    # left behind by a killed sweep of this run
            sweep(self.pair, self.params, self.run, self.todo(), on_point=on_point)
        kept = self.run.finished_points()
        frame = table([row_of(kept[point.key(self.params)]) for point in points(self.params)])
        self.run.keep_points(frame)
        return frame

    def lines(self) -> dict[str, LinkModel]:
        """Operation -> the line through its points; of the first protocol and memory, which alone bear comparison."""
        return fit_each(samples_of_engine(self.run.points, protocol=self.params.protocols[0],
                                          memory=self.params.memories[0]))

    def bounds(self) -> dict[str, float]:
        """Operation -> Gb/s that the link gives: measured where a link run is named, else what the site promises."""
        if self.params.link_run:
            return link_bounds(open_run(root() / self.params.link_run).points)
        nominal = self.pair.site.nominal_gbps
        return {} if nominal is None else dict.fromkeys(("read", "write"), nominal)

    def verdict(self) -> Verdict:
        """Judge the kept points, and mark the run as finished."""
        verdict = judge(self.run.points, lines=self.lines(), bounds=self.bounds())
        write_verdict(self.run, STAGE, self.pair.site, verdict.to_dict())
        return verdict

    def close(self) -> None:
        self.pair.close()


def open_study(site: str, run_folder: str = "", **parameters: Any) -> EngineStudy:
    """Check the parameters, open the site, make the run's folder. Nothing is touched on a node. Raises ParamsError."""
    params = check(EngineParams, parameters, where=STAGE)
    folder = open_folder(STAGE, site, params, run_folder)
    return EngineStudy(open_site(site, run_id=run_id_of(folder), record=folder.record), params, folder.run)


def named_in(names: dict[str, Any]) -> dict[str, Any]:
    """A notebook's variables that are parameters of this stage: ``open_study(site, **named_in(globals()))``."""
    return {name: names[name] for name in EngineParams.model_fields if name in names}
