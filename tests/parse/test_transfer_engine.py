"""transfer_engine_bench: results and failures as it really logged them, and what no run may pass with."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit import symptoms
from kit.errors import ParseError
from kit.parse.perftest_types import End
from kit.parse.transfer_engine import EngineLog, Wanted, judge_engine, parse_engine_log
from kit.paths import root

DATA = root() / "tests/data/transfer_engine"
WANTED = Wanted(65536, 8, 2, "dram")


def text(name):
    return (DATA / f"{name}.txt").read_text()


def end(name, code=0, *, timed_out=False):
    return End("transfer_engine_bench", "", text(name), code, timed_out)


@pytest.mark.parametrize(("name", "batches", "bytes_per_s"), [
    ("write_0.3.13", 1260, 0.33e9), ("read_0.3.13", 209, 0.86e9), ("read_gbit_0.3.13", 1745, 3.6477e9 / 8),
    ("initiator_0.3.7", 2479, 0.43e9),
])
def test_results(name, batches, bytes_per_s):
    log = parse_engine_log(text(name))
    assert log.result.batches == batches
    assert log.result.bytes_per_s == pytest.approx(bytes_per_s)
    assert log.memory == "dram"


def test_targets():
    assert parse_engine_log(text("target_0.3.13")) == EngineLog("127.0.0.1:16118", "dram")
    assert parse_engine_log(text("target_0.3.7")) == EngineLog("192.0.2.2:15353", "dram", 100_663_296)


def test_a_good_run():
    result = judge_engine(end("write_0.3.13"), end("target_0.3.13", None, timed_out=True), WANTED)
    assert result.batches == 1260
    assert judge_engine(end("write_0.3.13"), end("target_0.3.13"), WANTED) == result


@pytest.mark.parametrize(("name", "code", "symptom"), [
    ("no_target_0.3.13", 1, "engine_no_target"), ("small_buffer_0.3.13", 1, "engine_rejected"),
    ("vram_0.3.13", 1, "engine_bad_flag"), ("badop_0.3.13", 1, "engine_bad_flag"),
    ("proto_0.3.13", -6, "engine_bad_flag"), ("rdma_0.3.13", -6, "kv_device_missing"),
    ("rdma_no_device_0.3.13", -6, "kv_device_missing"),
])
def test_failures(name, code, symptom):
    with pytest.raises(ParseError) as raised:
        judge_engine(end(name, code), None, WANTED)
    assert raised.value.symptom == symptom
    assert raised.value.remedy == symptoms.named(symptom).remedy
    assert raised.value.line in text(name)


IDLE = text("write_0.3.13").replace("batch count 1260, throughput 0.33", "batch count 0, throughput 0.00")


@pytest.mark.parametrize(("client", "server", "wanted", "symptom"), [
    (end("write_0.3.13"), end("target_0.3.13", -9), WANTED, "dead_peer"),
    (end("write_0.3.13", None, timed_out=True), None, WANTED, "deadline"),
    (end("write_0.3.13", -11), None, WANTED, "ended_by_signal"),
    (end("write_0.3.13", 7), None, WANTED, "failed_silently"),
    (end("target_0.3.13"), None, WANTED, "no_result"),
    (end("write_0.3.13"), None, Wanted(4096, 8, 2, "dram"), "not_as_asked"),
    (end("write_0.3.13"), None, Wanted(65536, 8, 5, "dram"), "not_as_asked"),
    (end("write_0.3.13"), None, Wanted(65536, 8, 2, "vram"), "engine_other_memory"),
    (End("x", "", IDLE, 0), None, WANTED, "zero_iterations"),
])
def test_what_no_run_may_pass_with(client, server, wanted, symptom):
    with pytest.raises(ParseError) as raised:
        judge_engine(client, server, wanted)
    assert raised.value.symptom == symptom


def test_damaged_lines_are_quoted():
    for line in ("Test completed: duration x", "Test completed: duration 2.01, batch count 7, throughput 1.00 XB/s"):
        with pytest.raises(ParseError, match="Test completed"):
            parse_engine_log(f"I1125 {line}\n")


@given(st.text(), st.integers(0, 2000), st.integers(0, 2000))
def test_any_text_is_read_or_refused(extra, start, stop):
    whole = text("write_0.3.13")
    with contextlib.suppress(ParseError):
        assert isinstance(parse_engine_log(whole[:start] + extra + whole[stop:]), EngineLog)
