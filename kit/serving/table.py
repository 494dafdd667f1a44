"""The tables of a serving run: ``points.parquet``, one row a benchmark, and ``requests.parquet``, one row a request.

Latencies are milliseconds, rates a second. A column that was not measured holds NaN.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

AXES = ("stack", "input_tokens", "output_tokens", "concurrency", "requests_per_s")
_AXES: dict[str, str] = {
    "site": "string", "stack": "string", "input_tokens": "Int64", "output_tokens": "Int64", "concurrency": "Int64",
    "requests_per_s": "Float64", "repeat": "Int64",
}
COLUMNS: dict[str, str] = {
    **_AXES,
    "outcome": "string",             # VALID | INVALID | FAILED
    "expected": "boolean",           # the outcome is the one that the experiment expects
    "symptom": "string",
    "reason": "string",
    "remedy": "string",
    "hit_ratio": "Float64",          # decoder's hit tokens over its prompt tokens
    "wire_share": "Float64",         # bytes seen on the wire over bytes expected
    "kv_expected_bytes": "Int64",
    "transfer_ms": "Float64",        # of a request's KV, as the connector itself timed it (mean)
    "piece_bytes": "Float64",        # what the connector cut it into (mean)
    "completed": "Int64",
    "duration_s": "Float64",
    "prompt_tokens": "Int64",
    "generated_tokens": "Int64",
    "completed_per_s": "Float64",
    "output_tokens_per_s": "Float64",
    "total_tokens_per_s": "Float64",
    "goodput_per_s": "Float64",
    "ttft_ms": "Float64",            # medians over the requests
    "first_itl_ms": "Float64",
    "rest_itl_ms": "Float64",
    "tpot_ms": "Float64",
    "e2e_ms": "Float64",
    "ttft_p99_ms": "Float64",
    "e2e_p99_ms": "Float64",
    "start_s": "Float64",            # from launch until the stack was well
}
REQUEST_COLUMNS: dict[str, str] = {
    **_AXES, "outcome": "string", "index": "Int64", "prompt_tokens": "Int64", "generated_tokens": "Int64",
    "ok": "boolean", "error": "string", "ttft_ms": "Float64", "first_itl_ms": "Float64", "rest_itl_ms": "Float64",
    "tpot_ms": "Float64", "e2e_ms": "Float64", "queue_ms": "Float64",
}


def table(rows: list[dict[str, Any]], columns: dict[str, str]) -> pd.DataFrame:
    """Rows (missing columns allowed) as a typed DataFrame in a fixed order."""
    import pandas as pd

    frame = pd.DataFrame([{name: row.get(name) for name in columns} for row in rows], columns=list(columns))
    order = [*AXES, "repeat", *(["index"] if "index" in columns else [])]
    return frame.astype(columns).sort_values(order, kind="stable", ignore_index=True)
