"""The dashboard asks only for metrics and labels that the exporter emits: a label too many leaves a panel empty."""

import json
import re

import pytest
from cases import DATA

from kit.paths import root

EMITTED = {words[0]: set(words[1:]) for line in
           (DATA.parent / "erdma_exporter" / "metrics.txt").read_text().splitlines()
           if (words := line.split()) and not line.startswith("#")}
BOARD = json.loads((root() / "params" / "grafana" / "erdma.json").read_text())
QUERIES = [(target["expr"], target["legendFormat"]) for panel in BOARD["panels"] for target in panel["targets"]]
QUERIES += [(var["query"], "") for var in BOARD["templating"]["list"] if var["type"] == "query"]


def problems(expression, legend):
    """Names and labels that nobody emits."""
    found = []
    for name, selector in re.findall(r"(erdma_\w+)(?:\{([^}]*)\})?", expression):
        if name not in EMITTED:
            found.append(name)
            continue
        asked = set(re.findall(r"(\w+)\s*[=!]", selector)) | set(re.findall(r"\{\{(\w+)\}\}", legend))
        asked |= set(re.findall(r"label_values\([^)]*,\s*(\w+)\)", expression))
        found += sorted(asked - EMITTED[name])
    return found


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query[0][:60])
def test_a_query_asks_for_what_is_emitted(query):
    assert "erdma_" in query[0]
    assert problems(*query) == []


def test_the_published_mistake_would_be_found():
    assert problems('rate(erdma_hw_tx_bytes_total{cluster="$cluster"}[30s])', "{{device}}") == ["cluster"]
