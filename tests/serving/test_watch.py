"""Which pages and counters of which node are sampled, stack by stack; and that a stack's own page really is."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.hosts.local import LocalHost
from kit.observe.collect import Sources
from kit.observe.table import table, troubles
from kit.params import Serving, Site
from kit.serving.launch import Deployment
from kit.serving.parts import Wiring, parts
from kit.serving.stacks import read_stack, wired
from kit.serving.watch import observed, watched
from kit.sites import End, Pair

sys.path.append(str(Path(__file__).parent.parent / "observe"))
from metrics_server import MetricsServer

SERVING = {"environments": {"recipe": {"at": "/opt/recipe"}, "current": {"at": "/opt/current"}}, "model": "/models/m",
           "max_model_tokens": 8192, "protocol": "rdma"}
FOLDERS = {"a": "/run-a", "b": "/run-b"}


@pytest.fixture
def pair() -> Iterator[Pair]:
    host = LocalHost(run_id=f"kit-test-{uuid.uuid4().hex[:8]}")
    nodes = {name: {"host": f"10.0.0.{name}", "rdma_device": "erdma_0", "rdma_address": f"10.0.1.{number}"}
             for number, name in enumerate("ab", 11)}
    serving = Serving.model_validate(SERVING)
    site = Site.model_validate({"name": "two-nodes", "nodes": nodes, "serving": SERVING})
    ends = [End(name, host, "erdma_0", nodes[name]["rdma_address"]) for name in "ab"]
    yield Pair(site, *ends, serving=serving)
    assert host.stop(host.run_id) == 0


def wiring_of(pair: Pair, stack: str, **changed: object) -> Wiring:
    told = pair.serving
    assert told is not None
    return wired(Pair(pair.site, pair.a, pair.b, told.model_copy(update=changed)), read_stack(stack), FOLDERS)


def sources(pair: Pair, wiring: Wiring) -> dict[str, Sources]:
    return {one.name: one.sources for one in watched(pair, wiring, parts(wiring))}


def test_a_store_stack_has_its_master_beside_the_prefiller(pair: Pair) -> None:
    found = sources(pair, wiring_of(pair, "lmcache-mooncake"))
    assert found == {
        "prefiller": Sources({"vllm": "http://10.0.1.11:7100/metrics", "mooncake": "http://10.0.1.11:9004/metrics"},
                             ("erdma_0",), addresses=("10.0.1.11",), eadm=("erdma_0",)),
        "decoder": Sources({"vllm": "http://10.0.1.12:7200/metrics"}, ("erdma_0",), addresses=("10.0.1.12",),
                           eadm=("erdma_0",))}


def test_a_direct_stack_has_no_master_and_an_aggregated_one_no_decoder(pair: Pair) -> None:
    assert [list(one.urls) for one in sources(pair, wiring_of(pair, "mooncake-direct")).values()] == [["vllm"]] * 2
    assert list(sources(pair, wiring_of(pair, "aggregated"))) == ["server"]


def test_exporter_and_interface_where_given(pair: Pair) -> None:
    found = sources(pair, wiring_of(pair, "aggregated", exporter_port=9101, interface="eth1"))["server"]
    assert found.urls["erdma-exporter"] == "http://10.0.1.11:9101/metrics"
    assert (found.interfaces, found.addresses) == (("eth1",), ())


def test_what_a_server_tells_is_in_the_table(pair: Pair) -> None:
    server = MetricsServer()
    try:
        port = int(server.url.split(":")[2].split("/")[0])
        here = Pair(pair.site, End("a", pair.a.host, "", "127.0.0.1"), pair.b, pair.serving)
        stack = read_stack("aggregated")
        stack = stack.model_copy(update={"ports": stack.ports.model_copy(update={"prefiller": port})})
        wiring = wired(here, stack, FOLDERS)
        with observed(here, Deployment(wiring, parts(wiring)), deadline_s=30) as seen:
            server.wait_for(2)
        assert troubles(seen) == []
        assert set(table(seen)["node"]) == {"server"}
        assert {"vllm", "net"} <= set(table(seen)["source"])
    finally:
        server.close()
