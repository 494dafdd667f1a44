"""The steps of a build that can be looked at without building."""

import hashlib
import importlib.metadata
import shutil
import subprocess
import sys
import zipfile
from types import SimpleNamespace

import pytest

from kit.errors import LabError
from kit.lab.pd import environments

FLAGS = "processor\t: 0\nflags\t\t: fpu sse2 {} smap\n"


def program(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_processor_with_avx2_will_do():
    environments.check_cpu(FLAGS.format("avx avx2"))


@pytest.mark.parametrize("cpuinfo", [FLAGS.format("avx"), FLAGS.format("avx2x"), "", "Features : neon\n"])
def test_a_processor_without_avx2_is_refused(cpuinfo):
    with pytest.raises(LabError, match="AVX2") as raised:
        environments.check_cpu(cpuinfo)
    assert "link part" in raised.value.remedy


def test_this_python_is_taken_when_it_fits(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 11, 7))
    assert environments.find_python() == str(shutil.os.path.realpath(sys.executable))


def test_another_python_is_looked_for(monkeypatch, tmp_path):
    found = program(tmp_path / "python3.12", "true")
    monkeypatch.setattr(sys, "version_info", (3, 14, 0))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environments.find_python() == str(found)


def test_no_fitting_python(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "version_info", (3, 14, 0))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LabError, match=r"3\.11, 3\.12, 3\.13"):
        environments.find_python()


def test_a_constant_hash_needs_nothing(tmp_path):
    assert environments.fixed_addresses(program(tmp_path / "python", "echo 4238894112")) == ()


def test_a_hash_that_follows_addresses_gets_them_fixed(tmp_path):
    """A stand-in for CPython before 3.12: it says the same only without address randomisation (0x0040000)."""
    python = program(tmp_path / "python",
                     'case $(cat /proc/self/personality) in 00040000) echo 1 ;; *) echo $$ ;; esac')
    if subprocess.run(["setarch", "-R", "true"], check=False).returncode != 0:
        pytest.skip("this container does not let setarch change the personality")
    assert environments.fixed_addresses(python)[0] == "setarch"


def test_a_hash_that_nothing_fixes_is_refused(tmp_path):
    with pytest.raises(LabError, match="setarch -R does not help") as raised:
        environments.fixed_addresses(program(tmp_path / "python", "echo $$"))
    assert "3.12" in raised.value.remedy


def test_this_very_python_agrees_with_itself():
    prefix = environments.fixed_addresses(sys.executable)
    said = {subprocess.run([*prefix, sys.executable, "-c", "print(hash(None))"], text=True, capture_output=True,
                           check=True, env={"PYTHONHASHSEED": "0"}).stdout for _ in range(3)}
    assert len(said) == 1


def test_scripts_are_moved(tmp_path):
    scripts = tmp_path / "aside/bin"
    scripts.mkdir(parents=True)
    (scripts / "vllm").write_bytes(b"#!" + bytes(scripts / "python") + b"\nimport x\n")
    (scripts / "tool").write_bytes(b"\x7fELF" + bytes(scripts))
    environments._move_scripts(scripts, tmp_path / "final/bin")
    assert (scripts / "vllm").read_bytes() == b"#!" + bytes(tmp_path / "final/bin/python") + b"\nimport x\n"
    assert (scripts / "tool").read_bytes() == b"\x7fELF" + bytes(scripts), "a program is not touched"


def test_vllm_finds_itself_and_its_plugin(tmp_path):
    environments._name_vllm(tmp_path, "0.11.0.post2")
    environments._add_plugin(tmp_path, "kit_lmcache_on_cpu")
    found = {one.name: one for one in importlib.metadata.distributions(path=[str(tmp_path)])}
    assert found["vllm"].version == "0.11.0.post2+cpu"
    entry = next(iter(found["kit_lmcache_on_cpu"].entry_points))
    assert (entry.group, entry.value) == ("vllm.general_plugins", "kit_lmcache_on_cpu:register")


def test_a_changed_plugin_is_renewed(tmp_path):
    environments._add_plugin(tmp_path, "kit_mooncake_on_cpu")
    module = tmp_path / "kit_mooncake_on_cpu.py"
    now = module.read_bytes()
    module.write_text("old")
    environments._add_plugin(tmp_path, "kit_mooncake_on_cpu")
    assert module.read_bytes() == now


def test_what_pip_said_is_in_the_error(tmp_path):
    step = program(tmp_path / "pip", "echo 'WARNING: Location x is ignored: y' >&2; echo 'no space left' >&2; exit 1")
    with pytest.raises(LabError) as raised:
        environments._run([str(step)])
    assert "no space left" in raised.value.what
    assert "is ignored" not in raised.value.what


def test_large_downloads_are_said(tmp_path):
    said = []
    step = program(tmp_path / "pip", "echo '  Downloading nvidia_cudnn_cu12-9.10.2.21-py3-none-any.whl (706.8 MB)'\n"
                                     "echo '  Downloading six-1.17.0-py2.py3-none-any.whl (11 kB)'")
    environments._run([str(step)], say=said.append)
    assert said == ["    nvidia_cudnn_cu12, 706 MB"]


def test_a_step_has_a_deadline(monkeypatch, tmp_path):
    monkeypatch.setattr(environments, "_STEP_S", 0.3)
    with pytest.raises(LabError, match=r"not done after 0\.3 s"):
        environments._run(["sleep", "30"])


def test_the_build_without_cuda_is_tried_first(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(environments, "_pip", lambda aside, text, *_: asked.append(text.split(" ")[0]))
    lock = environments.read_lock("recipe")
    assert environments._torch(lock, tmp_path, print) == lock.cuda_libraries()
    assert asked == ["torch==2.8.0+cpu"]


def test_else_the_public_build_with_its_libraries(monkeypatch, tmp_path):
    asked = []

    def pip(aside, text, *_):
        asked.append(text.split(" ")[0])
        if "+cpu" in text:
            raise LabError("ERROR: No matching distribution found for torch==2.8.0+cpu")

    monkeypatch.setattr(environments, "_pip", pip)
    assert environments._torch(environments.read_lock("recipe"), tmp_path, print) == []
    assert asked == ["torch==2.8.0+cpu", "torch==2.8.0"]


def test_any_other_failure_is_told(monkeypatch, tmp_path):
    def pip(*_):
        raise LabError("No space left on device")

    monkeypatch.setattr(environments, "_pip", pip)
    with pytest.raises(LabError, match="No space left"):
        environments._torch(environments.read_lock("recipe"), tmp_path, print)


def test_the_machine_s_own_constraints_have_no_say(monkeypatch, tmp_path):
    wheel = tmp_path / "thing-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as made:
        for name, text in (("METADATA", "Metadata-Version: 2.1\nName: thing\nVersion: 1\n"), ("RECORD", ""),
                           ("WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")):
            made.writestr(f"thing-1.dist-info/{name}", text)
    (tmp_path / "constraints.txt").write_text("thing==2\n")
    monkeypatch.setenv("PIP_CONSTRAINT", str(tmp_path / "constraints.txt"))
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True, timeout=120)
    pinned = f"thing==1 --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"
    environments._pip(tmp_path / "venv", pinned, print, "install", "--no-index", "--find-links", str(tmp_path))
    assert list((tmp_path / "venv").glob("lib/python3*/site-packages/thing-1.dist-info"))


def test_another_lock_is_another_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("KIT_CACHE", str(tmp_path))
    monkeypatch.setattr(environments, "read_lock", lambda name: SimpleNamespace(text="x", version=lambda _: "2.8.0"))
    assert not environments.built("recipe")
    first = environments._folder("recipe", environments.read_lock("recipe"), "/usr/bin/python3")
    other = SimpleNamespace(text="y", version=lambda _: "2.8.0")
    assert first != environments._folder("recipe", other, "/usr/bin/python3")
    assert first != environments._folder("recipe", environments.read_lock("recipe"), "/opt/bin/python3")
    first.mkdir(parents=True)
    monkeypatch.setattr(environments, "find_python", lambda: "/usr/bin/python3")
    assert environments.built("recipe")


@pytest.fixture
def build(monkeypatch, tmp_path):
    """The frame of a build without what pip would bring: (steps that were run, the cache's folder)."""
    steps = []

    def run(argv, **_):
        steps.append(list(argv))
        if "venv" in argv:
            (folder := type(tmp_path)(argv[-1]) / "bin").mkdir(parents=True)
            (folder.parent / "lib/python3.11/site-packages").mkdir(parents=True)
            (folder / "python").symlink_to(sys.executable)
            (folder / "vllm").write_text(f"#!{folder}/python\n")

    monkeypatch.setenv("KIT_CACHE", str(tmp_path))
    monkeypatch.setattr(environments, "_run", run)
    monkeypatch.setattr(environments, "library_path", lambda _: "/libraries")
    return steps, tmp_path / "lab/pd"


def test_a_build_is_moved_into_place_whole_and_done_once(build):
    steps, folder = build
    made = environments.environment("current", lambda _: None)
    count = len(steps)
    assert (made.bin / "vllm").read_text() == f"#!{made.folder}/bin/python\n"
    assert made.variables["LD_LIBRARY_PATH"] == "/libraries"
    assert (made.packages / "kit_mooncake_on_cpu.py").exists()
    assert environments.environment("current", lambda _: None) == made
    assert len(steps) == count, "the second call builds nothing"
    assert [one.name for one in folder.iterdir() if one.is_dir()] == [made.folder.name]


def test_a_failed_build_leaves_nothing_and_a_killed_one_is_cleared(build, monkeypatch):
    _, folder = build
    (folder / ".current-killed/venv").mkdir(parents=True)
    whole = environments._pip

    def pip(*_):
        raise LabError("no network")

    monkeypatch.setattr(environments, "_pip", pip)
    with pytest.raises(LabError, match="no network"):
        environments.environment("current", lambda _: None)
    assert not [one for one in folder.iterdir() if one.is_dir()]
    monkeypatch.setattr(environments, "_pip", whole)
    assert environments.environment("current", lambda _: None).folder.exists()
