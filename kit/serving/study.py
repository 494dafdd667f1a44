"""The serving benchmark as the notebook walks through it: look, plan, then stack by stack launch, measure, end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from kit.device import NodeFacts, read_facts
from kit.errors import HostError, ParamsError, ParseError, StackError
from kit.files import write_json
from kit.params import ServeBenchParams, Stack, check
from kit.serving.bench import BenchPoint, bench_command, points
from kit.serving.guard import failed
from kit.serving.launch import end
from kit.serving.measure import record_of
from kit.serving.memory import Load
from kit.serving.session import Ground, running, survey
from kit.serving.stacks import outline, read_stack, wired
from kit.serving.table import COLUMNS, REQUEST_COLUMNS, table
from kit.sites import Pair, open_site
from kit.stage import Progress, open_folder, run_id_of, write_verdict
from kit.store import Run, hold

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

STAGE = "06_serve_bench"
_POINT_S = 25.0       # a first guess, with its share of a stack's start
_SPARE_S = 600.0      # a stack lives this much longer than its points may take
Say = Callable[[str], None]


@dataclass(frozen=True)
class ServeVerdict:
    """VALID only if every point is; FAILED if one failed, else INVALID. ``expected``: all are as expected."""

    outcome: str
    reason: str
    expected: bool
    points: int
    valid: int

    def __str__(self) -> str:
        return f"{self.outcome}: {self.reason}"


@dataclass
class ServeStudy:
    """One serving run: its site, its parameters, its folder."""

    pair: Pair
    params: ServeBenchParams
    run: Run
    stacks: dict[str, Stack]
    facts: dict[str, NodeFacts] = field(default_factory=dict)

    def look(self) -> pd.DataFrame:
        """Read both nodes' facts and keep the fingerprint. Raises HostError."""
        import pandas as pd

        self.facts = self.pair.both(lambda one: read_facts(one.host, device=one.device or None))
        prints = {name: facts.fingerprint() for name, facts in self.facts.items()}
        write_json(self.run.folder / "fingerprint.json", prints)
        return pd.DataFrame(prints).fillna("")

    def todo(self) -> list[BenchPoint]:
        """The points that have no finished record: not measured, or not as expected."""
        kept = self.run.finished_points()
        return [point for point in points(self.params) if not kept.get(point.key(self.params), {}).get("expected")]

    def plan(self) -> pd.DataFrame:
        """Every command of the stacks and points still to do, in order; starts nothing and asks nothing of a node."""
        import pandas as pd

        frames, seen = [], set()
        for point in self.todo():
            wiring = wired(self.pair, self.stacks[point.stack])
            if point.stack not in seen:
                seen.add(point.stack)
                frames.append(outline(wiring))
            command = bench_command(wiring, point, self.params, result="RUN-FOLDER/bench.json")
            frames.append(pd.DataFrame([{"stack": point.stack, "what": str(point).partition(", ")[2],
                                         "node": wiring.prefill.end, "command": str(command)}]))
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["stack", "what", "command"])

    def survey(self, name: str) -> Ground:
        """The preflight of one stack: both nodes read, nothing started. Raises HostError, ParamsError."""
        load = Load(round(max(self.params.input_tokens) * (1 + self.params.range_ratio)),
                    max([*self.params.concurrency, 1] if self.params.concurrency else [self.params.prompts]))
        return survey(self.pair, self.stacks[name], load)

    def measure(self, on_point: Callable[[Progress], None] = lambda _: None) -> pd.DataFrame:
        """Measure what is still to do, stack by stack, and give all points as one table."""
        if not self.facts:
            self.look()
        todo, started, turn = self.todo(), time.monotonic(), 0

        def say(text: str) -> None:
            left_s = (time.monotonic() - started) / turn * (len(todo) - turn) if turn else len(todo) * _POINT_S
            on_point(Progress(turn, len(todo), text, left_s))

        def done(point: BenchPoint, record: dict[str, Any]) -> None:
            nonlocal turn
            samples = record.pop("samples", None)
            if samples is not None:
                self.run.keep_table(f"samples/{point.key(self.params)}", samples)
            self.run.keep_point(point.key(self.params), {**record, **self._expectation(point.stack, record)})
            turn += 1
            say(f"{point}: {record['outcome']}")

        with hold(self.run.folder):
            end(self.pair)    # left behind by a killed run of this folder
            for name in dict.fromkeys(point.stack for point in todo):
                self._measure_stack(name, [point for point in todo if point.stack == name], done, say)
        return self._keep_tables()

    def samples(self, point: BenchPoint) -> pd.DataFrame:
        """What the nodes did while a point was measured, once a second (`kit.observe.table`, `kit.observe.plots`)."""
        import pandas as pd

        from kit.observe.table import table as empty

        path = self.run.folder / "samples" / f"{point.key(self.params)}.parquet"
        return pd.read_parquet(path) if path.exists() else empty([])

    def over_time(self, stack: str, repeat: int = 0) -> Figure:
        """Bytes, requests and KV cache use of a stack's benchmark under the most load, prefiller and decoder.

        Raises ParamsError for a stack that the run does not have.
        """
        from kit.observe.plots import over_time

        of_stack = [point for point in points(self.params) if (point.stack, point.repeat) == (stack, repeat)]
        if not of_stack:
            raise ParamsError(f"the run has no stack {stack!r} with a repeat {repeat}",
                              remedy=f"name one of {', '.join(self.params.stacks)}")
        point = max(of_stack, key=lambda point: point.concurrency or point.requests_per_s or 0)
        return over_time(self.samples(point), title=f"{point}, over time", about=self.pair.site.title)

    def verdict(self) -> ServeVerdict:
        """Judge the kept points, and mark the run as finished."""
        frame = self.run.points
        wrong = frame[frame["outcome"] != "VALID"]
        outcome = "VALID" if wrong.empty else "FAILED" if (wrong["outcome"] == "FAILED").any() else "INVALID"
        of = ", ".join(f"{stack} {group['outcome'].iloc[0]} ({group['symptom'].iloc[0]})"
                       for stack, group in wrong.groupby("stack", sort=False))
        reason = f"{of}; the others VALID" if of else f"all {len(frame)} benchmarks measured what they say"
        verdict = ServeVerdict(outcome, reason, bool(frame["expected"].all()), len(frame), len(frame) - len(wrong))
        write_verdict(self.run, STAGE, self.pair.site, asdict(verdict))
        return verdict

    def close(self) -> None:
        self.pair.close()

    def _measure_stack(self, name: str, todo: list[BenchPoint], done: Callable[[BenchPoint, dict[str, Any]], None],
                       say: Say) -> None:
        """One stack up, its points measured, and down; where it does not come up, its points fail with the reason."""
        left = list(todo)
        try:
            say(f"{name}: preflight, then start")
            ground = self.survey(name)
            lifetime_s = len(todo) * self.params.deadline_s + _SPARE_S
            with running(self.pair, ground, lifetime_s=lifetime_s, say=say) as up:
                write_json(self.run.folder / "stacks" / f"{name}.json", up.to_dict())
                say(f"{name} is up after {up.deployment.ready_s:.0f} s" + (f"; {up.handed}" if up.handed else ""))
                while left:
                    done(left[0], record_of(self.pair, up, left[0], self.params))
                    left.pop(0)
        except (HostError, StackError, ParseError) as error:
            for point in left:
                done(point, failed(error))

    def _expectation(self, stack: str, record: dict[str, Any]) -> dict[str, Any]:
        wanted = next((expect for expect in self.params.expect if expect.stack == stack), None)
        if wanted is None:
            return {"expected": record["outcome"] == "VALID"}
        return {"expected": record["outcome"] == wanted.outcome.upper() and record["symptom"] == wanted.symptom}

    def _keep_tables(self) -> pd.DataFrame:
        """points.parquet and requests.parquet of all points."""
        kept, rows, requests = self.run.finished_points(), [], []
        for point in points(self.params):
            record = kept[point.key(self.params)]
            axes = {"site": self.pair.site.name, **point.axes}
            rows.append({**axes, **record, **record.get("summary", {})})
            requests += [{**axes, "outcome": record["outcome"], **request} for request in record.get("requests", ())]
        frame = table(rows, COLUMNS)
        self.run.keep_points(frame)
        self.run.keep_table("requests", table(requests, REQUEST_COLUMNS))
        return frame


def open_study(site: str, run_folder: str = "", **parameters: Any) -> ServeStudy:
    """Check parameters and stacks, open the site, make the run's folder. Starts nothing. Raises ParamsError."""
    params = check(ServeBenchParams, parameters, where=STAGE)
    stacks = {name: read_stack(name) for name in params.stacks}
    folder = open_folder(STAGE, site, params, run_folder)
    pair = open_site(site, run_id=run_id_of(folder), record=folder.record)
    return ServeStudy(pair, params, folder.run, stacks)


def named_in(names: dict[str, Any]) -> dict[str, Any]:
    """A notebook's variables that are parameters of this stage."""
    return {name: names[name] for name in ServeBenchParams.model_fields if name in names}
