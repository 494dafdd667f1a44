"""`kit explain`. Heavy imports happen inside, so that help is quick."""

from __future__ import annotations

from pathlib import Path

import click

from kit.reported import reported


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--baseline", type=click.Path(path_type=Path), metavar="RUN",
              help="The run with the aggregated stack (default: the same run).")
@click.option("--link", type=click.Path(path_type=Path), metavar="RUN", help="A 03 run, to predict from.")
@click.option("--engine", "engines", multiple=True, type=click.Path(path_type=Path), metavar="RUN",
              help="A 04 run, to predict from; of several, what was swept in the stack's own pieces is taken.")
@click.option("--gbps", type=float, help="Speed of the link in 1e9 bits a second, where there is no 03 run.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the figures, as PNG.")
@click.option("--json", "as_json", is_flag=True, help="Print all parts and predictions as JSON.")
@click.option("--note", default="", help="Where it ran, for the figures' titles.")
@reported
def explain(run: Path, baseline: Path | None, link: Path | None, engines: tuple[Path, ...],
            gbps: float | None, out: Path | None, as_json: bool, note: str) -> None:
    """Say where the first tokens' time goes in a 06 RUN: prefill, hand-over, queueing, decode; predicted and measured.

    Each stack stands beside the aggregated one under the same load. Requests that failed, and points that are not
    VALID, are left out.
    """
    from kit.explain_run import Lines, accounts, write_figures
    from kit.linkmodel import nominal
    from kit.predict import engine_lines, lines_of
    from kit.store import open_run

    links = {} if gbps is None else {"link": {"link": nominal(gbps, operation="link")}}
    if link is not None:
        links["link"] = lines_of(link)

    def lines(piece_bytes: float | None) -> Lines:
        return links | ({"transfer engine": engine_lines(engines, piece_bytes)} if engines else {})

    opened = open_run(run)
    found = accounts(opened, open_run(baseline) if baseline is not None else opened, lines)
    if as_json:
        import json

        click.echo(json.dumps([account.to_dict() for account in found], indent=1))
    for account in found if not as_json else ():
        click.echo("\n".join(account.lines()))
    if out is not None:
        title = str(opened.verdict.get("title") or opened.verdict.get("site") or "")
        for path in write_figures(found, out, note=note or title):
            click.echo(f"figure: {path}", err=as_json)
