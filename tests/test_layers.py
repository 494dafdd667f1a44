"""A module imports only from its own layer or from those below it, also inside functions."""

import ast

import pytest

from kit.paths import root

LAYERS = [
    {"errors", "files", "stats", "command", "symptoms", "parse", "describe", "paths", "kv", "kv_config", "linkmodel",
     "workload", "explain"},
    {"params"},
    {"hosts"},
    {"store"},
    {"lab", "sites"},
    {"device", "stage", "link", "engine", "inspection", "serving", "observe", "prepare"},
    {"compare", "plots", "report", "progress", "runner", "record", "dryrun", "schemadoc", "predict", "engine_plots",
     "explain_plots", "explain_report", "explain_run", "serve_compare", "serve_plots"},
    {"cli", "cli_explain", "cli_pd", "cli_prepare", "cli_predict", "reported"},
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
MODULES = sorted(path for path in (root() / "kit").rglob("*.py") if path != root() / "kit" / "__init__.py")


def room(parts):
    return parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(root())))
def test_imports_point_downward(path):
    mine = RANK[room(path.relative_to(root() / "kit").parts)]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "kit":
            below = node.module.split(".")[1:]
            for name in [below[0]] if below else [alias.name for alias in node.names if alias.name in RANK]:
                assert RANK[room([name])] <= mine, f"{path.name} imports {name}"
