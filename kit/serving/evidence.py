"""What the counters say before and after a benchmark, and what that makes of it.

The sources do not trust each other: the engines' metrics and LMCache's log, the store's master, and the kernel's own
counters of the interface and of the RDMA device.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from kit.command import command, script
from kit.errors import CommandError, ParseError
from kit.parse.bench import BenchResult
from kit.parse.kernel import Counters, parse_hw_counters
from kit.parse.kv_transfers import parse_kv_transfers
from kit.parse.lmcache import parse_lmcache_log
from kit.parse.prometheus import Sample, parse_prometheus, total
from kit.serving.ask import ask
from kit.serving.launch import Deployment
from kit.serving.parts import Role
from kit.serving.validity import Evidence, Handover, asked_tokens, expected_kv
from kit.sites import Pair

# Of a page of metrics, the lines that are evidence, with their TYPE.
_METRICS = (r"(# TYPE )?(vllm:(prefix_cache_hits|external_prefix_cache|prompt_tokens|cache_config_info|"
            r"mooncake_store_operation_(time_seconds_(sum|count)|bytes))|"
            r"master_(value_size_bytes_sum|allocated_bytes|evicted_key|put_start_alloc))")
_COLD_SHARE = 0.01    # of the prompt tokens may be found in a cache: a random prompt may begin like another

# The bytes that left by an interface, then the RDMA device's counters. $1 the peer's address, $2 the interface or "-"
# (then the one that leads to the peer), $3 the RDMA device or "-".
_WIRE = r"""
interface=$2
[ "$interface" != - ] || interface=$(ip -o route get "$1" | sed -n 's/.* dev \([^ ]*\).*/\1/p')
cat "/sys/class/net/$interface/statistics/tx_bytes" || exit 1
[ "$3" = - ] && exit 0
for file in "/sys/class/infiniband/$3/ports/1/hw_counters/"*; do
    [ -f "$file" ] && echo "${file##*/} $(cat "$file")"
done
exit 0
"""


@dataclass(frozen=True)
class Moment:
    """All counters at one moment. ``log_bytes``: what each instance had written to its two streams; ``left_bytes``:
    what had left the prefiller's node by the interface that leads to the decoder's."""

    metrics: dict[Role, list[Sample]] = field(default_factory=dict)
    log_bytes: dict[Role, tuple[int, int]] = field(default_factory=dict)
    left_bytes: int | None = None
    rdma: Counters | None = None


def look(pair: Pair, deployment: Deployment) -> Moment:
    """Read every counter now. Raises HostError, and ParseError for metrics that are none."""
    wiring = deployment.wiring
    metrics: dict[Role, list[Sample]] = {}
    for part in deployment.parts:
        if part.role == "proxy":
            continue
        port = wiring.stack.ports.master_metrics if part.role == "master" else part.port
        answer = ask(pair[part.end].host, f"http://{part.address}:{port}/metrics", only=_METRICS)
        if not answer.ok:
            raise CommandError(f"the {part.role} gives no metrics: {answer.status} {answer.body[:200]}", node=part.end,
                               remedy="read its log: it may have ended")
        metrics[part.role] = parse_prometheus(answer.body)
    if wiring.stack.kind == "aggregated":
        return Moment(metrics)
    left, rdma = _wire(pair, deployment)
    return Moment(metrics, {role: _log_bytes(pair, deployment, role) for role in _tellers(deployment)}, left, rdma)


def _wire(pair: Pair, deployment: Deployment) -> tuple[int, Counters | None]:
    wiring = deployment.wiring
    device = wiring.prefill.device if wiring.serving.protocol == "rdma" else "-"
    done = pair[wiring.prefill.end].host.run(
        script(_WIRE, wiring.decode.address, wiring.serving.interface or "-", device), check=True)
    first, _, rest = done.stdout.partition("\n")
    return int(first), parse_hw_counters(rest) if device != "-" else None


def _tellers(deployment: Deployment) -> tuple[Role, ...]:
    """Whose logs are evidence: LMCache tells its hits in the decoder's, MooncakeConnector its transfers in the
    prefiller's."""
    told: dict[str, tuple[Role, ...]] = {"store": ("decoder",), "direct": ("prefiller",)}
    return told.get(deployment.wiring.stack.kind, ())


def _log_bytes(pair: Pair, deployment: Deployment, role: Role) -> tuple[int, int]:
    service = deployment.services[role]
    lines = pair[deployment.part(role).end].host.run(
        command("wc", "-c", f"{service.folder}/out", f"{service.folder}/err"), check=True).stdout.splitlines()
    return int(lines[0].split()[0]), int(lines[1].split()[0])


def log_since(pair: Pair, deployment: Deployment, since: Moment) -> str:
    """What the instances whose logs are evidence have written since then, to either stream."""
    text = ""
    for role, begun in since.log_bytes.items():
        service, host = deployment.services[role], pair[deployment.part(role).end].host
        for stream, at in zip(("out", "err"), begun, strict=True):
            text += host.run(command("tail", "-c", f"+{at + 1}", f"{service.folder}/{stream}"), check=True).stdout
    return text


def grown(before: Sequence[Sample], after: Sequence[Sample], name: str, **labels: str) -> float | None:
    """How much a counter grew; None where it is not there afterwards."""
    now = total(after, name, **labels)
    return None if now is None else now - (total(before, name, **labels) or 0)


def block_tokens(moment: Moment, role: Role) -> int | None:
    """The engine's block size, as vLLM's ``cache_config_info`` tells it."""
    for sample in moment.metrics[role]:
        if sample.name == "vllm:cache_config_info" and sample.labels.get("block_size", "").isdigit():
            return int(sample.labels["block_size"])
    return None


@dataclass(frozen=True)
class Moved:
    """The hand-over between two moments; None where a counter is not there."""

    prompt_tokens: int | None = None
    hit_tokens: int | None = None
    put_bytes: int | None = None
    lost_objects: int = 0
    interface_bytes: int | None = None
    rdma_bytes: int | None = None


def moved(deployment: Deployment, before: Moment, after: Moment, log: str) -> Moved:
    """What moved from prefiller to decoder. ``log``: `log_since` of that time."""
    def grew(role: Role, name: str) -> int | None:
        value = grown(before.metrics[role], after.metrics[role], name)
        return None if value is None else int(value)

    rdma = None
    if before.rdma is not None and after.rdma is not None and after.rdma.tx_bytes is not None:
        rdma = after.rdma.tx_bytes - (before.rdma.tx_bytes or 0)
    interface = None if after.left_bytes is None else after.left_bytes - (before.left_bytes or 0)
    prompts = grew("decoder", "vllm:prompt_tokens_total")
    kind = deployment.wiring.stack.kind
    external = grew("decoder", "vllm:external_prefix_cache_hits_total")
    if kind == "direct":
        return Moved(prompts, external, interface_bytes=interface, rdma_bytes=rdma)
    # The master's own name has no _total; by the format every counter has one once it is read.
    lost = sum(grew("master", name) or 0 for name in ("master_evicted_key_count_total",
                                                      "master_put_start_alloc_failures_total"))
    # Mooncake 0.3.7 from the package index has no histogram of sizes; what it has allocated grows by what is put.
    put = grew("master", "master_value_size_bytes_sum")
    put = grew("master", "master_allocated_bytes") if put is None else put
    hits = external if kind == "pool" else parse_lmcache_log(log).retrieved_tokens
    return Moved(prompts, hits, put, lost, interface, rdma)


@dataclass(frozen=True)
class Timed:
    """The transfers of a benchmark as the engines timed them themselves: ``transfer_ms`` a request; ``piece_bytes``
    where it is told."""

    transfer_ms: float
    piece_bytes: float | None = None


def timed(deployment: Deployment, before: Moment, after: Moment, log: str) -> Timed | None:
    """What the stack's own connector says; None where it says nothing. A store's time is its put and its get.

    It stands beside the verdict and is no part of it, so a log of another format only leaves it out.
    """
    if deployment.wiring.stack.kind == "direct":
        with contextlib.suppress(ParseError):
            told = parse_kv_transfers(log)
            return Timed(told.mean_ms, told.piece_bytes) if told.count else None
    if deployment.wiring.stack.kind != "pool":
        return None

    def grew(role: Role, end: str, operation: str) -> float:
        return grown(before.metrics[role], after.metrics[role],
                     f"vllm:mooncake_store_operation_time_seconds_{end}", operation=operation) or 0.0

    seconds = grew("prefiller", "sum", "save_put") + grew("decoder", "sum", "load_get")
    gets = grew("decoder", "count", "load_get")
    return Timed(1e3 * seconds / gets) if gets else None


def evidence(deployment: Deployment, before: Moment, after: Moment, log: str, result: BenchResult, *, asked: int,
             output_tokens: int, range_ratio: float) -> Evidence:
    """The counters of one benchmark, for `kit.serving.validity.judge`. ``log``: `log_since` of that time."""
    wiring = deployment.wiring
    least, most = asked_tokens(asked, output_tokens, range_ratio, uncounted=wiring.stack.uncounted_tokens)
    errors = [request.error for request in result.requests if request.error]
    told = Evidence(asked, result.completed, result.output_tokens, least, most, _cold(before, after, result),
                    wiring.serving.protocol, first_error=errors[0] if errors else "")
    if wiring.stack.kind == "aggregated":
        return told
    seen = moved(deployment, before, after, log)
    seeds = tuple(wiring.env_of(role).get("PYTHONHASHSEED") for role in ("prefiller", "decoder"))
    return replace(told, decoder_hit_tokens=seen.hit_tokens, decoder_prompt_tokens=seen.prompt_tokens,
                   store_put_bytes=seen.put_bytes, interface_bytes=seen.interface_bytes, rdma_bytes=seen.rdma_bytes,
                   hash_seeds=seeds if wiring.stack.stores else (), evictions=seen.lost_objects)


def handover_of(deployment: Deployment, moment: Moment, result: BenchResult, *, bytes_per_token: int,
                share: float) -> Handover | None:
    """What had to move; None for an aggregated stack."""
    stack = deployment.wiring.stack
    if stack.kind == "aggregated":
        return None
    unit = stack.store.chunk_tokens if stack.store is not None else block_tokens(moment, "decoder") or 1
    # MooncakeStoreConnector leaves the decoder at least one token to compute, and so a whole prompt's last block.
    left = 1 if stack.kind == "pool" else 0
    prompts = [request.prompt_tokens - left for request in result.requests if request.ok]
    return Handover(expected_kv(prompts, unit, bytes_per_token), bytes_per_token, share, store=stack.stores)


def _cold(before: Moment, after: Moment, result: BenchResult) -> bool | None:
    """No engine found a prompt in its own prefix cache."""
    found = [grown(before.metrics[role], after.metrics[role], "vllm:prefix_cache_hits_total")
             for role in before.metrics if role != "master"]
    known = [hits for hits in found if hits is not None]
    if not known:
        return None
    return sum(known) <= _COLD_SHARE * result.input_tokens

