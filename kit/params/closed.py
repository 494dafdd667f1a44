"""What every schema shares: closed and strict models, checked values, YAML files, secrets by name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kit.errors import ParamsError

Port = Annotated[int, Field(ge=1, le=65535)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]


class Closed(BaseModel):
    """Strict about keys and types: YAML's ``"16"`` is not 16."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def an_axis(values: list[Any]) -> list[Any]:
    """What every axis of a sweep must be: not empty, each value once."""
    if not values:
        raise ValueError("an axis needs at least one value")
    if len(set(values)) != len(values):
        raise ValueError("an axis names each value once")
    return values


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
