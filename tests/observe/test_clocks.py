"""vLLM's histograms of a request, from the samples of a run on a GPU."""

import pandas as pd
import pytest

from kit.observe.clocks import clock
from kit.observe.table import COLUMNS
from kit.paths import root

NAMES = ("time_to_first_token", "request_queue_time", "request_prefill_time")


def histogram(node, name, seconds, requests):
    """Two looks, between which so many requests took so many seconds in all."""
    labels = 'engine="0"'
    return [(node, when, "vllm", f"vllm:{name}_seconds_{end}", labels, base + when * grown)
            for when in (0.0, 1.0) for end, base, grown in (("sum", 7.0, seconds), ("count", 3.0, requests))]


def test_means_over_the_requests_between_the_looks():
    rows = [row for name, seconds in zip(NAMES, (4.0, 2.0, 1.0), strict=True)
            for row in histogram("decoder", name, seconds, 8)]
    told = clock(pd.DataFrame(rows, columns=list(COLUMNS)), "decoder")
    assert (told.ttft_ms, told.waits_ms, told.computes_ms) == pytest.approx((500, 250, 125))


@pytest.mark.parametrize("node", ["prefiller", "proxy"])
def test_an_engine_that_ended_no_request_says_nothing(node):
    rows = [row for name in NAMES for row in histogram("prefiller", name, 0.0, 0)]
    assert clock(pd.DataFrame(rows, columns=list(COLUMNS)), node) is None


def test_the_kept_samples_of_a_gpu():
    """An engine's time to its first token holds its wait and its computing."""
    files = sorted((root() / "results/reference/h200/serve/samples").glob("*.parquet"))
    told = [found for file in files for found in [clock(pd.read_parquet(file), "decoder")] if found]
    assert len(told) > 30
    assert all(each.ttft_ms >= each.waits_ms >= 0 for each in told)
