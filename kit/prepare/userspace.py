"""User space: the vendor's apt source with a key of its own (``signed-by``), a pin, and the packages.

Source of the published line: the vendor's container recipe, which hard-codes one codename; here it is the node's.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from kit.errors import ParseError
from kit.parse.openpgp import key_fingerprint
from kit.prepare.facts import Facts
from kit.prepare.item import Item, Plan, Refusal, Step, Wanted, fetch, refuse, remove_file, shell

KEY = "/etc/apt/keyrings/erdma-kit.asc"
SOURCE = "/etc/apt/sources.list.d/erdma-kit.list"
PIN = "/etc/apt/preferences.d/erdma-kit"
_NEW_KEY = "/var/lib/erdma-kit/new-key.asc"
# Only on the vendor's own Ubuntu repository; a Debian node takes a suite only when the preparation names one.
_RELEASES = {"ubuntu"}
_HEAD = "# Written whole by erdma-kit; changes to it are lost.\n"

_OPTIONS = ("-q -y --no-install-recommends --allow-downgrades -o Acquire::Retries=1 -o Acquire::http::Timeout=20 "
            "-o DPkg::Lock::Timeout=300")     # a killed run's own apt may still be at work
# $1 new key, $2 key, $3 source, $4 its text, $5 pin, $6 its text, then the packages. The source's own signature is
# checked alone, then all packages are downloaded and checked. When any of it fails, all is put back as it was.
ADD_SOURCE = r"""
export DEBIAN_FRONTEND=noninteractive
kept=$(mktemp -d) || exit 1
back() {
    for f in "$2" "$3" "$5"; do
        if [ -e "$kept/${f##*/}" ]; then cp -p -- "$kept/${f##*/}" "$f"; else rm -f -- "$f"; fi
    done
}
ended() { code=$?; [ "$done" = yes ] || back "$@"; rm -rf -- "$kept"; exit $code; }
done=no
for f in "$2" "$3" "$5"; do [ ! -e "$f" ] || cp -p -- "$f" "$kept/" || exit 1; done
trap 'ended "$@"' EXIT
trap 'exit 143' TERM INT HUP
mkdir -p -- "${2%/*}" "${3%/*}" "${5%/*}" &&
cp -- "$1" "$2" && chmod 644 "$2" && printf %s "$4" >"$3" && printf %s "$6" >"$5" && chmod 644 "$3" "$5" &&
apt-get update -q --error-on=any -o Dir::Etc::sourcelist="$3" -o Dir::Etc::sourceparts=- \
    -o APT::Get::List-Cleanup=0 -o Acquire::Retries=1 -o Acquire::http::Timeout=20 &&
apt-get update -q || exit 1
key=$1
(shift 6; exec apt-get install OPTIONS --download-only "$@") || exit 1
done=yes
rm -f -- "$key"
""".replace("OPTIONS", _OPTIONS)
# The packages. Downloads come first and are checked; dpkg starts when all are there.
INSTALL = r"""
export DEBIAN_FRONTEND=noninteractive
apt-get install OPTIONS --download-only "$@" ||
    { apt-get update -q && apt-get install OPTIONS --download-only "$@"; } || exit 1
apt-get install OPTIONS --no-download -o Dpkg::Options::=--force-confold "$@"
""".replace("OPTIONS", _OPTIONS)
REPAIR = "DEBIAN_FRONTEND=noninteractive dpkg --configure -a"
RPM_INSTALL = r"""
tool=dnf; command -v dnf >/dev/null 2>&1 || tool=yum
exec "$tool" install -y "$@"
"""
# The same packages by their names in RPM systems; the rest keeps its name.
RPM_NAMES = {"libibverbs1": "libibverbs", "ibverbs-providers": "rdma-core", "ibverbs-utils": "libibverbs-utils",
             "librdmacm1": "librdmacm"}


def plan(facts: Facts, wanted: Wanted) -> Plan:
    """What is missing of source and packages; half-installed packages are finished first."""
    want = wanted.prepare.user_space
    assert want is not None, "only asked for what is wanted"  # noqa: S101
    if "apt-get" not in facts.tools:
        return _rpm(facts, want.packages)
    steps: list[Step] = [repair()] if facts.half_installed else []
    if want.source:
        missing = _source(facts, wanted)
        if isinstance(missing, Refusal):
            return Plan(refused=missing)
        steps += missing
        # With a new source, or where a run was killed after it, the system's own libraries give way to the vendor's.
        packages = want.packages if missing else [name for name in want.packages if not _newest(facts, name)]
    else:
        packages = [name for name in want.packages if name not in facts.packages]
    if packages:
        steps.append(install(packages))
    return Plan(tuple(steps))


def _newest(facts: Facts, name: str) -> bool:
    installed = facts.packages.get(name)
    return installed is not None and installed == facts.candidates.get(name, installed)


def undo(facts: Facts, wanted: Wanted) -> Plan:
    """Source, pin and key are removed; the packages stay."""
    return Plan(tuple(remove_file(path) for path in (SOURCE, PIN, KEY) if path in facts.files))


def repair() -> Step:
    """A step that finishes what an earlier, interrupted dpkg left."""
    return shell("finish a half-done package installation", REPAIR, deadline_s=1800)


def install(packages: list[str]) -> Step:
    """A step that installs packages by apt."""
    return shell(f"install {' '.join(packages)}", INSTALL, *packages, deadline_s=1800)


def source_text(wanted: Wanted, suite: str) -> str:
    """The line of the apt source."""
    want = wanted.prepare.user_space
    assert want is not None, "only asked for what is wanted"  # noqa: S101
    return f"{_HEAD}deb [signed-by={KEY}] {wanted.mirror}{want.path} {suite} main\n"


def pin_text(wanted: Wanted) -> str:
    """The vendor's libraries go before the system's own of the same name; nothing else of that mirror does."""
    want = wanted.prepare.user_space
    assert want is not None, "only asked for what is wanted"  # noqa: S101
    host = urlsplit(wanted.mirror).hostname or ""
    ours = " ".join(name for name in want.packages if name != "perftest")
    return f'{_HEAD.rstrip()}\n\nPackage: {ours}\nPin: origin "{host}"\nPin-Priority: 1001\n'


def _source(facts: Facts, wanted: Wanted) -> list[Step] | Refusal:
    want = wanted.prepare.user_space
    assert want is not None, "only asked for what is wanted"  # noqa: S101
    if want.suite is None and (facts.os_id not in _RELEASES or not facts.codename):
        return Refusal(f"the vendor's apt source has no suite for {facts.os_id} {facts.codename or facts.os_version}",
                       "set `source: false` (the driver's installer brings its user space), or name a `suite`")
    source, pin = source_text(wanted, want.suite or f"{facts.codename}/erdma"), pin_text(wanted)
    key = wanted.artifacts.artifacts.get(want.key)
    if facts.text(SOURCE) == source and facts.text(PIN) == pin and _key_of(facts) == (key and key.fingerprint):
        return []
    if key is not None and key.fingerprint is None:
        return Refusal(f"{want.key} has no fingerprint in params/artifacts.yaml",
                       f"kit artifacts record {want.key} prints it; compare it with the vendor's and add it")
    fetched = fetch(wanted, want.key, _NEW_KEY)
    if isinstance(fetched, Refusal):
        return fetched
    return [fetched, shell(f"add the apt source {SOURCE}", ADD_SOURCE, _NEW_KEY, KEY, SOURCE, source, PIN, pin,
                           *want.packages, deadline_s=1800)]


def _key_of(facts: Facts) -> str | None:
    try:
        return key_fingerprint(facts.files.get(KEY, b""))
    except ParseError:
        return None


def _rpm(facts: Facts, packages: list[str]) -> Plan:
    if not facts.tools & {"dnf", "yum"}:
        return refuse("the node has neither apt nor dnf", "install the RDMA user space by hand, or leave this part out")
    # eadm comes with the driver's installer
    names = [RPM_NAMES.get(name, name) for name in packages if name != "eadm"]
    missing = list(dict.fromkeys(name for name in names if name not in facts.packages))
    if not missing:
        return Plan()
    return Plan((shell(f"install {' '.join(missing)}", RPM_INSTALL, *missing, deadline_s=1800),))


ITEM = Item("user space", "user_space", plan, undo, after=("driver",))
