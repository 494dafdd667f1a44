"""Parts that end while they are used, with real processes on this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from wired_nodes import FOLDERS, two_nodes

from kit.command import command
from kit.errors import CommandError, PartEndedError, PortTakenError, ReplayError, StackError
from kit.hosts.base import Listening
from kit.hosts.local import LocalHost
from kit.serving import launch
from kit.serving.guard import failed, guarded
from kit.serving.launch import Deployment
from kit.serving.parts import Part, parts
from kit.serving.stacks import read_stack, wired
from kit.sites import End, Pair

SERVE = """
import signal, socket, sys
print("last words", flush=True)
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
signal.pause()
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two nodes that are this machine, told apart by their run ids."""
    run_id, site = f"kit-test-{uuid.uuid4().hex[:8]}", two_nodes(protocol="tcp")
    ends = [End(name, LocalHost(name, run_id=f"{run_id}-{name}"), "", "127.0.0.1") for name in "ab"]
    made = Pair(site.site, *ends, serving=site.serving)
    yield made
    assert [end.host.stop(end.host.run_id) for end in made] == [0, 0]


@pytest.fixture
def deployment(pair: Pair, tmp_path) -> Deployment:  # type: ignore[no-untyped-def]
    """A stack of three parts, each a program that does no more than listen."""
    ports = dict(zip(("prefiller", "decoder", "proxy"), (free_port() for _ in range(3)), strict=True))
    stack = read_stack("mooncake-direct")
    stack = stack.model_copy(update={"ports": stack.ports.model_copy(update=ports)})
    folders = {name: str(tmp_path / name) for name in FOLDERS}
    wiring = wired(pair, stack, folders)
    made = Deployment(wiring, tuple(
        Part(part.role, part.end, "127.0.0.1", part.port, command("python3", "-c", SERVE, part.port), None)
        for part in parts(wiring)))
    for part in made.parts:
        made.services[part.role] = pair[part.end].host.start(part.command, deadline_s=60, ready=Listening(part.port))
    return made


def kill(part: Part) -> None:
    """The program itself, not what supervises it."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if b"python" in words[0] and str(part.port).encode() in words:
                os.kill(int(entry.name), signal.SIGKILL)


def wait_beside(pair: Pair, deployment: Deployment, victim: Part) -> None:
    """Wait for a sleeper under guard, the victim being killed."""
    with guarded(pair, deployment, deadline_s=60):
        kill(victim)
        pair.a.host.run(command("sleep", 50), deadline_s=55, check=True)


@pytest.mark.parametrize("role", ["prefiller", "decoder", "proxy"])
def test_what_waits_for_a_dead_part_is_ended(pair: Pair, deployment: Deployment, role: str) -> None:
    part = next(part for part in deployment.parts if part.role == role)
    begun = time.monotonic()
    with pytest.raises(PartEndedError, match=f"{part.end}: the {role} ended") as raised:
        wait_beside(pair, deployment, part)
    assert time.monotonic() - begun < 45, "the sleeper was not waited for"
    assert "last words" in raised.value.output
    record = failed(raised.value)
    assert (record["outcome"], record["symptom"]) == ("FAILED", "part_ended")
    assert "dmesg" in record["remedy"]


def test_a_healthy_stack_is_left_alone(pair: Pair, deployment: Deployment) -> None:
    for _ in range(2):
        with guarded(pair, deployment, deadline_s=60):
            assert pair.a.host.run(command("true")).ok
    assert all(there for _, there in launch.listening(pair, deployment.wiring))
    with pytest.raises(CommandError, match="exit code 1"), guarded(pair, deployment, deadline_s=60):
        pair.a.host.run(command("false"), check=True)
    assert launch.end(pair) >= 3


def test_after_the_first_trouble_nobody_is_waited_for(pair: Pair, deployment: Deployment) -> None:
    """The decoder's port is taken, and the prefiller would never be ready."""
    wiring = deployment.wiring
    slow = Part("prefiller", "a", "127.0.0.1", free_port(), command("sleep", 50), None)
    begun = time.monotonic()
    with pytest.raises(PortTakenError):
        launch._start(pair, Deployment(wiring, ()), [slow, deployment.parts[1]], 60, lambda _: None)
    assert time.monotonic() - begun < 45


def test_a_failure_has_the_name_that_its_own_words_give_it() -> None:
    said = CommandError("ended", output="torch.OutOfMemoryError: CUDA out of memory", remedy="look")
    assert failed(said)["symptom"] == "gpu_memory"
    assert failed(PartEndedError("ended", output="EngineDeadError"))["symptom"] == "engine_died"
    assert failed(StackError("no", remedy="do this")) == {
        "outcome": "FAILED", "symptom": "StackError", "reason": "no", "remedy": "do this",
        "output": "no\n  remedy: do this"}
    assert failed(ReplayError("nothing recorded", node="a"))["reason"] == "a: nothing recorded"
