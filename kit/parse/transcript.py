"""Reader of transcripts: the outputs of one or both ends of a run with their commands and exit statuses.

The form, all parts of it optional::

    # a note
    ===== SERVER
    $ ib_write_bw -d rxe0
    # host=rdma1 exit=0 wall_s=0.91 TIMED_OUT_BY_HARNESS
    --- stdout
    …
    --- stderr
    …
    ===== CLIENT
    …

Without any of it the text is one end's plain output.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from kit import symptoms
from kit.parse.perftest_types import End

_SECTION = re.compile(r"^===== (SERVER|CLIENT)[ \t]*$", re.MULTILINE)
_COMMAND = re.compile(r"\A\$ (.*)$", re.MULTILINE)
_STATUS = re.compile(r"^# host=(.*?) exit=(-?\d{1,6}|None)\b(.*)$", re.MULTILINE)
_STDOUT = re.compile(r"^--- stdout[ \t]*$\n?", re.MULTILINE)
# Not at the start of a line: a killed program's last line has no end.
_STDERR = re.compile(r"--- stderr[ \t]*$\n?", re.MULTILINE)


@dataclass(frozen=True)
class Transcript:
    """``client`` is the end to be judged: also the only one there is. ``marked``: the text had any marks."""

    client: End
    server: End | None = None
    notes: tuple[str, ...] = ()
    marked: bool = False


def parse_transcript(text: str) -> Transcript:
    """Read any text; text without marks is one end's plain output. ParseError: more than one run in it."""
    text = text.replace("\r\n", "\n")
    parts = _SECTION.split(text)
    for role in ("SERVER", "CLIENT"):
        if parts[1::2].count(role) > 1:
            raise symptoms.error("unreadable", "more than one run in one transcript", line=f"===== {role}")
    notes = tuple(line.lstrip("# ").rstrip() for line in parts[0].split("\n") if line.startswith("#"))
    ends = {role: _section(body.strip("\n")) for role, body in zip(parts[1::2], parts[2::2], strict=True)}
    if "CLIENT" in ends:
        return Transcript(ends["CLIENT"], ends.get("SERVER"), notes, marked=True)
    if "SERVER" in ends:
        return Transcript(ends["SERVER"], None, notes, marked=True)
    end = _section(text)
    return Transcript(end, marked=end.command is not None or _STDOUT.search(text) is not None)


def _section(body: str) -> End:
    command = _COMMAND.search(body)
    opening, closing = _STDOUT.search(body), _STDERR.search(body)
    head = body[: opening.start()] if opening else (body if command else "")
    status = _STATUS.search(head)
    exit_code, timed_out = None, False
    if status:
        exit_code = None if status[2] == "None" else int(status[2])
        timed_out = "TIMED_OUT" in status[3]
    if opening is None:
        # A section cut off before its output still tells its command and status.
        stdout = body if command is None else body[status.end() if status else command.end() :]
        return End(command[1] if command else None, stdout, "", exit_code, timed_out)
    if closing is None or closing.start() < opening.end():
        return End(command[1] if command else None, body[opening.end() :], "", exit_code, timed_out)
    stdout, stderr = body[opening.end() : closing.start()], body[closing.end() :]
    return End(command[1] if command else None, stdout, stderr, exit_code, timed_out)
