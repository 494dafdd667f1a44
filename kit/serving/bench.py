"""The benchmark's points, and `vllm bench serve` as a command."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from typing import Any

from kit.command import Command
from kit.command import Part as Word
from kit.params import ServeBenchParams
from kit.serving.parts import Wiring, front, parts, place
from kit.serving.runtime import started
from kit.store import key_of


@dataclass(frozen=True)
class BenchPoint:
    """One benchmark: a stack under one load. ``concurrency`` or ``requests_per_s`` is None."""

    stack: str
    input_tokens: int
    output_tokens: int
    concurrency: int | None
    requests_per_s: float | None
    repeat: int

    @property
    def axes(self) -> dict[str, Any]:
        return asdict(self)

    def key(self, params: ServeBenchParams) -> str:
        """The same for the same measurement: the axes, and what else determines it."""
        return key_of({"point": self.axes, "prompts": params.prompts, "range_ratio": params.range_ratio,
                       "seed": seed_of(self, params), "warmups": params.warmups})

    def __str__(self) -> str:
        load = f"concurrency {self.concurrency}" if self.concurrency else f"{self.requests_per_s:g} requests/s"
        return f"{self.stack}, {self.input_tokens} in, {self.output_tokens} out, {load}, repeat {self.repeat + 1}"


def points(params: ServeBenchParams) -> list[BenchPoint]:
    """All points: stack by stack, since a stack takes long to start; the repeats of a stack's loads interleaved."""
    loads: list[tuple[int | None, float | None]] = [(concurrency, None) for concurrency in params.concurrency]
    loads += [(None, rate) for rate in params.requests_per_s]
    return [BenchPoint(stack, into, out, *load, repeat) for stack, repeat, into, out, load in itertools.product(
        params.stacks, range(params.repeats), params.input_tokens, params.output_tokens, loads)]


def seed_of(point: BenchPoint, params: ServeBenchParams) -> int:
    """A seed of its own for every load and repeat, the same for every stack: same prompts, and none seen before."""
    return params.seed + 1000 * point.repeat + int(key_of([point.input_tokens, point.output_tokens, point.concurrency,
                                                           point.requests_per_s], digits=6), 16) % 997


def bench_command(wiring: Wiring, point: BenchPoint, params: ServeBenchParams, *, result: str) -> Command:
    """`vllm bench serve` of the stack's own version, on the node of its front; the result file is ``result`` there.

    ``--ignore-eos``: vLLM 0.11 would stop at the model's own end. ``--ready-check-timeout-sec 0``: the check would send
    the first prompt once before the measurement.
    """
    folder, _, name = result.rpartition("/")
    argv: list[Word] = [
        "vllm", "bench", "serve", "--backend", "openai", "--base-url", front(parts(wiring)).url,
        "--model", wiring.serving.served_name, "--tokenizer", wiring.serving.model, "--dataset-name", "random",
        "--random-input-len", point.input_tokens, "--random-output-len", point.output_tokens,
        "--random-range-ratio", params.range_ratio, "--num-prompts", params.prompts, "--seed", seed_of(point, params),
        "--ignore-eos", "--ready-check-timeout-sec", 0, "--percentile-metrics", "ttft,tpot,itl,e2el",
        "--metric-percentiles", "50,90,99", "--disable-tqdm", "--save-result", "--save-detailed",
        "--result-dir", folder, "--result-filename", name]
    if point.concurrency is not None:
        argv += ["--request-rate", "inf", "--max-concurrency", point.concurrency]
    else:
        argv += ["--request-rate", point.requests_per_s or 0]
    return started(place(wiring, wiring.prefill, "bench"), argv, dict(wiring.serving.env))
