"""The columns of a link run's ``points.parquet``: one row a measurement, units in the names.

``bandwidth_*`` are 1e9 bits a second; ``t_*`` are microseconds, half a round trip for write and send, a whole one for
read and atomic (perftest's own convention). A column that a tool does not measure holds NaN.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

COLUMNS: dict[str, str] = {
    "site": "string",             # name of the site
    "device": "string",           # RDMA device of the client end
    "tool": "string",             # ib_write_bw, ib_read_lat, …
    "size_bytes": "Int64",
    "qps": "Int64",
    "connection": "string",       # rdma_cm | out_of_band
    "direction": "string",        # a->b: node a is the client
    "repeat": "Int64",            # from 0
    "outcome": "string",          # VALID | FAILED
    "expected": "boolean",        # the outcome is the one that the experiment expects
    "symptom": "string",          # of a failed point
    "remedy": "string",
    "bandwidth_gbps": "Float64",
    "bandwidth_peak_gbps": "Float64",
    "msg_rate_mpps": "Float64",
    "t_min_us": "Float64",
    "t_typical_us": "Float64",
    "t_avg_us": "Float64",
    "t_max_us": "Float64",
    "t_p99_us": "Float64",
    "t_p999_us": "Float64",
    "iterations": "Int64",
    "mtu_bytes": "Int64",
    "transport": "string",        # IB | IW, as perftest names it
    "attempts": "Int64",          # how often the ends had to try until they connected
    "wall_s": "Float64",          # of the client command
    "client_version": "string",   # perftest's, of the client's node
    "server_version": "string",
}

AXES = ("tool", "size_bytes", "qps", "connection", "direction")


def table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows (missing columns allowed, unknown ones not) as a typed DataFrame in a fixed order."""
    import pandas as pd

    frame = pd.DataFrame([{name: row.get(name) for name in COLUMNS} for row in rows], columns=list(COLUMNS))
    frame = frame.astype(COLUMNS)
    return frame.sort_values([*AXES, "repeat"], kind="stable", ignore_index=True)
