"""Reader of the file that perftest writes with --out_json.

From 24.01 on it is JSON: ``{"test_info": {…}, "results": {…}}``. Before (4.5 to 23.10) neither keys nor values are
quoted, and commas trail; ``--output`` and QoS runs still write such files (src/perftest_parameters.c,
write_test_info_to_file, write_bw_report_to_file, write_report_lat_to_file). One file holds one row.

The file does not say its unit of bandwidth. It follows from the message rate, which is the same quantity divided by
the size: Gb/s and MiB/s differ by a factor of 119, so one of the two fits.
"""

from __future__ import annotations

import json
import math
from typing import Any

from kit import symptoms
from kit.parse.perftest_text import UNITS, disagreements, header_fields, make_row, number, title_fields
from kit.parse.perftest_types import PerftestOutput

_KEYS = {
    "MsgSize": "size_bytes",
    "n_iterations": "iterations",
    "BW_peak": "bandwidth_peak_printed",
    "BW_average": "bandwidth_printed",
    "MsgRate": "msg_rate_mpps",
    "CPU_util": "cpu_util_percent",
    "t_min": "t_min_us",
    "t_max": "t_max_us",
    "t_typical": "t_typical_us",
    "t_avg": "t_avg_us",
    "t_stdev": "t_stdev_us",
    "percentile_99": "t_p99_us",
    "percentile_99.9": "t_p999_us",
    "tps_average": "tps",
}


def parse_perftest_json(text: str, *, gbits: bool | None = None) -> PerftestOutput:
    """Either kind of the file. ``gbits``: whether --report_gbits was given; None: infer it, see above.

    Where the unit is neither given nor to be inferred, ``bandwidth_gbps`` is None and ``bandwidth_printed`` stands.
    """
    info, results = _sections(text)
    title = title_fields(info.pop("test", "").replace("RDMA_", "RDMA\0").replace("_", " ").replace("\0", "_"))
    if not title:
        raise symptoms.error("not_perftest", "no test_info with a test in this JSON")
    line = " ".join(f"{key}: {value}" for key, value in results.items())
    values: dict[str, Any] = {"extra": {}}
    warnings = []
    for key, text_value in results.items():
        name = _KEYS.get(key)
        figure = number(text_value)
        if name == "t_stdev_us" and text_value.lstrip("-").lower() == "nan":
            warnings.append(f"t_stdev is {text_value}")
        elif figure is None or (name in ("size_bytes", "iterations") and "." in text_value):
            raise symptoms.error("bad_row", f"{key} is not a figure", line=line)
        elif name in ("size_bytes", "iterations"):
            values[name] = int(text_value)
        elif name:
            values[name] = figure
        else:
            values["extra"][key] = figure
    if "size_bytes" not in values or "iterations" not in values:
        raise symptoms.error("no_result" if not results else "bad_row", "no size or no iterations", line=line)
    unit, source = _unit(values, gbits, line)
    row = make_row(values, UNITS[unit] if unit else None, line)
    fields = header_fields(info)
    output = PerftestOutput(**title, **fields, unit=unit, unit_source=source, complete=True, rows=(row,))
    found = tuple(warnings + disagreements(output))
    return PerftestOutput(**{**output.__dict__, "warnings": found})


def _unit(values: dict[str, Any], gbits: bool | None, line: str) -> tuple[str | None, str | None]:
    average, rate = values.get("bandwidth_printed"), values.get("msg_rate_mpps")
    if average is None:
        return None, None
    fits = None
    if average and rate:
        derived = rate * values["size_bytes"] * 8e-3
        fits = next((u for u in ("Gb/sec", "MiB/sec") if math.isclose(average * UNITS[u], derived, rel_tol=0.5)), None)
    if gbits is None:
        return fits, "msg_rate" if fits else None
    unit = "Gb/sec" if gbits else "MiB/sec"
    if fits and fits != unit:
        raise symptoms.error("not_as_asked", f"bandwidth said to be in {unit}, but in {fits} by its rate", line=line)
    return unit, "caller"


def _sections(text: str) -> tuple[dict[str, str], dict[str, str]]:
    """test_info and results, all values as text."""
    try:
        # Numbers stay text, so that both kinds of file are judged by the same rules.
        document = json.loads(text, parse_float=str, parse_int=str, parse_constant=str)
    except (ValueError, RecursionError):
        return _tolerant(text)
    found = []
    for key in ("test_info", "results"):
        section = document.get(key) if isinstance(document, dict) else None
        if not isinstance(section, dict):
            raise symptoms.error("not_perftest", f"no {key} in this JSON")
        found.append({k: v if isinstance(v, str) else json.dumps(v) for k, v in section.items()})
    return found[0], found[1]


def _tolerant(text: str) -> tuple[dict[str, str], dict[str, str]]:
    sections: dict[str, dict[str, str]] = {"test_info": {}, "results": {}}
    current: dict[str, str] | None = None
    opened, closed, depth = set(), False, 0
    for line in text.split("\n"):
        stripped = line.strip().rstrip(",").rstrip()
        key, colon, value = (part.strip().strip('"').strip() for part in stripped.partition(":"))
        if colon and value == "{":
            depth += 1
            current = sections.get(key)
            opened.add(key)
        elif stripped in ("{", "}"):
            depth += 1 if stripped == "{" else -1
            current = None
            closed = stripped == "}" and depth == 0
        elif colon and current is not None:
            current[key] = value
    if "test_info" not in opened:
        raise symptoms.error("not_perftest", "no test_info in this text")
    if "results" not in opened or not closed:
        raise symptoms.error("incomplete", "the JSON ends before its results do")
    return sections["test_info"], sections["results"]
