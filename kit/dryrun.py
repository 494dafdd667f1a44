"""`kit run --dry-run`: the nodes' facts and every command, none of them run."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from kit.params import Experiment, Stage
from kit.runner import Labs, folder_of
from kit.store import Run

if TYPE_CHECKING:
    import pandas as pd


def dry_run(experiment: Experiment, results: Path, *, only: str | None, say: Callable[[str], None]) -> None:
    """Print what `kit run` would do. Reads facts, so the nodes must be there; a lab is booted and put down again."""
    labs = Labs(say)
    try:
        for stage in experiment.stages:
            if only not in (None, stage.stage):
                continue
            say(f"# {stage.stage} on {stage.site}")
            folder = folder_of(experiment, stage, results)
            if Run(folder).verdict.get("expected"):
                say("# finished before: nothing to run")
                continue
            labs.need(stage.site)
            with tempfile.TemporaryDirectory(prefix="kit-dry-run-") as scratch:
                _show(stage, scratch, say)
    finally:
        labs.release(set())


def _show(stage: Stage, scratch: str, say: Callable[[str], None]) -> None:
    """One stage's facts and commands; a stage that only reads has no commands to show."""
    from kit.engine import study as engine
    from kit.link import study as link
    from kit.prepare.setup import open_setup

    if stage.stage == "01_driver_setup":
        setup = open_setup(stage.site, scratch, **stage.params)
        say(setup.plan())
        setup.close()
        return
    if stage.stage in ("05_pd_launch", "06_serve_bench"):
        for step in _serving_plan(stage, scratch).itertuples():
            say(f"# {step.stack}: {step.what}, on node {step.node}\n{step.command}")
        return
    if stage.stage == "04_transfer_engine":
        transfers = engine.open_study(stage.site, scratch, **stage.params)
        for step in transfers.plan().itertuples():
            say(f"# {step.point}\n{step.target}\n{step.initiator}")
        transfers.close()
        return
    parameters = stage.params if stage.stage == "03_link_perftest" else {}
    study = link.open_study(stage.site, scratch, **parameters)
    say(study.look().to_string())
    for step in study.plan().itertuples() if parameters else ():
        say(f"# {step.point}\n{step.server}\n{step.client}")
    study.close()


def _serving_plan(stage: Stage, scratch: str) -> pd.DataFrame:
    """Every process and benchmark of a serving stage; no node is asked."""
    from kit.serving import launching, study

    if stage.stage == "05_pd_launch":
        launch = launching.open_launch(stage.site, scratch, **stage.params)
        return launch.outline()
    bench = study.open_study(stage.site, scratch, **stage.params)
    return bench.plan()
