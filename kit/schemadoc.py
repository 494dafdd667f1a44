"""``params/README.md``, made from the schemas themselves; a test keeps the two equal."""

from __future__ import annotations

import inspect
from typing import Any

from kit.params import (
    Artifact,
    Artifacts,
    Closed,
    ContainerWanted,
    DriverWanted,
    Expect,
    Experiment,
    ExporterWanted,
    Jump,
    LimitsWanted,
    LinkParams,
    ModeWanted,
    NetworkWanted,
    Node,
    Prepare,
    Site,
    Stage,
    StorageWanted,
    UserSpaceWanted,
)

_PARTS: tuple[tuple[str, type[Closed]], ...] = (
    ("A site: `params/sites/NAME.yaml`", Site), ("A node of a site", Node), ("A host to go through", Jump),
    ("An experiment: `params/experiments/NAME.yaml`", Experiment), ("A stage of an experiment", Stage),
    ("Parameters of `03_link_perftest`", LinkParams), ("An expected failure", Expect),
    ("What a site's nodes shall be: `params/prepare/NAME.yaml`", Prepare), ("`limits`", LimitsWanted),
    ("`network`", NetworkWanted), ("`driver`", DriverWanted), ("`user_space`", UserSpaceWanted),
    ("`mode`", ModeWanted), ("`storage`", StorageWanted), ("`container`", ContainerWanted),
    ("`exporter`", ExporterWanted), ("What may be fetched: `params/artifacts.yaml`", Artifacts),
    ("An artifact", Artifact),
)


def schema_page() -> str:
    """The whole page. Every schema is closed: a key that is not listed here is an error."""
    lines = ["# Parameters", "", "Made from `kit/params/`. Every schema is closed: any other key is an error.", ""]
    for title, schema in _PARTS:
        lines += [f"## {title}", "", inspect.cleandoc(schema.__doc__ or "").replace("``", "`"), "",
                  "| key | type | default |", "|---|---|---|"]
        for name, about in schema.model_json_schema()["properties"].items():
            required = name in schema.model_json_schema().get("required", [])
            default = "required" if required else f"`{_plain(schema.model_fields[name].default)}`"
            lines.append(f"| `{name}` | {_type(about)} | {default} |")
        lines.append("")
    return "\n".join(lines)


def _type(about: dict[str, Any]) -> str:
    if "anyOf" in about:
        return " or ".join(_type(option) for option in about["anyOf"])
    if "enum" in about:
        return ", ".join(f"`{value}`" for value in about["enum"])
    if about.get("type") == "array":
        return f"list of: {_type(about.get('items', {}))}"
    if "$ref" in about:
        return str(about["$ref"].rsplit("/", 1)[-1])
    bounds = [f"{sign} {about[key]}" for key, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"))
              if key in about]
    return " ".join([str(about.get("type", "any")), *bounds])


def _plain(default: Any) -> str:
    return "null" if default is None else str(default)
