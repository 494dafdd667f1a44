"""Figures of serving runs. What is not VALID is hatched and crossed out, with its reason: it is no result."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_WIDE, _DPI = 10.0, 160
_TITLES = {"ttft_ms": "TTFT (ms)", "first_itl_ms": "first ITL (ms)", "tpot_ms": "TPOT (ms)",
           "output_tokens_per_s": "output tokens/s"}
_GREY = "0.85"
_LOAD = ["input_tokens", "output_tokens", "concurrency", "requests_per_s"]
_MOST_LOADS = 8


def stacks_side_by_side(points: pd.DataFrame, *, about: str = "") -> Figure:
    """One panel a measure, one bar a stack: the median over the repeats, the line their range. One row a load.

    ``about`` says where it ran; of more than eight loads the first eight are shown, and it says that too.
    """
    every = [load for _, load in points.groupby(_LOAD, sort=False, dropna=False)]
    loads = every[:_MOST_LOADS]
    if len(every) > len(loads):
        about = f"{about} (the first {len(loads)} of {len(every)} loads)".strip()
    stacks = list(dict.fromkeys(points["stack"]))
    colours = dict(zip(stacks, sns.color_palette("colorblind", len(stacks)), strict=True))
    figure = plt.figure(figsize=(_WIDE, 0.4 + (0.7 + 0.42 * len(stacks)) * len(loads)), dpi=_DPI, layout="constrained")
    with sns.axes_style("whitegrid", {"axes.grid.axis": "x"}):
        grid = [part.subplots(1, len(_TITLES), sharey=True)
                for part in figure.subfigures(len(loads), 1, squeeze=False)[:, 0]]
    for axes, shown in zip(grid, loads, strict=True):
        for ax, (name, title) in zip(axes, _TITLES.items(), strict=True):
            for row, stack in enumerate(stacks):
                _bar(ax, row, shown[shown["stack"] == stack], name, colours[stack])
            ax.set_title(title, fontsize=10)
            ax.tick_params(labelsize=8)
        axes[0].set_yticks(range(len(stacks)), stacks, fontsize=9)
        axes[0].invert_yaxis()
        axes[0].figure.suptitle(_heading(shown.iloc[0]), fontsize=11)
    for column in zip(*grid, strict=True):      # the same scale for every load
        right = max(ax.get_xlim()[1] for ax in column)
        for ax in column:
            ax.set_xlim(0, right)
    if about:
        figure.suptitle(about, fontsize=11)
    return figure


def _heading(point: pd.Series[Any]) -> str:
    load = f"{point['requests_per_s']:g} requests/s" if pd.isna(point["concurrency"]) \
        else f"concurrency {point['concurrency']}"
    return f"{point['input_tokens']} tokens in, {point['output_tokens']} out, {load}"


def _bar(ax: Axes, row: int, group: pd.DataFrame, name: str, colour: Any) -> None:
    values = group[name].dropna().astype(float)
    bad = group[group["outcome"] != "VALID"]
    if values.empty:
        ax.text(0, row, f" {bad['outcome'].iloc[0] if len(bad) else 'not measured'}", va="center", fontsize=8)
        return
    middle = float(values.median())
    if len(bad):
        ax.barh(row, middle, height=0.6, color=_GREY, edgecolor="0.5", hatch="////", linewidth=0.6)
        ax.plot([0, middle], [row - 0.3, row + 0.3], color="0.3", linewidth=1.2)
        ax.plot([0, middle], [row + 0.3, row - 0.3], color="0.3", linewidth=1.2)
        ax.annotate(f"{bad['outcome'].iloc[0]}: {bad['symptom'].iloc[0]}", (0, row), xytext=(4, 0),
                    textcoords="offset points", va="center", fontsize=6.5,
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.9})
        return
    ax.barh(row, middle, height=0.6, color=colour)
    ax.plot([float(values.min()), float(values.max())], [row, row], color="0.15", linewidth=1.6)

