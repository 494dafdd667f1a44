"""Stacks wired on two nodes that nobody asks anything."""

from __future__ import annotations

from typing import Any

from kit.hosts.local import LocalHost
from kit.params import Serving, Site, Stack
from kit.serving.parts import Wiring
from kit.serving.stacks import read_stack, wired
from kit.sites import End, Pair

SERVING: dict[str, Any] = {
    "environments": {"recipe": {"at": "/opt/recipe", "prefix": ["setarch", "x86_64", "-R"]},
                     "current": {"at": "/opt/current", "env": {"QUIET": "1"}, "flags": ["--block-size", "32"]},
                     "gpu": {"at": "/opt/gpu"}},
    "model": "/models/qwen", "served_name": "qwen", "dtype": "bfloat16", "max_model_tokens": 8192, "protocol": "rdma",
    "prefill_flags": ["--gpu-memory-utilization", "0.9"], "decode_flags": ["--gpu-memory-utilization", "0.8"],
}
FOLDERS = {"a": "/run-a", "b": "/run-b"}


def two_nodes(**changed: Any) -> Pair:
    """Nodes a and b with this in their serving section; a prefills."""
    serving = SERVING | changed
    nodes = {name: {"host": f"10.0.0.{number}", "rdma_device": "erdma_0", "rdma_address": f"10.0.1.{number}"}
             for number, name in ((1, "a"), (2, "b"))}
    site = Site.model_validate({"name": "two-nodes", "nodes": nodes, "serving": serving})
    ends = [End(name, LocalHost(name, run_id="kit-run"), "erdma_0", f"10.0.1.{number}")
            for number, name in ((1, "a"), (2, "b"))]
    return Pair(site, *ends, serving=Serving.model_validate(serving))


def wire(stack: str | Stack, **changed: Any) -> Wiring:
    """A stack, by name or whole, wired; with this in the serving section."""
    return wired(two_nodes(**changed), read_stack(stack) if isinstance(stack, str) else stack, FOLDERS)
