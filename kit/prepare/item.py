"""What an item of the preparation is: a pure function from facts to the steps that are still missing.

An item is verified by planning again from facts read anew: nothing may be left to do. So a second application has
nothing to do either, and one that was killed goes on where the facts say.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass

from kit.command import Command, Part, script
from kit.params import Artifacts, Prepare
from kit.prepare.facts import Facts

# $1 path, $2 mode, $3 content. Aside, then renamed: whoever reads it finds it whole.
WRITE_FILE = r"""
aside=$1.$$.kit-part
trap 'rm -f -- "$aside"' EXIT
mkdir -p -- "$(dirname -- "$1")" && printf %s "$3" >"$aside" && chmod "$2" "$aside" && mv -f -- "$aside" "$1"
"""

# $1 URL, $2 SHA-256, $3 where it goes. A file that does not match never gets its name.
FETCH = r"""
aside=$3.$$.kit-part
trap 'rm -f -- "$aside"' EXIT
sum() { sha256sum <"$1" | cut -d ' ' -f 1; }
[ -f "$3" ] && [ "$(sum "$3")" = "$2" ] && exit 0
mkdir -p -- "$(dirname -- "$3")" || exit 1
case $1 in
    file://*) cat -- "${1#file://}" >"$aside" || exit 1 ;;
    *) if command -v curl >/dev/null 2>&1; then
           curl --fail --silent --show-error --location --connect-timeout 20 --output "$aside" "$1" || exit 1
       else
           wget --quiet --timeout=20 --tries=2 -O "$aside" "$1" || { echo "cannot fetch $1" >&2; exit 1; }
       fi ;;
esac
found=$(sum "$aside")
if [ "$found" != "$2" ]; then
    echo "checksum mismatch: $1 has SHA-256 $found, expected $2; nothing of it was used" >&2
    exit 65
fi
chmod 644 "$aside" && mv -f -- "$aside" "$3"
"""

_SHOWN_CHARS = 1000
REMOVE = 'rm -f -- "$1"'


@dataclass(frozen=True)
class Step:
    """One command as root, and what it is for. ``fresh_session``: only a new login shows its effect."""

    what: str
    command: Command
    deadline_s: float = 60
    fresh_session: bool = False

    def shown(self) -> list[str]:
        """The command for a reader: a shell program with its inputs by their names, anything else as one line."""
        argv = self.command.argv
        if argv[:2] != ("sh", "-c"):
            return [str(self.command)]
        if argv[2] == WRITE_FILE:
            return [f"| {line}" for line in str(argv[6]).splitlines()]
        inputs = [f"${number}={_quoted(str(part))}" for number, part in enumerate(argv[4:], 1)]
        return [*str(argv[2]).strip().splitlines(), *([f"# with {' '.join(inputs)}"] if inputs else [])]


@dataclass(frozen=True)
class Refusal:
    """Why an item cannot or must not be brought about now, and what to do instead."""

    why: str
    remedy: str


@dataclass(frozen=True)
class Plan:
    """What is missing on one node; nothing, when it is as wanted.

    ``reboot`` says why one is needed to finish; ``waits`` why the steps cannot be told before earlier items are done.
    """

    steps: tuple[Step, ...] = ()
    refused: Refusal | None = None
    reboot: str = ""
    waits: str = ""

    @property
    def nothing(self) -> bool:
        return self == Plan()


@dataclass(frozen=True)
class Wanted:
    """What the nodes shall be, with what may be fetched and where from."""

    prepare: Prepare
    artifacts: Artifacts

    @property
    def mirror(self) -> str:
        """The URL below which the mirror lies, without a slash at its end."""
        return self.artifacts.mirrors.get(self.prepare.mirror, self.prepare.mirror).rstrip("/")


def _quoted(text: str) -> str:
    if len(text) > _SHOWN_CHARS:
        return f"'{text[:40]}…' ({len(text)} characters)".replace("\n", "\\n")
    return shlex.quote(text).replace("\n", "\\n")


Planner = Callable[[Facts, Wanted], Plan]


@dataclass(frozen=True)
class Item:
    """One part of the preparation; ``part`` is its key in the preparation, ``after`` what it builds on."""

    name: str
    part: str
    plan: Planner
    undo: Planner | None = None
    after: tuple[str, ...] = ()


def refuse(why: str, remedy: str) -> Plan:
    """A plan of nothing but its refusal."""
    return Plan(refused=Refusal(why, remedy))


def shell(what: str, text: str, *args: Part, deadline_s: float = 60) -> Step:
    """A step that is a constant shell program with its inputs."""
    return Step(what, script(text, *args), deadline_s)


def write_file(path: str, text: str, *, mode: str = "644", fresh_session: bool = False) -> Step:
    """A step that writes a small file whole."""
    return Step(f"write {path}", script(WRITE_FILE, path, mode, text), fresh_session=fresh_session)


def remove_file(path: str, *, fresh_session: bool = False) -> Step:
    """A step that removes a file of ours."""
    return Step(f"remove {path}", script(REMOVE, path), fresh_session=fresh_session)


def fetch(wanted: Wanted, name: str, path: str) -> Step | Refusal:
    """A step that fetches an artifact and checks its sum, or why that must not be done."""
    artifact = wanted.artifacts.artifacts.get(name)
    if artifact is None:
        return Refusal(f"no artifact {name!r} in params/artifacts.yaml", "add it with its URL and SHA-256")
    if artifact.sha256 is None:
        return Refusal(f"{name} has no checksum in params/artifacts.yaml, and nothing unverified is ever run",
                       f"kit artifacts record {name} prints it; compare it with the vendor's and add it")
    url = artifact.url.replace("{mirror}", wanted.mirror)
    return shell(f"fetch {name}", FETCH, url, artifact.sha256, path, deadline_s=900)
