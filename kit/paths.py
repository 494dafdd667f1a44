"""Where the project is: its notebooks, params and results."""

from __future__ import annotations

import os
from pathlib import Path


def root() -> Path:
    """The project's folder: ``KIT_ROOT``, else upward from here, else the checkout that this package lies in.

    Upward from here, because a notebook runs in ``notebooks/`` and papermill in the folder above.
    """
    if named := os.environ.get("KIT_ROOT"):
        return Path(named)
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "notebooks").is_dir() and (folder / "params").is_dir():
            return folder
    return Path(__file__).resolve().parent.parent


def shown(folder: Path) -> str:
    """A folder as a report names it: within the project from its root, so that it means the same elsewhere."""
    whole = folder.resolve()
    return str(whole.relative_to(root())) if whole.is_relative_to(root()) else str(whole)
