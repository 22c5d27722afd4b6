"""Model directories that are corrupt, incomplete or hostile: one clear error each, before anything is served."""

import contextlib
import json
import random
import shutil

import pytest
from spark_llm.serving.core import EngineFailure, ModelRef
from spark_llm.serving.engines.vllm import check_harmless
from spark_llm.serving.models.directory import model_identity
from spark_llm.serving.worker.replica import _load

from tests.serving.native_checkpoints import write_checkpoint

ROUNDS = 12


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def model(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "model")


def refusal(directory) -> EngineFailure:
    """The failure with which the replica would answer."""
    with pytest.raises(EngineFailure) as caught:
        _load(ModelRef(str(directory), args={"kv_tokens": 256}))
    assert caught.value.condition in {"LLM_ENGINE_START", "LLM_UNKNOWN_MODEL", "LLM_UNSUPPORTED_MODEL"}
    return caught.value


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff" * 64, b"\x80PK\x03"])
def test_a_corrupt_file_is_refused(model, file, content):
    (model / file).write_bytes(content)
    assert refusal(model).message


def test_a_file_cut_anywhere_is_refused(model, whole):
    rng, weights = random.Random(3), (whole / "model.safetensors").read_bytes()
    for _ in range(ROUNDS):
        (model / "model.safetensors").write_bytes(weights[: rng.randrange(len(weights))])
        assert "model.safetensors" in refusal(model).message


def test_a_header_of_absurd_length_costs_no_memory(model):
    (model / "model.safetensors").write_bytes((1 << 60).to_bytes(8, "little") + b"{}")
    assert refusal(model)
    assert len(model_identity(model)) == 64


def test_flipped_header_bytes_are_refused_or_harmless(model, whole):
    rng, weights = random.Random(4), (whole / "model.safetensors").read_bytes()
    size = int.from_bytes(weights[:8], "little")
    for _ in range(ROUNDS):
        changed = bytearray(weights)
        changed[rng.randrange(8 + size)] = rng.randrange(256)
        (model / "model.safetensors").write_bytes(changed)
        with contextlib.suppress(EngineFailure):
            _load(ModelRef(str(model), args={"kv_tokens": 256})).close()


@pytest.mark.parametrize(
    "change",
    [
        {"num_attention_heads": 8},
        {"num_key_value_heads": 1},
        {"hidden_size": 64},
        {"num_hidden_layers": 9},
        {"vocab_size": 7},
        {"num_hidden_layers": "many"},
        {"architectures": ["OddForCausalLM"]},
        {"rope_parameters": {"rope_type": "odd"}},
    ],
    ids=str,
)
def test_a_configuration_that_does_not_fit_its_weights_is_refused(model, change):
    raw = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(raw | change))
    assert refusal(model)


@pytest.mark.parametrize("file", ["../secret.safetensors", "/etc/passwd", "pytorch_model.bin", 7])
def test_an_index_names_safetensors_files_of_its_own_directory_only(model, file):
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"model.norm.weight": file}}))
    assert "no safetensors file of the directory" in refusal(model).message


def test_pickled_weights_are_not_read(model):
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    assert "safetensors" in refusal(model).message


@pytest.mark.parametrize("setting", [{"trust_remote_code": True}, {"load_format": "pt"}, {"load_format": "auto"}])
def test_vllm_runs_no_code_of_the_model_and_unpickles_nothing(setting):
    with pytest.raises(EngineFailure, match="would run code or unpickle"):
        check_harmless(setting)
