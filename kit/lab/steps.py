"""What every build of the lab does: say what it is at, and be the only one in this cache."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Callable, Iterator
from pathlib import Path

Say = Callable[[str], None]


@contextlib.contextmanager
def step(say: Say, name: str) -> Iterator[None]:
    """Say how long the block took."""
    started = time.monotonic()
    yield
    say(f"  {name}: {time.monotonic() - started:.1f} s")


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """One at a time with this lock file; a process that was killed lets go by itself."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
