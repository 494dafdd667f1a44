"""Answers recorded from a real run, played back through the same interface.

A recording is one JSON file a node: question -> the answers it got, in order. The question is the method and the
command as printed (secrets masked); deadlines are no part of it. A question asked more often than recorded gets its
last answer again. What a tool prints of a secret is masked as well. What is another in every run has a fixed name
instead, in questions and answers: the run's id, the folder of a service, and what ``aliases`` lists.
"""

from __future__ import annotations

import base64
import difflib
import hashlib
import json
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kit import errors
from kit.command import MASK, Command, Secret
from kit.errors import HostError, ReplayError
from kit.files import write_json
from kit.hosts.base import Completed, Host, Listening, Service
from kit.hosts.shell import checked

FORMAT = 1


class RecordingHost:
    """Passes everything on to ``inner`` and keeps the answers; the file is written anew after each, whole."""

    def __init__(self, inner: Host, path: Path, *, about: dict[str, str],
                 aliases: dict[str, str] | None = None) -> None:
        self.inner, self.path = inner, path
        self.name, self.run_id = inner.name, inner.run_id
        self._aliases = {**(aliases or {}), **_run_alias(inner.run_id)}
        self.about = {name: _renamed(value, self._aliases) for name, value in about.items()}
        self._answers: dict[str, list[Any]] = _read(path)["answers"] if path.exists() else {}
        self._fresh: set[str] = set()
        self._secrets: set[str] = set()
        self._lock = threading.Lock()

    def run(self, command: Command, *, deadline_s: float = 30, check: bool = False) -> Completed:
        self._note_secrets(command)
        done: Completed = self._ask(f"run {command}", lambda: self.inner.run(command, deadline_s=deadline_s))
        return checked(self.name, command, done, deadline_s) if check else done

    def start(self, command: Command, *, deadline_s: float, ready: Listening | None = None,
              ready_s: float = 15) -> Service:
        self._note_secrets(command)
        question = f"start {command}"
        service: Service = self._ask(question, lambda: self.inner.start(
            command, deadline_s=deadline_s, ready=ready, ready_s=ready_s))
        self._aliases = {service.folder: _folder(_renamed(question, self._aliases)), **self._aliases}
        return service

    def finish(self, service: Service, *, deadline_s: float) -> Completed:
        done: Completed = self._ask(f"finish {service.command}",
                                    lambda: self.inner.finish(service, deadline_s=deadline_s))
        return done

    def stop(self, run_id: str) -> int:
        return self.inner.stop(run_id)      # how many were left behind is no part of a run's answers

    def read(self, path: str) -> bytes:
        return bytes(self._ask(f"read {path}", lambda: self.inner.read(path)))

    def write(self, path: str, data: bytes, *, mode: int = 0o600) -> None:
        self.inner.write(path, data, mode=mode)

    def close(self) -> None:
        self.inner.close()

    def _note_secrets(self, command: Command) -> None:
        parts = (*command.argv, *(value for _, value in command.env))
        with self._lock:
            self._secrets |= {part.value for part in parts if isinstance(part, Secret) and part.value}

    def _masked(self, value: Any) -> Any:
        if isinstance(value, str):
            for secret in sorted(self._secrets, key=len, reverse=True):
                value = value.replace(secret, MASK)
            return value
        return {key: self._masked(each) for key, each in value.items()} if isinstance(value, dict) else value

    def _ask(self, question: str, ask: Any) -> Any:
        try:
            value = ask()
            answer = _pack(value)
        except HostError as error:
            self._keep(question, {"error": type(error).__name__, "what": error.what, "output": error.output,
                                  "command": error.command, "remedy": error.remedy})
            raise
        self._keep(question, answer)
        return value

    def _keep(self, question: str, answer: Any) -> None:
        question = _renamed(question, self._aliases)
        with self._lock:
            answer = _lines(_renamed(self._masked(answer), self._aliases))
            if question not in self._fresh:      # what an earlier recording said to it is old
                self._answers[question] = []
                self._fresh.add(question)
            self._answers[question].append(answer)
            write_json(self.path, {"format": FORMAT, "about": self.about, "answers": self._answers})


class ReplayHost:
    """Answers from a recording; touches nothing. Raises ReplayError for a question that was never recorded."""

    def __init__(self, name: str, path: Path, *, run_id: str) -> None:
        self.name, self.run_id = name, run_id
        recording = _read(path)
        self.about: dict[str, str] = recording["about"]
        self._answers: dict[str, list[Any]] = recording["answers"]
        self._asked: dict[str, int] = {}
        self._lock = threading.Lock()

    def run(self, command: Command, *, deadline_s: float = 30, check: bool = False) -> Completed:
        done = Completed(**self._answer(f"run {command}"))
        return checked(self.name, command, done, deadline_s) if check else done

    def start(self, command: Command, *, deadline_s: float, ready: Listening | None = None,
              ready_s: float = 15) -> Service:
        question = f"start {command}"
        self._answer(question)
        return Service(self.name, str(command), _folder(_renamed(question, _run_alias(self.run_id))))

    def finish(self, service: Service, *, deadline_s: float) -> Completed:
        return Completed(**self._answer(f"finish {service.command}"))

    def stop(self, run_id: str) -> int:
        return 0

    def read(self, path: str) -> bytes:
        answer = self._answer(f"read {path}")
        return base64.b64decode(answer["base64"]) if "base64" in answer else str(answer["text"]).encode()

    def write(self, path: str, data: bytes, *, mode: int = 0o600) -> None:
        """A recorded node takes anything and keeps nothing."""

    def close(self) -> None:
        """There is no connection to give back."""

    def _answer(self, question: str) -> dict[str, Any]:
        question = _renamed(question, _run_alias(self.run_id))
        with self._lock:
            answers = self._answers.get(question)
            if not answers:
                near = difflib.get_close_matches(question, self._answers, 1, 0.3)
                raise ReplayError("this was not asked when the recording was made", node=self.name, command=question,
                                  output=f"nearest: {near[0]}" if near else "",
                                  remedy="record again (kit record EXPERIMENT), or name a live site")
            turn = self._asked.get(question, 0)
            self._asked[question] = turn + 1
            answer = answers[min(turn, len(answers) - 1)]
        if "error" in answer:
            kind = getattr(errors, answer["error"])
            raise kind(answer["what"].removeprefix(f"{self.name}: "), node=self.name, command=answer["command"],
                       output=answer["output"], remedy=answer["remedy"])
        return {key: "\n".join(value) if isinstance(value, list) else value for key, value in answer.items()}


def _run_alias(run_id: str) -> dict[str, str]:
    """A command may carry the run's id, in the name of a folder for example."""
    return {run_id: "RUN-ID"} if len(run_id) > 5 else {}


def _folder(question: str) -> str:
    """The folder of a service, named after what was started."""
    return f"SERVICE-{hashlib.sha256(question.encode()).hexdigest()[:8]}"


def _renamed(value: Any, aliases: dict[str, str]) -> Any:
    """Texts with every alias in place of what it stands for."""
    if isinstance(value, str):
        for text, alias in aliases.items():
            value = value.replace(text, alias)
        return value
    return {key: _renamed(each, aliases) for key, each in value.items()} if isinstance(value, dict) else value


def _pack(value: Completed | Service | bytes) -> dict[str, Any]:
    if isinstance(value, Service):
        return {"started": True}
    if isinstance(value, Completed):
        return asdict(value) | {"wall_s": round(value.wall_s, 3)}
    try:
        return {"text": value.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}


def _lines(answer: dict[str, Any]) -> dict[str, Any]:
    """Texts as lists of lines: a changed line is then one line of a diff."""
    return answer | {name: answer[name].split("\n") for name in ("stdout", "stderr", "text") if name in answer}


def _read(path: Path) -> dict[str, Any]:
    try:
        recording = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ReplayError(f"cannot read the recording {path}: {error}") from error
    if recording.get("format") != FORMAT:
        raise ReplayError(f"{path} is a recording of another format", remedy="record again")
    return dict(recording)
