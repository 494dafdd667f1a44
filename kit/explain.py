"""Where the first tokens' time goes: a prefill/decode run beside its aggregated baseline, part by part.

What a client sees depends on who sends the first token:

decoder     the proxy streams the decoder alone: ``ttft = prefill + queueing + hand-over + one decode step``
prefiller   the proxy sends the prefiller's token first: the hand-over lies between the first token and the second,
            ``first_itl = hand-over + queueing + one decode step``, and the TTFT shows nothing of it

The prefill is the baseline's TTFT, a decode step the median time a token. Queueing can be told apart only by a quiet
run (concurrency 1) of the same stack; without one, a run at higher concurrency has it inside its hand-over. Parts are
medians over requests, so they add up to the median TTFT; intervals are 95 % bootstrap percentiles (B. Efron, Annals of
Statistics 7, 1979) with a fixed seed. A prediction is `kit.linkmodel`'s time for the bytes that must move.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from kit.errors import ParamsError
from kit.linkmodel import CONFIDENCE, Estimate, LinkModel

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

FirstToken = Literal["prefiller", "decoder"]
AGGREGATED, SPLIT = "aggregated", "prefill/decode"
PREFILL, QUEUEING, HANDOVER, DECODE = "prefill", "queueing", "hand-over", "decode"

COLUMNS = ("prompt_tokens", "ttft_ms", "first_itl_ms", "tpot_ms", "e2e_ms")
_NEAR = 0.1            # prompts within 10 % of the shortest of them are one length
_DRAWS, _SEED = 1000, 20_071


@dataclass(frozen=True)
class Served:
    """One benchmark's requests: one row each, with the columns of `COLUMNS` (those of `kit.parse.bench.Request`).

    Failed requests must not be in it.
    """

    name: str
    rows: pd.DataFrame
    concurrency: int


@dataclass(frozen=True)
class Part:
    """A share of the time to the first (``where`` ttft) or from the first to the second token (first_itl), in ms."""

    stack: str
    where: str
    name: str
    ms: Estimate


@dataclass(frozen=True)
class Explanation:
    """One prompt length. ``predicted_ms`` and ``residual_ms`` (measured less predicted): by source, link or engine.

    ``separable`` is False where queueing could not be told from the hand-over.
    """

    prompt_tokens: int
    requests: int
    baseline_requests: int
    concurrency: int
    first_from: FirstToken
    size_bytes: int
    parts: tuple[Part, ...]
    handover_ms: Estimate
    predicted_ms: Mapping[str, Estimate]
    residual_ms: Mapping[str, Estimate]
    separable: bool
    prefill_ms: Estimate
    saved_ms: Estimate      # end to end against the aggregated stack, if the hand-over took no time
    gain_ms: Estimate       # end to end against the aggregated stack, as it is

    @property
    def handover_gbps(self) -> float | None:
        """Bytes that had to move over the time they took, in 1e9 bits a second; None where it took none."""
        return self.size_bytes * 8e-6 / self.handover_ms.value if self.handover_ms.value > 0 else None

    @property
    def pays(self) -> bool | None:
        """Whether a request ends earlier than on the aggregated stack; None where the interval leaves it open."""
        low, high = self.gain_ms.low, self.gain_ms.high
        if low is None or high is None or low <= 0 <= high:
            return None
        return low > 0

    def total_ms(self, stack: str, where: str) -> float:
        return sum(part.ms.value for part in self.parts if part.stack == stack and part.where == where)

    def share(self, part: Part) -> float:
        """Of its stack's TTFT or first inter-token gap."""
        total = self.total_ms(part.stack, part.where)
        return part.ms.value / total if total else 0.0

    def lines(self) -> list[str]:
        """For a person: one finding a line."""
        where = "ttft" if self.first_from == "decoder" else "first_itl"
        shown = "TTFT" if where == "ttft" else "first inter-token gap"
        share = self.handover_ms.value / self.total_ms(SPLIT, where) if self.total_ms(SPLIT, where) else 0.0
        found = [f"{self.prompt_tokens} tokens: hand-over {self.handover_ms.text()} ms, {share:.0%} of the {shown}"
                 + ("" if self.separable else ", queueing included")]
        if self.handover_gbps is not None:
            found[0] += f", {self.handover_gbps:.3g} Gb/s over {self.size_bytes / 2**20:.4g} MiB"
        for source, predicted in self.predicted_ms.items():
            rest = self.residual_ms[source]
            found.append(f"  {source} predicts {predicted.text()} ms; unexplained {rest.text()} ms"
                         + (f", {rest.value / self.handover_ms.value:.0%}" if self.handover_ms.value > 0 else ""))
        return found


def explain(run: Served, baseline: Served, *, first_from: FirstToken, size_of: Callable[[int], int],
            predicted: Mapping[str, LinkModel], quiet: Served | None = None,
            quiet_baseline: Served | None = None) -> list[Explanation]:
    """One explanation a prompt length that both runs have, shortest first.

    ``size_of`` gives the bytes to move for a prompt of so many tokens (`kit.kv.request_bytes`); ``predicted`` the lines
    to hold against, by name. ``quiet`` and ``quiet_baseline`` are the same stacks at concurrency 1. Where the nodes'
    GPUs differ, the baseline has to be the prefill node's. Raises ParamsError where no length is common.
    """
    groups = {name: _lengths(served) for name, served in (("run", run), ("baseline", baseline), ("quiet", quiet),
                                                          ("quiet_baseline", quiet_baseline)) if served is not None}
    found = []
    for tokens in groups["run"]:
        rows = {name: near for name, lengths in groups.items() if (near := _near(lengths, tokens)) is not None}
        if "baseline" in rows:
            found.append(_explain_length(tokens, rows, run.concurrency, first_from, size_of(tokens), predicted))
    if not found:
        raise ParamsError(f"{run.name} and {baseline.name} have no prompt length in common",
                          remedy="run the baseline with the same workload")
    return found


def link_use(total_bytes: float, wall_s: float, line: LinkModel) -> float:
    """The share of the link that a run used: all its bytes over its wall time, over the link's bandwidth.

    Never over the sum of the transfers' durations: transfers overlap (vLLM issue 48224). Raises ParamsError.
    """
    if wall_s <= 0 or total_bytes < 0:
        raise ParamsError(f"{total_bytes:g} bytes in {wall_s:g} s: no use of a link can be told from that")
    return total_bytes / wall_s / line.bytes_per_s.value


def needed_gbps(explanation: Explanation, *, share_of_prefill: float | None = None) -> float | None:
    """The hand-over rate from which on prefill/decode pays at this length, in 1e9 bits a second.

    With ``share_of_prefill``: the rate at which the hand-over takes that share of the prefill. Without: the rate at
    which a request ends as early as on the aggregated stack, given what it saves elsewhere; None where that is nothing.
    """
    spare_ms = explanation.saved_ms.value if share_of_prefill is None \
        else share_of_prefill * explanation.prefill_ms.value
    return explanation.size_bytes * 8e-6 / spare_ms if spare_ms > 0 else None


def percent(share: float) -> str:
    """A share in words that never round a little to nothing."""
    return "under 1%" if 0 < share < 0.01 else f"{share:.0%}"


def parts_table(explanations: list[Explanation]) -> pd.DataFrame:
    """All parts, tidy: one row a length, stack, place and part, with interval and share."""
    import pandas as pd

    return pd.DataFrame([{
        "prompt_tokens": each.prompt_tokens, "stack": part.stack, "where": part.where, "part": part.name,
        "ms": part.ms.value, "low_ms": part.ms.low, "high_ms": part.ms.high, "share": each.share(part),
    } for each in explanations for part in each.parts])


def predictions_table(explanations: list[Explanation]) -> pd.DataFrame:
    """Predicted beside measured: one row a length and source. ``error``: predicted over measured, less one."""
    import pandas as pd

    return pd.DataFrame([{
        "prompt_tokens": each.prompt_tokens, "size_mib": each.size_bytes / 2**20, "source": source,
        **_columns("predicted", told), **_columns("measured", each.handover_ms),
        **_columns("residual", each.residual_ms[source]),
        "error": told.value / each.handover_ms.value - 1 if each.handover_ms.value > 0 else None,
    } for each in explanations for source, told in each.predicted_ms.items()])


def _columns(name: str, told: Estimate) -> dict[str, float | None]:
    return {f"{name}_ms": told.value, f"{name}_low_ms": told.low, f"{name}_high_ms": told.high}


def _lengths(served: Served) -> dict[int, np.ndarray]:
    """Prompt length -> its requests as an array (ttft, first_itl, tpot, e2e), lengths within 10 % together."""
    missing = [name for name in COLUMNS if name not in served.rows.columns]
    if missing:
        raise ParamsError(f"{served.name}: the requests have no {', '.join(missing)}",
                          remedy="save the benchmark with --save-detailed")
    rows = served.rows.dropna(subset=list(COLUMNS)).sort_values("prompt_tokens")
    starts: list[float] = []
    for tokens in rows["prompt_tokens"]:
        if not starts or tokens > starts[-1] * (1 + _NEAR):
            starts.append(float(tokens))
    found = {}
    for start in starts:
        near = rows[(rows["prompt_tokens"] >= start) & (rows["prompt_tokens"] <= start * (1 + _NEAR))]
        found[int(near["prompt_tokens"].median())] = near[list(COLUMNS[1:])].to_numpy(dtype=float)
    return found


def _near(lengths: dict[int, np.ndarray], tokens: int) -> np.ndarray | None:
    """The requests of the length nearest to ``tokens``, if it is within 10 %."""
    best = min(lengths, key=lambda length: abs(length - tokens), default=None)
    return lengths[best] if best is not None and abs(best - tokens) <= _NEAR * tokens else None


def _explain_length(tokens: int, rows: dict[str, np.ndarray], concurrency: int, first_from: FirstToken,
                    size_bytes: int, predicted: Mapping[str, LinkModel]) -> Explanation:
    estimates = _bootstrapped(rows, lambda drawn: _quantities(drawn, first_from))
    parts = tuple(Part(stack, where, name, estimates[f"{stack}/{where}/{name}"])
                  for stack, where, name in _PLACES[first_from])
    handover = estimates["handover"]
    told = {source: line.seconds(size_bytes).scaled(1e3) for source, line in predicted.items()}
    return Explanation(
        prompt_tokens=tokens, requests=len(rows["run"]), baseline_requests=len(rows["baseline"]),
        concurrency=concurrency, first_from=first_from, size_bytes=size_bytes, parts=parts,
        handover_ms=handover, predicted_ms=told,
        residual_ms={source: _less(handover, each) for source, each in told.items()},
        separable=concurrency == 1 or "quiet" in rows, prefill_ms=estimates["prefill"], saved_ms=estimates["saved"],
        gain_ms=estimates["gain"])


_PLACES: dict[str, list[tuple[str, str, str]]] = {
    "decoder": [(AGGREGATED, "ttft", PREFILL), (AGGREGATED, "ttft", QUEUEING), (AGGREGATED, "first_itl", DECODE),
                (SPLIT, "ttft", PREFILL), (SPLIT, "ttft", QUEUEING), (SPLIT, "ttft", HANDOVER), (SPLIT, "ttft", DECODE),
                (SPLIT, "first_itl", DECODE)],
    "prefiller": [(AGGREGATED, "ttft", PREFILL), (AGGREGATED, "ttft", QUEUEING), (AGGREGATED, "first_itl", DECODE),
                  (SPLIT, "ttft", PREFILL), (SPLIT, "ttft", QUEUEING), (SPLIT, "first_itl", HANDOVER),
                  (SPLIT, "first_itl", QUEUEING), (SPLIT, "first_itl", DECODE)],
}


def _quantities(rows: dict[str, np.ndarray], first_from: FirstToken) -> dict[str, float]:
    """Every part from the medians of one set of requests; columns: ttft, first_itl, tpot, e2e."""
    import numpy as np

    ttft, itl, step, e2e = np.median(rows["run"], axis=0)
    base_ttft, base_itl, _, base_e2e = np.median(rows["baseline"], axis=0)
    prefill = float(np.median(rows["quiet_baseline"][:, 0])) if "quiet_baseline" in rows else base_ttft
    quiet_ttft, quiet_itl, quiet_step, _ = np.median(rows["quiet" if "quiet" in rows else "run"], axis=0)
    found = {f"{AGGREGATED}/ttft/{PREFILL}": prefill, f"{AGGREGATED}/ttft/{QUEUEING}": base_ttft - prefill,
             f"{AGGREGATED}/first_itl/{DECODE}": base_itl, f"{SPLIT}/ttft/{PREFILL}": prefill, "prefill": prefill}
    if first_from == "decoder":
        handover = quiet_ttft - prefill - quiet_step
        found |= {f"{SPLIT}/ttft/{QUEUEING}": ttft - prefill - handover - step, f"{SPLIT}/ttft/{HANDOVER}": handover,
                  f"{SPLIT}/ttft/{DECODE}": step, f"{SPLIT}/first_itl/{DECODE}": itl}
    else:
        handover = quiet_itl - quiet_step
        found |= {f"{SPLIT}/ttft/{QUEUEING}": ttft - prefill, f"{SPLIT}/first_itl/{HANDOVER}": handover,
                  f"{SPLIT}/first_itl/{QUEUEING}": itl - handover - step, f"{SPLIT}/first_itl/{DECODE}": step}
    return {name: float(value) for name, value in
            (found | {"handover": handover, "saved": base_e2e - (e2e - handover), "gain": base_e2e - e2e}).items()}


def _bootstrapped(rows: dict[str, np.ndarray],
                  compute: Callable[[dict[str, np.ndarray]], dict[str, float]]) -> dict[str, Estimate]:
    """Each quantity with the interval that resampling the requests gives it; none for fewer than three requests."""
    import numpy as np

    values = compute(rows)
    if min(len(group) for group in rows.values()) < 3:
        return {name: Estimate(value) for name, value in values.items()}
    draw = np.random.default_rng(_SEED)
    drawn = [compute({name: group[draw.integers(0, len(group), len(group))] for name, group in rows.items()})
             for _ in range(_DRAWS)]
    tail = 100 * (1 - CONFIDENCE) / 2
    spans = {name: np.percentile([each[name] for each in drawn], (tail, 100 - tail)) for name in values}
    return {name: Estimate(value, float(spans[name][0]), float(spans[name][1])) for name, value in values.items()}


def _less(measured: Estimate, told: Estimate) -> Estimate:
    """Measured less predicted; the half-widths add in quadrature, as of independent errors."""
    value = measured.value - told.value
    ends: list[float | None] = []
    for ours, theirs, sign in ((measured.low, told.high, -1), (measured.high, told.low, 1)):
        if ours is None:
            ends.append(None)
            continue
        other = 0.0 if theirs is None else theirs - told.value
        ends.append(value + sign * math.hypot(ours - measured.value, other))
    return Estimate(value, *ends)
