"""The reader of `vllm bench serve`, against results of 0.11, 0.23 and 0.32."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.errors import ParseError
from kit.parse import bench
from kit.parse.bench import BenchResult, Request

DATA = Path(__file__).parent.parent / "data" / "serving"
FILES = sorted(DATA.glob("*/bench_*"))
DETAILED = sorted((DATA / "pd-h200").glob("bench_*.json"))
PAIRS = [("bench_agg_0.32.json", "bench_agg_0.32.stdout.txt"),
         ("bench_pd_lmcache_mooncake_0.11.json", "bench_pd_lmcache_0.11.stdout.txt"),
         ("bench_pd_mooncakeconn_0.32.json", "bench_pd_mooncakeconn_0.32.stdout.txt")]


def read(path: Path) -> BenchResult:
    return bench.parse_bench(path.read_text())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_sample_gives_the_same_table(path: Path) -> None:
    row = bench.summary_row(read(path))
    assert list(row)[:13] == ["source", "completed", "failed", "duration_s", "input_tokens", "output_tokens",
                              "requests_per_s", "output_tokens_per_s", "total_tokens_per_s", "asked", "goodput_per_s",
                              "peak_output_tokens_per_s", "max_concurrency"]
    wanted = {f"{statistic}_{metric}_ms" for statistic in ("mean", "median", "p99") for metric in
              ("ttft", "tpot", "itl")}
    assert wanted <= set(row)
    assert row["completed"] in (0, 12, 40)
    assert row["output_tokens"] == pytest.approx(row["output_tokens_per_s"] * row["duration_s"], rel=0.01)


@pytest.mark.parametrize(("file", "table"), PAIRS)
def test_the_printed_table_is_the_file_rounded(file: str, table: str) -> None:
    whole, printed = bench.summary_row(read(DATA / "pd-cpu" / file)), bench.summary_row(read(DATA / "pd-cpu" / table))
    for name, value in printed.items():
        if name not in ("source", "asked", "failed") and value is not None:
            assert whole[name] == pytest.approx(value, abs=0.0051), name
    assert set(printed) <= set(whole)


def test_vllm_0_11_counts_no_failures_but_the_file_tells() -> None:
    result = read(DATA / "pd-cpu" / "bench_pd_lmcache_mooncake_0.11.json")
    assert (result.completed, result.failed, result.asked) == (40, 0, 40)
    assert (result.input_tokens, result.output_tokens) == (20401, 2568)
    assert (result.request_rate, result.max_concurrency) == (math.inf, 8)
    assert not result.detailed
    assert read(DATA / "pd-cpu" / "bench_pd_lmcache_0.11.stdout.txt").failed is None
    json.dumps(result.to_dict(), allow_nan=False)


@pytest.mark.parametrize("path", DETAILED, ids=lambda path: path.name)
def test_the_rows_give_the_printed_statistics_back(path: Path) -> None:
    result = read(path)
    rows = bench.request_rows(result)
    assert len(rows) == result.asked
    assert sum(row["ok"] for row in rows) == result.completed
    if not result.completed:
        return
    for name, metric in (("ttft_ms", "ttft"), ("tpot_ms", "tpot")):
        values = [row[name] for row in rows]
        assert statistics.mean(values) == pytest.approx(result.latency_ms[f"mean_{metric}_ms"], rel=1e-5)
        assert statistics.median(values) == pytest.approx(result.latency_ms[f"median_{metric}_ms"], rel=1e-5)
    assert sum(row["prompt_tokens"] for row in rows) == result.input_tokens
    assert sum(row["output_tokens"] for row in rows) == result.output_tokens
    gaps = [row["first_itl_ms"] + row["rest_itl_ms"] * (row["chunks"] - 2) for row in rows]
    assert sum(gaps) / sum(row["chunks"] - 1 for row in rows) == pytest.approx(result.latency_ms["mean_itl_ms"])
    assert all(row["e2e_ms"] == pytest.approx(row["ttft_ms"] + gap) for row, gap in zip(rows, gaps, strict=True))


def test_a_benchmark_without_any_success() -> None:
    result = read(DATA / "pd-h200" / "bench_lmcache_all_failed_512_64_c1.json")
    assert (result.completed, result.failed, result.asked) == (0, 8, 8)
    assert not any(request.ok for request in result.requests)
    assert result.requests[0].error == "Internal Server Error"
    assert result.requests[0].ttft_ms is None
    assert bench.goodput_per_s(result, {}) == 0


def test_a_request_without_tokens_and_without_a_word_is_no_success() -> None:
    document = json.loads((DATA / "pd-h200" / "bench_lmcache_all_failed_512_64_c1.json").read_text())
    document["errors"] = [""] * 8
    found = bench.parse_bench(json.dumps(document)).requests
    assert [request.ok for request in found] == [False] * 8
    assert found[0].error == "no token came"


def test_goodput_counts_what_meets_every_limit() -> None:
    result = read(DATA / "pd-h200" / "bench_agg_512_64_c1.json")
    assert bench.goodput_per_s(result, {}) == pytest.approx(result.requests_per_s)
    within = [request for request in result.requests if request.ttft_ms is not None and request.ttft_ms <= 53]
    assert 0 < len(within) < 12
    assert bench.goodput_per_s(result, {"ttft_ms": 53}) == pytest.approx(len(within) / result.duration_s)
    assert bench.goodput_per_s(result, {"ttft_ms": 53, "tpot_ms": 1}) == 0
    assert bench.goodput_per_s(read(DATA / "pd-cpu" / "bench_agg_0.32.json"), {"ttft_ms": 53}) is None
    with pytest.raises(KeyError):
        bench.goodput_per_s(result, {"tttf_ms": 53})


def test_a_single_token_meets_any_tpot() -> None:
    one = Request(0, 8, 1, 1, ok=True, ttft_ms=5.0, e2e_ms=5.0)
    assert bench.meets(one, {"ttft_ms": 6, "tpot_ms": 0.1, "e2e_ms": 6})
    assert not bench.meets(one, {"e2e_ms": 4})


def test_appended_results_are_refused() -> None:
    line = (DATA / "pd-cpu" / "bench_agg_0.32.json").read_text().strip()
    with pytest.raises(ParseError) as caught:
        bench.parse_bench(f"{line}\n{line}\n")
    assert caught.value.symptom == "bench_appended"


def test_counts_that_do_not_add_up_are_refused() -> None:
    document = json.loads((DATA / "pd-cpu" / "bench_agg_0.32.json").read_text())
    with pytest.raises(ParseError, match="40 requests asked, 39 completed"):
        bench.parse_bench(json.dumps(document | {"completed": 39}))


def test_output_without_a_result_tells_why() -> None:
    with pytest.raises(ParseError) as caught:
        bench.parse_bench("Traceback …\nValueError: Initial test run failed - Please make sure benchmark arguments are "
                          "correctly specified. Error: Not Found\n")
    assert caught.value.symptom == "bench_first_request_failed"
    assert caught.value.line.endswith("Error: Not Found")
    cut = (DATA / "pd-cpu" / "bench_agg_0.32.stdout.txt").read_text().split("Mean TPOT")[0]
    with pytest.raises(ParseError, match="closing rule"):
        bench.parse_bench(cut)


@pytest.mark.parametrize("text", ["", "{}", "[]", "{", '{"completed": NaN}', '{"completed": true}', "{" * 9000,
                                  '{"completed": 1e400}', '{"completed": 1, "num_prompts": 1, "ttfts": 5}'])
def test_nonsense_is_a_parse_error(text: str) -> None:
    with pytest.raises(ParseError):
        bench.parse_bench(text)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(FILES), st.floats(0, 1), st.text(max_size=20), st.integers(0, 60))
def test_damaged_results_give_a_result_or_a_parse_error(path: Path, where: float, noise: str, cut: int) -> None:
    text = path.read_text()
    at = int(where * len(text))
    try:
        result = bench.parse_bench(text[:at] + noise + text[at + cut:])
    except ParseError:
        return
    json.dumps(result.to_dict(), allow_nan=False)
    assert all(request.output_tokens >= 0 for request in result.requests)
