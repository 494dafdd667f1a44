"""How a program of a stack is started on a node: from a folder with ``bin/``, or in a container."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kit.command import Command, Part, Secret
from kit.params import Environment, Serving, secret

_NAMED = "env:"


@dataclass(frozen=True)
class Place:
    """``folder`` holds the run's files on the node, ``model`` is the one that is served there; ``name`` is the
    container's."""

    serving: Serving
    environment: Environment
    folder: str
    model: str
    name: str


def started(place: Place, argv: Sequence[Part], env: Mapping[str, str]) -> Command:
    """``argv`` with its environment, as the node runs it. Its first word is a program of the environment.

    A value ``env:NAME`` becomes a Secret that holds only this name: `revealed` puts the value in.
    """
    given: dict[str, Part] = {name: Secret(value) if value.startswith(_NAMED) else value
                              for name, value in {**place.environment.env, **env}.items()}
    if place.serving.runtime == "venv":
        return Command((*place.environment.prefix, f"{place.environment.at}/bin/{argv[0]}", *argv[1:]),
                       tuple(given.items()))
    return container(place, [*place.environment.prefix, *argv], given)


def revealed(command: Command) -> Command:
    """The command with the values of the secrets that it names, just before it is sent. Raises ParamsError."""
    return Command(command.argv, tuple((name, Secret(secret(value.value)) if isinstance(value, Secret) else value)
                                       for name, value in command.env))


def container(place: Place, argv: Sequence[Part], env: Mapping[str, Part]) -> Command:
    """One ``run`` of nerdctl, docker or podman, in the foreground, with just what RDMA and GPUs need.

    The host's network, all GPUs, ``/dev/infiniband``, unlimited locked memory (``--ulimit memlock=-1``: containerd's
    own limit is 8 MiB, and ``IPC_LOCK`` alone does nothing for it), the model read-only and the run's folder. The
    container carries the run's marks, so that its processes are found and ended like any others. A secret is given to
    the engine's own environment and to the container by its name alone: arguments show in the process list.
    """
    serving = place.serving
    if serving.privileged:
        rights: tuple[Part, ...] = ("--privileged",)
    else:
        rights = ("--device", "/dev/infiniband", "--cap-add", "IPC_LOCK") if serving.protocol == "rdma" else ()
    given: list[Part] = []
    for name, value in env.items():
        given += ["-e", name if isinstance(value, Secret) else f"{name}={value}"]
    hidden = tuple((name, value) for name, value in env.items() if isinstance(value, Secret))
    return Command((serving.engine, "run", "--rm", "--name", place.name, "--network", "host", "--ipc", "host",
                    "--gpus", "all", *rights, "--ulimit", "memlock=-1",
                    "-v", f"{place.model}:{place.model}:ro", "-v", f"{place.folder}:{place.folder}",
                    "-e", "KIT_RUN_ID", "-e", "KIT_SERVICE", *given,
                    "--entrypoint", argv[0], place.environment.at, *argv[1:]), hidden)

