"""`kit predict`: what a prompt's KV cache weighs, how long the link takes for it, what share of a prefill that is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from kit import kv, linkmodel
from kit.errors import ParamsError
from kit.kv import CacheDtype, KvShape
from kit.linkmodel import Estimate, LinkModel

_NEAR = 0.1     # a prompt within 10 % of the asked length counts as one of that length


@dataclass(frozen=True)
class Way:
    """One way over the link: an operation, the time it takes, and why to doubt it."""

    operation: str
    milliseconds: Estimate
    gbps: Estimate
    warning: str = ""


@dataclass(frozen=True)
class Prediction:
    """``prefill_ms`` is measured, where a run was given; ``share`` is each way's time over it."""

    model_type: str
    tokens: int
    dtype: str
    tp: int
    unit_tokens: int
    bytes_per_token: int
    state_bytes: int
    request_bytes: int
    ways: tuple[Way, ...] = ()
    prefill_ms: float | None = None

    def share(self, way: Way) -> float | None:
        return way.milliseconds.value / self.prefill_ms if self.prefill_ms else None

    def to_dict(self) -> dict[str, Any]:
        ways = [asdict(way) | {"share_of_prefill": self.share(way)} for way in self.ways]
        return asdict(self) | {"ways": ways}

    def lines(self) -> list[str]:
        """For a person: one fact a line."""
        found = [f"bytes a token: {self.bytes_per_token:,} ({self.model_type}, {self.dtype}"
                 + (f", over {self.tp} ranks)" if self.tp > 1 else ")")]
        if self.state_bytes:
            found.append(f"state a request: {self.state_bytes:,} bytes, whatever its length")
        found.append(f"{self.tokens} tokens: {self.request_bytes:,} bytes ({self.request_bytes / 2**20:.4g} MiB)"
                     + (f", in blocks of {self.unit_tokens}" if self.unit_tokens > 1 else ""))
        for way in self.ways:
            share = self.share(way)
            found.append(f"{way.operation}: {way.milliseconds.text()} ms at {way.gbps.text()} Gb/s"
                         + (f", {share:.0%} of the measured prefill ({self.prefill_ms:.4g} ms)" if share else ""))
            if way.warning:
                found.append(f"  careful: {way.warning}")
        return found


def predict(shape: KvShape, tokens: int, *, dtype: CacheDtype = "bf16", tp: int = 1, unit_tokens: int = 1,
            lines: dict[str, LinkModel] | None = None, prefill_ms: float | None = None) -> Prediction:
    """The prediction for a prompt of ``tokens``. Raises ParamsError for what makes no sense."""
    if tokens < 1:
        raise ParamsError(f"a prompt of {tokens} tokens: give a number of at least 1")
    size = kv.request_bytes(shape, tokens, dtype, tp=tp, unit_tokens=unit_tokens)
    ways = tuple(Way(line.operation, line.seconds(size).scaled(1e3), line.gbps, line.caution(size))
                 for line in (lines or {}).values())
    return Prediction(shape.model_type, tokens, dtype, tp, unit_tokens, kv.bytes_per_token(shape, dtype, tp=tp),
                      kv.state_bytes(shape, tp=tp), size, ways, prefill_ms)


def lines_of(path: str | Path) -> dict[str, LinkModel]:
    """Operation -> line, from the points of a link or a transfer-engine run; empty for a run of another kind.

    Raises ParamsError for a transfer-engine run without a valid point.
    """
    from kit.engine.table import samples_of_engine
    from kit.store import open_run

    run = open_run(path)
    if not (run.folder / "points.parquet").exists():
        return {}
    points = run.points
    if "block_bytes" in points.columns:
        samples = samples_of_engine(points)
        if not samples:
            raise ParamsError(f"{path} has no valid point", remedy="see its verdict, and sweep again")
        return linkmodel.fit_each(samples)
    return linkmodel.fit_each(linkmodel.samples_of_link(points)) if "t_typical_us" in points.columns else {}


def engine_lines(paths: Sequence[str | Path], piece_bytes: float | None) -> dict[str, LinkModel]:
    """Operation -> line, from the points of transfer-engine runs that were swept in about such pieces."""
    import pandas as pd

    from kit.engine.table import like_pieces, samples_of_engine
    from kit.store import open_run

    points = pd.concat([open_run(path).points for path in paths], ignore_index=True)
    first = points.iloc[0]      # of the first protocol and memory, which alone bear comparison
    return linkmodel.fit_each(samples_of_engine(like_pieces(points, piece_bytes), protocol=first["protocol"],
                                                memory=first["memory"]))


def prefill_of(path: str | Path, tokens: int) -> float | None:
    """The measured TTFT in ms of prompts of about this length: of a detailed benchmark, as file or in a run's folder.

    The median of the prompts within 10 % of the length, else between the medians of the next shorter and longer ones;
    None where nothing is near. Raises ParseError for a file that is no benchmark.
    """
    from kit.parse.bench import parse_bench

    found: dict[int, list[float]] = {}
    for file in _bench_files(Path(path)):
        for request in parse_bench(file.read_text()).requests:
            if request.ok and request.ttft_ms is not None:
                found.setdefault(request.prompt_tokens, []).append(request.ttft_ms)
    near = [value for length, values in found.items() if abs(length / tokens - 1) <= _NEAR for value in values]
    if near:
        return median(near)
    below, above = (max((n for n in found if n < tokens), default=None), min((n for n in found if n > tokens),
                                                                            default=None))
    if below is None or above is None:
        return None
    low, high = median(found[below]), median(found[above])
    return low + (high - low) * (tokens - below) / (above - below)


def _bench_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return [file for file in sorted(path.rglob("*.json")) if _is_bench(file)]


def _is_bench(file: Path) -> bool:
    """Whether it is a detailed result of `vllm bench serve`."""
    try:
        value = json.loads(file.read_text())
    except (OSError, ValueError):
        return False
    return isinstance(value, dict) and {"ttfts", "itls", "input_lens"} <= set(value)
