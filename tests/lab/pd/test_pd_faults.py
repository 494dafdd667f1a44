"""Faults on the real stacks: each ends in a verdict or an error of its own, in time, and leaves nothing running."""

import os
import shutil
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from served_lab import DEADLINE_S, SECRETS, Killer, of_run, site_file, told_in

from kit.errors import ParamsError, PortTakenError, StackError
from kit.params import ServeBenchParams
from kit.serving.bench import points
from kit.serving.launch import Deployment
from kit.serving.measure import record_of
from kit.serving.memory import Load
from kit.serving.parts import parts
from kit.serving.session import Up, bring_up, survey
from kit.serving.stacks import read_stack
from kit.serving.study import open_study
from kit.sites import open_site
from kit.stage import Folder, run_id_of
from kit.store import Run

pytestmark = pytest.mark.lab
LOAD = Load(600, 4)


@pytest.fixture(autouse=True)
def _no_secret_is_told(monkeypatch, tmp_path):
    """Secrets are planted; afterwards no file of the run holds one: results, recordings, logs on the nodes."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    begun = time.time()
    yield
    logs = [folder for folder in Path(f"/tmp/kit-{os.getuid()}").glob("*") if folder.stat().st_mtime > begun]
    assert told_in(tmp_path, *logs) == []


@pytest.fixture
def pair_of(own_lab, tmp_path):
    """Open a site with this in its serving section; nothing may be left of its run."""
    opened = []

    def made(**serving):
        opened.append(open_site(site_file(tmp_path, **serving), run_id=f"kit-test-{tmp_path.name}"))
        return opened[-1]

    yield made
    for pair in opened:
        assert of_run(pair.a.host.run_id, pair.b.host.run_id) == {}
        pair.close()


def failing(ground, name):
    return next(check for check in ground.checks if check.name == name and check.outcome == "fail")


def refused(pair, ground):
    with pytest.raises(StackError) as raised:
        bring_up(pair, ground, lifetime_s=DEADLINE_S)
    return raised.value


def test_another_hash_seed_on_one_node_is_refused(pair_of):
    pair = pair_of(decode_env={"PYTHONHASHSEED": "1"})
    ground = survey(pair, read_stack("lmcache-mooncake"), LOAD)
    assert failing(ground, "hash_seed").seen == "the seeds differ: prefiller 0, decoder 1"
    assert "the same PYTHONHASHSEED" in refused(pair, ground).remedy


def test_another_model_on_one_node_is_refused(pair_of, tmp_path):
    pair = pair_of()
    other = shutil.copytree(pair.serving.model, tmp_path / "other")
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (other / "model.safetensors").write_bytes(weights)
    pair = pair_of(decode_model=str(other))
    ground = survey(pair, read_stack("mooncake-direct"), LOAD)
    assert failing(ground, "same_model").seen == "model.safetensors differ"
    assert "the same model" in refused(pair, ground).remedy


def test_a_segment_too_small_is_refused(pair_of):
    stack = read_stack("lmcache-mooncake")
    small = stack.model_copy(update={"store": stack.store.model_copy(update={"segment_bytes": 2**24})})
    pair = pair_of()
    ground = survey(pair, small, Load(4096, 4))
    assert failing(ground, "store_size").seen == ("4 prompts of 4096 tokens, 4096 bytes a token: 67 MB in whole "
                                                  "chunks; the segments hold 34 MB")
    assert "segment_bytes larger" in refused(pair, ground).remedy


def test_a_taken_port_is_told_before_the_start_and_at_it(pair_of):
    pair, stack = pair_of(), read_stack("mooncake-direct")
    free = survey(pair, stack, LOAD)
    with socket.create_server(("127.0.0.2", stack.ports.decoder)):
        taken = survey(pair, stack, LOAD)
        assert failing(taken, "port_free").seen == "port 7200 (decoder) is in use on node b"
        assert "ss -ltnp" in refused(pair, taken).remedy
        begun = time.monotonic()
        with pytest.raises(PortTakenError, match="b: port 7200 is in use"):
            bring_up(pair, free, lifetime_s=DEADLINE_S)
        assert time.monotonic() - begun < pair.serving.start_s, "the prefiller is not waited for"
    with socket.create_server(("127.0.0.1", stack.ports.bootstrap)):
        assert "(bootstrap)" in failing(survey(pair, stack, LOAD), "port_free").seen


def test_a_secret_that_is_not_set_is_told_before_anything_starts(pair_of, monkeypatch):
    pair = pair_of()
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ParamsError, match="HF_TOKEN is not set"):
        survey(pair, read_stack("mooncake-direct"), LOAD)


class Hollow(BaseHTTPRequestHandler):
    """Answers everything with 200, and completes nothing: an event stream that is over at once."""

    def do_GET(self):
        self._say(b"vllm:prefix_cache_hits_total 0\n" if self.path == "/metrics" else b"{}")

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self._say(b"data: [DONE]\n\n", "text/event-stream")

    def _say(self, body, kind="text/plain"):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def test_200_without_tokens_fails(pair_of):
    pair, stack = pair_of(), read_stack("aggregated")
    params = ServeBenchParams(stacks=["aggregated"], prompts=6, warmups=0, repeats=1, deadline_s=120)
    ground = survey(pair, stack, LOAD)
    with ThreadingHTTPServer(("127.0.0.1", stack.ports.prefiller), Hollow) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            up = Up(ground, Deployment(ground.wiring, parts(ground.wiring)))
            record = record_of(pair, up, points(params)[0], params)
        finally:
            server.shutdown()
    assert (record["outcome"], record["symptom"]) == ("FAILED", "no_tokens")
    assert "wanted 6" in record["reason"]
    assert record["remedy"]


class Load4:
    """A benchmark on one stack in which a part is killed; with ``whole`` one goes before it untouched."""

    def __init__(self, folder, site, stack, victim, *, whole=False, prompt_tokens=256, prompts=16):
        self.killing = {"stacks": [stack.name], "input_tokens": [prompt_tokens], "output_tokens": [32],
                        "concurrency": [4], "prompts": prompts, "repeats": 2 if whole else 1,
                        "deadline_s": DEADLINE_S}
        self.run = Run(folder / "results" / "run")
        run_id = run_id_of(Folder(self.run, None))
        self.run_ids = (f"{run_id}-a", f"{run_id}-b")
        self.killer = Killer(victim, self.run_ids)
        self.study = open_study(site, str(self.run.folder), **self.killing)
        self.study.stacks[stack.name] = stack
        self._whole, self._said = whole, []

    def measure(self):
        """The points' table, the part having been killed; the stack's own ground."""
        def say(step):
            self._said.append(step.last)
            if step.done == int(self._whole) and not self.killer.at and self.killer._thread is None and (
                    self._whole or " is up after " in step.last):
                self.killer.start()
        try:
            table = self.study.measure(say)
        finally:
            self.killer.join()
            self.study.close()
        assert self.killer.at, f"there was no {self.killer.part} to kill: {self._said}"
        assert time.monotonic() - self.killer.at < DEADLINE_S, "nobody waits for what is dead"
        assert of_run(*self.run_ids) == {}
        assert self.killer.shown == []
        assert self.killer.holders > 2, "the secrets did reach the processes"
        return table


def is_told(row, part):
    assert (row["outcome"], row["symptom"]) == ("FAILED", "part_ended")
    assert f"the {part} ended" in row["reason"]
    assert row["remedy"]


@pytest.mark.parametrize("victim", ["prefiller", "decoder"])
def test_a_killed_instance(own_lab, tmp_path, monkeypatch, victim):
    monkeypatch.setenv("KIT_RECORD", str(tmp_path / "recorded"))
    load = Load4(tmp_path, site_file(tmp_path), read_stack("mooncake-direct"), victim, prompts=600)
    is_told(load.measure().iloc[0], victim)
    assert load.study.verdict().outcome == "FAILED"
    assert "HF_TOKEN=***" in (tmp_path / "recorded/a.json").read_text()


def test_another_hash_seed_is_invalid_and_a_killed_proxy_failed(own_lab, tmp_path):
    stack = read_stack("lmcache-mooncake").model_copy(update={"known_faults": ["hash_seed"]})
    site = site_file(tmp_path, decode_env={"PYTHONHASHSEED": "1"})
    table = Load4(tmp_path, site, stack, "proxy", whole=True, prompt_tokens=512, prompts=60).measure()
    assert (table["outcome"][0], table["symptom"][0]) == ("INVALID", "hash_seed_differs")
    assert table["hit_ratio"][0] == 0
    is_told(table.iloc[1], "proxy")


def test_a_store_that_evicts_is_invalid_and_a_killed_master_failed(own_lab, tmp_path):
    stack = read_stack("lmcache-mooncake")
    small = stack.store.model_copy(update={"segment_bytes": 2**24, "buffer_bytes": 2**26, "staging_gb": 0.25,
                                           "handover_deadline_s": 0.5})
    stack = stack.model_copy(update={"store": small, "known_faults": ["store_size"]})
    table = Load4(tmp_path, site_file(tmp_path), stack, "master", whole=True, prompt_tokens=3000, prompts=24).measure()
    assert (table["outcome"][0], table["symptom"][0]) == ("INVALID", "store_too_small")
    is_told(table.iloc[1], "master")
