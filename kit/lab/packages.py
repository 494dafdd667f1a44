"""The lab's software: Debian packages, downloaded and unpacked as any user, installed nowhere.

apt keeps its lists and downloads in a folder of ours, and checks signatures and checksums as always.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from kit.errors import LabError

GUEST = ("busybox-static", "bash", "coreutils", "ethtool", "ibverbs-providers", "ibverbs-utils", "iproute2", "kmod",
         "libc-bin", "numactl", "openssh-server", "openssh-sftp-server", "perftest", "procps", "rdmacm-utils")
HOST = ("qemu-system-x86", "cpio")
_TOOLS = {"apt-get": "apt", "apt-cache": "apt", "dpkg": "dpkg", "gcc": "gcc", "make": "make", "strip": "binutils",
          "tar": "tar", "xz": "xz-utils", "ssh-keygen": "openssh-client"}
_METAS = ("linux-image-amd64", "linux-image-generic")     # Debian's, Ubuntu's
_DOWNLOAD_S = 900


@dataclass(frozen=True)
class Kernel:
    """A kernel's release, such as 6.1.0-56-amd64, and the packages it comes from."""

    release: str
    packages: tuple[str, ...]


def check_host() -> None:
    """Raises LabError that names what this machine lacks and how to get it."""
    if os.uname().machine != "x86_64":
        raise LabError(f"the lab's guests are x86-64; this machine is {os.uname().machine}")
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise LabError("the lab is made of Debian packages, and this machine has no apt-get and dpkg",
                       remedy="use a Debian or Ubuntu machine or container")
    missing = sorted({package for tool, package in _TOOLS.items() if find_tool(tool) is None})
    if missing:
        raise LabError(f"the lab cannot be built without: {' '.join(missing)}",
                       remedy=f"apt install {' '.join(missing)}")


def find_tool(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")


class Apt:
    """apt with its state in ``folder``. ``whole`` resolves as if nothing was installed: for another root."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("lists/partial", "cache/archives/partial", "state"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "empty-status").touch()

    def update(self) -> None:
        self._apt("apt-get", "update", "-q", whole=False)

    def kernel(self) -> Kernel:
        """The newest kernel with its headers and, where the distribution ships them apart, its extra modules."""
        for meta in _METAS:
            found = re.search(r"Depends: linux-image-(\d\S*)", self._cache("depends", meta))
            if found:
                release = found[1].removesuffix("-unsigned")
                extra = [name for name in (f"linux-modules-{release}", f"linux-modules-extra-{release}")
                         if self._cache("show", name)]
                return Kernel(release, (f"linux-image-{release}", *extra))
        raise LabError("apt knows no kernel package",
                       remedy=f"see that one of {', '.join(_METAS)} is in your apt sources")

    def build_packages(self, kernel: Kernel) -> tuple[str, ...]:
        """What a module of this kernel is built from: its headers with their own parts, and the kernel's source."""
        headers = f"linux-headers-{kernel.release}"
        parts = re.findall(r"Depends: (linux-(?:headers|kbuild|compiler)\S*)", self._cache("depends", headers))
        series = ".".join(kernel.release.split(".")[:2])
        source = f"linux-source-{series}"
        versions = {name: self._version(name) for name in (kernel.packages[0], source)}
        if len(set(versions.values())) != 1 or None in versions.values():
            raise LabError(f"kernel and source are not of one version: {versions}",
                           remedy="see that apt's sources hold both; if they are being updated, try again later")
        return (headers, *parts, source)

    def download(self, names: tuple[str, ...], into: Path, *, closure: bool, whole: bool) -> list[Path]:
        """The packages' files; with ``closure`` what they depend on, too."""
        into.mkdir(parents=True, exist_ok=True)
        if closure:
            (into / "partial").mkdir(exist_ok=True)
            self._apt("apt-get", "install", "-q", "-y", "--no-install-recommends", "--download-only",
                      "-o", f"Dir::Cache::archives={into}/", *names, whole=whole)
        else:
            self._apt("apt-get", "download", "-q", *names, whole=whole, cwd=into)
        return sorted(into.glob("*.deb"))

    def _version(self, name: str) -> str | None:
        found = re.search(r"^Version: (\S+)", self._cache("show", name), re.MULTILINE)
        return found[1] if found else None

    def _cache(self, *args: str) -> str:
        done = subprocess.run(["apt-cache", *self._options(whole=False), *args], capture_output=True, text=True,
                              timeout=_DOWNLOAD_S, check=False)
        return done.stdout if done.returncode == 0 else ""

    def _options(self, *, whole: bool) -> list[str]:
        status = self.folder / "empty-status" if whole else Path("/var/lib/dpkg/status")
        user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
        pairs = {"Dir::State": self.folder / "state", "Dir::State::lists": self.folder / "lists",
                 "Dir::State::status": status, "Dir::Cache": self.folder / "cache", "Debug::NoLocking": "1",
                 "APT::Sandbox::User": user}
        return [word for key, value in pairs.items() for word in ("-o", f"{key}={value}")]

    def _apt(self, tool: str, *args: str, whole: bool, cwd: Path | None = None) -> None:
        done = subprocess.run([tool, *self._options(whole=whole), *args], capture_output=True, text=True, cwd=cwd,
                              timeout=_DOWNLOAD_S, check=False, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            raise LabError(f"{tool} {args[0]} failed:\n" + "\n".join(done.stderr.strip().splitlines()[-6:]),
                           remedy="see that apt reaches its sources: apt-get update")


def unpack(debs: list[Path], into: Path) -> None:
    """Unpack package files into a folder; nothing of them is run."""
    into.mkdir(parents=True, exist_ok=True)
    for deb in debs:
        subprocess.run(["dpkg", "-x", str(deb), str(into)], check=True, capture_output=True)
