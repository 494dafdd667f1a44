"""The readers of what a serving stack tells: Prometheus metrics, LMCache's and Mooncake's logs, listening sockets."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit import symptoms
from kit.errors import ParseError
from kit.parse.lmcache import parse_lmcache_log
from kit.parse.mooncake import parse_master_log
from kit.parse.prometheus import parse_prometheus, total
from kit.parse.sockets import ListeningSocket, parse_listening_sockets

DATA = Path(__file__).parent.parent / "data"
SERVING = DATA / "serving"
METRICS = sorted(SERVING.glob("*/*metrics*.txt"))
BYTES_PER_TOKEN = 2048     # of the samples' model: 4 layers, 2 heads of 64, keys and values, 2 bytes


def text(name: str) -> str:
    return (SERVING / name).read_text(errors="replace")


@pytest.mark.parametrize("path", METRICS, ids=lambda path: path.name)
def test_every_metrics_sample_is_read(path: Path) -> None:
    samples = parse_prometheus(path.read_text())
    written = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    assert len(samples) == len(written)
    assert {sample.kind for sample in samples} <= {"counter", "gauge", "histogram", "summary", "unknown"}


def test_totals_over_labels() -> None:
    samples = parse_prometheus(text("pd-cpu/mooncakeconn_D_metrics.txt"))
    assert total(samples, "vllm:external_prefix_cache_hits_total") == 2885
    assert total(samples, "vllm:prompt_tokens_by_source_total") == 2885
    assert total(samples, "vllm:prompt_tokens_by_source_total", source="local_compute") == 0
    assert total(samples, "vllm:request_success_total", finished_reason="length") == 6
    assert total(samples, "vllm:no_such") is None
    kinds = {sample.name: sample.cumulative for sample in samples}
    assert kinds["vllm:prompt_tokens_total"]
    assert not kinds["vllm:kv_cache_usage_perc"]
    assert not kinds["vllm:prompt_tokens_created"]
    assert kinds["vllm:request_prefill_time_seconds_sum"]


def test_master_metrics() -> None:
    samples = parse_prometheus(text("pd-cpu/mooncake_master_metrics_after_pd.txt"))
    assert total(samples, "master_value_size_bytes_sum") == 47943680
    assert total(samples, "master_put_start_failures_total") == 1


def test_a_bad_line_is_quoted() -> None:
    with pytest.raises(ParseError) as caught:
        parse_prometheus('up 1\nvllm:x{engine="0} 1\n')
    assert caught.value.line == 'vllm:x{engine="0} 1'


def test_a_decoder_that_hits() -> None:
    log = parse_lmcache_log(text("pd-cpu/lmcache_decoder.log"))
    assert len(log.lookup_of) < len(log.lookups) + 1
    assert log.lookups[0].total_tokens == 571
    assert (log.lookups[0].hit_tokens, log.lookups[0].load_tokens) == (571, 570)
    assert any(lookup.load_tokens < 0 for lookup in log.lookups)
    assert log.retrieved[0].tokens == log.retrieved[0].asked_tokens == 571
    assert log.retrieved[0].size_bytes == pytest.approx(571 * BYTES_PER_TOKEN, rel=0.05)
    assert all(each.tokens == each.asked_tokens for each in log.retrieved)
    assert 0 < log.hit_tokens < log.looked_up_tokens
    assert not log.stored


def test_a_decoder_without_the_seed_hits_nothing_and_says_so_once() -> None:
    words = text("pd-cpu/lmcache_decoder_noseed_nohit.log")
    log = parse_lmcache_log(words)
    assert len(log.lookup_of) == 6
    assert (log.hit_tokens, log.looked_up_tokens, log.retrieved_tokens) == (0, 2891, 0)
    assert "PYTHONHASHSEED not set" in log.troubles[0]
    found = symptoms.find(words, area="serving")
    assert found is not None
    assert found[0].name == "hash_seed_not_set"


def test_a_prefiller_stores_every_prompt() -> None:
    log = parse_lmcache_log(text("pd-cpu/lmcache_prefiller.log"))
    assert log.stored_tokens > 20000
    assert all(each.tokens <= (each.total_tokens or 0) for each in log.stored)


def test_a_load_that_fails() -> None:
    words = text("pd-h200/lmcache_0.5.6_prefiller_load_failure.log")
    log = parse_lmcache_log(words)
    assert log.lookups[0].hit_tokens == 512
    assert {(each.tokens, each.asked_tokens) for each in log.retrieved} == {(0, 512)}
    found = symptoms.find(words, area="serving")
    assert found is not None
    assert found[0].name == "kv_load_failed"


def test_the_server_of_later_versions() -> None:
    log = parse_lmcache_log(text("pd-cpu/lmcache_mp_server.log"))
    assert log.stored[0].tokens == 256
    assert log.stored[0].cost_ms == pytest.approx(152)
    assert log.retrieved_tokens == 2048


def test_a_damaged_message_is_refused_and_an_unfinished_line_is_not_read() -> None:
    line = ("LMCache INFO: Reqid: cmpl-1, Total tokens 9, LMCache hit tokens: 4, need to load: 4 (x)\n")
    assert parse_lmcache_log(line + line[:-1]).hit_tokens == 4
    assert len(parse_lmcache_log(line + line[:-1]).lookups) == 1
    with pytest.raises(ParseError, match="damaged"):
        parse_lmcache_log(line.replace("tokens: 4", "tokens: four"))


def test_the_master_of_0_3_7_counts() -> None:
    log = parse_master_log(text("pd-cpu/mooncake_master_0.3.7.log"))
    assert log.port == 50052
    assert len(log.statuses) > 150
    last = log.statuses[-1]
    assert (last.rates, last.requests["PutStart"], last.requests["Get"]) == (False, (214, 218), (31, 31))
    assert last.items["Get"] == (80, 80)
    assert max(status.capacity_bytes for status in log.statuses) == 512 * 2**20
    assert max(status.keys for status in log.statuses) > 10
    assert len(log.expired_clients) >= 6


def test_the_master_of_0_3_13_prints_rates() -> None:
    log = parse_master_log(text("pd-cpu/mooncake_master_0.3.13.log"))
    assert log.port == 50056
    [status] = log.statuses
    assert status.rates
    assert status.requests["CopyStart"] == (0, 0)
    assert status.items["QueryIp"] == (0, 0)


def test_listening_sockets_of_a_recorded_node() -> None:
    found = parse_listening_sockets((DATA / "sockets" / "tcp.txt").read_text()
                                    + (DATA / "sockets" / "tcp6.txt").read_text())
    assert [(each.address, each.port, each.everywhere) for each in found] == [
        ("127.0.0.1", 7100, False), ("0.0.0.0", 50052, True),  # noqa: S104
        ("::", 8080, True), ("::1", 9004, False),
        ("127.0.0.1", 9000, False)]


def test_listening_sockets_of_this_machine() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        wanted = ListeningSocket("127.0.0.1", port, os.fstat(server.fileno()).st_ino, os.getuid())
        assert wanted in parse_listening_sockets(Path("/proc/net/tcp").read_text())
    assert port not in [each.port for each in parse_listening_sockets(Path("/proc/net/tcp").read_text())]


def test_no_table_of_sockets() -> None:
    with pytest.raises(ParseError, match="proc/net/tcp"):
        parse_listening_sockets("cat: /proc/net/tcp6: No such file or directory")


READERS: list[Callable[[str], object]] = [parse_prometheus, parse_lmcache_log, parse_master_log,
                                          parse_listening_sockets]
SAMPLES = [path for path in sorted(DATA.glob("serving/pd-*/*")) + sorted((DATA / "sockets").iterdir())
           if path.suffix != ".json"]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(READERS), st.sampled_from(SAMPLES), st.floats(0, 1), st.text(max_size=20), st.integers(0, 80))
def test_any_text_gives_a_result_or_a_parse_error(
        read: Callable[[str], object], path: Path, where: float, noise: str, cut: int) -> None:
    whole = path.read_text(errors="replace")[-40_000:]
    at = int(where * len(whole))
    try:
        read(whole[:at] + noise + whole[at + cut:])
    except ParseError:
        return


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,9}", fullmatch=True), st.text(max_size=9), max_size=3),
       st.floats(allow_nan=False))
def test_what_is_written_is_read_back(labels: dict[str, str], value: float) -> None:
    labels = {f"l{name}": word for name, word in labels.items()}
    escaped = {name: word.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
               for name, word in labels.items()}
    inside = ",".join(f'{name}="{word}"' for name, word in escaped.items())
    [sample] = parse_prometheus(f"# TYPE m gauge\nm{{{inside}}} {value!r}\n")
    assert dict(sample.labels) == labels
    assert sample.value == value or math.isclose(sample.value, value)
