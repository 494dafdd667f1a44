"""A benchmark's points: every one once, no prompt twice, the command that measures it; and what the schemas refuse."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wired_nodes import wire

from kit.errors import ParamsError
from kit.params import ServeBenchParams, Stack, check, load
from kit.paths import root
from kit.serving.bench import bench_command, points, seed_of

AXIS = st.lists(st.integers(1, 4096), min_size=1, max_size=4, unique=True)


@given(AXIS, AXIS, AXIS, st.integers(1, 5))
def test_points_are_all_there_once_and_stack_by_stack(into: list[int], out: list[int], load_: list[int],
                                                      repeats: int) -> None:
    params = ServeBenchParams(input_tokens=into, output_tokens=out, concurrency=load_, repeats=repeats)
    made = points(params)
    assert len(made) == len({point.key(params) for point in made}) == 2 * len(into) * len(out) * len(load_) * repeats
    assert [point.stack for point in made] == sorted((point.stack for point in made), key=params.stacks.index)
    by_stack = {stack: [seed_of(point, params) for point in made if point.stack == stack] for stack in params.stacks}
    assert by_stack["aggregated"] == by_stack["lmcache-mooncake"], "the same prompts for every stack"


def test_no_prompt_is_seen_twice_by_a_stack() -> None:
    params = ServeBenchParams(stacks=["aggregated"], input_tokens=[128, 512, 1024, 4096], output_tokens=[16, 64, 256],
                              concurrency=[1, 4, 16, 32], repeats=10)
    seeds = [seed_of(point, params) for point in points(params)]
    assert len(set(seeds)) == len(seeds)
    rates = ServeBenchParams(stacks=["aggregated"], concurrency=[], requests_per_s=[0.5, 1, 2, 4, 8], repeats=5)
    assert len({seed_of(point, rates) for point in points(rates)}) == 25


@pytest.mark.parametrize("changed", [{"prompts": 21}, {"range_ratio": 0.1}, {"warmups": 2}, {"seed": 2}])
def test_another_measurement_has_another_key(changed: dict[str, Any]) -> None:
    params, other = ServeBenchParams(), ServeBenchParams(**changed)
    assert not {point.key(params) for point in points(params)} & {point.key(other) for point in points(other)}
    kept = ServeBenchParams(deadline_s=1)
    assert [point.key(params) for point in points(params)] == [point.key(kept) for point in points(kept)]


def test_the_command_of_a_closed_and_of_an_open_loop() -> None:
    params = ServeBenchParams(stacks=["mooncake-direct"], concurrency=[4], repeats=1, range_ratio=0.2)
    line = str(bench_command(wire("mooncake-direct"), points(params)[0], params, result="/run-a/x.json"))
    assert line == (
        "env QUIET=1 /opt/current/bin/vllm bench serve --backend openai --base-url http://10.0.1.1:9000 --model qwen "
        "--tokenizer /models/qwen --dataset-name random --random-input-len 512 --random-output-len 64 "
        f"--random-range-ratio 0.2 --num-prompts 20 --seed {seed_of(points(params)[0], params)} --ignore-eos "
        "--ready-check-timeout-sec 0 --percentile-metrics ttft,tpot,itl,e2el --metric-percentiles 50,90,99 "
        "--disable-tqdm --save-result --save-detailed --result-dir /run-a --result-filename x.json --request-rate inf "
        "--max-concurrency 4")
    paced = ServeBenchParams(stacks=["mooncake-direct"], concurrency=[], requests_per_s=[2.5], repeats=1)
    line = str(bench_command(wire("mooncake-direct"), points(paced)[0], paced, result="/run-a/x.json"))
    assert line.endswith("--request-rate 2.5")


STACK = {"name": "s", "title": "t", "kind": "aggregated", "environment": "recipe", "versions": {"vllm": "0.11.0"}}
STORE = {"segment_bytes": 2**24, "buffer_bytes": 2**24, "staging_gb": 1.0, "proxy_sha256": "0"}
ALL = {"vllm": "1", "lmcache": "1", "mooncake": "1"}


@pytest.mark.parametrize(("changed", "said"), [
    ({"sed": 1}, "sed: unknown parameter"),
    ({"kind": "split"}, "kind"),
    ({"versions": {}}, "gives the versions of: vllm"),
    ({"versions": {"vllm": "1", "sglang": "2"}}, "versions"),
    ({"first_token": "decoder"}, "first_token"),
    ({"store": STORE}, "store belongs to kind store"),
    ({"kind": "store", "versions": ALL, "first_token": "prefiller"}, "store belongs to kind store"),
    ({"kind": "direct", "versions": {"vllm": "1", "mooncake": "1"}}, "first_token"),
    ({"hash_seed": -1}, "hash_seed"),
    ({"hash_seed": "0"}, "hash_seed"),
    ({"ports": {"proxy": 70000}}, "ports.proxy"),
    ({"ports": {"proxie": 1}}, "ports.proxie"),
    ({"kind": "store", "versions": ALL, "first_token": "prefiller", "store": {**STORE, "segment_bytes": 5}}, "segment"),
    ({"kind": "store", "versions": ALL, "first_token": "prefiller", "store": {**STORE, "handover": "later"}},
     "store.handover"),
    ({"kind": "store", "versions": ALL, "first_token": "prefiller", "store": {**STORE, "waits_removed": ["embed"]}},
     "store.waits_removed"),
])
def test_a_stack_that_makes_no_sense_is_refused(changed: dict[str, Any], said: str) -> None:
    assert check(Stack, STACK, where="stack").name == "s"
    with pytest.raises(ParamsError) as raised:
        check(Stack, {**STACK, **changed}, where="stack")
    assert said in str(raised.value)


@pytest.mark.parametrize("path", sorted((root() / "params/stacks").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_stack_in_git_is_valid_and_named_by_its_file(path: Any) -> None:
    assert load(Stack, path).name == path.stem


@pytest.mark.parametrize(("changed", "said"), [
    ({"stacks": []}, "an axis needs at least one value"), ({"input_tokens": [5, 5]}, "each value once"),
    ({"requests_per_s": [1.0]}, "concurrency or requests_per_s"),
    ({"concurrency": []}, "concurrency or requests_per_s"),
    ({"range_ratio": 1.0}, "range_ratio"), ({"slo_ms": {"itl_ms": 5.0}}, "slo_ms"), ({"share": 0.0}, "share"),
    ({"expect": [{"stack": "x", "outcome": "valid", "symptom": ""}]}, "outcome")])
def test_a_benchmark_that_makes_no_sense_is_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ParamsError) as raised:
        check(ServeBenchParams, changed, where="06_serve_bench")
    assert said in str(raised.value)
