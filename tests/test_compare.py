"""Runs side by side, from synthetic points whose answer is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from kit import compare
from kit.errors import StoreError
from kit.files import write_json
from kit.link.table import table
from kit.store import Run


def rows(values: list[float | None], tool: str = "ib_write_bw", size: int = 4096, **more: Any) -> list[dict[str, Any]]:
    """Repeats of one point; None is a failed one, whose row holds a number all the same."""
    column = "t_typical_us" if tool.endswith("_lat") else "bandwidth_gbps"
    base = {"site": "s", "device": "siw0", "tool": tool, "size_bytes": size, "qps": 1, "connection": "rdma_cm",
            "direction": "a->b"} | more
    return [base | ({"outcome": "VALID", "expected": True, column: value} if value is not None else
                    {"outcome": "FAILED", "expected": False, "symptom": "timeout", "remedy": "wait", column: 99.0})
            | {"repeat": number} for number, value in enumerate(values)]


def pair(first: list[float | None], second: list[float | None], tool: str = "ib_write_bw") -> pd.DataFrame:
    return compare.label([table(rows(first, tool)), table(rows(second, tool))], ["x", "y"])


def test_equal_names_are_made_unique() -> None:
    frame = table(rows([1.0]))
    labelled = compare.label([frame] * 4, ["x", "x", "x (2)", "x"])
    assert list(labelled["run"]) == ["x", "x (2)", "x (2) (2)", "x (3)"]
    assert "run" not in frame


def test_runs_of_other_versions_are_loaded_as_they_are_labelled(tmp_path: Path) -> None:
    today = table(rows([1.0, 2.0]))
    tables = [today, today.drop(columns="remedy"), today.assign(later=1), today]
    runs = [Run(tmp_path / str(number)) for number in range(len(tables))]
    for run, points in zip(runs, tables, strict=True):
        run.keep_points(points)
    wanted = compare.label([run.points for run in runs], ["0", "1", "2", "3"])
    pd.testing.assert_frame_equal(compare.load(run.folder for run in runs), wanted, check_exact=True)


def test_the_run_without_points_is_named(tmp_path: Path) -> None:
    Run(tmp_path / "one").keep_points(table(rows([1.0])))
    (tmp_path / "two").mkdir()
    with pytest.raises(StoreError, match=r"two holds no points\.parquet"):
        compare.load([tmp_path / "one", tmp_path / "two"])


def test_label_refuses_names_that_do_not_match() -> None:
    with pytest.raises(ValueError, match="1 tables but 2 names"):
        compare.label([table(rows([1.0]))], ["x", "y"])


def test_summary_rounds_and_leaves_out_what_never_varies() -> None:
    found = compare.summary(compare.label([table(rows([1.23456, 1.3, 1.2]))], ["x"]))
    assert list(found.columns) == ["run", "tool", "size_bytes", "median", "low", "high", "unit", "spread_%", "repeats",
                                   "outcome"]
    assert found.iloc[0].to_dict() == {
        "run": "x", "tool": "ib_write_bw", "size_bytes": 4096, "median": 1.23, "low": 1.2, "high": 1.3, "unit": "Gb/s",
        "spread_%": 8.1, "repeats": 3, "outcome": "VALID"}


def test_summary_shows_a_failure_and_never_its_number() -> None:
    found = compare.summary(compare.label([table(rows([None, None]))], ["x"])).iloc[0]
    assert found["outcome"] == "FAILED: timeout"
    assert found["repeats"] == 0
    assert found[["median", "low", "high", "spread_%"]].isna().all()


def test_a_partly_failed_point_says_so() -> None:
    found = compare.summary(compare.label([table(rows([1.0, None, 3.0]))], ["x"])).iloc[0]
    assert (found["outcome"], found["median"], found["repeats"]) == ("1 of 3 FAILED: timeout", 2.0, 2)


def test_every_symptom_of_a_point_is_named_once() -> None:
    failed = rows([None] * 4)
    for row, symptom in zip(failed, ["timeout", None, "no_route", "timeout"], strict=True):
        row["symptom"] = symptom
    points = compare.label([table(rows([1.0])), table(failed)], ["x", "y"])
    assert list(compare.summary(points)["outcome"]) == ["VALID", "FAILED: no_route, timeout, unknown"]


def test_three_runs_keep_their_order_and_their_own_points() -> None:
    frames = [table(rows([1.0, 1.1]) + rows([5.0, 5.1], "ib_write_lat", 64)), table(rows([2.0, 2.2])),
              table(rows([5.0, 5.1], "ib_write_lat", 64))]
    points = compare.label(frames, ["z", "a", "m"])
    assert list(compare.summary(points)["run"]) == ["z", "z", "a", "m"]
    found = compare.side_by_side(points)
    assert list(found.columns) == ["tool", "size_bytes", "unit", "z", "a", "m", "ratio a", "verdict a", "ratio m",
                                   "verdict m"]
    assert list(found["a"]) == ["2.1", "not measured"]
    assert list(found["verdict m"]) == ["not measured", "no difference"]
    assert set(found.dtypes.astype(str)[["ratio a", "ratio m"]]) == {"Float64"}


def test_latency_falls_back_to_the_average() -> None:
    frame = table([row | {"t_avg_us": 7.0, "t_typical_us": None} for row in rows([5.0], "ib_read_lat")])
    found = compare.summary(compare.label([frame], ["x"])).iloc[0]
    assert (found["median"], found["unit"]) == (7.0, "us")


@pytest.mark.parametrize(("first", "second", "tool", "ratio", "word"), [
    ([1.0, 1.1], [2.0, 2.2], "ib_write_bw", 2.0, "faster"),
    ([2.0, 2.2], [1.0, 1.1], "ib_write_bw", 0.5, "slower"),
    ([1.0, 1.1], [2.0, 2.2], "ib_write_lat", 2.0, "slower"),
    ([2.0, 2.2], [1.0, 1.1], "ib_write_lat", 0.5, "faster"),
    ([1.0, 3.0], [2.0, 4.0], "ib_write_bw", 1.5, "no difference"),
    ([1.0], [2.0, 2.2], "ib_write_bw", 2.1, "not repeated"),
    ([None, None], [2.0, 2.2], "ib_write_bw", None, "failed"),
    ([1.0, 1.1], [2.0, None, 2.2], "ib_write_bw", None, "failed"),
])
def test_side_by_side(first: list[float | None], second: list[float | None], tool: str, ratio: float | None,
                      word: str) -> None:
    found = compare.side_by_side(pair(first, second, tool)).iloc[0]
    assert found["verdict"] == word
    assert (None if pd.isna(found["ratio"]) else found["ratio"]) == ratio


def test_a_point_of_one_run_only_is_not_measured() -> None:
    points = compare.label([table(rows([1.0, 1.1])), table(rows([1.0, 1.1], size=64))], ["x", "y"])
    found = compare.side_by_side(points)
    assert list(found["verdict"]) == ["not measured"] * 2
    assert compare.verdict_line(found) == "2 comparisons: 2 not measured"


def test_one_run_is_no_comparison() -> None:
    with pytest.raises(ValueError, match="two runs"):
        compare.side_by_side(compare.label([table(rows([1.0]))], ["x"]))


def test_failures_are_grouped_and_expected_only_if_all_are() -> None:
    points = table(rows([None, None, 1.0]) + [row | {"expected": True} for row in rows([None], size=64)])
    found = compare.failures(points)
    assert found.iloc[0].to_dict() == {"run": "s", "tool": "ib_write_bw", "connection": "rdma_cm",
                                       "symptom": "timeout", "count": 3, "expected": False, "remedy": "wait"}
    assert len(found) == 1


def test_no_failures_is_an_empty_table() -> None:
    assert compare.failures(table(rows([1.0]))).empty


def test_load_and_fingerprints(tmp_path: Path) -> None:
    for folder, mtu in (("one", "1500"), ("two", "9000")):
        run = Run(tmp_path / folder)
        run.keep_points(table(rows([1.0, 1.1])))
        write_json(run.folder / "verdict.json", {"site": "lab"})
        write_json(run.folder / "fingerprint.json", {node: {"mtu": mtu, "kernel": "6.1"} for node in "ab"})
    runs = [str(tmp_path / "one"), str(tmp_path / "two")]
    assert list(compare.load(runs)["run"].unique()) == ["lab", "lab (2)"]
    diff = compare.fingerprint_diff(runs)
    assert list(diff.columns) == ["lab/a", "lab/b", "lab (2)/a", "lab (2)/b"]
    assert {fact: list(diff.loc[fact]) for fact in diff.index} == {"mtu": ["1500", "1500", "9000", "9000"]}
    (tmp_path / "no-facts").mkdir()
    assert compare.fingerprint_diff([*runs, tmp_path / "no-facts"]).equals(diff), "a run that read no facts"


def test_a_run_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no run at"):
        compare.load([tmp_path / "absent"])
