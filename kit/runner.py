"""`kit run`: every stage of an experiment by papermill in a child process; what is finished is not run again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kit import progress
from kit.errors import KitError, StoreError
from kit.files import write_atomic
from kit.params import STAGES, Experiment, Stage, check, load
from kit.paths import root
from kit.sites import read_site
from kit.stage import Folder, run_id_of, run_name
from kit.store import Run, hold

Say = Callable[[str], None]
_POLL_S = 0.2
_STOP_S = 10.0


@dataclass(frozen=True)
class StageResult:
    """One line of the summary."""

    stage: Stage
    run: Run
    reused: bool
    outcome: str
    reason: str
    expected: bool


def read_experiment(name: str) -> Experiment:
    """By name under ``params/experiments/`` or by path (a run's lock file too), all its sites checked as well."""
    path = Path(name)
    if path.suffix not in {".yaml", ".yml"}:
        path = root() / "params" / "experiments" / f"{name}.yaml"
    experiment = load(Experiment, path)
    for stage in experiment.stages:
        read_site(stage.site)
    return experiment


def folder_of(experiment: Experiment, stage: Stage, results: Path) -> Path:
    """Where a stage's run lives; the same for the same parameters, so that a second run finds it."""
    params = check(STAGES[stage.stage], stage.params, where=stage.stage)
    return results / experiment.name / run_name(stage.stage, read_site(stage.site), params)


def run_experiment(experiment: Experiment, *, results: Path, only: str | None = None, resume: bool = False,
                   say: Say = print) -> list[StageResult]:
    """Run what is not finished yet. Raises KitError for what must stop everything; a failed stage does not."""
    stages = [stage for stage in experiment.stages if only in (None, stage.stage)]
    if not stages:
        raise StoreError(f"{experiment.name} has no stage {only!r}")
    folders = [folder_of(experiment, stage, results) for stage in stages]
    if resume and not any(folder.exists() for folder in folders):
        raise StoreError(f"nothing of {experiment.name} was started under {results}", remedy="run without --resume")
    with hold(results / experiment.name):
        return _run_stages(list(zip(stages, folders, strict=True)), say)


def _run_stages(work: list[tuple[Stage, Path]], say: Say) -> list[StageResult]:
    found, labs = [], Labs(say)
    try:
        for index, (stage, folder) in enumerate(work):
            run, name = Run(folder), f"{stage.stage} on {stage.site}"
            if run.verdict.get("expected"):
                say(f"{name}: finished before, reused")
                found.append(_result(stage, run, reused=True))
                continue
            say(f"{name}: {_standing(run)}")
            try:
                labs.need(stage.site)
                (folder / "verdict.json").unlink(missing_ok=True)
                execute(root() / "notebooks" / f"{stage.stage}.ipynb", folder,
                        {"site": stage.site, "run_folder": str(folder), **all_parameters(stage)}, say)
                found.append(_result(stage, run, reused=False))
            except StageFailedError as error:
                say(str(error))
                found.append(StageResult(stage, run, False, "FAILED", error.what.splitlines()[0], False))
            labs.release({later.site for later, later_folder in work[index + 1:]
                          if not Run(later_folder).verdict.get("expected")})
    finally:
        labs.release(set())
    return found


def _standing(run: Run) -> str:
    """How far an earlier run came, if there was one."""
    records = run.finished_points().values()
    kept = sum(bool(record.get("expected")) for record in records)
    if not records:
        return "starting"
    return f"{kept} points kept, {len(records) - kept} failed ones to do again, going on"


def all_parameters(stage: Stage) -> dict[str, Any]:
    """Every parameter of the stage, defaults too: a notebook's own defaults are those of its recorded example."""
    return check(STAGES[stage.stage], stage.params, where=stage.stage).model_dump()


def _result(stage: Stage, run: Run, *, reused: bool) -> StageResult:
    verdict = run.verdict
    return StageResult(stage, run, reused, verdict.get("outcome", "FAILED"),
                       verdict.get("reason", "the notebook wrote no verdict"), bool(verdict.get("expected")))


class StageFailedError(KitError):
    """A stage's notebook ended with an error."""


def execute(notebook: Path, folder: Path, parameters: dict[str, Any], say: Say = print) -> None:
    """Run a notebook by papermill in a child process, with progress. Raises StageFailedError with its last words.

    The executed notebook is kept as ``notebook.ipynb``, or ``notebook.failed.ipynb`` with papermill's log.
    """
    run = Run(folder)
    run_id = run_id_of(Folder(run, None))
    stop_local(run_id)
    (folder / progress.FILE).unlink(missing_ok=True)
    # Papermill writes after every cell, and not atomically: it does so aside, where a full results disk cannot stop it.
    with tempfile.TemporaryDirectory(prefix="kit-run-") as scratch:
        aside, log, given = (Path(scratch) / name for name in ("notebook.ipynb", "log", "parameters.yaml"))
        write_atomic(given, yaml.safe_dump(parameters, sort_keys=False))
        with open(log, "wb") as said:
            child = subprocess.Popen(
                [sys.executable, "-m", "papermill", str(notebook), str(aside), "-f", str(given), "--cwd", str(root()),
                 "--no-progress-bar", "--log-level", "WARNING", "-k", "python3"],
                stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True,
                env={**os.environ, "KIT_RUN_ID": run_id, "KIT_ROOT": str(root()), "PYTHONUNBUFFERED": "1"})
            try:
                code = _watch(child, run, say)
            except BaseException:
                _end(child, run_id)
                raise
        if code != 0:
            stop_local(run_id)
            with contextlib.suppress(StoreError):     # the failure itself is what has to be told
                write_atomic(folder / "papermill.log", log.read_bytes())
                write_atomic(folder / "notebook.failed.ipynb", aside.read_bytes() if aside.exists() else b"")
            raise StageFailedError(_last_words(log, code))
        write_atomic(folder / "notebook.ipynb", aside.read_bytes())
    for name in ("notebook.failed.ipynb", "papermill.log"):
        (folder / name).unlink(missing_ok=True)


def _watch(child: subprocess.Popen[bytes], run: Run, say: Say) -> int:
    """Wait for the child, and say each step of its run once."""
    seen = None
    while True:
        try:
            code = child.wait(_POLL_S)
        except subprocess.TimeoutExpired:
            code = None
        state = progress.read(run)
        if state and (state["done"], state["last"]) != seen:
            seen = state["done"], state["last"]
            say(f"  {progress.describe(state['done'], state['total'], state['left_s'])}: {state['last']}")
        if code is not None:
            return code


def _end(child: subprocess.Popen[bytes], run_id: str) -> None:
    """Interrupted: end papermill and its kernel, then whatever still carries the run's id here."""
    child.send_signal(signal.SIGTERM)
    try:
        child.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    stop_local(run_id)


def stop_local(run_id: str) -> int:
    """End what a killed run left on this machine: papermill, kernel and their children; how many there were."""
    from kit.hosts.local import LocalHost

    return LocalHost("local", run_id="").stop(run_id)


def _last_words(log: Path, code: int) -> str:
    """The error as the notebook raised it: papermill's log ends with the traceback."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    ours = [index for index, line in enumerate(lines) if line.startswith("kit.errors.") or "Error: " in line]
    tail = lines[ours[-1]:] if ours else lines[-5:]
    return "\n".join(tail) or f"papermill ended with exit code {code} and said nothing"


class Labs:
    """The labs that this run booted, to be put down when no later stage needs them; others are left as they are."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._booted: set[str] = set()

    def need(self, site_name: str) -> None:
        """Boot the site's lab when it has one and it is down."""
        from kit.lab import kinds

        lab = read_site(site_name).lab
        if lab is None:
            return
        if not kinds.is_up(lab):
            self._booted.add(lab)
        kinds.up(lab, say=self._say)

    def release(self, still_needed: set[str]) -> None:
        from kit.lab import kinds

        wanted = {read_site(name).lab for name in still_needed}
        for lab in sorted(self._booted - wanted):
            kinds.down(lab)
            self._booted.discard(lab)


def summary(results: list[StageResult]) -> str:
    """The table at the end of a run."""
    rows = [("stage", "site", "outcome", "", "why")]
    for result in results:
        rows.append((result.stage.stage, result.stage.site, result.outcome,
                     "as expected" if result.expected else "NOT EXPECTED",
                     result.reason + (" (reused)" if result.reused else "")))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    room = shutil.get_terminal_size((160, 24)).columns
    return "\n".join(
        "  ".join([*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[-1]])[:max(room, 100)]
        for row in rows)
