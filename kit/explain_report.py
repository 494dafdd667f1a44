"""The hand-over in a comparison (notebook 07): each serving run beside what its site's other runs predict for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from kit import paths
from kit.compare import only
from kit.errors import ParamsError
from kit.explain import predictions_table
from kit.explain_run import Account, Lines, accounts
from kit.linkmodel import Estimate, short
from kit.predict import engine_lines, lines_of
from kit.sites import read_site
from kit.store import Run, open_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

@dataclass(frozen=True)
class Reckoning:
    """One serving run. ``sources``: prediction -> the run's folder. ``why_not``: why nothing is explained."""

    run: Run
    accounts: list[Account] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)
    why_not: str = ""

    @property
    def title(self) -> str:
        return str(self.run.verdict.get("title") or self.run.verdict.get("site") or self.run.folder.name)

    def about(self) -> str:
        """What is held against what, in a line."""
        told = ", ".join(f"{name} from {run}" for name, run in self.sources.items())
        nothing = "nothing to predict from: no link and no transfer-engine run of this site"
        return f"{self.title}: {self.why_not or told or nothing}"

    def figure(self) -> Figure | None:
        """Where the first tokens' time goes, all stacks and loads in one; None where nothing is explained."""
        from kit.explain_plots import attribution

        told = [(each, account.stack) for account in self.accounts for each in account.explanations]
        if not told:
            return None
        return attribution([each for each, _ in told], names=[stack for _, stack in told], note=self.title)

    def notes(self) -> list[str]:
        """What the numbers mean and what speaks against them; each once."""
        found = [f"{account.stack}: {note}" for account in self.accounts for note in account.notes()]
        if self.accounts and _is_lab(self.run):
            cpus = sorted({node.get("cpus", "?") for node in self.run.fingerprint.values()})
            found.append(f"the lab's two nodes are one machine with {' or '.join(cpus)} CPU cores and no GPU: prefill, "
                         "decode, proxy and copying compete for them, while the sweep had them to itself. The "
                         "unexplained part is expected to be the larger one, and says nothing about hardware")
        return list(dict.fromkeys(found))


def reckon(runs: Sequence[str | Path]) -> list[Reckoning]:
    """One for each serving run of ``runs`` (relative folders are taken from the project's), in their order.

    It is predicted from the last link run and the transfer-engine runs of its own site.
    """
    found = []
    for folder in only(runs, "06_serve_bench"):
        run = open_run(paths.root() / folder)
        links, engines = ([paths.root() / other for other in only(runs, stage)
                           if open_run(paths.root() / other).verdict.get("site") == run.verdict.get("site")]
                          for stage in ("03_link_perftest", "04_transfer_engine"))
        sources = {name: ", ".join(one.name for one in those)
                   for name, those in (("link", links[-1:]), ("transfer engine", engines)) if those}
        try:
            found.append(Reckoning(run, accounts(run, run, partial(_lines, links[-1:], engines)), sources))
        except ParamsError as error:
            found.append(Reckoning(run, why_not=error.what))
    return found


def _lines(links: Sequence[Path], engines: Sequence[Path], piece_bytes: float | None) -> Lines:
    """What predicts a stack that hands over in pieces of this size."""
    found = {"link": lines_of(links[0]) if links else {},
             "transfer engine": engine_lines(engines, piece_bytes) if engines else {}}
    return {name: lines for name, lines in found.items() if lines}


def predicted_beside_measured(told: Sequence[Reckoning]) -> pd.DataFrame:
    """One row a stack, load, length and prediction; 95 % intervals in brackets. Empty where nothing was predicted."""
    rows = [{
        "stack": account.stack, "concurrency": account.concurrency, "tokens": row["prompt_tokens"],
        "MiB": f"{row['size_mib']:.3g}", "predicted from": row["source"], "predicted_ms": _text(row, "predicted"),
        "measured_ms": _text(row, "measured"), "connector_ms": _own(account, row["prompt_tokens"]),
        "unexplained_ms": _text(row, "residual"),
        "error": "-" if pd.isna(row["error"]) else f"{row['error']:+.1%}",
    } for each in told for account in each.accounts
        for row in predictions_table(account.explanations).to_dict("records")]
    return pd.DataFrame(rows, columns=["stack", "concurrency", "tokens", "MiB", "predicted from", "predicted_ms",
                                       "measured_ms", "connector_ms", "unexplained_ms", "error"])


def _own(account: Account, tokens: int) -> str:
    """What the connector itself timed."""
    return short(account.timed_ms[tokens]) if tokens in account.timed_ms else "-"


def _text(row: Mapping[Any, Any], name: str) -> str:
    ends = [None if pd.isna(row[f"{name}_{end}_ms"]) else row[f"{name}_{end}_ms"] for end in ("low", "high")]
    return Estimate(row[f"{name}_ms"], *ends).text()


def _is_lab(run: Run) -> bool:
    """Whether it ran on the embedded lab; a site that is no longer in params/ is none."""
    try:
        return read_site(str(run.verdict.get("site"))).lab is not None
    except ParamsError:
        return False
