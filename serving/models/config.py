"""The data-only configuration of a decoder, read from a Hugging Face config.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from spark_llm.serving.core import EngineFailure

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """A decoder with rotary positions, grouped-query attention and a gated feed-forward, dense or of experts.

    `windows` holds each layer's sliding window in tokens, 0 where a layer sees everything; layers with a window rotate
    by `local_rope` if there is one.
    """

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
    local_rope: Json | None = None
    windows: tuple[int, ...] = ()
    activation: str = "silu"
    qk_norm: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    tied_embeddings: bool = False
    norm_offset: float = 0.0  # added to the stored weights of all norms
    output_norms: bool = False  # attention and feed-forward are normalized once more before they are added
    embedding_scale: float = 1.0
    attention_scale: float = 0.0  # 0: head_dim ** -0.5
    attention_softcap: float = 0.0  # scores become cap * tanh(score / cap)
    logit_softcap: float = 0.0
    num_experts: int = 0
    experts_per_token: int = 0
    expert_size: int = 0
    normalized_experts: bool = True  # the chosen experts' weights sum to 1
    dense_layers: frozenset[int] = frozenset()  # of a model of experts
    names: str = "llama"  # of the tensors: a key of weights.LAYOUTS

    def kv_bytes_per_token(self, item_size: int) -> int:
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim * item_size

    @property
    def heads(self) -> tuple[int, int, int]:
        """Query heads, KV heads, head dimension."""
        return self.num_heads, self.num_kv_heads, self.head_dim

    @property
    def score_scale(self) -> float:
        return self.attention_scale or self.head_dim**-0.5

    def window(self, layer: int) -> int:
        return self.windows[layer] if self.windows else 0


Family = Callable[[Json], dict[str, Any]]


def _llama(raw: Json) -> dict[str, Any]:
    bias = bool(raw.get("attention_bias", False))
    return {"qkv_bias": bias, "output_bias": bias, "mlp_bias": bool(raw.get("mlp_bias", False))}


def _mistral(raw: Json) -> dict[str, Any]:
    return {"windows": _windows(raw)}


def _mixtral(raw: Json) -> dict[str, Any]:
    return {
        **_mistral(raw),
        "num_experts": raw.get("num_local_experts", 8),
        "experts_per_token": raw.get("num_experts_per_tok", 2),
        "expert_size": raw["intermediate_size"],
        "names": "mixtral",
    }


def _qwen2(raw: Json) -> dict[str, Any]:
    return {"qkv_bias": True, **_qwen_windows(raw)}


def _qwen3(raw: Json) -> dict[str, Any]:
    bias = bool(raw.get("attention_bias", False))
    return {"qkv_bias": bias, "output_bias": bias, "qk_norm": True, **_qwen_windows(raw)}


def _qwen3_moe(raw: Json) -> dict[str, Any]:
    every, dense = raw.get("decoder_sparse_step", 1), raw.get("mlp_only_layers") or ()
    layers = range(raw["num_hidden_layers"])
    return {
        **_qwen3(raw),
        "windows": _windows(raw) if raw.get("use_sliding_window") else (),
        "num_experts": raw.get("num_experts") or raw.get("num_local_experts", 128),
        "experts_per_token": raw.get("num_experts_per_tok", 8),
        "expert_size": raw.get("moe_intermediate_size", 768),
        "normalized_experts": bool(raw.get("norm_topk_prob", False)),
        "dense_layers": frozenset(i for i in layers if i in dense or (i + 1) % every),
    }


def _gemma(raw: Json) -> dict[str, Any]:
    """Gemma 1; hidden_act of its oldest files says gelu and means its approximation by tanh."""
    bias = bool(raw.get("attention_bias", False))
    return {
        "activation": "gelu_tanh",
        "qkv_bias": bias,
        "output_bias": bias,
        "norm_offset": 1.0,
        "embedding_scale": raw["hidden_size"] ** 0.5,
        "tied_embeddings": bool(raw.get("tie_word_embeddings", True)),
        "head_dim": raw.get("head_dim", 256),
    }


def _gemma2(raw: Json) -> dict[str, Any]:
    return {
        **_gemma(raw),
        "output_norms": True,
        "attention_scale": raw.get("query_pre_attn_scalar", 256) ** -0.5,
        "attention_softcap": raw.get("attn_logit_softcapping", 50.0) or 0.0,
        "logit_softcap": raw.get("final_logit_softcapping", 30.0) or 0.0,
        "windows": _windows(raw, pattern=2),
        "names": "gemma2",
    }


def _gemma3(raw: Json) -> dict[str, Any]:
    parameters = raw.get("rope_parameters") or {}
    nested = "full_attention" in parameters
    old = {"rope_theta": raw.get("rope_local_base_freq", 10000.0)}
    whole = parameters["full_attention"] if nested else {"rope_theta": 1e6, **raw, **parameters}
    return {
        **_gemma2(raw),
        "attention_softcap": raw.get("attn_logit_softcapping") or 0.0,
        "logit_softcap": raw.get("final_logit_softcapping") or 0.0,
        "qk_norm": True,
        "windows": _windows(raw, pattern=raw.get("sliding_window_pattern") or raw.get("_sliding_window_pattern") or 6),
        "rope": _rope({"rope_parameters": whole} if nested else whole),
        "local_rope": _rope({"rope_parameters": parameters["sliding_attention"]} if nested else old),
    }


ARCHITECTURES: dict[str, Family] = {
    "LlamaForCausalLM": _llama,
    "MistralForCausalLM": _mistral,
    "MixtralForCausalLM": _mixtral,
    "Qwen2ForCausalLM": _qwen2,
    "Qwen3ForCausalLM": _qwen3,
    "Qwen3MoeForCausalLM": _qwen3_moe,
    "GemmaForCausalLM": _gemma,
    "Gemma2ForCausalLM": _gemma2,
    "Gemma3ForCausalLM": _gemma3,
}
"""What each supported architecture adds to the common fields, or has instead of them."""
ACTIVATIONS = ("silu", "gelu_pytorch_tanh")
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
    gemma = architecture.startswith("Gemma")
    default, accepted = ("gelu_pytorch_tanh", ACTIVATIONS[1]) if gemma else ("silu", ACTIVATIONS[0])
    activation = (raw.get("hidden_activation") or default) if gemma else raw.get("hidden_act", default)
    if activation != accepted:
        raise _unsupported("activation", activation, accepted)
    if raw.get("use_bidirectional_attention"):
        raise _unsupported("attention", "bidirectional", "causal")
    if missing := [name for name in SIZES if name not in raw]:
        message = f"engine 'native' cannot serve the model: its config.json lacks {', '.join(missing)}."
        raise EngineFailure("LLM_ENGINE_START", message, "Use a complete checkpoint.")
    common = {
        "vocab_size": raw["vocab_size"],
        "hidden_size": raw["hidden_size"],
        "intermediate_size": raw["intermediate_size"],
        "num_layers": raw["num_hidden_layers"],
        "num_heads": raw["num_attention_heads"],
        "num_kv_heads": raw.get("num_key_value_heads") or raw["num_attention_heads"],
        "head_dim": raw.get("head_dim") or raw["hidden_size"] // raw["num_attention_heads"],
        "norm_eps": raw.get("rms_norm_eps", 1e-6),
        "max_positions": raw.get("max_position_embeddings", 2048),
        "tied_embeddings": bool(raw.get("tie_word_embeddings", False)),
    }
    special = ARCHITECTURES[architecture](raw)
    rope = special.pop("rope", None) or _rope(raw)
    if rope["rope_type"] == "yarn":
        rope = {"max_position_embeddings": common["max_positions"], **rope}
    return DecoderConfig(**(common | special), rope=rope)


def _qwen_windows(raw: Json) -> dict[str, Any]:
    """Qwen's upper layers slide, from `max_window_layers` on, if `use_sliding_window`."""
    if not raw.get("use_sliding_window"):
        return {}
    first = raw.get("max_window_layers", 28)
    kinds = ["sliding_attention" if i >= first else "full_attention" for i in range(raw["num_hidden_layers"])]
    return {"windows": _windows({"layer_types": kinds, **raw})}


def _windows(raw: Json, pattern: int = 0) -> tuple[int, ...]:
    """The window of each layer: by `layer_types`, else full attention in every `pattern`-th layer, else in none."""
    size, count = raw.get("sliding_window") or 0, raw["num_hidden_layers"]
    if not size and pattern:
        size = 4096
    full = [bool(pattern) and (i + 1) % pattern == 0 for i in range(count)]
    if kinds := raw.get("layer_types"):
        full = [kind == "full_attention" for kind in kinds]
    return tuple(0 if is_full else size for is_full in full) if size else ()


def _rope(raw: Json) -> Json:
    """`rope_parameters` since transformers 5, `rope_theta` and `rope_scaling` (with `type` or `rope_type`) before."""
    found = {"rope_theta": raw.get("rope_theta", 10000.0), **(raw.get("rope_scaling") or {})}
    found |= raw.get("rope_parameters") or {}
    if (share := raw.get("partial_rotary_factor", found.get("partial_rotary_factor", 1.0))) != 1.0:
        raise _unsupported("rotation of a part of the head", str(share), "1.0")
    return {**found, "rope_type": found.get("rope_type") or found.get("type") or "default"}


def _unsupported(what: str, value: str, accepted: str) -> EngineFailure:
    return EngineFailure(
        "LLM_UNSUPPORTED_MODEL",
        f"{what} '{value}' is not supported by the native engine; supported: {accepted}.",
        "Choose a supported model, or SET spark.llm.engine=vllm.",
    )
