"""What to know about a workload before it runs; the published recipe is the first case."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.errors import ParamsError
from kit.linkmodel import nominal
from kit.workload import SHOWS_SHARE, WANTED_SHARE, Stack, Workload, outlook, suggest

QWEN = Stack(57_344, nominal(25))
# The recipe's two segments of 500 MB each, and its benchmark: 512 tokens in, 4096 out, 32 at once.
RECIPE = Stack(57_344, nominal(25), store_bytes=2 * 524_288_000)
PUBLISHED = Workload(512, 4096, concurrency=32)


def names(found):
    return [caution.name for caution in found.cautions]


def test_the_published_workload_cannot_show_a_difference():
    found = outlook(PUBLISHED, QWEN)
    assert found.link_share < 0.01
    assert names(found) == ["no_difference"]
    assert "0.37% of the link" in str(found.cautions[0])


def test_the_suggestion_would():
    better = suggest(PUBLISHED, QWEN)
    found = outlook(better, QWEN)
    assert found.link_share >= WANTED_SHARE
    assert names(found) == []
    assert better.output_tokens < PUBLISHED.output_tokens
    assert str(better) in outlook(PUBLISHED, QWEN).cautions[0].remedy


def test_the_published_store_holds_the_published_workload_only_just():
    """18,285 tokens fit; 32 requests of up to 614 tokens are 96 chunks of 256."""
    assert "store_too_small" not in names(outlook(PUBLISHED, RECIPE))
    found = outlook(Workload(614, 4096, concurrency=32), RECIPE)
    assert names(found) == ["store_too_small", "no_difference"]
    assert "18,285 tokens" in str(found.cautions[0])
    assert found.held_bytes == 96 * 256 * 57_344


def test_too_much_for_the_link():
    found = outlook(Workload(16384, 16, rate_per_s=10), QWEN)
    assert names(found) == ["link_exceeded"]
    assert "75.2 Gb/s of a link of 25" in found.cautions[0].what
    assert "below 3.33 requests/s" in found.cautions[0].remedy


def test_nothing_to_say():
    assert outlook(Workload(4096, 64, concurrency=8), QWEN).cautions == ()


def test_a_rate_is_bounded_by_the_concurrency():
    free, bounded = (outlook(Workload(4096, 64, rate_per_s=5, concurrency=limit), QWEN) for limit in (None, 1))
    assert bounded.in_flight == 1 < free.in_flight
    assert bounded.bytes_per_s < free.bytes_per_s


def test_no_suggestion_where_nothing_helps():
    fast = Stack(1000, nominal(1e6), max_model_len=4096)
    assert suggest(PUBLISHED, fast) is None
    assert "raise max_model_len" in outlook(PUBLISHED, fast).cautions[0].remedy


@pytest.mark.parametrize("workload", [Workload(0, 1, concurrency=1), Workload(1, 0, concurrency=1), Workload(1, 1),
                                      Workload(1, 1, rate_per_s=0.0), Workload(1, 1, rate_per_s=float("inf")),
                                      Workload(1, 1, concurrency=0)])
def test_no_workload(workload):
    with pytest.raises(ParamsError):
        outlook(workload, QWEN)


@given(st.integers(1, 100_000), st.integers(1, 10_000), st.integers(1, 200), st.floats(0.1, 1000))
def test_a_suggestion_keeps_its_word(prompt, output, concurrency, gbps):
    stack = Stack(57_344, nominal(gbps), store_bytes=10**10)
    workload = Workload(prompt, output, concurrency=concurrency)
    found = outlook(workload, stack)
    assert ("no_difference" in names(found)) == (found.link_share < SHOWS_SHARE)
    better = suggest(workload, stack)
    if better is not None:
        assert not {"no_difference", "store_too_small"} & set(names(outlook(better, stack)))
