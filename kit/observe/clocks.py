"""A request's first token by the engine's own clock: vLLM's histograms, as they were sampled.

vLLM tells three times of each request (``vllm/v1/metrics/loggers.py``): from its arrival to the first token, the wait
until it is scheduled, and from then on to the first token. A decoder whose KV cache is on its way waits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.observe.table import growth

if TYPE_CHECKING:
    import pandas as pd

_NAMES = {"ttft_ms": "vllm:time_to_first_token_seconds", "waits_ms": "vllm:request_queue_time_seconds",
          "computes_ms": "vllm:request_prefill_time_seconds"}


@dataclass(frozen=True)
class Clock:
    """Means over one engine's requests. What of ``ttft_ms`` is neither wait nor computing is its front end's: text to
    tokens, and the answer."""

    ttft_ms: float
    waits_ms: float
    computes_ms: float


def clock(samples: pd.DataFrame, node: str) -> Clock | None:
    """What the engine on a node says of the requests of these samples; None where it says nothing."""
    here = samples[(samples["node"] == node) & samples["name"].str.startswith(tuple(_NAMES.values()))]
    grown = growth(here).groupby("name", observed=True)["growth"].sum()
    told = {}
    for field, name in _NAMES.items():
        requests = grown.get(f"{name}_count", 0.0)
        if not requests:
            return None
        told[field] = 1e3 * grown[f"{name}_sum"] / requests
    return Clock(**told)
