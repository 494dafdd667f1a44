"""What a figure draws, read back from its artists."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from kit import compare, plots
from kit.link.table import table

matplotlib.use("Agg")
FALSE_NUMBER = 99.0   # what the failed rows hold; it must never be drawn
FAILED_SIZE = 4096


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    plt.close("all")


def points(device: str = "siw0") -> pd.DataFrame:
    frames = []
    for speed in (1.0, 2.0):
        frames.append(table([
            {"site": "lab", "device": device, "tool": tool, "size_bytes": size, "qps": 1, "connection": "rdma_cm",
             "direction": "a->b", "repeat": repeat, "outcome": "FAILED" if size == FAILED_SIZE else "VALID",
             "symptom": "timeout" if size == FAILED_SIZE else None,
             "bandwidth_gbps": FALSE_NUMBER if size == FAILED_SIZE else speed + repeat / 10,
             "t_typical_us": FALSE_NUMBER if size == FAILED_SIZE else 3 * speed + repeat / 10}
            for tool in ("ib_write_bw", "ib_write_lat") for size in (64, 1024, FAILED_SIZE, 65536)
            for repeat in range(3)]))
    return compare.label(frames, ["one", "two"])


def drawn(figure: Figure) -> list[tuple[float, float]]:
    """Points of all lines that carry data."""
    return [(float(x), float(y)) for ax in figure.axes for line in ax.lines if line.get_gid() != "failed"
            and len(line.get_xdata()) > 2
            for x, y in zip(np.asarray(line.get_xdata()), np.asarray(line.get_ydata(), dtype=float), strict=True)]


def words(figure: Figure) -> str:
    texts = [text.get_text() for text in figure.texts]
    return "\n".join(texts + [text.get_text() for legend in figure.legends for text in legend.get_texts()])


@pytest.mark.parametrize("draw", [plots.bandwidth_over_size, plots.latency_over_size, plots.ratio_over_size])
def test_failed_points_are_crosses_and_never_numbers(draw: object) -> None:
    assert callable(draw)
    figure = draw(points())
    found = drawn(figure)
    assert all(np.isnan(y) for x, y in found if x == FAILED_SIZE)
    assert FALSE_NUMBER not in [y for _, y in found]
    for ax in figure.axes:
        crosses = [line for line in ax.lines if line.get_gid() == "failed"]
        assert [list(line.get_xdata()) for line in crosses] == [[FAILED_SIZE]] * 2
        floor = ax.transData.inverted().transform(ax.transAxes.transform((0, max(line.get_ydata()[0]
                                                                                 for line in crosses))))[1]
        lowest = [float(y) for line in ax.lines if line.get_gid() != "failed" for y in np.asarray(line.get_ydata())]
        assert floor < np.nanmin(lowest)
        assert ax.get_ylim()[1] < FALSE_NUMBER
    assert "timeout" in words(figure)


def test_bands_do_not_hold_the_false_number() -> None:
    figure = plots.bandwidth_over_size(points())
    tops = [path.vertices[:, 1].max() for ax in figure.axes for band in ax.collections for path in band.get_paths()]
    assert max(tops) < FALSE_NUMBER


def test_the_median_is_drawn() -> None:
    assert (64.0, 1.1) in drawn(plots.bandwidth_over_size(points()))
    assert (64.0, 3.1) in drawn(plots.latency_over_size(points()))


def test_ratio_is_second_over_first() -> None:
    assert (64.0, pytest.approx(2.1 / 1.1)) in drawn(plots.ratio_over_size(points()))
    with pytest.raises(ValueError, match="two runs"):
        plots.ratio_over_size(points().query("run == 'one'"))


def test_software_devices_carry_the_warning() -> None:
    assert plots.SOFTWARE_NOTE in words(plots.bandwidth_over_size(points("rxe0")))
    assert plots.SOFTWARE_NOTE not in words(plots.bandwidth_over_size(points("erdma_0")))


def test_nothing_to_draw_is_said() -> None:
    only = points().query("tool == 'ib_write_bw'")
    figure = plots.latency_over_size(only)
    assert "no such points" in [text.get_text() for text in figure.axes[0].texts]


def test_all_failed_draws_crosses_only() -> None:
    only = points().query(f"size_bytes == {FAILED_SIZE}")
    assert all(np.isnan(y) for _, y in drawn(plots.bandwidth_over_size(only)))
    assert all(np.isnan(y) for _, y in drawn(plots.ratio_over_size(only)))


def test_the_interactive_mode_is_left_alone() -> None:
    plt.ion()
    try:
        plots.bandwidth_over_size(points())
        assert plt.isinteractive()
    finally:
        plt.ioff()
