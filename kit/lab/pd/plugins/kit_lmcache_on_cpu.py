"""The copy between vLLM's paged KV cache and LMCache's chunks that LMCache 0.3.9 has for CUDA alone.

Loaded by vLLM 0.11 in each of its processes through the entry point ``vllm.general_plugins``; it lies in the lab's
recipe environment only. Where a GPU is usable it does nothing. What it stands in for is the copy kernel and the
calls that choose a GPU: keys, lookup, serialisation, the store and the network path stay LMCache's own.

vLLM's CPU backend keeps each layer's cache as ``[2, blocks, heads * block size * head size]`` and reads a block as
``[heads, block size, head size]`` (vllm 0.11.0, v1/attention/backends/cpu_attn.py, with Intel's extension). LMCache's
chunk is ``[2, layers, tokens, heads * head size]`` (lmcache 0.3.9, v1/gpu_connector.py, format KV_2LTD).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any


class CpuConnector:
    """What LMCache calls a GPU connector, for a cache in main memory."""

    def __init__(self, hidden_dim_size: int, num_layers: int, *, kv_heads: int, **_: Any) -> None:
        self.hidden_size, self.layers, self.kv_heads = hidden_dim_size, num_layers, kv_heads
        self.caches: Sequence[Any] | None = None

    def initialize_kvcaches_ptr(self, **kwargs: Any) -> None:
        """LMCache names the caches once, or with each call."""
        self.caches = kwargs.get("kvcaches", self.caches)

    def to_gpu(self, memory_obj: Any, start: int, end: int, **kwargs: Any) -> None:
        """A chunk into the slots of tokens ``start`` to ``end``."""
        for layer, side, tokens, blocks, at in self._slots(start, end, kwargs):
            tokens[blocks, :, at] = memory_obj.tensor[side, layer].view(end - start, self.kv_heads, -1)

    def from_gpu(self, memory_obj: Any, start: int, end: int, **kwargs: Any) -> None:
        """The slots of tokens ``start`` to ``end`` into a chunk."""
        for layer, side, tokens, blocks, at in self._slots(start, end, kwargs):
            memory_obj.tensor[side, layer].copy_(tokens[blocks, :, at].reshape(end - start, -1))

    def batched_to_gpu(self, memory_objs: Sequence[Any], starts: Sequence[int], ends: Sequence[int],
                       **kwargs: Any) -> None:
        for chunk, start, end in zip(memory_objs, starts, ends, strict=True):
            self.to_gpu(chunk, start, end, **kwargs)

    def batched_from_gpu(self, memory_objs: Sequence[Any], starts: Sequence[int], ends: Sequence[int],
                         **kwargs: Any) -> None:
        for chunk, start, end in zip(memory_objs, starts, ends, strict=True):
            self.from_gpu(chunk, start, end, **kwargs)

    def get_shape(self, num_tokens: int) -> Any:
        import torch

        return torch.Size([2, self.layers, num_tokens, self.hidden_size])

    def _slots(self, start: int, end: int, kwargs: dict[str, Any]) -> Any:
        """(layer, 0 for keys and 1 for values, cache as [blocks, heads, block size, head size], blocks, offsets)."""
        self.initialize_kvcaches_ptr(**kwargs)
        slots = kwargs["slot_mapping"][start:end].long()
        for layer, cache in enumerate(self.caches or ()):
            head_size = self.hidden_size // self.kv_heads
            block_size = cache[0][0].numel() // self.hidden_size
            for side in (0, 1):
                tokens = cache[side].view(-1, self.kv_heads, block_size, head_size)
                yield layer, side, tokens, slots // block_size, slots % block_size


def register() -> None:
    """vLLM calls this in every process before it reads its configuration."""
    import torch

    if torch.cuda.is_available():
        return
    import lmcache.integration.vllm.vllm_v1_adapter as adapter
    from vllm.v1.attention.backends import cpu_attn

    if not cpu_attn._use_ipex:
        raise RuntimeError("the lab knows the cache layout of Intel's extension only, and it is not in use")
    torch.cuda.is_available = lambda: False     # it may ask for the number of devices, which is not to be zero here
    torch.cuda.device_count = lambda: 1
    torch.cuda.set_device = lambda *_: None
    torch.Tensor.cuda = lambda self, *_, **__: self
    make = adapter._init_lmcache_engine

    def make_for_cpu(config: Any, vllm_config: Any) -> Any:
        heads = vllm_config.model_config.get_num_kv_heads(vllm_config.parallel_config)
        adapter.VLLMPagedMemGPUConnectorV2 = partial(CpuConnector, kv_heads=heads)
        return make(config, vllm_config)

    adapter._init_lmcache_engine = make_for_cpu
