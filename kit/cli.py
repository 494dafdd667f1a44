"""The command line: a thin skin over the package. Heavy imports happen inside the commands, so that help is quick."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from kit import __version__, cli_explain, cli_pd, cli_predict, cli_prepare
from kit.reported import reported


@click.group()
@click.version_option(__version__, prog_name="kit")
def main() -> None:
    """Reproducible experiments on an eRDMA link: every stage bounds the next, every number is checked."""
    # A terminated command must still put down what it started: let SIGTERM unwind as an exception.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


@main.command()
@click.argument("experiment")
@click.option("--dry-run", is_flag=True, help="Read facts, print every command, run none of them.")
@click.option("--resume", is_flag=True, help="Only go on with what was started before; an error if nothing was.")
@click.option("--only", metavar="STAGE", help="Run just the stages of this name, such as 03_link_perftest.")
@click.option("--results", type=click.Path(path_type=Path), help="Folder for the runs (default: results/).")
@reported
def run(experiment: str, dry_run: bool, resume: bool, only: str | None, results: Path | None) -> None:
    """Run EXPERIMENT: a name under params/experiments/ or a YAML file. Finished runs and points are reused.

    Exit code 0 means that every outcome is the expected one.
    """
    from kit import paths, runner

    plan = runner.read_experiment(experiment)
    folder = (results or paths.root() / "results").resolve()
    if dry_run:
        from kit.dryrun import dry_run as show

        show(plan, folder, only=only, say=click.echo)
        return
    done = runner.run_experiment(plan, results=folder, only=only, resume=resume, say=click.echo)
    report = None
    links, engines, serves = (
        [paths.shown(each.run.folder) for each in done if each.stage.stage == stage and each.expected]
        for stage in ("03_link_perftest", "04_transfer_engine", "06_serve_bench"))
    if plan.compare and (len(links) > 1 or serves):
        report = _compare([*links, *engines, *serves], folder / plan.name / "compare", click.echo)
    reused = sum(result.reused for result in done)
    click.echo(f"\n{runner.summary(done)}\n\n{len(done) - reused} stages run, {reused} reused from earlier runs")
    if report is not None:
        click.echo(f"report: {report}")
    sys.exit(0 if all(result.expected for result in done) else 1)


@main.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the report (default: results/compare-KEY).")
@reported
def compare(runs: tuple[Path, ...], out: Path | None) -> None:
    """Put RUNs side by side: runs notebook 07 and writes report.html. The first run is the base."""
    from kit import paths
    from kit.store import key_of, open_run

    folders = [paths.shown(open_run(folder).folder) for folder in runs]
    folder = (out or paths.root() / "results" / f"compare-{key_of(folders)}").resolve()
    click.echo(f"report: {_compare(folders, folder, click.echo)}")


def _compare(folders: list[str], out: Path, say: Callable[[str], None]) -> Path:
    """The report of these runs; made again only when one of them has changed since."""
    from kit import paths, runner
    from kit.report import write_report

    report = out / "report.html"
    sources = [paths.root() / folder / "verdict.json" for folder in folders]
    if report.exists() and all(source.stat().st_mtime < report.stat().st_mtime for source in sources):
        say("07_compare: the report is newer than its runs, reused")
        return report
    out.mkdir(parents=True, exist_ok=True)
    say(f"07_compare: {len(folders)} runs side by side")
    runner.execute(paths.root() / "notebooks" / "07_compare.ipynb", out, {"runs": folders}, say)
    write_report(out / "notebook.ipynb", report)
    return report


@main.command()
@click.argument("experiment")
@click.option("--notebooks-only", is_flag=True, help="Leave the recordings, execute the notebooks against them.")
@reported
def record(experiment: str, notebooks_only: bool) -> None:
    """Record EXPERIMENT anew into results/reference/, and execute the notebooks in git against it."""
    from kit import record as recording
    from kit import runner

    if not notebooks_only:
        for folder in recording.record(runner.read_experiment(experiment), click.echo):
            click.echo(f"recorded: {folder}")
    recording.refresh_notebooks(click.echo)


@main.command()
@click.argument("kind", type=click.Choice(["perftest", "ibv_devinfo", "ibv_devices", "bench"]))
@click.argument("file", type=click.File("rb"))
def parse(kind: str, file: Any) -> None:
    """Print what FILE (- for standard input) says, as JSON. Exit code 3, with an error object, if it says nothing."""
    import json

    from kit.parse.document import parse_document

    value, code = parse_document(kind, file.read().decode("utf-8", errors="replace"))
    click.echo(json.dumps(value, indent=1))
    sys.exit(code)


@main.command()
@click.argument("site")
@reported
def trust(site: str) -> None:
    """Show the host keys of SITE's nodes and ask before they are trusted."""
    from kit.hosts.keys import fingerprint
    from kit.hosts.trust import scan
    from kit.hosts.trust import trust as remember
    from kit.sites import nodes_of, read_site

    ground = nodes_of(read_site(site))
    for name, node in ground.nodes.items():
        if node.local:
            click.echo(f"{name}: this machine, reached without ssh")
            continue
        for key in scan(node.host, node.port):
            click.echo(f"{name} ({node.host}:{node.port}): {fingerprint(key)}")
            if click.confirm("Is this the key that the node's own console shows?"):
                remember(ground.known_hosts, node.host, node.port, key)


@main.command()
@click.argument("sites", nargs=-1)
@reported
def clean(sites: tuple[str, ...]) -> None:
    """End every process that a killed run left: on this machine, on SITES, and on the labs that are up."""
    from kit import runner
    from kit.lab import kinds
    from kit.params import Site
    from kit.sites import open_site, read_site

    click.echo(f"this machine: {runner.stop_local('')} processes ended")
    labs = ["lab" if kind == "erdma" else f"lab-{kind}" for kind in kinds.KINDS if kinds.is_up(kind)]
    for name in dict.fromkeys([*sites, *labs]):
        site: Site = read_site(name)
        if site.lab is not None and not kinds.is_up(site.lab):
            continue
        with open_site(name, run_id="clean") as pair:
            for end in pair:
                click.echo(f"{name}, node {end.name}: {end.host.stop('')} processes ended")


_KINDS = ["siw", "rxe", "erdma", "pd"]


@main.group()
def lab() -> None:
    """The embedded lab: guests with a software RDMA device each, and two nodes that serve on this machine's CPU."""


@lab.command("up")
@click.argument("kind", type=click.Choice(_KINDS), default="siw")
@reported
def lab_up(kind: str) -> None:
    """Build (on the first call) and start: guests with soft-iWARP, soft-RoCE, or bare (erdma); or the serving nodes."""
    from kit.lab import kinds

    for line in kinds.up(kind, say=click.echo):
        click.echo(line)


@lab.command("down")
@click.argument("kind", type=click.Choice(_KINDS), required=False)
@reported
def lab_down(kind: str | None) -> None:
    """Shut one kind down; without an argument all of them."""
    from kit.lab import kinds

    kinds.down(kind)


@lab.command("status")
@reported
def lab_status() -> None:
    """Say which kinds are up."""
    from kit.lab import kinds

    for line in kinds.status():
        click.echo(line)


for _command in (cli_prepare.plan, cli_prepare.apply, cli_prepare.doctor, cli_prepare.artifacts,
                 cli_predict.predict, cli_explain.explain, cli_pd.pd):
    main.add_command(_command)

if __name__ == "__main__":
    main()
