"""The decoder's forward pass over the tokens of one step, with keys and values in the paged cache."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from spark_llm.kernels.kv_store import kv_copy, kv_store
from spark_llm.kernels.paged_attention import PagedBatch, paged_attention
from spark_llm.kernels.rms_norm import add_rms_norm, rms_norm
from spark_llm.kernels.rotary import rotate
from spark_llm.kernels.silu_and_mul import silu_and_mul
from spark_llm.serving.models.config import DecoderConfig
from spark_llm.serving.models.rope import rope_table
from spark_llm.serving.models.weights import DecoderWeights, LayerWeights
from torch import Tensor


@dataclass(frozen=True, slots=True)
class KVCache:
    """Keys and values of all layers, by page; zeroed, so that padded reads are finite."""

    k: Tensor  # [layers, pages, P, Hkv, D]
    v: Tensor

    @classmethod
    def zeros(
        cls, config: DecoderConfig, pages: int, page_size: int, dtype: torch.dtype, device: torch.device
    ) -> KVCache:
        shape = (config.num_layers, pages, page_size, config.num_kv_heads, config.head_dim)
        return cls(torch.zeros(shape, dtype=dtype, device=device), torch.zeros(shape, dtype=dtype, device=device))


@dataclass(frozen=True, slots=True)
class StepInput:
    """The tokens of a step and where their keys and values go."""

    token_ids: Tensor  # [T]
    positions: Tensor  # [T]
    slots: Tensor  # [T]
    copies: tuple[Tensor, Tensor] | None  # slots copied after each layer's store: source, target
    batch: PagedBatch
    logit_rows: Tensor  # [n]: the rows whose next token is asked for
    logit_batch: PagedBatch | None  # of these rows alone, for the last layer; None where there are none


class Decoder:
    """A model of the families in `config.ARCHITECTURES`."""

    def __init__(self, config: DecoderConfig, weights: DecoderWeights, max_length: int) -> None:
        self.config, self.weights = config, weights
        embedding = weights.embedding
        tables = rope_table(config.rope, config.head_dim, max_length)
        self.cos, self.sin = (table.to(embedding.device, embedding.dtype)[:, None] for table in tables)

    @torch.inference_mode()
    def forward(self, step: StepInput, cache: KVCache) -> Tensor:
        """Compute the step, store its keys and values, and return logits [n, vocab] in float32.

        The last layer is computed for the rows of the logits alone, but for its keys and values.
        """
        eps = self.config.norm_eps
        rotation = self.cos[step.positions], self.sin[step.positions]
        residual = self.weights.embedding[step.token_ids]
        x = torch.zeros_like(residual)
        for i, layer in enumerate(self.weights.layers):
            x, residual = add_rms_norm(x, residual, layer.input_norm, eps)
            q, k, v = self._project(x, layer, rotation)
            kv_store(k, v, cache.k[i], cache.v[i], step.slots)
            if step.copies is not None:
                kv_copy(cache.k[i], cache.v[i], *step.copies)
            batch: PagedBatch | None = step.batch
            if i + 1 == len(self.weights.layers):
                q, residual, batch = q[step.logit_rows], residual[step.logit_rows], step.logit_batch
            if batch is None:
                return residual.new_empty((0, self.config.vocab_size), dtype=torch.float32)
            x = paged_attention(q, cache.k[i], cache.v[i], batch, self.config.head_dim**-0.5)
            x, residual = add_rms_norm(layer.output(x.flatten(1)), residual, layer.post_norm, eps)
            x = layer.down(silu_and_mul(layer.gate_up(x)))
        x, _ = add_rms_norm(x, residual, self.weights.norm, eps)
        return self.weights.head(x).float()

    def _project(
        self, x: Tensor, layer: LayerWeights, rotation: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries and keys, and values: [T, heads, head_dim] each."""
        config = self.config
        q, k, v = (
            layer.qkv(x)
            .view(len(x), -1, config.head_dim)
            .split_with_sizes((config.num_heads, config.num_kv_heads, config.num_kv_heads), dim=1)
        )
        if layer.q_norm is not None and layer.k_norm is not None:
            q, k = rms_norm(q, layer.q_norm, config.norm_eps), rms_norm(k, layer.k_norm, config.norm_eps)
        return rotate(q, *rotation), rotate(k, *rotation), v
