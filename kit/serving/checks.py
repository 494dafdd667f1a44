"""The preflight's judgement: pure, from both nodes' facts to one line a check, each failure with its remedy."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from kit.device import NodeFacts
from kit.serving.memory import Load, registered_bytes, store_bytes, wanted_store_bytes
from kit.serving.parts import Role, Wiring, parts, ports_of
from kit.serving.preflight import ServingFacts

Outcome = Literal["ok", "warn", "fail"]
_RANK = {"fail": 0, "warn": 1, "ok": 2}
_GIB = 1 << 30


@dataclass(frozen=True)
class Check:
    """One line of the preflight. ``seen`` says what was found."""

    name: str
    outcome: Outcome
    seen: str
    remedy: str = ""


def checks(wiring: Wiring, facts: Mapping[Role, ServingFacts], devices: Mapping[Role, NodeFacts], load: Load,
           bytes_per_token: int) -> list[Check]:
    """All checks, worst first. ``facts`` by role: of the one server, or of prefiller and decoder."""
    found = [*_software(wiring, facts), *_ports(wiring, facts), *_memory(wiring, facts, devices),
             *_known_holes(wiring, facts)]
    if len(facts) > 1:
        found += [*_same_model(wiring, facts), *_same_hash(wiring, facts)]
    if wiring.serving.protocol == "rdma" and wiring.stack.kind != "aggregated":
        found += list(_rdma(wiring, devices))
    if wiring.stack.stores:
        found += list(_store(wiring, load, bytes_per_token))
    return sorted(found, key=lambda check: _RANK[check.outcome])


def _software(wiring: Wiring, facts: Mapping[Role, ServingFacts]) -> Iterator[Check]:
    for name, wanted in wiring.stack.versions.items():
        seen = {role: told.versions.get(name, "none") for role, told in facts.items()}
        fits = all(_release(version) == _release(wanted) for version in seen.values())
        yield Check(f"{name}_version", "ok" if fits else "fail", f"{_told(seen)}; the stack names {wanted}",
                    "" if fits else f"install {name} {wanted} in the environment {wiring.stack.environment!r}")


def _release(version: str) -> str:
    """``0.11.0`` of ``0.11.0.post2+cpu``: builds of one release are the same software."""
    try:
        return Version(version).base_version
    except InvalidVersion:
        return version


def _same_model(wiring: Wiring, facts: Mapping[Role, ServingFacts]) -> Iterator[Check]:
    a, b = (told.model for told in facts.values())
    differ = sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))
    yield Check("same_model", "fail" if differ else "ok",
                f"{', '.join(differ[:3])} differ" if differ else f"{len(a)} files with the same digests",
                "put the same model and tokenizer on both nodes" if differ else "")
    if wiring.stack.kind == "store":
        paths = {wiring.model_of("prefiller"), wiring.model_of("decoder")}
        yield Check("same_model_path", "ok" if len(paths) == 1 else "fail", ", ".join(sorted(paths)),
                    "" if len(paths) == 1 else "LMCache's keys hold the model's path: use the same on both nodes")


def _same_hash(wiring: Wiring, facts: Mapping[Role, ServingFacts]) -> Iterator[Check]:
    if not wiring.stack.stores:
        return
    seen = {role: told.hashes[0] for role, told in facts.items()}
    steady = all(told.hashes[0] == told.hashes[1] for told in facts.values())
    seeds = {role: wiring.env_of(role).get("PYTHONHASHSEED") for role in facts}
    by_python = wiring.stack.kind == "store"      # LMCache 0.3.9 hashes with Python's own hash, vLLM with SHA-256
    if None in seeds.values():
        yield Check("hash_seed", "fail", "PYTHONHASHSEED is not set: vLLM starts its hash chain at random, and the "
                    "decoder finds no key of the prefiller", "set hash_seed in the stack")
    elif by_python and not steady:
        yield Check("hash_seed", "fail", f"two processes of one node hash differently (Python {_pythons(facts)})",
                    "use Python 3.12 or newer, or start through setarch -R: hash(None) is an address before 3.12")
    elif len(set(seeds.values())) > 1:      # texts hash by it; the probe's numbers do not
        yield Check("hash_seed", "fail", f"the seeds differ: {_told(seeds)}",
                    "use the same PYTHONHASHSEED on both nodes")
    elif by_python and len(set(seen.values())) > 1:
        yield Check("hash_seed", "fail", f"the nodes hash differently: {_told(seen)} (seeds {_told(seeds)}, "
                    f"Python {_pythons(facts)})", "use the same PYTHONHASHSEED and the same Python build on both nodes")
    else:
        yield Check("hash_seed", "ok", f"seed {', '.join(sorted({str(seed) for seed in seeds.values()}))}, same hash")


def _ports(wiring: Wiring, facts: Mapping[Role, ServingFacts]) -> Iterator[Check]:
    for name, port in ports_of(wiring).items():
        role: Role = "decoder" if name == "decoder" else next(iter(facts))
        if port in facts[role].listening:
            yield Check("port_free", "fail", f"port {port} ({name}) is in use on node {wiring.seat_of(role).end}",
                        "end what listens there (ss -ltnp), or give the stack another port")
    yield Check("ports", "ok", ", ".join(f"{part.role} {part.port}" for part in parts(wiring)))


def _memory(wiring: Wiring, facts: Mapping[Role, ServingFacts], devices: Mapping[Role, NodeFacts]) -> Iterator[Check]:
    needs = registered_bytes(wiring.stack)
    if wiring.serving.protocol != "rdma" or not needs:
        return
    for role, told in facts.items():
        limit = None if told.memlock == "unlimited" else int(told.memlock or 0) * 1024
        short = limit is not None and limit < needs and wiring.serving.runtime == "venv"
        yield Check("memlock", "fail" if short else "ok",
                    f"{role}: {told.memlock} KiB, {needs / _GIB:.1f} GiB to be registered",
                    "set memlock to unlimited" if short else "")
        device = devices[role].summary(wiring.seat_of(role).device)
        most = device.max_mr_size_gib
        if most is not None and most * _GIB < needs:
            yield Check("max_mr_size", "fail", f"{role}: the device registers {most:.0f} GiB at most, "
                        f"{needs / _GIB:.1f} GiB are wanted", "make segment_bytes and buffer_bytes smaller")


def _rdma(wiring: Wiring, devices: Mapping[Role, NodeFacts]) -> Iterator[Check]:
    for role, told in devices.items():
        device = told.summary(wiring.seat_of(role).device)
        active = "ACTIVE" in device.state
        yield Check("rdma_device", "ok" if active else "fail",
                    f"{role}: {device.name} is {device.state}, {device.mode}",
                    "" if active else "bring the port up; 02_device_info says more")
        if device.mode == "standard":
            yield Check("rdma_mode", "fail", f"{role}: the device is in eRDMA's standard mode, which connects only by "
                        "RDMA_CM; Mooncake connects out of band", "switch the driver to compat mode")


def _store(wiring: Wiring, load: Load, bytes_per_token: int) -> Iterator[Check]:
    store, block = wiring.stack.store, wiring.stack.block_tokens
    unit = store.chunk_tokens if store is not None else block or 1
    has, wants = store_bytes(wiring.stack), wanted_store_bytes(load, unit, bytes_per_token)
    sum_of = (f"{load.concurrency} prompts of {load.prompt_tokens} tokens, {bytes_per_token} bytes a token: "
              f"{wants / 1e6:.0f} MB in whole chunks; the segments hold {has / 1e6:.0f} MB")
    yield Check("store_size", "ok" if wants <= has else "fail", sum_of,
                "" if wants <= has else "make segment_bytes larger, or prompts or concurrency smaller")
    if store is not None and block is not None and store.chunk_tokens % block:
        yield Check("chunk_size", "fail", f"chunks of {store.chunk_tokens} tokens are no whole blocks of {block}",
                    "choose a chunk size that is a multiple of the block size")


def _known_holes(wiring: Wiring, facts: Mapping[Role, ServingFacts]) -> Iterator[Check]:
    for hole in known_holes():
        for version in {told.versions.get(hole["package"]) for told in facts.values()} - {None}:
            if _affected(hole["versions"], str(version)) and wiring.stack.kind in hole["kinds"]:
                yield Check("known_hole", "warn", f"{hole['package']} {version}: {hole['id']}, {hole['what']}",
                            hole["remedy"])


def _affected(versions: str, version: str) -> bool:
    try:
        return SpecifierSet(versions).contains(Version(_release(version)), prereleases=True)
    except InvalidVersion:
        return True


@cache
def known_holes() -> list[dict[str, Any]]:
    """Known remote holes of serving software, from data: package, version range, id, what, remedy, source."""
    return list(tomllib.loads((Path(__file__).with_name("known_holes.toml")).read_text())["hole"])


def _told(values: Mapping[Any, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _pythons(facts: Mapping[Role, ServingFacts]) -> str:
    return ", ".join(sorted({told.python for told in facts.values()}))
