"""Heads that copy, set by hand before training begins.

An answer copied from the record needs two layers to work together: a head that tells each token the one before it, and
an induction head that looks for the place where the current token stood before and takes what followed it (Olsson et
al., "In-context learning and induction heads", 2022). Random weights find this pair after tens of thousands of
examples or never; weights that begin as it (after Trockman and Kolter, "Mimetic initialization of self-attention
layers", 2023) copy from the first step. Training leaves them as they are: its first steps, in which everything else
changes, would take them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from training.model import Model

SCALE = 0.07
"""Standard deviation of the token vectors, wide enough for the tied head to choose a token."""
KINSHIP = 0.5
"""Share of a token's vector that is that of its variants."""
_SHARPNESS = 7.0
"""Size of the biases by which a head finds the previous position."""
_MATCH = 3.0
"""Gain of queries and keys of the induction heads."""
_COPY = 8.0
"""Weight of a copied token in the hidden state, in units of a token vector."""


@torch.no_grad()
def begin_with_copying(model: Model) -> None:
    """Set heads of layer 0 to tell each token the three before it, and two heads of layer 1 to copy by them.

    The first copies what followed the current token before. The second copies the value of a key: its query is the
    token two back (`key` of `key": "`), its keys are the tokens three back. Token vectors leave the last dimensions of
    the hidden state free, where layer 0 writes.
    """
    config, wide = model.config, model.config.head_dim
    shared = config.num_attention_heads // config.num_key_value_heads
    frequencies = config.rope_theta ** (-torch.arange(wide // 2) / (wide // 2))
    far = torch.nonzero((frequencies < 1 / 350).repeat(2))[:, 0]  # dimensions that hardly turn within a prompt
    content = config.hidden_size - 3 * len(far)
    free = [slice(content + i * len(far), content + (i + 1) * len(far)) for i in range(3)]
    model.embed_tokens.weight.normal_(0, SCALE)[:, content:] = 0
    for layer in model.layers:
        layer.self_attn.o_proj.weight *= 0.3
        layer.mlp.down_proj.weight *= 0.3
    near, match = model.layers[0].self_attn, model.layers[1].self_attn
    seen = _projection(wide, content, config.hidden_size)

    for back, head in ((1, 0), (2, 1), (3, shared)):
        query, key = _rows(head, wide), _rows(head // shared, wide)
        near.k_proj.weight[key] = near.q_proj.weight[query] = 0
        near.k_proj.bias[key], near.q_proj.bias[query] = _at_distance(back, frequencies)
        near.v_proj.weight[key] = seen
        near.o_proj.weight[:, query] = 0
        near.o_proj.weight[free[back - 1], query] = SCALE * torch.eye(wide)[far]
        for part in (near.k_proj, near.v_proj):
            _hold(part, key)
        _hold(near.q_proj, query)
        near.o_proj.weight.register_hook(_without((slice(None), query), near.o_proj.weight))

    follows = torch.zeros(2, len(far), config.hidden_size)
    follows[0], follows[1, :, free[1]] = seen[far], torch.eye(len(far))
    for head, wanted, known in ((0, follows[0], free[0]), (shared, follows[1], free[2])):
        query, key = _rows(head, wide), _rows(head // shared, wide)
        copied = _projection(wide, content, config.hidden_size)
        match.q_proj.weight[query] = match.k_proj.weight[key] = 0
        match.q_proj.weight[query][far] = _MATCH * wanted
        match.k_proj.weight[key, known][far] = _MATCH * torch.eye(len(far))
        match.v_proj.weight[key] = copied
        match.o_proj.weight[:, query] = _COPY * SCALE * copied.T
        _hold(match.k_proj, key)
        _hold(match.q_proj, query)


@torch.no_grad()
def relate_variants(model: Model, tokens: Sequence[str]) -> None:
    """Let the vectors of tokens that differ only by case or a space before them begin near each other.

    `tokens` are the vocabulary's, by number. What is learnt about one is then half learnt about the others, and a word
    that is copied to the start of an answer can take the form that it has there.
    """
    vectors, first = model.embed_tokens.weight, dict[str, int]()
    same = torch.tensor([first.setdefault(token.lstrip("Ġ").lower(), number) for number, token in enumerate(tokens)])
    alone = same == torch.arange(len(tokens))
    shared = vectors[same]
    vectors[~alone] = (KINSHIP**0.5 * shared + (1 - KINSHIP) ** 0.5 * vectors)[~alone]


def _rows(head: int, wide: int) -> slice:
    return slice(head * wide, (head + 1) * wide)


def _hold(projection: nn.Linear, rows: slice) -> None:
    for parameter in (projection.weight, projection.bias):
        parameter.register_hook(_without(rows, parameter))


def _without(part: slice | tuple[slice, slice], parameter: Tensor) -> Callable[[Tensor], Tensor]:
    """A hook by which a part of a parameter stays as it is: no gradient, so no step of either optimizer."""
    free = torch.ones_like(parameter)
    free[part] = 0
    return lambda gradient: gradient * free.to(gradient)


def _at_distance(back: int, frequencies: Tensor) -> tuple[Tensor, Tensor]:
    """Biases of key and query, each [head_dim], whose rotary score is greatest so many positions back."""
    quick, turn = torch.where(frequencies > 1 / 20, _SHARPNESS, 0.0), back * frequencies
    return torch.cat((quick, 0 * quick)), torch.cat((quick * turn.cos(), -quick * turn.sin()))


def _projection(rows: int, content: int, hidden: int) -> Tensor:
    """Orthonormal rows [rows, hidden] over the dimensions of the token vectors."""
    whole = torch.zeros(rows, hidden)
    whole[:, :content] = torch.linalg.qr(torch.randn(content, content))[0][:rows]
    return whole
