"""`kit predict`, as functions and as a command."""

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from kit.cli import main
from kit.errors import ParamsError
from kit.kv_config import shape_of
from kit.linkmodel import nominal
from kit.paths import root
from kit.predict import lines_of, predict, prefill_of

DATA = root() / "tests/data"
H200 = DATA / "serving/pd-h200"


@pytest.fixture
def model(tmp_path):
    case = json.loads((DATA / "kv/Qwen2.5-7B.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(case["config"]))
    return tmp_path


def kit(*argv):
    return CliRunner().invoke(main, ["predict", *map(str, argv)])


def test_by_nominal_speed(model):
    done = kit("--model", model, "--tokens", 512, "--gbps", 25)
    assert done.exit_code == 0
    assert done.output.splitlines() == [
        "bytes a token: 57,344 (qwen2, bf16)",
        "512 tokens: 29,360,128 bytes (28 MiB)",
        "link: 9.4 ms at 25 Gb/s",
    ]


def test_as_json_with_a_measured_prefill(model):
    done = kit("--model", model / "config.json", "--tokens", 4096, "--gbps", 12, "--json", "--run",
               H200 / "bench_agg_4096_64_c1.json")
    told = json.loads(done.output)
    assert told["request_bytes"] == 4096 * 57_344
    assert told["prefill_ms"] == pytest.approx(106.7, abs=0.1)
    assert told["ways"][0]["share_of_prefill"] == pytest.approx(4096 * 57_344 * 8 / 12e9 / 0.1067, rel=1e-2)


def test_with_a_link_run(model):
    done = kit("--model", model, "--tokens", 100, "--run", root() / "results/reference/lab-siw", "--block", 16)
    assert done.exit_code == 0
    assert "write: " in done.output
    assert "in blocks of 16" in done.output
    assert "98 times the largest transfer measured (65536 B)" in done.output


def test_prefill_between_two_lengths():
    assert prefill_of(H200 / "bench_agg_512_64_c1.json", 512) == pytest.approx(52.7, abs=0.1)
    assert prefill_of(H200 / "bench_agg_512_64_c1.json", 4096) is None


def test_a_failed_benchmark_gives_no_prefill():
    assert prefill_of(H200 / "bench_lmcache_all_failed_512_64_c1.json", 512) is None


def test_a_serving_run_has_no_line(tmp_path):
    assert lines_of(tmp_path) == {}


def test_state_and_ranks_are_told():
    hybrid = shape_of(json.loads((DATA / "kv/Qwen3.5-27B.json").read_text())["config"])
    text = "\n".join(predict(hybrid, 1000, tp=4, lines={"link": nominal(100)}).lines())
    assert "state a request: 153,944,064 bytes" in text
    assert "over 4 ranks" in text


@pytest.mark.parametrize(("argv", "said"), [
    (["--tokens", "-5"], "at least 1"),
    (["--tokens", "0"], "at least 1"),
    (["--tokens", "5", "--gbps", "-1"], "above 0"),
    (["--tokens", "5", "--tp", "3"], "28 attention heads"),
    (["--tokens", "5", "--dtype", "int3"], "int3"),
    (["--tokens", "5", "--block", "0"], "at least one"),
])
def test_nonsense_is_bad_input(model, argv, said):
    done = kit("--model", model, *argv)
    assert done.exit_code == 2
    assert said in done.output
    assert "Traceback" not in done.output


def test_a_workload_is_judged(model):
    done = kit("--model", model, "--tokens", 512, "--gbps", 25, "--out-tokens", 4096, "--concurrency", 32,
               "--store-gb", "0.1")
    assert done.exit_code == 0
    assert "0.37% of the link" in done.output
    assert "cannot tell one link from another" in done.output
    assert "will evict" in done.output
    fine = kit("--model", model, "--tokens", 4096, "--gbps", 25, "--concurrency", 8)
    assert fine.output.endswith("nothing to warn of\n")
    told = json.loads(kit("--model", model, "--tokens", 4096, "--gbps", 25, "--rate", 99, "--json").output)
    assert told["workload"]["cautions"][0]["name"] == "link_exceeded"
    assert kit("--model", model, "--tokens", 512, "--rate", 1).exit_code == 2


def test_a_config_without_layers_is_bad_input(model):
    (model / "config.json").write_text('{"model_type": "qwen2", "num_attention_heads": 28}')
    done = kit("--model", model, "--tokens", 5)
    assert done.exit_code == 2
    assert "num_hidden_layers is missing" in done.output


def test_tokens_as_a_function():
    with pytest.raises(ParamsError):
        predict(shape_of(json.loads((DATA / "kv/Qwen3-8B.json").read_text())["config"]), 0)


def test_without_a_run_nothing_heavy_is_imported(model):
    asked = ['predict', '--model', str(model), '--tokens', '9', '--gbps', '9']
    program = ("import sys; from click.testing import CliRunner; from kit.cli import main\n"
               f"done = CliRunner().invoke(main, {asked})\n"
               "assert done.exit_code == 0, done.output\n"
               "print({'pandas', 'numpy', 'scipy', 'pydantic', 'paramiko', 'matplotlib'} & set(sys.modules))")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
