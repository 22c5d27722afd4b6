"""Weights: memory-mapped safetensors files, Hugging Face's names, and the decoder's fused layout."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from spark_llm.kernels.linear import gated_linear, linear, pack, rows_of
from spark_llm.serving.core import EngineFailure
from spark_llm.serving.models.config import DecoderConfig
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Linear:
    """A matrix product; `weight` may be packed (`kernels.linear`)."""

    weight: Tensor  # [out, in]
    bias: Tensor | None = None  # [out]

    def __call__(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        return linear(x, self.weight, self.bias, added)

    @property
    def adds(self) -> bool:
        """Whether it adds to its product in the same pass."""
        return self.weight.dtype == torch.int32

    def part(self, first: int, last: int) -> Linear | None:
        """The product with rows first:last alone, of the same memory; None where their packing does not allow it."""
        weight = rows_of(self.weight, first, last)
        return None if weight is None else Linear(weight, None if self.bias is None else self.bias[first:last])


@dataclass(frozen=True, slots=True)
class FeedForward:
    gate_up: Linear  # rows of gate, up; packed for a `gated_linear`
    down: Linear

    def gated(self, x: Tensor, activation: str) -> Tensor:
        """What `down` multiplies."""
        return gated_linear(x, self.gate_up.weight, self.gate_up.bias, activation=activation)


@dataclass(frozen=True, slots=True)
class Experts:
    """E feed-forwards, of which a router chooses some for each token."""

    router: Linear  # [E, hidden]
    gate_up: Tensor  # [E, 2·I, hidden], rows of gate, up
    down: Tensor  # [E, hidden, I]


@dataclass(frozen=True, slots=True)
class LayerWeights:
    input_norm: Tensor
    qkv: Linear  # rows of q, k, v
    output: Linear
    post_norm: Tensor
    feed_forward: FeedForward | Experts
    q_norm: Tensor | None = None  # [head_dim]
    k_norm: Tensor | None = None
    output_norm: Tensor | None = None  # of attention's output
    feed_forward_norm: Tensor | None = None  # of the feed-forward's output

    @property
    def head_norms(self) -> tuple[Tensor, Tensor] | None:
        return None if self.q_norm is None or self.k_norm is None else (self.q_norm, self.k_norm)


@dataclass(frozen=True, slots=True)
class DecoderWeights:
    embedding: Tensor  # [vocab, hidden]
    layers: tuple[LayerWeights, ...]
    norm: Tensor
    head: Linear


class Source(Protocol):
    def __call__(self, name: str, *shape: int) -> Tensor:
        """The tensor of that name and shape, in the dtype and on the device asked for."""


def load_weights(directory: Path, config: DecoderConfig, *, dtype: torch.dtype, device: torch.device) -> DecoderWeights:
    """Read a checkpoint of one safetensors file, or of several with an index.

    Raises
    ------
    EngineFailure
        `LLM_ENGINE_START` when there are no safetensors files, or a tensor is missing or of another shape.
    """
    with ExitStack() as stack:
        files = sorted(set(_locate(directory).values()))
        opened = {file: stack.enter_context(_open(directory, file)) for file in files}
        where = {name: handle for handle in opened.values() for name in handle.keys()}  # noqa: SIM118 - no mapping

        def source(name: str, *shape: int) -> Tensor:
            if name not in where:
                raise _unreadable(directory, f"the checkpoint has no tensor '{name}'")
            tensor = where[name].get_tensor(name)
            if tensor.shape != shape:
                detail = f"tensor '{name}' has the shape {list(tensor.shape)}, by config.json it is {list(shape)}"
                raise _unreadable(directory, detail)
            return tensor.to(device=device, dtype=dtype)

        return hugging_face_decoder(source, config)


@dataclass(frozen=True, slots=True)
class Layout:
    """How a family names the tensors of a layer; the rest is common to all."""

    post_norm: str = "post_attention_layernorm"
    output_norm: str = ""
    feed_forward_norm: str = ""
    experts: str = "mlp"
    gate: str = "gate_proj"
    up: str = "up_proj"
    down: str = "down_proj"


LAYOUTS = {
    "llama": Layout(),
    "mixtral": Layout(experts="block_sparse_moe", gate="w1", up="w3", down="w2"),
    "gemma2": Layout(
        post_norm="pre_feedforward_layernorm",
        output_norm="post_attention_layernorm",
        feed_forward_norm="post_feedforward_layernorm",
    ),
}
"""Of what the families call their tensors; a configuration names one of them."""


def hugging_face_decoder(source: Source, config: DecoderConfig) -> DecoderWeights:
    """Assemble the weights by Hugging Face's names."""
    layout, hidden = LAYOUTS[config.names], config.hidden_size
    width, kv_width = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim

    def norm(name: str, size: int = hidden) -> Tensor:
        weight = source(f"{name}.weight", size)
        return (weight.float() + config.norm_offset).to(weight.dtype) if config.norm_offset else weight

    def joined(rows: Mapping[str, int], columns: int) -> Tensor:
        return _cat([source(f"{name}.weight", count, columns) for name, count in rows.items()])

    def packed(rows: Mapping[str, int], columns: int, *, bias: bool = False, gated: bool = False) -> Linear:
        biases = [source(f"{name}.bias", count) for name, count in rows.items()] if bias else []
        return Linear(pack(joined(rows, columns), gated=gated), _cat(biases) if biases else None)

    def feed_forward(prefix: str, index: int) -> FeedForward | Experts:
        if not config.num_experts or index in config.dense_layers:
            mlp, inner = f"{prefix}.mlp", config.intermediate_size
            gate_up = {f"{mlp}.gate_proj": inner, f"{mlp}.up_proj": inner}
            return FeedForward(
                packed(gate_up, hidden, bias=config.mlp_bias, gated=True),
                packed({f"{mlp}.down_proj": hidden}, inner, bias=config.mlp_bias),
            )
        mlp, inner = f"{prefix}.{layout.experts}", config.expert_size
        experts = [f"{mlp}.experts.{e}" for e in range(config.num_experts)]
        gate_ups = [joined({f"{one}.{layout.gate}": inner, f"{one}.{layout.up}": inner}, hidden) for one in experts]
        downs = [joined({f"{one}.{layout.down}": hidden}, inner) for one in experts]
        router = Linear(joined({f"{mlp}.gate": config.num_experts}, hidden))
        return Experts(router, torch.stack(gate_ups), torch.stack(downs))

    def layer(index: int) -> LayerWeights:
        prefix = f"model.layers.{index}"
        attention = f"{prefix}.self_attn"
        heads = {f"{attention}.{part}_proj": width if part == "q" else kv_width for part in "qkv"}
        return LayerWeights(
            input_norm=norm(f"{prefix}.input_layernorm"),
            qkv=packed(heads, hidden, bias=config.qkv_bias),
            output=packed({f"{attention}.o_proj": hidden}, width, bias=config.output_bias),
            post_norm=norm(f"{prefix}.{layout.post_norm}"),
            feed_forward=feed_forward(prefix, index),
            q_norm=norm(f"{attention}.q_norm", config.head_dim) if config.qk_norm else None,
            k_norm=norm(f"{attention}.k_norm", config.head_dim) if config.qk_norm else None,
            output_norm=norm(f"{prefix}.{layout.output_norm}") if config.output_norms else None,
            feed_forward_norm=norm(f"{prefix}.{layout.feed_forward_norm}") if config.output_norms else None,
        )

    embedding = source("model.embed_tokens.weight", config.vocab_size, hidden)
    return DecoderWeights(
        embedding=embedding,
        layers=tuple(layer(i) for i in range(config.num_layers)),
        norm=norm("model.norm"),
        head=Linear(embedding) if config.tied_embeddings else packed({"lm_head": config.vocab_size}, hidden),
    )


def weight_files(directory: Path) -> list[Path]:
    """The checkpoint's safetensors files."""
    return sorted({directory / file for file in _locate(directory).values()})


def _locate(directory: Path) -> Mapping[str, str]:
    """Tensor name to file name, from the index; without one, the one file stands under ''."""
    index = directory / "model.safetensors.index.json"
    if index.exists():
        return _checked_index(directory, index.read_bytes())
    if (directory / "model.safetensors").exists():
        return {"": "model.safetensors"}
    raise _unreadable(directory, "it has neither model.safetensors nor model.safetensors.index.json")


def _checked_index(directory: Path, text: bytes) -> Mapping[str, str]:
    """The index, if it names safetensors files of this very directory and nothing else."""
    try:
        named = dict(json.loads(text)["weight_map"])
    except (ValueError, TypeError, KeyError) as problem:
        raise _unreadable(directory, "its model.safetensors.index.json is corrupt") from problem
    for file in named.values():
        if not isinstance(file, str) or Path(file).name != file or Path(file).suffix != ".safetensors":
            raise _unreadable(directory, f"its index names {file!r}, which is no safetensors file of the directory")
    return named


def _open(directory: Path, file: str) -> Any:
    try:
        return safe_open(directory / file, framework="pt")
    except (SafetensorError, OSError) as problem:
        raise _unreadable(directory, f"'{file}' is missing or corrupt ({problem})") from problem


def _cat(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _unreadable(directory: Path, detail: str) -> EngineFailure:
    return EngineFailure(
        "LLM_ENGINE_START",
        f"engine 'native' cannot serve model '{directory}': {detail}.",
        "Use a complete checkpoint in the safetensors format.",
    )
