"""The perftest reader against captured output (softrdma), output derived from the source, and runs made up."""

import json
import tomllib
from dataclasses import replace
from ipaddress import IPv6Address
from pathlib import Path

import pytest

from kit.errors import ParseError
from kit.parse.document import parse_document
from kit.parse.perftest import Asked, judge, parse_perftest, parse_perftest_json, parse_transcript
from kit.parse.perftest_types import ALL_SIZES

DATA = Path(__file__).parent.parent / "data"
SAMPLES = DATA / "softrdma"
DERIVED = DATA / "perftest" / "derived"
EXPECTED = tomllib.loads((SAMPLES / "expected.toml").read_text())
FACTOR = {"Gb/sec": 1.0, "MB/sec": 8 * 1024 * 1024 / 1e9}


def sample(name):
    return (SAMPLES / f"{name}.txt").read_text()


def runs(name):
    transcript = parse_transcript(sample(name))
    return transcript.client, transcript.server


def symptom_of(call, *args, **options):
    with pytest.raises(ParseError) as caught:
        call(*args, **options)
    assert caught.value.remedy
    return caught.value.symptom


def test_every_sample_is_expected():
    assert {path.stem for path in SAMPLES.glob("*.txt")} == set(EXPECTED)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_sample(name):
    want = EXPECTED[name]
    document, status = parse_document(want["kind"], sample(name))
    json.dumps(document, allow_nan=False)
    if "symptom" in want:
        assert (document["error"]["symptom"], status) == (want["symptom"], 3)
        assert document["error"]["remedy"]
        return
    assert status == 0, document
    if "devices" in want:
        assert [device["hca_id"] for device in document["devices"]] == want["devices"]
        return
    assert f"{document['verb']}_{document['metric']}" == want["test"].replace("bidirectional_", "")
    for key in ("device", "transport", "mtu_bytes", "qps"):
        assert document[key] == want[key]
    assert document["complete"] is want.get("complete", True)
    assert len(document["rows"]) == want["rows"]
    if "gid_hex" in want:
        local = next(address for address in document["addresses"] if address["side"] == "local")
        assert local["gid"] == str(IPv6Address(bytes.fromhex(want["gid_hex"])))
        assert len(document["addresses"]) == 2 * document["qps"]
    row, printed = document["rows"][-1], want["printed"]
    assert [row["size_bytes"], row["iterations"]] == printed[:2]
    if document["metric"] == "bw":
        factor = FACTOR[want["unit"]]
        assert row["bandwidth_gbps"] == pytest.approx(printed[3] * factor)
        assert row["bandwidth_peak_gbps"] == (pytest.approx(printed[2] * factor) if printed[2] else None)
        assert row["msg_rate_mpps"] == printed[4]
    elif len(printed) == 4:
        assert [row["t_avg_us"], row["tps"]] == printed[2:]
    else:
        assert [row[f"t_{key}_us"] for key in ("min", "max", "typical", "avg")] == printed[2:]
    if "warning" in want:
        assert want["warning"] in document["warnings"]
    assert not any("disagree" in warning for warning in document["warnings"])


def test_all_sizes_and_overflown_deviation():
    output = judge(*runs("rxe_write_lat_noR_a_n10"))
    assert tuple(row.size_bytes for row in output.rows) == ALL_SIZES
    assert output.rows[0].t_p999_us == 911.23
    assert [row.size_bytes for row in output.rows if row.t_stdev_us is None] == [2097152, 4194304, 8388608]


def test_header_fields():
    output = judge(*runs("rxe_read_bw_noR"))
    assert (output.title, output.verb, output.metric, output.round_trip) == ("RDMA_Read BW Test", "read", "bw", True)
    assert (output.outstanding_reads, output.max_inline_bytes, output.tx_depth) == (128, None, 100)
    assert (output.rdma_cm, output.data_exchange, output.link_type) == (False, "Ethernet", "Ethernet")
    assert (output.gid_index, output.cq_moderation, output.connection_type) == (1, 100, "RC")
    assert output.other == {
        "Dual-port": "OFF",
        "Using SRQ": "OFF",
        "PCIe relax order": "ON",
        "ibv_wr* API": "OFF",
    }
    assert judge(*runs("siw_write_bw_R_bidir")).bidirectional
    assert judge(*runs("siw_write_bw_R_bidir")).rdma_cm


@pytest.mark.parametrize(
    ("name", "fields", "row"),
    [
        (
            "write_bw_26_mib_counters.txt",
            {"unit": "MiB/sec", "verb": "write", "metric": "bw", "mtu_bytes": 4096},
            {"bandwidth_gbps": 11500 * 8 * 2**20 / 1e9, "counters": {"hw_counters/hw_tx_bytes_cnt": 345833472,
                                                                     "hw_counters/hw_rx_bytes_cnt": 120064}},
        ),
        (
            "write_bw_26_duration_cpu_util.txt",
            {"unit": "Gb/sec", "rdma_cm": True},
            {"bandwidth_gbps": 96.47, "bandwidth_peak_gbps": None, "cpu_util_percent": 12.5, "iterations": 920000},
        ),
        (
            "read_lat_26_duration_cpu_util.txt",
            {"verb": "read", "metric": "lat", "round_trip": True, "outstanding_reads": 16},
            {"t_avg_us": 11.9, "tps": 84033.61, "cpu_util_percent": 99.1, "t_typical_us": None},
        ),
        (
            "write_bw_26_per_port.txt",
            {"bidirectional": True},
            {"bandwidth_gbps": 189.9, "extra": {"BW Port1[Gb/sec]": 95.0, "MsgRate Port1[Mpps]": 0.181198,
                                                "BW Port2[Gb/sec]": 94.9, "MsgRate Port2[Mpps]": 0.181007}},
        ),
        (
            "write_bw_24_valid.json",
            {"unit": "Gb/sec", "unit_source": "msg_rate", "qps": 4, "rdma_cm": True, "tx_depth": 128},
            {"bandwidth_gbps": 96.47, "bandwidth_peak_gbps": 97.1, "cpu_util_percent": 12.5},
        ),
        (
            "write_lat_24_valid.json",
            {"unit": None, "transport": "IW", "max_inline_bytes": 96, "metric": "lat"},
            {"t_typical_us": 8.4, "t_p99_us": 10.1, "t_p999_us": 15.22, "bandwidth_gbps": None},
        ),
    ],
)  # fmt: skip
def test_derived_from_source(name, fields, row):
    document, status = parse_document("perftest", (DERIVED / name).read_text())
    assert status == 0, document
    assert {key: document[key] for key in fields} == fields
    assert {key: document["rows"][0][key] for key in row} == row
    if name.endswith(".txt"):
        assert document["other"]["Lock-free"] == "OFF"
        assert document["other"]["Using Enhanced Reorder"] == "OFF"
        assert document["other"]["TOS"] == "96"
        assert document["warnings"][0].startswith("WARNING: CPU is not PCIe")


def test_json_units():
    text = (DERIVED / "write_bw_24_valid.json").read_text()
    in_mib = text.replace("96.47", "11500.12").replace("97.10", "0.00")
    output = parse_perftest(in_mib)
    assert (output.unit, output.rows[0].bandwidth_peak_gbps) == ("MiB/sec", None)
    assert output.rows[0].bandwidth_gbps == pytest.approx(96.47, rel=1e-3)
    assert parse_perftest_json(text, gbits=True).unit_source == "caller"
    assert symptom_of(parse_perftest_json, text, gbits=False) == "not_as_asked"
    unknown = parse_perftest_json(text.replace("0.184002", "0.000000"))
    assert (unknown.unit, unknown.rows[0].bandwidth_gbps, unknown.rows[0].bandwidth_printed) == (None, None, 96.47)
    assert symptom_of(parse_perftest, text.replace("96.47", "NaN")) == "bad_row"
    assert symptom_of(parse_perftest, text.replace("96.47", "-inf")) == "bad_row"
    assert symptom_of(parse_perftest, text[:-60]) == "incomplete"
    assert symptom_of(parse_perftest, '{"a": 1}') == "not_perftest"
    assert symptom_of(parse_perftest, "[" * 100_000) == "not_perftest"
    assert symptom_of(parse_perftest, "{" + "[" * 100_000) == "not_perftest"


@pytest.mark.parametrize("figure", ["nan", "-nan", "inf", "-3.00", "1e9", "8.5x", "8", "٣.١٤"])
def test_a_figure_that_is_none_is_no_result(figure):
    assert symptom_of(parse_perftest, runs("rxe_send_lat_noR")[0].stdout.replace("617.69", figure)) == "bad_row"


def test_texts_without_result():
    end = runs("rxe_read_lat_noR")[1]
    assert symptom_of(parse_perftest, end.stdout) == "no_result"
    assert symptom_of(parse_perftest, "") == "no_result"
    assert symptom_of(parse_perftest, "96.470000\n96.480000\n") == "bare_numbers"
    assert symptom_of(parse_perftest, "hello\0\ud800") == "not_perftest"
    client = runs("rxe_write_bw_noR_q4")[0].stdout
    assert parse_perftest(client.replace("\n", "\r\n")) == parse_perftest(client)
    assert not parse_perftest(client[: client.rindex("\n", 0, -30)]).complete
    assert symptom_of(parse_perftest, client[: client.index("0.002163") + 6]) == "incomplete"
    assert symptom_of(parse_perftest, client[: client.index("0.002163")]) == "incomplete"
    assert symptom_of(parse_perftest, client.replace("0.070866", "0.000000").replace("0.002163", "0.000000")) == (
        "zero_bandwidth"
    )
    small = client.replace("0.070866", "0.000000")
    assert parse_perftest(small).rows[0].bandwidth_gbps == pytest.approx(0.070877, rel=1e-4)
    corrupt = client.replace("0.070866", "0.970866")
    assert any("disagree" in warning for warning in parse_perftest(corrupt).warnings)


def test_trust():
    client, server = runs("rxe_write_bw_noR_q4")
    assert judge(client, server).rows == judge(client, None).rows
    assert symptom_of(judge, client, replace(server, exit_code=1)) == "dead_peer"
    assert symptom_of(judge, client, replace(server, exit_code=-9, stdout="")) == "dead_peer"
    assert symptom_of(judge, client, replace(server, exit_code=137, stdout="")) == "dead_peer"
    assert symptom_of(judge, client, replace(server, exit_code=None, timed_out=True)) == "deadline"
    assert symptom_of(judge, replace(client, exit_code=139), server) == "ended_by_signal"
    assert symptom_of(judge, replace(client, exit_code=1), server) == "failed_silently"
    assert symptom_of(judge, replace(client, exit_code=None, timed_out=True), server) == "deadline"
    assert symptom_of(judge, replace(client, stdout=client.stdout[:-90]), server) == "incomplete"
    unknown = replace(client, exit_code=None, command=None)
    assert judge(unknown, None).rows[0].iterations == 200
    for old, new, name in [
        ("-q 4", "-q 1", "not_as_asked"),
        ("-n 50", "-n 60", "not_as_asked"),
        ("-s 4096", "-s 8K", "not_as_asked"),
        ("-s 4096", "-a", "not_as_asked"),
        ("-d rxe0", "-d rxe1", "other_device"),
        ("ib_write_bw", "ib_read_bw", "not_as_asked"),
        ("-F", "-FR", "not_as_asked"),
    ]:
        assert symptom_of(judge, replace(client, command=client.command.replace(old, new)), None) == name, new
    stranger = runs("siw_write_bw_R_q4")[1]
    assert symptom_of(judge, replace(client, command=None), replace(stranger, command=None)) == "other_peer"


def test_missing_rows():
    client, server = runs("siw_write_bw_R_a")
    lines = client.stdout.split("\n")
    last = next(line for line in lines if line.split()[:1] == ["8388608"])
    middle = next(line for line in lines if line.split()[:1] == ["64"])
    assert symptom_of(judge, replace(client, stdout=client.stdout.replace(last + "\n", "")), server) == "incomplete"
    assert symptom_of(judge, replace(client, stdout=client.stdout.replace(middle + "\n", "")), server) == (
        "not_as_asked"
    )


def test_asked_by_the_caller():
    client, server = runs("rxe_write_bw_noR_q4")
    fit = Asked(
        size_bytes=(4096,), qps=4, iterations=50, device="rxe0", gids=frozenset({"::FFFF:10.77.0.2", "fe80::1"})
    )
    assert judge(client, server, asked=fit).qps == 4
    for change, name in [
        ({"size_bytes": (4096, 8192)}, "incomplete"),
        ({"size_bytes": (8192,)}, "not_as_asked"),
        ({"qps": 2}, "not_as_asked"),
        ({"iterations": 49}, "not_as_asked"),
        ({"duration_s": 2.0}, "not_as_asked"),
        ({"device": "erdma_0"}, "other_device"),
        ({"gids": frozenset({"::ffff:10.77.0.3"})}, "other_device"),
    ]:
        assert symptom_of(judge, client, server, asked=replace(fit, **change)) == name, change
    timed = runs("rxe_write_bw_noR_gbits_D2")
    assert judge(*timed, asked=Asked(duration_s=2)).rows[0].bandwidth_peak_gbps is None
    assert symptom_of(judge, *timed, asked=Asked(duration_s=3)) == "not_as_asked"


def test_run_infinitely_is_incomplete_but_a_result():
    client, server = runs("siw_R_run_infinitely_sigint_lowload")
    output = judge(client, server)
    assert ([row.iterations for row in output.rows], output.complete) == ([2900, 1900, 3300], False)
    assert symptom_of(judge, client, replace(server, exit_code=-9)) == "dead_peer"
    ends = client.command.replace(" --run_infinitely", ""), server.command.replace(" --run_infinitely", "")
    assert symptom_of(judge, replace(client, command=ends[0]), replace(server, command=ends[1])) == "ended_by_signal"


def test_rdma_cm_rejection_without_commands():
    client, server = runs("mixed_err_noR_server_R_client")
    ends = replace(client, command=None), replace(server, command=None)
    assert symptom_of(judge, *ends) == "perftest_too_old_or_mode_mismatch"
    assert symptom_of(judge, ends[0], None) == "rdma_cm_rejected"


def test_unknown_kind():
    assert parse_document("nothing", "x")[1] == 3
