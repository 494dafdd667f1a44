"""Reader of Prometheus' text exposition format, as vLLM, LMCache, Mooncake's master and erdma-exporter serve it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

from kit.errors import ParseError

# Of these kinds every value is a sum that only grows, until its program starts anew.
_CUMULATIVE = ("counter", "histogram")


@dataclass(frozen=True)
class Sample:
    """One line: a value of a metric at the moment of asking; ``kind`` is the TYPE of its family, or ``unknown``."""

    name: str
    value: float
    kind: str = "unknown"
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def cumulative(self) -> bool:
        """Whether the value is a counter, so that only its growth means something."""
        return self.kind in _CUMULATIVE and not self.name.endswith("_created")


def parse_prometheus(text: str) -> list[Sample]:
    """Every sample in order. Raises ParseError with the line that is none."""
    try:
        return _samples(text)
    except Exception:
        # The library raises what comes (ValueError, IndexError, …) and names no line: find the first bad one.
        for line in text.split("\n"):
            try:
                _samples(line + "\n")
            except Exception:
                raise ParseError("not a line of Prometheus' text format", line=line) from None
        raise ParseError("not Prometheus' text format", line=text.split("\n", 1)[0]) from None


def _samples(text: str) -> list[Sample]:
    return [Sample(sample.name, float(sample.value), family.type, dict(sample.labels))
            for family in text_string_to_metric_families(text) for sample in family.samples]


def total(samples: Iterable[Sample], name: str, **labels: str) -> float | None:
    """The sum over all samples of this name that carry these labels (engines, ranks); None where there is none."""
    found = [sample.value for sample in samples
             if sample.name == name and all(sample.labels.get(key) == value for key, value in labels.items())]
    return sum(found) if found else None
