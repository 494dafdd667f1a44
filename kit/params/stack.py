"""A stack: serving software in pinned versions, and how its parts are wired. ``params/stacks/*.yaml``"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from kit.params.closed import Closed, Name, Port


class Ports(Closed):
    """Where the parts of a stack listen; the defaults are those of the published recipe."""

    master: Port = 50052
    metadata: Port = 8080
    master_metrics: Port = 9004
    prefiller: Port = 7100
    decoder: Port = 7200
    proxy: Port = 9000
    proxy_messages: Port = 8500
    bootstrap: Port = 8998


class Store(Closed):
    """LMCache over a Mooncake store. Sizes are for each instance."""

    chunk_tokens: Annotated[int, Field(ge=16)] = 256
    segment_bytes: Annotated[int, Field(ge=2**24)]
    buffer_bytes: Annotated[int, Field(ge=2**24)]
    staging_gb: Annotated[float, Field(gt=0)]
    proxy_sha256: str
    put_timeout_s: Annotated[int, Field(ge=1)] = 1
    waits_removed: list[Literal["completions", "chat"]] = ["completions", "chat"]
    handover: Literal["published", "stored"] = "published"
    handover_deadline_s: Annotated[float, Field(gt=0, le=60)] = 2


class Pool(Closed):
    """vLLM's MooncakeStoreConnector over a Mooncake store. Sizes are for each instance.

    ``handover``: whether the proxy asks the decoder at once, or waits until the prefiller's puts have landed, or none
    has for ``handover_deadline_s``.
    """

    segment_bytes: Annotated[int, Field(ge=2**24)]
    buffer_bytes: Annotated[int, Field(ge=2**24)]
    handover: Literal["at_once", "stored"] = "stored"
    handover_deadline_s: Annotated[float, Field(gt=0, le=60)] = 5


class Stack(Closed):
    """One vLLM (``aggregated``), or a prefiller and a decoder that share KV.

    ``store``: through LMCache in a Mooncake store, behind LMCache's own proxy, which answers with the prefiller's
    first token: the hand-over shows in the first inter-token latency. ``direct``: vLLM's MooncakeConnector pushes the
    KV, behind the kit's proxy, which answers with the decoder's first token: the hand-over shows in TTFT. ``pool``:
    vLLM's MooncakeStoreConnector, through a Mooncake store without LMCache, behind the kit's proxy.

    ``known_faults`` names the preflight's checks that this stack fails and is started all the same, to be shown.
    ``environment`` is one of the site's; ``hash_seed`` is ``PYTHONHASHSEED``, null where it is left unset.
    ``everywhere`` leaves the parts listening on all interfaces, as the recipe does.
    """

    name: Name
    title: str
    kind: Literal["aggregated", "store", "direct", "pool"]
    environment: Name
    versions: dict[Literal["vllm", "lmcache", "mooncake"], str]
    first_token: Literal["prefiller", "decoder"] | None = None
    hash_seed: Annotated[int, Field(ge=0, le=2**32 - 1)] | None = 0
    everywhere: bool = False
    store: Store | None = None
    pool: Pool | None = None
    ports: Ports = Ports()
    block_tokens: Annotated[int, Field(ge=1)] | None = None
    vllm_flags: list[str] = []
    known_faults: list[str] = []

    @model_validator(mode="after")
    def _whole(self) -> Stack:
        wanted = {"aggregated": {"vllm"}, "store": {"vllm", "lmcache", "mooncake"}, "direct": {"vllm", "mooncake"},
                  "pool": {"vllm", "mooncake"}}
        if set(self.versions) != wanted[self.kind]:
            names = ", ".join(sorted(wanted[self.kind]))
            raise ValueError(f"a stack of kind {self.kind} gives the versions of: {names}")
        for name, section in (("store", self.store), ("pool", self.pool)):
            if (section is not None) != (self.kind == name):
                raise ValueError(f"{name} belongs to kind {name}, and only there")
        if self.pool is not None and self.block_tokens is None:
            raise ValueError("kind pool gives block_tokens: the store's objects are whole blocks")
        if (self.first_token is None) != (self.kind == "aggregated"):
            raise ValueError("first_token says who answers first, where there are two instances")
        return self

    @property
    def stores(self) -> bool:
        """Whether KV goes through a store, where it is found by keys that both instances must hash alike."""
        return self.kind in ("store", "pool")

    @property
    def uncounted_tokens(self) -> int:
        """Tokens of a request that the server's own count leaves out: LMCache's proxy adds the first one itself."""
        return 1 if self.kind == "store" else 0
