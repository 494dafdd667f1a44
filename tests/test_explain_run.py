"""`kit explain` on a serving run's tables: those of one H200, and made-up ones with a queue and a store."""

import json

import pytest
from click.testing import CliRunner
from served import SIZE, made_up, write_run

from kit.cli import main
from kit.errors import ParamsError, StoreError
from kit.explain_run import accounts
from kit.linkmodel import nominal
from kit.parse.bench import parse_bench
from kit.paths import root
from kit.serving.measure import summary_of
from kit.store import Run

H200 = root() / "tests/data/serving/pd-h200"


def h200_run(folder):
    """The sample's benchmarks as stage 06 would have kept them."""
    points, rows = [], []
    for stack, name in (("aggregated", "agg"), ("mooncake-direct", "moon")):
        for tokens in (512, 4096):
            result = parse_bench((H200 / f"bench_{name}_{tokens}_64_c1.json").read_text())
            axes = {"site": "h200", "stack": stack, "input_tokens": tokens, "output_tokens": 64, "concurrency": 1,
                    "requests_per_s": None, "repeat": 0, "outcome": "VALID"}
            moved = None if stack == "aggregated" else SIZE(tokens) * result.completed
            points.append({**axes, **summary_of(result, {}), "kv_expected_bytes": moved, "expected": True})
            rows += [{**axes, "index": each.index, "prompt_tokens": each.prompt_tokens, "ok": each.ok,
                      "ttft_ms": each.ttft_ms, "first_itl_ms": each.first_itl_ms, "tpot_ms": each.tpot_ms,
                      "e2e_ms": each.e2e_ms} for each in result.requests]
    return write_run(folder, points, rows)


def kit(*argv):
    return CliRunner().invoke(main, ["explain", *map(str, argv)])


def test_the_h200_run(tmp_path):
    h200_run(tmp_path / "run")
    done = kit(tmp_path / "run", "--gbps", 100, "--out", tmp_path / "figures", "--note", "one H200")
    assert done.exit_code == 0, done.output
    assert "mooncake-direct, 64 tokens out, concurrency 1" in done.output
    assert "4096 tokens: hand-over 628" in done.output
    assert "84% of the TTFT" in done.output
    assert "of the link (all bytes over the wall time)" in done.output
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        "attribution-mooncake-direct-64-c1.png", "break-even-mooncake-direct-64-c1.png"}


def test_a_prediction_far_from_what_was_measured_is_told(tmp_path):
    h200_run(tmp_path / "run")
    done = kit(tmp_path / "run", "--link", root() / "results/reference/lab-siw")
    assert done.exit_code == 0, done.output
    assert "careful with the link" in done.output
    assert "times the largest transfer measured" in done.output


def test_as_json(tmp_path):
    h200_run(tmp_path / "run")
    told = json.loads(kit(tmp_path / "run", "--gbps", 100, "--json").output)
    assert told[0]["stack"] == "mooncake-direct"
    assert {row["part"] for row in told[0]["parts"]} == {"prefill", "queueing", "hand-over", "decode"}
    assert told[0]["predictions"][0]["source"] == "link"
    seconds = 12.1 + 21.1
    assert told[0]["link_use"]["link"] == pytest.approx(12 * (SIZE(512) + SIZE(4096)) * 8e-9 / seconds / 100, rel=0.01)


def test_of_a_store_half_is_written_and_half_read_and_its_handover_is_between_two_tokens(tmp_path):
    run = made_up(tmp_path, "lmcache-mooncake")
    each = {name: nominal(gbps, operation=name) for name, gbps in (("write", 50), ("read", 25))}
    found = accounts(run, run, {"link": each})
    assert [account.concurrency for account in found] == [1, 8]
    busy = found[1].explanations[0]
    assert busy.first_from == "prefiller"
    assert busy.separable
    assert busy.handover_ms.value == pytest.approx(60, abs=1)
    waiting = next(part for part in busy.parts if part.name == "queueing" and part.where == "ttft"
                   and part.stack == "prefill/decode")
    assert waiting.ms.value == pytest.approx(40, abs=1)
    both = SIZE(1000) * 8e-9 * (1 / 50 + 1 / 25) / 2 * 1e3
    assert busy.predicted_ms["link"].value == pytest.approx(both, rel=1e-6)


def test_without_a_quiet_run_it_says_so(tmp_path):
    run = made_up(tmp_path, "lmcache-mooncake", concurrencies=(8,))
    (told,) = accounts(run, run, {})
    assert not told.explanations[0].separable
    assert "nothing ran at concurrency 1" in told.notes()[0]


@pytest.mark.parametrize(("stack", "said"), [
    ("mooncake-direct", "aggregated is vLLM 0.11.0, mooncake-direct vLLM 0.32.0: the hand-over holds the difference"),
    ("lmcache-mooncake", "")])
def test_a_baseline_of_another_version_is_told(tmp_path, stack, said):
    run = made_up(tmp_path, stack)
    found = accounts(run, run, {})[0]
    assert found.differs.startswith(said)
    assert bool(found.differs) == bool(said)
    assert any(said in line for line in found.lines())


@pytest.mark.parametrize(("faster", "said"), [(100, "the connector's, the proxy's"), (1, "within what the requests"),
                                              (0.1, "does not go the way that was swept")])
def test_predicted_beside_measured_in_a_sentence(tmp_path, faster, said):
    run = made_up(tmp_path, "lmcache-mooncake")
    measured = accounts(run, run, {})[0].explanations[0]
    link = nominal(faster * measured.size_bytes * 8e-6 / measured.handover_ms.value)
    assert said in accounts(run, run, {"link": {"link": link}})[0].notes()[0]


def test_nothing_measured_explains_nothing(tmp_path):
    run = made_up(tmp_path, "lmcache-mooncake", handover=-1.0)
    assert accounts(run, run, {"link": {"link": nominal(10)}})[0].notes()[0].startswith("no hand-over can be told")


def test_an_invalid_stack_is_not_explained(tmp_path):
    run = made_up(tmp_path, "lmcache-mooncake", outcome="INVALID")
    with pytest.raises(ParamsError, match="no valid stack"):
        accounts(run, run, {})


def test_a_run_of_another_stage(tmp_path):
    with pytest.raises(StoreError, match=r"requests\.parquet"):
        accounts(Run(root() / "results/reference/lab-siw"), Run(tmp_path), {})
    done = kit(tmp_path)
    assert done.exit_code == 1
    assert "Traceback" not in done.output


@pytest.mark.parametrize(("own_ms", "said"), [(30.0, "50% of it, "), (90.0, "(a mean): all of it, ")])
def test_what_the_connector_itself_timed_stands_beside_it(tmp_path, own_ms, said):
    run = made_up(tmp_path, "lmcache-mooncake")
    run.keep_points(run.points.assign(transfer_ms=own_ms, piece_bytes=16384.0))
    (quiet, _) = accounts(run, run, {"link": {"link": nominal(1000)}})
    assert list(quiet.timed_ms.values()) == [own_ms]
    assert f"the connector itself timed {own_ms:.0f} ms" in quiet.notes()[0]
    assert said in quiet.notes()[0]


def test_the_lines_are_those_of_a_stack_s_own_pieces(tmp_path):
    run = made_up(tmp_path, "lmcache-mooncake")
    run.keep_points(run.points.assign(piece_bytes=16384.0))
    asked = []
    accounts(run, run, lambda piece: asked.append(piece) or {})
    assert asked == [16384.0]


GPU = root() / "results/reference/h200"


def on_the_gpu(run, *engines):
    done = kit(GPU / run, *(word for engine in engines for word in ("--engine", GPU / engine)), "--json")
    assert done.exit_code == 0, done.output
    return [each for each in json.loads(done.stdout) if each["concurrency"] == 1]


def test_what_the_sweep_predicted_on_a_gpu_came_true():
    direct = on_the_gpu("serve", "engine-16k", "engine-128k", "engine-256k")[0]
    assert direct["stack"] == "mooncake-direct-0.23"
    told = {row["prompt_tokens"]: row for row in direct["predictions"]}
    for tokens in (4096, 16384):
        assert told[tokens]["predicted_ms"] == pytest.approx(told[tokens]["measured_ms"], rel=0.2)


def test_the_engines_own_clocks_account_for_the_first_token():
    """The prefiller's time and the decoder's, which waits for the KV; between them only the proxy."""
    direct = on_the_gpu("serve", "engine-16k")[0]
    for tokens, nodes in direct["clocks"].items():
        shown = sum(part["ms"] for part in direct["parts"] if (part["prompt_tokens"], part["stack"], part["where"]) ==
                    (int(tokens), "prefill/decode", "ttft"))
        assert 0.9 * shown < sum(node["ttft_ms"] for node in nodes.values()) < shown
        assert nodes["decoder"]["waits_ms"] > direct["timed_ms"][tokens] > nodes["decoder"]["computes_ms"]


def test_without_samples_there_are_no_clocks(tmp_path):
    run = made_up(tmp_path, "lmcache-mooncake")
    assert all(each.clocks == {} for each in accounts(run, run, {}))
