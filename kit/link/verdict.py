"""A link's verdict: did every point end as expected, does the link reach its nominal speed, has it drifted?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from kit.link.table import AXES
from kit.stats import Summary, differ, summarise

if TYPE_CHECKING:
    import pandas as pd

PASS_SHARE = 0.90     # of the nominal speed (the rule of ngc_multinode_perf)
DRIFT_SHARE = 0.05    # of the earlier run's median (the rule of superbench's data diagnosis)


@dataclass(frozen=True)
class Drift:
    """A point whose median moved against an earlier run, by more than 5 % and outside both spreads."""

    axes: str
    before: float
    now: float

    @property
    def share(self) -> float:
        return self.now / self.before - 1


@dataclass(frozen=True)
class Verdict:
    """``outcome`` is VALID or FAILED; ``bound`` PASS, WARN or NONE (no nominal speed to hold against)."""

    outcome: str
    reason: str
    expected: bool
    bound: str
    best_gbps: float | None
    best_spread: float | None
    nominal_gbps: float | None
    points: int
    failed: int
    drifted: tuple[Drift, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        text = f"{self.outcome}: {self.reason}"
        if self.best_gbps is not None:
            spread = "" if self.best_spread is None else f" (spread {self.best_spread:.0%})"
            text += f"; best median {self.best_gbps:.3g} Gb/s{spread}"
        if self.nominal_gbps is not None and self.best_gbps is not None:
            text += f", {self.best_gbps / self.nominal_gbps:.0%} of nominal {self.nominal_gbps:g} Gb/s: {self.bound}"
        if self.drifted:
            text += f"; WARN: {len(self.drifted)} points drifted"
        return text


def judge(points: pd.DataFrame, *, nominal_gbps: float | None, baseline: pd.DataFrame | None = None) -> Verdict:
    """The verdict of a whole sweep; ``points`` and ``baseline`` have the columns of `kit.link.table`."""
    failed = points[points["outcome"] != "VALID"]
    surprises = points[~points["expected"].astype(bool)]
    speeds = medians(points, "bandwidth_gbps")
    best = max(speeds.values(), key=lambda speed: speed.median, default=None)
    bound = "NONE"
    if nominal_gbps is not None:
        reached = best is not None and best.median >= PASS_SHARE * nominal_gbps
        bound = "PASS" if reached else "WARN"
    return Verdict(
        outcome="FAILED" if len(failed) else "VALID",
        reason=_reason(points, failed, surprises),
        expected=surprises.empty,
        bound=bound,
        best_gbps=best.median if best else None,
        best_spread=best.spread if best else None,
        nominal_gbps=nominal_gbps,
        points=len(points),
        failed=len(failed),
        drifted=() if baseline is None else drift(points, baseline),
    )


def medians(points: pd.DataFrame, column: str) -> dict[str, Summary]:
    """Axes -> summary over the repeats, of the valid points that have the column."""
    valid = points[(points["outcome"] == "VALID") & points[column].notna()]
    return {", ".join(map(str, axes)): summarise([float(value) for value in group[column]])
            for axes, group in valid.groupby(list(AXES), observed=True)}


def drift(points: pd.DataFrame, baseline: pd.DataFrame) -> tuple[Drift, ...]:
    """What moved since ``baseline``: by more than 5 %, and with ranges of repeats that do not overlap."""
    found = []
    for column in ("bandwidth_gbps", "t_typical_us"):
        before = medians(baseline, column)
        for axes, now in medians(points, column).items():
            old = before.get(axes)
            if old and abs(now.median / old.median - 1) > DRIFT_SHARE and differ(old, now):
                found.append(Drift(axes, old.median, now.median))
    return tuple(found)


def _reason(points: pd.DataFrame, failed: pd.DataFrame, surprises: pd.DataFrame) -> str:
    if failed.empty and surprises.empty:
        return f"all {len(points)} points measured"
    symptoms = ", ".join(sorted(set(failed["symptom"].dropna())))
    if surprises.empty:
        return f"{len(failed)} of {len(points)} points failed as expected ({symptoms})"
    if len(surprises) == len(failed):
        return f"{len(failed)} of {len(points)} points failed ({symptoms})"
    why = symptoms or "measured, though expected to fail"
    return f"{len(surprises)} of {len(points)} points did not end as expected ({why})"
