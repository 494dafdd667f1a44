"""From a model's config.json to the shape of its KV cache. What is not known is an error that names the field.

Field names and their meaning: transformers' configuration classes, read as vLLM reads them
(``vllm/config/model.py``: ``get_total_num_kv_heads``, ``get_head_size``, ``is_deepseek_mla``; ``transformers_utils``).
A field that looks as if it changed what is cached, and that no rule here understands, is refused and named.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from kit.errors import ParamsError
from kit.kv import KvShape, Layers, State

# Model types that vLLM caches as one latent vector a token (is_deepseek_mla); others with kv_lora_rank expand it.
_LATENT = {"deepseek_v2", "deepseek_v3", "deepseek_v32", "kimi_k2"}
# Types whose configuration class has no number of KV heads, or defaults it to the number of attention heads.
_MULTI_HEAD = {"gpt2", "gptj", "gpt_neox", "opt", "bloom", "phi", "codegen", "llama"}
_MULTI_QUERY_FLAG = {"gpt_bigcode", "falcon", "RefinedWeb", "RefinedWebModel"}
# Types whose sliding_window, where it is set, holds for every layer (their transformers configuration classes).
_ALL_WINDOW = {"mistral", "mixtral", "phi3", "starcoder2"}
# Types with a fixed alternation: every n-th layer is full, the others slide (Gemma2Config, Gemma3TextConfig).
_FULL_EVERY = {"gemma2": 2, "gemma3_text": 6}
_INNER = ("text_config", "llm_config", "language_config")
_SUSPECT = re.compile(r"window|_pattern$|layer_types|layers_block_type|kv_shared|kv_lora|linear_|mamba|ssm_|compress|"
                      r"sparse_att|sparsify|^index|swa_|^global_|num_global|interval|cross_attention_layers|"
                      r"attn_type|attn_layer|attn_config|block_configs|attention_chunk|v_head_dim|layer_group_size")
_OWN = "give the model's own config.json"
_ASK = "take the bytes a token from the engine's own start-up log"
_INDEX_BLOCK = 128      # one float32 scale for so many fp8 numbers (vLLM deepseek_v2.py, DeepseekV32IndexerCache)


def load_shape(path: str | Path) -> KvShape:
    """The shape from a config.json, or from a folder that holds one. Raises ParamsError."""
    file = Path(path)
    file = file / "config.json" if file.is_dir() else file
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ParamsError(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise ParamsError(f"{file} is not JSON: {error}") from error
    return shape_of(config, where=str(file))


def shape_of(config: Any, *, where: str = "config.json") -> KvShape:
    """The shape from config.json's content. Raises ParamsError that names the missing or the unknown field."""
    if not isinstance(config, dict):
        raise ParamsError(f"{where}: expected an object, found {type(config).__name__}")
    inner = next((config[name] for name in _INNER if isinstance(config.get(name), dict)), config)
    fields = _Fields({"dtype": config.get("dtype") or config.get("torch_dtype"), **inner}, where)
    shape = _read(fields)
    fields.refuse_unknown()
    return shape


class _Fields:
    """The config's fields, and which of them were understood."""

    def __init__(self, config: dict[str, Any], where: str) -> None:
        self.config, self.where, self.known = config, where, set[str]()

    def get(self, *names: str) -> Any:
        """The first of these names that is set; None where none is."""
        self.known.update(names)
        return next((self.config[name] for name in names if self.config.get(name) is not None), None)

    def number(self, *names: str) -> int:
        """A field that must be there, a whole number of at least 1; ``names`` are what configs call it."""
        value = self.maybe(*names)
        if value is None:
            called = f" (nor as {', '.join(names[1:])})" if len(names) > 1 else ""
            raise ParamsError(f"{self.where}: {names[0]} is missing{called}", remedy=_OWN)
        if value < 1:
            raise ParamsError(f"{self.where}: {names[0]} is {value!r}, not a number of at least 1")
        return value

    def maybe(self, *names: str) -> int | None:
        """A field that may be absent; if there, a whole number of at least 0."""
        value = self.get(*names)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ParamsError(f"{self.where}: {names[0]} is {value!r}, not a whole number")
        return value

    def refuse_unknown(self) -> None:
        for name, value in self.config.items():
            if value and name not in self.known and _SUSPECT.search(name):
                raise ParamsError(f"{self.where}: {name} changes what is cached in a way that is not known here",
                                  remedy=_ASK)


def _read(fields: _Fields) -> KvShape:
    kind = fields.get("model_type")
    if not isinstance(kind, str):
        raise ParamsError(f"{fields.where}: model_type is missing", remedy=_OWN)
    layers = fields.number("num_hidden_layers", "n_layer", "num_layers")
    heads = fields.number("num_attention_heads", "n_head", "num_heads")
    fields.get("chunk_size", "max_window_layers")       # a kernel's step; only read where windows are in use
    if kind not in _LATENT and fields.config.get("kv_lora_rank"):
        raise ParamsError(f"{fields.where}: kv_lora_rank: how {kind} caches its latent vectors is not known here",
                          remedy=_ASK)
    if kind in _LATENT:
        return KvShape(kind, heads, (_latent(fields, layers),))
    if fields.get("block_configs") is not None:
        return KvShape(kind, heads, _block_layers(fields, layers, heads))
    kinds = _layer_kinds(fields, kind, layers)
    shared = fields.maybe("num_kv_shared_layers") or 0
    counts = Counter(kinds[:max(0, layers - shared)])    # shared ones use an earlier layer's cache (vLLM Attention)
    window = fields.number("sliding_window") if counts["window"] else None
    full = _attention(fields, kind, heads) if counts["full"] or counts["window"] else None
    groups = []
    if full is not None and counts["full"]:
        groups.append(Layers(counts["full"], *_global(fields, full)))
    if full is not None and counts["window"]:
        groups.append(Layers(counts["window"], *full, window_tokens=window))
    states = [_STATES[name](fields, counts[name]) for name in _STATES if counts[name]]
    return KvShape(kind, heads, tuple(groups), tuple(states))


def _attention(fields: _Fields, kind: str, heads: int) -> tuple[int, int]:
    """KV heads, and key plus value elements a head."""
    size = fields.maybe("head_dim", "attention_head_dim")
    if size is None:
        hidden = fields.number("hidden_size", "n_embd", "d_model")
        if hidden % heads:
            raise ParamsError(f"{fields.where}: head_dim is missing, and {heads} heads do not divide {hidden}")
        size = hidden // heads
    return _kv_heads(fields, kind, heads), 2 * size


def _kv_heads(fields: _Fields, kind: str, heads: int) -> int:
    if kind in _MULTI_QUERY_FLAG and not fields.get("new_decoder_architecture"):
        flag = fields.get("multi_query")
        if flag is None:
            raise ParamsError(f"{fields.where}: multi_query is missing", remedy=_OWN)
        return 1 if flag else heads
    names = ("num_key_value_heads", "num_kv_heads", "n_head_kv")
    if fields.get(*names) is None and kind in _MULTI_HEAD:
        return heads
    return fields.number(*names)


def _global(fields: _Fields, local: tuple[int, int]) -> tuple[int, int]:
    """Gemma 4 gives its full layers heads of another number and size (Gemma4TextConfig)."""
    size, heads = fields.maybe("global_head_dim"), fields.maybe("num_global_key_value_heads")
    return heads if heads and fields.get("attention_k_eq_v") else local[0], 2 * size if size else local[1]


def _latent(fields: _Fields, layers: int) -> Layers:
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434), with V3.2's sparse index where there is one."""
    elements = fields.number("kv_lora_rank") + fields.number("qk_rope_head_dim")
    fields.get("v_head_dim")
    index = fields.maybe("index_head_dim") or 0
    fields.get("index_n_heads", "index_topk")
    return Layers(layers, 1, elements, latent=True, index_bytes=index + index // _INDEX_BLOCK * 4)


def _block_layers(fields: _Fields, layers: int, heads: int) -> tuple[Layers, ...]:
    """Nemotron-NAS: each block says its own heads a group, or that it has no attention (DeciLMConfig)."""
    blocks = fields.get("block_configs")
    if not isinstance(blocks, list) or len(blocks) != layers:
        raise ParamsError(f"{fields.where}: block_configs does not name each of the {layers} layers")
    size = fields.maybe("head_dim") or fields.number("hidden_size") // heads
    counts: Counter[int] = Counter()
    for number, block in enumerate(blocks):
        attention = block.get("attention") if isinstance(block, dict) else None
        if not isinstance(attention, dict):
            raise ParamsError(f"{fields.where}: block_configs[{number}].attention is missing")
        if attention.get("window_length") or attention.get("sparsify"):
            raise ParamsError(f"{fields.where}: block_configs[{number}].attention is not plain: not known here")
        if attention.get("no_op") or attention.get("replace_with_linear"):
            continue
        group = attention.get("n_heads_in_group")
        if not isinstance(group, int) or not 1 <= group <= heads:
            raise ParamsError(f"{fields.where}: block_configs[{number}].attention.n_heads_in_group is missing")
        counts[heads // group] += 1
    return tuple(Layers(count, kv_heads, 2 * size) for kv_heads, count in sorted(counts.items()))


def _layer_kinds(fields: _Fields, kind: str, layers: int) -> list[str]:
    """What each layer keeps: full, window, a kind of `_STATES`, or nothing (an MLP of its own)."""
    named, pattern = fields.get("layer_types", "layers_block_type"), fields.get("hybrid_override_pattern")
    if not isinstance(named, list | None) or not isinstance(pattern, str | None):
        raise ParamsError(f"{fields.where}: layer_types or hybrid_override_pattern is not of the form known here")
    if named is not None or pattern is not None:
        letters = [str(letter) for letter in (named if named is not None else pattern) or ()]
        words = _WORDS if named is not None else _LETTERS
        unknown = [letter for letter in letters if letter not in words]
        if unknown or len(letters) != layers:
            field = "layer_types" if named is not None else "hybrid_override_pattern"
            what = f"has {len(letters)} entries for {layers} layers" if not unknown else f"names {unknown[0]!r}"
            raise ParamsError(f"{fields.where}: {field} {what}: not known here")
        fields.get("full_attention_interval", "sliding_window_pattern", "sliding_window")
        return [words[letter] for letter in letters]
    if kind == "jamba":
        period, offset = fields.number("attn_layer_period"), fields.maybe("attn_layer_offset")
        if offset is None:
            raise ParamsError(f"{fields.where}: attn_layer_offset is missing")
        return ["full" if layer % period == offset else "mamba1" for layer in range(layers)]
    if not fields.get("sliding_window") or fields.get("use_sliding_window") is False:
        return ["full"] * layers
    if kind in _FULL_EVERY:
        every = fields.maybe("sliding_window_pattern") or _FULL_EVERY[kind]
        return ["window" if (layer + 1) % every else "full" for layer in range(layers)]
    if fields.get("use_sliding_window"):                # Qwen2Config: the layers from max_window_layers on slide
        first = fields.number("max_window_layers")
        return ["full" if layer < first else "window" for layer in range(layers)]
    if kind in _ALL_WINDOW:
        return ["window"] * layers
    raise ParamsError(f"{fields.where}: layer_types is missing: nothing says which layers sliding_window is for")


def _mamba1(fields: _Fields, count: int) -> State:
    """MambaStateShapeCalculator.mamba1_state_shape: the inner width times state size, and the convolution's tail."""
    width = fields.number("mamba_expand") * fields.number("hidden_size")
    tail = fields.number("mamba_d_conv") - 1
    own = _model_bytes(fields)
    fields.get("mamba_dt_rank", "mamba_conv_bias", "mamba_proj_bias", "mamba_inner_layernorms")
    return State(count, width * tail, width * fields.number("mamba_d_state"), own, _ssm_bytes(fields, own), width)


def _mamba2(fields: _Fields, count: int) -> State:
    """MambaStateShapeCalculator.mamba2_state_shape."""
    heads = fields.number("mamba_num_heads", "mamba_n_heads")
    size, state = fields.number("mamba_head_dim", "mamba_d_head"), fields.number("ssm_state_size", "mamba_d_state")
    groups = fields.number("n_groups", "mamba_n_groups")
    tail = fields.number("conv_kernel", "mamba_d_conv") - 1
    own = _model_bytes(fields)
    fields.get("mamba_hidden_act", "mamba_proj_bias", "mamba_expand", "use_mamba_kernels", "mamba_chunk_size")
    return State(count, (heads * size + 2 * groups * state) * tail, heads * size * state, own,
                 _ssm_bytes(fields, own), groups)


def _delta_net(fields: _Fields, count: int) -> State:
    """MambaStateShapeCalculator.gated_delta_net_state_shape (Qwen3-Next, Qwen3.5)."""
    key_heads, value_heads = fields.number("linear_num_key_heads"), fields.number("linear_num_value_heads")
    key, value = fields.number("linear_key_head_dim"), fields.number("linear_value_head_dim")
    tail = fields.number("linear_conv_kernel_dim") - 1
    own = _model_bytes(fields)
    return State(count, (2 * key * key_heads + value * value_heads) * tail, value_heads * value * key, own,
                 _ssm_bytes(fields, own), key_heads)


_STATES = {"mamba1": _mamba1, "mamba2": _mamba2, "delta_net": _delta_net}
_WORDS = {"full_attention": "full", "attention": "full", "sliding_attention": "window",
          "linear_attention": "delta_net", "mamba": "mamba2"}
_LETTERS = {"*": "full", "M": "mamba2", "-": "none", "E": "none"}      # NemotronHConfig
_TYPES = {"bfloat16": 2, "float16": 2, "float32": 4}


def _model_bytes(fields: _Fields) -> int:
    """The convolution's tail has the model's own type (``mamba_cache_dtype`` auto)."""
    name = fields.get("dtype", "torch_dtype")
    if not isinstance(name, str) or name not in _TYPES:
        raise ParamsError(f"{fields.where}: dtype is {name or 'missing'!r}: one of {list(_TYPES)}")
    return _TYPES[name]


def _ssm_bytes(fields: _Fields, own: int) -> int:
    name = fields.get("mamba_ssm_cache_dtype", "mamba_ssm_dtype")
    if name is not None and (not isinstance(name, str) or name not in _TYPES):
        raise ParamsError(f"{fields.where}: mamba_ssm_dtype is {name!r}: one of {list(_TYPES)}")
    return own if name is None else _TYPES[name]
