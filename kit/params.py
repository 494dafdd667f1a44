"""Closed schemas of sites, experiments and stage parameters: an unknown key is an error, before anything starts.

A site says which machines there are; an experiment says which stages run on which site, with which axes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from kit.errors import ParamsError

Tool = Literal["ib_write_bw", "ib_read_bw", "ib_send_bw",
               "ib_write_lat", "ib_read_lat", "ib_send_lat", "ib_atomic_lat"]
Connection = Literal["rdma_cm", "out_of_band"]
Direction = Literal["a->b", "b->a"]
Port = Annotated[int, Field(ge=1, le=65535)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]


class Closed(BaseModel):
    """Strict about keys and types: YAML's ``"16"`` is not 16."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Jump(Closed):
    """A host to go through."""

    host: str
    port: Port = 22
    user: str = "root"
    key_file: str | None = None


class Node(Closed):
    """One machine: how to reach it, and its RDMA device. ``key_file`` may be ``env:NAME``; None asks the agent."""

    host: str
    port: Port = 22
    user: str = "root"
    key_file: str | None = None
    jump: Jump | None = None
    rdma_device: Name
    rdma_address: str
    rdma_port: Annotated[int, Field(ge=1)] = 1
    role: Literal["prefill", "decode"] | None = None


class Site(Closed):
    """Two nodes ``a`` and ``b``; or the embedded ``lab``; or a ``replay`` of a recorded run.

    ``nominal_gbps`` is what the provider promises for the link (1e9 bits/s); None where nobody promises anything.
    """

    name: Name
    title: str = ""
    nodes: dict[Literal["a", "b"], Node] | None = None
    lab: Literal["siw", "rxe"] | None = None
    replay: str | None = None
    nominal_gbps: Annotated[float, Field(gt=0)] | None = None
    known_hosts: str = "params/known_hosts"

    @model_validator(mode="after")
    def _one_kind(self) -> Site:
        kinds = [self.nodes is not None, self.lab is not None, self.replay is not None]
        if sum(kinds) != 1:
            raise ValueError("a site has exactly one of: nodes, lab, replay")
        if self.nodes is not None and set(self.nodes) != {"a", "b"}:
            raise ValueError("a site has the two nodes a and b")
        return self


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
        if not values:
            raise ValueError("an axis needs at least one value")
        if len(set(values)) != len(values):
            raise ValueError("an axis names each value once")
        return values

    @model_validator(mode="after")
    def _one_length(self) -> LinkParams:
        if self.iterations is not None and self.duration_s is not None:
            raise ValueError("give iterations or duration_s, not both")
        if self.duration_s is not None and self.deadline_s <= self.duration_s + 5:
            raise ValueError("deadline_s must be more than 5 s above duration_s")
        return self


class DeviceParams(Closed):
    """Parameters of ``02_device_info``: none beside the site."""


STAGES: dict[str, type[Closed]] = {"02_device_info": DeviceParams, "03_link_perftest": LinkParams}
StageName = Literal["02_device_info", "03_link_perftest"]


class Stage(Closed):
    """One notebook on one site, with its parameters checked by the stage's own schema."""

    stage: StageName
    site: str
    params: dict[str, Any] = {}

    @model_validator(mode="after")
    def _params_fit(self) -> Stage:
        STAGES[self.stage](**self.params)
        return self


class Experiment(Closed):
    """What `kit run` runs. With ``compare``, the link runs are put side by side at the end."""

    name: Name
    title: str = ""
    stages: Annotated[list[Stage], Field(min_length=1)]
    compare: bool = False


M = TypeVar("M", bound=Closed)


def check(schema: type[M], values: Any, *, where: str) -> M:
    """Values as a schema, or a ParamsError that names every wrong key."""
    if not isinstance(values, dict):
        raise ParamsError(f"{where}: expected keys and values, found {type(values).__name__}")
    try:
        return schema(**values)
    except (ValidationError, TypeError) as error:
        raise ParamsError(f"{where}: {_explain(schema, error)}", remedy="see params/README.md for the keys") from error


def load(schema: type[M], path: Path) -> M:
    """A YAML file as a schema. Raises ParamsError."""
    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ParamsError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path} is not YAML: {error}") from error
    return check(schema, values, where=str(path))


def secret(reference: str) -> str:
    """``env:NAME`` as the variable's value, any other text as it is. Raises ParamsError where NAME is not set."""
    if not reference.startswith("env:"):
        return reference
    name = reference.removeprefix("env:")
    value = os.environ.get(name)
    if not value:
        raise ParamsError(f"the environment variable {name} is not set", remedy=f"export {name}=…")
    return value


def _explain(schema: type[Closed], error: ValidationError | TypeError) -> str:
    if isinstance(error, TypeError):
        return str(error)
    lines = []
    for problem in error.errors(include_url=False):
        where = ".".join(str(part) for part in problem["loc"])
        text = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            known = ", ".join(schema.model_fields) if len(problem["loc"]) == 1 else ""
            text = "unknown parameter" + (f"; known: {known}" if known else "")
        lines.append(f"{where}: {text}" if where else text)
    return "; ".join(lines)
