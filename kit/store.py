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
import itertools
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.errors import StoreError
from kit.files import write_atomic, write_json

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow


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

        return pd.read_parquet(self.table_file("points"))

    def table_file(self, name: str) -> Path:
        """Of ``NAME.parquet``. Raises StoreError when there is none."""
        path = self.folder / f"{name}.parquet"
        if not path.exists():
            raise StoreError(f"{self.folder} holds no {path.name}", remedy="name the folder of a finished run")
        return path

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


def read_tables(runs: Sequence[Run], name: str = "points") -> tuple[pd.DataFrame, list[int]]:
    """A table of several runs as one, and how many of its rows each run has, in the order of the runs.

    It is what `pandas.concat` makes of the single tables, but pandas takes milliseconds for each small file.
    """
    import numpy as np
    import pandas as pd
    import pyarrow

    files = [run.table_file(name) for run in runs]
    batches = [files[start:start + _BATCH] for start in range(0, len(files), _BATCH)]
    with ThreadPoolExecutor() as pool:      # pyarrow reads without Python's lock
        pieces = [piece for found in pool.map(_read_batch, batches) for piece in found]
    # The schema says what a column becomes in pandas, and differs between versions of the kit: one DataFrame a schema.
    alike: dict[bytes, list[int]] = {}
    for number, (table, _) in enumerate(pieces):
        alike.setdefault(_schema(table), []).append(number)
    order = [number for numbers in alike.values() for number in numbers]
    joined = pd.concat([pyarrow.concat_tables([pieces[number][0] for number in numbers]).to_pandas()
                        for numbers in alike.values()], ignore_index=True)
    if len(alike) > 1:      # back into the order of the runs
        owners = np.repeat(order, [pieces[number][0].num_rows for number in order])
        joined = joined.iloc[np.argsort(owners, kind="stable")].reset_index(drop=True)
    return joined, [count for _, rows in pieces for count in rows]


_BATCH = 50     # files; joined at once where they are read, as thousands of small tables take long to join and to free


def _read_batch(files: Sequence[Path]) -> list[tuple[pyarrow.Table, list[int]]]:
    """The tables in their order, neighbours of one schema joined, each with the rows of its files."""
    import pyarrow
    from pyarrow.parquet import ParquetFile

    tables = []
    for path in files:
        with ParquetFile(path) as file:
            tables.append(file.read(use_threads=False))
    groups = [list(group) for _, group in itertools.groupby(tables, _schema)]
    return [(pyarrow.concat_tables(group).combine_chunks(), [table.num_rows for table in group]) for group in groups]


def _schema(table: pyarrow.Table) -> bytes:
    """With pandas' own types, which lie in its metadata."""
    return bytes(table.schema.serialize())


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
