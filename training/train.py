"""Train the default model: `python -m training.train`. The same command resumes from the last checkpoint.

On two cores: `--minutes 80` (two workers of one thread each). On an accelerator, in minutes:
`--device cuda --size large --workers 1 --batch 512 --generators 15 --minutes 8`.

The model directory grows in `build/training/model`: whole after the first checkpoint, best after the last. The learning
rate follows the budget, which counts processor time on the CPU and wall-clock time elsewhere: on shared cores a run is
not cut short. A resumed run may be given another budget; a smaller one ends it soon.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from operator import itemgetter
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import distributed, multiprocessing, nn
from torch.nn import functional as F

from training import tokenizer as bpe
from training.batches import Batch, Source
from training.induction import relate_variants
from training.model import SIZES, Model, save
from training.muon import Muon
from training.render import END
from training.tagging import TAGS

log = logging.getLogger("training")

TAGGING = 1.0
"""Weight of the loss of the tagged phrases beside the loss of the answers."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Settings of a run: its budget, batch size per worker, peak learning rates, and places.

    Each of the `workers` is a process (on the CPU of one thread) that draws its own examples; their gradients are
    averaged. `generators` are processes that draw the examples ahead.
    """

    minutes: float = 80.0
    device: str = "cpu"
    size: str = "small"
    workers: int = 2
    generators: int = 0
    batch: int = 32
    peak_rate: float = 1.5e-3
    matrix_rate: float = 0.006
    weight_decay: float = 0.05
    seed: int = 0
    save_every: int = 200
    run: Path = Path("build/training")


class Run:
    """A training run that can stop and resume: model, optimizers, number of steps and seconds spent."""

    def __init__(self, recipe: Recipe, worker: int = 0) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.worker, self.step, self.seconds = recipe, worker, 0, 0.0
        self.device = torch.device(recipe.device)
        self.checkpoint, self.directory = recipe.run / "checkpoint.pt", recipe.run / "model"
        self.tokenizer = make_tokenizer(recipe)
        self.model = Model(SIZES[recipe.size])
        relate_variants(
            self.model, [token for token, _ in sorted(self.tokenizer.get_vocab().items(), key=itemgetter(1))]
        )
        self.tagger = nn.Linear(self.model.config.hidden_size, len(TAGS))
        self.parameters = [*self.model.to(self.device).parameters(), *self.tagger.to(self.device).parameters()]
        self.matrices = Muon([p for p in self.model.layers.parameters() if p.dim() > 1], recipe.matrix_rate)
        self.others = _adam(self.model, self.tagger, recipe)
        if self.checkpoint.exists():
            self._resume()

    def _parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        return {"model": self.model, "tagger": self.tagger, "matrices": self.matrices, "others": self.others}

    def _resume(self) -> None:
        saved = torch.load(self.checkpoint, weights_only=True, map_location=self.device)
        for name, part in self._parts().items():
            part.load_state_dict(saved[name])
        self.step, self.seconds = saved["step"], saved["seconds"]

    def save(self) -> None:
        """Write the checkpoint, whole or not at all, and the weights."""
        state = {name: part.state_dict() for name, part in self._parts().items()}
        torch.save(
            {**state, "step": self.step, "seconds": self.seconds}, partial := self.checkpoint.with_suffix(".part")
        )
        partial.replace(self.checkpoint)
        pad, end = (self.tokenizer.token_to_id(t) for t in (bpe.SPECIAL[0], END))
        save(self.model, self.directory, end, pad)

    def train(self) -> None:
        """Step until the budget is spent."""
        recipe, losses = self.recipe, []
        source = Source(self.tokenizer, recipe.seed, self.worker, recipe.workers, recipe.batch)
        clock = time.process_time if self.device.type == "cpu" else time.monotonic
        begin = clock() - self.seconds
        for batch in source.batches(self.step, recipe.generators):
            losses.append(self._backward(batch.to(self.device)))
            self._share(clock() - begin)
            self._update()
            self.step += 1
            over = self.seconds >= 60 * recipe.minutes
            if self.worker == 0 and (over or self.step % recipe.save_every == 0):
                answers, tags = torch.stack(losses).mean(0).tolist()
                log.info("step %d, %.0f s, loss %.4f, of tags %.4f", self.step, self.seconds, answers, tags)
                losses.clear()
                self.save()
            if over:
                return

    def _backward(self, batch: Batch) -> torch.Tensor:
        answers, tags = loss_of(self.model, self.tagger, batch)
        (answers + TAGGING * tags).backward()
        return torch.stack((answers, tags)).detach()

    def _share(self, seconds: float) -> None:
        """Average the gradients of all workers, which also take over the first one's clock."""
        self.seconds = seconds
        if self.recipe.workers == 1:
            return
        clock = torch.tensor([seconds * self.recipe.workers if self.worker == 0 else 0.0], device=self.device)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        together = torch.cat([*(g.flatten() for g in gradients), clock])
        distributed.all_reduce(together)
        together /= self.recipe.workers
        self.seconds = together[-1].item()
        for gradient, part in zip(gradients, together[:-1].split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def _update(self) -> None:
        share = learning_rate(self.seconds / (60 * self.recipe.minutes), 1.0)
        for optimizer, peak in ((self.matrices, self.recipe.matrix_rate), (self.others, self.recipe.peak_rate)):
            for group in optimizer.param_groups:
                group["lr"] = peak * share
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.matrices.step()
        self.others.step()
        for parameter in self.parameters:
            parameter.grad = None


def make_tokenizer(recipe: Recipe) -> Tokenizer:
    """The run's tokenizer, trained first where there is none."""
    directory = recipe.run / "model"
    if not (file := directory / "tokenizer.json").exists():
        directory.mkdir(parents=True, exist_ok=True)
        bpe.save(bpe.train(recipe.seed), directory)
    return Tokenizer.from_file(str(file))


def _adam(model: Model, tagger: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    tables = [model.embed_tokens.weight, *(p for p in tagger.parameters() if p.dim() > 1)]
    scales = [p for p in (*model.parameters(), *tagger.parameters()) if p.dim() == 1]
    groups = [{"params": tables, "weight_decay": recipe.weight_decay}, {"params": scales, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.peak_rate, betas=(0.9, 0.98), fused=True)


def loss_of(model: Model, tagger: nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean cross-entropies of the answers' tokens, by their weights, and of the tags."""
    with torch.autocast(batch.tokens.device.type, dtype=torch.bfloat16):
        logits, inside = model(batch.tokens, (batch.rows, batch.places))
        tag_logits = tagger(F.rms_norm(inside[batch.tag_rows, batch.tag_places], inside.shape[-1:]))
    losses = F.cross_entropy(logits.float(), batch.targets, reduction="none")
    tag_loss = F.cross_entropy(tag_logits.float(), batch.tags, reduction="sum") / (batch.tags >= 0).sum().clamp(min=1)
    return (losses * batch.weights).sum() / batch.weights.sum(), tag_loss


def learning_rate(progress: float, peak: float) -> float:
    """Linear warm-up over the first 2 %, the peak until 60 %, then a straight line down to 2 % of it."""
    if progress < 0.02:
        return peak * (progress / 0.02 + 0.01)
    return peak * (1 - 0.98 * max(0.0, min(1.0, progress) - 0.6) / 0.4)


def work(worker: int, recipe: Recipe) -> None:
    """One worker's part of a run."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    if recipe.workers > 1:
        meeting = f"file://{(recipe.run / 'meeting').absolute()}"
        distributed.init_process_group("gloo", meeting, rank=worker, world_size=recipe.workers)
    Run(recipe, worker).train()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for setting in fields(Recipe):
        kind = Path if setting.name == "run" else type(setting.default)
        choices = list(SIZES) if setting.name == "size" else None
        parser.add_argument(f"--{setting.name.replace('_', '-')}", type=kind, default=setting.default, choices=choices)
    recipe = Recipe(**vars(parser.parse_args(arguments)))
    make_tokenizer(recipe)
    if recipe.workers == 1:
        work(0, recipe)
        return
    (recipe.run / "meeting").unlink(missing_ok=True)
    multiprocessing.spawn(work, (recipe,), recipe.workers)


if __name__ == "__main__":
    main()
