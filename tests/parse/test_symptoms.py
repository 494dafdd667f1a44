"""The table of symptoms: sound, ordered, and each row reached by the words it is for."""

import re
import tomllib
from pathlib import Path

import pytest

from kit import symptoms

TABLE = tomllib.loads((Path(symptoms.__file__).parent / "symptoms.toml").read_text())["symptom"]

#: The tools' own words, from their sources and from captured output, to the symptom that they must give.
WORDS = [
    ("Couldn't connect to 10.0.0.1:18515\nUnable to init the socket connection", "server_unreachable"),
    ("Unable to init the socket connection", "control_connection_failed"),
    ("Failed to modify QP 300 to RTR\n Unable to Connect the HCA's through the link", "standard_mode_needs_rdma_cm"),
    ("Transport type : IW\nFailed to modify QP to RTS", "standard_mode_needs_rdma_cm"),
    ("Transport type : IB\nFailed to modify QP to RTS", "qp_rts_refused"),
    (" Unable to Connect the HCA's through the link", "qp_rts_refused"),
    (" Found Incompatibility issue with GID types.", "gid_mismatch"),
    ("ethernet_read_keys: Couldn't read remote address\n Unable to read to socket/rdma_cm", "peer_lost"),
    ("Unexpected CM event bl blka 8", "rdma_cm_rejected"),
    ("Unexpected CM event bl blka 7", "server_unreachable"),
    ("Unexpected CM event bl blka 1", "rdma_address_unresolved"),
    ("Unexpected CM event bl blka 10", "rdma_cm_failed"),
    ("Failed to connect RDMA CM client, tried 10 times.", "server_unreachable"),
    ("Function rdma_connect failed", "server_unreachable"),
    ("IB device mlx5_7 not found\n Unable to find the Infiniband/RoCE device", "device_not_found"),
    ("IB device 'mlx5_0' wasn't found", "device_not_found"),
    (" Unable to find the Infiniband/RoCE device", "no_devices"),
    ("No IB devices found", "no_devices"),
    ("Failed to get IB devices list: Function not implemented", "no_devices"),
    (" Port number 1 state is Down\n Couldn't set the link layer", "port_not_active"),
    (" Couldn't get context for the device", "no_context"),
    ("Couldn't allocate MR with error=12\nFailed to create MR", "memlock_or_mr_size"),
    ("Unable to create QP.", "qp_type_unsupported"),
    ("Current implementation is not compatible with versions older than 5.70", "perftest_too_old_or_mode_mismatch"),
    (" Completion with error at client\n Failed status 5: wr_id 0 syndrom 0x0\nscnt=1, ccnt=0", "completion_error"),
    ("Failed status-transport retry counter exceeded (12): wr_id 0 syndrom 0x81", "completion_error"),
    ("Couldn't listen to port 18601", "port_taken"),
    (" rdma_bind_addr failed", "port_taken"),
    ("Temporary failure in name resolution for nohost.lab:18515", "name_not_resolved"),
    ("ib_write_bw: unrecognized option '--x'", "bad_option"),
    ("ib_write_bw: invalid option -- 'K'", "bad_option"),
    ("please check that DURATION > 2*MARGIN", "bad_duration"),
    ("Duration mode currently doesn't support running on all sizes.", "duration_with_all_sizes"),
    (" Gid index should be between 0 and 64", "gid_index_out_of_range"),
    (" Message Size should be between 1 and 2147483647", "bad_value"),
    (" Error: BW result is below bw limit", "below_limit"),
    ("Failed to open NETLINK_RDMA socket", "no_rdma_netlink"),
    ("Version: 6.06", "version_only"),
    ("  ib_write_bw            start a server and wait for connection", "usage_only"),
    ("Conflicting CPU frequency values detected: 800.0 != 2600.0. CPU Frequency is not max.", None),
    ("WARNING: BW peak won't be measured in this run.", None),
    ("Device not recognized to implement inline feature. Disabling it", None),
    (" Requested mtu is higher than active mtu", None),
    ("", None),
]


@pytest.mark.parametrize(("text", "name"), WORDS)
def test_words(text, name):
    found = symptoms.find(text)
    assert (found[0].name if found else None) == name
    if found:
        assert found[1] in text
        assert "\n" not in found[1]


def test_every_pattern_row_is_tried():
    assert {row["name"] for row in TABLE if "patterns" in row} == {name for _, name in WORDS if name}


def test_table():
    names = [row["name"] for row in TABLE]
    assert len(names) == len(set(names))
    assert [symptom.name for symptom in symptoms.all_symptoms()] == names
    for row in TABLE:
        assert re.fullmatch(r"[a-z0-9_]+", row["name"])
        assert row["remedy"].endswith(".")
        assert row["source"]
        assert row.get("kind") in (("local", "link", "consequence") if "patterns" in row else (None,))


def test_transport_given():
    assert symptoms.find("Failed to modify QP to RTS", transport="IB")[0].name == "qp_rts_refused"
    assert symptoms.find("Failed to modify QP to RTS", transport="IW")[0].name == "standard_mode_needs_rdma_cm"


def test_names():
    assert symptoms.named("dead_peer").kind == "judged"
    with pytest.raises(KeyError):
        symptoms.named("nonesuch")
