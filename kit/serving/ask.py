"""HTTP asked on the node itself: the parts of a stack listen on private addresses that only the nodes reach."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from kit.command import Command, command
from kit.errors import CommandError
from kit.hosts.base import Host

# $1 url, $2 seconds an answer may take, $3 the JSON to post or nothing, $4 seconds to ask again for as long as the
# status is not 200, $5 a regular expression of the lines to keep or nothing. Prints the last status, then the body; 0
# where nobody answered.
_PROGRAM = """
import re, sys, time, urllib.error, urllib.request
url, seconds, data, until = sys.argv[1], float(sys.argv[2]), sys.argv[3].encode(), time.monotonic() + float(sys.argv[4])
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
while True:
    asked = urllib.request.Request(url, data or None, {"Content-Type": "application/json"})
    try:
        answer = opener.open(asked, timeout=seconds)
        status, body = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        status, body = error.code, error.read()
    except OSError as error:
        status, body = 0, str(error).encode()
    if status == 200 or time.monotonic() > until:
        break
    time.sleep(0.1)
if sys.argv[5]:
    body = b"".join(line for line in body.splitlines(True) if re.match(sys.argv[5].encode(), line))
sys.stdout.buffer.write(b"%d\\n" % status + body)
"""


@dataclass(frozen=True)
class HttpAnswer:
    """``status`` is 0 where nobody answered; ``body`` says why then."""

    status: int
    body: str

    @property
    def ok(self) -> bool:
        return self.status == 200

    def json(self) -> Any:
        return json.loads(self.body)


def http(url: str, *, post: Any = None, seconds: float = 5, until_s: float = 0, only: str = "") -> Command:
    """The command that asks: Python's standard library, which every node has."""
    return command("python3", "-c", _PROGRAM, url, seconds, "" if post is None else json.dumps(post), until_s, only)


def ask(host: Host, url: str, *, post: Any = None, seconds: float = 5, until_s: float = 0,
        only: str = "") -> HttpAnswer:
    """GET, or POST of JSON, from the node; asked again for ``until_s`` while the answer is not 200.

    ``only``: a regular expression that a line of the body must begin with to be kept.

    Raises HostError when the node itself cannot be asked.
    """
    asked = http(url, post=post, seconds=seconds, until_s=until_s, only=only)
    done = host.run(asked, deadline_s=seconds + until_s + 10)
    status, _, body = done.stdout.partition("\n")
    if not status.isdigit():
        raise CommandError("python3 could not ask over HTTP", node=host.name, command=done.command,
                           output=done.stdout + done.stderr, remedy="install python3 on the node")
    return HttpAnswer(int(status), body)
