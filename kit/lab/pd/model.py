"""A tiny model of Qwen2's shape with its tokenizer, made on the spot: no download, the same bytes every time.

The weights are noise, so what it says means nothing; how it is served, and how many bytes its KV cache has, is real.
All random numbers come from SHAKE-256, which gives the same stream on every machine and in every version. The file
format is safetensors: the header's length as 8 bytes, the header as JSON, the tensors
(https://huggingface.co/docs/safetensors, "Format").
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kit.errors import LabError
from kit.files import store_error

NAME = "tiny-qwen2"
_LAYERS, _HIDDEN, _INNER, _HEADS, _KV_HEADS, _HEAD = 4, 256, 512, 4, 2, 64
_VOCABULARY, _CONTEXT = 4096, 16384
_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
# The spread of the weights: wide enough that two prompts get two answers, also in bfloat16.
_SPREAD = 0.15
_CHAT = ("{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
         "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")


@dataclass(frozen=True)
class Model:
    """A model folder. ``digest`` is that of all its files, names and contents."""

    folder: Path
    digest: str
    kv_bytes_per_token: int = 2 * _LAYERS * _KV_HEADS * _HEAD * 4     # K and V, in float32
    context_tokens: int = _CONTEXT


def make_model(into: Path) -> Model:
    """The model in ``into/tiny-qwen2``, written when it is not there whole. Raises LabError when it cannot be."""
    folder = into / NAME
    files = _files()
    digest = _digest(files)
    if {path.name for path in folder.glob("*")} == set(files) and \
            _digest({path.name: path.read_bytes() for path in folder.iterdir()}) == digest:
        return Model(folder, digest)
    try:
        into.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=into, prefix=".model-") as scratch:
            aside = Path(scratch) / NAME
            aside.mkdir()
            for name, data in files.items():
                (aside / name).write_bytes(data)
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(aside, folder)
    except OSError as error:
        raise LabError(store_error(folder, error).what, remedy="free space there, or set KIT_CACHE") from error
    return Model(folder, digest)


def _files() -> dict[str, bytes]:
    end = _VOCABULARY - 1
    return {
        "config.json": _json({
            "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu",
            "vocab_size": _VOCABULARY, "hidden_size": _HIDDEN, "intermediate_size": _INNER,
            "num_hidden_layers": _LAYERS, "num_attention_heads": _HEADS, "num_key_value_heads": _KV_HEADS,
            "max_position_embeddings": _CONTEXT, "rope_theta": 1000000.0, "rms_norm_eps": 1e-6,
            "initializer_range": _SPREAD, "attention_dropout": 0.0, "use_sliding_window": False, "use_cache": True,
            "tie_word_embeddings": True, "torch_dtype": "float32", "bos_token_id": end - 2, "eos_token_id": end,
            "pad_token_id": end - 2}),
        "generation_config.json": _json({"bos_token_id": end - 2, "eos_token_id": end, "pad_token_id": end - 2}),
        "model.safetensors": _weights(),
        "tokenizer.json": _json(_tokenizer()),
        "tokenizer_config.json": _json({
            "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": _SPECIAL[2], "pad_token": _SPECIAL[0],
            "model_max_length": _CONTEXT, "clean_up_tokenization_spaces": False, "chat_template": _CHAT}),
    }


def _shapes() -> dict[str, tuple[int, ...]]:
    kv = _KV_HEADS * _HEAD
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (_VOCABULARY, _HIDDEN),
                                          "model.norm.weight": (_HIDDEN,)}
    for number in range(_LAYERS):
        layer = f"model.layers.{number}"
        for name, size in (("q", _HEADS * _HEAD), ("k", kv), ("v", kv)):
            shapes[f"{layer}.self_attn.{name}_proj.weight"] = (size, _HIDDEN)
            shapes[f"{layer}.self_attn.{name}_proj.bias"] = (size,)
        shapes |= {f"{layer}.self_attn.o_proj.weight": (_HIDDEN, _HEADS * _HEAD),
                   f"{layer}.mlp.gate_proj.weight": (_INNER, _HIDDEN),
                   f"{layer}.mlp.up_proj.weight": (_INNER, _HIDDEN),
                   f"{layer}.mlp.down_proj.weight": (_HIDDEN, _INNER),
                   f"{layer}.input_layernorm.weight": (_HIDDEN,),
                   f"{layer}.post_attention_layernorm.weight": (_HIDDEN,)}
    return shapes


def _weights() -> bytes:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    parts, start = [], 0
    for name, shape in sorted(_shapes().items()):
        data = (np.ones(shape, "<f4") if "norm" in name else _noise(name, math.prod(shape))).tobytes()
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, start + len(data)]}
        parts.append(data)
        start += len(data)
    said = json.dumps(header, separators=(",", ":")).encode()
    said += b" " * (-len(said) % 8)
    return b"".join([len(said).to_bytes(8, "little"), said, *parts])


def _noise(name: str, count: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Evenly spread over ±sqrt(3) * _SPREAD, which has a standard deviation of _SPREAD."""
    raw = np.frombuffer(hashlib.shake_256(name.encode()).digest(4 * count), "<u4")
    return ((raw / 2**31 - 1) * (_SPREAD * math.sqrt(3))).astype("<f4")


def _tokenizer() -> dict[str, object]:
    """Bytes and made-up words, each word one token with the space before it: text of words keeps its length.

    `vllm bench serve` draws token ids, decodes them, and counts what they encode to again. Byte-pair merges in order:
    letters to syllables, a space before a syllable, and a second syllable behind it.
    """
    consonants, vowels = "bcdfghjklmnprstvwz", "aeiou"
    syllables = [a + b for a in consonants for b in vowels]
    room = _VOCABULARY - 256 - 2 * len(syllables) - len(_SPECIAL)
    pairs = [*itertools.product(consonants, vowels), *(("Ġ", one) for one in syllables),
             *itertools.islice(((f"Ġ{one}", two) for one in syllables for two in syllables), room)]
    tokens = [*_byte_letters(), *map("".join, pairs), *_SPECIAL]
    added = [{"id": number, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": True}
             for number, text in enumerate(_SPECIAL, _VOCABULARY - len(_SPECIAL))]
    pieces = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
            "pre_tokenizer": pieces, "post_processor": None, "decoder": pieces,
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                      "vocab": {token: number for number, token in enumerate(tokens)},
                      "merges": [f"{left} {right}" for left, right in pairs]}}


def _byte_letters() -> list[str]:
    """One visible letter for each byte 0..255, as byte-level BPE has them since GPT-2: printable ones stand for
    themselves, the others for the letters from U+0100 on."""
    plain = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    other = itertools.count(0x100)
    return [chr(byte if byte in plain else next(other)) for byte in range(256)]


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _digest(files: dict[str, bytes]) -> str:
    whole = hashlib.sha256()
    for name, data in sorted(files.items()):
        whole.update(f"{name} {hashlib.sha256(data).hexdigest()}\n".encode())
    return whole.hexdigest()
