"""The transfer-engine stage on the lab: Mooncake's own bench between two ssh nodes, over loopback TCP."""

import pytest

from kit.engine.study import open_study
from kit.predict import lines_of

pytestmark = pytest.mark.lab


@pytest.mark.parametrize("environment", ["current", "recipe"])
def test_both_versions_of_the_bench(own_lab, tmp_path, environment):
    study = open_study("lab-pd", str(tmp_path), environment=environment, protocols=["tcp"], threads=[2],
                       block_bytes=[65536, 524288], repeats=1, duration_s=1)
    try:
        frame = study.measure()
        assert frame["outcome"].tolist() == ["VALID"] * 4, frame["symptom"].tolist()
        assert study.verdict().expected
        assert set(lines_of(study.run.folder)) == {"read", "write"}
        assert study.pair.both(lambda end: end.host.stop(end.host.run_id)) == {"a": 0, "b": 0}
    finally:
        study.close()


def test_a_device_that_is_not_there_is_named(own_lab, tmp_path):
    study = open_study("lab-pd", str(tmp_path), environment="current", protocols=["rdma"], operations=["write"],
                       block_bytes=[65536], repeats=1, duration_s=1)
    try:
        study.measure()
        record = next(iter(study.run.finished_points().values()))
        assert record["outcome"] == "FAILED"
        assert record["symptom"] == "kv_device_missing"
    finally:
        study.close()
