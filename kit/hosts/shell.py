"""The `Host` interface over anything that can run a shell line on a node: the ssh and the local host share it."""

from __future__ import annotations

import contextlib
import math
import re
import secrets
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass

from kit.command import MASK, Command, Part, Secret, script
from kit.errors import CommandError, DeadlineError, HostError, ParamsError, PortTakenError
from kit.hosts import node
from kit.hosts.base import Completed, Listening, Service

# How much longer than the node's own deadline we wait for its answer: it kills after 2 s, and looks for what is left.
_GRACE_S = 15.0
_STOP_S = 12.0
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Answer:
    """What a shell line printed, and how it ended; ``code`` is None where no answer came in time."""

    stdout: bytes
    stderr: bytes
    code: int | None


Execute = Callable[[str, bytes, float], Answer]


class ShellHost:
    """A `kit.hosts.base.Host` made of one function: run a POSIX shell line with some input, within some seconds."""

    def __init__(self, name: str, run_id: str, execute: Execute) -> None:
        self.name = name
        self.run_id = run_id
        self._execute = execute

    def run(self, command: Command, *, deadline_s: float = 30, check: bool = False) -> Completed:
        name, limit_s, started = secrets.token_hex(6), _whole(deadline_s), time.monotonic()
        words, assigned = _sent(command)
        answer = self._shell(node.RUN, self._mark(), name, limit_s, "yes" if assigned else "-", *words,
                             wait_s=limit_s, stdin=assigned)
        if answer.code is None:     # the node's own deadline did not do it
            with contextlib.suppress(HostError):
                self._shell(node.STOP, f"KIT_SERVICE={name}", wait_s=0)
        done = _completed(command, name, answer, time.monotonic() - started)
        return checked(self.name, command, done, deadline_s) if check else done

    def start(self, command: Command, *, deadline_s: float, ready: Listening | None = None,
              ready_s: float = 15) -> Service:
        words, assigned = _sent(command)
        after = ready.after if ready and ready.after is not None else "-"
        answer = self._shell(node.START, self._mark(), secrets.token_hex(6), _whole(deadline_s),
                             "yes" if assigned else "-", ready.port if ready else "-", _whole(ready_s), after,
                             node.SERVICE, *words, wait_s=2 * ready_s + _STOP_S, stdin=assigned)
        folder = _text(answer.stdout).strip()
        trouble = {"node": self.name, "command": str(command), "output": mask(_text(answer.stderr), command)}
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
        started, name = time.monotonic(), service.folder.rsplit("/", 1)[-1]
        answer = self._shell(node.FINISH, service.folder, name, math.ceil(max(deadline_s, 0)), node.KEPT_BYTES,
                             wait_s=deadline_s + _STOP_S)
        head, _, body = answer.stdout.partition(b"\n")
        said = head.decode(errors="replace").split()
        if len(said) != 3:
            raise CommandError("gave no answer about a service", node=self.name, command=service.command,
                               output=_text(answer.stderr), remedy="see whether the node was restarted")
        how, took, size = said[0], int(said[1]) / 100, int(said[2])
        code = {node.DEADLINE: None, node.STOPPED: None, node.GONE: -9}.get(how, -1)
        return Completed(service.command, _text(body[:size]), _text(body[size:]),
                         plain_code(int(how)) if how.isdigit() else code, took or time.monotonic() - started)

    def stop(self, run_id: str) -> int:
        answer = self._shell(node.STOP, f"KIT_RUN_ID={run_id}", wait_s=_STOP_S)
        if answer.code != 0:
            raise CommandError("some processes of the run could not be ended", node=self.name,
                               output=_text(answer.stderr), remedy="see what they wait for: ps -eo pid,stat,wchan,args")
        return int(answer.stdout.strip() or b"0")

    def read(self, path: str) -> bytes:
        answer = self._shell(node.READ, path, wait_s=60)
        if answer.code != 0:
            raise CommandError(f"cannot read {path}", node=self.name, output=_text(answer.stderr))
        return answer.stdout

    def write(self, path: str, data: bytes, *, mode: int = 0o600) -> None:
        answer = self._shell(node.WRITE, path, f"{mode:o}", len(data), wait_s=60, stdin=data)
        if answer.code != 0:
            raise CommandError(f"cannot write {path}", node=self.name, output=_text(answer.stderr))

    def _mark(self) -> str:
        """The run id, once it is sure that it can be an environment entry and a folder's name."""
        if not _RUN_ID.fullmatch(self.run_id):
            raise ParamsError(f"{self.run_id!r} is no run id", remedy="use letters, digits, dot, dash and underscore")
        return self.run_id

    def _shell(self, text: str, *args: Part, wait_s: float, stdin: bytes = b"") -> Answer:
        return self._execute(f"exec {script(text, *args).line}", stdin, wait_s + _GRACE_S)


def checked(node_name: str, command: Command, done: Completed, deadline_s: float) -> Completed:
    """The same, if it ended with exit code 0. Raises CommandError or DeadlineError."""
    if done.ok:
        return done
    trouble = {"node": node_name, "command": done.command, "output": mask(done.stdout + done.stderr, command)}
    if done.exit_code is None:
        raise DeadlineError(f"not ended after {deadline_s:g} s", **trouble)
    raise CommandError(f"ended by signal {-done.exit_code}" if done.exit_code < 0 else f"exit code {done.exit_code}",
                       **trouble)


def mask(text: str, command: Command) -> str:
    """The text without the command's secrets: a tool may print what it was given."""
    for part in (*command.argv, *(value for _, value in command.env)):
        if isinstance(part, Secret) and part.value:
            text = text.replace(part.value, MASK)
    return text


def plain_code(code: int) -> int:
    """A shell tells death by a signal as 128 + its number."""
    return 128 - code if 128 < code < 160 else code


def _sent(command: Command) -> tuple[list[Part], bytes]:
    """The command as arguments of a shell program, and the assignments of its secrets for standard input.

    ``env NAME=secret`` would show in the node's process list for as long as the command runs.
    """
    plain = [f"{name}={value}" for name, value in command.env if not isinstance(value, Secret)]
    hidden = [f"export {name}={shlex.quote(value.value)}\n" for name, value in command.env if isinstance(value, Secret)]
    return [*(["env", *plain] if plain else []), *command.argv], "".join(hidden).encode()


def _completed(command: Command, name: str, answer: Answer, wall_s: float) -> Completed:
    stdout, stderr = _text(answer.stdout), _text(answer.stderr)
    ended = re.search(rf"@@kit-{name} (\w+) (\d+)\n", stderr)
    if ended is None:          # no answer in time, or the shell itself was killed
        code = None if answer.code is None else plain_code(answer.code) or -1
        return Completed(str(command), stdout, stderr, code, wall_s)
    stderr = stderr[:ended.start()] + stderr[ended.end():]
    code = None if ended[1] == node.DEADLINE else plain_code(int(ended[1]))
    return Completed(str(command), stdout, stderr, code, int(ended[2]) / 100)


def _whole(seconds: float) -> int:
    """Whole seconds, as every ``timeout`` takes them; never 0, which would mean no limit."""
    return max(math.ceil(seconds), 1)


def _text(data: bytes) -> str:
    return data.decode(errors="replace")
