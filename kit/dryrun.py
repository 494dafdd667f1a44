"""`kit run --dry-run`: the nodes' facts and every command, none of them run."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from kit.params import Experiment
from kit.runner import Labs, folder_of
from kit.store import Run


def dry_run(experiment: Experiment, results: Path, *, only: str | None, say: Callable[[str], None]) -> None:
    """Print what `kit run` would do. Reads facts, so the nodes must be there; a lab is booted and put down again."""
    from kit.link.study import open_study

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
                parameters = stage.params if stage.stage == "03_link_perftest" else {}
                study = open_study(stage.site, scratch, **parameters)
                say(study.look().to_string())
                for step in study.plan().itertuples() if parameters else ():
                    say(f"# {step.point}\n{step.server}\n{step.client}")
                study.close()
    finally:
        labs.release(set())
