"""The pip step with a real pip and wheels of the test's own. A program stands in for the container runtime: it runs the
command in a virtual environment instead, because no runtime is at hand."""

import hashlib
import subprocess
import venv
import zipfile

import pytest

from kit.command import script
from kit.hosts.local import LocalHost
from kit.prepare.stack import PIP

RUNTIME = """#!/bin/sh
# exec [-i] NAME COMMAND...
shift; [ "$1" = -i ] && shift; shift
PATH={bin}:$PATH HOME={home} PIP_NO_INDEX=1 PIP_FIND_LINKS={wheels} PIP_CONFIG_FILE=/dev/null exec "$@"
"""


def wheel(folder, name, version, requires=()):
    info = f"{name}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {need}\n" for need in requires)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{name}.py", f"version = {version!r}\n")
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n"
                                       "Tag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")
    return path


def pinned(*wheels):
    return "".join(f"{path.name.split('-')[0]}=={path.name.split('-')[1]} "
                   f"--hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n" for path in wheels)


@pytest.fixture(scope="module")
def container(tmp_path_factory):
    """A virtual environment with torch 1.0 in it, and a runtime that runs commands there."""
    top = tmp_path_factory.mktemp("container")
    (top / "wheels").mkdir()
    (top / "home").mkdir()
    venv.create(top / "env", with_pip=True)
    wheels = {(name, version): wheel(top / "wheels", name, version, needs) for name, version, needs in
              (("torch", "1.0", ()), ("torch", "2.0", ()), ("lmcache", "0.3.9", ()), ("vllm", "0.11.0", ("torch",)))}
    subprocess.run([str(top / "env/bin/python"), "-m", "pip", "install", "-q", "--no-index",
                    str(wheels["torch", "1.0"])], check=True, capture_output=True)
    runtime = top / "runtime"
    runtime.write_text(RUNTIME.format(bin=top / "env/bin", home=top / "home", wheels=top / "wheels"))
    runtime.chmod(0o755)
    return runtime, wheels, top


def installed(top, name):
    found = subprocess.run([str(top / "env/bin/python"), "-c", f"import {name}; print({name}.version)"],
                           capture_output=True, text=True, check=False)
    return found.stdout.strip() or None


def given(container, text):
    host = LocalHost("a", run_id="kit-test-stack")
    return host.run(script(PIP, str(container[0]), "c", "5" * 64, text), deadline_s=120)


def test_packages_by_their_hashes_and_torch_stays(container):
    _, wheels, top = container
    done = given(container, pinned(wheels["lmcache", "0.3.9"], wheels["vllm", "0.11.0"], wheels["torch", "1.0"]))
    assert done.ok, done.stderr
    assert [installed(top, name) for name in ("lmcache", "vllm", "torch")] == ["0.3.9", "0.11.0", "1.0"]
    assert (top / "home/.erdma-kit-stack").read_text() == "5" * 64


def test_another_torch_is_refused_before_anything_is_installed(container):
    _, wheels, top = container
    done = given(container, pinned(wheels["torch", "2.0"]))
    assert done.exit_code == 1
    assert "would replace torch 1.0 by 2.0" in done.stderr
    assert installed(top, "torch") == "1.0"


def test_a_wrong_hash_is_refused(container):
    top = container[2]
    wheel(top / "wheels", "other", "1.0")
    done = given(container, "other==1.0 --hash=sha256:" + "0" * 64 + "\n")
    assert done.exit_code == 1
    assert "HASH" in done.stderr.upper()
    assert installed(top, "other") is None
