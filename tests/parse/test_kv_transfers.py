"""The transfers that vLLM tells in its log: real lines, and damaged ones."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.errors import ParseError
from kit.parse.kv_transfers import parse_kv_transfers
from kit.paths import root

DATA = root() / "tests/data/serving/pd-cpu"


def test_a_prefiller_with_mooncake_connector():
    told = parse_kv_transfers((DATA / "mooncakeconn_prefiller.log").read_text())
    assert (told.count, told.failed) == (26, 0)
    assert told.mean_ms == pytest.approx((6 * 103.104 + 20 * 204.256) / 26)
    assert told.mean_bytes == pytest.approx((6 * 1.938 + 20 * 2.6) / 26 * 2**20)
    assert told.piece_bytes == pytest.approx(told.mean_bytes / ((6 * 4 + 20 * 12.6) / 26))


def test_nixl_s_line_is_read_too():
    told = parse_kv_transfers((DATA / "nixl_decoder.log").read_text())
    assert told.count == 18
    assert told.pieces == 4


def test_a_log_without_transfers():
    told = parse_kv_transfers("INFO Application startup complete.\n")
    assert (told.count, told.mean_ms, told.piece_bytes) == (0, 0.0, None)


def test_a_damaged_line_is_quoted():
    with pytest.raises(ParseError, match="not a line of KV transfers") as caught:
        parse_kv_transfers("x\n(APIServer) KV Transfer metrics: Num successful transfers=6, Avg xfer ti\n")
    assert caught.value.line.endswith("Avg xfer ti")


@given(st.text(alphabet="KV Transfermics:=,0123456789.()\n"))
def test_any_text_gives_a_result_or_a_parse_error(text):
    with contextlib.suppress(ParseError):
        assert parse_kv_transfers("KV Transfer metrics:" + text).count >= 0
