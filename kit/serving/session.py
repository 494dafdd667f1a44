"""A stack brought up on an open site: preflight, launch, hand-over check, listening sockets; ended whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from kit.command import script
from kit.device import NodeFacts, read_facts
from kit.errors import StackError
from kit.params import Stack
from kit.parse.sockets import parse_listening_sockets
from kit.serving.checks import Check, checks
from kit.serving.handover import Handed, hand_over
from kit.serving.launch import Deployment, end, folders_on, launch, sent
from kit.serving.memory import Load
from kit.serving.parts import Role, Wiring, parts
from kit.serving.preflight import SOCKETS, read_serving_facts
from kit.serving.stacks import kv_bytes_per_token, wired
from kit.sites import Pair

Say = Callable[[str], None]


@dataclass(frozen=True)
class Ground:
    """What a stack stands on: the wiring, the preflight's checks, and what a token of its model's KV takes."""

    wiring: Wiring
    checks: tuple[Check, ...]
    bytes_per_token: int
    versions: dict[str, dict[str, str]] = field(default_factory=dict)

    def refused(self) -> list[Check]:
        """Failed checks that are not the stack's own declared faults."""
        known = self.wiring.stack.known_faults
        return [check for check in self.checks if check.outcome == "fail" and check.name not in known]


@dataclass
class Up:
    """A running stack: the deployment, what it stands on, and how its hand-over did."""

    ground: Ground
    deployment: Deployment
    handed: Handed | None = None
    exposed: tuple[Check, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For ``stacks/NAME.json`` of the run's folder."""
        return {
            "versions": self.ground.versions, "checks": [asdict(check) for check in self.ground.checks],
            "exposed": [asdict(check) for check in self.exposed], "start_s": self.deployment.start_s,
            "ready_s": self.deployment.ready_s, "handover": None if self.handed is None else asdict(self.handed),
            "commands": {part.role: str(part.command) for part in self.deployment.parts},
        }


def survey(pair: Pair, stack: Stack, load: Load) -> Ground:
    """Make the run's folders, read both nodes, judge. Starts nothing. Raises HostError, ParamsError."""
    wiring = wired(pair, stack, folders_on(pair))
    for part in parts(wiring):
        sent(pair, part.command)      # a secret that is not set is told before anything starts
    roles: dict[str, Role] = ({wiring.prefill.end: "server"} if stack.kind == "aggregated" else
                              {wiring.prefill.end: "prefiller", wiring.decode.end: "decoder"})
    told = pair.both(lambda one: read_serving_facts(one.host, wiring, roles[one.name]) if one.name in roles else None)
    facts = {role: fact for name, role in roles.items() if (fact := told[name]) is not None}
    devices: dict[Role, NodeFacts] = {}
    if wiring.serving.protocol == "rdma":
        read = pair.both(lambda one: read_facts(one.host, device=one.device))
        devices = {role: read[name] for name, role in roles.items()}
    per_token = kv_bytes_per_token(next(iter(facts.values())).config, wiring.serving.dtype)
    found = checks(wiring, facts, devices, load, per_token)
    return Ground(wiring, tuple(found), per_token,
                  {role: {"python": fact.python, **fact.versions} for role, fact in facts.items()})


def bring_up(pair: Pair, ground: Ground, *, lifetime_s: float, say: Say = lambda _: None) -> Up:
    """Launch, read the sockets back, hand one prompt over. Raises StackError where the preflight says no; HostError."""
    refused = ground.refused()
    if refused:
        raise StackError(f"{ground.wiring.stack.name} must not be started: " + "; ".join(
            f"{check.name}: {check.seen}" for check in refused), remedy=refused[0].remedy)
    up = Up(ground, launch(pair, ground.wiring, lifetime_s=lifetime_s, say=say))
    try:
        up.exposed = tuple(exposed_sockets(pair, up.deployment))
        up.handed = hand_over(pair, up.deployment)
    except BaseException:
        end(pair, up.ground.wiring)
        raise
    return up


@contextmanager
def running(pair: Pair, ground: Ground, *, lifetime_s: float, say: Say = lambda _: None) -> Iterator[Up]:
    """`bring_up`, and the end of everything afterwards."""
    up = bring_up(pair, ground, lifetime_s=lifetime_s, say=say)
    try:
        yield up
    finally:
        end(pair, up.ground.wiring)


def exposed_sockets(pair: Pair, deployment: Deployment) -> Iterator[Check]:
    """One WARN for each port of the stack that listens on all interfaces, with what changes it."""
    wiring = deployment.wiring
    for seat, names in ((wiring.decode, ("decoder",)), (wiring.prefill, _WITH_PREFILL)):
        text = pair[seat.end].host.run(script(SOCKETS), check=True).stdout
        everywhere = {socket.port for socket in parse_listening_sockets(text) if socket.everywhere}
        for name in names:
            port = getattr(wiring.stack.ports, name)
            if port in everywhere:
                yield Check("listens_everywhere", "warn", f"node {seat.end}: {name} {port} on all interfaces",
                            _CLOSES[name])


_WITH_PREFILL = ("master", "metadata", "master_metrics", "prefiller", "proxy", "proxy_messages", "bootstrap")
_CLOSES = {
    "master": "--rpc_address=ADDRESS (everywhere: false in the stack)",
    "metadata": "Mooncake 0.3.7 ignores --http_metadata_server_host: let the firewall close it",
    "prefiller": "--host ADDRESS (everywhere: false in the stack)",
    "decoder": "--host ADDRESS (everywhere: false in the stack)",
    "proxy": "--host ADDRESS (everywhere: false in the stack)",
    "master_metrics": "no flag does: let the firewall close it",
    "proxy_messages": "no flag does: let the firewall close it",
    "bootstrap": "no flag does: let the firewall close it",
}
