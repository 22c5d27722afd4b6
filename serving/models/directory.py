"""Where a model lies, and its JSON files."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from spark_llm.serving.core import EngineFailure
from spark_llm.serving.models.identity import model_identity

__all__ = ["find_model", "model_identity", "read_json"]
HUB_FILES = ("*.json", "*.jinja", "*.safetensors")
DEFAULT_MODEL = "default_model"
"""Folder of the embedded model inside the package."""


def find_model(name: str) -> Path:
    """The directory of a model: a path, `default` for the embedded one, or a name that the hub knows.

    Raises
    ------
    EngineFailure
        `LLM_UNKNOWN_MODEL`.
    """
    directory = Path(str(files("spark_llm") / DEFAULT_MODEL)) if name == "default" else Path(name)
    if (directory / "config.json").exists():
        return directory
    if name == "default" or directory.exists() or Path(name).is_absolute():
        raise _unknown(name, "the directory has no config.json" if directory.exists() else "no such directory")
    return _from_hub(name)


def read_json(file: Path) -> dict[str, Any]:
    """The content of a JSON file; empty if it does not exist.

    Raises
    ------
    EngineFailure
        `LLM_ENGINE_START` for a file that holds no JSON object.
    """
    try:
        raw = json.loads(file.read_bytes()) if file.exists() else {}
    except (ValueError, RecursionError):
        raw = None
    if not isinstance(raw, dict):
        message = f"the model in '{file.parent}' cannot be served: its {file.name} is no JSON object."
        raise EngineFailure("LLM_ENGINE_START", message, "Use a complete checkpoint.")
    return raw


def _from_hub(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download  # optional: the package works without a hub
    except ImportError:
        raise _unknown(name, "huggingface_hub is not installed") from None
    try:
        return Path(snapshot_download(name, allow_patterns=list(HUB_FILES)))
    except Exception as failure:  # whatever the hub's client raises, the model cannot be had
        raise _unknown(name, f"the hub could not provide it ({type(failure).__name__})") from failure


def _unknown(name: str, detail: str) -> EngineFailure:
    return EngineFailure(
        "LLM_UNKNOWN_MODEL",
        f"model '{name}' is neither a directory with config.json nor known to the hub: {detail}.",
        "Set spark.llm.model to a model directory, a hub name where a hub can be reached, or 'default'.",
    )
