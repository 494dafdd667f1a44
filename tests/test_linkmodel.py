"""The link model: against a published table, and against lines whose alpha and beta are known."""

import json

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit import linkmodel
from kit.errors import ParamsError
from kit.kv import request_bytes
from kit.kv_config import shape_of
from kit.linkmodel import Sample, fit, fit_each, nominal, of_share
from kit.paths import root
from kit.store import open_run

DATA = root() / "tests/data"
TABLE = pd.read_csv(DATA / "published/mooncake_pd_qwen3_8b.csv", comment="#")
QWEN3 = shape_of(json.loads((DATA / "kv/Qwen3-8B.json").read_text())["config"])


def moved(tokens):
    """The prompts went through the chat endpoint, whose template adds to them: a block more than the bare length."""
    return request_bytes(QWEN3, int(tokens) + 1, unit_tokens=16, tp=8)


def test_published_kv_sizes():
    for row in TABLE.itertuples():
        assert moved(row.prompt_tokens) / 2**20 == pytest.approx(row.kv_mib, rel=0.015)


def test_published_transfer_times():
    samples = [Sample("write", moved(row.prompt_tokens), row.transfer_ms * 1e-3) for row in TABLE.itertuples()]
    line = fit(samples, operation="write")
    for sample in samples:
        assert line.seconds(sample.size_bytes).value == pytest.approx(sample.seconds, rel=0.08)
    assert line.warning == ""
    assert line.bytes_per_s.low < line.bytes_per_s.value < line.bytes_per_s.high
    assert 130e9 < line.bytes_per_s.value < 160e9


SIZES = [2.0**power for power in range(12, 31, 2)]
ALPHA, BETA = st.floats(1e-6, 1e-1), st.floats(1e7, 1e11)


@given(ALPHA, BETA)
def test_an_exact_line_is_recovered(alpha, beta):
    line = fit([Sample("read", size, alpha + size / beta) for size in SIZES])
    assert line.seconds(SIZES[0]).value == pytest.approx(alpha + SIZES[0] / beta, rel=1e-3)
    assert line.seconds(SIZES[-1]).value == pytest.approx(alpha + SIZES[-1] / beta, rel=1e-3)
    assert line.warning == ""


@given(st.floats(1e-4, 1e-3), st.floats(5e8, 5e9), st.lists(st.floats(-0.05, 0.05), min_size=30, max_size=30),
       st.integers(0, 29))
def test_noise_and_one_bad_row_do_not_hide_the_line(alpha, beta, noise, bad):
    samples = [Sample("read", size, (alpha + size / beta) * (1 + error))
               for size, error in zip(SIZES * 3, noise, strict=True)]
    samples[bad] = Sample("read", samples[bad].size_bytes, samples[bad].seconds * 10)
    line = fit(samples)
    assert line.bytes_per_s.value == pytest.approx(beta, rel=0.12)
    assert line.alpha_s.value == pytest.approx(alpha, rel=0.12)


def test_the_interval_covers_the_truth():
    import numpy as np

    draw = np.random.default_rng(7)
    hits = 0
    for _ in range(200):
        samples = [Sample("read", size, (1e-3 + size / 1e9) * (1 + draw.normal(0, 0.03))) for size in SIZES * 2]
        line = fit(samples)
        hits += line.bytes_per_s.low <= 1e9 <= line.bytes_per_s.high
    assert hits >= 180          # 95 % nominally; 90 % of 200


@given(st.floats(0, 1e12), st.floats(0, 1e12), st.floats(0.01, 1000))
def test_more_bytes_never_take_less(first, second, gbps):
    few, many = sorted((first, second))
    assert nominal(gbps).seconds(few).value <= nominal(gbps).seconds(many).value


def test_reads_and_writes_are_fitted_apart():
    samples = [Sample("read", size, size / 1e9) for size in SIZES]
    samples += [Sample("write", size, size / 5e9) for size in SIZES]
    lines = fit_each([*samples, Sample("other", 1.0, 1.0)])
    assert set(lines) == {"read", "write"}
    assert lines["write"].gbps.value == pytest.approx(40, rel=1e-4)
    assert lines["read"].gbps.value == pytest.approx(8, rel=1e-4)


def test_put_then_get():
    noisy = [1.02, 0.98, 1.01, 0.99, 1.0, 1.02, 0.98, 1.0, 1.01, 0.99]
    put, get = (fit([Sample(name, size, (1e-3 + size / rate) * off) for size, off in zip(SIZES, noisy, strict=True)])
                for name, rate in (("write", 5e9), ("read", 1e9)))
    both = linkmodel.in_turn(put, get)
    assert both.seconds(1e8).value == pytest.approx(put.seconds(1e8).value + get.seconds(1e8).value)
    assert both.seconds(1e8).low < both.seconds(1e8).value < both.seconds(1e8).high
    assert both.alpha_s.low <= both.alpha_s.value <= both.alpha_s.high
    assert linkmodel.in_turn(nominal(25), get).seconds(1e8).low is None


def test_a_bend_is_warned_of():
    bent = [Sample("read", size, 1e-4 + size / (1e9 if size < 2**24 else 2e8)) for size in SIZES]
    assert "no straight line" in fit(bent).warning
    close = [Sample("read", 1000.0, 1e-3), Sample("read", 2000.0, 2e-3)]
    assert "cannot be told apart" in fit(close).warning


def test_far_beyond_what_was_measured():
    line = fit([Sample("read", size, 1e-3 + size / 1e9) for size in SIZES])
    assert line.caution(SIZES[-1] * 4) == ""
    assert "5 times the largest" in line.caution(SIZES[-1] * 5)
    assert nominal(25).caution(1e15) == ""


def test_two_rows_have_no_interval():
    line = fit([Sample("read", 1e3, 1e-3), Sample("read", 1e6, 2e-3)])
    assert line.seconds(1e6).low is None
    assert line.alpha_s.text() == "0.000999"


def test_nonsense():
    with pytest.raises(ParamsError, match="two sizes"):
        fit([Sample("read", 1e3, 1e-3)] * 5)
    for gbps in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ParamsError, match="above 0"):
            nominal(gbps)


def test_through_json():
    line = fit([Sample("read", size, 1e-3 + size / 1e9) for size in SIZES])
    assert linkmodel.from_dict(json.loads(json.dumps(line.to_dict()))) == line
    assert linkmodel.from_dict(json.loads(json.dumps(nominal(25).to_dict()))) == nominal(25)


def test_a_recorded_link_run():
    samples = linkmodel.samples_of_link(open_run(root() / "results/reference/lab-siw").points)
    lines = fit_each(samples)
    assert "write" in lines
    assert lines["write"].gbps.value > 0
    assert all(sample.seconds > 0 for sample in samples)


def test_no_start_up_cost_is_zero_and_not_the_solvers_noise():
    slower = {2**20: 1.00, 2**21: 1.02, 2**23: 1.05}     # the larger, the slower a byte: the line would start below 0
    line = fit([Sample("write", size, size * 1e-9 * factor * (1 + 0.001 * turn)) for size, factor in slower.items()
                for turn in (-1, 0, 1)])
    assert line.alpha_s.value == 0.0
    assert line.per_byte_s.value == pytest.approx(1.02e-9, rel=0.02)


def test_a_share_of_the_bytes_takes_a_share_of_the_time_and_begins_as_late():
    line = fit([Sample("write", size, 1e-3 + size / 1e9) for size in (1e6, 4e6, 16e6) for _ in range(2)])
    half = of_share(line, 0.5)
    assert half.seconds(8e6).value == pytest.approx(line.seconds(4e6).value)
    assert half.alpha_s == line.alpha_s
    assert half.largest_bytes == 2 * line.largest_bytes
    assert of_share(nominal(10), 0.5).covariance is None
