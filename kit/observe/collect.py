"""Start the sampler on nodes, and fetch what it wrote. A node that cannot be sampled spoils no benchmark: it is told.

The sampler runs under the host's own care: with the run's id and a deadline, so it ends whatever becomes of us.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from kit.command import script
from kit.errors import CommandError, HostError
from kit.hosts.base import Host, Service
from kit.observe import sampler

# $1 run id, $2 node. Makes the folder, and prints what it lies in: a recording must hold no run's id in an answer. In a
# shared /tmp only our own folder is used.
_FOLDER = """
umask 077
base=${TMPDIR:-/tmp}/kit-$(id -u)
mkdir -p "$base/$1/observe-$2" && [ -O "$base" ] && [ ! -L "$base" ] || exit 1
command -v python3 >/dev/null || { echo "there is no python3" >&2; exit 1; }
rm -f "$base/$1/observe-$2/samples.jsonl" "$base/$1/observe-$2/ended"
echo "$base"
"""

# $1 folder, $2 what to sample. A sampler that cannot run leaves its last words.
_SAMPLE = """
python3 -I "$1/sampler.py" "$2" 2>"$1/stderr" || mv "$1/stderr" "$1/ended"
"""

# $1 folder, $2 seconds. Waits for the sampler's first look at everything: what follows is then after it.
_READY = """
read -r up _ </proc/uptime; until=$((${up%.*} + $2))
while ! grep -qs '^{"ready"' "$1/samples.jsonl"; do
    read -r up _ </proc/uptime
    if [ -e "$1/ended" ]; then cat "$1/ended" >&2; exit 1; fi
    [ "${up%.*}" -lt "$until" ] || { echo "the sampler is not ready after $2 s" >&2; exit 1; }
    sleep 0.03
done
"""
_READY_S = 15


@dataclass(frozen=True)
class Sources:
    """What to sample on a node, besides itself.

    ``urls``: source name -> address of a Prometheus page, such as ``{"vllm": "http://10.0.0.1:7100/metrics"}``.
    ``devices``: RDMA devices, None for all. Interfaces are given by name or by an address they have; neither: all.
    ``eadm`` and ``gpu`` are used where the tool is there.
    """

    urls: dict[str, str] = field(default_factory=dict)
    devices: tuple[str, ...] | None = None
    interfaces: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    eadm: tuple[str, ...] = ()
    gpu: bool = True


@dataclass(frozen=True)
class Watched:
    """A node to sample, under the name that the tables and plots show."""

    name: str
    host: Host
    sources: Sources


@dataclass(frozen=True)
class Sampling:
    """A sampler at work; ``trouble`` says why there is none, and then ``service`` is None."""

    watched: Watched
    folder: str = ""
    service: Service | None = None
    trouble: str = ""


@dataclass(frozen=True)
class Recorded:
    """What one node's sampler wrote (`kit.observe.table.read_samples`), and why it may be less than asked."""

    node: str
    text: str
    trouble: str = ""


def start(watched: Sequence[Watched], *, deadline_s: float, period_s: float = 1.0) -> tuple[Sampling, ...]:
    """Start a sampler on every node at once, and wait for each one's first look at every source.

    Each ends by itself after ``deadline_s``. Raises nothing of a node's: see ``trouble``.
    """
    with ThreadPoolExecutor(max(len(watched), 1)) as pool:
        return tuple(pool.map(lambda one: _start(one, deadline_s, period_s), watched))


def fetch(samplings: Sequence[Sampling]) -> tuple[Recorded, ...]:
    """End the samplers and bring their files. Raises nothing of a node's: what is missing is told in ``trouble``."""
    with ThreadPoolExecutor(max(len(samplings), 1)) as pool:
        return tuple(pool.map(_fetch, samplings))


def _start(watched: Watched, deadline_s: float, period_s: float) -> Sampling:
    host = watched.host
    try:
        base = host.run(script(_FOLDER, host.run_id, watched.name), check=True).stdout.strip()
        folder = f"{base}/{host.run_id}/observe-{watched.name}"
        host.write(f"{folder}/sampler.py", Path(sampler.__file__).read_bytes())
        # The file's date is the node's clock, its content ours: the sampler tells the difference.
        host.write(f"{folder}/now", f"{time.time():.4f}".encode())
        service = host.start(script(_SAMPLE, folder, _asked(watched.sources, folder, deadline_s, period_s)),
                             deadline_s=deadline_s + 10)
    except HostError as error:
        return Sampling(watched, trouble=f"{watched.name} is not sampled: {_reason(error, host)}")
    return _begun(Sampling(watched, folder, service))


def _begun(sampling: Sampling) -> Sampling:
    host = sampling.watched.host
    try:
        host.run(script(_READY, sampling.folder, _READY_S), deadline_s=_READY_S + 5, check=True)
        return sampling
    except HostError as error:
        _end(sampling)
        return Sampling(sampling.watched, trouble=f"{sampling.watched.name} is not sampled: {_reason(error, host)}")


def _asked(sources: Sources, folder: str, deadline_s: float, period_s: float) -> str:
    return json.dumps({
        "out": f"{folder}/samples.jsonl", "now": f"{folder}/now", "period_s": period_s, "deadline_s": deadline_s,
        "devices": sources.devices, "interfaces": sources.interfaces, "addresses": sources.addresses,
        "urls": sources.urls, "eadm": sources.eadm, "gpu": sources.gpu}, sort_keys=True)


def _fetch(sampling: Sampling) -> Recorded:
    name, host = sampling.watched.name, sampling.watched.host
    if sampling.service is None:
        return Recorded(name, "", sampling.trouble)
    _end(sampling)
    try:
        return Recorded(name, host.read(f"{sampling.folder}/samples.jsonl").decode(errors="replace"))
    except HostError as error:
        return Recorded(name, "", f"the samples of {name} were not fetched: {_reason(error, host)}")


def _end(sampling: Sampling) -> None:
    """What cannot be ended now ends at its deadline."""
    if sampling.service is not None:
        with contextlib.suppress(HostError):
            sampling.watched.host.finish(sampling.service, deadline_s=0)


def _reason(error: HostError, host: Host) -> str:
    """The tool's last words where it had any."""
    last = error.output.splitlines()[-1:] if isinstance(error, CommandError) else []
    return last[0] if last else error.what.removeprefix(f"{host.name}: ")
