"""The preflight's judgement: each thing that must hold, broken once, with its remedy."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wired_nodes import wire

from kit.device import NodeFacts
from kit.errors import ParamsError
from kit.parse.ibv import parse_ibv_devinfo
from kit.paths import root
from kit.serving.checks import Check, checks, known_holes
from kit.serving.memory import Load, registered_bytes, store_bytes, wanted_store_bytes
from kit.serving.parts import Wiring
from kit.serving.preflight import ServingFacts
from kit.serving.session import Ground
from kit.serving.stacks import kv_bytes_per_token, read_stack

LOAD = Load(600, 8)
GOOD = ServingFacts({"config.json": "1 100", "model.safetensors": "2 200"}, "{}",
                    {"vllm": "0.11.0.post2+cpu", "lmcache": "0.3.9", "mooncake": "0.3.7.post2"}, "3.12.3", (7, 7),
                    frozenset({22}), "unlimited")
NOW = replace(GOOD, versions={"vllm": "0.32.0+cpu", "mooncake": "0.3.13.post1"})


def device(name: str) -> NodeFacts:
    """A node whose devices are those of a recorded ibv_devinfo."""
    text = (root() / f"tests/data/ibv_devinfo/{name}.txt").read_text()
    return NodeFacts("node", devices=tuple(parse_ibv_devinfo(text)))


def compat() -> NodeFacts:
    """The recorded eRDMA device, as the driver's compat mode announces it."""
    facts = device("erdma_standard_v")
    return replace(facts, devices=(replace(facts.devices[0], transport="InfiniBand", transport_code=0),))


def found(wiring: Wiring, a: ServingFacts = GOOD, b: ServingFacts = GOOD, *, load: Load = LOAD,
          at: NodeFacts | None = None, bytes_per_token: int = 4096) -> list[Check]:
    devices = dict.fromkeys(("prefiller", "decoder"), at or compat())
    return checks(wiring, {"prefiller": a, "decoder": b}, devices, load, bytes_per_token)  # type: ignore[arg-type]


def failed(seen: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in seen if check.outcome == "fail"}


def test_a_good_site_fails_nothing() -> None:
    seen = found(wire("lmcache-mooncake"))
    assert failed(seen) == {}
    outcomes = [check.outcome for check in seen]
    assert outcomes == sorted(outcomes, key=["fail", "warn", "ok"].index)
    assert failed(found(wire("mooncake-direct"), NOW, NOW)) == {}
    assert failed(checks(wire("aggregated"), {"server": GOOD}, {}, LOAD, 4096)) == {}


BROKEN: dict[str, tuple[dict[str, Any], str, str]] = {
    "vllm_version": ({"versions": {**GOOD.versions, "vllm": "0.10.2"}}, "decoder 0.10.2; the stack names 0.11.0",
                     "install vllm 0.11.0"),
    "lmcache_version": ({"versions": {"vllm": "0.11.0", "mooncake": "0.3.7"}}, "decoder none", "install lmcache 0.3.9"),
    "same_model": ({"model": {"config.json": "1 100", "model.safetensors": "3 200"}}, "model.safetensors differ",
                   "the same model"),
    "port_free": ({"listening": frozenset({22, 7200})}, "port 7200 (decoder) is in use on node b", "ss -ltnp"),
    "memlock": ({"memlock": "65536"}, "decoder: 65536 KiB, 1.6 GiB to be registered", "memlock to unlimited"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_one_node_is_not_right(name: str) -> None:
    changed, seen, remedy = BROKEN[name]
    (check,) = failed(found(wire("lmcache-mooncake"), b=replace(GOOD, **changed))).values()
    assert check.name == name
    assert seen in check.seen
    assert remedy in check.remedy


@pytest.mark.parametrize(("name", "port"), [("master", 50052), ("metadata", 8080), ("master_metrics", 9004),
                                            ("prefiller", 7100), ("proxy", 9000), ("proxy_messages", 8500)])
def test_every_port_of_the_first_node_is_looked_at(name: str, port: int) -> None:
    (check,) = failed(found(wire("lmcache-mooncake"), replace(GOOD, listening=frozenset({port})))).values()
    assert check.seen == f"port {port} ({name}) is in use on node a"


SEEDS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "not set": ({"stack": read_stack("lmcache-mooncake").model_copy(update={"hash_seed": None})}, {}, "is not set"),
    "differ": ({"decode_env": {"PYTHONHASHSEED": "1"}}, {}, "the seeds differ: prefiller 0, decoder 1"),
    "unset on one": ({"stack": read_stack("lmcache-mooncake").model_copy(update={"hash_seed": None}),
                      "decode_env": {"PYTHONHASHSEED": "1"}}, {}, "is not set"),
    "not steady": ({}, {"hashes": (7, 8), "python": "3.11.7"}, "hash differently (Python 3.11.7, 3.12.3)"),
    "another build": ({}, {"hashes": (8, 8)}, "prefiller 7, decoder 8"),
}


@pytest.mark.parametrize("case", SEEDS)
def test_hash_seeds(case: str) -> None:
    site, node, seen = SEEDS[case]
    wiring = wire(**{"stack": "lmcache-mooncake", **site})
    (check,) = failed(found(wiring, b=replace(GOOD, **node))).values()
    assert check.name == "hash_seed"
    assert seen in check.seen
    assert check.remedy


def test_keys_hold_the_path_of_the_model() -> None:
    assert "same_model_path" in failed(found(wire("lmcache-mooncake", decode_model="/elsewhere")))
    assert failed(found(wire("mooncake-direct", decode_model="/elsewhere"), NOW, NOW)) == {}


def test_the_device() -> None:
    wiring = wire("lmcache-mooncake")
    standard = failed(found(wiring, at=device("erdma_standard_v")))
    assert list(standard) == ["rdma_mode"]
    assert "compat mode" in standard["rdma_mode"].remedy
    down = failed(found(wire("lmcache-mooncake", interface=None), at=replace(compat(), devices=(
        replace(compat().devices[0], ports=device("port_down").devices[0].ports),))))
    assert list(down) == ["rdma_device"]
    over_tcp = wire("lmcache-mooncake", protocol="tcp")
    assert failed(found(over_tcp, replace(GOOD, memlock="64"), at=device("erdma_standard_v"))) == {}


def test_registered_memory_against_the_device() -> None:
    stack = read_stack("lmcache-mooncake")
    assert registered_bytes(stack) == 524288000 + 134217728 + 2**30
    assert registered_bytes(read_stack("mooncake-direct")) == 0
    large = stack.model_copy(update={"store": stack.store.model_copy(update={"segment_bytes": 64 * 2**30})})
    check = failed(found(wire(large)))["max_mr_size"]
    assert "the device registers 64 GiB at most, 65.1 GiB are wanted" in check.seen
    assert "max_mr_size" not in failed(found(wire(large), at=replace(compat(), devices=(
        replace(compat().devices[0], max_mr_size_bytes=2**64 - 1),))))


def test_a_container_sets_its_own_memlock() -> None:
    assert failed(found(wire("lmcache-mooncake", runtime="container"), b=replace(GOOD, memlock="8192"))) == {}


def test_the_store_holds_what_is_in_flight() -> None:
    stack = read_stack("lmcache-mooncake")
    check = failed(found(wire(stack), load=Load(4096, 32), bytes_per_token=57344))["store_size"]
    assert check.seen == ("32 prompts of 4096 tokens, 57344 bytes a token: 7516 MB in whole chunks; the segments hold "
                          "1049 MB")
    assert "segment_bytes larger" in check.remedy
    assert failed(found(wire(stack), load=Load(4096, 4), bytes_per_token=57344)) == {}


@given(st.integers(1, 10**6), st.integers(1, 1000), st.integers(16, 4096), st.integers(1, 10**6))
def test_store_arithmetic(prompt: int, concurrency: int, chunk: int, bytes_per_token: int) -> None:
    wanted = wanted_store_bytes(Load(prompt, concurrency), chunk, bytes_per_token)
    exact = prompt * concurrency * bytes_per_token
    assert exact <= wanted < exact + concurrency * chunk * bytes_per_token
    assert wanted % (chunk * bytes_per_token) == 0
    assert store_bytes(read_stack("lmcache-mooncake")) == 2 * 524288000


def test_chunks_are_whole_blocks() -> None:
    stack = read_stack("lmcache-mooncake").model_copy(update={"block_tokens": 48})
    assert "no whole blocks of 48" in failed(found(wire(stack)))["chunk_size"].seen
    assert failed(found(wire(stack.model_copy(update={"block_tokens": 64})))) == {}


def holes(seen: list[Check]) -> set[str]:
    return {check.seen.split(": ")[1].split(",")[0] for check in seen if check.name == "known_hole"}


def test_known_holes_are_warned_of_by_number() -> None:
    seen = found(wire("lmcache-mooncake"))
    assert holes(seen) == {"CVE-2026-103764", "CVE-2026-103765", "CVE-2026-96763"}
    assert all(check.outcome == "warn" and check.remedy for check in seen if check.name == "known_hole")
    assert holes(found(wire("mooncake-direct"), NOW, NOW)) == set()
    old = replace(NOW, versions={"vllm": "0.8.4", "mooncake": "0.3.12"})
    assert holes(found(wire("mooncake-direct"), old, old)) == {"CVE-2026-103764", "CVE-2025-32444"}
    odd = replace(NOW, versions={"vllm": "0.32.0", "mooncake": "of-the-day"})
    assert holes(found(wire("mooncake-direct"), odd, odd)) == {"CVE-2026-103764"}
    assert {hole["package"] for hole in known_holes()} <= {"vllm", "lmcache", "mooncake"}


def test_only_declared_faults_are_let_through() -> None:
    wiring = wire("lmcache-mooncake-as-published")
    seen = tuple(found(wiring, b=replace(GOOD, memlock="64")))
    assert {check.name for check in Ground(wiring, seen, 4096).refused()} == {"memlock"}
    assert failed(list(seen)).keys() == {"memlock", "hash_seed"}


def test_bytes_of_a_token() -> None:
    config = json.loads((root() / "tests/data/kv/Qwen2.5-7B.json").read_text())["config"]
    assert kv_bytes_per_token(json.dumps(config), "bfloat16") == 57344
    assert kv_bytes_per_token(json.dumps(config), "float32") == 2 * 57344
    assert kv_bytes_per_token(json.dumps({**config, "torch_dtype": "bfloat16"}), "auto") == 57344
    with pytest.raises(ParamsError, match="not JSON"):
        kv_bytes_per_token("{", "auto")
    with pytest.raises(ParamsError, match="dtype is 'fp4'"):
        kv_bytes_per_token(json.dumps({**config, "dtype": "fp4"}), "auto")
