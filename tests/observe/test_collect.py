"""Sampling this machine as two nodes, live and replayed, and every way in which a node may not be sampled."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from metrics_server import STEP, MetricsServer

from kit.command import script
from kit.hosts.local import LocalHost
from kit.hosts.replay import RecordingHost, ReplayHost
from kit.observe import collect
from kit.observe.collect import Recorded, Sources, Watched
from kit.observe.table import COLUMNS, counted, read_samples, table, troubles
from kit.observe.traffic import moved_bytes, traffic


@pytest.fixture
def host() -> Iterator[LocalHost]:
    host = LocalHost("a", run_id=f"kit-test-{uuid.uuid4().hex[:8]}")
    yield host
    assert host.stop(host.run_id) == 0
    shutil.rmtree(f"/tmp/kit-{os.getuid()}/{host.run_id}", ignore_errors=True)


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    server = MetricsServer()
    yield server
    server.close()


def loopback(server: MetricsServer) -> Sources:
    return Sources(urls={"vllm": server.url}, addresses=("127.0.0.1",), gpu=False)


def sampled(host: LocalHost, server: MetricsServer, answers: int = 8) -> tuple[Recorded, ...]:
    """Two samplers until the server has answered so often."""
    watched = [Watched(name, host, loopback(server)) for name in ("prefiller", "decoder")]
    samplings = collect.start(watched, deadline_s=60, period_s=0.05)
    assert [sampling.trouble for sampling in samplings] == ["", ""]
    server.wait_for(answers)
    return collect.fetch(samplings)


def test_two_nodes_side_by_side(host: LocalHost, server: MetricsServer) -> None:
    recorded = sampled(host, server)
    assert troubles(recorded) == []
    samples = table(recorded)
    assert dict(samples.dtypes.astype(str)) == COLUMNS
    assert set(samples["node"]) == {"prefiller", "decoder"}
    assert {"vllm", "net", "sampler"} <= set(samples["source"])
    assert set(samples.loc[samples["source"] == "net", "labels"]) == {'interface="lo"'}
    tokens = samples[samples["name"] == "vllm:prompt_tokens_total"]
    assert sorted(tokens["value"]) == [STEP * answer for answer in range(1, len(tokens) + 1)]
    seen = tokens[tokens["node"] == "decoder"]["value"]
    assert counted(samples, "decoder", "vllm:prompt_tokens_total") == seen.max() - seen.min()
    # Both nodes are this machine: its loopback carried at least the pages that were fetched.
    moved = moved_bytes(samples, "net", sender="prefiller", receiver="decoder")
    assert moved is not None
    assert moved > 0
    assert moved_bytes(samples, "rdma", sender="prefiller", receiver="decoder") is None
    assert (traffic(samples)["bytes_per_s"] >= 0).all()


def test_the_times_of_two_nodes_are_of_one_clock(host: LocalHost, server: MetricsServer) -> None:
    samples = table(sampled(host, server))
    first = samples.groupby("node")["time_s"].min()
    last = samples.groupby("node")["time_s"].max()
    assert first.max() < last.min()


def test_a_replay_gives_the_same_table(host: LocalHost, server: MetricsServer, tmp_path: Path) -> None:
    about = {"device": "none", "address": "127.0.0.1"}
    live = RecordingHost(host, tmp_path / "a.json", about=about)
    tables = []
    for _ in range(2):      # as in a sweep: the same questions, other answers
        samplings = collect.start([Watched("node", live, loopback(server))], deadline_s=60, period_s=0.05)
        server.wait_for(server.answers + 4)
        tables.append(table(collect.fetch(samplings)))
    again = ReplayHost("a", tmp_path / "a.json", run_id="kit-another-run")
    for wanted in tables:
        samplings = collect.start([Watched("node", again, loopback(server))], deadline_s=60, period_s=0.05)
        pd.testing.assert_frame_equal(table(collect.fetch(samplings)), wanted)


def test_a_server_that_stops_answering_is_told(host: LocalHost, server: MetricsServer) -> None:
    samplings = collect.start([Watched("decoder", host, loopback(server))], deadline_s=60, period_s=0.05)
    server.wait_for(3)
    server.broken = True
    server.wait_for(6)
    server.broken = False
    server.wait_for(9)
    [recorded] = collect.fetch(samplings)
    looks = [look for look in read_samples(recorded.text) if look.source == "vllm"]
    down = [look.down for look in looks]
    assert "HTTPException: status 500" in down
    assert not down[0]
    assert looks[-1].values
    [told] = troubles([recorded])
    assert told.startswith("vllm of decoder gave no answer")


def test_no_server_at_all(host: LocalHost) -> None:
    sources = Sources(urls={"vllm": "http://127.0.0.1:1/metrics"}, interfaces=("lo",), gpu=False)
    [recorded] = collect.fetch(collect.start([Watched("decoder", host, sources)], deadline_s=60))
    assert "vllm of decoder gave no answer" in troubles([recorded])[0]
    assert set(table([recorded])["source"]) == {"net", "sampler"}


def test_a_killed_sampler_leaves_what_it_wrote(host: LocalHost, server: MetricsServer) -> None:
    samplings = collect.start([Watched("decoder", host, loopback(server))], deadline_s=60, period_s=0.05)
    server.wait_for(4)
    host.run(script("""
        for at in $(grep -lzsxF "KIT_RUN_ID=$1" /proc/[0-9]*/environ); do
            pid=${at#/proc/}; pid=${pid%/environ}
            case $(tr '\\0' ' ' <"/proc/$pid/cmdline") in python3*) kill -KILL "$pid" ;; esac
        done""", host.run_id))
    [recorded] = collect.fetch(samplings)
    assert counted(table([recorded]), "decoder", "vllm:prompt_tokens_total") is not None


def test_it_ends_at_its_deadline(host: LocalHost, server: MetricsServer) -> None:
    [sampling] = collect.start([Watched("decoder", host, loopback(server))], deadline_s=0.5, period_s=0.1)
    assert sampling.service is not None
    done = host.finish(sampling.service, deadline_s=30)
    assert done.exit_code == 0


def test_a_node_without_python(host: LocalHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("/usr/bin", "/bin"):
        for tool in Path(folder).iterdir():
            if not tool.name.startswith("python") and not (tmp_path / tool.name).exists():
                (tmp_path / tool.name).symlink_to(tool)
    monkeypatch.setenv("PATH", str(tmp_path))
    [recorded] = collect.fetch(collect.start([Watched("decoder", host, Sources())], deadline_s=5))
    assert recorded.trouble == "decoder is not sampled: there is no python3"
    assert table([recorded]).empty
    assert troubles([recorded]) == [recorded.trouble]


def test_a_python_that_is_too_old_is_told(host: LocalHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\necho 'SyntaxError: future feature annotations is not defined' >&2\nexit 1\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    [recorded] = collect.fetch(collect.start([Watched("decoder", host, Sources())], deadline_s=5))
    assert recorded.trouble.startswith("decoder is not sampled: SyntaxError")
    assert recorded.text == ""


def test_what_is_asked_holds_no_path_of_ours(host: LocalHost, server: MetricsServer) -> None:
    [sampling] = collect.start([Watched("decoder", host, loopback(server))], deadline_s=5)
    collect.fetch([sampling])
    assert sampling.service is not None
    asked = json.loads(shlex.split(sampling.service.command)[-1])
    assert asked["urls"] == {"vllm": server.url}
    assert asked["out"].endswith(f"/{host.run_id}/observe-decoder/samples.jsonl")
