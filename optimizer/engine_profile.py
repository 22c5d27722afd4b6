"""What the planner knows of the engine that will be asked: its tokens, its cache, its speed and its prices."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from spark_llm.optimizer.arrangement import Blocks

Numbers = npt.NDArray[np.integer]
Floats = npt.NDArray[np.float64]

CHARACTERS_PER_TOKEN = 4.0
"""Of English prose under the usual vocabularies; used where no tokenizer is at hand."""

BLOCKS = {"vllm": 16, "endpoint": 128}
"""Tokens of an engine's cache block, where it serves whole blocks of more than a token."""

ENDPOINT_MINIMUM = 1024
"""Hosted endpoints serve no shorter prefix from their cache."""


def by_length(texts: Sequence[str]) -> Floats:
    """Tokens of texts at a fixed number of characters per token."""
    return np.fromiter(map(len, texts), np.float64, len(texts)) / CHARACTERS_PER_TOKEN


@dataclass(frozen=True, slots=True)
class Prices:
    """Money per million tokens: of the prompt, of what the cache serves of it, of the answer."""

    prompt: float = 0.0
    cached: float = 0.0
    output: float = 0.0

    def cost(self, prompt: float, cached: float, output: float) -> float:
        return ((prompt - cached) * self.prompt + cached * self.cached + output * self.output) / 1e6

    def __bool__(self) -> bool:
        return self.prompt > 0 or self.output > 0


@dataclass(frozen=True, slots=True)
class Speed:
    """Seconds of a query: `start`, and for each computed token of a prompt and each token of an answer."""

    start: float
    prompt: float
    output: float

    def seconds(self, computed: float, output: float) -> float:
        return self.start + computed * self.prompt + output * self.output


@dataclass(frozen=True, slots=True)
class EngineProfile:
    """One engine with one model.

    Attributes
    ----------
    count : callable
        How many tokens texts take that stand alone between line ends.
    tokenize : callable, optional
        Their tokens, where the model's tokenizer is at hand.
    frame : tuple of float
        Tokens that the chat template puts before the instruction, and after the record.
    capacity : int, optional
        Tokens that the prefix cache holds; None where that is not known.
    block : int
        Tokens of a cache block; only whole blocks are served.
    minimum : int
        Tokens of the shortest beginning that the cache serves.
    prices, speed, output
        Money; speed and mean tokens of an answer as measured before, None where nothing was.
    lengths : mapping
        By kind of constraint, mean tokens of the answers to other calls, with their `max_tokens`.
    """

    count: Callable[[Sequence[str]], Floats] = by_length
    tokenize: Callable[[Sequence[str]], Sequence[Numbers]] | None = None
    frame: tuple[float, float] = (0.0, 0.0)
    capacity: int | None = None
    block: int = 1
    minimum: int = 0
    prices: Prices = Prices()
    speed: Speed | None = None
    output: float | None = None
    lengths: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)


def engine_profile(conf: Mapping[str, str]) -> EngineProfile:
    """What the session's settings alone say."""
    engine = conf.get("spark.llm.engine", "native")
    args = engine_args(conf)
    tokens, block = args.get("kv_tokens"), args.get("block_size")
    return EngineProfile(
        capacity=tokens if isinstance(tokens, int) and tokens > 0 else None,
        block=block if isinstance(block, int) and block > 0 and engine in BLOCKS else BLOCKS.get(engine, 1),
        minimum=ENDPOINT_MINIMUM if engine == "endpoint" else 0,
        prices=_prices(conf),
    )


def character_blocks(conf: Mapping[str, str], instruction: str) -> Blocks:
    """The blocks of the engine's cache in characters, behind the instruction: what a window's plan counts in."""
    block = engine_profile(conf).block
    return Blocks(block * CHARACTERS_PER_TOKEN, len(instruction)) if block > 1 else Blocks()


def engine_args(conf: Mapping[str, str]) -> Mapping[str, object]:
    """`spark.llm.engine.args`; {} where it is unusable: the engine refuses it, naming it, and a plan is made anyhow."""
    try:
        args = json.loads(conf.get("spark.llm.engine.args", "{}"))
    except ValueError:
        return {}
    return args if isinstance(args, dict) else {}


def _prices(conf: Mapping[str, str]) -> Prices:
    given = {name: _number(conf.get(f"spark.llm.price.{name}", "")) for name in ("prompt", "cached", "output")}
    prompt = given["prompt"] or 0.0
    cached = prompt if given["cached"] is None else given["cached"]
    return Prices(prompt, cached, given["output"] or 0.0)


def _number(text: str) -> float | None:
    try:
        return max(float(text), 0.0)
    except ValueError:
        return None
