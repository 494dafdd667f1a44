"""The Python packages inside the serving container: every one by its hash, and the image's torch left alone.

Sources: pip's manual (``--require-hashes``, ``--dry-run``, ``--report``). The resolver is asked first what it would
install: a serving package that brings its own torch would break the image's CUDA build without a word.
"""

from __future__ import annotations

import hashlib

from kit.params import ContainerWanted
from kit.paths import root
from kit.prepare.facts import Facts
from kit.prepare.item import Item, Plan, Wanted, refuse, shell

_PIP_S = 3600
# $1 runtime, $2 container, $3 the requirements' SHA-256, $4 their text
PIP = r"""
runtime=$1 container=$2
inside() { "$runtime" exec "$container" "$@"; }
from_stdin() { "$runtime" exec -i "$container" "$@"; }
torch() {
    inside python3 -c 'import importlib.metadata as m
print(next((d.version for d in m.distributions(name="torch")), "none"))'
}
before=$(torch) || exit 1
printf %s "$4" | from_stdin sh -c 'cat >"$HOME/.erdma-kit-requirements.txt"' || exit 1
report=$(inside sh -c 'python3 -m pip install --quiet --dry-run --require-hashes --report - \
    -r "$HOME/.erdma-kit-requirements.txt"') || exit 1
would=$(printf %s "$report" | from_stdin python3 -c 'import json, sys
new = {it["metadata"]["name"].lower(): it["metadata"]["version"] for it in json.load(sys.stdin)["install"]}
print(new.get("torch", "none"))') || exit 1
if [ "$before" != none ] && [ "$would" != none ] && [ "$would" != "$before" ]; then
    echo "error: this would replace torch $before by $would; nothing was installed" >&2
    exit 1
fi
inside sh -c 'python3 -m pip install --quiet --require-hashes -r "$HOME/.erdma-kit-requirements.txt"' || exit 1
printf %s "$3" | from_stdin sh -c 'cat >"$HOME/.erdma-kit-stack"'
"""


def plan(facts: Facts, wanted: Wanted) -> Plan:
    """The container's packages as the requirements file pins them."""
    want = _want(wanted)
    if want.requirements is None:
        return Plan()
    path = root() / want.requirements
    if not path.exists():
        return refuse(f"there is no file {want.requirements}", "name a requirements file of this project, with hashes")
    text = path.read_text()
    if "--hash=sha256:" not in text:
        return refuse(f"{want.requirements} pins nothing by hash",
                      "make it with hashes: uv pip compile --generate-hashes")
    there = facts.containers.get(want.name)
    if there is None or there.status != "running":
        return Plan(waits="the container is made by an item before")
    digest = hashlib.sha256(text.encode()).hexdigest()
    if facts.stacks.get(want.name) == digest:
        return Plan()
    return Plan((shell(f"install {want.requirements} in container {want.name}", PIP, want.runtime, want.name, digest,
                       text, deadline_s=_PIP_S),))


def _want(wanted: Wanted) -> ContainerWanted:
    assert wanted.prepare.container is not None, "only asked for what is wanted"  # noqa: S101
    return wanted.prepare.container


ITEM = Item("pip stack", "container", plan, after=("container",))
