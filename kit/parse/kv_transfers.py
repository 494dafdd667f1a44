"""Reader of the line in which a vLLM that hands KV over tells its transfers, once an interval.

Format: vLLM 0.23 to 0.32, ``kv_connector/v1/metrics.py`` and each connector's ``stats.py``; an MB there is 2^20 bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from kit.errors import ParseError

_BEGINS = "KV Transfer metrics:"
_N, _F = r"(\d{1,15})", r"(\d{1,15}(?:\.\d{1,9})?)"
_LINE = re.compile(rf"KV Transfer metrics: Num successful transfers={_N}, Avg xfer time \(ms\)={_F}, .*?"
                   rf"Avg MB per transfer={_F}, .*?Avg number of descriptors={_F}, Num failed transfers={_N}")
_MB = 2**20


@dataclass(frozen=True)
class KvTransfers:
    """All transfers of a log. ``mean_ms`` is the time of one as the sender saw it, ``pieces`` what it was cut into."""

    count: int
    failed: int
    mean_ms: float
    mean_bytes: float
    pieces: float

    @property
    def piece_bytes(self) -> float | None:
        """The size of one piece; None where nothing was sent."""
        return self.mean_bytes / self.pieces if self.pieces else None


def parse_kv_transfers(text: str) -> KvTransfers:
    """The means over every line, weighed by its transfers. Raises ParseError for a line that goes on otherwise."""
    found = [_line(line) for line in text.split("\n") if _BEGINS in line]
    count = sum(one.count for one in found)

    def mean(values: list[float]) -> float:
        return sum(value * one.count for value, one in zip(values, found, strict=True)) / count if count else 0.0

    return KvTransfers(count, sum(one.failed for one in found), mean([one.mean_ms for one in found]),
                       mean([one.mean_bytes for one in found]), mean([one.pieces for one in found]))


def _line(line: str) -> KvTransfers:
    found = _LINE.search(line)
    if found is None:      # a connector of another kind, or a damaged line: its transfers must not count as none
        raise ParseError("not a line of KV transfers", line=line[:400])
    return KvTransfers(int(found[1]), int(found[5]), float(found[2]), float(found[3]) * _MB, float(found[4]))
