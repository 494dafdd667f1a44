"""How a program of a stack is started on a node: from a folder with ``bin/``, or in a container."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kit.command import Command, Part, command
from kit.params import Environment, Serving


@dataclass(frozen=True)
class Place:
    """``folder`` holds the run's files on the node; ``name`` is the container's."""

    serving: Serving
    environment: Environment
    folder: str
    name: str


def started(place: Place, argv: Sequence[Part], env: Mapping[str, str]) -> Command:
    """``argv`` with its environment, as the node runs it. Its first word is a program of the environment."""
    env = {**place.environment.env, **env}
    if place.serving.runtime == "venv":
        return Command((*place.environment.prefix, f"{place.environment.at}/bin/{argv[0]}", *argv[1:]),
                       tuple(env.items()))
    return container(place, [*place.environment.prefix, *argv], env)


def container(place: Place, argv: Sequence[Part], env: Mapping[str, str]) -> Command:
    """One ``run`` of nerdctl, docker or podman, in the foreground, with just what RDMA and GPUs need.

    The host's network, all GPUs, ``/dev/infiniband``, unlimited locked memory (``--ulimit memlock=-1``: containerd's
    own limit is 8 MiB, and ``IPC_LOCK`` alone does nothing for it), the model read-only and the run's folder. The
    container carries the run's marks, so that its processes are found and ended like any others.
    """
    serving = place.serving
    if serving.privileged:
        rights: tuple[Part, ...] = ("--privileged",)
    else:
        rights = ("--device", "/dev/infiniband", "--cap-add", "IPC_LOCK") if serving.protocol == "rdma" else ()
    given: list[Part] = []
    for name, value in env.items():
        given += ["-e", f"{name}={value}"]
    return command(serving.engine, "run", "--rm", "--name", place.name, "--network", "host", "--ipc", "host",
                   "--gpus", "all", *rights, "--ulimit", "memlock=-1",
                   "-v", f"{serving.model}:{serving.model}:ro", "-v", f"{place.folder}:{place.folder}",
                   "-e", "KIT_RUN_ID", "-e", "KIT_SERVICE", *given,
                   "--entrypoint", argv[0], place.environment.at, *argv[1:])

