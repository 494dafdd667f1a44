"""A run over time, prefiller and decoder side by side: who sends, who receives, who waits, how full the KV cache is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, PercentFormatter

from kit.observe.traffic import traffic

_WIDE, _DPI = 10.0, 160             # as the other figures: 1600 px
_ROW = 2.1                          # inches a row of panels
_DASHES: tuple[Any, ...] = ("-", (0, (4, 2)))
_CARRIERS = {"rdma": "RDMA device", "net": "network interface"}
_DIRECTIONS = ("sent", "received")
_WIDTHS = {"sent": 1.6, "received": 3.4}    # they coincide where both nodes share one loopback interface
_LOOPBACK = "both nodes are one machine: what its loopback interface carries is sent and received at once"
_REQUESTS = {"vllm:num_requests_running": "running", "vllm:num_requests_waiting": "waiting"}
_KV_USE = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")     # the name before vLLM 0.11
_NONE = "not sampled"


def over_time(samples: pd.DataFrame, *, nodes: Sequence[str] = ("prefiller", "decoder"), title: str = "Load over time",
              about: str = "", begin_s: float | None = None, end_s: float | None = None) -> Figure:
    """One column a node: bytes a second, requests in the engine, and use of its KV cache.

    ``samples`` as `kit.observe.table.table` makes them. ``about`` says where it ran and stands below the title.
    Between ``begin_s`` and ``end_s`` (controller's clock) the benchmark ran: the time outside is grey.
    """
    chosen = samples[samples["node"].isin(list(nodes))]
    zero_s = begin_s if begin_s is not None else float(chosen["time_s"].min()) if len(chosen) else 0.0
    chosen = chosen.assign(at_s=chosen["time_s"] - zero_s)
    moved = traffic(chosen) if len(chosen) else chosen.assign(carrier="", direction="", bytes_per_s=0.0)
    moved = moved.assign(at_s=moved["time_s"] - zero_s)
    shared = bool(((chosen["source"] == "net") & (chosen["labels"] == 'interface="lo"')).any())
    heading = [line for line in (title, about, _LOOPBACK if shared else "") if line]
    with sns.axes_style("whitegrid"):
        figure, axes = plt.subplots(3, len(nodes), squeeze=False, sharex=True, sharey="row", dpi=_DPI)
    colours = sns.color_palette("colorblind")
    carriers = [carrier for carrier in _CARRIERS if (moved["carrier"] == carrier).any()]    # the first one is solid
    looks = {**dict(zip(_DIRECTIONS, colours, strict=False)), **dict(zip(carriers, _DASHES, strict=False)),
             "running": colours[2], "waiting": colours[3], "kv": colours[4]}
    for column, node in enumerate(nodes):
        here = chosen[chosen["node"] == node]
        _traffic(axes[0][column], moved[moved["node"] == node], looks)
        _gauges(axes[1][column], here, _REQUESTS, looks)
        _gauges(axes[2][column], here, dict.fromkeys(_KV_USE, "kv"), looks)
        axes[0][column].set_title(node, fontsize=11)
        axes[2][column].set_xlabel("seconds since the benchmark began" if begin_s is not None else "seconds")
    _scales(axes, chosen)
    for ax in axes.flat:
        _outside(ax, begin_s, end_s, zero_s)
    _lay_out(figure, heading, _handles(moved, looks))
    return figure


def _traffic(ax: Axes, moved: pd.DataFrame, looks: dict[str, Any]) -> None:
    for (carrier, direction), line in moved.groupby(["carrier", "direction"], observed=True):    # sent is on top
        ax.plot(line["at_s"], line["bytes_per_s"], color=looks[str(direction)], linestyle=looks[str(carrier)],
                linewidth=_WIDTHS[str(direction)], drawstyle="steps-pre")      # a rate is of the time before its look
    if moved.empty:
        _say(ax, _NONE)


def _gauges(ax: Axes, here: pd.DataFrame, names: dict[str, str], looks: dict[str, Any]) -> None:
    """Gauges, summed over the engines of a node at each look."""
    drawn = False
    for name, look in names.items():
        line = here[here["name"] == name].groupby("at_s")["value"].sum()
        if len(line):
            ax.plot(line.index, line, color=looks[look], linewidth=1.6, drawstyle="steps-post")
            drawn = True
    if not drawn:
        _say(ax, _NONE)


def _say(ax: Axes, words: str) -> None:
    ax.text(0.5, 0.5, words, ha="center", va="center", color="0.45", transform=ax.transAxes,
            bbox={"facecolor": "white", "edgecolor": "none"})


def _scales(axes: Any, chosen: pd.DataFrame) -> None:
    """From 0 in every row, the same for both nodes: only then do their heights compare."""
    for row, label in zip(axes, ("bytes a second", "requests", "KV cache in use"), strict=True):
        row[0].set_ylabel(label)
        for ax in row:
            ax.set_ylim(bottom=0)
            ax.tick_params(labelsize=9)
    if len(chosen):
        axes[0][0].set_xlim(float(chosen["at_s"].min()), max(float(chosen["at_s"].max()), 1e-3))
    axes[0][0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: _rate(float(value))))
    axes[2][0].yaxis.set_major_formatter(PercentFormatter(1.0))


def _outside(ax: Axes, begin_s: float | None, end_s: float | None, zero_s: float) -> None:
    low, high = ax.get_xlim()
    if begin_s is not None and low < begin_s - zero_s:
        ax.axvspan(low, begin_s - zero_s, color="0.94", zorder=0.5, linewidth=0)
    if end_s is not None and high > end_s - zero_s:
        ax.axvspan(end_s - zero_s, high, color="0.94", zorder=0.5, linewidth=0)
    ax.set_xlim(low, high)


def _handles(moved: pd.DataFrame, looks: dict[str, Any]) -> list[Line2D]:
    found = [Line2D([], [], color=looks[direction], linestyle=looks[carrier],
                    linewidth=_WIDTHS[direction], label=f"{direction}, {words}")
             for carrier, words in _CARRIERS.items() for direction in _DIRECTIONS
             if ((moved["carrier"] == carrier) & (moved["direction"] == direction)).any()]
    return found + [Line2D([], [], color=looks[look], linewidth=1.6, label=f"{look} requests")
                    for look in _REQUESTS.values()]


def _lay_out(figure: Figure, heading: list[str], handles: list[Line2D]) -> None:
    columns = 3
    top, bottom = 0.22 * len(heading) + 0.2, 0.24 * math.ceil(len(handles) / columns) + 0.15
    high = top + bottom + 3 * _ROW
    figure.set_size_inches(_WIDE, high)
    figure.align_ylabels()
    figure.set_layout_engine("constrained", rect=(0, bottom / high, 1, 1 - (top + bottom) / high), wspace=0.04)
    for number, line in enumerate(heading):
        figure.text(0.012, 1 - (0.14 + 0.22 * number) / high, line, va="top", color="0.1" if number == 0 else "0.35",
                    fontsize=13 if number == 0 else 10, fontweight="bold" if number == 0 else "normal")
    figure.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 0.05 / high), ncol=columns, frameon=False,
                  fontsize=9.5, handlelength=3.2)


def _rate(value: float) -> str:
    """980 B, 12 MB, 1.5 GB: powers of 1000, as link speeds are."""
    for power, unit in ((9, "GB"), (6, "MB"), (3, "kB")):
        if value >= 10**power:
            return f"{value / 10**power:.3g} {unit}"
    return f"{value:g} B"
