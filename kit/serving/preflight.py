"""What the nodes say before a stack is started: read, never changed. `kit.serving.checks` judges it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from kit.command import Command, Secret, script
from kit.errors import ParseError
from kit.hosts.base import Host
from kit.parse.sockets import parse_listening_sockets
from kit.serving.parts import Role, Wiring, place
from kit.serving.runtime import started

# $1 the model's folder. One line a file: digest, size, name. Of weights only size, head and tail: they are large.
_MODEL = r"""
cd -- "$1" || exit 1
for file in *.json *.txt *.model; do
    [ -f "$file" ] && echo "$(sha256sum <"$file" | cut -c1-64) $(wc -c <"$file") $file"
done
for file in *.safetensors *.bin *.pt; do
    [ -f "$file" ] || continue
    ends=$({ head -c 1048576 -- "$file"; tail -c 1048576 -- "$file"; } | sha256sum | cut -c1-64)
    echo "$ends $(wc -c <"$file") $file"
done
exit 0
"""

# Printed by the stack's own Python; the hash is the one that LMCache chains its chunks' keys with.
_STACK = """
import importlib.metadata as meta, json, platform
found = {"python": platform.python_version(), "hash": hash((1, (2, 3), None))}
for package in meta.distributions():
    name = (package.metadata["Name"] or "").lower().replace("_", "-")
    for short in ("vllm", "lmcache", "mooncake-transfer-engine"):
        if name == short or name.startswith(short + "-c") or name.startswith(short + "-non-c"):
            found.setdefault(short.partition("-")[0], package.version)
print(json.dumps(found))
"""

SOCKETS = "cat /proc/net/tcp /proc/net/tcp6 2>/dev/null; exit 0"
_MEMLOCK = "ulimit -l"


@dataclass(frozen=True)
class ServingFacts:
    """What a node says. ``model``: file -> digest and size; ``config``: the model's config.json.

    ``hashes``: the same probe hashed by two processes. ``memlock`` is as ``ulimit -l`` prints it.
    """

    model: dict[str, str]
    config: str
    versions: dict[str, str]
    python: str
    hashes: tuple[int, int]
    listening: frozenset[int]
    memlock: str


def read_serving_facts(host: Host, wiring: Wiring, role: Role) -> ServingFacts:
    """Ask the node of one instance. Raises HostError, and ParseError for an answer that is none."""
    model = wiring.model_of(role)
    files = host.run(script(_MODEL, model), check=True).stdout
    config = host.read(f"{model}/config.json").decode(errors="replace")
    probe = started(place(wiring, wiring.seat_of(role), "probe"), ["python3", "-c", _STACK], wiring.env_of(role))
    probe = Command(probe.argv, tuple(entry for entry in probe.env if not isinstance(entry[1], Secret)))
    said = [_probed(host.run(probe, deadline_s=120, check=True).stdout) for _ in range(2)]
    sockets = parse_listening_sockets(host.run(script(SOCKETS), check=True).stdout)
    return ServingFacts(dict(line.rsplit(" ", 1)[::-1] for line in files.splitlines()), config,
                        {name: said[0][name] for name in ("vllm", "lmcache", "mooncake") if name in said[0]},
                        said[0]["python"], (said[0]["hash"], said[1]["hash"]),
                        frozenset(socket.port for socket in sockets), host.run(script(_MEMLOCK)).stdout.strip())


def _probed(text: str) -> dict[str, Any]:
    try:
        return dict(json.loads(text.strip().splitlines()[-1]))
    except (ValueError, IndexError) as error:
        raise ParseError("the stack's Python did not say its versions", line=text[-200:]) from error
