"""Reader of the JSON that `vllm bench serve --save-result` writes, of vLLM 0.11 and later.

Keys and units: vLLM's benchmarks/serve.py, `benchmark()` and `save_to_pytorch_benchmark_format`'s caller. All times
are seconds, but for those that end in ``_ms``. 0.11 has no ``failed``; later versions add it, ``start_times``,
``latencies`` and ``queue_times``. --metadata is merged into the top level. With --append-result a file holds one
result a line.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any

from kit import symptoms
from kit.parse.bench_types import METRICS, BenchResult, Request

_LATENCY = re.compile(rf"(mean|median|std|p[0-9]+(\.[0-9]+)?)_({'|'.join(METRICS)})_ms")
_PER_REQUEST = ("input_lens", "output_lens", "ttfts", "itls", "errors")
# of the tool's own keys those that are read into a field, or say nothing of the measurement
_OWN = {*_PER_REQUEST, "generated_texts", "latencies", "start_times", "queue_times", "date", "model_id", "num_prompts",
        "request_rate", "max_concurrency", "duration", "completed", "failed", "total_input_tokens", "rtfx",
        "total_output_tokens", "request_throughput", "request_goodput", "request_goodput:", "output_throughput",
        "total_token_throughput", "max_output_tokens_per_s", "max_concurrent_requests"}


def parse_bench_json(text: str) -> BenchResult:
    """The one result in a file. Raises ParseError, also where --append-result has put several into it."""
    document = _document(text)
    requests = _requests(document) if "ttfts" in document else ()
    completed = _count(document, "completed")
    asked = _count(document, "num_prompts")
    failed = _count(document, "failed") if "failed" in document else asked - completed
    if completed + failed != asked or (requests and len(requests) != asked):
        raise symptoms.error("bench_contradiction", f"{asked} requests asked, {completed} completed, {failed} failed, "
                             f"{len(requests)} listed", line=_line(document))
    return BenchResult(
        source="json", completed=completed, failed=failed, asked=asked,
        duration_s=_number(document, "duration"),
        input_tokens=_count(document, "total_input_tokens"), output_tokens=_count(document, "total_output_tokens"),
        requests_per_s=_number(document, "request_throughput"),
        output_tokens_per_s=_number(document, "output_throughput"),
        total_tokens_per_s=_number(document, "total_token_throughput"),
        goodput_per_s=_maybe(document, "request_goodput"),
        peak_output_tokens_per_s=_maybe(document, "max_output_tokens_per_s"),
        max_concurrency=_count(document, "max_concurrency") if document.get("max_concurrency") is not None else None,
        request_rate=math.inf if document.get("request_rate") == "inf" else _maybe(document, "request_rate"),
        model=_text(document, "model_id"), date=_text(document, "date"),
        latency_ms={key: _number(document, key) for key in document if _LATENCY.fullmatch(key)},
        requests=requests,
        other={key: str(value) for key, value in document.items()
               if key not in _OWN and not _LATENCY.fullmatch(key) and isinstance(value, str | int | float)},
    )


def _document(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        lines = [line for line in text.split("\n") if line.strip()]
        if len(lines) > 1 and all(line.lstrip().startswith('{"') for line in lines):
            raise symptoms.error("bench_appended", f"{len(lines)} results in one file", line=lines[0]) from None
        raise symptoms.error("not_bench", "not whole JSON", line=lines[-1] if lines else "") from None
    if not isinstance(document, dict) or "completed" not in document:
        raise symptoms.error("not_bench", "no result of a benchmark in this JSON", line=text.strip().split("\n")[0])
    return document


def _requests(document: dict[str, Any]) -> tuple[Request, ...]:
    prompts, outputs, ttfts, gaps, errors = (_list(document, key) for key in _PER_REQUEST)
    if len({len(column) for column in (prompts, outputs, ttfts, gaps, errors)}) != 1:
        raise symptoms.error("bench_contradiction", "the lists of requests differ in length", line=_line(document))
    latencies = _optional(document, "latencies", len(ttfts))
    queued = _optional(document, "queue_times", len(ttfts))
    return tuple(
        _request(index, _whole(prompts[index], document), _whole(outputs[index], document),
                 _seconds(ttfts[index], document), _gaps(gaps[index], document), errors[index],
                 None if latencies is None else _seconds(latencies[index], document),
                 None if queued is None else _seconds(queued[index], document))
        for index in range(len(ttfts)))


def _request(index: int, prompt: int, output: int, ttft_s: float, gaps_s: Sequence[float], error: Any,
             latency_s: float | None, queue_s: float | None) -> Request:
    """A failed request may have no error text (the server's reason phrase was empty), but then it has no TTFT."""
    complaint = error if isinstance(error, str) else json.dumps(error)
    queue_ms = None if queue_s is None else 1e3 * queue_s
    if not ttft_s:
        return Request(index, prompt, output, 0, ok=False, error=complaint or "no token came", queue_ms=queue_ms)
    e2e_s = latency_s or ttft_s + math.fsum(gaps_s)
    return Request(
        index, prompt, output, 1 + len(gaps_s), ok=not complaint, error=complaint, ttft_ms=1e3 * ttft_s,
        first_itl_ms=1e3 * gaps_s[0] if gaps_s else None,
        rest_itl_ms=1e3 * math.fsum(gaps_s[1:]) / (len(gaps_s) - 1) if len(gaps_s) > 1 else None,
        tpot_ms=1e3 * (e2e_s - ttft_s) / (output - 1) if output > 1 else None,
        e2e_ms=1e3 * e2e_s, queue_ms=queue_ms)


def _line(document: dict[str, Any]) -> str:
    return json.dumps({key: value for key, value in document.items() if not isinstance(value, list | dict)})


def _bad(document: dict[str, Any], what: str) -> Exception:
    return symptoms.error("not_bench", what, line=_line(document))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15


def _number(document: dict[str, Any], key: str) -> float:
    value = document.get(key)
    if not _is_number(value):
        raise _bad(document, f"no number under {key!r}")
    return float(document[key])


def _maybe(document: dict[str, Any], key: str) -> float | None:
    return None if document.get(key) is None else _number(document, key)


def _count(document: dict[str, Any], key: str) -> int:
    return _whole(document.get(key), document, key)


def _whole(value: Any, document: dict[str, Any], key: str = "a list of requests") -> int:
    if not _is_number(value) or value != int(value) or value < 0:
        raise _bad(document, f"no whole number under {key!r}")
    return int(value)


def _seconds(value: Any, document: dict[str, Any]) -> float:
    if not _is_number(value) or value < 0:
        raise _bad(document, "a time of a request is no number")
    return float(value)


def _gaps(value: Any, document: dict[str, Any]) -> list[float]:
    if not isinstance(value, list):
        raise _bad(document, "the inter-token latencies of a request are no list")
    return [_seconds(gap, document) for gap in value]


def _list(document: dict[str, Any], key: str) -> list[Any]:
    value = document.get(key)
    if not isinstance(value, list):
        raise _bad(document, f"no list under {key!r}")
    return value


def _optional(document: dict[str, Any], key: str, length: int) -> list[Any] | None:
    """A list that only later versions write; one that does not fit the others is not used."""
    value = document.get(key)
    return value if isinstance(value, list) and len(value) == length else None


def _text(document: dict[str, Any], key: str) -> str | None:
    value = document.get(key)
    return value if isinstance(value, str) else None
