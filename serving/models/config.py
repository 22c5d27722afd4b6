"""The data-only configuration of a decoder, read from a Hugging Face config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from spark_llm.serving.core import EngineFailure

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """A pre-norm transformer decoder with rotary positions, grouped-query attention and a SwiGLU feed-forward."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    norm_eps: float
    max_positions: int
    rope: Json = field(default_factory=dict)  # rope_type, rope_theta and what the type needs
    qk_norm: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    tied_embeddings: bool = False

    def kv_bytes_per_token(self, item_size: int) -> int:
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim * item_size


def _llama(raw: Json) -> dict[str, bool]:
    bias = bool(raw.get("attention_bias", False))
    return {"qkv_bias": bias, "output_bias": bias, "mlp_bias": bool(raw.get("mlp_bias", False))}


def _qwen2(raw: Json) -> dict[str, bool]:  # noqa: ARG001 - one signature for all families
    return {"qkv_bias": True}


def _qwen3(raw: Json) -> dict[str, bool]:
    bias = bool(raw.get("attention_bias", False))
    return {"qkv_bias": bias, "output_bias": bias, "qk_norm": True}


ARCHITECTURES = {"LlamaForCausalLM": _llama, "Qwen2ForCausalLM": _qwen2, "Qwen3ForCausalLM": _qwen3}
"""What each supported architecture adds to the common fields."""
SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
"""What a config.json must hold."""


def read_config(raw: Json) -> DecoderConfig:
    """Translate a config.json.

    Raises
    ------
    EngineFailure
        `LLM_UNSUPPORTED_MODEL` for an architecture, activation or attention outside of what the decoder computes;
        `LLM_ENGINE_START` for a missing size.
    """
    architecture = next(iter(raw.get("architectures") or ["(none named)"]))
    if architecture not in ARCHITECTURES:
        raise _unsupported("architecture", architecture, ", ".join(ARCHITECTURES))
    if (activation := raw.get("hidden_act", "silu")) != "silu":
        raise _unsupported("activation", activation, "silu")
    if raw.get("use_sliding_window") or "sliding_attention" in (raw.get("layer_types") or ()):
        raise _unsupported("attention", "sliding_attention", "full_attention")
    if missing := [name for name in SIZES if name not in raw]:
        message = f"engine 'native' cannot serve the model: its config.json lacks {', '.join(missing)}."
        raise EngineFailure("LLM_ENGINE_START", message, "Use a complete checkpoint.")
    return DecoderConfig(
        vocab_size=raw["vocab_size"],
        hidden_size=raw["hidden_size"],
        intermediate_size=raw["intermediate_size"],
        num_layers=raw["num_hidden_layers"],
        num_heads=raw["num_attention_heads"],
        num_kv_heads=raw.get("num_key_value_heads") or raw["num_attention_heads"],
        head_dim=raw.get("head_dim") or raw["hidden_size"] // raw["num_attention_heads"],
        norm_eps=raw.get("rms_norm_eps", 1e-6),
        max_positions=raw.get("max_position_embeddings", 2048),
        rope=_rope(raw),
        tied_embeddings=bool(raw.get("tie_word_embeddings", False)),
        **ARCHITECTURES[architecture](raw),
    )


def _rope(raw: Json) -> Json:
    """`rope_parameters` since transformers 5, `rope_theta` and `rope_scaling` (with `type` or `rope_type`) before."""
    found = {"rope_theta": raw.get("rope_theta", 10000.0), **(raw.get("rope_scaling") or {})}
    found |= raw.get("rope_parameters") or {}
    return {**found, "rope_type": found.get("rope_type") or found.get("type") or "default"}


def _unsupported(what: str, value: str, accepted: str) -> EngineFailure:
    return EngineFailure(
        "LLM_UNSUPPORTED_MODEL",
        f"{what} '{value}' is not supported by the native engine; supported: {accepted}.",
        "Choose a supported model, or SET spark.llm.engine=vllm.",
    )
