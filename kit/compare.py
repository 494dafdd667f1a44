"""Runs side by side: one labelled table of points, its summary, and which run is faster.

Numbers are rounded to three significant digits, so that a table stored in a notebook is the same every time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
import pandas as pd
from pandas.api.extensions import ExtensionArray

from kit import paths, stats
from kit.errors import StoreError
from kit.link.table import AXES
from kit.store import Run, open_run, read_tables

BANDWIDTH, LATENCY = "Gb/s", "us"
_ALWAYS = ("tool", "size_bytes")
FASTER, SLOWER, SAME = "faster", "slower", "no difference"
NOT_REPEATED, FAILED, MISSING = "not repeated", "failed", "not measured"


def label(frames: Sequence[pd.DataFrame], names: Sequence[str]) -> pd.DataFrame:
    """The points of several runs as one table with a `run` column. Equal names become "x", "x (2)", …"""
    if len(frames) != len(names):
        raise ValueError(f"{len(frames)} tables but {len(names)} names")
    if not frames:
        raise ValueError("no runs to compare")
    return _label(pd.concat(frames, ignore_index=True), [len(frame) for frame in frames], names)


def load(runs: Iterable[str | Path]) -> pd.DataFrame:
    """The labelled points of run folders; relative ones are taken from the project's folder."""
    opened = _open(runs)
    return _label(*read_tables(opened), [_name(run) for run in opened])


def only(runs: Iterable[str | Path], stage: str) -> list[str | Path]:
    """The runs of one stage, in their order."""
    root = paths.root()
    return [run for run in runs if open_run(root / run).verdict.get("stage") == stage]


def unit_of(tool: str) -> str:
    """What a tool measures."""
    return LATENCY if tool.endswith("_lat") else BANDWIDTH


def measured(points: pd.DataFrame) -> pd.DataFrame:
    """The points with `run`, `unit` and `value`. The value is NaN unless the point is VALID, whatever it holds."""
    table = points.copy()
    if "run" not in table:
        table.insert(0, "run", table["site"].astype("string").fillna(""))
    which, tools = pd.factorize(table["tool"], use_na_sentinel=False)
    table["unit"] = np.array([unit_of(str(tool)) for tool in tools], dtype=object)[which]
    bandwidth, typical, average = (
        table[name].astype("Float64").to_numpy(dtype=float, na_value=float("nan"))
        for name in ("bandwidth_gbps", "t_typical_us", "t_avg_us"))
    latency = pd.Series(typical, table.index).fillna(pd.Series(average, table.index))
    value = latency.where(table["unit"] == LATENCY, pd.Series(bandwidth, table.index))
    table["value"] = value.where((table["outcome"] == "VALID").fillna(False).astype(bool))
    return table


def summary(points: pd.DataFrame) -> pd.DataFrame:
    """One row a run and combination of axes; an axis that never varies is left out, but for tool and size."""
    axes = varying(points)
    at = [AXES.index(axis) for axis in axes]
    rows = []
    for run, cells in _cells(points).items():
        for where, cell in cells.items():
            found = cell.summary
            rows.append((
                run, *(where[place] for place in at), _round(found.median if found else None),
                _round(found.low if found else None), _round(found.high if found else None), cell.unit,
                _round(found.spread * 100 if found and found.spread is not None else None),
                found.repeats if found else 0, cell.outcome))
    columns = ["run", *axes, "median", "low", "high", "unit", "spread_%", "repeats", "outcome"]
    numbers = dict.fromkeys(("median", "low", "high", "spread_%"), "Float64")
    return pd.DataFrame(rows, columns=columns).astype(numbers)


def side_by_side(points: pd.DataFrame) -> pd.DataFrame:
    """One row a combination of axes, one column a run, then how each later run stands to the first.

    `ratio` is later over first. More bandwidth or less latency is faster, and only where the repeats do not overlap.
    """
    axes, cells = varying(points), _cells(points)
    names = list(cells)
    if len(names) < 2:
        raise ValueError("a comparison needs two runs")
    base = cells[names[0]]
    wheres = sorted({where for found in cells.values() for where in found})
    columns: dict[str, Any] = {axis: [where[AXES.index(axis)] for where in wheres] for axis in axes}
    columns["unit"] = [unit_of(str(where[0])) for where in wheres]
    texts = [found[where].text if where in found else MISSING for found in cells.values() for where in wheres]
    columns |= zip(names, _cut(pd.array(texts, dtype="str"), len(wheres)), strict=True)
    stands = [_stand(base.get(where), cells[name].get(where)) for name in names[1:] for where in wheres]
    ratios, verdicts = zip(*stands, strict=True)
    for name, ratio, verdict in zip(names[1:], _cut(pd.array(ratios, dtype="Float64"), len(wheres)),
                                    _cut(pd.array(verdicts, dtype="str"), len(wheres)), strict=True):
        tail = "" if len(names) == 2 else f" {name}"
        columns[f"ratio{tail}"], columns[f"verdict{tail}"] = ratio, verdict
    return pd.DataFrame(columns, copy=False)


def verdict_line(table: pd.DataFrame) -> str:
    """The rows of `side_by_side` counted by verdict, as one line."""
    words = Counter(str(word) for name in table.columns if str(name).startswith("verdict") for word in table[name])
    order = (FASTER, SLOWER, SAME, NOT_REPEATED, FAILED, MISSING)
    return f"{sum(words.values())} comparisons: " + ", ".join(f"{words[word]} {word}" for word in order if words[word])


def fingerprint_diff(runs: Iterable[str | Path]) -> pd.DataFrame:
    """Fact x "run/node": facts whose values are not the same in every run. A run that read none is left out."""
    opened = [run for run in _open(runs) if run.fingerprint]
    names = _unique([_name(run) for run in opened])
    prints = {name: run.fingerprint for name, run in zip(names, opened, strict=True)}
    facts = sorted({fact for nodes in prints.values() for held in nodes.values() for fact in held})
    columns = [f"{name}/{node}" for name in names for node in sorted(prints[name])]
    rows = {}
    for fact in facts:
        # By position, not by name: the first node of one site faces the first of another, whatever each is called.
        values = [tuple(str(nodes[node].get(fact, "")) for node in sorted(nodes)) for nodes in prints.values()]
        if len(set(values)) > 1:
            rows[fact] = [value for run in values for value in run]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("fact")


def failures(points: pd.DataFrame) -> pd.DataFrame:
    """The failed points, counted by run, tool, connection and symptom; `expected` only if all of them were."""
    by = ["run", "tool", "connection", "symptom"]
    columns = [*by, "count", "expected", "remedy"]
    show_wide()
    table = measured(points)
    table = table[(table["outcome"] != "VALID").fillna(True).astype(bool)]
    if table.empty:
        return pd.DataFrame(columns=columns)
    groups = table.fillna({"symptom": "", "connection": "", "expected": False}).groupby(by, sort=True)
    found = groups.agg(count=("outcome", "size"), expected=("expected", "all"), remedy=("remedy", "first"))
    found = found.reset_index().fillna({"remedy": ""})
    return found.astype({**dict.fromkeys([*by, "remedy"], "str"), "count": int, "expected": bool})[columns]


def show_wide() -> None:
    """Let pandas show long texts whole: a remedy that is cut helps nobody."""
    pd.set_option("display.max_colwidth", None)
    pd.set_option("display.max_columns", None)


def varying(points: pd.DataFrame) -> list[str]:
    """Tool, size, and the other axes that take more than one value."""
    return [axis for axis in AXES if axis in _ALWAYS or points[axis].nunique(dropna=False) > 1]


@dataclass(frozen=True, slots=True)
class _Cell:
    """All repeats of one combination in one run."""

    unit: str
    summary: stats.Summary | None
    failed: int
    symptoms: str

    @property
    def outcome(self) -> str:
        if not self.failed:
            return "VALID" if self.summary else "VALID, without a value"
        share = f"{self.failed} of {self.failed + self.summary.repeats} " if self.summary else ""
        return f"{share}FAILED: {self.symptoms}"

    @property
    def text(self) -> str:
        """The median, or why there is none."""
        if not self.summary:
            return self.outcome
        number = f"{_round(self.summary.median):g}"
        return f"{number} ({self.outcome})" if self.failed else number


Cells = dict[str, dict[tuple[object, ...], _Cell]]


def _cells(points: pd.DataFrame) -> Cells:
    """Run -> values of AXES -> cell. The runs keep the order of the table, whose first is the base."""
    table = measured(points)
    run, names = pd.factorize(table["run"])
    groups = table.groupby(list(AXES), sort=True, dropna=False)
    wheres = [tuple(_plain(value) for value in where) for where in groups.size().index]
    units = [unit_of(str(where[0])) for where in wheres]
    # A cell's number: thousands of runs have too many cells for a look at each one's rows.
    number = groups.ngroup() + run * len(wheres)
    values = table["value"].groupby(number).agg(["median", "min", "max", "count"])
    bad = (table["outcome"] != "VALID").fillna(True).astype(bool)
    failed = bad.groupby(number).sum()
    symptoms: dict[int, list[str]] = {}
    words = pd.DataFrame({"cell": number[bad], "word": table.loc[bad, "symptom"].fillna("unknown")}).drop_duplicates()
    for cell, word in zip(words["cell"].tolist(), words["word"].tolist(), strict=True):
        symptoms.setdefault(cell, []).append(word)
    cells: Cells = {str(name): {} for name in names}
    of_run = list(cells.values())
    for cell, median, low, high, repeats, bad_ones in zip(
            values.index.tolist(), *(values[name].tolist() for name in values), failed.tolist(), strict=True):
        at, where = divmod(cell, len(wheres))
        of_run[at][wheres[where]] = _Cell(
            units[where], stats.Summary(median, low, high, repeats) if repeats else None, bad_ones,
            ", ".join(sorted(symptoms.get(cell, []))))
    return cells


def _cut(values: ExtensionArray, length: int) -> list[ExtensionArray]:
    """Columns that follow each other; thousands made one by one take longer."""
    return [values[start:start + length] for start in range(0, len(values), length)]


def _stand(first: _Cell | None, later: _Cell | None) -> tuple[float | None, str]:
    """Ratio and verdict of the later run. A combination with a failed repeat gets no faster or slower."""
    if first is None or later is None:
        return None, MISSING
    if first.failed or later.failed or not first.summary or not later.summary:
        return None, FAILED
    ratio = _round(later.summary.median / first.summary.median) if first.summary.median else None
    if min(first.summary.repeats, later.summary.repeats) < 2:
        return ratio, NOT_REPEATED
    if not stats.differ(first.summary, later.summary):
        return ratio, SAME
    more = later.summary.median > first.summary.median
    return ratio, FASTER if more == (first.unit == BANDWIDTH) else SLOWER


def _open(runs: Iterable[str | Path]) -> list[Run]:
    root = paths.root()
    opened = [open_run(root / run) for run in runs]
    if not opened:
        raise StoreError("no runs to compare", remedy="name the folders of at least two runs")
    return opened


def _name(run: Run) -> str:
    """The verdict's site. A run that is not finished has no verdict, but its folder has a name."""
    return str(run.verdict.get("site") or run.folder.name)


def _label(joined: pd.DataFrame, rows: Sequence[int], names: Sequence[str]) -> pd.DataFrame:
    """The joined tables of runs, each with so many rows, and the run's name before them."""
    runs = pd.Index(_unique(names), dtype="str", name="run").repeat(rows).to_series(joined.index)
    return pd.concat([runs, joined.drop(columns="run", errors="ignore")], axis="columns")


def _unique(names: Sequence[str]) -> list[str]:
    counts: dict[str, int] = {}     # of those that are taken: how often the name was tried
    for name in names:
        candidate = name
        while candidate in counts:
            counts[name] += 1
            candidate = f"{name} ({counts[name]})"
        counts[candidate] = 1
    return list(counts)


def _plain(value: object) -> object:
    """A group's key without pandas' and numpy's own types, so that keys sort and print alike."""
    return int(value) if isinstance(value, SupportsIndex) else str(value)


def _round(value: float | None) -> float | None:
    """Three significant digits; None for no value."""
    return None if value is None else float(f"{value:.3g}")
