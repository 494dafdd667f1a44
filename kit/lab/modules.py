"""Kernel modules for the guests, built from the distribution's own kernel source.

Debian ships siw disabled (CONFIG_RDMA_SIW is unset). ``erdma`` is a stand-in for the vendor's driver: siw's own code
with that driver's module parameters, so that a preparation has a real module to load and read back (`erdma.c`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from kit.errors import LabError
from kit.lab.packages import Apt, Kernel, unpack

Run = Callable[..., str]
_DRIVER = "drivers/infiniband/sw/siw"
_STANDIN = Path(__file__).with_name("erdma.c")


def build_modules(apt: Apt, kernel: Kernel, work: Path, modules: Path, *, run: Run) -> None:
    """Put siw, where the kernel has none, and the erdma stand-in into ``modules/extra``. Raises LabError."""
    shipped = bool(list(modules.rglob("siw.ko*")))
    try:
        headers, source = _sources(apt, kernel, work, run)
    except LabError:
        if not shipped:     # without the source there is no stand-in, and the rest of the lab works
            raise
        return
    names = ["erdma"] if shipped else ["siw", "erdma"]
    _makefile(source, names)
    run("make", "-C", str(headers), f"M={source}", "CC=gcc", f"-j{os.cpu_count()}", "modules")
    into = modules / "extra"
    into.mkdir(parents=True, exist_ok=True)
    for name in names:
        run("strip", "--strip-debug", str(source / f"{name}.ko"))
        shutil.copy(source / f"{name}.ko", into)


def _sources(apt: Apt, kernel: Kernel, work: Path, run: Run) -> tuple[Path, Path]:
    """The kernel's headers, and siw's source."""
    debs = apt.download(apt.build_packages(kernel), work / "debs/build", closure=False, whole=False)
    source = next(deb for deb in debs if deb.name.startswith("linux-source"))
    unpack([deb for deb in debs if deb != source], work / "headers")
    headers = work / "headers/usr/src" / f"linux-headers-{kernel.release}"
    for file in (headers / "Makefile", headers / ".kernelvariables"):     # they name absolute paths: ours are elsewhere
        if file.exists():
            text = file.read_text()
            for path in ("/usr/src/linux-headers", "/usr/lib/linux-kbuild"):
                text = text.replace(path, f"{work}/headers{path}")
            file.write_text(text)
    unpack([source], work / "source")
    archive = next((work / "source/usr/src").glob("linux-source-*.tar.xz"))
    name = archive.name.removesuffix(".tar.xz")
    run("tar", "-xJf", str(archive), "-C", str(work / "source"), f"{name}/{_DRIVER}")
    return headers, work / "source" / name / _DRIVER


def _makefile(source: Path, names: list[str]) -> None:
    """Both modules of one folder and of the same objects, but for the main one: little more to build than siw alone."""
    shutil.copy(_STANDIN, source / "standin.c")
    shared = " ".join(f"{file.stem}.o" for file in sorted(source.glob("siw_*.c")) if file.stem != "siw_main")
    (source / "Makefile").write_text(f"obj-m := {' '.join(f'{name}.o' for name in names)}\n"
                                     f"siw-y := {shared} siw_main.o\nerdma-y := {shared} standin.o\n")
