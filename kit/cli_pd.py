"""`kit pd`: a stack brought up on a site and left running, looked at, and taken down."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kit.reported import reported

if TYPE_CHECKING:
    from kit.params import Stack
    from kit.serving.parts import Wiring
    from kit.sites import Pair


@click.group()
def pd() -> None:
    """A serving stack on a site's two nodes: up, status, down."""


@pd.command()
@click.argument("site")
@click.argument("stack")
@click.option("--prompt-tokens", type=click.IntRange(1), default=600, help="Longest prompt that the store must hold.")
@click.option("--concurrency", type=click.IntRange(1), default=8, help="How many of them at once.")
@click.option("--lifetime", "lifetime_s", type=click.FloatRange(60), default=14400.0,
              help="Seconds after which the nodes end it, whatever becomes of us.")
@reported
def up(site: str, stack: str, prompt_tokens: int, concurrency: int, lifetime_s: float) -> None:
    """Preflight STACK on SITE, start it, hand one prompt over, and leave it running."""
    from kit.serving.launch import end
    from kit.serving.memory import Load
    from kit.serving.session import bring_up, survey

    pair, known = _open(site, stack)
    with pair:
        end(pair)
        ground = survey(pair, known, Load(prompt_tokens, concurrency))
        for check in ground.checks:
            click.echo(f"{check.outcome:4} {check.name}: {check.seen}")
        running = bring_up(pair, ground, lifetime_s=lifetime_s, say=click.echo)
        for check in running.exposed:
            click.echo(f"{check.outcome:4} {check.name}: {check.seen}; {check.remedy}")
        if running.handed is not None:
            click.echo(f"hand-over: {running.handed}")
        click.echo(f"up after {running.deployment.ready_s:.0f} s: {running.deployment.front.url}")
        click.echo(f"kit pd down {site} {stack} ends it")


@pd.command()
@click.argument("site")
@click.argument("stack")
@reported
def status(site: str, stack: str) -> None:
    """Say which parts of STACK listen on SITE."""
    from kit.serving.launch import listening

    pair, known = _open(site, stack)
    with pair:
        for part, there in listening(pair, _wiring(pair, known)):
            click.echo(f"{part.role} on node {part.end}, {part.address}:{part.port}: {'up' if there else 'down'}")


@pd.command()
@click.argument("site")
@click.argument("stack")
@reported
def down(site: str, stack: str) -> None:
    """End every process of STACK on SITE."""
    from kit.serving.launch import end

    pair, known = _open(site, stack)
    with pair:
        click.echo(f"{end(pair, _wiring(pair, known))} processes ended")


def _open(site: str, stack: str) -> tuple[Pair, Stack]:
    """The site under a run id that is always the same for this stack on it, so that `down` finds what `up` left."""
    from kit.serving.stacks import read_stack
    from kit.sites import open_site
    from kit.store import key_of

    return open_site(site, run_id=f"kit-pd-{key_of([site, stack])}"), read_stack(stack)


def _wiring(pair: Pair, stack: Stack) -> Wiring:
    from kit.serving.stacks import wired

    return wired(pair, stack)
