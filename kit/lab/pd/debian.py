"""The Debian packages of the serving part: libraries that the wheels load, and the ssh server.

Only what this machine lacks is downloaded; it is unpacked into the cache and installed nowhere.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from kit.errors import LabError
from kit.lab.image import cache
from kit.lab.packages import Apt, find_tool, unpack
from kit.lab.steps import Say, alone, step
from kit.store import key_of

# vLLM loads libnuma, Mooncake libibverbs and libcurl. nss-wrapper: see `kit.lab.pd.sshd`.
_PACKAGES = ("libnuma1", "libibverbs1", "libcurl4", "openssh-server", "openssh-sftp-server", "libnss-wrapper")
LIBRARIES = ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib64")     # where packages put them


def debian(say: Say = print) -> Path:
    """The folder that the packages are unpacked in. Raises LabError."""
    base = cache() / "lab" / "pd"
    folder = base / f"debian-{key_of([_PACKAGES, Path('/etc/os-release').read_text()])}"
    base.mkdir(parents=True, exist_ok=True)
    with alone(base / ".building-debian"):
        if not folder.exists():
            _check_host()
            for left in base.glob(".debian-*"):     # by a build that was killed: this is the only one now
                shutil.rmtree(left, ignore_errors=True)
            with tempfile.TemporaryDirectory(dir=base, prefix=".debian-") as scratch, step(say, "Debian packages"):
                apt = Apt(Path(scratch) / "apt")
                apt.update()
                unpack(apt.download(_PACKAGES, Path(scratch) / "debs", closure=True, whole=False),
                       Path(scratch) / "root")
                os.replace(Path(scratch) / "root", folder)
    return folder


def library_path(say: Say = print) -> str:
    """LD_LIBRARY_PATH for what was unpacked."""
    folder = debian(say)
    return ":".join(str(folder / name) for name in LIBRARIES if (folder / name).is_dir())


def _check_host() -> None:
    if os.uname().machine != "x86_64":
        raise LabError(f"the lab's serving part is for x86-64; this machine is {os.uname().machine}")
    if any(find_tool(tool) is None for tool in ("apt-get", "dpkg")):
        raise LabError("the lab is made of Debian packages, and this machine has no apt-get and dpkg",
                       remedy="use a Debian or Ubuntu machine or container")
