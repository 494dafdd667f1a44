"""What `vllm bench serve` reports, as data: a summary and, with --save-detailed, one entry a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

#: What the tool takes the statistics of; e2el is end-to-end latency.
METRICS = ("ttft", "tpot", "itl", "e2el")


@dataclass(frozen=True)
class Request:
    """One request of a detailed result. Times are None where no token came.

    ``first_itl_ms`` is the wait between the first and the second token. With a proxy that streams the prefiller's
    token first, the hand-over lies in it and not in the TTFT; ``rest_itl_ms`` is the mean of the later ones.
    ``chunks`` counts what was streamed; it may be less than ``output_tokens``: a chunk can carry several tokens, and
    the server does not stream a token that makes no text yet.
    """

    index: int
    prompt_tokens: int
    output_tokens: int
    chunks: int
    ok: bool
    error: str = ""
    ttft_ms: float | None = None
    first_itl_ms: float | None = None
    rest_itl_ms: float | None = None
    tpot_ms: float | None = None
    e2e_ms: float | None = None
    queue_ms: float | None = None


@dataclass(frozen=True)
class BenchResult:
    """One benchmark. Durations in seconds, rates a second; None: not printed.

    ``latency_ms`` has the statistics as printed, under the tool's own names: ``mean_ttft_ms``, ``p99.9_itl_ms``, …
    ``source`` tells the exact JSON file from the table on standard output, which has two decimals. ``requests`` is
    empty unless the file was saved with --save-detailed; ``other`` holds the metadata that was given to the tool.
    """

    source: Literal["json", "table"]
    completed: int
    failed: int | None
    duration_s: float
    input_tokens: int
    output_tokens: int
    requests_per_s: float
    output_tokens_per_s: float
    total_tokens_per_s: float
    asked: int | None = None
    goodput_per_s: float | None = None
    peak_output_tokens_per_s: float | None = None
    max_concurrency: int | None = None
    request_rate: float | None = None
    model: str | None = None
    date: str | None = None
    latency_ms: Mapping[str, float] = field(default_factory=dict)
    requests: tuple[Request, ...] = ()
    other: Mapping[str, str] = field(default_factory=dict)

    @property
    def detailed(self) -> bool:
        """Whether the result was saved with one entry a request."""
        return bool(self.requests)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; an endless request rate is the text ``inf``, as the tool writes it."""
        return asdict(self) | {"request_rate": "inf" if self.request_rate == float("inf") else self.request_rate}


def request_rows(result: BenchResult) -> list[dict[str, Any]]:
    """One row a request; the columns are `Request`'s."""
    return [asdict(request) for request in result.requests]


def summary_row(result: BenchResult) -> dict[str, Any]:
    """One row for the whole benchmark: what was counted, the rates, and the latencies as printed."""
    counted = {name: value for name, value in asdict(result).items() if name not in ("latency_ms", "requests", "other")}
    return counted | dict(result.latency_ms)


def meets(request: Request, slo_ms: Mapping[str, float]) -> bool:
    """Whether a request stays within every limit of ``slo_ms``: ``ttft_ms``, ``tpot_ms``, ``e2e_ms``, in milliseconds.

    A request of one token has no TPOT and meets any limit of it, as in the tool's own goodput. KeyError: an unknown
    limit.
    """
    seen = {"ttft_ms": request.ttft_ms, "tpot_ms": request.tpot_ms, "e2e_ms": request.e2e_ms}
    if request.output_tokens <= 1:
        seen["tpot_ms"] = 0.0
    return request.ok and request.output_tokens > 0 and all(
        (value := seen[name]) is not None and value <= limit for name, limit in slo_ms.items())


def goodput_per_s(result: BenchResult, slo_ms: Mapping[str, float]) -> float | None:
    """Requests a second that meet the SLO; None where the result has no entry a request, or took no time."""
    if not result.requests or not result.duration_s:
        return None
    return sum(meets(request, slo_ms) for request in result.requests) / result.duration_s
