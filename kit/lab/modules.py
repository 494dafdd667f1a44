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
    standin = _standin(source)
    into = modules / "extra"
    into.mkdir(parents=True, exist_ok=True)
    for folder, name, options in ((source, "siw", ["CONFIG_RDMA_SIW=m"]), (standin, "erdma", [])):
        if name == "siw" and shipped:
            continue
        run("make", "-C", str(headers), f"M={folder}", "CC=gcc", *options, f"-j{os.cpu_count()}", "modules")
        run("strip", "--strip-debug", str(folder / f"{name}.ko"))
        shutil.copy(folder / f"{name}.ko", into)


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


def _standin(source: Path) -> Path:
    """siw's folder again, with our file in the place of its main one and a Makefile for a module named erdma."""
    folder = source.with_name("erdma")
    shutil.copytree(source, folder)
    shutil.copy(_STANDIN, folder / "standin.c")
    objects = [f"{file.stem}.o" for file in sorted(folder.glob("siw_*.c")) if file.stem != "siw_main"]
    (folder / "Makefile").write_text(f"obj-m := erdma.o\nerdma-y := {' '.join(objects)} standin.o\n")
    return folder
