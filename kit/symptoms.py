"""Known failures by name: what the tools print when something is wrong, and what to do about it.

The table is ``symptoms.toml``, beside this file; its order matters (most specific first).
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources

from kit.errors import ParseError

_TRANSPORT = re.compile(r"Transport[ _]type\"?[ \t]*:[ \t]*\"?(\w+)")
_LONGEST_LINE = 400


@dataclass(frozen=True)
class Symptom:
    """One known failure. ``kind``: local, link, consequence or judged, as the table explains. Low ``rank`` wins.

    ``area``: whose text shows it, ``rdma`` (perftest and its kin) or ``serving`` (vLLM, LMCache, Mooncake).
    ``cause`` is the likely cause in a few words, of rows that a verdict concludes.
    """

    name: str
    remedy: str
    source: str
    kind: str = "judged"
    rank: int = 0
    area: str = "rdma"
    cause: str = ""


@dataclass(frozen=True)
class _Rule:
    symptom: Symptom
    patterns: tuple[re.Pattern[str], ...]
    transports: tuple[str, ...] | None


@cache
def _rules() -> tuple[_Rule, ...]:
    table = tomllib.loads((resources.files("kit") / "symptoms.toml").read_text(encoding="utf-8"))
    rules = []
    for rank, row in enumerate(table["symptom"]):
        symptom = Symptom(row["name"], row["remedy"], row["source"], row.get("kind", "judged"), rank,
                          row.get("area", "rdma"), row.get("cause", ""))
        patterns = tuple(re.compile(pattern, re.MULTILINE) for pattern in row.get("patterns", ()))
        transports = tuple(row["transport"]) if "transport" in row else None
        rules.append(_Rule(symptom, patterns, transports))
    return tuple(rules)


def all_symptoms() -> tuple[Symptom, ...]:
    """Every row of the table, in its order."""
    return tuple(rule.symptom for rule in _rules())


def named(name: str) -> Symptom:
    """The symptom of this name. KeyError: no such row, a slip in the caller."""
    for rule in _rules():
        if rule.symptom.name == name:
            return rule.symptom
    raise KeyError(name)


def find(text: str, *, transport: str | None = None, area: str = "rdma") -> tuple[Symptom, str] | None:
    """The most specific known failure in the text, with the line that shows it. None: nothing known.

    Only rows of ``area`` count: a port in use means one thing to perftest and another to a server.

    The same words mean different things on iWARP and on RoCE, so the device's transport (``IB``, ``IW``) counts;
    where it is not given, perftest's own header in the text tells it.
    """
    if transport is None:
        stated = _TRANSPORT.search(text)
        transport = stated.group(1) if stated else ""
    for rule in _rules():
        if rule.symptom.area != area:
            continue
        if rule.transports is not None and transport not in rule.transports:
            continue
        for pattern in rule.patterns:
            match = pattern.search(text)
            if match:
                return rule.symptom, _line_at(text, match.start())
    return None


def error(name: str, what: str, *, line: str = "") -> ParseError:
    """A ParseError that carries the named symptom and its remedy."""
    return ParseError(what, line=line[:_LONGEST_LINE], symptom=name, remedy=named(name).remedy)


def _line_at(text: str, start: int) -> str:
    begin = text.rfind("\n", 0, start) + 1
    end = text.find("\n", start)
    return text[begin : len(text) if end < 0 else end].strip()[:_LONGEST_LINE]
