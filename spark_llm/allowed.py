"""Which models and files a session may name, where the application restricts them."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

from spark_llm.errors import LlmError


def check_model(name: str, allowed: str) -> None:
    """Raise `LLM_NOT_ALLOWED` unless a model may be used.

    Parameters
    ----------
    name : str
        A directory, a hub name, or `default`, which is always allowed.
    allowed : str
        `spark.llm.models.allowed`: folders whose models may be used and patterns of hub names, divided by commas; empty
        allows every model.

    Examples
    --------
    >>> check_model("Qwen/Qwen3-0.6B", "/models, Qwen/*")
    >>> check_model("/models/../etc", "/models, Qwen/*")
    Traceback (most recent call last):
    ...
    spark_llm.errors.LlmError: [LLM_NOT_ALLOWED] '/models/../etc' is not among what ...
    """
    accepted = _entries(allowed)
    if not accepted or name == "default":
        return
    folders = [entry for entry in accepted if entry.startswith("/")]
    local = name.startswith((".", "/", "~")) or Path(name).exists()
    known = is_under(name, folders) if local else any(fnmatchcase(name, entry) for entry in accepted)
    if not known:
        raise LlmError("LLM_NOT_ALLOWED", name=name, key="spark.llm.models.allowed", accepted=", ".join(accepted))


def check_file(path: str, allowed: str) -> None:
    """Raise `LLM_NOT_ALLOWED` unless a file that a setting names lies in one of the folders `allowed`; empty = all."""
    accepted = _entries(allowed)
    if path and accepted and not is_under(path, accepted):
        raise LlmError("LLM_NOT_ALLOWED", name=path, key="spark.llm.files.allowed", accepted=", ".join(accepted))


def _entries(text: str) -> list[str]:
    return [entry for part in text.split(",") if (entry := part.strip())]


def is_under(path: str, folders: Iterable[str]) -> bool:
    """Whether `path` lies in one of the folders once its links and `..` are followed."""
    resolved = Path(path).resolve()
    return any(resolved.is_relative_to(Path(folder).resolve()) for folder in folders)
