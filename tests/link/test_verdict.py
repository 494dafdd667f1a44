"""A verdict counts what did not end as expected, holds against the nominal speed, and sees drift outside the spread."""

import pytest

from kit.link.table import table
from kit.link.verdict import judge


def points(*speeds, **more):
    return table([{"site": "s", "device": "d", "tool": "ib_write_bw", "size_bytes": 65536, "qps": 1,
                   "connection": "rdma_cm", "direction": "a->b", "repeat": repeat, "outcome": "VALID",
                   "expected": True, "bandwidth_gbps": speed, **more} for repeat, speed in enumerate(speeds)])


@pytest.mark.parametrize(("speeds", "nominal", "bound"), [
    ((22.4, 22.5, 22.6), 25, "PASS"),
    ((22.3, 22.4, 22.9), 25, "WARN"),     # one lucky repeat is not the median
    ((99.0,), None, "NONE"),
])
def test_bound(speeds, nominal, bound):
    verdict = judge(points(*speeds), nominal_gbps=nominal)
    assert verdict.outcome == "VALID"
    assert verdict.bound == bound


def test_a_nominal_speed_is_not_reached_where_nothing_was_measured():
    verdict = judge(points(None, outcome="FAILED", symptom="deadline", expected=False), nominal_gbps=25)
    assert (verdict.outcome, verdict.bound, verdict.expected) == ("FAILED", "WARN", False)
    assert "deadline" in str(verdict)


def test_an_expected_failure_is_no_surprise():
    verdict = judge(points(None, outcome="FAILED", symptom="standard_mode_needs_rdma_cm"), nominal_gbps=None)
    assert verdict.expected
    assert "failed as expected (standard_mode_needs_rdma_cm)" in verdict.reason


def test_a_point_that_was_to_fail_but_did_not_is_a_surprise():
    verdict = judge(points(1.0, expected=False), nominal_gbps=None)
    assert not verdict.expected
    assert "did not end as expected" in verdict.reason


@pytest.mark.parametrize(("before", "now", "drifted"), [
    ((20.0, 20.1, 20.2), (18.0, 18.1, 18.2), 1),
    ((20.0, 20.1, 20.2), (19.6, 19.7, 19.8), 0),     # below 5 %
    ((16.0, 20.1, 24.2), (17.0, 18.1, 19.2), 0),     # inside the spread
    ((20.0,), (10.0,), 0),                           # a single run has no spread to be outside of
])
def test_drift(before, now, drifted):
    verdict = judge(points(*now), nominal_gbps=None, baseline=points(*before))
    assert len(verdict.drifted) == drifted
    assert ("WARN" in str(verdict)) == bool(drifted)
