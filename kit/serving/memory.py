"""How much memory a stack registers and how much KV its store must hold: arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

from kit.params import Stack


@dataclass(frozen=True)
class Load:
    """What a benchmark asks for, as far as memory is concerned: the longest prompt, and how many at once."""

    prompt_tokens: int
    concurrency: int


def registered_bytes(stack: Stack) -> int:
    """What one instance registers with the device: its segment, its buffer and LMCache's staging pool."""
    if stack.pool is not None:
        return stack.pool.segment_bytes + stack.pool.buffer_bytes
    if stack.store is None:
        return 0
    return stack.store.segment_bytes + stack.store.buffer_bytes + int(stack.store.staging_gb * 1024**3)


def store_bytes(stack: Stack) -> int:
    """What the store holds: a segment from each of the two instances."""
    held = stack.store or stack.pool
    return 0 if held is None else 2 * held.segment_bytes


def wanted_store_bytes(load: Load, chunk_tokens: int, bytes_per_token: int) -> int:
    """What the prompts in flight take in the store, in objects of so many tokens; LMCache 0.3.9 stores the unfull last
    chunk as well."""
    chunks = -(-load.prompt_tokens // chunk_tokens)
    return load.concurrency * chunks * chunk_tokens * bytes_per_token
