"""What counters make of a hand-over: real pages of metrics and a real log, before and after; and answers, read."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wired_nodes import wire

from kit.errors import ParseError
from kit.parse.bench import parse_bench
from kit.parse.kernel import Counters, parse_hw_counters
from kit.parse.prometheus import Sample, parse_prometheus
from kit.paths import root
from kit.serving.evidence import Moment, block_tokens, evidence, grown, handover_of, moved, timed
from kit.serving.handover import Handed, prompt, read_answer
from kit.serving.launch import Deployment
from kit.serving.parts import parts
from kit.serving.validity import judge

DATA = root() / "tests/data/serving/pd-cpu"


def page(name: str) -> list[Sample]:
    return parse_prometheus((DATA / f"{name}.txt").read_text())


def deployment(stack: str, **changed: object) -> Deployment:
    wiring = wire(stack, **{"protocol": "tcp", **changed})
    return Deployment(wiring, parts(wiring))


BEFORE = Moment({"prefiller": [], "decoder": [], "master": page("mooncake_master_metrics")}, left_bytes=1000)
AFTER = Moment({"prefiller": page("lmcache_P_metrics"), "decoder": page("lmcache_D_metrics"),
                "master": page("mooncake_master_metrics_after_pd")}, left_bytes=9_000_000)
LOG = (DATA / "lmcache_decoder.log").read_text()
DIRECT = Moment({"prefiller": [], "decoder": page("mooncakeconn_D_metrics")}, left_bytes=12_000_000)


def test_a_store_stack_is_seen_by_the_store_the_log_and_the_wire() -> None:
    seen = moved(deployment("lmcache-mooncake"), BEFORE, AFTER, LOG)
    assert (seen.prompt_tokens, seen.interface_bytes, seen.rdma_bytes, seen.lost_objects) == (3462, 8_999_000, None, 0)
    assert seen.put_bytes == 47943680 - 32505856, "the histogram's sum, not what is allocated now"
    assert seen.hit_tokens == sum(int(found) for found in re.findall(r"Retrieved (\d+) out of", LOG)) > 0
    assert moved(deployment("lmcache-mooncake"), BEFORE, AFTER, "").hit_tokens == 0


def test_without_the_histogram_what_is_allocated_counts() -> None:
    """Mooncake 0.3.7 of the package index tells no sizes."""
    def without(moment: Moment) -> Moment:
        kept = [one for one in moment.metrics["master"] if not one.name.startswith("master_value_size")]
        return replace(moment, metrics={**moment.metrics, "master": kept})

    assert moved(deployment("lmcache-mooncake"), without(BEFORE), without(AFTER), LOG).put_bytes == 7077888 - 32505856
    nothing = replace(AFTER, metrics={**AFTER.metrics, "master": []})
    assert moved(deployment("lmcache-mooncake"), BEFORE, nothing, LOG).put_bytes is None


def test_lost_objects_are_counted() -> None:
    lost = parse_prometheus("# TYPE master_evicted_key_count counter\nmaster_evicted_key_count 3\n"
                            "master_put_start_alloc_failures_total 4\n")
    after = replace(AFTER, metrics={**AFTER.metrics, "master": lost})
    assert moved(deployment("lmcache-mooncake"), BEFORE, after, LOG).lost_objects == 7


def test_a_direct_stack_is_seen_by_the_decoder_and_the_wire() -> None:
    before = Moment({"prefiller": [], "decoder": []}, left_bytes=0)
    seen = moved(deployment("mooncake-direct"), before, DIRECT, "")
    assert (seen.prompt_tokens, seen.hit_tokens, seen.put_bytes, seen.interface_bytes) == (2885, 2885, None, 12_000_000)
    assert block_tokens(DIRECT, "decoder") == 32


@pytest.mark.parametrize("name", ["hw_counters_erdma_made_up_values.txt", "hw_counters_rxe.txt"])
def test_rdma_bytes_are_the_devices_own(name: str) -> None:
    counters = parse_hw_counters((root() / "tests/data/kernel" / name).read_text())
    before = replace(BEFORE, rdma=replace(counters, tx_bytes=0) if counters.tx_bytes is not None else counters)
    seen = moved(deployment("lmcache-mooncake"), before, replace(AFTER, rdma=counters), LOG)
    assert seen.rdma_bytes == counters.tx_bytes
    assert moved(deployment("lmcache-mooncake"), BEFORE, replace(AFTER, rdma=counters), LOG).rdma_bytes is None


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 10**12), st.integers(0, 10**12))))
def test_growth_is_the_sum_over_the_labels(rows: list[tuple[str, int, int]]) -> None:
    before = [Sample("c", first, labels={"engine": label}) for label, first, _ in rows]
    after = [Sample("c", first + more, labels={"engine": label}) for label, first, more in rows]
    assert grown(before, after, "c") == (sum(more for *_, more in rows) if rows else None)
    assert grown([], after, "c") == (sum(first + more for _, first, more in rows) if rows else None)
    assert grown(before, after, "another") is None


def test_the_samples_own_benchmark_is_judged() -> None:
    """Figures of one real run on a CPU; the decoder fetched what it could of each prompt."""
    result = parse_bench((DATA / "bench_pd_mooncakeconn_0.32.json").read_text())
    stack = deployment("mooncake-direct")
    before = Moment({"prefiller": [], "decoder": []}, left_bytes=0)
    asked = result.completed
    told = evidence(stack, before, DIRECT, "", result, asked=asked, output_tokens=64, range_ratio=0.2)
    assert (told.requests_completed, told.protocol, told.hash_seeds, told.cache_cold) == (asked, "tcp", (), True)
    assert told.decoder_hit_tokens == 2885
    wanted = handover_of(stack, DIRECT, result, bytes_per_token=4096, share=0.9)
    assert wanted is not None
    assert wanted.store is False
    few = judge(replace(told, decoder_hit_tokens=0), replace(wanted, expected_bytes=10**6))
    assert (few.outcome, few.symptom) == ("INVALID", "nothing_moved")


def test_an_aggregated_stack_hands_nothing_over() -> None:
    result = parse_bench((DATA / "bench_agg_0.32.json").read_text())
    stack, now = deployment("aggregated"), Moment({"server": page("vllm0.32_agg_metrics")})
    told = evidence(stack, Moment({"server": []}), now, "", result, asked=result.completed,
                    output_tokens=64, range_ratio=0.2)
    assert handover_of(stack, now, result, bytes_per_token=4096, share=0.9) is None
    assert judge(told, None).outcome == "VALID"


def test_a_warm_cache_and_one_that_is_not_known() -> None:
    result = parse_bench((DATA / "bench_agg_0.32.json").read_text())
    warm = parse_prometheus(f"vllm:prefix_cache_hits_total {result.input_tokens}\n")
    for after, cold in ((warm, False), ([], None)):
        told = evidence(deployment("aggregated"), Moment({"server": []}), Moment({"server": after}), "", result,
                        asked=1, output_tokens=1, range_ratio=0.0)
        assert told.cache_cold is cold


def test_seeds_are_those_of_the_two_instances() -> None:
    result = parse_bench((DATA / "bench_agg_0.32.json").read_text())
    told = evidence(deployment("lmcache-mooncake", decode_env={"PYTHONHASHSEED": "1"}), BEFORE, AFTER, LOG, result,
                    asked=1, output_tokens=1, range_ratio=0.0)
    assert told.hash_seeds == ("0", "1")
    assert isinstance(parse_hw_counters(""), Counters)


COMPLETION = {"choices": [{"text": " one two"}], "usage": {"completion_tokens": 2}}


def test_an_answer_is_read_whole_or_streamed() -> None:
    whole = read_answer(json.dumps(COMPLETION))
    pieces = [{"choices": [{"text": " one"}]}, {"choices": [{"text": " two"}]}, {"choices": [], "usage": {}}]
    stream = "".join(f"data: {json.dumps(piece)}\n\n" for piece in pieces) + "data: [DONE]\n\n"
    assert whole == read_answer(stream)
    assert (whole.text, whole.tokens) == (" one two", 2)
    assert read_answer("data: [DONE]\n\n").tokens == 0


@pytest.mark.parametrize("body", ["", "{", "[]", "{}", "data: {", "data: 3\n", json.dumps({"choices": []}),
                                  'data: {"choices": [{}]}', json.dumps({"error": {"message": "no"}})])
def test_what_is_no_answer_is_told(body: str) -> None:
    with pytest.raises(ParseError):
        read_answer(body)


def test_prompts_begin_differently_and_stay_the_same() -> None:
    begins = {prompt(50, seed=seed)[:8] for seed in range(40)}
    assert len(begins) == 40
    assert prompt(50, seed=3) == prompt(50, seed=3)


@pytest.mark.parametrize(("handed", "ok"), [(Handed(600, 512, True), True), (Handed(600, 512, None), True),
                                            (Handed(600, 0, True), False), (Handed(600, 512, False), False)])
def test_a_hand_over_needs_hits_and_the_right_words(handed: Handed, ok: bool) -> None:
    assert handed.ok is ok
    assert f"{handed.hit_tokens} of 600" in str(handed)
    assert ("OTHER words" in str(handed)) == (handed.same_text is False)


# Names and labels as in vLLM 0.23, kv_connector/v1/mooncake/store/metrics.py; the values are made up.
POOL = """# TYPE vllm:mooncake_store_operation_time_seconds histogram
vllm:mooncake_store_operation_time_seconds_sum{operation="OPERATION",status="ok"} 0.6
vllm:mooncake_store_operation_time_seconds_count{operation="OPERATION",status="ok"} 3
vllm:mooncake_store_operation_time_seconds_sum{operation="lookup_exists",status="ok"} 9
vllm:mooncake_store_operation_time_seconds_count{operation="lookup_exists",status="ok"} 9
# TYPE vllm:external_prefix_cache_hits_total counter
vllm:external_prefix_cache_hits_total 384
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total 512
"""


def test_a_pool_is_seen_by_its_master_the_decoder_and_the_wire_and_times_itself() -> None:
    stack = deployment("mooncake-store-0.23")
    before = Moment({"prefiller": [], "decoder": [], "master": []}, left_bytes=0)
    after = Moment({"prefiller": parse_prometheus(POOL.replace("OPERATION", "save_put")),
                    "decoder": parse_prometheus(POOL.replace("OPERATION", "load_get")),
                    "master": page("mooncake_master_metrics_after_pd")}, left_bytes=10**7)
    seen = moved(stack, before, after, "")
    assert (seen.prompt_tokens, seen.hit_tokens, seen.interface_bytes) == (512, 384, 10**7)
    assert seen.put_bytes
    own = timed(stack, before, after, "")
    assert own is not None
    assert own.transfer_ms == pytest.approx(400), "a put and a get of 200 ms each"
    assert timed(stack, before, before, "") is None


def test_the_last_block_of_a_whole_prompt_is_left_to_the_decoder() -> None:
    result = parse_bench((DATA.parent / "pd-h200/bench_moon_512_64_c1.json").read_text())
    whole = replace(result, requests=tuple(replace(one, prompt_tokens=512) for one in result.requests[:2]))
    moment = Moment({"prefiller": [], "decoder": parse_prometheus('vllm:cache_config_info{block_size="128"} 1\n')})
    wanted = handover_of(deployment("mooncake-store-0.23"), moment, whole, bytes_per_token=10, share=0.9)
    assert wanted is not None
    assert (wanted.expected_bytes, wanted.store) == (2 * 384 * 10, True)


def test_a_direct_stack_tells_its_transfers_in_the_prefiller_s_log() -> None:
    log = (DATA / "mooncakeconn_prefiller.log").read_text()
    nothing = Moment({"prefiller": [], "decoder": []})
    own = timed(deployment("mooncake-direct"), nothing, nothing, log)
    assert own is not None
    assert own.transfer_ms == pytest.approx((6 * 103.104 + 20 * 204.256) / 26)
    for said in ("", "KV Transfer metrics: in other words\n"):
        assert timed(deployment("mooncake-direct"), nothing, nothing, said) is None
    assert timed(deployment("lmcache-mooncake"), BEFORE, AFTER, LOG) is None
