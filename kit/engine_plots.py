"""Figures of a transfer-engine run (columns: `kit.engine.table`)."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from kit.linkmodel import LinkModel

_DPI = 160
_LOOKS = {"write": ("o", "-"), "read": ("s", (0, (4, 2)))}


def throughput_over_bytes(points: pd.DataFrame, *, lines: dict[str, LinkModel], bounds: dict[str, float],
                          note: str = "") -> Figure:
    """Throughput over the bytes in flight: medians with the range of the repeats, the fitted line, the link's bound.

    One panel a protocol and memory. ``bounds``: operation -> Gb/s of the link, drawn as a dotted line. The line is
    drawn in the first panel, for whose points it was fitted.
    """
    valid = points[points["outcome"] == "VALID"]
    panels = list(valid.groupby(["protocol", "memory"], sort=False, observed=True))
    with sns.axes_style("whitegrid"):
        figure, axes = plt.subplots(1, max(len(panels), 1), squeeze=False, sharey=True, dpi=_DPI,
                                    figsize=(10.0, 4.6), layout="constrained")
    colours = dict(zip(_LOOKS, sns.color_palette("colorblind"), strict=False))
    for number, ((protocol, memory), part) in enumerate(panels):
        ax = axes[0][number]
        ax.set_title(f"{protocol}, {memory}", fontsize=11)
        for operation in _LOOKS:
            _measured(ax, part[part["operation"] == operation], operation, colours[operation])
            if number == 0 and operation in lines:
                _fitted(ax, part, lines[operation], colours[operation])
            if operation in bounds:
                ax.axhline(bounds[operation], color=colours[operation], linestyle=(0, (1, 1.5)), linewidth=1.6,
                           label=f"the link's {operation}: {bounds[operation]:.3g} Gb/s")
        _axis(ax, sorted({int(size) for size in part["in_flight_bytes"]}))
    if not panels:
        axes[0][0].text(0.5, 0.5, "no valid points", ha="center", transform=axes[0][0].transAxes)
    axes[0][0].set_ylabel("Gb/s (more is better)")
    if panels:
        axes[0][0].legend(fontsize=9, loc="best", framealpha=0.9)
    figure.suptitle("Transfer engine: throughput over bytes in flight" + (f"\n{note}" if note else ""), x=0.01,
                    ha="left", fontsize=12)
    return figure


def _measured(ax: Axes, part: pd.DataFrame, operation: str, colour: object) -> None:
    if part.empty:
        return
    each = part.groupby("in_flight_bytes")["throughput_gbps"].agg(["median", "min", "max"]).astype(float)
    sizes = [int(size) for size in each.index]
    marker, dashes = _LOOKS[operation]
    ax.fill_between(sizes, each["min"], each["max"], color=colour, alpha=0.2, linewidth=0)
    ax.plot(sizes, each["median"], color=colour, marker=marker, linestyle=dashes, markeredgecolor="white",
            label=operation)


def _fitted(ax: Axes, part: pd.DataFrame, line: LinkModel, colour: object) -> None:
    """``t = alpha + bytes / beta`` as a rate, thin."""
    low, high = float(part["in_flight_bytes"].min()), float(part["in_flight_bytes"].max())
    sizes = [low * (high / low) ** (step / 60) for step in range(61)]
    ax.plot(sizes, [size * 8e-9 / line.seconds(size).value for size in sizes], color=colour, linewidth=0.8, alpha=0.8,
            label=f"{line.operation}, fitted: {line.alpha_s.value * 1e3:.2g} ms + bytes at {line.gbps.value:.3g} Gb/s")


def _axis(ax: Axes, sizes: list[int]) -> None:
    ax.set_xscale("log", base=2)
    ax.set_ylim(bottom=0)
    ax.margins(x=0.06)
    ax.xaxis.set_major_locator(FixedLocator([float(size) for size in sizes]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _bytes(int(value))))
    ax.set_xlabel("bytes in flight: block x batch x threads")


def _bytes(size: int) -> str:
    for power, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size >= 1 << power:
            return f"{size / (1 << power):.3g} {unit}"
    return f"{size} B"
