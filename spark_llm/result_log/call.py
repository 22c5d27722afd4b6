"""Where the answers of one call lie: a folder named by all that its rows have in common, the model first."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from spark_llm.conf import Settings
from spark_llm.optimizer.core import CallSpec
from spark_llm.optimizer.identity import IdentityRule
from spark_llm.serving.core import EngineFailure, ModelRef
from spark_llm.serving.models.directory import find_model
from spark_llm.serving.models.identity import model_identity

FORMAT = 1
"""Raised when the text of prompts or the files change, so that older answers are not taken for newer ones."""
MODEL_FILES = ("native", "vllm")
"""Engines that read the model's files themselves: equal files give equal answers."""


def call_folder(spec: CallSpec, rule: IdentityRule) -> str:
    """The folder's name, 32 hexadecimal digits. Result types and options never share one.

    Raises
    ------
    EngineFailure
        `LLM_UNKNOWN_MODEL`: this host does not see the model's directory.
    """
    model = identify(Settings(spec.conf).model(spec.options.get("model")))
    asked = [FORMAT, model, rule.base.hex(), spec.result_type]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:32]


def identify(model: ModelRef) -> list[Any]:
    """What tells a model from others: the content of its directory, else its names and address."""
    if model.engine in MODEL_FILES and (model.name == "default" or Path(model.name).is_absolute() or _is_local(model)):
        directory = find_model(model.name)
        newest = max(file.stat().st_mtime_ns for file in directory.iterdir())
        return ["files", _identity(str(directory), newest)]
    return [model.engine, model.name, model.args.get("url"), model.args.get("base_url")]


def _is_local(model: ModelRef) -> bool:
    return (Path(model.name) / "config.json").exists()


@lru_cache(maxsize=16)
def _identity(directory: str, _changed: int) -> str:
    return model_identity(Path(directory))


def locate(spec: CallSpec, rule: IdentityRule) -> dict[str, Any]:
    """What the JVM needs to find and to compute a call's identities, or why it cannot (`unseen`)."""
    try:
        folder = call_folder(spec, rule)
    except EngineFailure:
        return {"unseen": "the driver does not see the model's directory"}
    return {
        "folder": folder,
        "base": rule.base.hex(),
        "fields": list(rule.fields),
        "unordered": sorted(rule.unordered),
    }
