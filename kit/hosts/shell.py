"""The `Host` interface over anything that can run a shell line on a node: the ssh and the local host share it."""

from __future__ import annotations

import math
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from kit.command import Command, Part, Secret, script
from kit.errors import CommandError, DeadlineError, HostError, PortTakenError
from kit.hosts import node
from kit.hosts.base import Completed, Listening, OnOutput, Service

# How much longer than the node's own deadline we wait for its answer: the node kills after 2 s more.
_GRACE_S = 10.0
_TAIL = re.compile(r"@@kit (\d+) ([\d.]+) ([\d.]+)\n?\Z")
_TIMED_OUT = (124, 137)


@dataclass(frozen=True)
class Answer:
    """What a shell line printed, and how it ended; ``code`` is None where no answer came in time."""

    stdout: bytes
    stderr: bytes
    code: int | None


Execute = Callable[[str, bytes, float, OnOutput | None], Answer]


class ShellHost:
    """A `kit.hosts.base.Host` made of one function: run a POSIX shell line with some input, within some seconds."""

    def __init__(self, name: str, run_id: str, execute: Execute) -> None:
        self.name = name
        self.run_id = run_id
        self._execute = execute

    def run(self, command: Command, *, deadline_s: float = 30, check: bool = False,
            on_output: OnOutput | None = None) -> Completed:
        started = time.monotonic()
        answer = self._shell(node.RUN, self.run_id, math.ceil(deadline_s), "lines" if on_output else "whole",
                             *words(command), wait_s=deadline_s, on_output=on_output)
        done = _completed(command, answer, time.monotonic() - started, deadline_s)
        if check and not done.ok:
            kind = DeadlineError if done.exit_code is None else CommandError
            how = f"not ended after {deadline_s:g} s" if done.exit_code is None else f"exit code {done.exit_code}"
            raise kind(how, node=self.name, command=str(command), output=done.stdout + done.stderr)
        return done

    def start(self, command: Command, *, deadline_s: float, ready: Listening | None = None,
              ready_s: float = 15) -> Service:
        name = secrets.token_hex(6)
        answer = self._shell(node.START, self.run_id, name, math.ceil(deadline_s), ready.port if ready else "-",
                             math.ceil(ready_s), *words(command), wait_s=ready_s)
        folder, said = answer.stdout.decode(errors="replace").strip(), answer.stderr.decode(errors="replace")
        trouble = {"node": self.name, "command": str(command), "output": said}
        if answer.code == node.PORT_TAKEN and ready:
            raise PortTakenError(f"port {ready.port} is in use", node=self.name, command=str(command),
                                 remedy="end what listens there (ss -ltnp), or choose another base_port")
        if answer.code == node.ENDED_EARLY:
            raise CommandError("ended before it was ready", **trouble)
        if answer.code in (node.NOT_READY, None):
            raise DeadlineError(f"not ready after {ready_s:g} s", **trouble)
        if answer.code != 0 or not folder:
            raise CommandError(f"could not be started (exit code {answer.code})", **trouble)
        return Service(self.name, str(command), folder)

    def finish(self, service: Service, *, deadline_s: float) -> Completed:
        started = time.monotonic()
        answer = self._shell(node.FINISH, service.folder, service.folder.rsplit("/", 1)[-1], math.ceil(deadline_s),
                             wait_s=deadline_s)
        head = answer.stdout.split(b"\n", 2)
        if answer.code is None or len(head) < 3:
            raise HostError("gave no answer about a service", node=self.name, command=service.command,
                            output=answer.stderr.decode(errors="replace"))
        code, size, body = head[0].decode(), int(head[1] or b"0"), head[2]
        return Completed(service.command, body[:size].decode(errors="replace"), body[size:].decode(errors="replace"),
                         _plain_code(None if code == "stopped" else int(code)), time.monotonic() - started)

    def stop(self, run_id: str) -> int:
        answer = self._shell(node.STOP, run_id, wait_s=20)
        if answer.code != 0:
            raise CommandError("some processes of the run could not be ended", node=self.name,
                               output=answer.stderr.decode(errors="replace"))
        return int(answer.stdout.strip() or b"0")

    def read(self, path: str) -> bytes:
        answer = self._shell(node.READ, path, wait_s=60)
        if answer.code != 0:
            raise CommandError(f"cannot read {path}", node=self.name, output=answer.stderr.decode(errors="replace"))
        return answer.stdout

    def write(self, path: str, data: bytes, *, mode: int = 0o600) -> None:
        answer = self._shell(node.WRITE, path, f"{mode:o}", wait_s=60, stdin=data)
        if answer.code != 0:
            raise CommandError(f"cannot write {path}", node=self.name, output=answer.stderr.decode(errors="replace"))

    def _shell(self, text: str, *args: Part, wait_s: float, stdin: bytes = b"",
               on_output: OnOutput | None = None) -> Answer:
        return self._execute(f"exec {script(text, *args).line}", stdin, wait_s + _GRACE_S, on_output)


def words(command: Command) -> list[Part]:
    """The command as arguments of a shell program; its environment goes through ``env``."""
    assigned: list[Part] = [Secret(f"{name}={value.value}") if isinstance(value, Secret) else f"{name}={value}"
                            for name, value in command.env]
    return [*(["env", *assigned] if assigned else []), *command.argv]


def _completed(command: Command, answer: Answer, wall_s: float, deadline_s: float) -> Completed:
    stdout, stderr = answer.stdout.decode(errors="replace"), answer.stderr.decode(errors="replace")
    tail = _TAIL.search(stderr)
    if tail is None:          # no answer in time, or the shell itself was killed
        code = None if answer.code is None else _plain_code(answer.code)
        return Completed(str(command), stdout, stderr, code, wall_s)
    status, took = int(tail[1]), float(tail[3]) - float(tail[2])
    code = None if status in _TIMED_OUT and took >= deadline_s - 0.1 else _plain_code(status)
    return Completed(str(command), stdout, stderr[:tail.start()], code, took)


def _plain_code(code: int | None) -> int | None:
    """A shell tells death by a signal as 128 + its number."""
    return 128 - code if code is not None and 128 < code < 160 else code

