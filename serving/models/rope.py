"""Frequencies of rotary position embeddings, with the scalings that stretch a model's context."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from spark_llm.serving.core import EngineFailure
from torch import Tensor

Parameters = Mapping[str, Any]


def _default(frequencies: Tensor, rope: Parameters) -> Tensor:  # noqa: ARG001 - one signature for all scalings
    return frequencies


def _linear(frequencies: Tensor, rope: Parameters) -> Tensor:
    return frequencies / rope["factor"]


def _llama3(frequencies: Tensor, rope: Parameters) -> Tensor:
    """Long waves are slowed by `factor`, short ones kept, those between interpolated (Llama 3.1 report)."""
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    turns = rope["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    smooth = ((turns - low) / (high - low)).clamp(0, 1)
    return (1 - smooth) * frequencies / factor + smooth * frequencies


SCALINGS: dict[str, Callable[[Tensor, Parameters], Tensor]] = {
    "default": _default,
    "linear": _linear,
    "llama3": _llama3,
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
    frequencies = SCALINGS[kind](1.0 / rope["rope_theta"] ** exponents, rope)
    angles = torch.arange(length, dtype=torch.float32)[:, None] * frequencies
    return angles.cos(), angles.sin()
