"""The serving container: what RDMA needs of the host and nothing more, from an image by its digest.

Its label carries a key of the whole command line, so that a container made otherwise is made again. Sources: `docker
run` and `podman run` manuals, nerdctl's command reference; compat mode's ports belong to a network namespace, so the
host's own is used.
"""

from __future__ import annotations

from kit.command import Command, Part
from kit.params import ContainerWanted
from kit.prepare.facts import Facts
from kit.prepare.item import Item, Plan, Step, Wanted, refuse
from kit.prepare.userspace import install
from kit.store import key_of

LABEL = "erdma-kit"
_PULL_S = 3600
_PACKAGES = {"podman": "podman"}     # the only one that Debian and Ubuntu carry under its own name


def plan(facts: Facts, wanted: Wanted) -> Plan:
    """A running container made from exactly this command line."""
    want = _want(wanted)
    if want.runtime not in facts.tools and (want.runtime not in _PACKAGES or "apt-get" not in facts.tools):
        return refuse(f"{want.runtime} is not installed", f"install {want.runtime} by its own instructions")
    if not facts.dev_files:
        return no_device(wanted)
    if want.gpus and want.runtime == "nerdctl" and "nvidia-container-cli" not in facts.tools:
        return refuse("nerdctl --gpus needs nvidia-container-cli",
                      "install the NVIDIA container toolkit; or gpus: false")
    runtime = [] if want.runtime in facts.tools else [install([_PACKAGES[want.runtime]])]
    steps = container_steps(facts, want.runtime, want.name, want.image, serving_options(facts, want),
                            ("sleep", "infinity"))
    return Plan((*runtime, *steps))


def undo(facts: Facts, wanted: Wanted) -> Plan:
    """The container is removed; its image stays."""
    want = _want(wanted)
    return Plan((removal(want.runtime, want.name),) if want.name in facts.containers else ())


def no_device(wanted: Wanted) -> Plan:
    """Nothing to pass in: that is no obstacle where an item before this one loads the driver."""
    if wanted.prepare.mode is not None:
        return Plan(waits="its devices are known once the driver is loaded")
    return refuse("there is no /dev/infiniband to pass in", "add `mode:` to the preparation, or load the RDMA driver")


def serving_options(facts: Facts, want: ContainerWanted) -> tuple[str, ...]:
    """Devices, limits, capabilities and mounts of the serving container, as options of `run`."""
    gpus = {"podman": ("--device", "nvidia.com/gpu=all")}.get(want.runtime, ("--gpus", "all"))
    return (*(word for path in facts.dev_files for word in ("--device", path)), *(gpus if want.gpus else ()),
            "--network", "host", "--ulimit", "memlock=-1:-1", "--cap-add", "IPC_LOCK",
            "--shm-size", f"{want.shm_gib}g", *(("-v", f"{want.models}:{want.models}:ro") if want.models else ()),
            "--entrypoint", "")


def container_steps(facts: Facts, runtime: str, name: str, image: str, options: tuple[str, ...],
                    program: tuple[str, ...]) -> tuple[Step, ...]:
    """What is missing until this very container runs. The image is there before an older container goes."""
    key = key_of([runtime, name, image, options, program])
    there = facts.containers.get(name)
    if there is not None and (there.runtime, there.plan) == (runtime, key):
        if there.status == "running":
            return ()
        return (Step(f"start container {name}", _command(runtime, "start", name), 120),)
    run = _command(runtime, "run", "-d", "--name", name, "--label", f"{LABEL}={key}", *options, image, *program)
    return (Step(f"pull {image}", _command(runtime, "pull", image), _PULL_S),
            *((removal(there.runtime, name),) if there else ()), Step(f"run container {name}", run, 300))


def removal(runtime: str, name: str) -> Step:
    """A step that removes a container, running or not."""
    return Step(f"remove container {name}", _command(runtime, "rm", "-f", name), 120)


def _command(*argv: Part) -> Command:
    return Command(argv)


def _want(wanted: Wanted) -> ContainerWanted:
    assert wanted.prepare.container is not None, "only asked for what is wanted"  # noqa: S101
    return wanted.prepare.container


ITEM = Item("container", "container", plan, undo, after=("mode", "storage"))
