"""The columns of a transfer-engine run's ``points.parquet``: one row a measurement, units in the names."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from kit.linkmodel import Sample

if TYPE_CHECKING:
    import pandas as pd

COLUMNS: dict[str, str] = {
    "site": "string",
    "device": "string",           # RDMA device of the initiator; empty over tcp
    "operation": "string",        # write | read, as the initiator sees it
    "block_bytes": "Int64",       # of one request
    "batch": "Int64",             # requests submitted together
    "threads": "Int64",           # each with one batch under way
    "protocol": "string",         # tcp | rdma
    "memory": "string",           # dram | vram, on both ends
    "direction": "string",        # a->b: node a initiates
    "repeat": "Int64",
    "outcome": "string",          # VALID | FAILED
    "expected": "boolean",
    "symptom": "string",
    "remedy": "string",
    "throughput_gbps": "Float64",     # 1e9 bits a second
    "in_flight_bytes": "Int64",       # block_bytes * batch * threads
    "round_ms": "Float64",            # time in which the bytes in flight get through
    "batches": "Int64",
    "duration_s": "Float64",
    "attempts": "Int64",
    "wall_s": "Float64",
}

AXES = ("operation", "block_bytes", "batch", "threads", "protocol", "memory", "direction")


def table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows (missing columns allowed) as a typed DataFrame in a fixed order."""
    import pandas as pd

    frame = pd.DataFrame([{name: row.get(name) for name in COLUMNS} for row in rows], columns=list(COLUMNS))
    frame = frame.astype(COLUMNS)
    return frame.sort_values([*AXES, "repeat"], kind="stable", ignore_index=True)


def like_pieces(points: pd.DataFrame, piece_bytes: float | None) -> pd.DataFrame:
    """The points swept in requests of the size nearest to this; without a size, in the largest.

    What a hand-over is cut into decides its rate (seen: 4 Gb/s in 16 KiB, 12 Gb/s in 128 KiB, GPU memory over TCP).
    A sweep over request sizes alone, with one number of them at once, is one line: it is left whole.
    """
    if points.groupby("block_bytes")["in_flight_bytes"].nunique().max() < 2:
        return points
    sizes = points["block_bytes"].unique()
    nearest = max(sizes) if piece_bytes is None else min(sizes, key=lambda size: abs(math.log(size / piece_bytes)))
    chosen: pd.DataFrame = points[points["block_bytes"] == nearest]
    return chosen


def samples_of_engine(points: pd.DataFrame, *, protocol: str | None = None,
                      memory: str | None = None) -> list[Sample]:
    """Timed transfers of a run's valid points: the bytes in flight, and the time in which they get through."""
    valid = points[points["outcome"] == "VALID"]
    if protocol is not None:
        valid = valid[valid["protocol"] == protocol]
    if memory is not None:
        valid = valid[valid["memory"] == memory]
    return [Sample(str(operation), float(size), float(millis) * 1e-3)
            for operation, size, millis in zip(valid["operation"], valid["in_flight_bytes"], valid["round_ms"],
                                               strict=True)]
