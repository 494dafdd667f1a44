"""The model that is made on the spot, read back without any serving software."""

import json
import math

import numpy as np
import pytest

from kit.errors import LabError
from kit.lab.pd import model


@pytest.fixture
def made(tmp_path):
    return model.make_model(tmp_path)


def tensors(folder):
    raw = (folder / "model.safetensors").read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:8 + size])
    header.pop("__metadata__")
    return header, raw[8 + size:]


def test_same_bytes_every_time(made, tmp_path):
    other = model.make_model(tmp_path / "other")
    assert other.digest == made.digest
    before = (made.folder / "model.safetensors").stat().st_mtime_ns
    assert model.make_model(tmp_path) == made
    assert (made.folder / "model.safetensors").stat().st_mtime_ns == before, "it was not written again"


@pytest.mark.parametrize("spoil", [
    lambda folder: (folder / "config.json").write_text("{}"),
    lambda folder: (folder / "tokenizer.json").unlink(),
    lambda folder: (folder / "left_over.json").write_text("{}")])
def test_a_spoiled_one_is_made_again(made, tmp_path, spoil):
    spoil(made.folder)
    assert model.make_model(tmp_path).digest == made.digest
    assert not (made.folder / "left_over.json").exists()
    assert (made.folder / "tokenizer.json").exists()


def test_weights_have_the_shapes_that_the_configuration_says(made):
    config = json.loads((made.folder / "config.json").read_text())
    header, data = tensors(made.folder)
    end = 0
    for name, entry in sorted(header.items()):
        start, stop = entry["data_offsets"]
        assert (entry["dtype"], start) == ("F32", end), name
        assert stop - start == 4 * math.prod(entry["shape"]), name
        end = stop
    assert end == len(data)
    head = config["hidden_size"] // config["num_attention_heads"]
    assert header["model.embed_tokens.weight"]["shape"] == [config["vocab_size"], config["hidden_size"]]
    assert header["model.layers.3.self_attn.k_proj.weight"]["shape"] == [
        config["num_key_value_heads"] * head, config["hidden_size"]]
    assert made.kv_bytes_per_token == 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * head * 4
    assert made.context_tokens == config["max_position_embeddings"] >= 8192


def test_weights_are_noise_of_the_right_spread(made):
    header, data = tensors(made.folder)
    start, stop = header["model.embed_tokens.weight"]["data_offsets"]
    weights = np.frombuffer(data[start:stop], "<f4")
    assert abs(weights.std() - 0.15) < 0.001
    assert abs(weights.mean()) < 0.001
    start, stop = header["model.norm.weight"]["data_offsets"]
    assert set(np.frombuffer(data[start:stop], "<f4")) == {1.0}


def test_each_token_is_one_and_can_be_merged(made):
    config = json.loads((made.folder / "config.json").read_text())
    tokenizer = json.loads((made.folder / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    assert sorted(vocabulary.values()) == list(range(config["vocab_size"]))
    known = {token for token, number in vocabulary.items() if number < 256}
    assert len(known) == 256, "one letter a byte"
    for merge in tokenizer["model"]["merges"]:
        left, right = merge.split(" ")
        assert {left, right} <= known, merge
        known.add(left + right)
    assert len(known) == config["vocab_size"] - len(tokenizer["added_tokens"])


def test_no_room(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LabError):
        model.make_model(tmp_path / "file" / "deeper")
