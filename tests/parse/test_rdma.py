"""The readers of `rdma -j`, against real output."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.errors import ParseError
from kit.parse.rdma import (
    CmId,
    RdmaLink,
    parse_rdma_cm_ids,
    parse_rdma_links,
    parse_rdma_resources,
    parse_rdma_statistics,
)

DATA = Path(__file__).parent.parent / "data" / "rdma"
READERS = (parse_rdma_links, parse_rdma_resources, parse_rdma_statistics, parse_rdma_cm_ids)


def sample(name: str) -> str:
    return (DATA / name).read_text()


@pytest.mark.parametrize("name", ["link.json", "link_pretty.json"])
def test_links(name: str) -> None:
    assert parse_rdma_links(sample(name)) == [
        RdmaLink("siw0", 1, "ACTIVE", "LINK_UP", "eth1"), RdmaLink("rxe0", 1, "ACTIVE", "LINK_UP", "eth1")]


def test_resources() -> None:
    siw, rxe = parse_rdma_resources(sample("resource.json"))
    assert (siw.ifname, siw.counts["qp"], rxe.counts["qp"], rxe.counts["cm_id"]) == ("siw0", 0, 1, 0)
    assert set(rxe.counts) == {"pd", "cq", "qp", "cm_id", "mr", "ctx", "srq"}


def test_listening_cm_id() -> None:
    assert parse_rdma_cm_ids(sample("cm_id_rxe_listen.json")) == [
        CmId("rxe0", "LISTEN", "0.0.0.0", 18515, pid=3227, comm="ib_write_bw")]  # noqa: S104
    [bare] = parse_rdma_cm_ids('[{"ifname": "erdma_0", "state": "CONNECT", "src-addr": "[fe80::1]:7471"}]')
    assert (bare.src_addr, bare.src_port, bare.dst_port) == ("fe80::1", 7471, None)


def test_statistics() -> None:
    [rxe] = parse_rdma_statistics(sample("statistic_rxe.json"))
    assert (rxe.ifname, rxe.port, rxe.counters["sent_pkts"], len(rxe.counters)) == ("rxe0", 1, 31403, 15)


@pytest.mark.parametrize(("name", "symptom"), [
    ("err_no_netlink.txt", "no_rdma_netlink"),
    ("err_statistic_siw.txt", "not_supported"),
    ("link_down_text.txt", "unreadable"),
])
def test_failures_are_named(name: str, symptom: str) -> None:
    for read in READERS:
        with pytest.raises(ParseError) as caught:
            read(sample(name))
        assert caught.value.symptom == symptom
        assert caught.value.line


def test_a_truth_value_is_no_number() -> None:
    with pytest.raises(ParseError):
        parse_rdma_links('[{"ifname": "a", "port": true}]')


@pytest.mark.parametrize("text", [
    "", "{}", "[1]", "null", "[" * 100_000, '[{"ifname": 1}]', '[{"ifname": "a"}]',
    '[{"ifname": "a", "port": ' + "9" * 5000 + "}]", '[{"ifname": "a", "port": NaN}]',
    '[{"ifname": "a", "port": 1, "state": [], "x": -1, "src-addr": {}}]',
])
def test_broken_output_is_a_parse_error(text: str) -> None:
    for read in READERS:
        with pytest.raises(ParseError):
            read(text) if text != '[{"ifname": "a"}]' else parse_rdma_links(text)
