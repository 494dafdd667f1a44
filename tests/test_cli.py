"""The command line, as a process: exit codes, no tracebacks, quick help."""

import json
import subprocess
import sys

import pytest

from kit.paths import root

SAMPLES = root() / "tests" / "data" / "softrdma"


def kit(*argv, stdin=b""):
    done = subprocess.run([sys.executable, "-m", "kit.cli", *map(str, argv)], input=stdin, capture_output=True,
                          timeout=60)
    assert b"Traceback" not in done.stderr
    return done


def test_parse_prints_a_result():
    done = kit("parse", "perftest", SAMPLES / "siw_write_bw_R_q4.txt")
    assert done.returncode == 0
    assert json.loads(done.stdout)["rows"][0]["iterations"] == 200


def test_parse_prints_a_benchmark():
    done = kit("parse", "bench", SAMPLES.parent / "serving" / "pd-h200" / "bench_agg_512_64_c1.json")
    assert done.returncode == 0
    shown = json.loads(done.stdout)
    assert (shown["completed"], shown["request_rate"], len(shown["requests"])) == (12, "inf", 12)


@pytest.mark.parametrize(("kind", "text", "symptom"), [
    ("perftest", b"Failed to modify QP to RTS\n Unable to Connect the HCA's through the link\n",
     "standard_mode_needs_rdma_cm"),
    ("perftest", b"\xff\x00\xfe", None),
    ("ibv_devinfo", b"Failed to get IB devices list: Function not implemented", "no_devices"),
    ("ibv_devices", b"", None),
    ("bench", b"ValueError: Initial test run failed - Error: Not Found", "bench_first_request_failed"),
])
def test_parse_prints_an_error_object(kind, text, symptom):
    done = kit("parse", kind, "-", stdin=text)
    assert done.returncode == 3
    error = json.loads(done.stdout)["error"]
    assert {"symptom", "remedy", "line"} <= set(error)
    if symptom:
        assert error["symptom"] == symptom


def test_unknown_experiment_is_bad_input():
    done = kit("run", "no-such-experiment")
    assert done.returncode == 2
    assert b"no-such-experiment.yaml" in done.stderr


def test_compare_of_nothing_says_so(tmp_path):
    done = kit("compare", tmp_path / "nowhere")
    assert done.returncode == 1
    assert b"no run at" in done.stderr


def test_help_imports_nothing_heavy():
    program = ("import sys; from click.testing import CliRunner; from kit.cli import main\n"
               "assert CliRunner().invoke(main, ['--help']).exit_code == 0\n"
               "print({'pandas', 'paramiko', 'pydantic', 'matplotlib', 'papermill'} & set(sys.modules))")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
