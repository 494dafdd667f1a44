"""Runs beside LMCache's proxy, on the node, in the stack's environment: waits until a prompt's KV is in the store.

LMCache 0.3.9 puts chunks without waiting for them (``remote_backend.py``), and the published proxy asks the decoder at
once: what is not stored yet is computed again, silently (LMCache #1350, #2471). The proxy is patched to wait here
instead, until Mooncake's master knows every full chunk of the prompt, or until a deadline.

A chunk's key ends in its hash, as LMCache's own token database computes it; the part before it is the same for all
(``CacheEngineKey.to_string``: format, model, world size, worker). The master answers ``/query_key`` on its metrics port
with 200 once the key can be read.
"""

import asyncio
import os
import time

import httpx
from lmcache.v1.config import LMCacheEngineConfig
from lmcache.v1.token_database import ChunkedTokenDatabase

_MASTER = os.environ["KIT_MASTER_URL"]
_PREFIX = os.environ["KIT_KEY_PREFIX"]
_DEADLINE_S = float(os.environ["KIT_HANDOVER_DEADLINE_S"])
_PAUSE_S = 0.002

_chunks = ChunkedTokenDatabase(LMCacheEngineConfig.from_defaults(chunk_size=int(os.environ["KIT_CHUNK_TOKENS"])))
_client = httpx.AsyncClient(base_url=_MASTER, timeout=_DEADLINE_S)


async def stored(tokens: list[int]) -> None:
    """Wait until every full chunk of ``tokens`` can be read from the store. Says so where the deadline came first."""
    size = _chunks.chunk_size
    full = tokens[: len(tokens) // size * size]
    keys = [f"{_PREFIX}@{value:x}" for _, _, value in _chunks.process_tokens(full, make_key=False)]
    begun = time.monotonic()
    while keys:
        if (await _client.get(f"/query_key?key={keys[-1]}")).status_code == 200:     # it does not decode %40
            keys.pop()
        elif time.monotonic() - begun > _DEADLINE_S:
            print(f"kit: {len(keys)} chunks not stored after {_DEADLINE_S:g} s", flush=True)
            return
        else:
            await asyncio.sleep(_PAUSE_S)
    print(f"kit: stored after {1000 * (time.monotonic() - begun):.1f} ms", flush=True)
