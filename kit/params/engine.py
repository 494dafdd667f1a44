"""Parameters of the transfer-engine stage."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from kit.params.closed import Closed, Name, an_axis
from kit.params.link import Direction


class EngineParams(Closed):
    """Parameters of ``04_transfer_engine``.

    Axes: operations x blocks x batches x threads x protocols x memories x directions, ``repeats`` times. ``program`` is
    the bench on both nodes: of the site's serving ``environment`` where one is named, else on the PATH or a whole path.
    ``library_path``: where its shared libraries are if the system does not have them. ``env`` goes to both ends, such
    as ``MC_TCP_SLICE_SIZE`` or ``MC_TCP_ENABLE_CONNECTION_POOL``.
    ``link_run`` is the folder of a finished link run, whose best bandwidths are the bound; without it the site's
    ``nominal_gbps`` is.
    """

    operations: list[Literal["read", "write"]] = ["write", "read"]
    block_bytes: list[Annotated[int, Field(ge=1, le=2**32)]] = [65536, 1048576]
    batches: list[Annotated[int, Field(ge=1, le=65536)]] = [8]
    threads: list[Annotated[int, Field(ge=1, le=256)]] = [4]
    protocols: list[Literal["tcp", "rdma"]] = ["rdma"]
    memories: list[Literal["dram", "vram"]] = ["dram"]
    directions: list[Direction] = ["a->b"]
    repeats: Annotated[int, Field(ge=1, le=100)] = 3
    duration_s: Annotated[int, Field(ge=1, le=3600)] = 4
    gpu_id: Annotated[int, Field(ge=0)] = 0
    gid_index: Annotated[int, Field(ge=0)] | None = None
    base_port: Annotated[int, Field(ge=1024, le=65000)] = 12345
    deadline_s: Annotated[float, Field(gt=0, le=7200)] = 60
    environment: Name | None = None
    program: str = "transfer_engine_bench"
    library_path: str = ""
    env: dict[str, str] = {}
    link_run: str | None = None

    @field_validator("operations", "block_bytes", "batches", "threads", "protocols", "memories", "directions")
    @classmethod
    def _an_axis(cls, values: list[Any]) -> list[Any]:
        return an_axis(values)

    @model_validator(mode="after")
    def _time_to_end(self) -> EngineParams:
        if self.deadline_s <= self.duration_s + 5:
            raise ValueError("deadline_s must be more than 5 s above duration_s")
        return self
