"""What a sweep would run, point by point."""

import pytest

from kit.link.perftest import Point, perftest_command, points
from kit.params import LinkParams


def line(params, point, address=None):
    return str(perftest_command(point, params, device="erdma_0", rdma_port=1, port=18515, server_address=address))


@pytest.mark.parametrize(("point", "params", "said"), [
    (Point("ib_write_bw", 65536, 16, "rdma_cm", "a->b", 0), {"duration_s": 5},
     "ib_write_bw -d erdma_0 -i 1 -p 18515 -F -s 65536 -D 5 -R -q 16 --report_gbits"),
    (Point("ib_write_bw", 65536, 1, "out_of_band", "a->b", 0), {"iterations": 50000, "bidirectional": True},
     "ib_write_bw -d erdma_0 -i 1 -p 18515 -F -s 65536 -n 50000 -q 1 --report_gbits -b -N"),
    (Point("ib_read_lat", 8, 1, "rdma_cm", "a->b", 0), {"mtu_bytes": 1024, "gid_index": 1, "inline_bytes": 0},
     "ib_read_lat -d erdma_0 -i 1 -p 18515 -F -s 8 -n 1000 -R -m 1024 -x 1 -I 0"),
    (Point("ib_send_bw", 8, 1, "rdma_cm", "a->b", 0), {"tx_depth": 64},
     "ib_send_bw -d erdma_0 -i 1 -p 18515 -F -s 8 -n 1000 -R -q 1 --report_gbits -t 64"),
    (Point("ib_atomic_lat", 8, 1, "rdma_cm", "a->b", 0), {}, "ib_atomic_lat -d erdma_0 -i 1 -p 18515 -F -n 1000 -R"),
])
def test_the_command_says_all_that_was_asked(point, params, said):
    assert line(LinkParams(**params), point) == said


def test_the_client_differs_from_the_server_by_the_address_alone():
    params = LinkParams(iterations=100)
    for point in points(params):
        assert line(params, point, "10.0.1.11") == line(params, point) + " 10.0.1.11"


def test_repeats_are_outermost_and_latency_has_one_queue_pair():
    params = LinkParams(tools=["ib_write_bw", "ib_write_lat"], qps=[1, 4], sizes_bytes=[64], repeats=2)
    found = points(params)
    assert [point.repeat for point in found] == [0, 0, 0, 1, 1, 1]
    assert [point.qps for point in found[:3]] == [1, 4, 1]


def test_a_key_names_what_is_measured_and_nothing_else():
    point = Point("ib_write_bw", 64, 1, "rdma_cm", "a->b", 0)
    key = point.key(LinkParams(iterations=100))
    assert key == point.key(LinkParams(iterations=100, base_port=20000, deadline_s=30, repeats=9))
    assert key != point.key(LinkParams(iterations=200))
    assert key != point.key(LinkParams(iterations=100, mtu_bytes=1024))
    assert key != Point("ib_write_bw", 64, 1, "rdma_cm", "b->a", 0).key(LinkParams(iterations=100))
