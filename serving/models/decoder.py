"""The decoder's forward pass over the tokens of one step, with keys and values in the paged cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from spark_llm.kernels.experts import experts
from spark_llm.kernels.kv_store import kv_copy
from spark_llm.kernels.paged_attention import PagedBatch, paged_attention
from spark_llm.kernels.rms_norm import add_rms_norm, rms_norm
from spark_llm.kernels.rotary import rotate
from spark_llm.kernels.rotate_and_store import rotate_and_store
from spark_llm.kernels.silu_and_mul import GATES
from spark_llm.serving.models.config import DecoderConfig
from spark_llm.serving.models.rope import rope_table
from spark_llm.serving.models.weights import DecoderWeights, Experts, LayerWeights, Linear
from torch import Tensor

Index = Tensor | slice

MIN_REPEATED = 256
"""Tokens of a step among which equal ones are looked for."""


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
    """The tokens of a step and where their keys and values go.

    `batches` and `logit_batches` hold a plan of the attention for each distinct window of the layers (0 for none). The
    first `decode_rows` rows may be those of a decode batch, with a plan of their own, which no window concerns.
    """

    token_ids: Tensor  # [T]
    positions: Tensor  # [T]
    slots: Tensor  # [T]
    copies: tuple[Tensor, Tensor] | None  # slots copied after each layer's store: source, target
    batches: Mapping[int, PagedBatch]
    logit_rows: Index  # [n]: the rows whose next token is asked for
    logit_batches: Mapping[int, PagedBatch]  # of these rows alone, for the last layer; empty where there are none
    decode_rows: int = 0
    decode_batch: PagedBatch | None = None


class Decoder:
    """A model of the families in `config.ARCHITECTURES`."""

    def __init__(self, config: DecoderConfig, weights: DecoderWeights, max_length: int) -> None:
        self.config, self.weights = config, weights
        embedding = weights.embedding
        ropes = [config.rope, config.local_rope or config.rope]
        tables = [rope_table(rope, config.head_dim, max_length) for rope in ropes]
        self._angles = [
            [table.to(embedding.device, embedding.dtype)[:, None] for table in pair] for pair in tables
        ]  # of layers without and with a window
        last, width = weights.layers[-1], config.num_heads * config.head_dim
        q, kv = last.qkv.part(0, width), last.qkv.part(width, width + 2 * config.num_kv_heads * config.head_dim)
        self._last_qkv = (q, kv) if q and kv and len(weights.layers) > 1 else None

    @torch.inference_mode()
    def forward(self, step: StepInput, cache: KVCache) -> Tensor:
        """Compute the step, store its keys and values, and return logits [n, vocab] in float32.

        The last layer is computed for the rows of the logits alone, but for its keys and values.
        """
        config = self.config
        rotations = self._rotations(step.positions)
        residual = self.weights.embedding[step.token_ids]
        if config.embedding_scale != 1.0:
            residual = residual * torch.tensor(config.embedding_scale, dtype=residual.dtype)
        x: Tensor | None = None  # what a layer has left to be added to the residual stream
        for i, layer in enumerate(self.weights.layers):
            window = config.window(i)
            last, rotation = i + 1 == len(self.weights.layers), rotations[bool(window)]
            apart = self._last_qkv if last and isinstance(step.logit_rows, Tensor) else None
            if i:
                normed, residual = self._sum(x, residual, layer.input_norm)
                heads = apart[1](normed) if apart else layer.qkv(normed)
            else:
                heads = self._first_heads(step.token_ids, residual, layer)
            heads = heads.view(len(heads), -1, config.head_dim)
            caches = cache.k[i], cache.v[i]
            q = rotate_and_store(heads, rotation, layer.head_norms, config.norm_eps, *caches, step.slots)
            if step.copies is not None:
                kv_copy(*caches, *step.copies)
            batches = step.logit_batches if last else step.batches
            if not (batches or step.decode_rows):
                return residual.new_empty((0, config.vocab_size), dtype=torch.float32)
            if last:
                due = step.logit_rows
                q = self._queries(apart[0], normed[due], rotation, due, layer.q_norm) if apart else q[due]
                residual = residual[due]
            attended = self._attend(q, cache, i, step, batches.get(window))
            x, residual = self._add(layer.output, attended, residual, layer.output_norm)
            normed, residual = self._sum(x, residual, layer.post_norm)
            x, residual = self._feed_forward(normed, residual, layer)
        normed, _ = self._sum(x, residual, self.weights.norm)
        logits = self.weights.head(normed).float()
        return logits if not config.logit_softcap else _softcap(logits, config.logit_softcap)

    def _rotations(self, positions: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Cosines and sines of the positions, for layers without and with a window."""
        whole, local = self._angles
        rotation = whole[0][positions], whole[1][positions]
        return [rotation, rotation if self.config.local_rope is None else (local[0][positions], local[1][positions])]

    def _first_heads(self, token_ids: Tensor, embedded: Tensor, layer: LayerWeights) -> Tensor:
        """The first layer's projection, which depends on the token alone (arXiv 2402.13388): once for each on a CPU."""
        eps = self.config.norm_eps
        if embedded.device.type != "cpu" or len(token_ids) < MIN_REPEATED:
            return layer.qkv(rms_norm(embedded, layer.input_norm, eps))
        distinct, at = np.unique(token_ids.numpy(), return_inverse=True)
        first = np.empty(len(distinct), np.int64)
        first[at] = np.arange(len(at))
        rows = embedded[torch.from_numpy(first)]
        return layer.qkv(rms_norm(rows, layer.input_norm, eps))[torch.from_numpy(at)]

    def _queries(
        self, product: Linear, normed: Tensor, rotation: tuple[Tensor, Tensor], rows: Index, norm: Tensor | None
    ) -> Tensor:
        """Rotated queries [n, heads, head_dim] of some rows of the step alone."""
        q = self._normed(product(normed).view(len(normed), -1, self.config.head_dim), norm)
        return rotate(q, rotation[0][rows], rotation[1][rows])

    def _attend(self, q: Tensor, cache: KVCache, layer: int, step: StepInput, batch: PagedBatch | None) -> Tensor:
        """Attention of the step's decode rows by their own plan, and of the others by `batch`."""
        scale, softcap = self.config.score_scale, self.config.attention_softcap
        parts = [(q[: step.decode_rows], step.decode_batch), (q[step.decode_rows :], batch)]
        outs = [
            paged_attention(rows, cache.k[layer], cache.v[layer], plan, scale, softcap=softcap)
            for rows, plan in parts
            if plan is not None and len(rows)
        ]
        return (outs[0] if len(outs) == 1 else torch.cat(outs)).flatten(1)

    def _feed_forward(self, x: Tensor, residual: Tensor, layer: LayerWeights) -> tuple[Tensor | None, Tensor]:
        """What is to be added to the residual stream, or None where that is done."""
        part, activation = layer.feed_forward, self.config.activation
        if not isinstance(part, Experts):
            return self._add(part.down, part.gated(x, activation), residual, layer.feed_forward_norm)
        out = experts(
            x,
            part.router(x),
            part.gate_up,
            part.down,
            chosen=self.config.experts_per_token,
            normalized=self.config.normalized_experts,
            activation=GATES[activation],
        )
        return self._normed(out, layer.feed_forward_norm), residual

    def _add(self, product: Linear, x: Tensor, residual: Tensor, norm: Tensor | None) -> tuple[Tensor | None, Tensor]:
        """A product for the residual stream, or None where it was added in the same pass; and the stream."""
        if norm is None and product.adds:
            return None, product(x, residual)
        return self._normed(product(x), norm), residual

    def _sum(self, x: Tensor | None, residual: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The residual stream with x added, normalized and as it is."""
        if x is None:
            return rms_norm(residual, weight, self.config.norm_eps), residual
        return add_rms_norm(x, residual, weight, self.config.norm_eps)

    def _normed(self, x: Tensor, weight: Tensor | None) -> Tensor:
        return x if weight is None else rms_norm(x, weight, self.config.norm_eps)


def _softcap(x: Tensor, cap: float) -> Tensor:
    return torch.tanh(x / cap) * cap
