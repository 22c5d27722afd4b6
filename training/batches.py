"""From examples to batches of token ids, drawn by seed and number: the same whoever makes them, and however many do."""

from __future__ import annotations

import itertools
import multiprocessing
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from training import tokenizer as bpe
from training.render import END, prompt_text
from training.tagging import tag_places
from training.tasks import example

BLOCK = 8
"""Batches that are drawn together and sorted by length, to pad little."""
EASY = 20_000
"""The first so many examples are the shortest of three drawn questions, as many more the shorter of two."""
ECHOES = 20_000
"""Among the first so many examples every fourth, later every twenty-fifth, is an echo of random tokens."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of a prompt and of its answer with the end token; positions and numbers of the prompt's tags."""

    prompt: list[int]
    answer: list[int]
    tags: list[tuple[int, int]]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


@dataclass(frozen=True, slots=True)
class Batch:
    """What a training step needs, as arrays (from a generator) or tensors (on the device).

    `tokens` [batch, length] are padded on the right. The n answer tokens `targets` [n] of weight `weights` [n] are
    predicted at `rows`, `places` [n]; the m tags `tags` [m] stand at `tag_rows`, `tag_places` [m], or are one -100.
    """

    tokens: Tensor
    rows: Tensor
    places: Tensor
    targets: Tensor
    weights: Tensor
    tag_rows: Tensor
    tag_places: Tensor
    tags: Tensor

    def to(self, device: torch.device) -> Batch:
        arrays = (getattr(self, field.name) for field in fields(self))
        return Batch(*(torch.as_tensor(array).to(device, non_blocking=True) for array in arrays))


@dataclass(frozen=True, slots=True)
class Source:
    """Where a worker's batches come from: seed, worker, number of workers and examples per batch and worker."""

    tokenizer: Tokenizer
    seed: int
    worker: int
    workers: int
    size: int

    def block(self, number: int) -> list[Batch]:
        """`BLOCK` batches of similar lengths, in a random order that is the same for all workers: none waits long."""
        seen = number * BLOCK * self.size * self.workers
        draws = max(1, 3 - seen // EASY)
        echoes = 0.25 if seen < ECHOES else 0.04
        examples = encode(self.tokenizer, f"{self.seed}/{self.worker}/{number}", BLOCK * self.size, draws, echoes)
        examples.sort(key=len)
        groups = [examples[i : i + self.size] for i in range(0, len(examples), self.size)]
        random.Random(f"{self.seed}/{number}").shuffle(groups)
        pad = self.tokenizer.token_to_id(bpe.SPECIAL[0])
        return [batch_of(group, pad) for group in groups]

    def batches(self, start: int, generators: int = 0) -> Iterator[Batch]:
        """All batches from number `start` on, short questions first, made by so many processes beside this one."""
        first, skipped = divmod(start, BLOCK)
        numbers = itertools.count(first)
        made = map(self.block, numbers) if not generators else _made(self, first, generators)
        return itertools.islice(itertools.chain.from_iterable(made), skipped, None)


_source: Source
"""In a generator's process: what it draws from."""


def _made(source: Source, first: int, generators: int) -> Iterator[list[Batch]]:
    with multiprocessing.get_context("spawn").Pool(generators, _take, (source,)) as pool:
        ahead = [pool.apply_async(_block, (first + i,)) for i in range(2 * generators)]
        for number in itertools.count(first + 2 * generators):
            yield ahead.pop(0).get()
            ahead.append(pool.apply_async(_block, (number,)))


def _take(source: Source) -> None:
    global _source
    _source = source


def _block(number: int) -> list[Batch]:
    return _source.block(number)


def encode(tokenizer: Tokenizer, seed: str, size: int, draws: int, echoes: float) -> list[Encoded]:
    """`size` training examples drawn from a seed, as token ids; each the shortest of `draws`, some of them echoes."""
    rng = random.Random(seed)
    repeated = [echo(rng, tokenizer) for _ in range(size) if rng.random() < echoes]
    drawn = [example(rng, held_out=False, draws=draws) for _ in range(size - len(repeated))]
    texts = [prompt_text(e) for e in drawn]
    prompts = tokenizer.encode_batch(texts)
    answers = tokenizer.encode_batch_fast([e.answer + END for e in drawn])
    return repeated + [
        Encoded(p.ids, a.ids, tag_places(text, p, e))
        for text, e, p, a in zip(texts, drawn, prompts, answers, strict=True)
    ]


def echo(rng: random.Random, tokenizer: Tokenizer) -> Encoded:
    """Random tokens and the same again: nothing but copying, which needs two layers to work together."""
    tokens = [rng.randrange(len(bpe.SPECIAL), tokenizer.get_vocab_size()) for _ in range(rng.randrange(6, 28))]
    return Encoded(tokens + tokens[:1], tokens[1:], [])


def batch_of(examples: Sequence[Encoded], pad: int) -> Batch:
    """The arrays of some examples; the tokens of a longer answer weigh less each."""
    width = max(map(len, examples)) - 1
    tokens = [(e.prompt + e.answer)[:-1] + [pad] * (width + 1 - len(e)) for e in examples]
    asked = [
        (i, len(e.prompt) - 1 + j, token, len(e.answer) ** -0.5)
        for i, e in enumerate(examples)
        for j, token in enumerate(e.answer)
    ]
    rows, places, targets, weights = map(np.array, zip(*asked, strict=True))
    tags = [(i, position, tag) for i, e in enumerate(examples) for position, tag in e.tags] or [(0, 0, -100)]
    arrays = (
        np.array(tokens),
        rows,
        places,
        targets,
        weights.astype(np.float32),
        *map(np.array, zip(*tags, strict=True)),
    )
    return Batch(*arrays)  # type: ignore[arg-type]
