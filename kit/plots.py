"""Figures of labelled points (`kit.compare.label`): median lines with the range of the repeats as a band.

A failed point is a cross in a strip of its own below the axis, whatever number its row may hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from kit.compare import BANDWIDTH, LATENCY, measured, varying

SOFTWARE_NOTE = "software RDMA on emulated CPUs: says nothing about hardware"
_WIDE, _DPI = 10.0, 160             # 1600 px, the width that a README shows without blur
_SOFTWARE = ("siw", "rxe")
_DASHES: tuple[Any, ...] = ("-", (0, (4, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
_MARKERS = ("o", "s", "^", "D")
_STRIP = 0.05                       # height of one run's row of crosses, as a share of the axis
_PER_ROW = 3

Draw = Callable[[Axes, pd.DataFrame], None]


def bandwidth_over_size(points: pd.DataFrame) -> Figure:
    """Bandwidth of the `*_bw` tools over message size, one panel a tool, one colour a run."""
    return _over_size(points, BANDWIDTH, "Bandwidth over message size", "Gb/s (more is better)")


def latency_over_size(points: pd.DataFrame) -> Figure:
    """Latency of the `*_lat` tools over message size: half a round trip for write and send, else a whole one."""
    return _over_size(points, LATENCY, "Latency over message size", "µs (less is better)")


def ratio_over_size(points: pd.DataFrame) -> Figure:
    """The second run's median over the first's; the band is the widest ratio that the repeats allow."""
    table = _valued(points)
    names = [str(name) for name in table["run"].unique()][:2]
    if len(names) < 2:
        raise ValueError("a ratio needs two runs")
    table = table[table["run"].isin(names)]
    colours = dict(zip(names, sns.color_palette("colorblind"), strict=False))

    kinds = _connections(table)
    drawn: set[str] = set()

    def draw(ax: Axes, part: pd.DataFrame) -> None:
        for kind in kinds:
            first, second = (_repeats(part, name, kind) for name in names)
            middle = second["median"] / first["median"]
            if middle.notna().any():
                drawn.add(kind)
                _line(ax, middle, second["min"] / first["max"], second["max"] / first["min"], _look(kinds, kind))
        ax.axhline(1, color="0.25", linewidth=1.2, zorder=1.5)
        ax.set_ylim(*_around_one(ax.dataLim.y0, ax.dataLim.y1))
        ax.set_ylabel("ratio (above 1: faster)" if part["unit"].iloc[0] == BANDWIDTH else "ratio (below 1: faster)")

    return _figure(table, f"{names[1]} over {names[0]}", draw, colours,
                   lambda: [Line2D([], [], label=kind, **_look(kinds, kind)) for kind in kinds if kind in drawn])


def _over_size(points: pd.DataFrame, unit: str, title: str, axis: str) -> Figure:
    every = _valued(points)
    table = every[every["unit"] == unit]
    colours = dict(zip((str(name) for name in every["run"].unique()), sns.color_palette("colorblind") * 9,
                       strict=False))
    kinds = _connections(table)

    def draw(ax: Axes, part: pd.DataFrame) -> None:
        for run in colours:
            for kind in kinds:
                line = _repeats(part, run, kind)
                _line(ax, line["median"], line["min"], line["max"], _look(kinds, kind, colours[run]))
        high = part["value"].max()
        ax.set_ylim(0, 1.0 if pd.isna(high) else 1.08 * float(high))
        ax.set_ylabel(axis)

    def handles() -> list[Line2D]:
        good = table.dropna(subset=["value"])[["run", "connection"]].drop_duplicates()
        return [Line2D([], [], label=f"{run}, {kind}", **_look(kinds, str(kind), colours[str(run)]))
                for run, kind in good.itertuples(index=False)]

    return _figure(table, title, draw, colours, handles)


def _valued(points: pd.DataFrame) -> pd.DataFrame:
    """The points with their values; a point of unknown connection is drawn too."""
    table = measured(points)
    return table.assign(connection=table["connection"].fillna("unknown"))


def _connections(table: pd.DataFrame) -> list[str]:
    """RDMA_CM first, and so solid: it is the one that every device knows."""
    return sorted(table["connection"].dropna().unique(), key=lambda kind: (kind != "rdma_cm", kind))


def _look(kinds: list[str], kind: str, colour: Any = None) -> dict[str, Any]:
    """Dashes and marker by connection; colour too where runs do not use it."""
    number = kinds.index(kind)
    return {"color": colour or sns.color_palette("colorblind")[2 + number % 6], "linestyle": _DASHES[number % 4],
            "marker": _MARKERS[number % 4], "markersize": 6, "markeredgecolor": "white", "linewidth": 1.8}


def _repeats(part: pd.DataFrame, run: str, kind: str) -> pd.DataFrame:
    """Median and range by size. A size without a value is NaN: a line must break there, not bridge it."""
    chosen = part[(part["run"] == run) & (part["connection"] == kind)]
    found = chosen.dropna(subset=["value"]).groupby("size_bytes")["value"].agg(["median", "min", "max"])
    return found.reindex(sorted(part["size_bytes"].dropna().unique())).astype(float)


def _line(ax: Axes, middle: pd.Series, low: pd.Series, high: pd.Series, look: dict[str, Any]) -> None:
    sizes = [int(size) for size in middle.index]
    ax.fill_between(sizes, low, high, color=look["color"], alpha=0.2, linewidth=0)
    ax.plot(sizes, middle, **look)


def _figure(table: pd.DataFrame, title: str, draw: Draw, colours: dict[str, Any],
            lines: Callable[[], list[Line2D]]) -> Figure:
    """Panels, crosses, heading and legend around what `draw` puts into each panel."""
    panels = _panels(table)
    across = 2 if len(panels) == 4 else min(len(panels), _PER_ROW) or 1
    down = math.ceil(len(panels) / across) or 1
    heading = _heading(table, title)
    # No rc_context here: in a notebook it would undo the interactive mode, and no later figure would be shown.
    with sns.axes_style("whitegrid"):
        figure, axes = plt.subplots(down, across, squeeze=False, dpi=_DPI)
    flat = list(axes.flat)
    for ax, (name, part) in zip(flat, panels, strict=False):
        ax.set_xscale("log", base=2)
        ax.margins(x=0.075)
        ax.set_title(name, fontsize=11)
        draw(ax, part)
        _crosses(ax, part, colours)
        _byte_axis(ax, sorted({int(size) for size in part["size_bytes"].dropna()}), across)
    for ax in flat[len(panels):]:
        ax.set_axis_off()
    if not panels:
        flat[0].text(0.5, 0.5, "no such points", ha="center", transform=flat[0].transAxes)
    handles = lines() + _cross_handles(table, colours)
    top, bottom = 0.22 * len(heading) + 0.2, 0.24 * math.ceil(len(handles) / 2) + 0.15
    high = top + bottom + down * (4.2 if across == 1 else 3.6)
    figure.set_size_inches(_WIDE, high)
    figure.set_layout_engine("constrained", rect=(0, bottom / high, 1, 1 - (top + bottom) / high), wspace=0.06)
    for number, line in enumerate(heading):
        figure.text(0.012, 1 - (0.14 + 0.22 * number) / high, line, va="top", color="0.1" if number == 0 else "0.35",
                    fontsize=13 if number == 0 else 10, fontweight="bold" if number == 0 else "normal")
    if handles:
        figure.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 0.05 / high), ncol=2, frameon=False,
                      fontsize=9.5, handlelength=3.2)
    return figure


def _panels(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """One panel a tool and, where they vary, queue pairs and direction: lines must not mix them."""
    if table.empty:
        return []
    axes = [axis for axis in varying(table) if axis not in ("size_bytes", "connection")]
    found = []
    for key, part in table.groupby(axes, sort=True):
        at = dict(zip(axes, key, strict=True))
        name = ", ".join(f"{value} QP" if axis == "qps" else str(value) for axis, value in at.items())
        found.append((name, part))
    return found


def _failed(table: pd.DataFrame) -> pd.DataFrame:
    bad = table[(table["outcome"] != "VALID").fillna(True).astype(bool)]
    return bad.assign(symptom=bad["symptom"].fillna("unknown"))


def _crosses(ax: Axes, part: pd.DataFrame, colours: dict[str, Any]) -> None:
    """A row of crosses a run, in a strip below the data, so that no cross can be read as a number."""
    bad = _failed(part)
    runs = [run for run in colours if (bad["run"] == run).any()]
    low, high = ax.get_ylim()
    ax.yaxis.set_major_locator(FixedLocator([tick for tick in MaxNLocator(6).tick_values(low, high)
                                             if low <= tick <= high]))
    if not runs:
        return
    share = _STRIP * (max(len(runs), 2) + 0.4)  # two rows hold the word beside them
    bottom = low - (high - low) * share / (1 - share)
    ax.set_ylim(bottom, high)
    ax.axhspan(bottom, low, color="0.94", zorder=0.5, linewidth=0)
    ax.text(0.004, share / 2, "failed", rotation=90, ha="left", va="center", fontsize=7.5, color="0.35",
            transform=ax.transAxes)
    for row, run in enumerate(runs):
        sizes = sorted({int(size) for size in bad.loc[bad["run"] == run, "size_bytes"]})
        ax.plot(sizes, [share - _STRIP * (row + 0.7)] * len(sizes), linestyle="none", marker="x", markersize=6,
                markeredgewidth=1.6, color=colours[run], transform=ax.get_xaxis_transform(), gid="failed")


def _cross_handles(table: pd.DataFrame, colours: dict[str, Any]) -> list[Line2D]:
    found = []
    for (run, kind, symptom), group in _failed(table).groupby(["run", "connection", "symptom"], sort=True):
        found.append(Line2D([], [], linestyle="none", marker="x", markersize=6, markeredgewidth=1.6,
                            color=colours[str(run)], label=f"{run}, {kind}: {len(group)} failed, {symptom}"))
    return found


def _heading(table: pd.DataFrame, title: str) -> list[str]:
    """The title, then site and device of each run, then what software devices cannot tell."""
    ends = table[["run", "site", "device"]].drop_duplicates().fillna("?")
    where = [f"{run} ({device})" if run == site else f"{run} ({site}, {device})"
             for run, site, device in ends.itertuples(index=False)]
    software = any(str(device).startswith(_SOFTWARE) for device in ends["device"])
    return [title, " · ".join(where), *([SOFTWARE_NOTE] if software else [])]


def _byte_axis(ax: Axes, sizes: list[int], across: int) -> None:
    """Ticks at measured sizes, thinned until their labels cannot touch."""
    step = max(1, math.ceil(len(sizes) / (14 // across)))
    ax.xaxis.set_major_locator(FixedLocator([float(size) for size in sizes[::step]]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _bytes(int(value))))
    ax.tick_params(labelsize=9)
    ax.set_xlabel("message size")


def _bytes(size: int) -> str:
    """64 B, 4 KiB, 1 MiB."""
    for power, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size >= 1 << power:
            return f"{size / (1 << power):.3g} {unit}"
    return f"{size} B"


def _around_one(low: float, high: float) -> tuple[float, float]:
    """Limits that hold the data and the line at 1, with some air."""
    low, high = min(low, 1.0), max(high, 1.0)
    air = max(0.08 * (high - low), 0.05)
    return max(0.0, low - air), high + air
