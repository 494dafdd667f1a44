"""Run folders survive kills, full disks and a second kit."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from kit import store
from kit.errors import StoreError
from kit.link.table import table

HOLDER = """
import sys, time
from pathlib import Path
from kit.store import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_file_is_written_whole_and_nothing_is_left_aside(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    store.write_atomic(path, "one")
    store.write_atomic(path, b"two")
    assert path.read_text() == "two"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_keeps_the_old_file_and_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                            number: int) -> None:
    path = tmp_path / "file.txt"
    store.write_atomic(path, "old")

    def full(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="is full") as caught:
        store.write_atomic(path, "new")
    assert "free space" in caught.value.remedy
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(StoreError, match="cannot write") as caught:
        store.write_atomic(tmp_path / "taken" / "file.txt", "x")
    assert caught.value.remedy


def test_numbers_that_json_lacks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        store.write_json(tmp_path / "file.json", {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_half_written_point_is_as_good_as_absent(tmp_path: Path) -> None:
    run = store.Run(tmp_path)
    run.keep_point("whole", {"value": 1})
    (tmp_path / "points" / "half.json").write_text('{"value": ')
    (tmp_path / "points" / "list.json").write_text("[1]")
    (tmp_path / "points" / ".other.json.1.part").write_text('{"value": 2}')
    assert run.finished_points() == {"whole": {"value": 1}}


def test_points_come_back_with_their_types(tmp_path: Path) -> None:
    points = table([{"site": "s", "tool": "ib_write_bw", "size_bytes": 64, "repeat": 0, "outcome": "VALID",
                     "bandwidth_gbps": 1.5}])
    run = store.Run(tmp_path)
    run.keep_points(points)
    assert run.points.dtypes.astype(str).to_dict() == points.dtypes.astype(str).to_dict()
    assert run.points["bandwidth_gbps"].tolist() == [1.5]


def test_a_run_without_points_or_folder_is_a_store_error(tmp_path: Path) -> None:
    run = store.open_run(tmp_path)
    assert (run.verdict, run.lock, run.fingerprint) == ({}, {}, {})
    with pytest.raises(StoreError, match=r"points\.parquet"):
        _ = run.points
    with pytest.raises(StoreError, match="no run at"):
        store.open_run(tmp_path / "absent")


def versions(folder: Path) -> list[store.Run]:
    """Runs whose tables have the columns and types of today, or fewer, or more, or other ones; one is empty."""
    today = table([{"site": "s", "tool": "ib_write_bw", "size_bytes": 64, "repeat": repeat, "outcome": "VALID",
                    "bandwidth_gbps": 1.5 * repeat} for repeat in range(3)])
    older = today.drop(columns=["device", "expected", "wall_s"])
    newer = today.assign(text=pd.array(["a", None, "b"], dtype="string"), whole=pd.array([1, None, 3], dtype="Int64"),
                         plain=7, number=[0.5, float("nan"), 2.0], said="x", nothing=None)
    other = today.astype({"size_bytes": "int64", "iterations": "Float64"})[list(reversed(today.columns))]
    tables = [today, newer, today, older, today[:0], other, newer, today]
    runs = [store.Run(folder / str(number)) for number in range(len(tables))]
    for run, points in zip(runs, tables, strict=True):
        run.keep_points(points)
    return runs


@pytest.mark.parametrize("batch", [1, 3, 50])
@pytest.mark.parametrize("which", [slice(None), slice(None, None, -1), slice(0, 3, 2), slice(3, 4)])
def test_tables_of_all_versions_are_read_as_pandas_joins_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                              batch: int, which: slice) -> None:
    monkeypatch.setattr(store, "_BATCH", batch)
    runs = versions(tmp_path)[which]
    singly = [run.points for run in runs]
    joined, rows = store.read_tables(runs)
    pd.testing.assert_frame_equal(joined, pd.concat(singly, ignore_index=True), check_exact=True)
    assert rows == [len(points) for points in singly]


def test_the_run_without_a_table_is_named(tmp_path: Path) -> None:
    runs = versions(tmp_path)
    (runs[5].folder / "points.parquet").unlink()
    with pytest.raises(StoreError, match=f"{runs[5].folder} holds no points.parquet"):
        store.read_tables(runs)
    with pytest.raises(StoreError, match=f"{runs[0].folder} holds no requests.parquet"):
        store.read_tables(runs, "requests")


def test_key_of_is_stable() -> None:
    # Spelled out: a key that changes makes every stored point unfindable.
    assert store.key_of({"b": [1, 2.5, None], "a": "é"}) == store.key_of({"a": "é", "b": [1, 2.5, None]})
    assert store.key_of({"b": [1, 2.5, None], "a": "é"}) == "84afbf1d4853"
    assert store.key_of({"a": 1}) != store.key_of({"a": "1"})
    assert len(store.key_of({}, digits=20)) == 20


def test_a_second_holder_is_refused_until_the_first_lets_go(tmp_path: Path) -> None:
    with store.hold(tmp_path), pytest.raises(StoreError, match="another kit"), store.hold(tmp_path):
        pass
    with store.hold(tmp_path):
        pass


def test_a_killed_holder_lets_go(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(StoreError, match="another kit"), store.hold(tmp_path):
                pass
        finally:
            holder.send_signal(signal.SIGKILL)
            holder.wait(timeout=10)
    with store.hold(tmp_path):
        pass
