"""The proxy is patched by what stands in it: a program of the same shape, and others that must be refused."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.errors import ParamsError
from kit.serving.proxy_patch import patched

# Our own, with the two handlers and their waits as LMCache 0.3.9's program has them.
PROXY = '''\
async def wait_decode_kv_ready(req_id, num_tp_rank):
    while not done(req_id, num_tp_rank):
        await sleep(0)


@app.post("/v1/completions")
async def handle_completions(request):
    req_data = await request.json()

    async def stream():
        yield head
        await wait_decode_kv_ready(req_id, num_tp_rank)
        yield tail

    return stream()


@app.post("/v1/chat/completions")
async def handle_chat_completions(request):
    req_data = await request.json()

    async def stream():
        await wait_decode_kv_ready(req_id, num_tp_rank)
        yield tail

    return stream()
'''
WAIT = "await wait_decode_kv_ready(req_id, num_tp_rank)"


def waits(program: str) -> dict[str, int]:
    """Handler -> how often it waits for LMCache's message, by the program's syntax."""
    found = {}
    for node in ast.parse(program).body:
        if isinstance(node, ast.AsyncFunctionDef) and node.name.startswith("handle"):
            found[node.name] = sum(isinstance(one, ast.Await) and "wait_decode" in ast.unparse(one)
                                   for one in ast.walk(node))
    return found


def runnable(program: str) -> str:
    """A comment is no statement: a body of nothing else would not be Python."""
    ast.parse(program)
    return program


@pytest.mark.parametrize(("removed", "left"), [
    (["completions"], (0, 1)), (["chat"], (1, 0)), (["completions", "chat"], (0, 0)), ([], (1, 1))])
def test_just_these_waits_are_removed(removed: list[str], left: tuple[int, int]) -> None:
    for stored in (False, True):
        program = runnable(patched(PROXY, waits_removed=removed, stored=stored))
        assert tuple(waits(program).values()) == left
        assert program.count("kit_barrier.stored(") == (len(removed) if stored else 0)
        assert program.startswith("import kit_barrier\n") == stored


def test_nothing_else_is_changed() -> None:
    program = patched(PROXY, waits_removed=["completions"], stored=False)
    changed = [(old, new) for old, new in zip(PROXY.splitlines(), program.splitlines(), strict=True) if old != new]
    assert changed == [(f"        {WAIT}", f"        # {WAIT}")]
    stored = patched(PROXY, waits_removed=["chat"], stored=True).splitlines()
    assert [line for line in stored if "kit_barrier.stored" in line] == [
        '        await kit_barrier.stored(req_data["prompt"][:-1])']


@pytest.mark.parametrize("other", [
    "", PROXY.replace("handle_completions", "handle"), PROXY.replace(WAIT, "pass"),
    PROXY.replace(f"        {WAIT}\n        yield tail", f"        {WAIT}\n        {WAIT}"),
    PROXY.replace("num_tp_rank)\n        yield", "ranks)\n        yield"),
    patched(PROXY, waits_removed=["completions"], stored=False)])
def test_another_program_is_refused(other: str) -> None:
    with pytest.raises(ParamsError, match="one was expected") as raised:
        patched(other, waits_removed=["completions"], stored=False)
    assert "disagg_proxy_server.py" in raised.value.remedy


@given(st.text(max_size=200))
def test_any_text_is_patched_or_refused(text: str) -> None:
    with pytest.raises(ParamsError):
        patched(text, waits_removed=["chat"], stored=True)
