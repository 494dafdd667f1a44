"""From a sampler's file to the table; growth, rates and resets of counters; what the two nodes say they moved."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.errors import ParseError
from kit.observe.collect import Recorded
from kit.observe.table import COLUMNS, counted, deltas, growth, read_samples, table, troubles
from kit.observe.traffic import moved_bytes, traffic


def written(series: dict[tuple[str, str], list[Any]], *, ahead_s: float = 0.0, begin_s: float = 1000.0) -> str:
    """A sampler's file: (source, key) -> its values, one a second; None: the source is down."""
    lines: list[dict[str, object]] = [{"begun": begin_s + ahead_s, "clock_ahead_s": ahead_s}]
    lines += [{"id": number, "source": source, "key": key} for number, (source, key) in enumerate(series)]
    for source in dict.fromkeys(source for source, _ in series):
        mine = [(number, values) for number, ((name, _), values) in enumerate(series.items()) if name == source]
        for second in range(max(len(values) for _, values in mine)):
            at = {"t": begin_s + ahead_s + second, "source": source}
            told = [[number, str(values[second])] for number, values in mine if values[second] is not None]
            lines.append(at | ({"v": told} if told else {"down": "refused"}))
    return "".join(json.dumps(line) + "\n" for line in lines)


def samples(node: str, series: dict[tuple[str, str], list[Any]], **more: float) -> pd.DataFrame:
    return table([Recorded(node, written(series, **more))])


ETH, LO = 'tx_bytes{interface="eth0"}', 'tx_bytes{interface="lo"}'


def test_columns_and_the_nodes_clock() -> None:
    found = samples("a", {("net", ETH): [5, 6]}, ahead_s=40.5)
    assert dict(found.dtypes.astype(str)) == COLUMNS
    assert found.to_dict("records") == [
        {"node": "a", "time_s": 1000.0 + second, "source": "net", "name": "tx_bytes", "labels": 'interface="eth0"',
         "value": 5.0 + second} for second in (0, 1)]
    assert dict(table([]).dtypes.astype(str)) == COLUMNS


def test_a_counter_that_starts_anew_grows_from_zero() -> None:
    found = deltas(samples("a", {("vllm", "x_total"): [100, 150, 20, 20, 25]}))
    assert found["delta"].tolist() == [50, 20, 0, 5]
    assert found["rate_per_s"].tolist() == [50, 20, 0, 5]
    assert counted(samples("a", {("vllm", "x_total"): [100, 150, 20, 20, 25]}), "a", "x_total") == 75


def test_a_silence_loses_no_growth() -> None:
    found = deltas(samples("a", {("vllm", "x_total"): [100, None, None, 160]}))
    assert (found["delta"].tolist(), found["rate_per_s"].tolist()) == ([60], [20])


def test_a_counter_that_is_shown_only_once_it_counts() -> None:
    late = [{"begun": 0, "clock_ahead_s": 0}, {"id": 0, "source": "vllm", "key": "a_total"},
            {"t": 0, "source": "vllm", "v": [[0, "5"]]}, {"id": 1, "source": "vllm", "key": "b_total"},
            {"t": 2, "source": "vllm", "v": [[1, "70"]]}, {"t": 3, "source": "vllm", "v": [[1, "90"]]}]
    found = table([Recorded("a", "".join(json.dumps(line) + "\n" for line in late))])
    assert counted(found, "a", "b_total") == 90
    assert counted(found, "a", "a_total") == 0
    assert deltas(found).query("name == 'b_total'")["rate_per_s"].tolist() == [35, 20]


def test_gauges_have_no_growth() -> None:
    found = samples("a", {("vllm", "vllm:kv_cache_usage_perc"): [0.1, 0.9], ("gpu/0", 'power_w{gpu="0"}'): [60, 300]})
    assert set(found["source"]) == {"vllm", "gpu/0"}
    assert deltas(found).empty
    assert counted(found, "a", "vllm:kv_cache_usage_perc") is None


def test_growth_of_a_window_takes_the_looks_around_it() -> None:
    found = samples("a", {("net", ETH): [0, 10, 20, 30, 40, 50], ("net", LO): [0, 1, 2, 3, 4, 5]})
    def within(begin_s: float | None, end_s: float | None) -> list[float]:
        return growth(found, begin_s, end_s)["growth"].tolist()
    assert within(None, None) == [50, 5]
    assert within(1001, 1003) == [20, 2]
    assert within(1001.5, 1002.5) == [20, 2]
    assert within(900, 2000) == [50, 5]
    assert within(1004.5, None) == [10, 1]
    assert counted(found, "a", "tx_bytes", 1001, 1003, labels='interface="lo"') == 2
    assert counted(found, "b", "tx_bytes") is None


def test_bytes_moved_are_the_smaller_of_both_ends() -> None:
    sent = samples("p", {("net", ETH): [0, 100], ("rdma", 'hw_tx_bytes_cnt{device="erdma_0",port="1"}'): [0, 7000],
                         ("eadm/erdma_0", 'hw_tx_bytes_cnt{device="erdma_0"}'): [0, 7000],
                         ("erdma-exporter", 'erdma_hw_tx_bytes_total{device="erdma_0"}'): [0, 7000]})
    got = samples("d", {("net", 'rx_bytes{interface="eth0"}'): [0, 90],
                        ("rdma", 'rx_bytes_cnt{device="erdma_0",port="1"}'): [0, 6900]})
    both = pd.concat([sent, got])
    assert moved_bytes(both, "net", sender="p", receiver="d") == 90
    assert moved_bytes(both, "rdma", sender="p", receiver="d") == 6900
    assert moved_bytes(both, "rdma", sender="d", receiver="p") is None
    assert moved_bytes(both, "net", sender="p", receiver="d", begin_s=1001) is None
    rates = traffic(both).set_index(["node", "carrier", "direction"])["bytes_per_s"].to_dict()
    assert rates == {("p", "net", "sent"): 100, ("p", "rdma", "sent"): 7000, ("d", "net", "received"): 90,
                     ("d", "rdma", "received"): 6900}


def test_where_sysfs_counts_no_bytes_eadm_does() -> None:
    sent = samples("p", {("rdma", 'sent_pkts{device="rxe0",port="1"}'): [0, 9],
                         ("eadm/erdma_0", 'hw_tx_bytes_cnt{device="erdma_0"}'): [0, 7000],
                         ("eadm/erdma_1", 'hw_tx_bytes_cnt{device="erdma_1"}'): [0, 3000]})
    assert traffic(sent)["bytes_per_s"].tolist() == [10000]


def test_words_of_infinibands_port_counters() -> None:
    sent = samples("p", {("rdma", 'port_xmit_data{device="mlx5_0",port="1"}'): [0, 25]})
    assert traffic(sent)["bytes_per_s"].tolist() == [100]


def test_troubles() -> None:
    silent = Recorded("d", written({("vllm", "x_total"): [1, None]}))
    assert troubles([Recorded("p", "", "no python3"), silent]) == [
        "no python3", "vllm of d gave no answer 1 of 2 times: refused"]


@pytest.mark.parametrize("line", ["x", "[]", "{}", '{"t": 1, "source": "x", "v": [[9, "1"]]}', '{"id": 1, "source": 2}',
                                  '{"id": 0, "source": "x", "key": "{"}', '{"t": 1, "source": [], "v": []}',
                                  '{"t": "a", "source": "x", "down": 1}'])
def test_a_foreign_line_is_quoted(line: str) -> None:
    with pytest.raises(ParseError) as caught:
        read_samples(f"{line}\n")
    assert caught.value.line == line


def test_an_unfinished_line_is_left_out() -> None:
    text = written({("net", ETH): [1, 2, 3]})
    assert len(read_samples(text[:-4])) == 2


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 9), min_size=2, max_size=12), st.integers(0, 11), st.integers(0, 11))
def test_growth_adds_up_whatever_the_window(steps: list[int], begin: int, end: int) -> None:
    values = [float(sum(steps[:count + 1])) for count in range(len(steps))]
    found = samples("a", {("net", ETH): list(values)})
    low, high = sorted(min(at, len(values) - 1) for at in (begin, end))
    if low < high:
        assert growth(found, 1000.0 + low, 1000.0 + high)["growth"].sum() == values[high] - values[low]
    assert deltas(found)["delta"].sum() == values[-1] - values[0]
