"""The transfer-engine sweep on this machine: what happens when the program is not there."""

from kit.engine.study import EngineStudy
from kit.hosts.local import LocalHost
from kit.params import EngineParams, Site
from kit.sites import End, Pair
from kit.store import Run


def local_study(folder, **parameters):
    site = Site(name="here", nodes={name: {"host": "127.0.0.1", "rdma_device": "none", "rdma_address": "127.0.0.1"}
                                    for name in "ab"})
    ends = [End(name, LocalHost(name, run_id=f"kit-test-{folder.name}"), "none", "127.0.0.1") for name in "ab"]
    return EngineStudy(Pair(site, *ends), EngineParams(protocols=["tcp"], repeats=1, duration_s=1, **parameters),
                       Run(folder))


def test_a_program_that_is_not_there_fails_each_point_and_says_so(tmp_path):
    study = local_study(tmp_path, operations=["write"], block_bytes=[65536], program="no-such-transfer-engine")
    frame = study.measure()
    assert frame["outcome"].tolist() == ["FAILED"]
    record = next(iter(study.run.finished_points().values()))
    assert record["symptom"] == "program_missing"
    assert "no-such-transfer-engine" in record["line"]
    assert not study.verdict().expected
    assert len(study.todo()) == 1
