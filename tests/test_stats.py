"""Median, spread and the rule for a difference."""

from __future__ import annotations

import pytest

from kit.stats import differ, summarise


def test_summary() -> None:
    found = summarise([3.0, 1.0, 2.0])
    assert (found.median, found.low, found.high, found.repeats, found.spread) == (2.0, 1.0, 3.0, 3, 1.0)


def test_a_single_value_has_no_spread() -> None:
    assert summarise([5.0]).spread is None


def test_a_median_of_zero_has_no_spread() -> None:
    assert summarise([0.0, 0.0]).spread is None


def test_no_values_are_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        summarise([])


@pytest.mark.parametrize(("a", "b", "apart"), [
    ([1.0, 2.0], [3.0, 4.0], True),
    ([1.0, 2.0], [2.0, 3.0], False),      # ranges that touch overlap
    ([1.0, 4.0], [2.0, 3.0], False),
    ([1.0], [3.0, 4.0], False),           # a single run shows nothing
])
def test_differ_both_ways(a: list[float], b: list[float], apart: bool) -> None:
    assert differ(summarise(a), summarise(b)) is apart
    assert differ(summarise(b), summarise(a)) is apart
