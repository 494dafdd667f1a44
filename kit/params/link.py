"""Parameters of the device and the link stage."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from kit.params.closed import Closed, an_axis

Tool = Literal["ib_write_bw", "ib_read_bw", "ib_send_bw",
               "ib_write_lat", "ib_read_lat", "ib_send_lat", "ib_atomic_lat"]
Connection = Literal["rdma_cm", "out_of_band"]
Direction = Literal["a->b", "b->a"]


class Expect(Closed):
    """Points whose axes equal ``when`` are expected to fail with ``symptom``."""

    when: dict[Literal["tool", "size_bytes", "qps", "connection", "direction"], str | int]
    outcome: Literal["failed"] = "failed"
    symptom: str


class LinkParams(Closed):
    """Parameters of ``03_link_perftest``. Axes: tools x sizes x qps x connections x directions, ``repeats`` times."""

    tools: list[Tool] = ["ib_write_bw"]
    sizes_bytes: list[Annotated[int, Field(ge=1, le=2**31 - 1)]] = [65536]
    qps: list[Annotated[int, Field(ge=1, le=16384)]] = [1]
    connections: list[Connection] = ["rdma_cm"]
    directions: list[Direction] = ["a->b"]
    repeats: Annotated[int, Field(ge=1, le=100)] = 3
    iterations: Annotated[int, Field(ge=5)] | None = None
    duration_s: Annotated[int, Field(ge=1, le=3600)] | None = None
    bidirectional: bool = False
    mtu_bytes: Literal[256, 512, 1024, 2048, 4096] | None = None
    gid_index: Annotated[int, Field(ge=0)] | None = None
    tx_depth: Annotated[int, Field(ge=1)] | None = None
    inline_bytes: Annotated[int, Field(ge=0)] | None = None
    base_port: Annotated[int, Field(ge=1024, le=65000)] = 18515
    deadline_s: Annotated[float, Field(gt=0, le=7200)] = 60
    expect: list[Expect] = []
    baseline: str | None = None

    @field_validator("tools", "sizes_bytes", "qps", "connections", "directions")
    @classmethod
    def _an_axis(cls, values: list[Any]) -> list[Any]:
        return an_axis(values)

    @model_validator(mode="after")
    def _one_length(self) -> LinkParams:
        if self.iterations is not None and self.duration_s is not None:
            raise ValueError("give iterations or duration_s, not both")
        if self.duration_s is not None and self.deadline_s <= self.duration_s + 5:
            raise ValueError("deadline_s must be more than 5 s above duration_s")
        return self


class DeviceParams(Closed):
    """Parameters of ``02_device_info``: none beside the site."""
