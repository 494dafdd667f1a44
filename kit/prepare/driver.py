"""The eRDMA kernel driver by the published path of the node's system; every file is fetched by its checksum.

Sources: the vendor's "Enable eRDMA" pages (systems, installer versions and sums), the driver script of
AliyunContainerService/alibabacloud-erdma-controller (plain installer, its dependencies and switches), DKMS's manual.
"""

from __future__ import annotations

import re

from kit.params import DriverWanted
from kit.prepare.facts import Facts
from kit.prepare.item import Item, Plan, Refusal, Step, Wanted, fetch, refuse, shell
from kit.prepare.mode import in_use
from kit.prepare.userspace import RPM_INSTALL, install, repair

FOLDER = "/var/lib/erdma-kit/driver"
_DEB_BUILD = ("debhelper", "autotools-dev", "dkms", "libnl-3-dev", "libnl-route-3-dev", "cmake")
_RPM_BUILD = ("gcc-c++", "dkms", "cmake")
_OFED_BUILD = ("build-essential", "dpkg-dev", "quilt", "dh-python", "python3", "bzip2", "perl", "lsof", "flex", "bison")
_BUILD_S = 3600
# (system, version) -> the way without anything unverified: what env_setup.sh does on Ubuntu is to fetch and run the
# installer. Debian is on no list of the vendor; a bundle of OFED's sources for it is published.
METHODS = {("debian", "12"): "ofed_debian", ("ubuntu", "22.04"): "installer", ("ubuntu", "24.04"): "installer",
           ("alinux", "3"): "installer", ("centos", "7"): "installer", ("anolis", "8"): "installer"}

# $1 tarball, $2 folder. Unpacked aside, then renamed; the same tarball is never unpacked over a half-unpacked one.
_UNPACK = r"""
aside=$2.part
rm -rf -- "$aside" "$2" && mkdir -p -- "$aside" && tar -xf "$1" -C "$aside" --strip-components=1 && mv -- "$aside" "$2"
"""
# $1 folder, then NAME=VALUE switches
_INSTALLER = 'cd -- "$1" && shift && exec env "$@" ./install.sh --batch'
# $1 script, then its arguments
_ENV_SETUP = 'exec bash "$@" </dev/null'
# $1 folder of the bundle, $2 the fixed kernel source. The published text stops after this exchange.
_OFED_FIX = r"""
name=${2##*/}
rm -f -- "$1"/SOURCES/mlnx-ofed-kernel_*.orig.tar.gz && cp -- "$2" "$1/SOURCES/$name.part" &&
mv -- "$1/SOURCES/$name.part" "$1/SOURCES/$name"
"""
_OFED_INSTALL = r"""
cd -- "$1" && ./install.pl --all --without-fw-update --force --distro "$2" -k "$3" </dev/null && depmod -a "$3"
"""
# $1 module/version
_DKMS_REMOVE = 'dkms remove "$1" --all'
_DKMS_INSTALL = 'dkms install "$1" -k "$2" && depmod -a "$2"'
_RELOAD = 'modprobe -r erdma && modprobe erdma'


def plan(facts: Facts, wanted: Wanted) -> Plan:
    """The wanted driver on disk for the running kernel, and the same one loaded if any is."""
    want = wanted.prepare.driver
    assert want is not None, "only asked for what is wanted"  # noqa: S101
    if facts.in_container:
        return refuse("the driver belongs to the host's kernel, and this node is a container",
                      "prepare the host that the container runs on")
    repairs = (repair(),) if facts.half_installed else ()
    if facts.modinfo and want.version in (None, facts.modinfo_version):
        return _loaded(facts, repairs)
    built = [row for row in facts.dkms if re.match(r"erdma[/,]", row)]
    if not facts.modinfo and built and want.version in (None, _version(built[-1])):
        name = f"erdma/{_version(built[-1])}"
        return Plan((*repairs, shell(f"build {name} again for kernel {facts.kernel}", _DKMS_INSTALL, name, facts.kernel,
                                     deadline_s=_BUILD_S)), refused=_no_headers(facts))
    steps = _install(facts, wanted, want)
    if isinstance(steps, Refusal):
        return Plan(refused=steps)
    stale = tuple(shell(f"remove the stale module erdma/{_version(row)}", _DKMS_REMOVE, f"erdma/{_version(row)}",
                        deadline_s=300) for row in built)
    blocked = in_use(facts) if facts.loaded else None
    replaces = method_of(facts, want) == "ofed_debian" and bool(facts.devices)
    return Plan((*repairs, *stale, *steps), refused=blocked,
                reboot="MLNX_OFED replaces the RDMA modules that are loaded" if replaces else "")


def method_of(facts: Facts, want: DriverWanted) -> str | None:
    """The path for this system; None where none is published."""
    if want.method != "auto":
        return want.method
    version = facts.os_version if facts.os_id == "ubuntu" else facts.os_version.split(".")[0]
    return METHODS.get((facts.os_id, version))


def _loaded(facts: Facts, repairs: tuple[Step, ...]) -> Plan:
    if not facts.loaded or not facts.loaded_version or facts.loaded_version == facts.modinfo_version:
        return Plan(repairs)
    return Plan((*repairs, shell(f"load driver {facts.modinfo_version} instead of {facts.loaded_version}", _RELOAD,
                                 deadline_s=120)), refused=in_use(facts))


def _install(facts: Facts, wanted: Wanted, want: DriverWanted) -> list[Step] | Refusal:
    method = method_of(facts, want)
    if method is None:
        return Refusal(f"no published way to install the driver on {facts.os_id} {facts.os_version}",
                       "use a listed image (Ubuntu 22.04 or 24.04, Alibaba Cloud Linux 3), or name a `method`")
    return {"installer": _installer, "env_setup_egs": _env_setup, "env_setup_url": _env_setup,
            "ofed_debian": _ofed}[method](facts, wanted, want)


def _fetched(wanted: Wanted, *places: tuple[str, str]) -> list[Step] | Refusal:
    """A step for each (artifact, where to), or the first refusal."""
    found: list[Step] = []
    for name, path in places:
        step = fetch(wanted, name, path)
        if isinstance(step, Refusal):
            return step
        found.append(step)
    return found


def path_of(name: str) -> str:
    """Where an artifact lies on the node."""
    return f"{FOLDER}/{name}"


def _dependencies(facts: Facts, *more: str) -> list[Step]:
    if "apt-get" in facts.tools:
        names = [f"linux-headers-{facts.kernel}", *_DEB_BUILD, *more]
        missing = [name for name in names if name not in facts.packages]
        return [install(missing)] if missing else []
    names = [f"kernel-devel-{facts.kernel}", *_RPM_BUILD, *more]
    missing = [name for name in names if name not in facts.packages]
    return [shell(f"install {' '.join(missing)}", RPM_INSTALL, *missing, deadline_s=1800)] if missing else []


def _no_headers(facts: Facts) -> Refusal | None:
    if "apt-get" not in facts.tools or f"linux-headers-{facts.kernel}" in facts.packages:
        return None
    return Refusal(f"the headers of kernel {facts.kernel} are not installed",
                   f"apt-get install linux-headers-{facts.kernel}; or boot the kernel that has its headers")


def _installer(facts: Facts, wanted: Wanted, want: DriverWanted) -> list[Step] | Refusal:
    files = _fetched(wanted, (want.installer, path_of(want.installer)))
    if isinstance(files, Refusal):
        return files
    return [*_dependencies(facts), *files, *_run_installer(want)]


def _run_installer(want: DriverWanted) -> list[Step]:
    switches = [*(["ERDMA_CM_NO_BOUND_IF=1"] if want.cm_no_bound_if else []),
                *(["ERDMA_FORCE_MAD_ENABLE=1"] if want.force_mad else [])]
    folder = f"{FOLDER}/installer"
    return [shell("unpack the installer", _UNPACK, path_of(want.installer), folder),
            shell("run install.sh --batch", _INSTALLER, folder, *switches, deadline_s=_BUILD_S)]


def _env_setup(facts: Facts, wanted: Wanted, want: DriverWanted) -> list[Step] | Refusal:
    if not want.trust_env_setup:
        return Refusal("env_setup.sh fetches over http, and runs as root, what no checksum covers",
                       "use `method: installer` (verified), or say `trust_env_setup: true`")
    files = _fetched(wanted, ("env_setup.sh", path_of("env_setup.sh")))
    if isinstance(files, Refusal):
        return files
    arguments = ["--egs"]
    if method_of(facts, want) == "env_setup_url":
        installer = wanted.artifacts.artifacts.get(want.installer)
        if installer is None:
            return Refusal(f"no artifact {want.installer!r} in params/artifacts.yaml", "add it with its URL")
        arguments = ["--url", installer.url.replace("{mirror}", wanted.mirror)]
    return [*_dependencies(facts), *files,
            shell(f"run env_setup.sh {arguments[0]}", _ENV_SETUP, path_of("env_setup.sh"), *arguments,
                  deadline_s=_BUILD_S)]


def _ofed(facts: Facts, wanted: Wanted, want: DriverWanted) -> list[Step] | Refusal:
    bundle, fix = "mlnx-ofed-debian-24.10", "mlnx-ofed-kernel-fix-24.10"
    known = wanted.artifacts.artifacts.get(fix)
    # the bundle looks for its sources by their own names
    source = path_of(known.url.rpartition("/")[2] if known else fix)
    files = _fetched(wanted, (bundle, path_of(bundle)), (fix, source), (want.installer, path_of(want.installer)))
    if isinstance(files, Refusal):
        return files
    folder = f"{FOLDER}/ofed"
    return [*_dependencies(facts, *_OFED_BUILD), *files,
            shell("unpack the MLNX_OFED sources", _UNPACK, path_of(bundle), folder, deadline_s=600),
            shell("put the kernel source with the erdma fix into the bundle", _OFED_FIX, folder, source),
            shell("build and install MLNX_OFED", _OFED_INSTALL, folder, f"debian{facts.os_version}.0", facts.kernel,
                  deadline_s=2 * _BUILD_S), *_run_installer(want)]


def _version(row: str) -> str:
    """``erdma/0.2.37, 5.15.0, x86_64: installed``, or with a comma and blank in older DKMS."""
    found = re.match(r"erdma(?:/|, )([^\s,:]+)", row)
    return found[1] if found else ""


ITEM = Item("driver", "driver", plan)
