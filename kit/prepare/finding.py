"""What a check found: which stage it stops or spoils, on which node, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Weight = Literal["stops", "spoils", "unknown"]
_WORST_FIRST: dict[Weight, int] = {"stops": 0, "spoils": 1, "unknown": 2}


@dataclass(frozen=True)
class Finding:
    """``weight``: stops (the stage cannot run), spoils (it runs, and its numbers say less), unknown (not checked).

    ``stage`` is the first one that feels it; ``node`` is a, b, or ``a, b``.
    """

    weight: Weight
    stage: str
    node: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.weight} {self.stage} (node {self.node}): {self.what}\n  remedy: {self.remedy}"


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """By weight, then by the stage it is felt in; the same finding of both nodes becomes one."""
    nodes: dict[tuple[Weight, str, str, str], list[str]] = {}
    for it in findings:
        nodes.setdefault((it.weight, it.stage, it.what, it.remedy), []).append(it.node)
    merged = [Finding(weight, stage, ", ".join(dict.fromkeys(where)), what, remedy)
              for (weight, stage, what, remedy), where in nodes.items()]
    return sorted(merged, key=lambda it: (_WORST_FIRST[it.weight], it.stage, it.node))
