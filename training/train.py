"""Train the default model: `python -m training.train --minutes 80`. The same command resumes from the last checkpoint.

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
from torch.nn import functional as F

from training import tokenizer as bpe
from training.model import Model, ModelConfig, save
from training.render import END, prompt_text
from training.tasks import example

log = logging.getLogger("training")

BLOCK = 8
Encoded = tuple[list[int], list[int]]
"""Token ids of a prompt and of its answer with the end token."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Settings of a run: its time budget, batch size in examples, peak learning rate, and places."""

    minutes: float = 80.0
    batch: int = 32
    peak_rate: float = 1.5e-3
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
        self.optimizer = _optimizer(self.model, recipe)
        if self.checkpoint.exists():
            self._resume()

    def _resume(self) -> None:
        saved = torch.load(self.checkpoint, weights_only=True)
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.step, self.seconds = saved["step"], saved["seconds"]

    def save(self) -> None:
        """Write the checkpoint, whole or not at all, and the weights."""
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
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
                log.info("step %d, %.0f s, loss %.4f", self.step, self.seconds, sum(losses) / len(losses))
                losses.clear()
                self.save()
            if over:
                return

    def _update(self, batch: Sequence[Encoded]) -> float:
        rate = learning_rate(self.seconds / (60 * self.recipe.minutes), self.recipe.peak_rate)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = loss_of(self.model, batch, self.pad)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()


def _tokenizer(directory: Path, seed: int) -> Tokenizer:
    if not (file := directory / "tokenizer.json").exists():
        directory.mkdir(parents=True, exist_ok=True)
        bpe.save(bpe.train(seed), directory)
    return Tokenizer.from_file(str(file))


def _optimizer(model: Model, recipe: Recipe) -> torch.optim.AdamW:
    matrices = [p for p in model.parameters() if p.dim() > 1]
    scales = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": scales, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.peak_rate, betas=(0.9, 0.98), fused=True)


def encode(tokenizer: Tokenizer, seed: str, size: int) -> list[Encoded]:
    """`size` training examples drawn from a seed, as token ids."""
    rng = random.Random(seed)
    drawn = [example(rng, held_out=False) for _ in range(size)]
    prompts = tokenizer.encode_batch_fast([prompt_text(e) for e in drawn])
    answers = tokenizer.encode_batch_fast([e.answer + END for e in drawn])
    return [(p.ids, a.ids) for p, a in zip(prompts, answers, strict=True)]


def batches(tokenizer: Tokenizer, seed: int, size: int, start: int) -> Iterator[list[Encoded]]:
    """All batches from number `start` on; each block holds `BLOCK` batches of similar lengths in random order."""
    for block in itertools.count(start // BLOCK):
        examples = sorted(encode(tokenizer, f"{seed}/{block}", BLOCK * size), key=lambda e: len(e[0]) + len(e[1]))
        groups = [examples[i : i + size] for i in range(0, len(examples), size)]
        random.Random(f"{seed}/{block}").shuffle(groups)
        yield from groups[max(0, start - block * BLOCK) :]


def loss_of(model: Model, batch: Sequence[Encoded], pad: int) -> torch.Tensor:
    """Mean cross-entropy of the answer tokens, each example weighted alike."""
    width = max(len(p) + len(a) for p, a in batch) - 1
    tokens = torch.tensor([(p + a)[:-1] + [pad] * (width + 1 - len(p) - len(a)) for p, a in batch])
    rows = torch.tensor([i for i, (_, a) in enumerate(batch) for _ in a])
    places = torch.tensor([len(p) - 1 + j for p, a in batch for j in range(len(a))])
    targets = torch.tensor([t for _, a in batch for t in a])
    weights = torch.tensor([len(a) ** -0.5 for _, a in batch for _ in a])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(tokens, (rows, places))
    losses = F.cross_entropy(logits.float(), targets, reduction="none")
    return (losses * weights).sum() / weights.sum()


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
