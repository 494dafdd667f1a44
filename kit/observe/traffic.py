"""Bytes that nodes moved, from whatever counts them: the RDMA device's counters, or the network interface's.

RDMA traffic of real devices passes the network interface's counters by, so the two tell what carried it. Of soft-RoCE
and soft-iWARP, which run over an interface, the interface's count everything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.observe.table import deltas, growth

if TYPE_CHECKING:
    import pandas as pd

# (source, name) -> bytes a count. sysfs' own port counters are words of four bytes (InfiniBand's PortXmitData).
_SENT = {("rdma", "hw_tx_bytes_cnt"): 1, ("rdma", "tx_bytes_cnt"): 1, ("rdma", "port_xmit_data"): 4,
         ("eadm", "hw_tx_bytes_cnt"): 1, ("erdma-exporter", "erdma_hw_tx_bytes_total"): 1, ("net", "tx_bytes"): 1}
_RECEIVED = {("rdma", "hw_rx_bytes_cnt"): 1, ("rdma", "rx_bytes_cnt"): 1, ("rdma", "port_rcv_data"): 4,
             ("eadm", "hw_rx_bytes_cnt"): 1, ("erdma-exporter", "erdma_hw_rx_bytes_total"): 1, ("net", "rx_bytes"): 1}
_DIRECTIONS = {"sent": _SENT, "received": _RECEIVED}
_SHORT = 0.3        # of the usual time between two looks
# The same bytes may be told by all three; the first that counts any kind of bytes on a node is taken.
_RDMA_SOURCES = ("rdma", "eadm", "erdma-exporter")


def traffic(samples: pd.DataFrame) -> pd.DataFrame:
    """What each node moved over time: node, carrier (rdma | net), direction (sent | received), time_s, bytes_per_s.

    Summed over devices and ports, and over the interfaces that were sampled. A node whose RDMA device counts no bytes
    (siw, rxe) has no rows of rdma. The sampler's last look may follow the one before too soon to make a rate of.
    """
    rows = deltas(samples)
    span_s = rows["time_s"] - rows["since_s"]
    rows = _sized(rows[span_s > _SHORT * span_s.median()])
    rows = rows.assign(bytes_per_s=rows["rate_per_s"] * rows["size"])
    keys = ["node", "carrier", "direction", "time_s"]
    return rows.groupby(keys, observed=True)["bytes_per_s"].sum().reset_index()


def moved_bytes(samples: pd.DataFrame, carrier: str, *, sender: str, receiver: str, begin_s: float | None = None,
                end_s: float | None = None) -> int | None:
    """Bytes that went from one node to the other over ``rdma`` or ``net`` between two times (controller's clock).

    The smaller of what left the one and what reached the other: each also has other traffic. None where either node
    does not count them, or was not looked at twice.
    """
    rows = _sized(growth(samples, begin_s, end_s))
    rows = rows[rows["carrier"] == carrier]
    left = rows[(rows["node"] == sender) & (rows["direction"] == "sent")]
    reached = rows[(rows["node"] == receiver) & (rows["direction"] == "received")]
    if left.empty or reached.empty:
        return None
    return round(min(float((part["growth"] * part["size"]).sum()) for part in (left, reached)))


def _sized(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that count bytes, each kind of bytes once, with ``direction``, ``carrier`` and ``size`` (bytes)."""
    import pandas as pd

    found = []
    tellers = rows["source"].str.split("/").str[0]
    for direction, sizes in _DIRECTIONS.items():
        for (source, name), size in sizes.items():
            part = rows[(tellers == source) & (rows["name"] == name)]
            found.append(part.assign(direction=direction, size=float(size), teller=source,
                                     carrier="net" if source == "net" else "rdma"))
    every = pd.concat(found, ignore_index=True)
    for node, part in every[every["carrier"] == "rdma"].groupby("node", observed=True):
        told = set(part["teller"])
        best = next(source for source in _RDMA_SOURCES if source in told)
        every = every[(every["node"] != node) | every["teller"].isin([best, "net"])]
    return every
