"""The perftest programs (ib_write_bw, ib_read_lat, …): their output, and whether a run is to be trusted.

``parse_perftest`` reads one end's output, ``parse_transcript`` the recorded outputs of both, and ``judge`` gives a
result only where both ends bear it out: several failures end with exit status 0 and a number.
"""

from __future__ import annotations

from kit.parse.perftest_json import parse_perftest_json
from kit.parse.perftest_judge import judge, without_clock
from kit.parse.perftest_read import parse_perftest
from kit.parse.perftest_types import Address, Asked, End, PerftestOutput, Row, gid_kind, normal_gid
from kit.parse.transcript import Transcript, parse_transcript

__all__ = [
    "Address",
    "Asked",
    "End",
    "PerftestOutput",
    "Row",
    "Transcript",
    "gid_kind",
    "judge",
    "normal_gid",
    "parse_perftest",
    "parse_perftest_json",
    "parse_transcript",
    "without_clock",
]
