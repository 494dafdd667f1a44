"""Parameters of the launch stage and of the serving benchmark."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from kit.params.closed import Closed, Name, an_axis

Tokens = Annotated[int, Field(ge=1, le=10_000_000)]


class ServeExpect(Closed):
    """A stack that is expected not to be VALID, and the symptom that its verdict must name."""

    stack: Name
    outcome: Literal["invalid", "failed"]
    symptom: str


class LaunchParams(Closed):
    """Parameters of ``05_pd_launch``: one stack, launched, checked with one prompt, and ended again.

    ``prompt_tokens`` times ``concurrency`` is the load that the store must hold. ``keep`` leaves the stack running, for
    at most ``lifetime_s``; `kit pd down SITE STACK` ends it.
    """

    stack: Name = "lmcache-mooncake"
    prompt_tokens: Tokens = 600
    output_tokens: Tokens = 16
    concurrency: Annotated[int, Field(ge=1)] = 8
    lifetime_s: Annotated[float, Field(ge=60)] = 7200
    keep: bool = False
    expect: list[ServeExpect] = []


class ServeBenchParams(Closed):
    """Parameters of ``06_serve_bench``. Axes: stacks x input lengths x output lengths x loads, ``repeats`` times.

    A load is a concurrency (a closed loop) or a request rate a second (an open one). Every repeat has its own seed, so
    that no prompt is ever seen twice. ``share`` of the KV bytes expected must be seen to move. ``slo_ms`` are limits of
    ``ttft_ms``, ``tpot_ms`` and ``e2e_ms`` for the goodput.
    """

    stacks: list[Name] = ["aggregated", "lmcache-mooncake"]
    input_tokens: list[Tokens] = [512]
    output_tokens: list[Tokens] = [64]
    concurrency: list[Annotated[int, Field(ge=1, le=100_000)]] = [4]
    requests_per_s: list[Annotated[float, Field(gt=0)]] = []
    prompts: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    range_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.0
    repeats: Annotated[int, Field(ge=1, le=100)] = 3
    warmups: Annotated[int, Field(ge=0, le=1000)] = 1
    seed: Annotated[int, Field(ge=0, le=2**31)] = 1
    share: Annotated[float, Field(gt=0, le=1)] = 0.9
    slo_ms: dict[Literal["ttft_ms", "tpot_ms", "e2e_ms"], Annotated[float, Field(gt=0)]] = {}
    deadline_s: Annotated[float, Field(gt=0, le=86400)] = 600
    expect: list[ServeExpect] = []

    @field_validator("stacks", "input_tokens", "output_tokens")
    @classmethod
    def _an_axis(cls, values: list[object]) -> list[object]:
        return an_axis(values)

    @model_validator(mode="after")
    def _one_kind_of_load(self) -> ServeBenchParams:
        if bool(self.concurrency) == bool(self.requests_per_s):
            raise ValueError("give concurrency or requests_per_s; an empty list leaves one out")
        return self
