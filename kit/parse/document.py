"""Any tool's text to a JSON-ready document: the result, or an error with its symptom, remedy and line."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from kit import symptoms
from kit.errors import ParseError
from kit.parse.bench import parse_bench
from kit.parse.perftest import judge, parse_perftest
from kit.parse.perftest_command import parse_command
from kit.parse.transcript import parse_transcript

KINDS = ("perftest", "ibv_devinfo", "ibv_devices", "bench")
OK, UNREADABLE = 0, 3


def parse_document(kind: str, text: str) -> tuple[dict[str, Any], int]:
    """The document and an exit status: 0, or 3 with ``{"error": {"what", "symptom", "remedy", "line"}}``."""
    try:
        if kind == "perftest":
            return _perftest(text), OK
        if kind == "bench":
            return {"kind": kind, **parse_bench(text).to_dict()}, OK
        if kind in KINDS:
            return _ibv(kind, text), OK
        raise symptoms.error("unreadable", f"no such kind of text: {kind}; there are {', '.join(KINDS)}")
    except ParseError as err:
        what = err.what.removesuffix(f": {err.line!r}") if err.line else err.what
        shown = {"what": what, "symptom": err.symptom, "remedy": err.remedy, "line": err.line}
        return {"error": shown}, UNREADABLE


def _perftest(text: str) -> dict[str, Any]:
    transcript = parse_transcript(text)
    end = transcript.client
    if transcript.marked and transcript.server is None and parse_command(end.command) is None:
        # Some other program, perhaps one that shows a file of results: its exit status says nothing about the test.
        return {"kind": "perftest", **parse_perftest(end.text if end.stderr.strip() else end.stdout).to_dict()}
    if not transcript.marked:
        return {"kind": "perftest", **parse_perftest(text).to_dict()}
    return {"kind": "perftest", **judge(transcript.client, transcript.server).to_dict()}


def _ibv(kind: str, text: str) -> dict[str, Any]:
    end = parse_transcript(text).client
    known = symptoms.find(end.text)
    if known:
        raise symptoms.error(known[0].name, "the tool reported a failure", line=known[1])
    if end.exit_code:
        raise symptoms.error("failed_silently", f"exit status {end.exit_code} without a known message")
    from kit.parse import ibv

    if kind == "ibv_devices":
        return {
            "kind": kind,
            "devices": [{"hca_id": name, "node_guid": guid} for name, guid in ibv.parse_ibv_devices(end.stdout)],
        }
    return {"kind": kind, "devices": [asdict(device) for device in ibv.parse_ibv_devinfo(end.stdout)]}
