"""The guests' image: kernel and initramfs, built once from packages and kept in the cache.

What the distribution's kernel lacks is built in `kit.lab.modules`.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from kit.errors import LabError
from kit.files import write_atomic, write_json
from kit.lab.modules import build_modules
from kit.lab.packages import GUEST, HOST, Apt, check_host, find_tool, unpack
from kit.lab.steps import Say, alone, step
from kit.store import key_of

_HERE = Path(__file__).parent
_SOURCES = ("packages.py", "image.py", "modules.py", "init.sh", "erdma.c")
_MODULES = ("virtio_pci", "virtio_net", "virtio_rng", "ib_uverbs", "rdma_ucm", "rdma_rxe", "siw", "erdma",
            "nfsd", "nfsv4",
            "crc32c_intel", "crc32c_generic", "crc32_pclmul", "crc32_generic")
# Of what the guests' packages depend on, what no guest ever runs: half of the image.
_UNUSED = re.compile(r"(perl|debconf|passwd|adduser|libpam-(?!modules_)|dpkg|tar|gcc-|init-system|sensible|ucf|"
                     r"mount|util-linux|libdb5|libpython|python|debianutils|lsb-base|sysvinit|libfido|runit)")
_UNUSED_FOLDERS = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/lintian",
                   "usr/share/bash-completion", "usr/share/perl5", "usr/share/misc", "usr/share/terminfo",
                   "usr/lib/x86_64-linux-gnu/gconv", "usr/lib/x86_64-linux-gnu/perl-base", "usr/lib/systemd",
                   "etc/init.d", "etc/systemd", "etc/pam.d", "usr/include", "usr/share/i18n", "usr/share/openssh")
_APPLETS = ("sh", "awk", "sed", "grep", "vi", "ps", "ping", "nc", "netstat", "less", "find", "xargs", "tar", "gzip",
            "hostname", "mount", "umount", "dmesg", "uptime", "free", "setsid", "pkill", "pgrep", "tr", "usleep")


@dataclass(frozen=True)
class Image:
    """What a guest boots from, and the tools that boot it."""

    folder: Path

    @property
    def kernel(self) -> Path:
        return self.folder / "vmlinux"

    @property
    def initramfs(self) -> Path:
        return self.folder / "initramfs.cpio"

    @property
    def tools(self) -> Path:
        return self.folder / "tools"

    @property
    def user_key(self) -> Path:
        return self.folder / "id_ed25519"

    def host_key(self, name: str) -> str:
        """A guest's public host key: ``ssh-ed25519 AAAA…``."""
        number = {"a": 1, "b": 2}[name]
        return " ".join((self.folder / f"host_key_{number}.pub").read_text().split()[:2])


def cache() -> Path:
    """``KIT_CACHE``, or ``erdma-kit`` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(os.environ.get("KIT_CACHE") or Path(base) / "erdma-kit").absolute()


def image(say: Say = print) -> Image:
    """The image, built when the cache has none for this version of the build. Raises LabError."""
    folder = cache() / "lab"
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder / ".building"):
        index = folder / "index.json"
        known = json.loads(index.read_text()) if index.exists() else {}
        found = folder / known.get(_sources_hash(), "none")
        if (found / "vmlinux").exists():
            return Image(found)
        check_host()
        for left in folder.glob(".build-*"):     # by a build that was killed: this is the only one now
            shutil.rmtree(left, ignore_errors=True)
        say("building the lab (once; about a minute, 300 MB of packages)")
        with tempfile.TemporaryDirectory(dir=folder, prefix=".build-") as scratch:
            key = _build(Path(scratch), folder, say)
        write_json(index, known | {_sources_hash(): key})
        return Image(folder / key)


def _build(work: Path, folder: Path, say: Say) -> str:
    apt = Apt(work / "apt")
    with step(say, "package lists"):
        apt.update()
    kernel = apt.kernel()
    with step(say, f"kernel {kernel.release}"):
        kernel_debs = apt.download(kernel.packages, work / "debs/kernel", closure=False, whole=False)
        unpack(kernel_debs, work / "kernel")
    with step(say, "guest packages"):
        guest_debs = apt.download(GUEST, work / "debs/guest", closure=True, whole=True)
    with step(say, "QEMU"):
        tool_debs = apt.download(HOST, work / "debs/host", closure=True, whole=False)
        unpack(tool_debs, work / "out/tools")
    modules = work / "kernel" / ("usr/lib/modules" if (work / "kernel/usr/lib/modules").exists() else "lib/modules")
    with step(say, "siw and the erdma stand-in"):
        build_modules(apt, kernel, work, modules / kernel.release, run=_run)
    with step(say, "image"):
        _guest_root([deb for deb in guest_debs if not _UNUSED.match(deb.name)], work / "root")
        _copy_modules(work / "root", modules, kernel.release)
        _accounts(work / "root", work / "out")
        _pack(work / "root", work / "out")
        _unpack_kernel(next((work / "kernel/boot").glob("vmlinuz-*")), work / "out/vmlinux")
    key = image_key([*kernel_debs, *guest_debs, *tool_debs])
    shutil.rmtree(folder / key, ignore_errors=True)
    os.replace(work / "out", folder / key)
    return key


def image_key(debs: list[Path]) -> str:
    """Of what an image is made of: this build's own sources and the packages' names and versions."""
    return key_of([_sources_hash(), sorted(deb.name for deb in debs)])


def _guest_root(debs: list[Path], root: Path) -> None:
    unpack(debs, root)
    # Packages carry both /lib and /usr/lib paths; a merged /usr is made by hand, as the installer would.
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        if (root / name).is_dir() and not (root / name).is_symlink():
            _run("cp", "-a", f"{root / name}/.", str(root / "usr" / name))
            shutil.rmtree(root / name)
        if not (root / name).is_symlink():
            (root / name).symlink_to(f"usr/{name}")
    for name in _UNUSED_FOLDERS:
        shutil.rmtree(root / name, ignore_errors=True)
    for path in (root / "usr/lib/x86_64-linux-gnu/security").glob("*"):
        if path.name not in ("pam_limits.so", "pam_permit.so"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name in ("proc", "sys", "dev", "run", "tmp", "root", "var/log", "etc/ssh"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    for applet in _APPLETS:
        if not (root / "usr/bin" / applet).exists():
            (root / "usr/bin" / applet).symlink_to("busybox")
    (root / "etc/ld.so.conf").write_text("/usr/lib/x86_64-linux-gnu\n/lib/x86_64-linux-gnu\n")
    _run(find_tool("ldconfig") or "ldconfig", "-r", str(root))
    shutil.copy(_HERE / "init.sh", root / "init")
    (root / "init").chmod(0o755)


def _copy_modules(root: Path, modules: Path, release: str) -> None:
    """The wanted modules with what they depend on, told by the guest's own kmod, run by the guest's own loader."""
    base = modules.parent.parent if modules.parent.parent.name != "usr" else modules.parent.parent.parent
    _kmod(root, "depmod", "-b", str(base), release)
    wanted: set[str] = set()
    for name in _MODULES:
        if name == "erdma" and not (modules / release / "extra/erdma.ko").exists():
            continue     # a distribution that ships siw, and no source to build the stand-in from
        said = _kmod(root, "modprobe", "-d", str(base), "-S", release, "--show-depends", "--ignore-install", name)
        wanted |= set(re.findall(r"^insmod (\S+)", said, re.MULTILINE))
    target = root / "usr/lib/modules" / release
    target.mkdir(parents=True)
    for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        shutil.copy(modules / release / name, target)
    for path in sorted(wanted):
        inside = target / path.split(f"/modules/{release}/", 1)[1]
        inside.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, inside)
        if inside.suffix == ".ko":
            _run("strip", "--strip-debug", str(inside))
    _kmod(root, "depmod", "-b", str(root), release)


def _kmod(root: Path, name: str, *args: str) -> str:
    return _run(str(root / "usr/lib64/ld-linux-x86-64.so.2"), "--argv0", name, "--library-path",
                str(root / "usr/lib/x86_64-linux-gnu"), str(root / "usr/bin/kmod"), *args)


def _accounts(root: Path, out: Path) -> None:
    """root by key alone; the keys are made here, for this build, and leave the cache in no other way."""
    files = {
        "etc/passwd": "root:x:0:0:root:/root:/bin/bash\nsshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n"
                      "nobody:x:65534:65534::/:/usr/sbin/nologin\n",
        "etc/shadow": "root:*:19000:0:99999:7:::\nsshd:!:19000::::::\n",
        "etc/group": "root:x:0:\nnogroup:x:65534:\n",
        # used by the bare guests' sshd alone: limits.d counts there
        "etc/pam.d/sshd": "auth required pam_permit.so\naccount required pam_permit.so\n"
                          "session required pam_limits.so\n",
        "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
        "etc/os-release": Path("/etc/os-release").read_text(),
        "etc/ssh/sshd_config": "PermitRootLogin prohibit-password\nUsePAM no\nUseDNS no\n"
                               "MaxSessions 64\nMaxStartups 64:30:128\nPidFile /run/sshd.pid\n"
                               "Subsystem sftp /usr/lib/openssh/sftp-server\n",
    }
    for name, text in files.items():
        (root / name).unlink(missing_ok=True)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "etc/shadow").chmod(0o600)
    for name in ("id_ed25519", "host_key_1", "host_key_2"):
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"lab-{name}", "-f", str(out / name))
        if name != "id_ed25519":
            shutil.move(out / name, root / "etc/ssh" / name)
    (root / "root/.ssh").mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.copy(out / "id_ed25519.pub", root / "root/.ssh/authorized_keys")
    (root / "root").chmod(0o700)


def _pack(root: Path, out: Path) -> None:
    names = sorted(str(path.relative_to(root)) for path in root.rglob("*"))
    cpio = shutil.which("cpio", path=f"{out}/tools/usr/bin:{out}/tools/bin:{os.environ['PATH']}")
    if cpio is None:
        raise LabError("cpio is missing", remedy="apt install cpio")
    with open(out / "initramfs.cpio", "wb") as file:
        subprocess.run([cpio, "-o", "-H", "newc", "--quiet", "--owner=0:0"], cwd=root, stdout=file, check=True,
                       input="\n".join([".", *names]).encode() + b"\n")


def _unpack_kernel(vmlinuz: Path, vmlinux: Path) -> None:
    """QEMU boots the plain ELF image directly; unpacking it here saves the emulated CPU some seconds a boot."""
    packed = vmlinuz.read_bytes()
    start = packed.find(b"\xfd7zXZ\0")
    plain = lzma.LZMADecompressor().decompress(packed[start:]) if start >= 0 else b""
    write_atomic(vmlinux, plain if plain.startswith(b"\x7fELF") else packed)


def _run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-8:])
        raise LabError(f"building the lab failed at: {' '.join(argv)[:160]}\n{last}")
    return done.stdout


def _sources_hash() -> str:
    digest = hashlib.sha256()
    for name in _SOURCES:
        digest.update((_HERE / name).read_bytes())
    return digest.hexdigest()[:16]
