"""What this host knows of the engines that calls will ask: tokenizers of local models, and what queries measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spark_llm.calibration import Calibration
from spark_llm.conf import PREFIX, Settings
from spark_llm.optimizer import serve
from spark_llm.optimizer.core import CallSpec
from spark_llm.optimizer.engine_profile import EngineProfile, Speed, engine_profile
from spark_llm.optimizer.prompts import prepare
from spark_llm.serving.core import EngineFailure, ModelRef
from spark_llm.serving.footprint import MAX_DEFAULT_KV_TOKENS
from spark_llm.serving.models.directory import find_model
from spark_llm.serving.prompt import ChatTemplate
from spark_llm.serving.tokenizer import Tokenizer
from spark_llm.serving.worker.rendezvous import worker_folder

Counter = Callable[[Sequence[str]], npt.NDArray[np.float64]]

EMBEDDED = Speed(1.0, 4e-5, 3.2e-4)
"""The default model on two x86 cores without AMX, until this host has measured its own."""


def profile(spec: CallSpec) -> EngineProfile:
    """What is known on this host of the engine that will be asked."""
    found, settings = engine_profile(spec.conf), _settings(spec)
    model = settings.model(spec.options.get("model"))
    if found.capacity is None and model.engine == "native":
        found = replace(found, capacity=MAX_DEFAULT_KV_TOKENS)
    measured = _calibration(settings).of(model.key)
    if (directory := _directory(model)) is None:
        found = replace(found, count=_by_ratio(measured.characters_per_token))
    else:
        system = spec.options.get("system") or ""
        frame = _frame(directory, system, chat=settings.flag("chat"))
        tokenize = _tokenizer(directory).encode_pieces
        found = replace(found, count=_counter(tokenize), tokenize=tokenize, frame=frame)
    speed = measured.speed() or (EMBEDDED if model.engine == "native" and model.name == "default" else None)
    return replace(found, speed=speed, output=measured.output_tokens(spec.call_id), lengths=measured.lengths())


def record(params: Mapping[str, Any]) -> dict[str, Any]:
    """Keep what a finished query measured; with one call also the length of its answers and prompts."""
    specs = [serve.call_spec(raw) for raw in params["calls"]]
    models = {(settings := _settings(spec)).model(spec.options.get("model")).key: settings for spec in specs}
    if len(models) != 1 or specs[0].conf.get("spark.llm.engine") == "stub":
        return {}
    [(model, settings)] = models.items()
    measured, spec = params["measured"], specs[0] if len({spec.call_id for spec in specs}) == 1 else None
    ratio = None
    if spec and spec.plan and measured["calls"] and _directory(settings.model(spec.options.get("model"))) is None:
        predicted = spec.plan.estimate.get("prompt_tokens", 0) / max(spec.plan.estimate.get("distinct", 0), 1)
        ratio = measured["prompt"] / measured["calls"] / predicted if predicted else None
    bound = None
    if spec and not spec.terms:
        asked = prepare(replace(spec, plan=None)).call
        bound = asked["constraint"]["kind"], asked["max_tokens"]
    _calibration(settings).record(model, spec.call_id if spec else None, measured, ratio, bound)
    return {}


def _settings(spec: CallSpec) -> Settings:
    return Settings({key: value for key, value in spec.conf.items() if key.startswith(PREFIX)})


def _calibration(settings: Settings) -> Calibration:
    return Calibration(worker_folder(settings.text("worker.dir")))


def _directory(model: ModelRef) -> Path | None:
    """Where the model's tokenizer lies on this host; hubs are not asked."""
    if model.engine not in ("native", "vllm") or not (model.name == "default" or Path(model.name).is_dir()):
        return None
    try:
        directory = find_model(model.name)
        _tokenizer(directory)
    except EngineFailure:
        return None
    return directory


@lru_cache(maxsize=4)
def _tokenizer(directory: Path) -> Tokenizer:
    return Tokenizer(directory)


@lru_cache(maxsize=64)
def _frame(directory: Path, system: str, *, chat: bool) -> tuple[float, float]:
    """Tokens that stand before the instruction and behind the record."""
    tokenizer = _tokenizer(directory)
    template = ChatTemplate(directory) if chat else None
    if not template:
        return len(tokenizer.start_ids) + len(tokenizer.encode(f"{system}\n\n" if system else "")), 0.0
    before, after = template.split(system or None)
    return float(len(tokenizer.encode(before, markup=True))), float(len(tokenizer.encode(after, markup=True)))


def _counter(tokenize: Callable[[Sequence[str]], Sequence[npt.NDArray[np.integer]]]) -> Counter:
    def count(texts: Sequence[str]) -> npt.NDArray[np.float64]:
        return np.array([len(tokens) for tokens in tokenize(texts)], np.float64)

    return count


def _by_ratio(characters_per_token: float) -> Counter:
    return lambda texts: np.fromiter(map(len, texts), np.float64, len(texts)) / characters_per_token
