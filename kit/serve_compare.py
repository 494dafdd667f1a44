"""Serving runs for a reader: medians over the repeats, each stack against the baseline, invalid numbers crossed out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from kit import paths
from kit.errors import StoreError
from kit.serving.table import AXES
from kit.stats import Summary, differ, summarise
from kit.store import open_run, read_tables

if TYPE_CHECKING:
    from IPython.display import HTML

# What is compared: column -> whether less is better.
MEASURES = {"ttft_ms": True, "first_itl_ms": True, "tpot_ms": True, "e2e_ms": True, "output_tokens_per_s": False}
_LOAD = [axis for axis in AXES if axis != "stack"]
_STRUCK = "color: gray; text-decoration: line-through"


def load(runs: Iterable[str | Path], table: str = "points") -> pd.DataFrame:
    """A table of several serving runs in one; relative folders are taken from the project's.

    With more than one run a stack is called ``site/stack``.
    """
    root = paths.root()
    joined, rows = read_tables([open_run(root / run) for run in runs], table)
    if len(rows) > 1:
        if joined[["site", "stack"]].isna().any(axis=None):
            raise StoreError("one of these runs is no serving run", remedy="kit.compare.only sorts runs by their stage")
        joined["stack"] = joined["site"] + "/" + joined["stack"]
    return joined


def summary(points: pd.DataFrame) -> pd.DataFrame:
    """One row a stack and load: outcome and symptom, hit ratio, and the median of each measure over the repeats."""
    rows = []
    for where, group in _groups(points):
        bad = group[group["outcome"] != "VALID"]
        rows.append({**where, "outcome": bad["outcome"].iloc[0] if len(bad) else "VALID",
                     "symptom": bad["symptom"].iloc[0] if len(bad) else "", "repeats": len(group),
                     "hit_%": _percent(group["hit_ratio"].median()),
                     **{name: _round(group[name].median()) for name in MEASURES}})
    return pd.DataFrame(rows)


def crossed_out(table: pd.DataFrame) -> HTML:
    """The summary with the numbers of what is not VALID crossed out: they are not results."""
    from IPython.display import HTML

    measures = [name for name in MEASURES if name in table]

    def strike(row: pd.Series[Any]) -> list[str]:
        bad = row["outcome"] != "VALID"
        return [_STRUCK if bad and name in measures else "" for name in row.index]

    styled = table.style.apply(strike, axis=1).format(precision=1, na_rep="-").hide(axis="index")
    return HTML(styled.set_uuid("serving").to_html())  # type: ignore[no-untyped-call]


def against(points: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Each VALID stack against the baseline under the same load: ratio of medians, and whether the repeats differ."""
    cells = {(where["stack"], *(where[name] for name in _LOAD)): group for where, group in _groups(points)}
    rows = []
    for (stack, *load_of), group in cells.items():
        base = cells.get((baseline, *load_of))
        if stack == baseline or base is None:
            continue
        row: dict[str, Any] = {"stack": stack, **dict(zip(_LOAD, load_of, strict=True))}
        for name, less in MEASURES.items():
            row[name] = _stand(_summary(base, name), _summary(group, name), less=less)
        rows.append(row)
    frame = pd.DataFrame(rows)
    return frame[[name for name in frame if name not in _LOAD or frame[name].notna().any()]]


def problems(points: pd.DataFrame) -> pd.DataFrame:
    """What is not VALID: one row a stack, symptom and reason, with the remedy."""
    bad = points[points["outcome"] != "VALID"]
    pd.set_option("display.max_colwidth", None)
    columns = ["stack", "outcome", "symptom", "reason", "remedy"]
    found = bad.groupby(columns, sort=False, dropna=False).size().rename("times").reset_index()
    return found[["stack", "times", *columns[1:]]]


def _groups(points: pd.DataFrame) -> Iterable[tuple[dict[str, Any], pd.DataFrame]]:
    for key, group in points.groupby(list(AXES), sort=False, dropna=False):
        values: dict[str, Any] = dict(zip(AXES, key, strict=True))
        yield {name: None if pd.isna(value) else value for name, value in values.items()}, group


def _summary(group: pd.DataFrame, name: str) -> Summary | None:
    if (group["outcome"] != "VALID").any() or group[name].isna().all():
        return None
    return summarise([float(value) for value in group[name].dropna()])


def _stand(base: Summary | None, now: Summary | None, *, less: bool) -> str:
    if base is None or now is None:
        return "not valid"
    ratio = f"x {now.median / base.median:.3g}" if base.median else "-"
    if min(base.repeats, now.repeats) < 2:
        return f"{ratio} (not repeated)"
    if not differ(base, now):
        return f"{ratio} (no difference)"
    return f"{ratio} ({'better' if (now.median < base.median) == less else 'worse'})"


def _percent(value: Any) -> float | None:
    return None if pd.isna(value) else round(100 * float(value), 1)


def _round(value: Any) -> float | None:
    return None if pd.isna(value) else float(f"{float(value):.3g}")
