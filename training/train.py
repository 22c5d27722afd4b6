"""Train the default model: `python -m training.train --minutes 60`. The same command resumes from the last checkpoint.

The model directory grows in `build/training/model`: whole after the first checkpoint, best after the last.

Examples are drawn from the seed and the number of their block, so that a resumed run sees the data of an uninterrupted
one. The learning rate follows the time budget: the recipe ends on time on any machine.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional as F

from training import tokenizer as bpe
from training.model import Model, ModelConfig, save
from training.render import END, prompt_text
from training.tagging import TAGS, tag_places
from training.tasks import example

log = logging.getLogger("training")

BLOCK = 8
"""Batches that are drawn together and sorted by length, to pad little."""
EASY = 1000
"""The first so many batches take the shortest of three drawn questions, as many more the shorter of two."""
TAGGING = 1.0
"""Weight of the loss of the tagged phrases beside the loss of the answers."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of a prompt and of its answer with the end token; positions and numbers of the prompt's tags."""

    prompt: list[int]
    answer: list[int]
    tags: list[tuple[int, int]]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


@dataclass(frozen=True, slots=True)
class Recipe:
    """Settings of a run: its time budget, batch size in examples, peak learning rate, and places."""

    minutes: float = 60.0
    batch: int = 32
    peak_rate: float = 2e-3
    weight_decay: float = 0.05
    seed: int = 0
    threads: int = 1
    save_every: int = 200
    run: Path = Path("build/training")


class Run:
    """A training run that can stop and resume: model, optimizer, number of steps and seconds spent."""

    def __init__(self, recipe: Recipe) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.step, self.seconds = recipe, 0, 0.0
        self.checkpoint, self.directory = recipe.run / "checkpoint.pt", recipe.run / "model"
        self.tokenizer = _tokenizer(self.directory, recipe.seed)
        self.pad, self.end = (self.tokenizer.token_to_id(t) for t in (bpe.SPECIAL[0], END))
        self.model = Model(ModelConfig())
        self.tagger = nn.Linear(self.model.config.hidden_size, len(TAGS))
        self.optimizer = _optimizer([*self.model.parameters(), *self.tagger.parameters()], recipe)
        if self.checkpoint.exists():
            self._resume()

    def _resume(self) -> None:
        saved = torch.load(self.checkpoint, weights_only=True)
        self.model.load_state_dict(saved["model"])
        self.tagger.load_state_dict(saved["tagger"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.step, self.seconds = saved["step"], saved["seconds"]

    def save(self) -> None:
        """Write the checkpoint, whole or not at all, and the weights."""
        parts = ("model", "tagger", "optimizer")
        state = {part: getattr(self, part).state_dict() for part in parts}
        torch.save(
            {**state, "step": self.step, "seconds": self.seconds}, partial := self.checkpoint.with_suffix(".part")
        )
        partial.replace(self.checkpoint)
        save(self.model, self.directory, self.end, self.pad)

    def train(self) -> None:
        """Step until the time budget is spent."""
        recipe, losses = self.recipe, []
        begin = time.monotonic() - self.seconds
        for batch in batches(self.tokenizer, recipe.seed, recipe.batch, self.step):
            losses.append(self._update(batch))
            self.seconds, self.step = time.monotonic() - begin, self.step + 1
            over = self.seconds >= 60 * recipe.minutes
            if over or self.step % recipe.save_every == 0:
                answers, tags = torch.tensor(losses).mean(0).tolist()
                log.info("step %d, %.0f s, loss %.4f, of tags %.4f", self.step, self.seconds, answers, tags)
                losses.clear()
                self.save()
            if over:
                return

    def _update(self, batch: Sequence[Encoded]) -> tuple[float, float]:
        rate = learning_rate(self.seconds / (60 * self.recipe.minutes), self.recipe.peak_rate)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        answers, tags = loss_of(self.model, self.tagger, batch, self.pad)
        (answers + TAGGING * tags).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return answers.item(), tags.item()


def _tokenizer(directory: Path, seed: int) -> Tokenizer:
    if not (file := directory / "tokenizer.json").exists():
        directory.mkdir(parents=True, exist_ok=True)
        bpe.save(bpe.train(seed), directory)
    return Tokenizer.from_file(str(file))


def _optimizer(parameters: Sequence[nn.Parameter], recipe: Recipe) -> torch.optim.AdamW:
    matrices = [p for p in parameters if p.dim() > 1]
    scales = [p for p in parameters if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": scales, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.peak_rate, betas=(0.9, 0.98), fused=True)


def encode(tokenizer: Tokenizer, seed: str, size: int, draws: int) -> list[Encoded]:
    """`size` training examples drawn from a seed, as token ids; each the shortest of `draws`."""
    rng = random.Random(seed)
    drawn = [example(rng, held_out=False, draws=draws) for _ in range(size)]
    texts = [prompt_text(e) for e in drawn]
    prompts = tokenizer.encode_batch(texts)
    answers = tokenizer.encode_batch_fast([e.answer + END for e in drawn])
    return [
        Encoded(p.ids, a.ids, tag_places(text, p, e.tags, e.gist))
        for text, e, p, a in zip(texts, drawn, prompts, answers, strict=True)
    ]


def batches(tokenizer: Tokenizer, seed: int, size: int, start: int) -> Iterator[list[Encoded]]:
    """All batches from number `start` on, short questions first.

    Each block holds `BLOCK` batches of similar lengths in random order.
    """
    for block in itertools.count(start // BLOCK):
        draws = max(1, 3 - block * BLOCK // EASY)
        examples = encode(tokenizer, f"{seed}/{block}", BLOCK * size, draws)
        examples.sort(key=len)
        groups = [examples[i : i + size] for i in range(0, len(examples), size)]
        random.Random(f"{seed}/{block}").shuffle(groups)
        yield from groups[max(0, start - block * BLOCK) :]


def loss_of(model: Model, tagger: nn.Module, batch: Sequence[Encoded], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean cross-entropies: of the answers' tokens, longer answers weighing less per token, and of the tags."""
    width = max(map(len, batch)) - 1
    tokens = torch.tensor([(e.prompt + e.answer)[:-1] + [pad] * (width + 1 - len(e)) for e in batch])
    asked = [(i, len(e.prompt) - 1 + j, token) for i, e in enumerate(batch) for j, token in enumerate(e.answer)]
    rows, at, targets = map(torch.tensor, zip(*asked, strict=True))
    weights = torch.tensor([len(batch[i].answer) ** -0.5 for i, _, _ in asked])
    tags = [(i, position, tag) for i, e in enumerate(batch) for position, tag in e.tags] or [(0, 0, -100)]
    tag_rows, tag_at, tag_targets = map(torch.tensor, zip(*tags, strict=True))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, inside = model(tokens, (rows, at))
        tag_logits = tagger(F.rms_norm(inside[tag_rows, tag_at], inside.shape[-1:]))
    losses = F.cross_entropy(logits.float(), targets, reduction="none")
    tag_loss = F.cross_entropy(tag_logits.float(), tag_targets, reduction="sum") / (tag_targets >= 0).sum().clamp(min=1)
    return (losses * weights).sum() / weights.sum(), tag_loss


def learning_rate(progress: float, peak: float) -> float:
    """Linear warm-up over the first 2 %, then a cosine down to 2 % of the peak."""
    if progress < 0.02:
        return peak * (progress / 0.02 + 0.01)
    return peak * (0.02 + 0.98 * (1 + math.cos(math.pi * min(1.0, progress))) / 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for setting in fields(Recipe):
        parser.add_argument(f"--{setting.name.replace('_', '-')}", type=type(setting.default), default=setting.default)
    recipe = Recipe(**vars(parser.parse_args()))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(recipe.threads)
    Run(recipe).train()


if __name__ == "__main__":
    main()
