"""Files written whole: aside, flushed, renamed. A file that is there is complete, whenever the writer was killed."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from pathlib import Path
from typing import Any

from kit.errors import StoreError

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}


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
