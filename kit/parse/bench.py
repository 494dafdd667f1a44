"""`vllm bench serve`: its JSON file or the table it prints, to one result, and from there to tidy rows.

The tool's exit status says nothing: it is 0 also when no request succeeded (seen, vLLM 0.23). Whether a result is to
be believed is for `kit.serving.validity` to say.
"""

from __future__ import annotations

from kit.parse.bench_json import parse_bench_json
from kit.parse.bench_text import parse_bench_text
from kit.parse.bench_types import BenchResult, Request, goodput_per_s, meets, request_rows, summary_row

__all__ = [
    "BenchResult",
    "Request",
    "goodput_per_s",
    "meets",
    "parse_bench",
    "parse_bench_json",
    "parse_bench_text",
    "request_rows",
    "summary_row",
]


def parse_bench(text: str) -> BenchResult:
    """Either form. Raises ParseError."""
    return parse_bench_json(text) if text.lstrip().startswith("{") else parse_bench_text(text)
