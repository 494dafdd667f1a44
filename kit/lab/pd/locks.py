"""The locks of the serving environments: hash-pinned, without the name of any index.

``recipe.lock`` and ``current.lock`` are made by `make lock-pd` from the ``.in`` and ``.override`` files beside them.
Not all of a lock is installed everywhere: a torch without CUDA needs none of the CUDA libraries.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from kit.errors import LabError

_HERE = Path(__file__).parent
_CUDA = ("nvidia-", "cuda-")


@dataclass(frozen=True)
class Lock:
    """A lock's entries: package -> its lines, as pip reads them."""

    name: str
    entries: dict[str, str]

    @property
    def text(self) -> str:
        return "".join(self.entries.values())

    def version(self, package: str) -> str:
        found = re.match(rf"{re.escape(package)}==(\S+)", self.entries.get(package, ""))
        if found is None:
            raise LabError(f"{self.name}.lock has no {package}", remedy="make lock-pd")
        return found[1]

    def only(self, *packages: str) -> str:
        return "".join(self.entries[package] for package in packages)

    def cuda_libraries(self) -> list[str]:
        """What torch's public build loads, also where there is no GPU."""
        return [package for package in self.entries if package.startswith(_CUDA)]


def read_lock(name: str) -> Lock:
    return Lock(name, parse((_HERE / f"{name}.lock").read_text()))


def torch_without_cuda(version: str) -> str | None:
    """The lines that pin the build of this version that has no CUDA, or None when there is no such pin."""
    text = (_HERE / "torch-cpu.lock").read_text()
    return next((lines for lines in _blocks(text) if lines.startswith(f"torch=={version}+cpu ")), None)


def parse(text: str) -> dict[str, str]:
    """Package -> its lines. A package that is pinned twice, under two markers, has both. Raises LabError for an
    entry without a hash."""
    entries: dict[str, str] = {}
    for lines in _blocks(text):
        found = re.match(r"([A-Za-z0-9._-]+)==", lines)
        if found is None or "--hash=sha256:" not in lines:
            raise LabError(f"a lock has an entry without version or hash: {lines.splitlines()[0]}",
                           remedy="make lock-pd")
        entries[found[1]] = entries.get(found[1], "") + lines
    return entries


def _blocks(text: str) -> list[str]:
    """A line at the margin and the indented ones below it; comments are left out."""
    lines = [line for line in text.splitlines(keepends=True) if not line.lstrip().startswith("#") and line.strip()]
    return re.split(r"(?m)^(?=\S)", "".join(lines))[1:]
