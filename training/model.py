"""The default model's architecture for training: a Qwen2 with tied embeddings, saved in the Hugging Face format."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from training.induction import begin_with_copying

Places = tuple[Tensor, Tensor]
"""Row numbers [n] and positions [n] of n places in a batch."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Sizes of the model; the names are those of the published configuration format."""

    vocab_size: int = 8192
    hidden_size: int = 192
    intermediate_size: int = 512
    num_hidden_layers: int = 4
    num_attention_heads: int = 6
    num_key_value_heads: int = 3
    max_position_embeddings: int = 4096
    rope_theta: float = 1e6
    rms_norm_eps: float = 1e-6

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads


SIZES = {
    "small": ModelConfig(),
    "large": ModelConfig(
        hidden_size=320, intermediate_size=896, num_hidden_layers=6, num_attention_heads=10, num_key_value_heads=5
    ),
}
"""Models of 3.2 and 9.6 million parameters (6 and 19 MB in bf16): trained on two cores, and on an accelerator."""


def rotation(config: ModelConfig, length: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of rotary positions, each [length, head_dim] (Su et al., RoFormer)."""
    powers = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    angles = torch.outer(torch.arange(length, dtype=torch.float32), config.rope_theta**-powers)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-right, left), dim=-1) * sin


class Attention(nn.Module):
    """Causal grouped-query attention, with biases before the rotation."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )
        self.q_proj = nn.Linear(config.hidden_size, self.heads * self.head_dim)
        self.k_proj = nn.Linear(config.hidden_size, self.kv_heads * self.head_dim)
        self.v_proj = nn.Linear(config.hidden_size, self.kv_heads * self.head_dim)
        self.o_proj = nn.Linear(self.heads * self.head_dim, config.hidden_size, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, at: Places | None = None) -> Tensor:
        """Mixed values [batch, length, hidden], or only those of the places `at` [n, hidden]."""
        batch, length, _ = x.shape
        k, v = self._heads(self.k_proj, x, self.kv_heads), self._heads(self.v_proj, x, self.kv_heads)
        k = _rotate(k, cos, sin)
        k, v = (t.repeat_interleave(self.heads // self.kv_heads, dim=1) for t in (k, v))
        future = torch.full((length, length), float("-inf"), dtype=k.dtype, device=k.device).triu(1)
        if at is None:
            q = _rotate(self._heads(self.q_proj, x, self.heads), cos, sin)
        else:  # the n places, padded to as many per row of the batch
            rows, positions = at
            nth = torch.arange(len(rows), device=rows.device) - torch.searchsorted(rows, rows)
            places = rows.new_zeros(batch, int(nth.max()) + 1)
            places[rows, nth] = positions
            q = x.new_zeros(*places.shape, x.shape[2])
            q[rows, nth] = x[at]
            q = _rotate(
                self._heads(self.q_proj, q, self.heads),
                cos[places, None].transpose(1, 2),
                sin[places, None].transpose(1, 2),
            )
            future = future[places, None].transpose(1, 2)
        # Written out: on the CPU, at these lengths, the fused attention's backward pass is slower.
        scores = (q * self.head_dim**-0.5) @ k.transpose(-1, -2) + future
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        return self.o_proj(mixed if at is None else mixed[rows, nth])

    def _heads(self, projection: nn.Linear, x: Tensor, heads: int) -> Tensor:
        return projection(x).unflatten(-1, (heads, self.head_dim)).transpose(1, 2)


class Mlp(nn.Module):
    """Gated feed-forward layer (SwiGLU)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """One decoder layer with pre-normalization."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = Mlp(config)
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, at: Places | None = None) -> Tensor:
        mixed = self.self_attn(self.input_layernorm(x), cos, sin, at)
        x = (x if at is None else x[at]) + mixed
        return x + self.mlp(self.post_attention_layernorm(x))


class Model(nn.Module):
    """Decoder whose parameter names are those of Hugging Face's Qwen2 without the prefix `model.`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.apply(self._initialize)
        begin_with_copying(self)

    def _initialize(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(
                module.weight, std=0.02 if isinstance(module, nn.Embedding) else module.weight.shape[1] ** -0.5 / 2
            )
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def forward(self, tokens: Tensor, at: Places) -> tuple[Tensor, Tensor]:
        """Read token ids [batch, length], padded on the right.

        Returns
        -------
        scores : Tensor
            Of the next token [n, vocab] at the n places `at`. The last layer works only there: training asks for the
            few that predict an answer.
        inside : Tensor
            The hidden states [batch, length, hidden] below the last layer.
        """
        x = self.embed_tokens(tokens)
        cos, sin = (t.to(x) for t in rotation(self.config, tokens.shape[1]))
        *layers, last = self.layers
        for layer in layers:
            x = layer(x, cos, sin)
        return F.linear(self.norm(last(x, cos, sin, at)), self.embed_tokens.weight), x


def save(model: Model, directory: Path, end_id: int, pad_id: int) -> None:
    """Write config.json, generation_config.json and model.safetensors (bf16)."""
    directory.mkdir(parents=True, exist_ok=True)
    weights = {f"model.{name}": t.detach().to(torch.bfloat16).contiguous() for name, t in model.state_dict().items()}
    save_file(weights, path := directory / "model.safetensors", metadata={"format": "pt"})
    path.chmod(0o644)
    config = {f: getattr(model.config, f) for f in ModelConfig.__dataclass_fields__}
    fixed = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_act": "silu",
        "use_sliding_window": False,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "bos_token_id": None,
        "eos_token_id": end_id,
        "pad_token_id": pad_id,
    }
    _write(directory / "config.json", {**fixed, **config})
    _write(directory / "generation_config.json", {"do_sample": False, "eos_token_id": end_id, "pad_token_id": pad_id})


def load(directory: Path) -> Model:
    """The saved model, in fp32."""
    raw = json.loads((directory / "config.json").read_text())
    model = Model(ModelConfig(**{f: raw[f] for f in ModelConfig.__dataclass_fields__}))
    weights = load_file(directory / "model.safetensors")
    model.load_state_dict({name.removeprefix("model."): t.float() for name, t in weights.items()})
    return model


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
