"""The recipe's environment does what it is for: KV made by one vLLM is used by another, and it is the right KV."""

import contextlib
import json
import os
import re
import signal
import subprocess
import time
import urllib.request

import pytest

from kit.lab.pd.environments import environment
from kit.lab.pd.model import make_model
from kit.lab.pd.sshd import ADDRESSES, free_port

pytestmark = pytest.mark.lab
PROMPT = [600 + 7 * number % 3000 for number in range(700)]
CHUNKS = [256, 256, 188]
READY_S, STOP_S = 150, 20
CONFIG = """\
chunk_size: 256
remote_url: "mooncakestore://127.0.0.1:{rpc}/"
remote_serde: "naive"
local_cpu: False
max_local_cpu_size: 0.1
extra_config:
  local_hostname: "{host}"
  metadata_server: "http://127.0.0.1:{metadata}/metadata"
  protocol: "tcp"
  device_name: ""
  master_server_address: "127.0.0.1:{rpc}"
  global_segment_size: 67108864
  local_buffer_size: 67108864
  transfer_timeout: 1
  save_chunk_meta: False
"""


def ask(url, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        return answer.read().decode()


def until(condition, what, process, log):
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if condition():
                return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.2)
            break
    raise AssertionError(f"{what}:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-30:]))


@pytest.fixture
def stack(tmp_path):
    """A store, a prefiller on a and a decoder on b: (their urls and the store's, the decoder's log)."""
    recipe, model = environment("recipe"), make_model(tmp_path)
    ports = {name: free_port("127.0.0.1") for name in ("rpc", "metrics", "metadata", "a", "b")}
    started = []

    def start(name, *argv, **env):
        log = tmp_path / f"{name}.log"
        started.append(subprocess.Popen(
            [*recipe.prefix, *map(str, argv)], cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=log.open("wb"),
            stderr=subprocess.STDOUT, start_new_session=True,
            env={**recipe.variables, "PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONHASHSEED": "0", **env}))
        return started[-1], log

    def serve(node, role):
        config = tmp_path / f"{node}.yaml"
        config.write_text(CONFIG.format(host=ADDRESSES[node], **ports))
        return start(node, recipe.bin / "vllm", "serve", model.folder, "--served-model-name", "tiny", "--host",
                     ADDRESSES[node], "--port", ports[node], "--enforce-eager", "--max-model-len", 2048,
                     "--max-num-seqs", 4, "--block-size", 16, "--num-gpu-blocks-override", 256, "--dtype", "float32",
                     "--kv-transfer-config", json.dumps({"kv_connector": "LMCacheConnectorV1", "kv_role": role}),
                     LMCACHE_CONFIG_FILE=str(config))

    try:
        master = f"http://127.0.0.1:{ports['metrics']}"
        process, log = start("master", recipe.packages / "mooncake/mooncake_master", "--rpc_address=127.0.0.1",
                             f"--rpc_port={ports['rpc']}", "--rpc_thread_num=2", f"--metrics_port={ports['metrics']}",
                             "--enable_http_metadata_server=true", f"--http_metadata_server_port={ports['metadata']}")
        until(lambda: ask(f"{master}/health") == "OK", "the store is not ready", process, log)
        urls = {node: f"http://{ADDRESSES[node]}:{ports[node]}" for node in ADDRESSES}
        servers = {node: serve(node, role) for node, role in (("a", "kv_producer"), ("b", "kv_consumer"))}
        for node, (process, log) in servers.items():
            until(lambda node=node: ask(f"{urls[node]}/health") == "", f"{node} is not ready", process, log)
        yield {**urls, "master": master}, servers["b"][1]
    finally:
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_S
        for process in started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(deadline - time.monotonic(), 0.1))
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(5)


def complete(url, prompt, tokens, **more):
    answer = json.loads(ask(f"{url}/v1/completions", {"model": "tiny", "prompt": prompt, "max_tokens": tokens,
                                                      "temperature": 0, "ignore_eos": True, **more}))
    return answer["choices"][0]["text"], answer.get("kv_transfer_params")


def test_the_decoder_takes_over_what_the_prefiller_computed(stack):
    urls, log = stack
    params = {"ret_first_tok": True, "disagg_spec": {"req_id": "1", "receiver_host": "127.0.0.2",
                                                     "receiver_init_port": [1], "receiver_alloc_port": [2]}}
    alone, said = complete(urls["a"], PROMPT, 12, kv_transfer_params=params)
    deadline = time.monotonic() + 20
    while f"master_key_count {len(CHUNKS)}\n" not in ask(f"{urls['master']}/metrics"):
        assert time.monotonic() < deadline, "the chunks were not stored"
    assert f"master_allocated_bytes {sum(CHUNKS) * 4096}\n" in ask(f"{urls['master']}/metrics")

    continued, _ = complete(urls["b"], [*PROMPT, said["first_tok"]], 11)
    assert alone.endswith(continued), "in float32 the decoder goes on as the prefiller would have"
    found = re.findall(r"LMCache hit tokens: (\d+)", log.read_text(errors="replace"))
    assert found == ["512"], "two whole chunks of 256 tokens"
    assert "Item=2/2" in ask(f"{urls['master']}/metrics/summary"), "the store says the same"
