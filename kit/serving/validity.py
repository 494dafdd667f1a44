"""Did a serving run measure what it says? The gate that every run passes before it is drawn beside another.

A prefill/decode stack can answer every request with 200 and move no KV cache at all: the decoder then computes every
prompt again, and the throughput looks fine. So a run is VALID only if all requests completed, the tokens are as many as
asked, the cache was cold, and at least a share of the KV bytes that must move were seen to move, both by the engine
(tokens that hit) and on the wire (bytes that left the prefiller). Neither source is trusted alone: the engine's figures
are its own opinion, and the wire carries other things too.

Bytes expected: the sum over requests of floor(prompt / chunk) * chunk * bytes a token. LMCache finds only whole chunks
again, because the proxy appends the prefiller's token to the prompt; a direct connector moves whole blocks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from kit import symptoms

SHARE = 0.9

Outcome = Literal["VALID", "INVALID", "FAILED"]


@dataclass(frozen=True)
class Evidence:
    """What the counters said, each over the measured requests alone (warm-up left out). None: not read.

    ``output_tokens_least`` and ``_most`` bound what was asked (`asked_tokens`). ``rdma_bytes`` and ``interface_bytes``
    went from prefiller to decoder, by the RDMA device's and by the network interface's own counters.
    ``hash_seeds`` are PYTHONHASHSEED of every instance, None where it is not set; empty for a stack whose keys do not
    depend on it. ``evictions`` counts objects that the store threw out or had no room for. ``first_error`` is the text
    of the first request that failed.
    """

    requests_asked: int
    requests_completed: int
    output_tokens: int
    output_tokens_least: int
    output_tokens_most: int
    cache_cold: bool | None
    protocol: Literal["tcp", "rdma"] = "tcp"
    decoder_hit_tokens: int | None = None
    decoder_prompt_tokens: int | None = None
    store_put_bytes: int | None = None
    store_get_bytes: int | None = None
    interface_bytes: int | None = None
    rdma_bytes: int | None = None
    hash_seeds: tuple[str | None, ...] = ()
    evictions: int = 0
    first_error: str = ""


@dataclass(frozen=True)
class Handover:
    """What has to move for a run: ``expected_bytes`` (`expected_kv`), and the least share of it that makes it VALID.

    ``store``: it moves through a store that counts its puts, as Mooncake's master does.
    """

    expected_bytes: int
    bytes_per_token: int
    share: float = SHARE
    store: bool = False

    @property
    def least_bytes(self) -> int:
        return math.ceil(self.share * self.expected_bytes)


@dataclass(frozen=True)
class Condition:
    """One thing that must hold; ``symptom`` is a row of symptoms.toml where it does not."""

    name: str
    ok: bool
    seen: str
    wanted: str
    symptom: str = ""


@dataclass(frozen=True)
class Validity:
    """The verdict. FAILED: the load was not served. INVALID: it was, but the numbers are not what they seem.

    ``symptom``, ``cause`` and ``remedy`` are those of the first condition that does not hold. ``hit_ratio`` is hit
    over prompt tokens of the decoder; ``wire_share`` is bytes on the wire over bytes expected. Both are None without
    a hand-over.
    """

    outcome: Outcome
    reason: str
    symptom: str = ""
    cause: str = ""
    remedy: str = ""
    conditions: tuple[Condition, ...] = ()
    hit_ratio: float | None = None
    wire_share: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        text = f"{self.outcome}: {self.reason}"
        if self.hit_ratio is not None:
            text += f"; decoder hit ratio {self.hit_ratio:.0%}"
        return text + (f"; likely cause: {self.cause}" if self.cause else "")


def expected_kv(prompt_tokens: Sequence[int], chunk_tokens: int, bytes_per_token: int) -> int:
    """Bytes of KV cache that must move: whole chunks (or blocks) of each prompt. ValueError: no positive chunk."""
    if chunk_tokens < 1:
        raise ValueError(f"a chunk of {chunk_tokens} tokens")
    return sum(tokens // chunk_tokens * chunk_tokens for tokens in prompt_tokens) * bytes_per_token


def asked_tokens(requests: int, output_tokens: int, range_ratio: float = 0.0, *, uncounted: int = 0) -> tuple[int, int]:
    """The least and the most output tokens that a benchmark asks for, in all.

    `vllm bench serve` draws each length from floor(length * (1 - ratio)) to ceil(length * (1 + ratio)) and does not
    write down which. ``uncounted`` is 1 behind a proxy that streams the prefiller's token first: the server's count
    leaves it out (LMCache 0.3.9; seen: 2568 of 2608).
    """
    return (requests * (math.floor(output_tokens * (1 - range_ratio)) - uncounted),
            requests * math.ceil(output_tokens * (1 + range_ratio)))


def judge(evidence: Evidence, handover: Handover | None) -> Validity:
    """The verdict on one run. ``handover`` None: an aggregated stack, from whose run no KV cache has to move."""
    conditions = [_completed(evidence), _tokens(evidence), _cold(evidence)]
    if handover is not None:
        conditions += [_long_enough(handover), *_stored(evidence, handover), _hits(evidence, handover),
                       _wire(evidence, handover)]
    ratio = share = None
    if handover is not None:
        if evidence.decoder_hit_tokens is not None and evidence.decoder_prompt_tokens:
            ratio = evidence.decoder_hit_tokens / evidence.decoder_prompt_tokens
        moved = _moved(evidence)
        if moved is not None and handover.expected_bytes:
            share = moved / handover.expected_bytes
    broken = next((condition for condition in conditions if not condition.ok), None)
    if broken is None:
        return Validity("VALID", f"all {evidence.requests_asked} requests completed" if handover is None else
                        "the KV cache that had to move was seen to move", conditions=tuple(conditions),
                        hit_ratio=ratio, wire_share=share)
    known = symptoms.named(broken.symptom)
    outcome: Outcome = "FAILED" if broken is conditions[0] else "INVALID"
    return Validity(outcome, f"{broken.name}: {broken.seen}, wanted {broken.wanted}", known.name,
                    known.cause or known.name.replace("_", " "), known.remedy, tuple(conditions), ratio, share)


def _completed(evidence: Evidence) -> Condition:
    found = symptoms.find(evidence.first_error, area="serving") if evidence.first_error else None
    ok = evidence.requests_completed == evidence.requests_asked > 0
    return Condition("requests completed", ok, f"{evidence.requests_completed}", f"{evidence.requests_asked}",
                     "" if ok else found[0].name if found else "requests_failed")


def _tokens(evidence: Evidence) -> Condition:
    least, most, seen = evidence.output_tokens_least, evidence.output_tokens_most, evidence.output_tokens
    ok = seen > 0 and least <= seen <= most
    wanted = f"{least}" if least == most else f"{least} to {most}"
    return Condition("output tokens", ok, f"{seen}", wanted,
                     "" if ok else "tokens_missing" if seen else "no_tokens")


def _cold(evidence: Evidence) -> Condition:
    seen = {True: "cold", False: "warm", None: "not known"}[evidence.cache_cold]
    symptom = {True: "", False: "cache_was_warm", None: "evidence_missing"}[evidence.cache_cold]
    return Condition("cache at the start", evidence.cache_cold is True, seen, "cold", symptom)


def _long_enough(handover: Handover) -> Condition:
    ok = handover.expected_bytes > 0
    return Condition("KV cache to hand over", ok, _size(handover.expected_bytes), "more than 0 B",
                     "" if ok else "prompts_too_short")


def _stored(evidence: Evidence, handover: Handover) -> list[Condition]:
    """Only where there is a store that counts. What was never put cannot be fetched."""
    if not handover.store:
        return []
    if evidence.store_put_bytes is None:
        return [Condition("KV cache stored", False, "not read", _least(handover), "evidence_missing")]
    ok = evidence.store_put_bytes >= handover.least_bytes
    symptom = "store_too_small" if evidence.store_put_bytes or evidence.evictions else "nothing_stored"
    return [Condition("KV cache stored", ok, _size(evidence.store_put_bytes), _least(handover), "" if ok else symptom)]


def _hits(evidence: Evidence, handover: Handover) -> Condition:
    name = "KV cache hit by the decoder"
    if evidence.decoder_hit_tokens is None:
        return Condition(name, False, "not read", _least(handover), "evidence_missing")
    hit_bytes = evidence.decoder_hit_tokens * handover.bytes_per_token
    ok = hit_bytes >= handover.least_bytes
    seen = f"{_size(hit_bytes)} ({evidence.decoder_hit_tokens} tokens)"
    return Condition(name, ok, seen, _least(handover), "" if ok else _why_no_hits(evidence, handover))


def _why_no_hits(evidence: Evidence, handover: Handover) -> str:
    if evidence.evictions:
        return "store_too_small"
    if evidence.decoder_hit_tokens:
        fetched = evidence.store_get_bytes
        return "kv_not_in_engine" if fetched is not None and fetched >= handover.least_bytes else "handover_too_early"
    if evidence.store_put_bytes == 0:
        return "nothing_stored"
    if not evidence.hash_seeds:
        return "nothing_moved"
    # "random" is Python's own word for no seed
    same = len(set(evidence.hash_seeds)) == 1 and evidence.hash_seeds[0] not in (None, "", "random")
    return "keys_differ" if same else "hash_seed_differs"


def _moved(evidence: Evidence) -> int | None:
    """Bytes from prefiller to decoder by the counters that the protocol must show in."""
    return evidence.rdma_bytes if evidence.protocol == "rdma" else evidence.interface_bytes


def _wire(evidence: Evidence, handover: Handover) -> Condition:
    rdma = evidence.protocol == "rdma"
    name = "bytes over RDMA" if rdma else "bytes over the network"
    moved = _moved(evidence)
    if moved is None:
        return Condition(name, False, "not read", _least(handover), "evidence_missing")
    ok = moved >= handover.least_bytes
    # Where the interface's counters were read and carry as little, TCP did not carry it either.
    elsewhere = evidence.interface_bytes is not None and evidence.interface_bytes < handover.least_bytes
    symptom = "fell_back_to_tcp" if rdma and not elsewhere else "kv_not_on_wire"
    return Condition(name, ok, _size(moved), _least(handover), "" if ok else symptom)


def _least(handover: Handover) -> str:
    return f"at least {_size(handover.least_bytes)} ({handover.share:.0%} of {_size(handover.expected_bytes)})"


def _size(count: int) -> str:
    for power, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if count >= 1 << power:
            return f"{count / (1 << power):.4g} {unit}"
    return f"{count} B"
