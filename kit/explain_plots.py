"""Figures of explanations (`kit.explain`): where the first tokens' time goes, and from which link on a split pays."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from kit.explain import AGGREGATED, DECODE, HANDOVER, PREFILL, QUEUEING, SPLIT, Explanation, needed_gbps, percent

_DPI = 160
_COLOURS = {PREFILL: "#4477aa", QUEUEING: "#bbbbbb", HANDOVER: "#ee6677", DECODE: "#228833"}
_WORDS = {PREFILL: "prefill", QUEUEING: "waiting in a queue", HANDOVER: "hand-over of the KV cache",
          DECODE: "decode (steps to the second token)"}
_BAR, _ROW_IN = 0.62, 0.52
_ROOM = 0.055           # a part narrower than this share of the axis gets no label inside
_SHARES = (0.1, 0.5, 1.0)


def attribution(explanations: list[Explanation], *, names: Sequence[str] = (), note: str = "") -> Figure:
    """The time to the second token, stacked: one pair of bars an explanation, aggregated above prefill/decode.

    The line through the hand-over's base marks what each prediction explains of it. A triangle is the first token.
    ``names``: the stack of each explanation, where they are of several.
    """
    rows = [(each, stack) for each in explanations for stack in (AGGREGATED, SPLIT)]
    total = max(_second_token(each, stack) for each, stack in rows)
    with sns.axes_style("whitegrid"):
        figure, ax = plt.subplots(dpi=_DPI, figsize=(10.0, 1.9 + _ROW_IN * len(rows) + 0.25 * len(explanations)),
                                  layout="constrained")
    places = []
    for number, (each, stack) in enumerate(rows):
        y = number + 0.45 * (number // 2)
        places.append(y)
        _bar(ax, y, each, stack, total)
        if stack == SPLIT:
            _predictions(ax, y, each, total)
    ax.set_yticks(places, _row_names(explanations, names))
    ax.invert_yaxis()
    ax.set_xlim(0, total * 1.3)
    ax.set_xlabel("milliseconds from the request to its second token (median)")
    ax.grid(visible=False, axis="y")
    handles: list[Patch | Line2D] = [Patch(color=_COLOURS[name], label=_WORDS[name]) for name in _COLOURS
                                     if any(part.name == name and part.ms.value > 0.005 * total
                                            for each, _ in rows for part in each.parts)]
    handles.append(Line2D([], [], marker="v", color="0.1", linestyle="none", label="first token"))
    handles += [Line2D([], [], color="0.1", linewidth=1.4, linestyle=_dashes(number), label=f"predicted: {source}")
                for number, source in enumerate(_sources(explanations))]
    figure.legend(handles=handles, loc="outside lower center", ncol=3, frameon=False, fontsize=9)
    figure.suptitle(_headline(explanations, names) + (f"\n{note}" if note else ""), x=0.01, ha="left",
                    fontsize=10.5 if names else 12)
    return figure


def break_even(explanations: list[Explanation], *, links: dict[str, float] | None = None, note: str = "") -> Figure:
    """Prompt length against the rate of the hand-over: what was reached, and what would make the split pay.

    Above a thin line the hand-over takes less than that share of the prefill; above the thick one, where there is one,
    a request ends earlier than on the aggregated stack. ``links``: name -> Gb/s, drawn as dotted lines.
    """
    lengths = [each.prompt_tokens for each in explanations]
    with sns.axes_style("whitegrid"):
        figure, ax = plt.subplots(dpi=_DPI, figsize=(10.0, 5.2), layout="constrained")
    palette = sns.color_palette("Blues", len(_SHARES) + 2)[2:]
    for colour, share in zip(palette, _SHARES, strict=True):
        rates = [needed_gbps(each, share_of_prefill=share) for each in explanations]
        said = f"hand-over as long as {share:.0%} of the prefill" if share < 1 else "as long as the prefill"
        ax.plot(*_stretched(lengths, rates), color=colour, linewidth=1.6, label=said)
    rates = [needed_gbps(each) for each in explanations]
    if any(rate is not None for rate in rates):
        ax.plot(*_stretched(lengths, rates), color="#228833", linewidth=3, marker="D",
                label="break-even: a request ends as early as aggregated")
        for each in explanations:
            _spread(ax, each)
    for number, (name, gbps) in enumerate((links or {}).items()):
        ax.axhline(gbps, color="0.25", linestyle=_dashes(number + 1), linewidth=1.4, label=f"{name}: {gbps:.3g} Gb/s")
    for each in explanations:
        _reached(ax, each)
    ax.set_yscale("log")
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_locator(FixedLocator([float(length) for length in lengths]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.margins(x=0.1, y=0.12)
    ax.set_xlabel("prompt length in tokens")
    ax.set_ylabel("rate of the hand-over in Gb/s (more is better)")
    handles, labels = ax.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    figure.legend(once.values(), once.keys(), loc="outside lower center", ncol=2, frameon=False, fontsize=9)
    figure.suptitle(_rates(explanations) + (f"\n{note}" if note else ""), x=0.01, ha="left",
                    fontsize=12)
    return figure


def _bar(ax: Axes, y: float, each: Explanation, stack: str, total: float) -> None:
    """One stacked bar; a part that came out below zero takes no room."""
    left = 0.0
    for where in ("ttft", "first_itl"):
        for part in each.parts:
            if part.stack != stack or part.where != where or part.ms.value <= 0:
                continue
            wide = part.ms.value
            ax.barh(y, wide, _BAR, left=left, color=_COLOURS[part.name], edgecolor="white", linewidth=0.8)
            if wide > _ROOM * total:
                ax.text(left + wide / 2, y - 0.12 * _BAR, f"{wide:.0f}", ha="center", va="center", color="white",
                        fontsize=10, fontweight="bold")
            left += wide
        if where == "ttft":
            ax.plot([left], [y - _BAR / 2 - 0.06], marker="v", color="0.1", markersize=6, clip_on=False)
    share = sum(part.ms.value for part in each.parts if part.stack == stack and part.name == HANDOVER)
    text = f"{left:.0f} ms" + (f", {share / left:.0%} hand-over" if share > 0 and left > 0 else "")
    ax.text(left + 0.008 * total, y, text, va="center", ha="left", fontsize=9.5, color="0.15",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})


def _predictions(ax: Axes, y: float, each: Explanation, total: float) -> None:
    """From the hand-over's base, a line as long as each prediction says it takes."""
    base = 0.0
    for where in ("ttft", "first_itl"):
        for part in each.parts:
            if part.stack != SPLIT or part.where != where:
                continue
            if part.name == HANDOVER:
                for number, source in enumerate(each.predicted_ms):
                    end = base + each.predicted_ms[source].value
                    high = y + _BAR * (0.18 + 0.16 * number)
                    ax.plot([base, min(end, 1.08 * total)], [high, high], color="0.1", linewidth=1.4,
                            linestyle=_dashes(number), marker="|", markersize=7)
                return
            base += max(part.ms.value, 0.0)


def _stretched(lengths: list[int], rates: list[float | None]) -> tuple[list[float], list[float]]:
    """The points of a line; of a single length a short one, so that there is something to see."""
    x, y = [float(length) for length in lengths], [math.nan if rate is None else rate for rate in rates]
    return (x, y) if len(x) > 1 else ([0.85 * x[0], x[0], x[0] / 0.85], 3 * y)


def _spread(ax: Axes, each: Explanation) -> None:
    """The break-even's interval at one length; open towards faster links where nothing may be saved at all."""
    low, high = each.saved_ms.low, each.saved_ms.high
    if low is None or high is None or high <= 0:
        return
    bits = each.size_bytes * 8e-6
    top = bits / low if low > 0 else 100 * bits / high
    ax.plot([each.prompt_tokens] * 2, [bits / high, top], color="#228833", linewidth=2, alpha=0.6,
            marker="_" if low > 0 else "", markersize=9)


_PAYS = {True: ("#ee6677", "the split pays"), False: ("white", "the split does not pay"),
         None: ("#f7bbc1", "no difference shown")}


def _reached(ax: Axes, each: Explanation) -> None:
    """What was measured at this length, with its interval; the filling says whether the split pays end to end."""
    if each.handover_gbps is None:
        return
    bits = each.size_bytes * 8e-6
    low, high = each.handover_ms.low, each.handover_ms.high
    if low is not None and high is not None and low > 0:
        ax.plot([each.prompt_tokens] * 2, [bits / high, bits / low], color="#ee6677", linewidth=2)
    face, word = _PAYS[each.pays]
    ax.plot([each.prompt_tokens], [each.handover_gbps], marker="o", markersize=10, linestyle="none",
            markerfacecolor=face, markeredgecolor="#ee6677", markeredgewidth=2, label=f"measured: {word}")
    ax.annotate(f"{each.handover_gbps:.3g}", (each.prompt_tokens, each.handover_gbps), xytext=(10, 0),
                textcoords="offset points", va="center", fontsize=10)


def _second_token(each: Explanation, stack: str) -> float:
    return sum(max(part.ms.value, 0.0) for part in each.parts if part.stack == stack)


def _sources(explanations: list[Explanation]) -> list[str]:
    return list(dict.fromkeys(source for each in explanations for source in each.predicted_ms))


def _dashes(number: int) -> tuple[int, tuple[float, ...]]:
    return ((0, (1, 0)), (0, (3, 1.5)), (0, (1, 1.2)))[number % 3]


def _row_names(explanations: list[Explanation], names: Sequence[str]) -> list[str]:
    """The load before the upper bar of each pair, the stack before the lower."""
    loads = len({each.concurrency for each in explanations}) > 1
    found = []
    for each, name in zip(explanations, names or [SPLIT] * len(explanations), strict=True):
        load = f", concurrency {each.concurrency}" if loads else ""
        found += [f"{each.prompt_tokens:,} tokens{load}, {AGGREGATED}", name]
    return found


def _headline(explanations: list[Explanation], names: Sequence[str]) -> str:
    """The finding of the longest prompt, in words; of several stacks each one's own, where it waits least."""
    quiet: dict[str, Explanation] = {}
    for each, name in sorted(zip(explanations, names or [""] * len(explanations), strict=True),
                             key=lambda pair: (-pair[0].prompt_tokens, pair[0].concurrency)):
        quiet.setdefault(name, each)
    if names:
        return "\n".join(f"{name}: {'; '.join(_finding(each))}" for name, each in quiet.items())
    share, *told = _finding(quiet[""])
    return ";\n".join([f"{quiet[''].prompt_tokens:,} tokens: {share}", *told])


def _finding(each: Explanation) -> list[str]:
    """The hand-over's share, and what each prediction explains of it where there is anything to explain."""
    second, handover = _second_token(each, SPLIT), each.handover_ms.value
    share = max(handover, 0.0) / second if second else 0.0
    return [f"{share:.0%} of the time to the second token is hand-over",
            *(f"the {source} predicts {percent(line.value / handover)} of it"
              for source, line in each.predicted_ms.items() if handover > 0)]


def _rates(explanations: list[Explanation]) -> str:
    """What the longest prompt's hand-over reached, and what it would take."""
    longest = max(explanations, key=lambda each: each.prompt_tokens)
    needed = needed_gbps(longest, share_of_prefill=1.0)
    if longest.handover_gbps is None or needed is None:
        return "From which link on does the split pay?"
    found = f"{longest.prompt_tokens:,} tokens: the hand-over runs at {longest.handover_gbps:.3g} Gb/s"
    if longest.handover_gbps >= needed:
        return f"{found} and takes {longest.handover_ms.value / longest.prefill_ms.value:.0%} of the prefill's time"
    return f"{found}; {needed:.3g} would make it as short as the prefill"
