"""LMCache's ``disagg_proxy_server.py`` made fit for a shared store: patched by content, never by line number.

The proxy waits for a message that only LMCache's own PD mode sends. With a Mooncake store it never comes, so the wait
has to go, in the completions handler (as the recipe says) and in the chat handler (as it does not).
"""

from __future__ import annotations

import re
from collections.abc import Collection

from kit.errors import ParamsError

_HANDLERS = {"completions": "handle_completions", "chat": "handle_chat_completions"}
_WAIT = re.compile(r"^(?P<indent> +)await wait_decode_kv_ready\(req_id, num_tp_rank\)$", re.MULTILINE)


def patched(program: str, *, waits_removed: Collection[str], stored: bool) -> str:
    """The proxy's text with the waits of these handlers removed, or turned into a wait for the store.

    Raises ParamsError where the text is not the program that this patch was made for.
    """
    for handler in sorted(waits_removed):
        start = program.find(f"async def {_HANDLERS[handler]}(")
        end = program.find("\n@app.", start + 1) if start >= 0 else -1
        end = len(program) if end < 0 else end
        body, count = _WAIT.subn(_wait_for_store if stored else _no_wait, program[max(start, 0):end])
        if start < 0 or count != 1:
            raise ParamsError(f"the proxy has {count} waits in its {handler} handler, one was expected",
                              remedy="use the disagg_proxy_server.py of the LMCache version that the stack names")
        program = program[:start] + body + program[end:]
    return f"import kit_barrier\n{program}" if stored else program


def _no_wait(found: re.Match[str]) -> str:
    return f"{found['indent']}# {found[0].strip()}"


def _wait_for_store(found: re.Match[str]) -> str:
    # The prompt ends in the prefiller's first token by now; it fills no chunk that was stored.
    return f"{found['indent']}await kit_barrier.stored(req_data[\"prompt\"][:-1])"
