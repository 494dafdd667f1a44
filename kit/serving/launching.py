"""The launch stage as the notebook walks through it: look, preflight, plan, launch, hand-over check, verdict, end."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from kit import symptoms
from kit.errors import HostError, KitError, ParamsError, ParseError, StackError
from kit.files import write_json
from kit.params import LaunchParams, Stack, check
from kit.serving.guard import failed
from kit.serving.launch import end
from kit.serving.memory import Load
from kit.serving.parts import parts
from kit.serving.session import Ground, Up, bring_up, survey
from kit.serving.stacks import outline, read_stack, wired
from kit.sites import Pair, open_site
from kit.stage import open_folder, run_id_of, write_verdict
from kit.store import Run

if TYPE_CHECKING:
    import pandas as pd

STAGE = "05_pd_launch"


@dataclass(frozen=True)
class LaunchVerdict:
    """VALID: the stack came up and its decoder took over the KV. INVALID: it answers and hands nothing over."""

    outcome: str
    reason: str
    symptom: str
    remedy: str
    expected: bool

    def __str__(self) -> str:
        return f"{self.outcome}: {self.reason}"


@dataclass
class Launching:
    """One launch: its site, its stack, its folder."""

    pair: Pair
    params: LaunchParams
    run: Run
    stack: Stack
    ground: Ground | None = None
    up: Up | None = None
    error: KitError | None = None

    def preflight(self) -> pd.DataFrame:
        """What must hold before a start, judged: one row a check. Starts nothing. Raises HostError, ParamsError."""
        end(self.pair)      # left behind by a killed launch of this run
        self.ground = survey(self.pair, self.stack, Load(self.params.prompt_tokens, self.params.concurrency))
        write_json(self.run.folder / "fingerprint.json", self.ground.versions)
        return _checks(self.ground.checks)

    def versions(self) -> pd.DataFrame:
        """What the nodes' environments hold."""
        import pandas as pd

        return pd.DataFrame(self._known().versions)

    def plan(self) -> pd.DataFrame:
        """Every process of the stack as the command that starts it, in order."""
        return outline(self._known().wiring)

    def outline(self) -> pd.DataFrame:
        """The plan before any node was asked: the run's folder has no name yet."""
        return outline(wired(self.pair, self.stack))

    def files(self) -> dict[str, str]:
        """The configuration files that are written to the nodes: name -> content."""
        return {path.rpartition("/")[2]: text for part in parts(self._known().wiring)
                for path, text in part.files.items() if path.endswith(".yaml")}

    def launch(self) -> pd.DataFrame:
        """Start the stack and check it; one row a part. Trouble is kept for the verdict; then nothing runs any more."""
        import pandas as pd

        try:
            self.up = bring_up(self.pair, self._known(), lifetime_s=self.params.lifetime_s)
            write_json(self.run.folder / "stack.json", self.up.to_dict())
        except (HostError, StackError, ParseError) as error:
            self.error = error
        rows = [{"part": part.role, "node": part.end, "listens at": f"{part.address}:{part.port}",
                 "came up": self.up is not None} for part in parts(self._known().wiring)]
        return pd.DataFrame(rows)

    def exposed(self) -> pd.DataFrame:
        """Ports that listen on all interfaces, with what changes it."""
        return _checks(self.up.exposed if self.up else ())

    def verdict(self) -> LaunchVerdict:
        """Judge the launch, and mark the run as finished."""
        outcome, reason, symptom, remedy = self._judged()
        wanted = next((expect for expect in self.params.expect if expect.stack == self.params.stack), None)
        expected = outcome == "VALID" if wanted is None else (outcome, symptom) == (wanted.outcome.upper(),
                                                                                    wanted.symptom)
        verdict = LaunchVerdict(outcome, reason, symptom, remedy, expected)
        write_verdict(self.run, STAGE, self.pair.site, {**asdict(verdict), "stack": self.params.stack})
        return verdict

    def close(self) -> int:
        """End the stack, unless it is to be kept; how many processes were ended."""
        ended = 0 if self.params.keep and self.up else end(self.pair, self.up.ground.wiring if self.up else None)
        self.pair.close()
        return ended

    def _judged(self) -> tuple[str, str, str, str]:
        if self.error is not None:
            record = failed(self.error)
            return record["outcome"], record["reason"], record["symptom"], record["remedy"]
        assert self.up is not None, "launched, or an error"  # noqa: S101
        handed = self.up.handed
        if handed is None:
            return "VALID", f"{self.stack.title} answers", "", ""
        if handed.ok:
            return "VALID", str(handed), "", ""
        if handed.hit_tokens:
            return "INVALID", str(handed), "other_words", "compare model, dtype and block size of the two instances"
        name = "hash_seed_differs" if any(check.name == "hash_seed" and check.outcome == "fail"
                                          for check in self._known().checks) else "nothing_moved"
        return "INVALID", str(handed), name, symptoms.named(name).remedy

    def _known(self) -> Ground:
        if self.ground is None:
            raise ParamsError("the preflight comes first", remedy="call preflight() before")
        return self.ground


def open_launch(site: str, run_folder: str = "", **parameters: Any) -> Launching:
    """Check the parameters and the stack, open the site, make the run's folder. Starts nothing. Raises ParamsError."""
    params = check(LaunchParams, parameters, where=STAGE)
    stack = read_stack(params.stack)
    folder = open_folder(STAGE, site, params, run_folder)
    pair = open_site(site, run_id=run_id_of(folder), record=folder.record)
    return Launching(pair, params, folder.run, stack)


def named_in(names: dict[str, Any]) -> dict[str, Any]:
    """A notebook's variables that are parameters of this stage."""
    return {name: names[name] for name in LaunchParams.model_fields if name in names}


def _checks(found: Any) -> pd.DataFrame:
    import pandas as pd

    pd.set_option("display.max_colwidth", None)
    return pd.DataFrame([asdict(each) for each in found], columns=["name", "outcome", "seen", "remedy"])
