"""The transfer engine's verdict: did every point end well, and how much of the link does it reach?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from kit.engine.table import AXES
from kit.linkmodel import LinkModel
from kit.stats import Summary, summarise

if TYPE_CHECKING:
    import pandas as pd

PASS_SHARE = 0.80     # of the link's bandwidth; Mooncake's README reports 87 GB/s on 4 x 200 Gb/s, 87 %
OVER_SHARE = 1.05     # faster than the link by more than this: it did not run over it


@dataclass(frozen=True)
class Reach:
    """One operation's best median and its share of the link's; ``bound_gbps`` None where nothing is known of the link.

    ``alpha_ms`` is the fitted cost of a transfer however small, None where there are too few sizes.
    """

    operation: str
    best_gbps: float
    spread: float | None
    at: str
    bound_gbps: float | None
    alpha_ms: float | None = None
    fitted_gbps: float | None = None
    warning: str = ""

    @property
    def share(self) -> float | None:
        return self.best_gbps / self.bound_gbps if self.bound_gbps else None

    @property
    def bound(self) -> str:
        """PASS, WARN, OVER (faster than the link can be) or NONE."""
        if self.share is None:
            return "NONE"
        return "OVER" if self.share > OVER_SHARE else "PASS" if self.share >= PASS_SHARE else "WARN"

    def __str__(self) -> str:
        text = f"{self.operation} {self.best_gbps:.3g} Gb/s"
        if self.share is not None:
            text += f", {self.share:.0%} of the link's {self.bound_gbps:.3g}: {self.bound}"
        return text


@dataclass(frozen=True)
class Verdict:
    """``outcome`` VALID or FAILED; ``bound`` the worst of the operations'."""

    outcome: str
    reason: str
    expected: bool
    bound: str
    reaches: tuple[Reach, ...]
    points: int
    failed: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"reaches": [asdict(reach) | {"bound": reach.bound, "share": reach.share}
                                           for reach in self.reaches]}

    def __str__(self) -> str:
        return "; ".join([f"{self.outcome}: {self.reason}", *map(str, self.reaches)])


def judge(points: pd.DataFrame, *, lines: dict[str, LinkModel], bounds: dict[str, float]) -> Verdict:
    """The verdict of a whole sweep (columns: `kit.engine.table`); ``bounds``: operation -> the link's Gb/s."""
    failed = points[points["outcome"] != "VALID"]
    reaches = tuple(_reach(operation, group, lines.get(operation), bounds.get(operation))
                    for operation, group in best_medians(points).items())
    order = ("OVER", "WARN", "PASS", "NONE")
    symptoms = ", ".join(sorted(set(failed["symptom"].dropna())))
    reason = (f"{len(failed)} of {len(points)} points failed ({symptoms})" if len(failed)
              else f"all {len(points)} points measured")
    return Verdict("FAILED" if len(failed) else "VALID", reason, failed.empty and len(points) > 0,
                   next((name for name in order if any(reach.bound == name for reach in reaches)), "NONE"),
                   reaches, len(points), len(failed))


def best_medians(points: pd.DataFrame) -> dict[str, tuple[str, Summary]]:
    """Operation -> the axes of its fastest point, and that point's repeats in Gb/s."""
    valid = points[points["outcome"] == "VALID"]
    best: dict[str, tuple[str, Summary]] = {}
    for axes, group in valid.groupby(list(AXES), observed=True):
        found = summarise([float(value) for value in group["throughput_gbps"]])
        operation = str(axes[0])
        if operation not in best or found.median > best[operation][1].median:
            _, block, batch, threads, protocol, memory, direction = axes
            best[operation] = (f"{batch} x {block} B, {threads} threads, {protocol}, {memory}, {direction}", found)
    return best


def link_bounds(link: pd.DataFrame) -> dict[str, float]:
    """Operation -> best median Gb/s of perftest's bandwidth tool (columns: `kit.link.table`)."""
    from kit.link.verdict import medians

    bounds = {}
    for operation in ("read", "write"):
        speeds = medians(link[link["tool"] == f"ib_{operation}_bw"], "bandwidth_gbps")
        if speeds:
            bounds[operation] = max(speed.median for speed in speeds.values())
    return bounds


def _reach(operation: str, best: tuple[str, Summary], line: LinkModel | None, bound_gbps: float | None) -> Reach:
    at, speed = best
    if line is None:
        return Reach(operation, speed.median, speed.spread, at, bound_gbps)
    return Reach(operation, speed.median, speed.spread, at, bound_gbps, line.alpha_s.value * 1e3, line.gbps.value,
                 line.warning)
