"""What the figure of a run over time draws, read back from its artists."""

from __future__ import annotations

import json
from collections.abc import Iterator

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kit.observe.collect import Recorded
from kit.observe.plots import over_time
from kit.observe.table import table

matplotlib.use("Agg")
SECONDS = 6


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    plt.close("all")


def node(name: str, keys: dict[tuple[str, str], float]) -> Recorded:
    """A sampler's file in which each counter grows by so much a second and each gauge stays."""
    lines: list[dict[str, object]] = [{"begun": 100, "clock_ahead_s": 0}]
    lines += [{"id": number, "source": source, "key": key} for number, (source, key) in enumerate(keys)]
    for second in range(SECONDS):
        for source in dict.fromkeys(source for source, _ in keys):
            values = [[number, str(value * second if source in ("net", "rdma") else value)]
                      for number, ((at, _), value) in enumerate(keys.items()) if at == source]
            lines.append({"t": 100 + second, "source": source, "v": values})
    return Recorded(name, "".join(json.dumps(line) + "\n" for line in lines))


def samples() -> pd.DataFrame:
    engine = {("vllm", f'vllm:num_requests_running{{engine="{engine}"}}'): 4.0 for engine in (0, 1)}
    engine |= {("vllm", 'vllm:num_requests_waiting{engine="0"}'): 3.0, ("vllm", "vllm:kv_cache_usage_perc"): 0.5}
    return table([
        node("prefiller", {("rdma", 'hw_tx_bytes_cnt{device="e",port="1"}'): 3e9,
                           ("net", 'tx_bytes{interface="eth0"}'): 1e6, **engine}),
        node("decoder", {("rdma", 'hw_rx_bytes_cnt{device="e",port="1"}'): 2.9e9, **engine})])


def lines(ax: Axes) -> list[tuple[str, float]]:
    """Line style and last value of all that is drawn."""
    return sorted((str(line.get_linestyle()), float(np.asarray(line.get_ydata())[-1])) for line in ax.lines)


def words(figure: Figure) -> set[str]:
    return {text.get_text() for legend in figure.legends for text in legend.get_texts()}


def test_prefiller_and_decoder_stand_side_by_side() -> None:
    figure = over_time(samples(), title="A run", about="somewhere", begin_s=101, end_s=104)
    axes = np.array(figure.axes).reshape(3, 2)
    assert [ax.get_title() for ax in axes[0]] == ["prefiller", "decoder"]
    assert lines(axes[0][0]) == [("-", 3e9), ("--", 1e6)]
    assert lines(axes[0][1]) == [("-", 2.9e9)]
    assert [value for _, value in lines(axes[1][0])] == [3, 8]
    assert lines(axes[2][1]) == [("-", 0.5)]
    assert axes[0][0].get_ylim() == axes[0][1].get_ylim()
    assert axes[0][0].get_ylim()[0] == 0
    assert axes[0][0].get_xlim() == (-1, 4)
    assert [text.get_text() for text in figure.texts] == ["A run", "somewhere"]
    assert words(figure) == {"sent, RDMA device", "sent, network interface", "received, RDMA device",
                             "running requests", "waiting requests"}


def test_what_was_not_sampled_is_said() -> None:
    figure = over_time(table([node("decoder", {("net", 'rx_bytes{interface="lo"}'): 5.0})]))
    axes = np.array(figure.axes).reshape(3, 2)
    said = [[bool(ax.texts) for ax in row] for row in axes]
    assert said == [[True, False], [True, True], [True, True]]
    assert lines(axes[0][1]) == [("-", 5.0)]


def test_nothing_at_all_draws() -> None:
    assert all(ax.texts for ax in over_time(table([])).axes)


def test_the_interactive_mode_is_left_alone() -> None:
    plt.ion()
    try:
        over_time(samples())
        assert plt.isinteractive()
    finally:
        plt.ioff()
