"""The commands of node preparation: plan, apply, artifacts. Heavy imports happen inside, so that help is quick."""

from __future__ import annotations

import contextlib
import sys

import click

from kit.reported import reported

_WITH = click.option("--with", "name", metavar="NAME", default="",
                     help="A preparation under params/prepare/ or a file (default: the one of the site's name).")


@click.command()
@click.argument("site")
@_WITH
@reported
def plan(site: str, name: str) -> None:
    """Print what would bring SITE's nodes to their preparation: facts are read, nothing is changed.

    Exit code 1 when something stands in the way.
    """
    from kit.prepare.site import open_preparation, shown

    preparation = open_preparation(site, name)
    try:
        rows = preparation.plan()
    finally:
        preparation.close()
    click.echo(shown(rows))
    sys.exit(1 if any(row.plan.refused for row in rows) else 0)


@click.command()
@click.argument("site")
@_WITH
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--undo", metavar="ITEM", help="Take this item back instead, on both nodes.")
@reported
def apply(site: str, name: str, yes: bool, undo: str | None) -> None:
    """Bring SITE's nodes to their preparation: shows the plan, asks once, applies it, and proves it by new facts.

    Nothing is touched when anything stands in the way. Applied again, it changes nothing.
    """
    from kit.paths import root
    from kit.prepare.site import item_named, open_preparation, shown, table
    from kit.store import hold

    with contextlib.ExitStack() as stack:
        preparation = open_preparation(site, name)
        stack.callback(preparation.close)
        stack.enter_context(hold(root() / "results" / f"prepare-{preparation.pair.site.name}"))
        if undo:
            done = preparation.undo(item_named(undo), click.echo)
        else:
            rows = preparation.plan()
            click.echo(shown(rows, commands=False))
            if any(row.plan.refused for row in rows):
                click.echo("nothing was touched")
                sys.exit(1)
            if any(row.plan.steps for row in rows) and not yes:
                click.confirm("Apply this?", abort=True)
            done = preparation.apply(click.echo)
    click.echo(f"\n{table(done)}")
    sys.exit(1 if any(row.outcome in ("failed", "not tried") for row in done) else 0)


@click.command()
@click.argument("site")
@_WITH
@reported
def doctor(site: str, name: str) -> None:
    """Say what would stop which stage on SITE, worst first, each with its remedy. Changes nothing.

    Exit code 1 when something stops a stage.
    """
    from kit.prepare.doctor import examine, shown
    from kit.prepare.site import RUN_ID
    from kit.sites import open_site

    with open_site(site, run_id=RUN_ID) as pair:
        found = examine(pair, name)
    click.echo(shown(found))
    sys.exit(1 if any(it.weight == "stops" for it in found) else 0)


@click.group()
def artifacts() -> None:
    """What a preparation fetches: params/artifacts.yaml."""


@artifacts.command("record")
@click.argument("name")
@click.option("--mirror", default="public", help="A mirror's name in params/artifacts.yaml, or its URL.")
@reported
def artifacts_record(name: str, mirror: str) -> None:
    """Print the SHA-256 of what the mirror has as NAME, for a person to compare with the vendor's and to add."""
    from kit.prepare.record import record

    for line in record(name, mirror):
        click.echo(line)
