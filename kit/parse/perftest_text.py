"""Reader of what the perftest programs print.

Formats: src/perftest_parameters.c (ctx_print_test_info, print_full_bw_report, print_report_lat) and the RESULT_FMT and
REPORT_FMT strings of perftest_parameters.h, versions 4.4 to 26.x. The columns are taken from the table's own heading,
since they differ with the test, the unit, --cpu_util, --report-per-port and the version.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from kit import symptoms
from kit.parse.perftest_types import BITS_PER_MIB, Address, PerftestOutput, Row, gid_from_decimals

TITLE = re.compile(
    r"^\s*(?P<verb>Send|RDMA_Write|RDMA_Read|Atomic)\w*[ \t]+(?P<middle>(?:[\w-]+[ \t]+){0,6}?)"
    r"(?P<metric>BW|Latency)[ \t](?:[\w-]+[ \t]+){0,3}Test\s*$"
)
VERBS = {"Send": "send", "RDMA_Write": "write", "RDMA_Read": "read", "Atomic": "atomic"}
UNITS = {"Gb/sec": 1.0, "MB/sec": BITS_PER_MIB / 1e9, "MiB/sec": BITS_PER_MIB / 1e9}

_RULE = re.compile(r"^-{60,}\s*$")
_PAIR = re.compile(r"([A-Za-z][\w*. -]*?)[ \t]*:[ \t]*((?:\S+(?: \S+)*)?)")
_ADDRESS = re.compile(
    r"^\s*(local|remote) address: LID (\S+) QPN (0x[0-9a-fA-F]{1,8})\b(?: PSN (0x[0-9a-fA-F]{1,8})\b)?"
)
_GID = re.compile(r"^\s*GID: ([\d:]+)\s*$")
_HEADING = re.compile(r"^\s*#bytes\s")
_COLUMN = re.compile(
    r"#\w+|BW (?:peak|average|Port\d)\[[^\]]+\]|MsgRate(?: Port\d)?\[Mpps\]|t_\w+\[usec\]|"
    r"99(?:\.9)?% percentile\[usec\]|tps average|CPU_Util\[%+\]|\S+"
)
_COUNTER = re.compile(r"^\s+([\w./-]+)=([0-9]{1,20})\s*$")
_NUMBER = re.compile(r"[0-9]{1,20}(\.[0-9]{1,9})?")
_WARNING = re.compile(
    r"WARNING|higher than active mtu|Changing to active mtu|Conflicting CPU frequency|CPU Frequency is not max|"
    r"implement inline feature"
)
_NAMES = {
    "#bytes": "size_bytes",
    "#iterations": "iterations",
    "MsgRate[Mpps]": "msg_rate_mpps",
    "t_min[usec]": "t_min_us",
    "t_max[usec]": "t_max_us",
    "t_typical[usec]": "t_typical_us",
    "t_avg[usec]": "t_avg_us",
    "t_stdev[usec]": "t_stdev_us",
    "99% percentile[usec]": "t_p99_us",
    "99.9% percentile[usec]": "t_p999_us",
    "tps average": "tps",
    "CPU_Util[%]": "cpu_util_percent",
}
_LATENCIES = {name for name in _NAMES.values() if name.startswith("t_")}
#: What a heading must have to be one of perftest's; further columns go to ``extra``.
_LAYOUTS = ({"peak", "average", "msg_rate_mpps"}, _LATENCIES, {"t_avg_us", "tps"})
_LONGEST_FIELD = 200
_INTEGERS = ("size_bytes", "iterations")


def _whole(text: str) -> int | None:
    match = re.match(r"\s*([0-9]{1,18})\b", text)
    return int(match.group(1)) if match else None


def _same(text: str) -> str | None:
    return text or None


def _on(text: str) -> bool | None:
    return {"ON": True, "OFF": False}.get(text)


#: Header keys, folded by ``_fold`` (the JSON file spells them with underscores), to attributes.
_FIELDS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "device": ("device", _same),
    "number of qps": ("qps", _whole),
    "transport type": ("transport", _same),
    "connection type": ("connection_type", _same),
    "link type": ("link_type", _same),
    "mtu": ("mtu_bytes", _whole),
    "gid index": ("gid_index", _whole),
    "max inline data": ("max_inline_bytes", _whole),
    "outstand reads": ("outstanding_reads", _whole),
    "tx depth": ("tx_depth", _whole),
    "rx depth": ("rx_depth", _whole),
    "cq moderation": ("cq_moderation", _whole),
    "rdma cm qps": ("rdma_cm", _on),
    "data ex. method": ("data_exchange", _same),
    "data ex method": ("data_exchange", _same),
}


def header_fields(pairs: Mapping[str, str]) -> dict[str, Any]:
    """Attributes of PerftestOutput from header keys and values; those without an attribute under ``other``."""
    known: dict[str, Any] = {}
    other: dict[str, str] = {}
    for key, value in pairs.items():
        name, convert = _FIELDS.get(" ".join(key.replace("_", " ").lower().split()), ("", _same))
        converted = convert(value) if name else None
        if converted is None:
            other[key] = value
        else:
            known[name] = converted
    return known | {"other": other}


def title_fields(title: str) -> dict[str, Any]:
    """Verb, metric and direction from a title; empty where it is none."""
    match = TITLE.match(title)
    if match is None:
        return {}
    return {
        "title": " ".join(title.split()),
        "verb": VERBS[match["verb"]],
        "metric": "bw" if match["metric"] == "BW" else "lat",
        "bidirectional": "Bidirectional" in match["middle"],
    }


def number(text: str) -> float | None:
    """A figure as perftest prints one. None for all else: nan, inf, negative, absurdly long."""
    return float(text) if _NUMBER.fullmatch(text) else None


def make_row(values: dict[str, Any], factor: float | None, line: str) -> Row:
    """A row from its named figures; bandwidths still as printed. ``factor`` gives 10^9 bits/s, None: unit unknown."""
    average, peak = values.get("bandwidth_printed"), values.get("bandwidth_peak_printed")
    if values["size_bytes"] < 1 or values["size_bytes"] > 2**32:
        raise symptoms.error("bad_row", "a message size that cannot be", line=line)
    if average is None and values.get("t_avg_us") is None:
        raise symptoms.error("bad_row", "neither bandwidth nor latency", line=line)
    if values["iterations"] < 1:
        raise symptoms.error("zero_iterations", "no iteration was done", line=line)
    if values["iterations"] > 2**53:
        raise symptoms.error("bad_row", "a number of iterations that cannot be", line=line)
    bandwidth = None if average is None or factor is None else average * factor
    if average == 0:
        # Small messages at a low rate print as 0.00; the message rate has six digits and is the same quantity.
        bandwidth = (values.get("msg_rate_mpps") or 0.0) * values["size_bytes"] * 8e-3
        if not bandwidth:
            raise symptoms.error("zero_bandwidth", "no bandwidth", line=line)
    if average is None and not values["t_avg_us"]:
        raise symptoms.error("bad_row", "a latency of zero", line=line)
    # The peak is printed as 0 where it was not measured: by duration, with -N, above 20000 iterations.
    best = peak * factor if peak and factor is not None else None
    return Row(**values, bandwidth_gbps=bandwidth, bandwidth_peak_gbps=best)


def _read_row(line: str, columns: list[str], factor: float | None, *, cut: bool) -> tuple[Row, list[str]]:
    """One row and its warnings. ``cut``: the line may end in the middle of a number."""
    fields = line.split()
    if len(fields) != len(columns):
        name = "incomplete" if cut and len(fields) < len(columns) else "bad_row"
        raise symptoms.error(name, f"{len(fields)} figures under {len(columns)} headings", line=line)
    values: dict[str, Any] = {}
    extra: dict[str, float] = {}
    notes: list[str] = []
    for column, text in zip(columns, fields, strict=True):
        figure = number(text)
        name = _NAMES.get(column.replace("%%", "%"), "")
        if column.startswith(("BW peak", "BW average")):
            name = "bandwidth_printed" if "average" in column else "bandwidth_peak_printed"
        if figure is None and name == "t_stdev_us" and text.lstrip("-") == "nan":
            # perftest squares the deviations in int: they overflow when long, and only this column is lost.
            notes.append(f"t_stdev is {text} at {fields[0]} bytes")
            values[name] = None
            continue
        whole = name in _INTEGERS or column.startswith("#")
        digits = len(text.partition(".")[2])
        if figure is None or (whole and digits) or (not whole and digits < 2):
            raise symptoms.error("bad_row", f"{column} is not a figure", line=line)
        if cut and column == columns[-1] and column.startswith("MsgRate") and digits < 6:
            raise symptoms.error("incomplete", "the output ends in the middle of a number", line=line)
        if name in _INTEGERS:
            values[name] = int(text)
        elif name:
            values[name] = figure
        else:
            extra[column] = figure
    if "size_bytes" not in values or "iterations" not in values:
        raise symptoms.error("bad_row", "no size or no iterations", line=line)
    return make_row(values | {"extra": extra}, factor, line), notes


def _bandwidth_unit(columns: list[str], line: str) -> str | None:
    units = {c.partition("[")[2].rstrip("]") for c in columns if c.startswith(("BW peak", "BW average"))}
    if not units:
        return None
    unit = units.pop()
    if units or unit not in UNITS:
        raise symptoms.error("unreadable", "a bandwidth in an unknown unit", line=line)
    return unit


def disagreements(output: PerftestOutput) -> list[str]:
    """Rows whose bandwidth is not message rate times size: perftest computes both from the same count."""
    found = []
    for row in output.rows:
        if row.bandwidth_gbps is None or row.msg_rate_mpps is None or output.other.get("Dual-port") == "ON":
            continue
        derived = row.msg_rate_mpps * row.size_bytes * 8e-3
        slack = 6e-7 * row.size_bytes * 8e-3 + 0.006 * UNITS.get(output.unit or "Gb/sec", 1.0)
        if not math.isclose(derived, row.bandwidth_gbps, rel_tol=0.01, abs_tol=slack):
            found.append(f"bandwidth and message rate disagree at {row.size_bytes} bytes")
    return found


def scan(text: str) -> PerftestOutput:
    """Header, addresses and rows of one end, whatever there is of them. ParseError: a row that is not one."""
    pairs: dict[str, str] = {}
    addresses: list[Address] = []
    warnings: list[str] = []
    rows: list[Row] = []
    title: dict[str, Any] = {}
    columns: list[str] = []
    unit: str | None = None
    factor: float | None = None
    complete = False
    lines = text.split("\n")
    for place, line in enumerate(lines):
        if _RULE.match(line):
            complete = bool(rows)
        elif _WARNING.search(line):
            warnings.append(" ".join(line.split()))
        elif _HEADING.match(line):
            columns = [match.group() for match in _COLUMN.finditer(line)]
            names = {_NAMES.get(c) or c.removeprefix("BW ").partition("[")[0] for c in columns}
            if not any(layout <= names for layout in _LAYOUTS):
                raise symptoms.error("unreadable", "a heading that lacks columns", line=line)
            unit = _bandwidth_unit(columns, line)
            factor = UNITS[unit] if unit else None
        elif TITLE.match(line):
            if title:
                raise symptoms.error("unreadable", "more than one test in one text", line=line)
            title = title_fields(line)
        elif address := _ADDRESS.match(line):
            lid = _whole(address[2])
            addresses.append(Address(address[1], int(address[3], 16), lid, int(address[4], 16) if address[4] else None))
        elif (gid := _GID.match(line)) and addresses and addresses[-1].gid is None:
            addresses[-1] = replace(addresses[-1], gid=gid_from_decimals(gid[1]))
        elif rows and (counter := _COUNTER.match(line)):
            rows[-1] = replace(rows[-1], counters={**rows[-1].counters, counter[1]: int(counter[2])})
        elif columns and not complete and re.match(r"\s*[-\d]", line):
            row, notes = _read_row(line, columns, factor, cut=place == len(lines) - 1)
            rows.append(row)
            warnings += notes
        elif title and not columns and len(line) < _LONGEST_FIELD:
            pairs.update((key.strip(), value.strip()) for key, value in _PAIR.findall(line))
    output = PerftestOutput(
        **title,
        **header_fields(pairs),
        unit=unit,
        unit_source="header" if unit else None,
        complete=complete,
        addresses=tuple(addresses),
        rows=tuple(rows),
    )
    return replace(output, warnings=tuple(dict.fromkeys(warnings + disagreements(output))))
