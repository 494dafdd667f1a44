"""Runs side by side: one labelled table of points, its summary, and which run is faster.

Numbers are rounded to three significant digits, so that a table stored in a notebook is the same every time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import SupportsIndex

import pandas as pd

from kit import paths, stats
from kit.errors import StoreError
from kit.link.table import AXES
from kit.store import Run, open_run

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
    marked = [frame.assign(run=name) for frame, name in zip(frames, _unique(names), strict=True)]
    table = pd.concat(marked, ignore_index=True)
    return table[["run", *(name for name in table.columns if name != "run")]]


def load(runs: Iterable[str | Path]) -> pd.DataFrame:
    """The labelled points of run folders; relative ones are taken from the project's folder."""
    opened = _open(runs)
    return label([run.points for run in opened], [_name(run) for run in opened])


def only(runs: Iterable[str | Path], stage: str) -> list[str | Path]:
    """The runs of one stage, in their order."""
    return [run for run in runs if open_run(paths.root() / run).verdict.get("stage") == stage]


def unit_of(tool: str) -> str:
    """What a tool measures."""
    return LATENCY if tool.endswith("_lat") else BANDWIDTH


def measured(points: pd.DataFrame) -> pd.DataFrame:
    """The points with `run`, `unit` and `value`. The value is NaN unless the point is VALID, whatever it holds."""
    table = points.copy()
    if "run" not in table:
        table.insert(0, "run", table["site"].astype("string").fillna(""))
    table["unit"] = [unit_of(str(tool)) for tool in table["tool"]]
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
    rows = []
    for run, cells in _cells(points).items():
        for where, cell in cells.items():
            at = dict(zip(AXES, where, strict=True))
            found = cell.summary
            rows.append({
                "run": run, **{axis: at[axis] for axis in axes},
                "median": _round(found.median if found else None), "low": _round(found.low if found else None),
                "high": _round(found.high if found else None), "unit": cell.unit,
                "spread_%": _round(found.spread * 100 if found and found.spread is not None else None),
                "repeats": found.repeats if found else 0, "outcome": cell.outcome})
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
    rows = []
    for where in sorted({key for found in cells.values() for key in found}):
        at = dict(zip(AXES, where, strict=True))
        row: dict[str, object] = {axis: at[axis] for axis in axes}
        row["unit"] = unit_of(str(at["tool"]))
        row |= {name: cells[name][where].text if where in cells[name] else MISSING for name in names}
        for name in names[1:]:
            tail = "" if len(names) == 2 else f" {name}"
            row[f"ratio{tail}"], row[f"verdict{tail}"] = _stand(base.get(where), cells[name].get(where))
        rows.append(row)
    table = pd.DataFrame(rows)
    return table.astype({name: "Float64" for name in table.columns if name.startswith("ratio")})


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
    columns = ["run", "tool", "connection", "symptom", "count", "expected", "remedy"]
    show_wide()
    table = measured(points)
    table = table[(table["outcome"] != "VALID").fillna(True).astype(bool)]
    rows = []
    for key, group in table.fillna({"symptom": "", "connection": ""}).groupby(columns[:4], sort=True):
        remedies = group["remedy"].dropna()
        rows.append([*key, len(group), bool(group["expected"].fillna(False).all()),
                     remedies.iloc[0] if len(remedies) else ""])
    return pd.DataFrame(rows, columns=columns)


def show_wide() -> None:
    """Let pandas show long texts whole: a remedy that is cut helps nobody."""
    pd.set_option("display.max_colwidth", None)
    pd.set_option("display.max_columns", None)


def varying(points: pd.DataFrame) -> list[str]:
    """Tool, size, and the other axes that take more than one value."""
    return [axis for axis in AXES if axis in _ALWAYS or points[axis].nunique(dropna=False) > 1]


@dataclass(frozen=True)
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
    cells: Cells = {str(run): {} for run in table["run"].unique()}
    for (run, *where), group in table.groupby(["run", *AXES], sort=True, dropna=False):
        bad = group[(group["outcome"] != "VALID").fillna(True).astype(bool)]
        values = [float(value) for value in group["value"].dropna()]
        symptoms = ", ".join(sorted({str(word) for word in bad["symptom"].fillna("unknown")}))
        plain = tuple(_plain(value) for value in where)
        cells[str(run)][plain] = _Cell(str(group["unit"].iloc[0]), stats.summarise(values) if values else None,
                                       len(bad), symptoms)
    return cells


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
    opened = [open_run(paths.root() / run) for run in runs]
    if not opened:
        raise StoreError("no runs to compare", remedy="name the folders of at least two runs")
    return opened


def _name(run: Run) -> str:
    """The verdict's site. A run that is not finished has no verdict, but its folder has a name."""
    return str(run.verdict.get("site") or run.folder.name)


def _unique(names: Sequence[str]) -> list[str]:
    taken: list[str] = []
    for name in names:
        candidate, count = name, 1
        while candidate in taken:
            count += 1
            candidate = f"{name} ({count})"
        taken.append(candidate)
    return taken


def _plain(value: object) -> object:
    """A group's key without pandas' and numpy's own types, so that keys sort and print alike."""
    return int(value) if isinstance(value, SupportsIndex) else str(value)


def _round(value: float | None) -> float | None:
    """Three significant digits; None for no value."""
    return None if value is None else float(f"{value:.3g}")
