"""Run folders: what a stage leaves behind, written so that a kill at any moment loses nothing that was finished.

A run's folder holds::

    run.lock.yaml      what determines the run; itself a runnable experiment file
    points/KEY.json    one finished point each, with both ends' raw output
    points.parquet     all points, tidy (columns: `kit.link.table`)
    fingerprint.json   node -> fact -> value
    verdict.json       outcome, reason, bound; its presence marks the run as finished
    notebook.ipynb     the executed notebook

Every file is written aside and renamed (`write_atomic`), so a file that is there is whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.errors import StoreError
from kit.files import write_atomic, write_json

if TYPE_CHECKING:
    import pandas as pd


def key_of(what: Any, *, digits: int = 12) -> str:
    """A short hash of plain data (dicts, lists, numbers, text); the same data gives the same key everywhere."""
    text = json.dumps(what, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


@dataclass(frozen=True)
class Run:
    """A run's folder, finished or not."""

    folder: Path

    @property
    def verdict(self) -> dict[str, Any]:
        """Empty while the run is not finished."""
        return _read_json(self.folder / "verdict.json")

    @property
    def fingerprint(self) -> dict[str, dict[str, str]]:
        """Node -> fact -> value."""
        return _read_json(self.folder / "fingerprint.json")

    @property
    def lock(self) -> dict[str, Any]:
        import yaml

        path = self.folder / "run.lock.yaml"
        return dict(yaml.safe_load(path.read_text())) if path.exists() else {}

    @property
    def points(self) -> pd.DataFrame:
        """One row a measurement; columns as in `kit.link.table`."""
        import pandas as pd

        path = self.folder / "points.parquet"
        if not path.exists():
            raise StoreError(f"{self.folder} holds no points.parquet", remedy="name the folder of a finished run")
        return pd.read_parquet(path)

    def finished_points(self) -> dict[str, dict[str, Any]]:
        """Point key -> its record; a file that is not whole JSON is as good as absent."""
        found = {}
        for path in sorted((self.folder / "points").glob("*.json")):
            record = _read_json(path)
            if record:
                found[path.stem] = record
        return found

    def keep_point(self, key: str, record: dict[str, Any]) -> None:
        write_json(self.folder / "points" / f"{key}.json", record)

    def keep_points(self, table: pd.DataFrame) -> None:
        self.keep_table("points", table)

    def keep_table(self, name: str, table: pd.DataFrame) -> None:
        """As ``NAME.parquet``."""
        import io

        buffer = io.BytesIO()
        table.to_parquet(buffer, index=False)
        write_atomic(self.folder / f"{name}.parquet", buffer.getvalue())


def open_run(folder: str | Path) -> Run:
    """A run to read. Raises StoreError when there is no such folder."""
    path = Path(folder)
    if not path.is_dir():
        raise StoreError(f"no run at {path}", remedy="list the runs under results/")
    return Run(path)


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """The folder is ours alone; a second kit on it gets a StoreError. A killed kit lets go by itself."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".held", "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(f"another kit is at work in {folder}", remedy="wait for it, or stop it") from None
        yield


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
