"""``params/README.md``, made from the schemas themselves; a test keeps the two equal."""

from __future__ import annotations

import inspect
from typing import Any

from kit import params
from kit.params import Closed

_PARTS: tuple[tuple[str, type[Closed]], ...] = (
    ("A site: `params/sites/NAME.yaml`", params.Site), ("A node of a site", params.Node),
    ("A host to go through", params.Jump), ("How a site serves", params.Serving),
    ("An environment of a site", params.Environment),
    ("A stack: `params/stacks/NAME.yaml`", params.Stack), ("Its store", params.Store),
    ("Its pool", params.Pool), ("Its ports", params.Ports),
    ("An experiment: `params/experiments/NAME.yaml`", params.Experiment), ("A stage of an experiment", params.Stage),
    ("Parameters of `01_driver_setup`", params.SetupParams),
    ("Parameters of `03_link_perftest`", params.LinkParams), ("An expected failure", params.Expect),
    ("Parameters of `04_transfer_engine`", params.EngineParams),
    ("Parameters of `05_pd_launch`", params.LaunchParams), ("Parameters of `06_serve_bench`", params.ServeBenchParams),
    ("A stack that is expected not to be VALID", params.ServeExpect),
    ("What a site's nodes shall be: `params/prepare/NAME.yaml`", params.Prepare), ("`limits`", params.LimitsWanted),
    ("`network`", params.NetworkWanted), ("`driver`", params.DriverWanted), ("`user_space`", params.UserSpaceWanted),
    ("`mode`", params.ModeWanted), ("`storage`", params.StorageWanted), ("`container`", params.ContainerWanted),
    ("`exporter`", params.ExporterWanted), ("What may be fetched: `params/artifacts.yaml`", params.Artifacts),
    ("An artifact", params.Artifact),
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
