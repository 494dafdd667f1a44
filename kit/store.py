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
import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.errors import StoreError

if TYPE_CHECKING:
    import pandas as pd

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}


def key_of(what: Any, *, digits: int = 12) -> str:
    """A short hash of plain data (dicts, lists, numbers, text); the same data gives the same key everywhere."""
    text = json.dumps(what, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a file aside, flush it to the disk, rename it. Raises StoreError, and leaves no half file."""
    raw = data.encode() if isinstance(data, str) else data
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(aside, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise store_error(path, error) from error


def store_error(path: Path, error: OSError) -> StoreError:
    """The OSError as a StoreError with its remedy."""
    if error.errno in _DISK_FULL:
        return StoreError(f"the disk of {path.parent} is full: {path.name} was not written",
                          remedy="free space there (finished points are kept) and run again")
    return StoreError(f"cannot write {path}: {error.strerror}", remedy="check that the folder exists and is yours")


def write_json(path: Path, value: Any) -> None:
    """Plain data as sorted, indented JSON, atomically."""
    write_atomic(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


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
        import io

        buffer = io.BytesIO()
        table.to_parquet(buffer, index=False)
        write_atomic(self.folder / "points.parquet", buffer.getvalue())


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
