"""The KV model against published configs; the expected bytes were worked out by hand from the formulas' sources."""

import contextlib
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.errors import ParamsError
from kit.kv import KvShape, Layers, bytes_per_token, rank_bytes, request_bytes, state_bytes
from kit.kv_config import load_shape, shape_of
from kit.paths import root

CASES = [json.loads(path.read_text()) for path in sorted((root() / "tests/data/kv").glob("*.json"))]
KNOWN = [case for case in CASES if "refused" not in case]
PLAIN = {"model_type": "anything", "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 2,
         "head_dim": 64}


def shape(name):
    return shape_of(next(case["config"] for case in CASES if case["model"].endswith(name)))


@pytest.mark.parametrize("case", KNOWN, ids=lambda case: case["model"])
def test_published_config(case):
    read = shape_of(case["config"])
    assert bytes_per_token(read) == case["bytes_per_token"]
    assert state_bytes(read) == case["state_bytes"]


@pytest.mark.parametrize("case", [case for case in CASES if "refused" in case], ids=lambda case: case["model"])
def test_what_is_not_modelled_is_refused_by_field(case):
    with pytest.raises(ParamsError, match=case["refused"]):
        shape_of(case["config"])


def test_enough_architectures():
    assert len({case["config"].get("text_config", case["config"])["model_type"] for case in KNOWN}) >= 15


def test_cache_dtypes():
    assert bytes_per_token(shape("Qwen2.5-7B"), "fp8") == 28_672
    assert bytes_per_token(shape("DeepSeek-V3"), "fp8") == 61 * 576
    assert bytes_per_token(shape("DeepSeek-V3.2"), "fp8_ds_mla") == 61 * (656 + 132)
    with pytest.raises(ParamsError, match="fp8_ds_mla"):
        bytes_per_token(shape("Qwen2.5-7B"), "fp8_ds_mla")
    with pytest.raises(ParamsError, match="int3"):
        bytes_per_token(shape("Qwen2.5-7B"), "int3")


def test_tensor_parallel_ranks():
    llama, latent = shape("Meta-Llama-3.1-8B"), shape("DeepSeek-V3")
    assert bytes_per_token(llama, tp=8) == bytes_per_token(llama)
    assert bytes_per_token(llama, tp=16) == 2 * bytes_per_token(llama)         # 8 heads, held twice
    assert rank_bytes(bytes_per_token(llama, tp=8), 8) == 16_384
    assert bytes_per_token(latent, tp=8) == 8 * bytes_per_token(latent)        # every rank holds the latent vector
    with pytest.raises(ParamsError, match="32 attention heads"):
        bytes_per_token(llama, tp=3)
    with pytest.raises(ParamsError, match="8 groups"):
        state_bytes(shape("Nemotron-H-56B-Base-8K"), tp=64)


def test_blocks_and_chunks():
    qwen = shape("Qwen2.5-7B")
    assert request_bytes(qwen, 512) == 28 * 2**20
    assert request_bytes(qwen, 513, unit_tokens=16) == 528 * 57_344
    assert request_bytes(qwen, 513, unit_tokens=256, rounding="down") == 512 * 57_344
    assert request_bytes(qwen, 0) == 0
    with pytest.raises(ParamsError, match="negative"):
        request_bytes(qwen, -1)
    with pytest.raises(ParamsError, match="at least one"):
        request_bytes(qwen, 1, unit_tokens=0)


def test_windows():
    oss = shape("gpt-oss-20b")
    assert oss.has_windows
    assert request_bytes(oss, 4096) == 12 * 2048 * 4096 + 12 * 2048 * 128
    assert request_bytes(oss, 4096, keep_windows=False) == 24 * 2048 * 4096
    assert request_bytes(oss, 4100, unit_tokens=16) == 12 * 2048 * 4112 + 12 * 2048 * (4112 - 3968)
    assert request_bytes(shape("gemma-4-26B-A4B"), 1000) == 1000 * 225_280


def test_recurrent_state_does_not_grow():
    hybrid = shape("Qwen3.5-27B")
    assert request_bytes(hybrid, 2000) - request_bytes(hybrid, 1000) == 1000 * 65_536
    assert request_bytes(hybrid, 0) == 0


@pytest.mark.parametrize("missing", ["model_type", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"])
def test_a_missing_field_is_named(missing):
    with pytest.raises(ParamsError, match=f"{missing} is missing"):
        shape_of({name: value for name, value in PLAIN.items() if name != missing})


@pytest.mark.parametrize(("more", "named"), [
    ({"num_hidden_layers": -3}, "num_hidden_layers"),
    ({"num_hidden_layers": "two"}, "num_hidden_layers"),
    ({"head_dim": None, "hidden_size": 100}, "head_dim"),
    ({"head_dim": None}, "hidden_size"),
    ({"sliding_window": 4096}, "layer_types"),
    ({"layer_types": ["full_attention"]}, "1 entries for 2 layers"),
    ({"layer_types": ["full_attention", "chunked_attention"]}, "chunked_attention"),
    ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding_window"),
    ({"kv_lora_rank": 256}, "kv_lora_rank"),
    ({"cross_attention_layers": [3]}, "cross_attention_layers"),
    ({"block_configs": [{}, {}]}, "block_configs[0].attention is missing"),
    ({"block_configs": [{"attention": {}}] * 2}, "n_heads_in_group"),
    ({"model_type": "falcon", "num_key_value_heads": None}, "multi_query"),
    ({"model_type": "jamba", "attn_layer_period": 2}, "attn_layer_offset"),
    ({"hybrid_override_pattern": "*?"}, "hybrid_override_pattern"),
])
def test_nonsense_is_refused_by_field(more, named):
    with pytest.raises(ParamsError, match=re.escape(named)):
        shape_of(PLAIN | more)


def test_windows_of_qwen2_start_at_a_layer():
    config = PLAIN | {"sliding_window": 128, "use_sliding_window": True, "max_window_layers": 1}
    assert [group.window_tokens for group in shape_of(config).layers] == [None, 128]


def test_shared_layers_are_cached_once():
    assert bytes_per_token(shape_of(PLAIN | {"num_kv_shared_layers": 1})) == 512


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=3), max_leaves=4)
FIELDS = sorted([*PLAIN, "layer_types", "sliding_window", "num_kv_shared_layers", "block_configs", "text_config",
                 "hybrid_override_pattern"])


@given(JSON, st.sampled_from(FIELDS))
def test_any_value_gives_a_shape_or_a_params_error(value, name):
    with contextlib.suppress(ParamsError):
        assert isinstance(shape_of(PLAIN | {name: value}), KvShape)


def test_files(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(PLAIN))
    assert load_shape(tmp_path) == load_shape(tmp_path / "config.json")
    (tmp_path / "config.json").write_text("{")
    for path in (tmp_path, tmp_path / "absent.json"):
        with pytest.raises(ParamsError):
            load_shape(path)
    with pytest.raises(ParamsError, match="expected an object"):
        shape_of([])


SHAPES = st.sampled_from([shape_of(case["config"]) for case in KNOWN])
TOKENS = st.integers(0, 200_000)


@given(SHAPES, TOKENS, TOKENS, st.sampled_from([1, 16, 256]), st.booleans())
def test_more_tokens_never_cost_less(model, first, second, unit, windows):
    few, many = sorted((first, second))
    assert (request_bytes(model, few, unit_tokens=unit, keep_windows=windows)
            <= request_bytes(model, many, unit_tokens=unit, keep_windows=windows) + _slack(model, unit, windows))


def _slack(model, unit, windows):
    """A window that ends inside a block touches one more block than one that ends with it."""
    return bytes_per_token(model) * unit if windows and model.has_windows else 0


@given(st.integers(1, 200), st.integers(1, 64), TOKENS)
def test_linear_in_layers(count, heads, tokens):
    one, many = (KvShape("x", heads, (Layers(number, heads, 256),)) for number in (1, count))
    assert request_bytes(many, tokens) == count * request_bytes(one, tokens)


@given(st.lists(TOKENS, max_size=5))
def test_additive_over_requests_without_windows_or_states(prompts):
    qwen = shape("Qwen2.5-7B")
    assert sum(request_bytes(qwen, tokens) for tokens in prompts) == request_bytes(qwen, sum(prompts))
