"""Train the byte-level BPE tokenizer on the synthetic data and write it in the Hugging Face format."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from training.lexicon import LEXICON
from training.render import CHAT_TEMPLATE, END, prompt_text
from training.tasks import example

SPECIAL = ("<|pad|>", END, "<|system|>", "<|user|>", "<|assistant|>")
VOCABULARY = 8192
MAX_POSITIONS = 4096

# Digits stand alone and a line break ends a token, so that numbers copy digit by digit and the borders between a
# prompt's segments are borders between tokens. A capital begins a token, so that a name
# has the same tokens wherever it stands.
_PIECES = r"'(?:[sdmt]|ll|ve|re)|\p{Lu}\p{L}*| ?[\p{L}&&[^\p{Lu}]]+|\p{N}| ?[^\s\p{L}\p{N}]+|\n|\s+(?!\S)|\s+"


def corpus(seed: int, size: int) -> Iterator[str]:
    """Prompts and answers for the tokenizer."""
    rng = random.Random(seed)
    for _ in range(size):
        drawn = example(rng, held_out=False)
        yield prompt_text(drawn)
        yield drawn.answer
    for lexicon in LEXICON.values():
        for word in lexicon:
            yield from [f" {word}"] * 200
            yield from [word.capitalize()] * 40


def train(seed: int = 0, size: int = 30_000) -> Tokenizer:
    """A byte-level BPE tokenizer with `VOCABULARY` tokens, the special ones first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(seed, size), trainer)
    return tokenizer


def save(tokenizer: Tokenizer, directory: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json with the chat template."""
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "pad_token": SPECIAL[0],
        "model_max_length": MAX_POSITIONS,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
