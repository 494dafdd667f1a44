"""The interface to a node that every stage is written against.

Three implementations: `kit.hosts.ssh`, `kit.hosts.local` and `kit.hosts.replay` (answers recorded from a real run).
Whatever is started carries ``KIT_RUN_ID=<run id>`` in its environment and a deadline that the node itself enforces,
so that it ends even when nobody is left to stop it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from kit.command import Command


@dataclass(frozen=True)
class Completed:
    """A command that ended. ``exit_code`` is None where the deadline ended it; negative for a signal."""

    command: str
    stdout: str
    stderr: str
    exit_code: int | None
    wall_s: float

    @property
    def ok(self) -> bool:
        return self.exit_code == 0


@dataclass(frozen=True)
class Listening:
    """Readiness: the node listens on TCP ``port``, by a socket or by an RDMA connection manager id.

    soft-RoCE with RDMA_CM opens no socket, so both have to be looked at. With ``after``, the service is started only
    when nothing listens on that TCP port any more: once the server there has met its client.
    """

    port: int
    after: int | None = None


@dataclass(frozen=True)
class Service:
    """A program started in the background on a node; its output is in ``folder`` there."""

    node: str
    command: str
    folder: str


class Host(Protocol):
    """One node. All times in seconds; ``run_id`` marks everything that this host object starts."""

    name: str
    run_id: str

    def run(self, command: Command, *, deadline_s: float = 30, check: bool = False) -> Completed:
        """Run to the end. With ``check``, anything but exit 0 raises CommandError or DeadlineError.

        Raises UnreachableError when the node cannot be reached or the connection is lost.
        """

    def start(self, command: Command, *, deadline_s: float, ready: Listening | None = None,
              ready_s: float = 15) -> Service:
        """Start in the background; the node ends it after ``deadline_s``.

        With ``ready`` this returns once the node listens. Raises PortTakenError (before anything is started),
        CommandError (it ended before it was ready) or DeadlineError (not ready in ``ready_s``; it was stopped).
        """

    def finish(self, service: Service, *, deadline_s: float) -> Completed:
        """Wait until the service ends by itself, or stop it at the deadline; its output either way."""

    def stop(self, run_id: str) -> int:
        """End every process that carries ``run_id`` (TERM, wait, KILL), descendants too; how many there were.

        An empty ``run_id`` means any process that a kit run of this user started.
        """

    def read(self, path: str) -> bytes:
        """A file's content. Raises CommandError when there is none."""

    def write(self, path: str, data: bytes, *, mode: int = 0o600) -> None:
        """Write a file whole: aside, then renamed."""

    def close(self) -> None:
        """Give the connection back. What was started goes on until stopped or at its deadline."""
