"""A site: which machines there are and how to reach them. ``params/sites/*.yaml``"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from kit.params.closed import Closed, Name, Port
from kit.params.serving import Serving


class Jump(Closed):
    """A host to go through."""

    host: str
    port: Port = 22
    user: str = "root"
    key_file: str | None = None


class Node(Closed):
    """One machine: how to reach it, and its RDMA device. ``key_file`` may be ``env:NAME``; None asks the agent.

    ``host: local`` is the machine that runs the kit, without ssh; both nodes may be it, as with a single GPU.
    ``rdma_address`` is the private address that the other node reaches; a node that only serves over TCP needs no
    ``rdma_device``.
    """

    host: str
    port: Port = 22
    user: str = "root"
    key_file: str | None = None
    jump: Jump | None = None
    rdma_device: Name | None = None
    rdma_address: str
    rdma_port: Annotated[int, Field(ge=1)] = 1
    role: Literal["prefill", "decode"] | None = None


    @property
    def local(self) -> bool:
        """Whether it is the machine that runs the kit."""
        return self.host == "local"

    @model_validator(mode="after")
    def _no_way_to_itself(self) -> Node:
        given = self.model_fields_set & {"port", "user", "key_file", "jump"}
        if self.local and given:
            raise ValueError(f"host local is reached without ssh: leave out {', '.join(sorted(given))}")
        return self


class Site(Closed):
    """Two nodes ``a`` and ``b``; or the embedded ``lab``; or a ``replay`` of a recorded run.

    ``nominal_gbps`` is what the provider promises for the link (1e9 bits/s); None where nobody promises anything.
    """

    name: Name
    title: str = ""
    nodes: dict[Literal["a", "b"], Node] | None = None
    lab: Literal["siw", "rxe", "erdma", "pd"] | None = None
    replay: str | None = None
    nominal_gbps: Annotated[float, Field(gt=0)] | None = None
    known_hosts: str = "params/known_hosts"
    serving: Serving | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Site:
        kinds = [self.nodes is not None, self.lab is not None, self.replay is not None]
        if sum(kinds) != 1:
            raise ValueError("a site has exactly one of: nodes, lab, replay")
        if self.nodes is not None and set(self.nodes) != {"a", "b"}:
            raise ValueError("a site has the two nodes a and b")
        return self
