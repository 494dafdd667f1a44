"""The transfer-engine stage: points, command lines, verdict; and the whole stage against its recording."""

from dataclasses import replace

import pandas as pd
import pytest

from kit import engine_plots
from kit.engine.bench import Point, await_target, bench_command, points
from kit.engine.study import named_in, open_study
from kit.engine.table import like_pieces, samples_of_engine, table
from kit.engine.verdict import judge, link_bounds
from kit.errors import ParamsError
from kit.linkmodel import fit_each
from kit.params import EngineParams, Environment, Experiment, Serving, check, load
from kit.paths import root
from kit.predict import lines_of
from kit.store import Run, open_run

POINT = Point("write", 65536, 8, 4, "rdma", "vram", "a->b", 0)
RECORDED = next(stage.params for stage in load(Experiment, root() / "params/experiments/lab-pd.yaml").stages
                if stage.stage == "04_transfer_engine")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    study = open_study("replay-pd-engine", str(tmp_path_factory.mktemp("engine")), **RECORDED)
    study.measure()
    return study


def test_every_combination_once_repeats_outermost():
    params = EngineParams(threads=[1, 2], memories=["dram", "vram"], repeats=2)
    found = points(params)
    assert len(found) == len(set(found)) == 2 * 2 * 2 * 2 * 2
    assert [point.repeat for point in found] == sorted(point.repeat for point in found)
    assert len({point.key(params) for point in found}) == len(found)


def test_commands():
    params = EngineParams(gid_index=1, gpu_id=3, library_path="/opt/my libs", env={"MC_TCP_SLICE_SIZE": "4096"})
    target = str(bench_command(POINT, params, device="erdma_0", own_address="10.0.0.2", port=12345))
    assert target.startswith("env MC_TCP_SLICE_SIZE=4096 LD_LIBRARY_PATH='/opt/my libs' MC_GID_INDEX=1 transfer_eng")
    assert "--mode=target" in target
    assert "--device_name=erdma_0" in target
    assert "--buffer_size=2097152" in target
    assert "--use_vram=true --gpu_id=3" in target
    assert "--segment_id" not in target
    initiator = str(bench_command(POINT, params, device="erdma_0", own_address="10.0.0.1", port=12346,
                                  segment="10.0.0.2:15001"))
    assert "--mode=initiator" in initiator
    assert "--segment_id=10.0.0.2:15001 --operation=write --duration=4 --report_unit=MB" in initiator


def test_tcp_names_no_device():
    point = Point("read", 4096, 1, 1, "tcp", "dram", "b->a", 0)
    line = str(bench_command(point, EngineParams(), device="erdma_0", own_address="h", port=1))
    assert "erdma_0" not in line
    assert "--use_vram=false" in line
    assert (point.initiator, point.target) == ("b", "a")


SERVING = Serving(environments={"box": Environment(at="/opt/box", prefix=["nice"], env={"A": "1"})}, model="/m",
                  max_model_tokens=100, protocol="tcp")


def test_the_program_of_a_serving_environment(tmp_path):
    study = open_study("replay-pd-engine", str(tmp_path), **{**RECORDED, "environment": "box"})
    with pytest.raises(ParamsError, match="has no environment 'box'"):
        study.plan()
    study.pair = replace(study.pair, serving=SERVING)
    assert study.plan()["target"][0].startswith(
        "env A=1 MC_TCP_ENABLE_CONNECTION_POOL=1 nice /opt/box/bin/transfer_engine_bench --mode=target ")
    study.pair = replace(study.pair, serving=SERVING.model_copy(update={"runtime": "container"}))
    line = study.plan()["initiator"][0]
    assert line.startswith("nerdctl run --rm --name kit-")
    assert "--entrypoint nice /opt/box transfer_engine_bench --mode=initiator" in line


def test_the_wait_is_bounded_and_takes_no_text():
    assert str(await_target("run-1", 20)).endswith(" kit run-1 20")


@pytest.mark.parametrize("values", [{"protocols": ["carrier"]}, {"threads": [0]}, {"batches": []}, {"blocks": [1]},
                                    {"duration_s": 60, "deadline_s": 61.0}, {"operations": ["read", "read"]}])
def test_wrong_parameters(values):
    with pytest.raises(ParamsError):
        check(EngineParams, values, where="here")


def test_the_recorded_run(study):
    frame = study.run.points
    assert len(frame) == 18
    assert set(frame["outcome"]) == {"VALID"}
    assert (frame["round_ms"] * frame["throughput_gbps"] / 8e-6).round().tolist() == frame["in_flight_bytes"].tolist()
    verdict = study.verdict()
    assert verdict.expected
    assert verdict.bound == "NONE"
    assert {reach.operation for reach in verdict.reaches} == {"read", "write"}
    assert study.todo() == []
    assert set(lines_of(study.run.folder)) == {"read", "write"}


def test_the_plan_lists_what_is_to_do(tmp_path):
    study = open_study("replay-pd-engine", str(tmp_path), **RECORDED)
    assert len(study.plan()) == 18
    assert study.plan()["initiator"].str.contains("--segment_id=127.0.0.2:PORT").all()


def test_a_failed_point_is_told(study):
    frame = study.run.points
    frame.loc[0, ["outcome", "symptom"]] = ["FAILED", "engine_no_target"]
    verdict = judge(frame, lines={}, bounds={})
    assert (verdict.outcome, verdict.expected) == ("FAILED", False)
    assert "1 of 18 points failed (engine_no_target)" in str(verdict)
    assert not judge(table([]), lines={}, bounds={}).expected


@pytest.mark.parametrize(("share", "bound"), [(0.5, "OVER"), (1.0, "PASS"), (1.24, "PASS"), (1.3, "WARN")])
def test_the_bound(study, share, bound):
    best = {reach.operation: reach.best_gbps for reach in judge(study.run.points, lines={}, bounds={}).reaches}
    verdict = judge(study.run.points, lines={}, bounds={"write": best["write"] * share})
    assert verdict.bound == bound
    assert verdict.to_dict()["reaches"][1]["bound"] == bound


def test_bounds_come_from_a_link_run():
    bounds = link_bounds(open_run(root() / "results/reference/lab-siw").points)
    assert set(bounds) == {"write"}
    assert bounds["write"] > 0


def test_samples_are_chosen_by_protocol_and_memory(study):
    frame = study.run.points
    assert len(samples_of_engine(frame)) == 18
    assert samples_of_engine(frame, protocol="rdma") == []
    assert samples_of_engine(frame, memory="vram") == []
    assert {sample.size_bytes for sample in samples_of_engine(frame)} == {2**20, 2**21, 2**23}


def test_a_run_without_a_valid_point_predicts_nothing(study, tmp_path):
    Run(tmp_path).keep_points(study.run.points.assign(outcome="FAILED"))
    with pytest.raises(ParamsError, match="has no valid point"):
        lines_of(tmp_path)


def test_the_figure(study):
    frame = study.run.points
    figure = engine_plots.throughput_over_bytes(frame, lines=fit_each(samples_of_engine(frame)), bounds={"write": 9.0})
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert "the link's write: 9 Gb/s" in labels
    assert len(labels) == 5
    nothing = engine_plots.throughput_over_bytes(table([]), lines={}, bounds={})
    assert nothing.axes[0].texts[0].get_text() == "no valid points"


def test_named_in():
    assert named_in({"threads": [1], "study": 0}) == {"threads": [1]}


def test_other_columns_do_not_pass():
    with pytest.raises(KeyError):
        samples_of_engine(pd.DataFrame({"tool": []}))


def swept(*sizes):
    """Points of (block, how many at once)."""
    return table([{"operation": "write", "block_bytes": block, "batch": batch, "in_flight_bytes": block * batch,
                   "outcome": "VALID", "round_ms": 1.0} for block, batch in sizes])


def test_the_points_in_a_stack_s_own_pieces():
    frame = swept((16384, 100), (16384, 1000), (131072, 10), (131072, 100))
    assert set(like_pieces(frame, 20_000)["block_bytes"]) == {16384}
    assert set(like_pieces(frame, 4e6)["block_bytes"]) == {131072}
    assert set(like_pieces(frame, None)["block_bytes"]) == {131072}
    one_at_a_time = swept((16384, 8), (131072, 8))
    assert len(like_pieces(one_at_a_time, 16384)) == 2, "only together they are a line"
