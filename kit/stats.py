"""Repeats to a median and a spread, and the one rule for telling two measurements apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Summary:
    """``spread`` is the range of the repeats over their median; None for a single one, where it is unknown."""

    median: float
    low: float
    high: float
    repeats: int

    @property
    def spread(self) -> float | None:
        return (self.high - self.low) / self.median if self.repeats > 1 and self.median else None


def summarise(values: Sequence[float]) -> Summary:
    """Raises ValueError for no values."""
    if not values:
        raise ValueError("no values to summarise")
    return Summary(median(values), min(values), max(values), len(values))


def differ(a: Summary, b: Summary) -> bool:
    """Whether two sets of repeats differ: their ranges do not overlap. A single run shows no difference."""
    if a.repeats < 2 or b.repeats < 2:
        return False
    return a.high < b.low or b.high < a.low
