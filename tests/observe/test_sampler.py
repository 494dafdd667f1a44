"""The sampler's readers, each against what this machine or a recorded node has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from kit.observe import sampler
from kit.observe.table import read_samples
from kit.parse.kernel import parse_hw_counters
from kit.parse.prometheus import parse_prometheus

DATA = Path(__file__).parent.parent / "data"
METRICS = sorted((DATA / "serving").glob("*/*metrics*.txt"))
COUNTERS = sorted((DATA / "kernel").glob("hw_counters_*.txt"))


@pytest.mark.parametrize("path", METRICS, ids=lambda path: path.name)
def test_metrics_agree_with_the_parser(path: Path) -> None:
    wanted = {(sample.name, *sorted(sample.labels.items())): sample.value for sample in parse_prometheus(
        path.read_text()) if not sample.name.endswith(("_bucket", "_created"))
        and not sample.name.startswith(("python_", "http_", "process_virtual"))}
    found = {}
    for key, value in sampler.metrics(path.read_text()).items():
        [sample] = parse_prometheus(f"{key} {value}\n")
        found[(sample.name, *sorted(sample.labels.items()))] = sample.value
    assert found == wanted
    assert len(found) > 10


def test_metrics_with_spaces_braces_and_times_in_them() -> None:
    text = '# HELP a b\na 1\nb{x="} y",z="{"} 2.5 1700000000\nc  3\n\nd{}\n'
    assert sampler.metrics(text) == {"a": "1", 'b{x="} y",z="{"}': "2.5", "c": "3"}


@pytest.mark.parametrize("path", COUNTERS, ids=lambda path: path.name)
def test_rdma_counters_under_the_drivers_own_names(path: Path, tmp_path: Path) -> None:
    wanted = parse_hw_counters(path.read_text()).raw
    folder = tmp_path / "erdma_0" / "ports" / "1" / "hw_counters"
    folder.mkdir(parents=True)
    for line in path.read_text().splitlines():
        name, value = line.split()
        (folder / name).write_text(f"{value}\n")
    (folder / "odd").write_text("N/A\n")
    assert sampler.rdma(None, str(tmp_path)) == {
        f'{name}{{device="erdma_0",port="1"}}': str(value) for name, value in wanted.items()}
    assert sampler.rdma(["mlx5_0"], str(tmp_path)) == {}


def test_a_node_without_rdma_has_no_counters(tmp_path: Path) -> None:
    assert sampler.rdma(None, str(tmp_path / "nowhere")) == {}


def test_interfaces() -> None:
    assert sampler.interfaces_of(["127.0.0.1"]) == {"lo"}
    assert sampler.interfaces_of([]) == set()
    found = sampler.net({"lo"})
    assert set(found) == {f'{name}{{interface="lo"}}' for name in (
        "rx_bytes", "rx_packets", "rx_errs", "rx_drop", "tx_bytes", "tx_packets", "tx_errs", "tx_drop")}
    assert set(found) < set(sampler.net(None)) | set(found)


def test_only_changes_are_written_and_all_again_after_a_silence(tmp_path: Path) -> None:
    writer = sampler.Writer(str(tmp_path / "out"))
    writer.look("x", {"a": "1", "b": "2"})
    writer.look("x", {"a": "1", "b": "3"})
    writer.down("x", "refused")
    writer.look("x", {"a": "1"})
    lines = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    assert [line["v"] for line in lines if "v" in line] == [[[0, "1"], [1, "2"]], [[1, "3"]], [[0, "1"]]]
    looks = read_samples((tmp_path / "out").read_text())
    assert [look.values for look in looks] == [
        {("a", ""): 1, ("b", ""): 2}, {("a", ""): 1, ("b", ""): 3}, {}, {("a", ""): 1}]
    assert looks[2].down == "refused"


def test_a_missed_period_is_left_out_and_the_last_look_is_not() -> None:
    seen: list[float] = []
    begun = time.monotonic()

    def slow() -> None:
        seen.append(time.monotonic() - begun)
        if len(seen) == 1:
            threading.Event().wait(0.25)

    sampler.repeat(slow, 0.1, begun + 0.45, threading.Event())
    assert len(seen) <= 4
    assert seen[-1] >= 0.45


def test_tools_that_are_there_are_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for two vendors' tools; eadm's lines as erdma-exporter reads them."""
    for name, text in (("eadm", "echo 'device: erdma_0'; echo 'hw_tx_bytes_cnt : 41'; echo 'hw_rx_bytes_cnt : 42'"),
                       ("nvidia-smi", "echo '0, 97, 20480, 310.55'; echo '1, 0, [N/A], 60.10'")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    writer = sampler.Writer(str(tmp_path / "out"))
    sampler.eadm("erdma_0", writer)
    sampler.gpu(1.0, writer, threading.Event())
    looks = read_samples((tmp_path / "out").read_text())
    assert [look.source for look in looks] == ["eadm/erdma_0", "gpu/0", "gpu/1", "gpu"]
    assert looks[0].values == {("hw_tx_bytes_cnt", 'device="erdma_0"'): 41, ("hw_rx_bytes_cnt", 'device="erdma_0"'): 42}
    assert looks[1].values[("power_w", 'gpu="0"')] == 310.55
    assert ("memory_used_mib", 'gpu="1"') not in looks[2].values
    assert "ended" in looks[3].down


def test_a_tool_that_repeats_itself_ends_with_the_sampler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As nvidia-smi does: it would go on for ever."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\necho $$ >{tmp_path}/pid\nwhile :; do echo '0, 97, 20480, 310.55'; sleep 0.05; done\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    (tmp_path / "now").write_text("0")
    asked = {"out": str(tmp_path / "out"), "now": str(tmp_path / "now"), "period_s": 0.1, "deadline_s": 0.5,
             "devices": None, "interfaces": ["lo"], "addresses": [], "urls": {}, "eadm": [], "gpu": True}
    subprocess.run([sys.executable, "-I", sampler.__file__, json.dumps(asked)], check=True, timeout=30)
    assert "gpu/0" in {look.source for look in read_samples((tmp_path / "out").read_text())}
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()


def test_samples_of_a_real_gpu() -> None:
    looks = read_samples((DATA / "observe" / "samples_h200.jsonl").read_text())
    power = [look.values[("power_w", 'gpu="0"')] for look in looks if look.source == "gpu/0"]
    assert len(power) >= 11
    assert all(80 < watts < 82 for watts in power)
    assert {look.source for look in looks if look.down} == {"vllm"}


def test_it_runs_alone_with_the_nodes_own_python(tmp_path: Path) -> None:
    (tmp_path / "now").write_text(f"{time.time() - 100:.4f}")
    asked = {"out": str(tmp_path / "out"), "now": str(tmp_path / "now"), "period_s": 0.1, "deadline_s": 0.5,
             "devices": None, "interfaces": ["lo"], "addresses": [], "urls": {}, "eadm": [], "gpu": False}
    subprocess.run([sys.executable, "-I", sampler.__file__, json.dumps(asked)], check=True, timeout=30, cwd="/")
    looks = read_samples((tmp_path / "out").read_text())
    times = [look.time_s for look in looks if look.source == "net"]
    assert len(times) >= 4
    assert times == sorted(times)
    assert time.time() - 105 < times[0] < time.time() - 90
