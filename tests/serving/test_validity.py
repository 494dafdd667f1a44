"""The validity gate: what the samples' own counters make of it, every way to fail; less evidence never helps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.parse.bench import parse_bench
from kit.parse.lmcache import parse_lmcache_log
from kit.parse.prometheus import parse_prometheus, total
from kit.serving.validity import Evidence, Handover, asked_tokens, expected_kv, judge

DATA = Path(__file__).parent.parent / "data" / "serving"
BPT = 2048
HANDOVER = Handover(expected_bytes=100 * 256 * BPT, bytes_per_token=BPT, store=True)
BYTES = HANDOVER.expected_bytes
GOOD = Evidence(
    requests_asked=40, requests_completed=40, output_tokens=2560, output_tokens_least=2560, output_tokens_most=2560,
    cache_cold=True, decoder_hit_tokens=100 * 256, decoder_prompt_tokens=120 * 256, store_put_bytes=2 * BYTES,
    interface_bytes=BYTES, hash_seeds=("0", "0"))
RDMA = replace(GOOD, protocol="rdma", rdma_bytes=BYTES, interface_bytes=1000)


def test_expected_kv_counts_whole_chunks() -> None:
    assert expected_kv([255, 256, 511, 512, 930], 256, BPT) == (256 + 256 + 512 + 768) * BPT
    assert expected_kv([571], 16, 2) == 560 * 2
    assert expected_kv([], 256, BPT) == 0
    with pytest.raises(ValueError, match="chunk of 0"):
        expected_kv([1], 0, BPT)


def test_asked_tokens() -> None:
    assert asked_tokens(40, 64) == (2560, 2560)
    assert asked_tokens(40, 64, 0.2) == (40 * 51, 40 * 77)
    assert asked_tokens(40, 64, uncounted=1) == (2520, 2560)


@pytest.mark.parametrize("evidence", [GOOD, RDMA, replace(RDMA, interface_bytes=None),
                                      replace(GOOD, evictions=5)])
def test_valid(evidence: Evidence) -> None:
    verdict = judge(evidence, HANDOVER)
    assert (verdict.outcome, verdict.symptom, verdict.remedy) == ("VALID", "", "")
    assert all(condition.ok for condition in verdict.conditions)
    assert (verdict.hit_ratio, verdict.wire_share) == (pytest.approx(100 / 120), 1.0)
    assert "hit ratio 83%" in str(verdict)


def test_a_direct_connector_needs_no_store() -> None:
    direct = replace(HANDOVER, store=False)
    assert judge(replace(GOOD, store_put_bytes=None, hash_seeds=()), direct).outcome == "VALID"
    nothing = judge(replace(GOOD, store_put_bytes=None, hash_seeds=(), decoder_hit_tokens=0), direct)
    assert (nothing.outcome, nothing.symptom) == ("INVALID", "nothing_moved")


def test_exactly_the_share_is_enough_and_one_token_less_is_not() -> None:
    enough = replace(GOOD, decoder_hit_tokens=90 * 256, interface_bytes=HANDOVER.least_bytes)
    assert judge(enough, HANDOVER).outcome == "VALID"
    assert judge(replace(enough, decoder_hit_tokens=90 * 256 - 1), HANDOVER).outcome == "INVALID"
    assert judge(replace(enough, interface_bytes=HANDOVER.least_bytes - 1), HANDOVER).outcome == "INVALID"


FAULTS = {
    "a request failed": (replace(GOOD, requests_completed=39), "FAILED", "requests_failed"),
    "nothing was asked": (replace(GOOD, requests_asked=0, requests_completed=0), "FAILED", "requests_failed"),
    "200 without tokens, as the tool reports it": (
        replace(GOOD, requests_completed=0, output_tokens=0, first_error="Never received a valid chunk to calculate "
                "TTFT.This response will be marked as failed!"), "FAILED", "no_tokens"),
    "200 without tokens": (replace(GOOD, output_tokens=0), "INVALID", "no_tokens"),
    "200 without tokens, none asked": (replace(GOOD, output_tokens=0, output_tokens_least=0), "INVALID", "no_tokens"),
    "ended at EOS": (replace(GOOD, output_tokens=2000), "INVALID", "tokens_missing"),
    "warm": (replace(GOOD, cache_cold=False), "INVALID", "cache_was_warm"),
    "cold or warm": (replace(GOOD, cache_cold=None), "INVALID", "evidence_missing"),
    "nothing stored": (replace(GOOD, store_put_bytes=0, decoder_hit_tokens=0), "INVALID", "nothing_stored"),
    "half stored": (replace(GOOD, store_put_bytes=BYTES // 2), "INVALID", "store_too_small"),
    "hits not read": (replace(GOOD, decoder_hit_tokens=None), "INVALID", "evidence_missing"),
    "no seed": (replace(GOOD, decoder_hit_tokens=0, hash_seeds=(None, None)), "INVALID", "hash_seed_differs"),
    "random seed": (replace(GOOD, decoder_hit_tokens=0, hash_seeds=("random",) * 2), "INVALID", "hash_seed_differs"),
    "two seeds": (replace(GOOD, decoder_hit_tokens=0, hash_seeds=("0", "1")), "INVALID", "hash_seed_differs"),
    "same seed": (replace(GOOD, decoder_hit_tokens=0), "INVALID", "keys_differ"),
    "puts not read": (replace(GOOD, store_put_bytes=None), "INVALID", "evidence_missing"),
    "race": (replace(GOOD, decoder_hit_tokens=40 * 256), "INVALID", "handover_too_early"),
    "evicted": (replace(GOOD, decoder_hit_tokens=40 * 256, evictions=3), "INVALID", "store_too_small"),
    "fetched, not used": (replace(GOOD, decoder_hit_tokens=40 * 256, store_get_bytes=BYTES),
                          "INVALID", "kv_not_in_engine"),
    "hits without bytes": (replace(GOOD, interface_bytes=1000), "INVALID", "kv_not_on_wire"),
    "wire not read": (replace(GOOD, interface_bytes=None), "INVALID", "evidence_missing"),
    "RDMA asked, TCP used": (replace(RDMA, rdma_bytes=0, interface_bytes=BYTES), "INVALID", "fell_back_to_tcp"),
    "RDMA asked, nothing there": (replace(RDMA, rdma_bytes=0, interface_bytes=None), "INVALID", "fell_back_to_tcp"),
    "RDMA asked, neither": (replace(RDMA, rdma_bytes=0), "INVALID", "kv_not_on_wire"),
    "RDMA not read": (replace(RDMA, rdma_bytes=None, interface_bytes=BYTES), "INVALID", "evidence_missing"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_has_its_verdict(name: str) -> None:
    evidence, outcome, symptom = FAULTS[name]
    verdict = judge(evidence, HANDOVER)
    assert (verdict.outcome, verdict.symptom) == (outcome, symptom)
    assert verdict.remedy.endswith(".")
    assert verdict.cause
    first = next(condition for condition in verdict.conditions if not condition.ok)
    assert verdict.reason.startswith(f"{first.name}: {first.seen}, wanted ")
    assert verdict.to_dict()["conditions"][0]["name"] == "requests completed"


def test_the_words_of_the_two_known_lies() -> None:
    assert "likely cause: hash seed (PYTHONHASHSEED)" in str(judge(FAULTS["no seed"][0], HANDOVER))
    assert "likely cause: silent fall-back to TCP" in str(judge(FAULTS["RDMA asked, TCP used"][0], HANDOVER))


def test_prompts_shorter_than_a_chunk_prove_nothing() -> None:
    short = Handover(expected_kv([141, 200], 256, BPT), BPT)
    verdict = judge(replace(GOOD, decoder_hit_tokens=0), short)
    assert (verdict.outcome, verdict.symptom) == ("INVALID", "prompts_too_short")


def test_an_aggregated_stack_needs_no_hand_over() -> None:
    bare = Evidence(40, 40, 2560, 2560, 2560, cache_cold=True)
    verdict = judge(bare, None)
    assert (verdict.outcome, verdict.hit_ratio, len(verdict.conditions)) == ("VALID", None, 3)
    assert str(verdict) == "VALID: all 40 requests completed"
    assert judge(replace(bare, output_tokens=0), None).symptom == "no_tokens"
    assert judge(replace(bare, cache_cold=False), None).symptom == "cache_was_warm"


def test_the_recipe_as_published_moved_nothing() -> None:
    """The sample's six prompts, each looked up with one token more than asked."""
    log = parse_lmcache_log((DATA / "pd-cpu" / "lmcache_decoder_noseed_nohit.log").read_text(errors="replace"))
    prompts = [lookup.total_tokens - 1 for lookup in log.lookup_of.values()]
    handover = Handover(expected_kv(prompts, 256, BPT), BPT)
    assert handover.expected_bytes == 2048 * BPT
    seen = Evidence(6, 6, 192, 192, 192, cache_cold=True, decoder_hit_tokens=log.hit_tokens,
                    decoder_prompt_tokens=log.looked_up_tokens, interface_bytes=10 * handover.expected_bytes,
                    hash_seeds=(None, None))
    verdict = judge(seen, handover)
    assert (verdict.outcome, verdict.symptom, verdict.hit_ratio) == ("INVALID", "hash_seed_differs", 0)
    assert "(0 tokens)" in verdict.reason


def test_mooncake_direct_is_valid_by_its_own_metrics() -> None:
    samples = parse_prometheus((DATA / "pd-cpu" / "mooncakeconn_D_metrics.txt").read_text())
    hit, asked = (total(samples, f"vllm:external_prefix_cache_{kind}_total") for kind in ("hits", "queries"))
    assert hit is not None
    assert asked is not None
    handover = Handover(expected_kv([int(asked)], 32, 2 * BPT), 2 * BPT)
    seen = Evidence(6, 6, 192, 192, 192, cache_cold=True, decoder_hit_tokens=int(hit),
                    decoder_prompt_tokens=int(asked), interface_bytes=handover.expected_bytes)
    assert judge(seen, handover).outcome == "VALID"


def test_a_benchmark_in_which_all_failed() -> None:
    result = parse_bench((DATA / "pd-h200" / "bench_lmcache_all_failed_512_64_c1.json").read_text())
    assert result.asked is not None
    least, most = asked_tokens(result.asked, 64)
    seen = Evidence(result.asked, result.completed, result.output_tokens, least, most, cache_cold=True,
                    first_error=next(request.error for request in result.requests if not request.ok))
    verdict = judge(seen, None)
    assert (verdict.outcome, verdict.symptom) == ("FAILED", "requests_failed")
    assert verdict.reason == "requests completed: 0, wanted 8"


_COUNTERS = ("decoder_hit_tokens", "interface_bytes", "rdma_bytes", "requests_completed", "output_tokens",
             "store_put_bytes")
_EVIDENCE = st.builds(
    Evidence, requests_asked=st.just(40), requests_completed=st.integers(39, 40), output_tokens=st.integers(0, 2560),
    output_tokens_least=st.integers(0, 2560), output_tokens_most=st.just(2560),
    cache_cold=st.sampled_from([True, None]), protocol=st.sampled_from(["tcp", "rdma"]),
    decoder_hit_tokens=st.none() | st.integers(80 * 256, 110 * 256),
    interface_bytes=st.none() | st.integers(0, 2 * BYTES), rdma_bytes=st.none() | st.integers(0, 2 * BYTES),
    store_put_bytes=st.none() | st.integers(0, 2 * BYTES), evictions=st.integers(0, 2))


@given(_EVIDENCE, st.sampled_from(_COUNTERS), st.integers(0, 100))
def test_less_evidence_never_makes_a_run_valid(evidence: Evidence, name: str, percent: int) -> None:
    seen = getattr(evidence, name)
    unread = seen is None or (percent == 0 and name not in ("requests_completed", "output_tokens"))
    less = replace(evidence, **{name: None if unread else seen * percent // 100})
    verdict = judge(less, HANDOVER)
    assert (verdict.outcome == "VALID") == all(condition.ok for condition in verdict.conditions)
    if verdict.outcome == "VALID":
        assert judge(evidence, HANDOVER).outcome == "VALID"
        assert less.decoder_hit_tokens is not None
        assert less.decoder_hit_tokens * BPT >= 0.9 * BYTES
        assert ((less.rdma_bytes if less.protocol == "rdma" else less.interface_bytes) or 0) >= 0.9 * BYTES
