"""How a site serves: where vLLM and its friends are on the nodes, the model, and what the hardware allows."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kit.params.closed import Closed, Name, Port


class Environment(Closed):
    """What a stack's ``environment`` is on a site's nodes.

    ``at``: a folder with ``bin/vllm`` (``runtime: venv``) or an image (``runtime: container``). ``prefix`` goes before
    every command of it, ``env`` into its environment, ``flags`` to its vLLM.
    """

    at: str
    prefix: list[str] = []
    env: dict[str, str] = {}
    flags: list[str] = []


class Serving(Closed):
    """The serving side of a site.

    ``model`` is the same folder on both nodes, unless ``decode_model`` names another for the
    decoder's. ``flags`` go to every vLLM, ``prefill_flags`` and ``decode_flags`` to one, as two GPU models may need;
    ``env`` goes to every part, ``decode_env`` to the decoder alone; a value ``env:NAME`` is a secret, taken from this
    variable of the machine that runs the kit when a part starts, and never shown. ``interface``: the network interface
    that leads to the other node; found by route where it is not named. ``lmcache_proxy``: LMCache's
    disagg_proxy_server.py, on the machine that runs the kit, for the stacks that need it. ``exporter_port``: where
    erdma-exporter answers on both nodes, to be sampled too.
    """

    runtime: Literal["venv", "container"] = "venv"
    engine: Literal["nerdctl", "docker", "podman"] = "nerdctl"
    privileged: bool = False
    environments: dict[Name, Environment]
    model: str
    decode_model: str | None = None
    served_name: Name = "model"
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    max_model_tokens: Annotated[int, Field(ge=16)]
    protocol: Literal["tcp", "rdma"]
    interface: Name | None = None
    lmcache_proxy: str | None = None
    flags: list[str] = []
    prefill_flags: list[str] = []
    decode_flags: list[str] = []
    env: dict[str, str] = {}
    decode_env: dict[str, str] = {}
    exporter_port: Port | None = None
    start_s: Annotated[float, Field(gt=0, le=3600)] = 600
