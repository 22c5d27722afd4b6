"""Model directories: what is read from them, what is refused by name, what identifies them."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from spark_llm.serving.core import EngineFailure, ModelRef
from spark_llm.serving.models.config import ARCHITECTURES, read_config
from spark_llm.serving.models.directory import find_model, model_identity, read_json
from spark_llm.serving.models.rope import rope_table
from spark_llm.serving.models.weights import load_weights
from spark_llm.serving.settings import NativeSettings
from transformers import AutoConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from tests.serving.native_checkpoints import LLAMA3, YARN, engine_for, write_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("llama"))


def edit(directory, name="config.json", **changes):
    file = directory / name
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"architectures": ["MambaForCausalLM"]}, "architecture 'MambaForCausalLM'"),
        ({"architectures": None}, "architecture '(none named)'"),
        ({"hidden_act": "gelu"}, "activation 'gelu'"),
        ({"use_bidirectional_attention": True}, "attention 'bidirectional'"),
        ({"partial_rotary_factor": 0.5}, "rotation of a part of the head '0.5'"),
        ({"rope_parameters": {"rope_type": "longrope", "factor": 2.0}}, "rope scaling 'longrope'"),
    ],
)
def test_what_the_decoder_does_not_compute_is_refused_by_name(tmp_path, changes, named):
    directory = write_checkpoint(tmp_path)
    edit(directory, **changes)
    with pytest.raises(EngineFailure) as caught:
        engine_for(directory)
    assert caught.value.condition == "LLM_UNSUPPORTED_MODEL"
    assert caught.value.message.startswith(f"{named} is not supported by the native engine; supported: ")
    assert not named.startswith("architecture") or all(name in caught.value.message for name in ARCHITECTURES)


def test_a_missing_size_is_named():
    with pytest.raises(EngineFailure, match="lacks hidden_size, intermediate_size"):
        read_config({"architectures": ["LlamaForCausalLM"], "vocab_size": 8})


def test_configurations_of_before_transformers_5_are_read(checkpoint):
    raw = json.loads((checkpoint / "config.json").read_text())
    del raw["rope_parameters"]
    scaling = {k: v for k, v in LLAMA3.items() if k != "rope_theta"}
    assert read_config(raw | {"rope_theta": 5.0}).rope == {"rope_theta": 5.0, "rope_type": "default"}
    assert read_config(raw | {"rope_theta": 500.0, "rope_scaling": scaling}).rope == LLAMA3
    assert read_config(raw | {"rope_scaling": {"type": "linear", "factor": 2.0}}).rope["rope_type"] == "linear"


@pytest.mark.parametrize(
    "rope",
    [
        LLAMA3,
        {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
        YARN,
        YARN | {"attention_factor": 0.7, "beta_fast": 16, "beta_slow": 2},
        YARN | {"mscale": 1.2, "mscale_all_dim": 0.8},
        YARN | {"truncate": False},
    ],
    ids=str,
)
def test_rotary_tables_equal_transformers(checkpoint, rope):
    config = AutoConfig.from_pretrained(checkpoint, rope_parameters=rope, head_dim=32)
    frequencies, factor = ROPE_INIT_FUNCTIONS[rope["rope_type"]](config, "cpu")
    cos, sin = rope_table(rope, 32, 200)
    angles = torch.arange(200.0)[:, None] * frequencies
    torch.testing.assert_close(cos, angles.cos() * factor, atol=1e-5, rtol=0)
    torch.testing.assert_close(sin, angles.sin() * factor, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["/nowhere/model", "some/unknown-model"])
def test_unknown_models_are_named(name, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(EngineFailure, match=f"model '{name}' is neither a directory") as caught:
        find_model(name)
    assert caught.value.condition == "LLM_UNKNOWN_MODEL"


def test_incomplete_checkpoints_are_named(tmp_path):
    directory = write_checkpoint(tmp_path)
    edit(directory, num_hidden_layers=4)
    with pytest.raises(EngineFailure, match=r"no tensor 'model.layers.3.input_layernorm.weight'"):
        engine_for(directory)
    (directory / "model.safetensors").unlink()
    with pytest.raises(EngineFailure, match=r"neither model\.safetensors nor"):
        engine_for(directory)


@pytest.mark.parametrize("family", ["llama-biased", "qwen3", "qwen3-moe", "mixtral", "gemma2"])
def test_a_tensor_of_another_shape_is_named_with_both_shapes(tmp_path, family):
    """One element less in the first or last dimension of any tensor of a layer, of the embedding, norm or head."""
    directory = write_checkpoint(tmp_path, family)
    config, file = read_config(read_json(directory / "config.json")), directory / "model.safetensors"
    whole = load_file(file)
    for name in [name for name in whole if "layers.0" not in name]:
        for dimension in {0, whole[name].dim() - 1}:
            cut = whole[name].narrow(dimension, 0, whole[name].shape[dimension] - 1)
            save_file(whole | {name: cut.contiguous()}, file)
            with pytest.raises(EngineFailure) as caught:
                load_weights(directory, config, dtype=torch.bfloat16, device=torch.device("cpu"))
            assert caught.value.condition == "LLM_ENGINE_START"
            shapes = f"has the shape {[*cut.shape]}, by config.json it is {[*whole[name].shape]}"
            assert f"tensor '{name}' {shapes}" in caught.value.message


def test_identity_follows_what_decides_the_answers(tmp_path):
    directory = write_checkpoint(tmp_path / "a")
    same = write_checkpoint(tmp_path / "b")
    assert model_identity(directory) == model_identity(same) == engine_for(directory).capacity().model_identity
    edit(same, "tokenizer_config.json", chat_template="other")
    other = write_checkpoint(tmp_path / "c", tie_word_embeddings=True)
    assert len({model_identity(d) for d in (directory, same, other)}) == 3


@pytest.mark.parametrize(
    "args", [{"kv_token": 5}, {"kv_tokens": "5"}, {"max_running": 0}, {"dtype": "int8"}, {"threads": -1}]
)
def test_unusable_settings_are_named(args):
    with pytest.raises(EngineFailure, match="is not usable: ") as caught:
        NativeSettings.from_args(args)
    assert caught.value.condition == "LLM_BAD_CONF"


def test_the_default_cache_is_bounded(checkpoint):
    config = read_config(json.loads((checkpoint / "config.json").read_text()))
    pages = NativeSettings.from_args({}).kv_pages(config, torch.float32, torch.device("cpu"))
    assert 512 <= pages * 16 <= 1 << 17


def test_capacity_tells_what_the_engine_holds(checkpoint):
    capacity = engine_for(checkpoint, kv_tokens=1000, max_running=7).capacity()
    assert (capacity.kv_tokens, capacity.max_length, capacity.max_running) == (992, 512, 7)
    assert ModelRef("default").name == "default"
