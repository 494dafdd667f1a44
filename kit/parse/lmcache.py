"""Reader of what LMCache writes into vLLM's log, and its own server of later versions: lookups, stores, retrievals.

Formats: LMCache 0.3.9 and 0.5.6, integration/vllm/vllm_v1_adapter.py and v1/cache_engine.py; the multi-process server's
engine_driven_transfer.py. Sizes are printed as ``gb`` and are 2^30 bytes. The "throughput" of a store is that of
copying out of the engine and handing over, not that of the network, so it is not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from kit.errors import ParseError

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_GIB = 2**30
_N, _F = r"(\d{1,15})", r"(\d{1,15}(?:\.\d{1,9})?)"
_LOOKUP = re.compile(rf"Reqid: (\S+), Total tokens {_N}, (?:Inference Engine computed tokens: {_N}, )?"
                     rf"LMCache hit tokens: {_N}, need to load: (-?\d{{1,15}})")
_STORED = re.compile(rf"Stored {_N} out of total {_N} tokens\. size: {_F} gb, cost {_F} ms")
_RETRIEVED = re.compile(rf"Retrieved {_N} out of {_N} required tokens \(from {_N} total tokens\)\. "
                        rf"size: {_F} gb, cost {_F} ms")
_SERVED = re.compile(rf"(Stored|Retrieved) {_N} tokens in {_F} seconds")
_TROUBLE = re.compile(r"LMCache (WARNING|ERROR): ?(.*)")
# what begins a message of each kind: one that goes on otherwise is damaged, and must not count as nothing
_BEGINS = (re.compile(r"LMCache hit tokens:"), re.compile(r"\bStored \d+ out of total"),
           re.compile(r"\bRetrieved \d+ out of"))


@dataclass(frozen=True)
class Lookup:
    """How many of a request's tokens the store holds; ``load_tokens`` (need to load) leaves out what the engine has.

    ``load_tokens`` is negative where the engine already has more than the store. A request that waits is looked up
    again: see `LmcacheLog.lookup_of`.
    """

    request: str
    total_tokens: int
    hit_tokens: int
    load_tokens: int


@dataclass(frozen=True)
class Stored:
    """Tokens handed to the store: put under way, not yet landed. ``total_tokens`` is None in the server's own log."""

    tokens: int
    size_bytes: int | None
    cost_ms: float
    total_tokens: int | None = None


@dataclass(frozen=True)
class Retrieved:
    """Tokens fetched, of ``asked_tokens``; the wait includes the network."""

    tokens: int
    size_bytes: int | None
    cost_ms: float
    asked_tokens: int | None = None


@dataclass(frozen=True)
class LmcacheLog:
    """All that a log tells, in order. ``troubles`` are the warnings and errors, whole."""

    lookups: tuple[Lookup, ...] = ()
    stored: tuple[Stored, ...] = ()
    retrieved: tuple[Retrieved, ...] = ()
    troubles: tuple[str, ...] = ()

    @property
    def lookup_of(self) -> dict[str, Lookup]:
        """Request -> its last lookup: the one that was acted upon."""
        return {lookup.request: lookup for lookup in self.lookups}

    @property
    def hit_tokens(self) -> int:
        """Tokens found in the store, each request once."""
        return sum(lookup.hit_tokens for lookup in self.lookup_of.values())

    @property
    def looked_up_tokens(self) -> int:
        """Tokens looked for, each request once."""
        return sum(lookup.total_tokens for lookup in self.lookup_of.values())

    @property
    def retrieved_tokens(self) -> int:
        """Tokens that really came."""
        return sum(each.tokens for each in self.retrieved)

    @property
    def stored_tokens(self) -> int:
        """Tokens handed to the store."""
        return sum(each.tokens for each in self.stored)


def parse_lmcache_log(text: str) -> LmcacheLog:
    """A vLLM log with LMCache in it, or an LMCache server's; other lines do not matter.

    A last line without its end is still being written and not read. Raises ParseError for a damaged message: were it
    passed over, its tokens would be missing.
    """
    lookups: list[Lookup] = []
    stored: list[Stored] = []
    retrieved: list[Retrieved] = []
    troubles: list[str] = []
    for line in _messages(text.split("\n")[:-1]):
        if trouble := _TROUBLE.search(line):
            troubles.append(trouble[2].strip())
        elif row := _LOOKUP.search(line):
            lookups.append(Lookup(row[1], int(row[2]), int(row[4]), int(row[5])))
        elif row := _STORED.search(line):
            stored.append(Stored(int(row[1]), round(float(row[3]) * _GIB), float(row[4]), int(row[2])))
        elif row := _RETRIEVED.search(line):
            retrieved.append(Retrieved(int(row[1]), round(float(row[4]) * _GIB), float(row[5]), int(row[2])))
        elif row := _SERVED.search(line):
            tokens, cost_ms = int(row[2]), 1e3 * float(row[3])
            if row[1] == "Stored":
                stored.append(Stored(tokens, None, cost_ms))
            else:
                retrieved.append(Retrieved(tokens, None, cost_ms))
        elif any(begin.search(line) for begin in _BEGINS):
            raise ParseError("a damaged message of LMCache", line=line)
    return LmcacheLog(tuple(lookups), tuple(stored), tuple(retrieved), tuple(troubles))


def _messages(lines: Iterable[str]) -> Iterable[str]:
    """LMCache's lines without colours; a file that was emptied while open begins with NUL bytes."""
    for line in lines:
        if "LMCache" in line:
            yield _COLOUR.sub("", line).strip("\0\r")
