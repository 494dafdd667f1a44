"""What runs where, word for word: the commands and the configuration files of every stack in git."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from wired_nodes import two_nodes, wire

from kit.command import Secret
from kit.errors import ParamsError
from kit.paths import root
from kit.serving.launch import sent
from kit.serving.parts import Part, Wiring, front, parts, ports_of
from kit.serving.runtime import revealed
from kit.serving.stacks import read_stack

DATA = root() / "tests/data/serving/wiring"
STACKS = sorted(path.stem for path in (root() / "params/stacks").glob("*.yaml"))


def written(part: Part) -> str:
    """A part as the files under tests/data/serving/wiring have it: programs by their path alone."""
    files = "".join(f"> {path}\n" + (text if path.endswith((".yaml", ".json")) else "")
                    for path, text in part.files.items())
    return f"{part.role} on {part.end}, {part.address}:{part.port}, health {part.health}\n{part.command}\n{files}\n"


@pytest.mark.parametrize("runtime", ["venv", "container"])
@pytest.mark.parametrize("stack", STACKS)
def test_every_process_word_for_word(stack: str, runtime: str) -> None:
    assert "".join(map(written, parts(wire(stack, runtime=runtime)))) == (DATA / f"{stack}.{runtime}.txt").read_text()


def words(part: Part) -> list[str]:
    return [str(word) for word in part.command.argv]


def test_a_container_has_rdma_only_where_it_is_used_and_no_privileges_unasked() -> None:
    for part in parts(wire("lmcache-mooncake", runtime="container", protocol="tcp", engine="docker")):
        assert words(part)[0] == "docker"
        assert not {"/dev/infiniband", "IPC_LOCK", "--privileged"} & set(words(part))
        assert "memlock=-1" in words(part)
    for part in parts(wire("lmcache-mooncake", runtime="container", privileged=True)):
        assert "--privileged" in words(part)
        assert "--device" not in words(part)


def test_a_container_mounts_the_model_that_its_node_serves() -> None:
    mounted = {part.role: words(part)[words(part).index("-v") + 1]
               for part in parts(wire("lmcache-mooncake", runtime="container", decode_model="/other"))}
    assert mounted == {**dict.fromkeys(["master", "prefiller", "proxy"], "/models/qwen:/models/qwen:ro"),
                       "decoder": "/other:/other:ro"}


def test_over_tcp_no_device_is_named() -> None:
    for stack in ("lmcache-mooncake", "mooncake-direct"):
        text = "".join(written(part) for part in parts(wire(stack, protocol="tcp")))
        assert "erdma_0" not in text
        assert "tcp" in text


def test_one_node_may_differ() -> None:
    wiring = wire("lmcache-mooncake", decode_env={"PYTHONHASHSEED": "7"}, env={"A": "1", "PYTHONHASHSEED": "3"})
    assert {role: wiring.env_of(role)["PYTHONHASHSEED"] for role in ("prefiller", "decoder")} == {
        "prefiller": "0", "decoder": "7"}
    assert wiring.env_of("master")["A"] == "1"
    assert "PYTHONHASHSEED" not in wire("aggregated").env_of("server")


def test_as_published_is_not_what_is_used() -> None:
    """No seed, all interfaces, one wait left in the proxy, no barrier."""
    published = wire("lmcache-mooncake-as-published")
    assert all("PYTHONHASHSEED" not in str(part.command) for part in parts(published))
    assert "--host 0.0.0.0 " in str(front(parts(published)).command)
    assert not any("kit_barrier" in path for path in front(parts(published)).files)
    assert all("--host 0.0.0.0 " not in str(part.command) for part in parts(wire("lmcache-mooncake")))


def test_no_two_parts_of_a_node_share_a_port() -> None:
    for stack in STACKS:
        used = ports_of(wire(stack))
        assert len(set(used.values())) == len(used)
        assert {part.port for part in parts(wire(stack))} <= set(used.values())


def secrets_of(wiring: Wiring, runtime: str) -> None:
    for part in parts(wiring):
        assert ("HF_TOKEN", Secret("env:HF_TOKEN")) in part.command.env
        assert ("-e HF_TOKEN " in str(part.command)) == (runtime == "container")
        assert "env HF_TOKEN=***" in str(part.command) or "HF_TOKEN=*** " in str(part.command)


@pytest.mark.parametrize("runtime", ["venv", "container"])
def test_a_secret_is_named_and_never_shown(runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wiring = wire("lmcache-mooncake", runtime=runtime, env={"HF_TOKEN": "env:HF_TOKEN", "PLAIN": "x"})
    secrets_of(wiring, runtime)
    part = parts(wiring)[0]
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(ParamsError, match="HF_TOKEN is not set"):
        revealed(part.command)
    monkeypatch.setenv("HF_TOKEN", "canary")
    told = revealed(part.command)
    assert ("HF_TOKEN", Secret("canary")) in told.env
    assert "canary" not in f"{told} {told!r} {wiring!r} {wiring.serving.model_dump_json()}"
    assert "canary" not in " ".join(str(word) for word in told.argv)
    assert "PLAIN=x" in str(told)


def test_a_replay_needs_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    pair = two_nodes()
    site = pair.site.model_copy(update={"nodes": None, "replay": "somewhere"})
    command = parts(wire("aggregated", env={"HF_TOKEN": "env:HF_TOKEN"}))[0].command
    assert sent(type(pair)(site, pair.a, pair.b), command) == command
    with pytest.raises(ParamsError):
        sent(pair, command)


def test_the_direct_proxy_and_the_connectors_agree() -> None:
    wiring = wire("mooncake-direct")
    prefiller, decoder, proxy = parts(wiring)
    told = words(proxy)
    assert told[told.index("--prefiller") + 1] == prefiller.url
    assert told[told.index("--decoder") + 1] == decoder.url
    port = dict(prefiller.command.env)["VLLM_MOONCAKE_BOOTSTRAP_PORT"]
    assert told[told.index("--bootstrap") + 1] == f"http://10.0.1.1:{port}"
    roles = [json.loads(words(part)[-1])["kv_role"] for part in (prefiller, decoder)]
    assert roles == ["kv_producer", "kv_consumer"]
    assert Path(next(iter(proxy.files))).name == "direct_proxy.py"


def test_stacks_are_read_by_name_or_path() -> None:
    assert read_stack("aggregated") == read_stack(str(root() / "params/stacks/aggregated.yaml"))
    with pytest.raises(ParamsError, match=r"there are: aggregated, aggregated-0\.23, lmcache-mooncake"):
        read_stack("nothing")
