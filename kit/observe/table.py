"""Samples to a tidy table, and from counters to growth and rates. One row a value: node, time, source, name, labels.

``time_s`` is in seconds since 1970 by the controller's clock: each node's own clock is set right by the difference that
its sampler measured, so that rows of two nodes can be laid side by side.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from kit.errors import ParseError
from kit.parse.prometheus import parse_prometheus

if TYPE_CHECKING:
    import pandas as pd

    from kit.observe.collect import Recorded

COLUMNS: dict[str, str] = {
    "node": "string",       # name of the node: prefiller, decoder, …
    "time_s": "float64",
    "source": "string",     # rdma | net | eadm/DEVICE | gpu/NUMBER | sampler | a name given to a URL
    "name": "string",       # as the source names it
    "labels": "string",     # sorted name="value" pairs, empty for none
    "value": "float64",
}
SERIES = ["node", "source", "name", "labels"]

# What only grows, by the source that tells it and by Prometheus' own suffixes. All else is a gauge.
_COUNTING = r"(rdma|net|eadm|sampler)(/|$)"
_SUFFIXES = ("_total", "_sum", "_count")


@dataclass(frozen=True)
class Look:
    """One answer of one source: every value it had then. ``down`` says why there was none."""

    time_s: float
    source: str
    values: dict[tuple[str, str], float] = field(default_factory=dict)
    down: str = ""


def read_samples(text: str) -> list[Look]:
    """The file of one sampler, in order of time; what did not change is filled in again.

    A last line without its end is left out: the sampler may have been killed. Raises ParseError for any other line
    that is not the sampler's.
    """
    ahead_s = 0.0
    keys: dict[int, tuple[str, tuple[str, str]]] = {}
    last: dict[str, dict[tuple[str, str], float]] = {}
    looks = []
    for line in text.split("\n")[:-1]:
        row = _row(line)
        try:
            if "begun" in row:
                ahead_s = float(row["clock_ahead_s"])
            elif "ready" in row:
                continue
            elif "id" in row:
                keys[int(row["id"])] = (str(row["source"]), _key(str(row["key"])))
            elif "down" in row:
                last.pop(row["source"], None)
                looks.append(Look(float(row["t"]) - ahead_s, row["source"], down=str(row["down"])))
            else:
                known = last.setdefault(row["source"], {})
                known.update((keys[number][1], float(value)) for number, value in row["v"])
                looks.append(Look(float(row["t"]) - ahead_s, row["source"], dict(known)))
        except (KeyError, ValueError, TypeError, AttributeError, IndexError):
            raise ParseError("not a line of the sampler", line=line) from None
    return looks


def _row(line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise ParseError("not a line of the sampler", line=line)
    return row


@cache
def _key(text: str) -> tuple[str, str]:
    """Name and sorted labels of a key in Prometheus' notation."""
    [sample] = parse_prometheus(f"{text} 0\n")
    return sample.name, ",".join(f"{name}={json.dumps(value)}" for name, value in sorted(sample.labels.items()))


def table(recorded: Iterable[Recorded]) -> pd.DataFrame:
    """All nodes' samples with `COLUMNS`, sorted by series and time. Raises ParseError."""
    import pandas as pd

    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for one in recorded:
        for look in read_samples(one.text):
            for (name, labels), value in look.values.items():
                for column, cell in zip(COLUMNS, (one.node, look.time_s, look.source, name, labels, value),
                                        strict=True):
                    columns[column].append(cell)
    frame = pd.DataFrame(columns).astype(COLUMNS)
    return frame.sort_values([*SERIES, "time_s"], kind="stable", ignore_index=True)


def troubles(recorded: Iterable[Recorded]) -> list[str]:
    """One sentence a node that could not be sampled, and one a source that did not always answer."""
    found = []
    for one in recorded:
        if one.trouble:
            found.append(one.trouble)
        looks = read_samples(one.text)
        for source in dict.fromkeys(look.source for look in looks if look.down):
            silent = [look for look in looks if look.source == source and look.down]
            every = sum(look.source == source for look in looks)
            found.append(f"{source} of {one.node} gave no answer {len(silent)} of {every} times: {silent[-1].down}")
    return found


def is_counter(samples: pd.DataFrame) -> pd.Series[bool]:
    """Which rows are of counters: only their growth means something."""
    return samples["source"].str.match(_COUNTING) | samples["name"].str.endswith(_SUFFIXES)


def deltas(samples: pd.DataFrame) -> pd.DataFrame:
    """The counters' rows with ``delta``, the growth since ``since_s``, and ``rate_per_s``.

    A counter that went down was started anew, from 0, as Prometheus takes it. So was one that its source did not have
    at the look before: many programs show a counter only once it counts. The first look of a source gives no delta.
    """
    rows = samples.sort_values([*SERIES, "time_s"], kind="stable")
    looks = rows[["node", "source", "time_s"]].drop_duplicates().sort_values(["node", "source", "time_s"])
    looks["since_s"] = looks.groupby(["node", "source"], observed=True)["time_s"].shift()
    rows = rows[is_counter(rows)].merge(looks, on=["node", "source", "time_s"], how="left")
    series = rows.groupby(SERIES, observed=True, sort=False)
    before = series["value"].shift()
    delta = (rows["value"] - before).where(rows["value"] >= before, rows["value"])
    since_s = series["time_s"].shift().fillna(rows["since_s"])
    rows = rows.assign(delta=delta, since_s=since_s, rate_per_s=delta / (rows["time_s"] - since_s))
    return rows[rows["time_s"] > since_s].reset_index(drop=True)


def growth(samples: pd.DataFrame, begin_s: float | None = None, end_s: float | None = None) -> pd.DataFrame:
    """How much each counter grew between two times (controller's clock): `SERIES` and ``growth``.

    The looks just before the begin and just after the end count too: nothing that happened in between is lost.
    """
    rows = deltas(samples)
    if begin_s is not None:
        rows = rows[rows["time_s"] > begin_s]
    if end_s is not None:
        rows = rows[rows["since_s"] < end_s]
    return rows.groupby(SERIES, observed=True)["delta"].sum().rename("growth").reset_index()


def counted(samples: pd.DataFrame, node: str, name: str, begin_s: float | None = None, end_s: float | None = None,
            *, labels: str = "") -> float | None:
    """Growth of one metric on one node, summed over its labels that contain ``labels``.

    None where it was not seen, or not twice.
    """
    here = samples[samples["node"] == node]
    here = here[here["source"].isin(here.loc[here["name"] == name, "source"].unique())]
    grown = growth(here, begin_s, end_s)
    grown = grown[(grown["name"] == name) & grown["labels"].str.contains(labels, regex=False)]
    return float(grown["growth"].sum()) if len(grown) else None
