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


# A stand-in that behaves as 0.3.14 does with GPU memory: an initiator that comes before the target's memory dies of it.
EARLY = """#!/bin/sh
case "$*" in
*--mode=target*)
    echo "listening on 127.0.0.1:15000" >&2; echo "DRAM is used" >&2; exec sleep 60 ;;
*)
    echo x >>"$0.tries"
    [ "$(wc -l <"$0.tries")" -ge 3 ] || kill -SEGV $$
    echo "Worker 0 stopped!" >&2
    echo "I1126 18:18:21.034018 1 transfer_engine_bench.cpp:1007] Test completed: duration 1.00, batch count 10, \
throughput 5.24 MB/s" >&2 ;;
esac
"""


def test_an_initiator_that_came_too_early_is_run_again_against_the_same_target(tmp_path):
    program = tmp_path / "bench"
    program.write_text(EARLY)
    program.chmod(0o755)
    study = local_study(tmp_path / "run", operations=["write"], block_bytes=[65536], batches=[8], threads=[1],
                        program=str(program))
    frame = study.measure()
    assert frame["outcome"].tolist() == ["VALID"], next(iter(study.run.finished_points().values()))
    assert frame["attempts"].tolist() == [3]
