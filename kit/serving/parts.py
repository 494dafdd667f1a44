"""A stack's parts as commands: pure, from a stack, a site's serving and two seats to what runs where.

The commands and configuration files are those of the published recipe (vLLM 0.11.0, LMCache 0.3.9, Mooncake 0.3.7);
what a stack changes about them stands in its own file under ``params/stacks/``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import yaml

from kit.command import Command
from kit.command import Part as Word
from kit.params import Serving, Stack
from kit.serving.runtime import Place, started

Role = Literal["server", "master", "prefiller", "decoder", "proxy"]


@dataclass(frozen=True)
class Seat:
    """Where an instance runs: the end's name, its private address, its RDMA device, and a folder of the run there."""

    end: str
    address: str
    device: str
    folder: str


@dataclass(frozen=True)
class Part:
    """One process of a stack. ``files``: path on the node -> content, written before the start."""

    role: Role
    end: str
    address: str
    port: int
    command: Command
    health: str | None
    files: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://{self.address}:{self.port}"


@dataclass(frozen=True)
class Wiring:
    """What the parts are made from. ``proxy_program`` is the text of the stack's proxy, patched where it must be."""

    stack: Stack
    serving: Serving
    prefill: Seat
    decode: Seat
    run_id: str
    proxy_program: str = ""

    def seat_of(self, role: Role) -> Seat:
        """The decoder has its own node; all else is on the prefiller's."""
        return self.decode if role == "decoder" else self.prefill

    def model_of(self, role: Role) -> str:
        own = self.serving.decode_model if role == "decoder" else None
        return own or self.serving.model

    def env_of(self, role: Role) -> dict[str, str]:
        """The environment of a part: the site's, the hash seed where there is something to agree on, the role's own.

        ``SPT_NOENV`` keeps vLLM's processes from writing their titles over the mark by which they are found and ended.
        """
        seed = self.stack.hash_seed if self.stack.kind != "aggregated" else None
        own = self.serving.decode_env if role == "decoder" else {}
        return {"SPT_NOENV": "1", **self.serving.env, **({} if seed is None else {"PYTHONHASHSEED": str(seed)}), **own}


def parts(wiring: Wiring) -> tuple[Part, ...]:
    """All parts, in the order in which they may start; prefiller and decoder may start side by side."""
    if wiring.stack.kind == "aggregated":
        return (_instance(wiring, "server"),)
    both = (_instance(wiring, "prefiller"), _instance(wiring, "decoder"))
    if wiring.stack.kind == "store":
        return (_master(wiring), *both, _store_proxy(wiring))
    if wiring.stack.kind == "pool":
        return (_master(wiring), *both, _own_proxy(wiring))
    return (*both, _own_proxy(wiring))


def ports_of(wiring: Wiring) -> dict[str, int]:
    """Every port that the stack takes, by its name in the stack file; only ``decoder`` is on the decoder's node."""
    ports, kind = wiring.stack.ports.model_dump(), wiring.stack.kind
    if kind == "aggregated":
        return {"server": ports["prefiller"]}
    own = {"direct": ("bootstrap",), "pool": ("master", "master_metrics"),
           "store": ("master", "metadata", "master_metrics", "proxy_messages")}[kind]
    return {name: ports[name] for name in (*own, "prefiller", "decoder", "proxy")}


def front(all_parts: tuple[Part, ...]) -> Part:
    """The part that clients talk to: the proxy, or the one server."""
    return all_parts[-1]


def place(wiring: Wiring, seat: Seat, name: str) -> Place:
    model = wiring.model_of("decoder" if seat == wiring.decode else "prefiller")
    return Place(wiring.serving, wiring.serving.environments[wiring.stack.environment], seat.folder, model,
                 f"{wiring.run_id}-{name}")


def _listen(wiring: Wiring, seat: Seat) -> str:
    return "0.0.0.0" if wiring.stack.everywhere else seat.address     # noqa: S104 - as published, and warned about


def _instance(wiring: Wiring, role: Role) -> Part:
    """``vllm serve``, alone or with a KV connector."""
    stack, serving = wiring.stack, wiring.serving
    seat, env, files = wiring.seat_of(role), wiring.env_of(role), {}
    port = stack.ports.decoder if role == "decoder" else stack.ports.prefiller
    argv: list[Word] = ["vllm", "serve", wiring.model_of(role), "--served-model-name", serving.served_name,
            "--host", _listen(wiring, seat), "--port", port, "--dtype", serving.dtype,
            "--max-model-len", serving.max_model_tokens, "--tensor-parallel-size", 1, *serving.flags,
            *serving.environments[stack.environment].flags,
            *(serving.decode_flags if role == "decoder" else serving.prefill_flags), *stack.vllm_flags]
    if stack.block_tokens is not None:
        argv += ["--block-size", stack.block_tokens]
    if stack.kind != "aggregated":
        argv += ["--kv-transfer-config", json.dumps(_connector(wiring, role, seat))]
    if stack.kind == "store":
        config = f"{seat.folder}/lmcache-{role}.yaml"
        files[config] = yaml.safe_dump(lmcache_config(wiring, seat), sort_keys=False)
        env |= {"LMCACHE_CONFIG_FILE": config, "LMCACHE_TRACK_USAGE": "false"}
    if stack.kind == "pool":
        config = f"{seat.folder}/mooncake-{role}.json"
        files[config] = json.dumps(pool_config(wiring, seat), indent=1)
        env["MOONCAKE_CONFIG_PATH"] = config
    if stack.kind in ("direct", "pool"):
        env["VLLM_HOST_IP"] = seat.address      # else Mooncake takes the address of the default route
    if stack.kind in ("direct", "pool") and serving.protocol == "tcp":
        env["MC_TCP_ENABLE_CONNECTION_POOL"] = "1"      # else a connection a transfer: thousands for one prompt
    if stack.kind == "direct" and role == "prefiller":
        env["VLLM_LOG_STATS_INTERVAL"] = "3"    # its log alone tells its transfers, unless it idles for so long
        env["VLLM_MOONCAKE_BOOTSTRAP_PORT"] = str(stack.ports.bootstrap)
    return Part(role, seat.end, seat.address, port, started(place(wiring, seat, role), argv, env), "/health", files)


def _connector(wiring: Wiring, role: Role, seat: Seat) -> dict[str, object]:
    kv_role = "kv_producer" if role == "prefiller" else "kv_consumer"
    if wiring.stack.kind == "store":
        return {"kv_connector": "LMCacheConnectorV1", "kv_role": kv_role}
    if wiring.stack.kind == "pool":
        return {"kv_connector": "MooncakeStoreConnector", "kv_role": kv_role,
                # of two instances on one node each needs a socket of its own
                "kv_connector_extra_config": {"load_async": True, "lookup_rpc_port": 1 if role == "prefiller" else 2}}
    extra: dict[str, object] = {"mooncake_protocol": wiring.serving.protocol}
    if wiring.serving.protocol == "rdma":
        extra["device_name"] = seat.device
    return {"kv_connector": "MooncakeConnector", "kv_role": kv_role, "kv_connector_extra_config": extra}


def lmcache_config(wiring: Wiring, seat: Seat) -> dict[str, object]:
    """LMCache 0.3.9's configuration; keys and defaults as in its ``lmcache/v1/config.py``."""
    store, ports = wiring.stack.store, wiring.stack.ports
    assert store is not None, "the schema gives a store stack its store"  # noqa: S101
    master = f"{wiring.prefill.address}:{ports.master}"
    return {
        "chunk_size": store.chunk_tokens,
        "remote_url": f"mooncakestore://{master}/",
        "remote_serde": "naive",
        "local_cpu": False,
        "max_local_cpu_size": store.staging_gb,
        "extra_config": {
            "local_hostname": seat.address,
            "metadata_server": f"http://{wiring.prefill.address}:{ports.metadata}/metadata",
            "protocol": wiring.serving.protocol,
            "device_name": seat.device if wiring.serving.protocol == "rdma" else "",
            "master_server_address": master,
            "global_segment_size": store.segment_bytes,
            "local_buffer_size": store.buffer_bytes,
            "transfer_timeout": store.put_timeout_s,
            "save_chunk_meta": False,
        },
    }


def pool_config(wiring: Wiring, seat: Seat) -> dict[str, object]:
    """MooncakeStoreConnector's configuration, as vLLM 0.23's ``mooncake/store/worker.py`` reads it. The store's clients
    find each other without a metadata server."""
    pool, ports = wiring.stack.pool, wiring.stack.ports
    assert pool is not None, "the schema gives a pool stack its pool"  # noqa: S101
    return {
        "mode": "embedded",
        "metadata_server": "P2PHANDSHAKE",
        "master_server_address": f"{wiring.prefill.address}:{ports.master}",
        "global_segment_size": pool.segment_bytes,
        "local_buffer_size": pool.buffer_bytes,
        "protocol": wiring.serving.protocol,
        "device_name": seat.device if wiring.serving.protocol == "rdma" else "",
    }


def _master(wiring: Wiring) -> Part:
    """``mooncake_master`` on the prefiller's node, with its HTTP metadata server where LMCache needs it."""
    ports, seat = wiring.stack.ports, wiring.prefill
    argv: list[Word] = [
        "mooncake_master", "-port", ports.master, "-max_threads", 64, "-metrics_port", ports.master_metrics]
    if wiring.stack.kind == "store":
        argv += ["--enable_http_metadata_server=true", f"--http_metadata_server_host={_listen(wiring, seat)}",
                 f"--http_metadata_server_port={ports.metadata}"]
    if not wiring.stack.everywhere:
        argv.append(f"--rpc_address={seat.address}")
    if wiring.stack.kind == "pool":
        argv.append(f"--metrics_host={_listen(wiring, seat)}")      # unknown to 0.3.7
    return Part("master", seat.end, seat.address, ports.master,
                started(place(wiring, seat, "master"), argv, wiring.env_of("master")), None)


def _store_proxy(wiring: Wiring) -> Part:
    """LMCache's ``disagg_proxy_server.py`` of the same version, on the prefiller's node."""
    ports, seat, store = wiring.stack.ports, wiring.prefill, wiring.stack.store
    assert store is not None, "the schema gives a store stack its store"  # noqa: S101
    program, files, env = f"{seat.folder}/disagg_proxy_server.py", {}, wiring.env_of("proxy")
    if store.handover == "stored":
        files[f"{seat.folder}/kit_barrier.py"] = (Path(__file__).with_name("barrier.py")).read_text()
        env |= {"KIT_MASTER_URL": f"http://{seat.address}:{ports.master_metrics}",
                "KIT_KEY_PREFIX": f"vllm@{wiring.serving.model}@1@0",
                "KIT_CHUNK_TOKENS": str(store.chunk_tokens),
                "KIT_HANDOVER_DEADLINE_S": f"{store.handover_deadline_s:g}"}
    files[program] = wiring.proxy_program
    argv: list[Word] = ["python3", program, "--host", _listen(wiring, seat), "--port", ports.proxy,
            "--prefiller-host", wiring.prefill.address, "--prefiller-port", ports.prefiller,
            "--decoder-host", wiring.decode.address, "--decoder-port", ports.decoder,
            "--proxy-host", seat.address, "--proxy-port", ports.proxy_messages]
    return Part("proxy", seat.end, seat.address, ports.proxy,
                started(place(wiring, seat, "proxy"), argv, env), None, files)


def _own_proxy(wiring: Wiring) -> Part:
    """The kit's own proxy for vLLM's Mooncake connectors, on the prefiller's node."""
    ports, seat, pool = wiring.stack.ports, wiring.prefill, wiring.stack.pool
    program = f"{seat.folder}/direct_proxy.py"
    argv: list[Word] = ["python3", program, "--host", _listen(wiring, seat), "--port", ports.proxy,
            "--prefiller", f"http://{wiring.prefill.address}:{ports.prefiller}",
            "--decoder", f"http://{wiring.decode.address}:{ports.decoder}"]
    if pool is None:
        argv += ["--bootstrap", f"http://{wiring.prefill.address}:{ports.bootstrap}"]
    elif pool.handover == "stored":
        argv += ["--master", f"http://{wiring.prefill.address}:{ports.master_metrics}",
                 "--block-tokens", wiring.stack.block_tokens or 0, "--idle", pool.handover_deadline_s]
    text = Path(__file__).with_name("direct_proxy.py").read_text()
    command = started(place(wiring, seat, "proxy"), argv, wiring.env_of("proxy"))
    return Part("proxy", seat.end, seat.address, ports.proxy, command, "/health", {program: text})
