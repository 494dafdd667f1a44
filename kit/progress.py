"""Progress of a sweep: a bar in the notebook, and a small file that the runner in another process draws from."""

from __future__ import annotations

import html
import json
import threading
from collections.abc import Callable
from typing import Any

from kit.files import write_json
from kit.stage import Progress
from kit.store import Run

FILE = "progress.json"


def follow(run: Run, total: int) -> Callable[[Progress], None]:
    """Show a bar for ``total`` points, and give the function that moves it. Without a browser nothing is lost."""
    from IPython.display import display
    from ipywidgets import HTML, HBox, IntProgress

    bar, text = IntProgress(max=max(total, 1)), HTML()
    display(HBox([bar, text]))  # type: ignore[no-untyped-call]

    turn = threading.Lock()     # parts of a stack that start side by side tell of it at once

    def move(progress: Progress) -> None:
        with turn:
            bar.value = progress.done
            text.value = html.escape(f"{describe(progress.done, progress.total, progress.left_s)}: {progress.last}")
            write_json(run.folder / FILE, {"done": progress.done, "total": progress.total, "left_s": progress.left_s,
                                           "last": progress.last})

    return move


def read(run: Run) -> dict[str, Any]:
    """What `follow` wrote last; empty when there is nothing to read."""
    try:
        value = json.loads((run.folder / FILE).read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def describe(done: int, total: int, left_s: float) -> str:
    return f"{done} of {total} points, {left_s / 60:.0f} min left" if left_s > 90 else \
        f"{done} of {total} points, {left_s:.0f} s left"
