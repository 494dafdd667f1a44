"""How many bytes of KV cache a token and a request have, from the shape of a model's layers (`kit.kv_config`).

Sources of the formulas (vLLM, ``vllm/v1/kv_cache_interface.py`` and ``vllm/config/model.py``, commit 001cabc1):

attention   a block holds ``block_tokens * kv_heads * (key + value elements) * element size`` a layer
            (``FullAttentionSpec.real_page_size_bytes``)
latent      ``block_tokens * (kv_lora_rank + qk_rope_head_dim) * element size`` a layer, whole on every rank; 656 bytes
            a token in the ``fp8_ds_mla`` format (``MLAAttentionSpec.real_page_size_bytes``)
window      blocks of the last ``window`` tokens only (``SlidingWindowSpec``); all tokens where the engine runs without
            its hybrid cache manager, as with KV connectors that do not support it
state       fixed for a request, whatever its length (``mamba_utils.MambaStateShapeCalculator``)
tp ranks    a rank holds ``max(1, kv_heads // tp)`` heads (``ModelConfig.get_num_kv_heads``): beyond ``kv_heads`` ranks
            the heads are held several times
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kit.errors import ParamsError

CacheDtype = Literal["bf16", "fp16", "fp32", "fp8", "fp8_ds_mla"]
Rounding = Literal["up", "down"]

ELEMENT_BYTES: dict[str, int] = {"bf16": 2, "fp16": 2, "fp32": 4, "fp8": 1}
# 512 latent numbers in fp8, 4 float32 scales, 64 rotary numbers in bf16 (vLLM MLAAttentionSpec, flashmla_sparse.py).
_DS_MLA_BYTES = 656
_DS_MLA_ELEMENTS = 576


@dataclass(frozen=True)
class Layers:
    """``count`` alike layers: each keeps ``heads * elements`` numbers a token (key and value, or the latent vector).

    ``latent`` layers are whole on every tensor-parallel rank. ``window_tokens``: only so many last tokens are needed.
    ``index_bytes``: a token's entry in a sparse-attention index, of one byte a number whatever the cache's dtype.
    """

    count: int
    heads: int
    elements: int
    latent: bool = False
    window_tokens: int | None = None
    index_bytes: int = 0


@dataclass(frozen=True)
class State:
    """``count`` alike recurrent layers: each keeps a fixed number of numbers a request, split over the ranks."""

    count: int
    conv_elements: int
    ssm_elements: int
    conv_element_bytes: int
    ssm_element_bytes: int
    groups: int                 # must divide among the ranks

    @property
    def bytes_each(self) -> int:
        return self.conv_elements * self.conv_element_bytes + self.ssm_elements * self.ssm_element_bytes


@dataclass(frozen=True)
class KvShape:
    """What a model caches. ``query_heads`` bounds the tensor-parallel sizes."""

    model_type: str
    query_heads: int
    layers: tuple[Layers, ...]
    states: tuple[State, ...] = ()

    @property
    def has_windows(self) -> bool:
        return any(group.window_tokens is not None for group in self.layers)


def bytes_per_token(shape: KvShape, dtype: CacheDtype = "bf16", *, tp: int = 1) -> int:
    """Bytes that one more token adds, over all ``tp`` ranks, inside every window. Raises ParamsError."""
    _check_tp(shape, tp)
    return sum(group.count * _layer_bytes(group, dtype, tp) for group in shape.layers)


def state_bytes(shape: KvShape, *, tp: int = 1) -> int:
    """Bytes of recurrent state a request, over all ranks; 0 for a model without recurrent layers."""
    _check_tp(shape, tp)
    return sum(state.count * state.bytes_each for state in shape.states)


def request_bytes(shape: KvShape, tokens: int, dtype: CacheDtype = "bf16", *, tp: int = 1, unit_tokens: int = 1,
                  rounding: Rounding = "up", keep_windows: bool = True) -> int:
    """Bytes that a prompt of ``tokens`` hands over, summed over all ranks.

    ``unit_tokens`` is the block (vLLM: 16) or chunk (LMCache: 256) that moves whole; ``rounding`` "up" moves a partial
    one, "down" leaves it behind. Without ``keep_windows`` sliding-window layers move every token. Raises ParamsError.
    """
    _check_tp(shape, tp)
    if tokens < 0:
        raise ParamsError(f"a prompt of {tokens} tokens: the number of tokens cannot be negative")
    if unit_tokens < 1:
        raise ParamsError(f"a block of {unit_tokens} tokens: it has at least one")
    total = 0
    for group in shape.layers:
        window = group.window_tokens if keep_windows else None
        held = _moved_tokens(tokens, window, unit_tokens, rounding)
        total += group.count * held * _layer_bytes(group, dtype, tp)
    return total + (state_bytes(shape, tp=tp) if tokens else 0)


def rank_bytes(total_bytes: int, tp: int) -> float:
    """One rank's share: every rank holds the same amount."""
    return total_bytes / tp


def _moved_tokens(tokens: int, window: int | None, unit: int, rounding: Rounding) -> int:
    """The tokens of all whole units that the last ``window`` tokens touch."""
    end = -(-tokens // unit) * unit if rounding == "up" else tokens // unit * unit
    start = 0 if window is None else max(0, tokens - window) // unit * unit
    return max(0, end - start)


def _layer_bytes(group: Layers, dtype: CacheDtype, tp: int) -> int:
    """One layer's bytes a token over all ranks."""
    if group.latent:
        return tp * (_latent_bytes(group, dtype) + group.index_bytes)
    return tp * max(1, group.heads // tp) * group.elements * _element_bytes(dtype)


def _latent_bytes(group: Layers, dtype: CacheDtype) -> int:
    if dtype != "fp8_ds_mla":
        return group.elements * _element_bytes(dtype)
    if group.elements != _DS_MLA_ELEMENTS:
        raise ParamsError(f"fp8_ds_mla is a format of {_DS_MLA_ELEMENTS} numbers a token, here are {group.elements}")
    return _DS_MLA_BYTES


def _element_bytes(dtype: CacheDtype) -> int:
    if dtype not in ELEMENT_BYTES:
        known = ", ".join([*ELEMENT_BYTES, "fp8_ds_mla"])
        raise ParamsError(f"cache dtype {dtype} does not fit this model's layers; known: {known} (latent layers only)")
    return ELEMENT_BYTES[dtype]


def _check_tp(shape: KvShape, tp: int) -> None:
    """The sizes that vLLM takes (``verify_with_parallel_config``, and the attention layers' own checks)."""
    if tp < 1 or shape.query_heads % tp:
        raise ParamsError(f"tensor parallel size {tp} does not divide the {shape.query_heads} attention heads")
    for group in shape.layers:
        if not group.latent and group.heads % tp and tp % group.heads:
            raise ParamsError(f"tensor parallel size {tp} does not fit {group.heads} KV heads")
    for state in shape.states:
        if state.groups % tp:
            raise ParamsError(f"tensor parallel size {tp} does not divide the recurrent layers' {state.groups} groups")
