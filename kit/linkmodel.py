"""The link as a straight line: ``t = alpha + bytes / beta``, fitted by robust least squares with its uncertainty.

The form is the usual one of message passing (R. Hockney, "The communication challenge for MPP", Parallel Computing 20,
1994): ``alpha`` is what a transfer costs however small it is, ``beta`` the rate it tends to. Residuals are logs of
ratios, so that a short transfer weighs as much as a long one and twice the time as much as half of it; a soft-L1 loss
keeps a single bad row from bending the line.
Reads and writes are fitted apart: a store's put is a WRITE, its get a READ, and on eRDMA they differ several-fold.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from kit.errors import ParamsError

if TYPE_CHECKING:
    import pandas as pd

CONFIDENCE = 0.95
STRAIGHT_SHARE = 0.15    # a size whose median lies further off than this is not on the line
_SOFT = 0.1              # relative residual from which on a row counts less
_FAR = 4.0               # a prediction for this many times the largest measured size is a guess at a distance
_NOTHING = 1e-6          # of the shortest transfer's time: a start-up cost below this is none
_NARROW = 4.0            # sizes must span this factor for alpha and beta to be told apart


@dataclass(frozen=True)
class Sample:
    """One timed transfer. ``operation``: read | write."""

    operation: str
    size_bytes: float
    seconds: float


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; without an interval where there is nothing to tell it from."""

    value: float
    low: float | None = None
    high: float | None = None

    def scaled(self, factor: float) -> Estimate:
        return Estimate(self.value * factor, *(None if end is None else end * factor for end in (self.low, self.high)))

    def text(self, digits: int = 3) -> str:
        """``12.3 (11.9 to 12.8)``"""
        if self.low is None or self.high is None:
            return short(self.value, digits)
        return f"{short(self.value, digits)} ({short(self.low, digits)} to {short(self.high, digits)})"


def short(value: float, digits: int = 3) -> str:
    """So many significant digits, and never an exponent for a large number."""
    return f"{value:.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


@dataclass(frozen=True)
class LinkModel:
    """``seconds = alpha_s + size_bytes * per_byte_s``. ``warning``: why the line is not to be trusted, or empty."""

    operation: str
    alpha_s: Estimate
    per_byte_s: Estimate
    covariance: tuple[float, float, float] | None = None    # of alpha and per-byte: aa, ab, bb
    scatter: float | None = None                            # relative, of one transfer about the line
    degrees: int = 0                                        # of freedom
    worst_share: float = 0.0                                # largest relative distance of a size's median from the line
    samples: int = 0
    warning: str = ""
    largest_bytes: float | None = None                      # of the transfers that the line was fitted to

    @property
    def bytes_per_s(self) -> Estimate:
        low, high = self.per_byte_s.low, self.per_byte_s.high
        return Estimate(1 / self.per_byte_s.value, 1 / high if high else None, 1 / low if low else None)

    @property
    def gbps(self) -> Estimate:
        """The rate that long transfers tend to, in 1e9 bits a second."""
        return self.bytes_per_s.scaled(8e-9)

    def seconds(self, size_bytes: float) -> Estimate:
        """The time of one transfer, with the interval that a single measurement should fall into."""
        value = self.alpha_s.value + size_bytes * self.per_byte_s.value
        if self.covariance is None or self.scatter is None:
            return Estimate(value)
        from scipy.stats import t as student

        aa, ab, bb = self.covariance
        spread = aa + 2 * size_bytes * ab + size_bytes**2 * bb + (self.scatter * value) ** 2
        half = float(student.ppf((1 + CONFIDENCE) / 2, self.degrees)) * math.sqrt(max(spread, 0.0))
        return Estimate(value, max(0.0, value - half), value + half)

    def caution(self, size_bytes: float) -> str:
        """Why a prediction for so many bytes is not to be trusted; empty where nothing speaks against it."""
        if self.largest_bytes is not None and size_bytes > _FAR * self.largest_bytes:
            times = size_bytes / self.largest_bytes
            far = f"{times:.0f} times the largest transfer measured ({self.largest_bytes:.0f} B)"
            return "; ".join(filter(None, (self.warning, far)))
        return self.warning

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def nominal(gbps: float, *, operation: str = "any") -> LinkModel:
    """A link by its promised speed alone (1e9 bits a second): no start-up cost, no interval. Raises ParamsError."""
    if not (gbps > 0 and math.isfinite(gbps)):
        raise ParamsError(f"a link of {gbps:g} Gb/s: the speed must be above 0")
    return LinkModel(operation, Estimate(0.0), Estimate(8e-9 / gbps))


def from_dict(values: dict[str, Any]) -> LinkModel:
    """What `LinkModel.to_dict` gave, after a way through JSON."""
    covariance = values["covariance"]
    return LinkModel(**{**values, "alpha_s": Estimate(**values["alpha_s"]),
                        "per_byte_s": Estimate(**values["per_byte_s"]),
                        "covariance": None if covariance is None else tuple(covariance)})


def in_turn(first: LinkModel, second: LinkModel) -> LinkModel:
    """One transfer after the other over the same bytes, as a store's put (write) and get (read): times add."""
    def added(a: Estimate, b: Estimate) -> Estimate:
        if a.low is None or a.high is None or b.low is None or b.high is None:
            return Estimate(a.value + b.value)
        value = a.value + b.value
        return Estimate(value, max(0.0, value - math.hypot(a.value - a.low, b.value - b.low)),
                        value + math.hypot(a.high - a.value, b.high - b.value))

    covariance = scatter = None
    if first.covariance is not None and second.covariance is not None:
        one, other = first.covariance, second.covariance
        covariance = (one[0] + other[0], one[1] + other[1], one[2] + other[2])
        scatter = max(first.scatter or 0.0, second.scatter or 0.0)
    return LinkModel(f"{first.operation} then {second.operation}", added(first.alpha_s, second.alpha_s),
                     added(first.per_byte_s, second.per_byte_s), covariance, scatter,
                     min(first.degrees, second.degrees), max(first.worst_share, second.worst_share),
                     first.samples + second.samples, "; ".join(filter(None, (first.warning, second.warning))),
                     min((line.largest_bytes for line in (first, second) if line.largest_bytes is not None),
                         default=None))


def of_share(line: LinkModel, share: float) -> LinkModel:
    """The line for a whole of which only this share goes that way; what a transfer costs to begin stays."""
    aa, ab, bb = line.covariance or (0.0, 0.0, 0.0)
    return replace(line, per_byte_s=line.per_byte_s.scaled(share),
                   covariance=line.covariance and (aa, ab * share, bb * share**2),
                   largest_bytes=None if line.largest_bytes is None else line.largest_bytes / share)


def fit(samples: Sequence[Sample], *, operation: str = "any") -> LinkModel:
    """The line through the samples of one operation. Raises ParamsError for fewer than two sizes."""
    good = [sample for sample in samples if sample.size_bytes > 0 and sample.seconds > 0]
    sizes = sorted({sample.size_bytes for sample in good})
    if len(sizes) < 2:
        raise ParamsError(f"{operation}: a line needs timed transfers of at least two sizes, found {len(sizes)}",
                          remedy="sweep more message or block sizes")
    import numpy as np
    from scipy.optimize import least_squares
    from scipy.stats import t as student

    x = np.array([sample.size_bytes for sample in good])
    y = np.array([sample.seconds for sample in good])
    # Both parameters in units near 1: the time of the smallest transfer, and the cost of the largest one's bytes.
    alpha_unit, byte_unit = float(y.min()), float(np.median(y[x == x.max()])) / float(x.max())
    design = np.column_stack([alpha_unit / y, byte_unit * x / y])
    found = least_squares(lambda p: np.log(design @ p), np.array([0.5, 1.0]),
                          jac=lambda p: design / (design @ p)[:, None],
                          bounds=(np.array([0.0, 1e-9]), np.inf), loss="soft_l1", f_scale=_SOFT)
    # The solver only nears its bound: what is left of alpha there is its own noise, another on every machine.
    alpha, per_byte = (float(found.x[0]) if found.x[0] > _NOTHING else 0.0) * alpha_unit, float(found.x[1]) * byte_unit
    degrees = len(good) - 2
    covariance = scatter = None
    half: tuple[float | None, float | None] = (None, None)
    if degrees > 0:
        scatter = math.sqrt(2 * float(found.cost) / degrees)
        inverse = np.linalg.pinv(found.jac.T @ found.jac) * scatter**2
        covariance = (float(inverse[0, 0]) * alpha_unit**2, float(inverse[0, 1]) * alpha_unit * byte_unit,
                      float(inverse[1, 1]) * byte_unit**2)
        quantile = float(student.ppf((1 + CONFIDENCE) / 2, degrees))
        half = (quantile * math.sqrt(max(covariance[0], 0.0)), quantile * math.sqrt(max(covariance[2], 0.0)))
    shares = {size: float(np.median(y[x == size])) / (alpha + size * per_byte) - 1 for size in sizes}
    return LinkModel(operation, _around(alpha, half[0]), _around(per_byte, half[1]), covariance, scatter, degrees,
                     max(map(abs, shares.values())), len(good), _warning(shares), sizes[-1])


def fit_each(samples: Iterable[Sample]) -> dict[str, LinkModel]:
    """Operation -> its own line, for every operation with at least two sizes."""
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.operation, []).append(sample)
    return {name: fit(group, operation=name) for name, group in sorted(groups.items())
            if len({sample.size_bytes for sample in group}) > 1}


def samples_of_link(points: pd.DataFrame) -> list[Sample]:
    """Timed transfers in a link run's valid points (columns: `kit.link.table`).

    A latency tool times single messages. A bandwidth tool keeps many in flight, so below the size where the link is
    full it tells a message rate and no transfer time: of it only the sizes from the largest latency size on are taken,
    or all where the run has no latency tool for the operation (``alpha`` is then the gap between messages).
    """
    valid = points[(points["outcome"] == "VALID")]
    found = []
    for operation in ("read", "write"):
        single = valid[(valid["tool"] == f"ib_{operation}_lat") & valid["t_typical_us"].notna()]
        stream = valid[(valid["tool"] == f"ib_{operation}_bw") & (valid["bandwidth_gbps"] > 0)]
        if len(single):
            stream = stream[stream["size_bytes"] >= single["size_bytes"].max()]
        found += [Sample(operation, float(size), float(micros) * 1e-6)
                  for size, micros in zip(single["size_bytes"], single["t_typical_us"], strict=True)]
        found += [Sample(operation, float(size), float(size) * 8e-9 / float(gbps))
                  for size, gbps in zip(stream["size_bytes"], stream["bandwidth_gbps"], strict=True)]
    return found


def _around(value: float, half: float | None) -> Estimate:
    return Estimate(value) if half is None else Estimate(value, max(0.0, value - half), value + half)


def _warning(shares: dict[float, float]) -> str:
    """Why a straight line says little here. ``shares``: size -> relative distance of its median from the line."""
    sizes = sorted(shares)
    if sizes[-1] < _NARROW * sizes[0]:
        return f"the sizes span less than a factor of {_NARROW:g}: start-up cost and rate cannot be told apart"
    worst = max(sizes, key=lambda size: abs(shares[size]))
    if abs(shares[worst]) > STRAIGHT_SHARE:
        return (f"no straight line: at {worst:.0f} bytes the measured time is {shares[worst]:+.0%} off it; "
                f"predict within the measured sizes only")
    return ""
