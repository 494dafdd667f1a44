"""The parts of the perftest reader: GIDs, command lines, transcripts."""

import time
from pathlib import Path

import pytest

from kit.parse.document import parse_document
from kit.parse.perftest import End, gid_kind, normal_gid, parse_transcript
from kit.parse.perftest_command import parse_command
from kit.parse.perftest_types import ALL_SIZES, gid_from_decimals

SAMPLES = Path(__file__).parent.parent / "data" / "softrdma"


def sample(name):
    return (SAMPLES / f"{name}.txt").read_text()


def test_gids():
    assert gid_from_decimals("82:84:00:119:00:01:00:00:00:00:00:00:00:00:00:00") == "5254:77:1::"
    assert gid_from_decimals("256:84:00:119:00:01:00:00:00:00:00:00:00:00:00:00") is None
    assert gid_from_decimals("82:84") is None
    kinds = {"5254:77:1::": "mac", "::": "zero", "::ffff:10.77.0.1": "ipv4", "fe80::5054:ff:fe77:1": "ipv6"}
    assert {gid: gid_kind(gid) for gid in kinds} == kinds
    assert normal_gid("0000:0000:0000:0000:0000:ffff:0a4d:0001") == normal_gid("::ffff:10.77.0.1")


def test_commands():
    command = parse_command("timeout 10 stdbuf -oL /usr/bin/ib_write_bw -d=x -Rab --qp 16 -s4K --duration=2.5 10.0.0.1")
    assert command is not None
    assert (command.rdma_cm, command.all_sizes, command.bidirectional) == (True, True, True)
    assert (command.qps, command.size_bytes, command.duration_s) == (16, 4096, 2.5)
    assert command.sizes() == ALL_SIZES
    assert parse_command("ib_send_lat -c UD").sizes() is None
    assert parse_command("ib_read_lat").sizes() == (2,)
    for other in (None, "", "cat /tmp/o.json", "ib_write_bw; ib_write_bw 1.2.3.4", "echo '"):
        assert parse_command(other) is None


def test_transcript_forms():
    whole = parse_transcript(sample("rxe_noR_err_client_to_nonperftest_listener"))
    assert (whole.client.exit_code, whole.server, whole.marked) == (124, None, True)
    plain = parse_transcript("just text\n")
    assert (plain.client, plain.marked) == (End(None, "just text\n"), False)
    both = parse_transcript(sample("rxe_err_link_down_midrun"))
    assert both.notes[0] == "rxe_err_link_down_midrun"
    assert (both.client.timed_out, both.client.exit_code, both.server.exit_code) == (True, None, 1)
    assert both.client.stdout.endswith("0.000000")
    assert both.client.stderr == ""


def test_two_runs_in_one_transcript():
    document, _ = parse_document("perftest", sample("rxe_write_bw_noR_q4") * 2)
    assert document["error"]["symptom"] == "unreadable"


@pytest.mark.parametrize("text", [
    "option '" * 50_000,
    "$ ib_write_bw " + "-" * 300_000,
    "\t" * 500_000,
    "                    RDMA_Write BW Test\n" + " " * 500_000,
    "{\ntest_info: {\n" + "x : y " * 50_000,
])  # fmt: skip
def test_long_text_is_read_quickly(text):
    start = time.monotonic()
    assert parse_document("perftest", text)[1] == 3
    assert time.monotonic() - start < 3
