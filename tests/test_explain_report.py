"""The hand-over in a comparison: predicted from the same site's runs, beside what was measured, and what it means."""

import json

import pytest
from click.testing import CliRunner
from served import made_up

from kit import cli, runner
from kit.engine.table import table
from kit.explain_report import predicted_beside_measured, reckon
from kit.store import Run

RECORDED = ["results/reference/lab-siw", "results/reference/lab-pd-engine", "results/reference/lab-pd"]


def closed(run, stage, site):
    """A verdict, so that the run counts as one of this stage and site."""
    (run.folder / "verdict.json").write_text(json.dumps({"stage": stage, "site": site, "title": f"at {site}"}))
    return str(run.folder)


def swept(folder, site, gbps):
    """A transfer-engine run in which every size goes at the same rate."""
    run = Run(folder)
    folder.mkdir()
    run.keep_points(table([
        {"operation": operation, "block_bytes": size, "batch": 1, "threads": 1, "protocol": "tcp", "memory": "dram",
         "outcome": "VALID", "in_flight_bytes": size, "round_ms": size * 8e-6 / gbps}
        for operation in ("read", "write") for size in (2**20, 2**22, 2**26)]))
    return closed(run, "04_transfer_engine", site)


@pytest.fixture
def served(tmp_path):
    return closed(made_up(tmp_path / "served", "lmcache-mooncake"), "06_serve_bench", "here")


def test_a_serving_run_is_predicted_from_the_engine_of_its_own_site(tmp_path, served):
    (told,) = reckon([swept(tmp_path / "mine", "here", 10), swept(tmp_path / "other", "elsewhere", 99), served])
    assert told.sources == {"transfer engine": "mine"}
    assert told.about() == "at here: transfer engine from mine"
    found = predicted_beside_measured([told])
    assert found["concurrency"].tolist() == [1, 8]
    assert found["predicted from"].unique().tolist() == ["transfer engine"]
    # 55 MiB are half written and half read at 10 Gb/s; 60 ms were measured.
    predicted = told.accounts[0].explanations[0].size_bytes * 8e-7
    measured = told.accounts[0].explanations[0].handover_ms.value
    assert found["error"][0] == f"{predicted / measured - 1:+.1%}"
    assert " to " in found["measured_ms"][0]


def test_the_figure_holds_every_load(served):
    (told,) = reckon([served])
    named = [label.get_text() for label in told.figure().axes[0].get_yticklabels()]
    assert named.count("lmcache-mooncake") == 2
    assert told.about().endswith("nothing to predict from: no link and no transfer-engine run of this site")
    assert predicted_beside_measured([told]).empty


def test_without_a_baseline_it_says_why(tmp_path):
    run = made_up(tmp_path / "served", "lmcache-mooncake", outcome="INVALID")
    (told,) = reckon([closed(run, "06_serve_bench", "here")])
    assert "no valid stack that hands over has an aggregated baseline" in told.about()
    assert told.figure() is None
    assert told.notes() == []


def test_other_stages_alone_give_nothing():
    assert reckon(RECORDED[:2]) == []


def test_the_recorded_lab():
    (told,) = reckon(RECORDED)
    assert told.sources == {"transfer engine": "lab-pd-engine"}, "the link run is another site's"
    assert {(account.stack, account.concurrency) for account in told.accounts} == {
        (stack, concurrency) for stack in ("lmcache-mooncake", "mooncake-direct") for concurrency in (1, 4)}
    assert all(each.separable for account in told.accounts for each in account.explanations)
    notes = "\n".join(told.notes())
    assert "mooncake-direct: aggregated is vLLM 0.11.0, mooncake-direct vLLM 0.32.0" in notes
    assert "one machine with 2 CPU cores and no GPU" in notes
    assert "careful" not in notes, "the sweep covers what is handed over"
    assert len(predicted_beside_measured([told])) == 4


def test_a_run_with_compare_passes_its_engine_runs_to_the_report(tmp_path, monkeypatch):
    plan = runner.read_experiment("lab")
    done = [runner.StageResult(stage, Run(tmp_path / str(number)), True, "VALID", "", True)
            for number, stage in enumerate(plan.stages)]
    compared = []
    monkeypatch.setattr(runner, "run_experiment", lambda *_, **__: done)
    monkeypatch.setattr(cli, "_compare", lambda folders, out, say: compared.extend(folders))
    assert CliRunner().invoke(cli.main, ["run", "lab", "--results", str(tmp_path)]).exit_code == 0
    stages = [plan.stages[int(folder.rpartition("/")[2])].stage for folder in compared]
    assert stages == ["03_link_perftest", "03_link_perftest", "04_transfer_engine", "06_serve_bench"]
