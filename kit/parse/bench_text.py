"""Reader of the table that `vllm bench serve` prints: the fallback where its JSON was not kept. Two decimals each.

Format: vLLM's benchmarks/serve.py, rows ``{:<40} {:<10}`` under the title ``Serving Benchmark Result``. 0.11 writes
``Total Token throughput``, later versions ``Total token throughput``, and only these count failed requests.
"""

from __future__ import annotations

import math
import re

from kit import symptoms
from kit.parse.bench_types import METRICS, BenchResult

_TITLE = re.compile(r"=+ *Serving Benchmark Result *=+\s*")
_END = re.compile(r"={20,}\s*")
_ROW = re.compile(r"([A-Z][^:]*):\s+(\S+)\s*")
_LATENCY = re.compile(r"(Mean|Median|Std|P[0-9]+(?:\.[0-9]+)?) (\w+) \(ms\)")
_NEEDED = {
    "completed": "successful requests", "duration_s": "benchmark duration (s)", "input_tokens": "total input tokens",
    "output_tokens": "total generated tokens", "requests_per_s": "request throughput (req/s)",
    "output_tokens_per_s": "output token throughput (tok/s)", "total_tokens_per_s": "total token throughput (tok/s)",
}


def parse_bench_text(text: str) -> BenchResult:
    """The one table in what the tool printed; other lines around it do not matter. Raises ParseError."""
    rows, latency = _table(text)

    def needed(name: str) -> float:
        if _NEEDED[name] not in rows:
            raise symptoms.error("not_bench", f"the table has no row {_NEEDED[name]!r}")
        return rows[_NEEDED[name]]

    def count(name: str) -> int:
        return _whole(needed(name), _NEEDED[name])

    failed = rows.get("failed requests")
    limit = rows.get("maximum request concurrency")
    return BenchResult(
        source="table", completed=count("completed"), failed=None if failed is None else _whole(failed, "failed"),
        asked=None if failed is None else count("completed") + int(failed), duration_s=needed("duration_s"),
        input_tokens=count("input_tokens"), output_tokens=count("output_tokens"),
        requests_per_s=needed("requests_per_s"), output_tokens_per_s=needed("output_tokens_per_s"),
        total_tokens_per_s=needed("total_tokens_per_s"), goodput_per_s=rows.get("request goodput (req/s)"),
        peak_output_tokens_per_s=rows.get("peak output token throughput (tok/s)"),
        max_concurrency=None if limit is None else _whole(limit, "maximum request concurrency"),
        request_rate=rows.get("request rate configured (rps)"), latency_ms=latency)


def _table(text: str) -> tuple[dict[str, float], dict[str, float]]:
    """The rows by their name in small letters, and the latencies by the name that the JSON gives them."""
    lines = text.split("\n")
    titles = [number for number, line in enumerate(lines) if _TITLE.fullmatch(line)]
    if len(titles) != 1:
        known = symptoms.find(text, area="serving")
        if known and not titles:
            raise symptoms.error(known[0].name, "the benchmark printed no result", line=known[1])
        raise symptoms.error("not_bench", f"{len(titles)} tables of results", line=lines[-1] or "".join(lines[-2:-1]))
    rows: dict[str, float] = {}
    latency: dict[str, float] = {}
    for line in lines[titles[0] + 1:]:
        if _END.fullmatch(line):
            return rows, latency
        if not line.strip() or line.startswith("-"):
            continue
        row = _ROW.fullmatch(line)
        value = _figure(row[2]) if row else None
        if row is None or value is None:
            raise symptoms.error("bad_bench_row", "not a row of the table", line=line)
        _keep(row[1], value, rows, latency)
    raise symptoms.error("incomplete", "the table has no closing rule", line=lines[titles[0]])


def _keep(name: str, value: float, rows: dict[str, float], latency: dict[str, float]) -> None:
    statistic = _LATENCY.fullmatch(name)
    if statistic and statistic[2].lower() in METRICS:
        latency[f"{statistic[1].lower()}_{statistic[2].lower()}_ms"] = value
    else:
        rows[name.lower()] = value


def _figure(word: str) -> float | None:
    try:
        value = float(word)
    except ValueError:
        return None
    return value if math.isfinite(value) and word.isascii() else None


def _whole(value: float, name: str) -> int:
    if value != int(value) or value < 0:
        raise symptoms.error("bad_bench_row", f"{name} is no count", line=f"{value:g}")
    return int(value)
