"""Settings of the native engine: what `spark.llm.engine.args` may hold, and what `auto` means on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from spark_llm.serving.arguments import read_arguments
from spark_llm.serving.core import EngineFailure
from spark_llm.serving.footprint import KV_SHARE, MAX_DEFAULT_KV_TOKENS, host_memory
from spark_llm.serving.models.config import DecoderConfig
from spark_llm.serving.scheduler.dlpm import QUANTUM
from spark_llm.serving.scheduler.policies import DEFAULT_POLICY, POLICIES

from spark_llm.errors import LlmError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class NativeSettings:
    """Engine arguments; 0 chooses by model and machine."""

    dtype: str = "auto"
    device: str = "auto"
    kv_tokens: int = 0
    max_batch_tokens: int = 2048
    max_running: int = 256
    max_length: int = 0
    page_size: int = 16
    policy: str = DEFAULT_POLICY
    quantum: int = int(QUANTUM)
    requests_per_minute: int = 600
    predict_lengths: bool = False
    threads: int = 0

    @classmethod
    def from_args(cls, args: Mapping[str, Any]) -> NativeSettings:
        """Check names and types.

        Raises
        ------
        EngineFailure
            `LLM_BAD_CONF`, naming the accepted settings.
        """
        choices = {"dtype": ["auto", *DTYPES], "policy": POLICIES}
        positive = ("max_batch_tokens", "max_running", "page_size", "quantum", "requests_per_minute")
        return cls(**read_arguments(cls, args, partial(_refused, args), choices=choices, positive=positive))

    def torch_device(self) -> torch.device:
        automatic = "cuda" if torch.cuda.is_available() else "cpu"
        return torch.device(automatic if self.device == "auto" else self.device)

    def torch_dtype(self, device: torch.device) -> torch.dtype:
        """bfloat16 on a GPU and on a CPU that multiplies it in hardware."""
        if self.dtype != "auto":
            return DTYPES[self.dtype]
        fast = device.type != "cpu" or torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
        return torch.bfloat16 if fast else torch.float32

    def kv_pages(self, config: DecoderConfig, dtype: torch.dtype, device: torch.device) -> int:
        """Pages of the KV cache: as many tokens as asked for, else as the memory share holds, within bounds."""
        tokens = self.kv_tokens
        if not tokens:
            fitting = int(_memory(device) * KV_SHARE) // config.kv_bytes_per_token(dtype.itemsize)
            tokens = min(fitting, MAX_DEFAULT_KV_TOKENS)
        return max(1, tokens // self.page_size)


def _memory(device: torch.device) -> int:
    if device.type == "cuda":
        return 2 * torch.cuda.mem_get_info(device)[0]
    return host_memory()


def _refused(args: Mapping[str, Any], _: str, detail: str) -> EngineFailure:
    error = LlmError("LLM_BAD_CONF", key="spark.llm.engine.args", value=dict(args), detail=detail)
    return EngineFailure(error.condition, error.message, error.remedy)
