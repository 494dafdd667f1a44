"""The apt source, key, pin and packages for real: in a throw-away copy of this machine's root, against a signed mirror.

The copy is an overlay in a mount namespace: writes go to memory, and end with the test. It needs root and overlayfs.
"""

import hashlib
import os
import shutil
import subprocess

import pytest
from cases import wanted_from
from mirror import mirror

from kit.command import command
from kit.hosts.shell import Answer, ShellHost
from kit.parse.openpgp import key_fingerprint
from kit.prepare.engine import apply_node
from kit.prepare.facts import Question
from kit.prepare.userspace import ITEM, KEY, PIN, SOURCE

_TOOLS = ("unshare", "nsenter", "chroot", "gpg", "dpkg-deb", "apt-get")
pytestmark = pytest.mark.skipif(os.geteuid() != 0 or not all(map(shutil.which, _TOOLS)),
                                reason=f"needs root and {', '.join(_TOOLS)}")
_MOUNT = """
mount -t tmpfs tmpfs "$1" && mkdir "$1/up" "$1/work" "$1/root" &&
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/up,workdir=$1/work" "$1/root" &&
mount --rbind /proc "$1/root/proc" && mount --rbind /dev "$1/root/dev" && mount -t tmpfs tmpfs "$1/root/tmp" &&
rm -rf "$1/root/etc/apt/sources.list" "$1/root/etc/apt/sources.list.d" && mkdir "$1/root/etc/apt/sources.list.d" &&
echo ready && exec cat
"""
SUITE = "bookworm/erdma"


@pytest.fixture
def node(tmp_path):
    """A host that is a copy of this machine without any apt source."""
    at = tmp_path / "node"
    at.mkdir()
    keeper = subprocess.Popen(["unshare", "-m", "--propagation", "private", "sh", "-c", _MOUNT, "kit", str(at)],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        if keeper.stdout.readline() != b"ready\n":
            pytest.skip("no overlay file system here")

        def execute(line, stdin, wait_s):
            done = subprocess.run(["nsenter", "-t", str(keeper.pid), "-m", "chroot", f"{at}/root", "sh", "-c", line],
                                  input=stdin, capture_output=True, timeout=wait_s)
            return Answer(done.stdout, done.stderr, done.returncode)

        yield ShellHost("a", "kit-test-apt", execute)
    finally:
        keeper.communicate()


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Two signing keys: name -> (home, armored public key)."""
    found = {}
    for name in ("vendor", "stranger"):
        home = tmp_path_factory.mktemp(name)
        home.chmod(0o700)
        gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""]
        subprocess.run([*gpg, "--quick-gen-key", name, "ed25519", "sign", "never"], check=True, capture_output=True)
        public = subprocess.run([*gpg, "--armor", "--export", name], check=True, capture_output=True).stdout
        found[name] = (gpg, public)
    yield found
    for gpg, _ in found.values():
        subprocess.run(["gpgconf", "--homedir", gpg[2], "--kill", "all"], check=False, capture_output=True)


def package(folder, name, version):
    top = folder / f"{name}-{version}"
    (top / "DEBIAN").mkdir(parents=True)
    control = f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: kit\nDescription: a test\n"
    (top / "DEBIAN/control").write_text(control)
    (top / "usr/share/kit-test").mkdir(parents=True)
    (top / "usr/share/kit-test" / name).write_bytes(os.urandom(4096))
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", str(top), f"{top}.deb"], check=True,
                   capture_output=True)
    return control, (folder / f"{top.name}.deb").read_bytes()


def repository(folder, gpg, packages, base="/apt/ubuntu"):
    """The files of a signed repository: path -> content."""
    files, index = {}, ""
    for name, version in packages.items():
        control, content = package(folder, name, version)
        files[f"{base}/pool/{name}.deb"] = content
        index += (f"{control}Filename: pool/{name}.deb\nSize: {len(content)}\n"
                  f"SHA256: {hashlib.sha256(content).hexdigest()}\n\n")
    listed = index.encode()
    release = (f"Suite: {SUITE}\nCodename: {SUITE}\nComponents: main\nArchitectures: amd64 all\n"
               f"Date: Mon, 01 Jan 2024 00:00:00 UTC\nSHA256:\n {hashlib.sha256(listed).hexdigest()} {len(listed)} "
               "main/binary-amd64/Packages\n")
    signed = subprocess.run([*gpg, "--clearsign"], input=release.encode(), check=True, capture_output=True).stdout
    return files | {f"{base}/dists/{SUITE}/InRelease": signed,
                    f"{base}/dists/{SUITE}/main/binary-amd64/Packages": listed}


def wanted_at(url, public, *, sha256=None):
    wanted = wanted_from({"mirror": url, "user_space": {"packages": ["eadm", "erdma-probe"], "suite": SUITE}},
                         recorded=True)
    wanted.artifacts.artifacts["erdma-apt-key"] = wanted.artifacts.artifacts["erdma-apt-key"].model_copy(update={
        "sha256": sha256 or hashlib.sha256(public).hexdigest(), "fingerprint": key_fingerprint(public)})
    return wanted


def applied(node, wanted):
    question = Question("10.0.0.1", ("eadm", "erdma-probe"), files=(KEY, SOURCE, PIN))
    (done,) = apply_node(node, question, wanted, (ITEM,), lambda _: None)
    return done


def state(node):
    """All that an apt step could have changed."""
    text = "cat /var/lib/dpkg/status /etc/apt/sources.list.d/* /etc/apt/preferences.d/* /etc/apt/keyrings/* | sha256sum"
    return node.run(command("sh", "-c", f"ls /etc/apt/*; {text}")).stdout


@pytest.fixture
def vendor(tmp_path, keys):
    gpg, public = keys["vendor"]
    return repository(tmp_path, gpg, {"eadm": "1.0", "erdma-probe": "1.0"}) | {"/GPGKEY": public}


def test_from_nothing_to_installed_and_nothing_the_second_time(node, vendor, keys):
    with mirror(vendor) as url:
        wanted = wanted_at(url, keys["vendor"][1])
        first = applied(node, wanted)
        assert (first.outcome, first.why) == ("changed", "")
        assert applied(node, wanted).outcome == "unchanged"


def test_the_vendor_goes_before_a_newer_package_of_the_system(node, vendor, keys, tmp_path):
    gpg, public = keys["stranger"]
    other = repository(tmp_path / "other", gpg, {"eadm": "9.9"}, base="/system")
    with mirror(vendor | other) as url:
        elsewhere = url.replace("127.0.0.1", "localhost")
        node.write("/etc/apt/keyrings/system.asc", public, mode=0o644)
        line = f"deb [signed-by=/etc/apt/keyrings/system.asc] {elsewhere}/system {SUITE} main\n"
        node.write("/etc/apt/sources.list.d/system.list", line.encode(), mode=0o644)
        wanted = wanted_at(url, keys["vendor"][1])
        assert applied(node, wanted).outcome == "changed"
        assert node.run(command("dpkg-query", "-W", "-f", "${Version}", "eadm")).stdout == "1.0"


@pytest.mark.parametrize(("how", "said"), [
    ("a corrupted package", "Hash Sum mismatch"),
    ("a repository signed by another key", "NO_PUBKEY"),
    ("a key of another checksum", "checksum mismatch"),
    ("a mirror that dies in a package", "Failed to fetch"),
    ("a mirror that dies in its index", "Failed to fetch"),
])
def test_it_stops_and_changes_nothing(node, vendor, keys, tmp_path, how, said):
    files, broken, sha256 = dict(vendor), [], None
    if how == "a corrupted package":
        content = files["/apt/ubuntu/pool/eadm.deb"]
        files["/apt/ubuntu/pool/eadm.deb"] = content[:-1] + bytes([content[-1] ^ 1])
    elif how == "a repository signed by another key":
        files |= repository(tmp_path / "x", keys["stranger"][0], {"eadm": "1.0", "erdma-probe": "1.0"})
    elif how == "a key of another checksum":
        sha256 = "1" * 64
    else:
        broken = ["/apt/ubuntu/pool/eadm.deb" if "package" in how
                  else f"/apt/ubuntu/dists/{SUITE}/main/binary-amd64/Packages"]
    before = state(node)
    with mirror(files, broken=broken) as url:
        done = applied(node, wanted_at(url, keys["vendor"][1], sha256=sha256))
    assert done.outcome == "failed"
    assert said in done.why
    assert state(node) == before
