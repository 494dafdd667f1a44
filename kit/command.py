"""Commands built from parts: quoting and secrecy are types, not discipline.

A `Command` is a sequence of arguments. A plain string is one argument, quoted when the command is rendered; `Secret`
is an argument that prints as ``***``. There is no way to splice text into a shell line. Where a node must run a small
shell program, the program is a constant and its inputs are positional parameters: ``script(TEXT, port, path)``.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field

MASK = "***"


@dataclass(frozen=True)
class Secret:
    """A value that never shows: not in ``repr``, logs, errors or recordings."""

    value: str = field(repr=False)

    def __str__(self) -> str:
        return MASK


Part = str | int | float | Secret


@dataclass(frozen=True)
class Command:
    """One command with its arguments and environment.

    ``line`` is what a POSIX shell gets; ``str()`` is the same with secrets masked.
    """

    argv: tuple[Part, ...]
    env: tuple[tuple[str, Part], ...] = ()

    @property
    def line(self) -> str:
        return self._render(reveal=True)

    def __str__(self) -> str:
        return self._render(reveal=False)

    def _render(self, *, reveal: bool) -> str:
        def word(part: Part) -> str:
            if isinstance(part, Secret):
                return shlex.quote(part.value) if reveal else MASK
            return shlex.quote(str(part))

        assigned = [f"{name}={word(value)}" for name, value in self.env]
        words = ["env", *assigned] if assigned else []
        return " ".join([*words, *(word(part) for part in self.argv)])

    def with_env(self, **env: Part) -> Command:
        """The same command with more environment."""
        return Command(self.argv, (*self.env, *env.items()))


def command(*argv: Part) -> Command:
    """``command("ib_write_bw", "-d", device)``"""
    return Command(tuple(argv))


def script(text: str, *args: Part) -> Command:
    """A constant POSIX shell program; ``args`` arrive as ``$1``, ``$2``, …"""
    return Command(("sh", "-c", text, "kit", *args))
