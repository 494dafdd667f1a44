"""One end's perftest output, text or JSON, to a result or the name of its failure."""

from __future__ import annotations

import re

from kit import symptoms
from kit.parse.perftest_json import parse_perftest_json
from kit.parse.perftest_text import scan
from kit.parse.perftest_types import PerftestOutput

_BARE = re.compile(r"\s*(?:\d+\.\d{6}\s*)+")
_BANNER = "Waiting for client to connect"


def parse_perftest(text: str, *, gbits: bool | None = None) -> PerftestOutput:
    """One end's output, as text (stdout, or stdout and stderr together) or as the JSON file.

    ParseError where there is no result in it; its ``symptom`` names the failure. A result without the closing rule
    has ``complete`` False. ``gbits`` is for JSON only: see parse_perftest_json.
    """
    text = text.replace("\r\n", "\n")
    if text.lstrip().startswith("{"):
        return parse_perftest_json(text, gbits=gbits)
    known = symptoms.find(text)
    if known:
        raise symptoms.error(known[0].name, "the tool reported a failure", line=known[1])
    output = scan(text)
    if output.rows and output.title:
        return output
    if not text.strip():
        raise symptoms.error("no_result", "nothing was printed")
    if output.title or _BANNER in text:
        # A server of a uni-directional READ ends like this after a good run, too.
        raise symptoms.error("no_result", "a heading, but no row of results")
    if _BARE.fullmatch(text):
        raise symptoms.error("bare_numbers", "numbers without a heading", line=text.split()[0])
    if output.rows:
        raise symptoms.error("incomplete", "rows of results, but no title above them")
    first = next(line for line in text.split("\n") if line.strip())
    raise symptoms.error("not_perftest", "no title of a perftest program", line=first)
