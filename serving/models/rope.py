"""Frequencies of rotary position embeddings, with the scalings that stretch a model's context."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from spark_llm.serving.core import EngineFailure
from torch import Tensor

Parameters = Mapping[str, Any]
Scaled = tuple[Tensor, float]
"""Frequencies, and the factor of all cosines and sines."""


def _default(frequencies: Tensor, rope: Parameters) -> Scaled:  # noqa: ARG001 - one signature for all scalings
    """Also `dynamic`, which changes nothing up to the model's own context, beyond which the engine never goes."""
    return frequencies, 1.0


def _linear(frequencies: Tensor, rope: Parameters) -> Scaled:
    return frequencies / rope["factor"], 1.0


def _yarn(frequencies: Tensor, rope: Parameters) -> Scaled:
    """Slow waves are slowed by `factor`, fast ones kept, with a ramp between them (YaRN, arXiv 2309.00071)."""
    base, width = rope["rope_theta"], 2 * len(frequencies)
    original = rope.get("original_max_position_embeddings") or rope["max_position_embeddings"]
    factor = rope.get("factor") or rope["max_position_embeddings"] / original

    def dimension(turns: float) -> float:
        return width * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base))

    low, high = dimension(rope.get("beta_fast") or 32), dimension(rope.get("beta_slow") or 1)
    if rope.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    ramp = ((torch.arange(len(frequencies)) - low) / max(high - low, 0.001)).clamp(0, 1)
    return frequencies / factor * ramp + frequencies * (1 - ramp), _yarn_attention(rope, factor)


def _yarn_attention(rope: Parameters, factor: float) -> float:
    def scale(mscale: float) -> float:
        return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0

    if (given := rope.get("attention_factor")) is not None:
        return float(given)
    if rope.get("mscale") and rope.get("mscale_all_dim"):
        return scale(rope["mscale"]) / scale(rope["mscale_all_dim"])
    return scale(1.0)


def _llama3(frequencies: Tensor, rope: Parameters) -> Scaled:
    """Long waves are slowed by `factor`, short ones kept, those between interpolated (Llama 3.1 report)."""
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    turns = rope["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    smooth = ((turns - low) / (high - low)).clamp(0, 1)
    return (1 - smooth) * frequencies / factor + smooth * frequencies, 1.0


SCALINGS: dict[str, Callable[[Tensor, Parameters], Scaled]] = {
    "default": _default,
    "dynamic": _default,
    "linear": _linear,
    "llama3": _llama3,
    "yarn": _yarn,
}


def rope_table(rope: Parameters, head_dim: int, length: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of all angles, each [length, head_dim / 2] in float32.

    Raises
    ------
    EngineFailure
        `LLM_UNSUPPORTED_MODEL` for another scaling than those of `SCALINGS`.
    """
    if (kind := rope["rope_type"]) not in SCALINGS:
        raise EngineFailure(
            "LLM_UNSUPPORTED_MODEL",
            f"rope scaling '{kind}' is not supported by the native engine; supported: {', '.join(SCALINGS)}.",
            "Choose a supported model, or SET spark.llm.engine=vllm.",
        )
    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
    frequencies, factor = SCALINGS[kind](1.0 / rope["rope_theta"] ** exponents, rope)
    angles = torch.arange(length, dtype=torch.float32)[:, None] * frequencies
    return angles.cos() * factor, angles.sin() * factor
