"""Before a run: can this workload show what it is meant to, and does it ask more than link and store have?

A request's time is estimated as ``prefill + hand-over + output tokens * time a token``; requests in flight and rate
follow from each other by Little's law (J. Little, Operations Research 9, 1961). These are estimates for a warning
before the run, never results.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from kit.errors import ParamsError
from kit.linkmodel import LinkModel

TPOT_MS = 20.0          # assumed time a token where none is known: eager Qwen2.5-7B on an H200 took 16 to 19
PREFILL_TOKENS_PER_S = 40_000.0     # assumed likewise: 4096 tokens took 107 ms there
SHOWS_SHARE = 0.01      # of the link's bandwidth: below it no speed of the link can be seen in the result
WANTED_SHARE = 0.10     # what a suggested workload should use
_PROMPTS = (1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)
_SHORT_OUTPUT = 64


@dataclass(frozen=True)
class Workload:
    """What a benchmark sends. One of ``rate_per_s`` (open loop) and ``concurrency`` (closed loop) decides the load."""

    prompt_tokens: int
    output_tokens: int
    rate_per_s: float | None = None
    concurrency: int | None = None

    def __str__(self) -> str:
        load = f"{self.rate_per_s:g} requests/s" if self.rate_per_s is not None else f"concurrency {self.concurrency}"
        return f"{self.prompt_tokens} tokens in, {self.output_tokens} out, {load}"


@dataclass(frozen=True)
class Stack:
    """What serves it. ``store_bytes`` is all segments together, None without a store; ``unit_tokens`` move whole."""

    bytes_per_token: int
    link: LinkModel
    store_bytes: int | None = None
    unit_tokens: int = 256
    tpot_ms: float = TPOT_MS
    prefill_tokens_per_s: float = PREFILL_TOKENS_PER_S
    max_model_len: int = 32768


@dataclass(frozen=True)
class Caution:
    """One thing to change before the run."""

    name: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}\n  remedy: {self.remedy}"


@dataclass(frozen=True)
class Outlook:
    """What the workload will ask for: bytes a second, its share of the link, and bytes held at once."""

    requests_per_s: float
    in_flight: float
    bytes_per_s: float
    link_share: float
    held_bytes: int
    cautions: tuple[Caution, ...]


def outlook(workload: Workload, stack: Stack) -> Outlook:
    """The load and every caution about it. Raises ParamsError for a workload that is none."""
    _check(workload)
    size = _moved_bytes(workload.prompt_tokens, stack)
    seconds = _request_s(workload, stack)
    if workload.rate_per_s is not None:
        rate, in_flight = workload.rate_per_s, workload.rate_per_s * seconds
        if workload.concurrency is not None and in_flight > workload.concurrency:
            rate, in_flight = workload.concurrency / seconds, float(workload.concurrency)
    else:
        in_flight = float(workload.concurrency or 1)
        rate = in_flight / seconds
    held = math.ceil(in_flight) * size
    share = rate * size / stack.link.bytes_per_s.value
    found = Outlook(rate, in_flight, rate * size, share, held, ())
    return replace(found, cautions=tuple(_cautions(workload, stack, found)))


def suggest(workload: Workload, stack: Stack) -> Workload | None:
    """The nearest workload that uses a tenth of the link: few tokens out, the shortest prompt that does; or None.

    It never asks for more than the store or ``max_model_len`` has, and lowers the concurrency where it must.
    """
    concurrency = workload.concurrency or 8
    while concurrency:
        for prompt in _PROMPTS:
            tried = Workload(prompt, _SHORT_OUTPUT, concurrency=concurrency)
            size = _moved_bytes(prompt, stack)
            share = concurrency / _request_s(tried, stack) * size / stack.link.bytes_per_s.value
            fits = stack.store_bytes is None or concurrency * size <= stack.store_bytes
            if share >= WANTED_SHARE and fits and prompt + _SHORT_OUTPUT <= stack.max_model_len:
                return tried
        concurrency //= 2
    return None


def _cautions(workload: Workload, stack: Stack, load: Outlook) -> list[Caution]:
    found = []
    if workload.rate_per_s is not None:
        asked = workload.rate_per_s * _moved_bytes(workload.prompt_tokens, stack)
        if asked > stack.link.bytes_per_s.value:
            most = stack.link.bytes_per_s.value / _moved_bytes(workload.prompt_tokens, stack)
            found.append(Caution(
                "link_exceeded", f"{workload} asks {asked * 8e-9:.3g} Gb/s of a link of {stack.link.gbps.value:.3g}: "
                "requests will queue for it, and longer and longer",
                f"stay below {most:.3g} requests/s, or shorten the prompts"))
    if stack.store_bytes is not None and load.held_bytes > stack.store_bytes:
        tokens = stack.store_bytes // stack.bytes_per_token
        found.append(Caution(
            "store_too_small", f"{math.ceil(load.in_flight)} requests in flight hold {load.held_bytes / 1e9:.3g} GB, "
            f"the store has {stack.store_bytes / 1e9:.3g} GB ({tokens:,} tokens): it will evict what is still needed",
            f"give its segments at least {2 * load.held_bytes / 1e9:.2g} GB together, or lower the concurrency"))
    if load.link_share < SHOWS_SHARE:
        better = suggest(workload, stack)
        remedy = f"take {better}" if better else "nothing that fits does better: raise max_model_len or the store"
        found.append(Caution(
            "no_difference", f"{workload} uses {load.link_share:.2%} of the link (at {stack.tpot_ms:g} ms a "
            "token): it cannot tell one link from another", remedy))
    return found


def _moved_bytes(prompt_tokens: int, stack: Stack) -> int:
    return math.ceil(prompt_tokens / stack.unit_tokens) * stack.unit_tokens * stack.bytes_per_token


def _request_s(workload: Workload, stack: Stack) -> float:
    handover = stack.link.seconds(_moved_bytes(workload.prompt_tokens, stack)).value
    return (workload.prompt_tokens / stack.prefill_tokens_per_s + handover
            + workload.output_tokens * stack.tpot_ms * 1e-3)


def _check(workload: Workload) -> None:
    if workload.prompt_tokens < 1 or workload.output_tokens < 1:
        raise ParamsError(f"{workload.prompt_tokens} tokens in, {workload.output_tokens} out: both must be at least 1")
    if workload.rate_per_s is None and workload.concurrency is None:
        raise ParamsError("a workload needs a request rate or a concurrency")
    if (workload.rate_per_s is not None and not 0 < workload.rate_per_s < math.inf) or (
            workload.concurrency is not None and workload.concurrency < 1):
        raise ParamsError(f"{workload}: the load must be above 0 and finite")
