"""What earlier queries measured of an engine, kept beside the worker's files for the estimates of later ones."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from spark_llm.optimizer.engine_profile import CHARACTERS_PER_TOKEN, Speed

FILE = "calibration.json"
KEPT_QUERIES, KEPT_CALLS = 9, 200
START_SECONDS = 1.0
"""Of a query, for planning and Spark's stages."""

OUTPUT_WEIGHT = 8.0
"""Computed prompt tokens that take as long as one token of an answer, roughly, at many running requests."""

LEAST_WORK = 20_000.0
"""Queries of less work measure Spark, not the engine."""


class Measured:
    """One model of one engine; `raw` is its entry of the file."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self._raw = raw

    def speed(self) -> Speed | None:
        """From the median of the latest queries; None before the first."""
        if not (seconds := self._raw.get("work_seconds")):
            return None
        return Speed(START_SECONDS, median(seconds), median(seconds) * OUTPUT_WEIGHT)

    def output_tokens(self, call_id: str) -> float | None:
        """Mean tokens of an answer to a call that was asked before."""
        return self._raw.get("answers", {}).get(call_id)

    def lengths(self) -> dict[str, list[tuple[float, float]]]:
        """By kind of constraint, mean tokens of an answer and `max_tokens` of the latest calls."""
        return {kind: [(mean, most) for mean, most in found] for kind, found in self._raw.get("lengths", {}).items()}

    @property
    def characters_per_token(self) -> float:
        return self._raw.get("characters_per_token", CHARACTERS_PER_TOKEN)


class Calibration:
    """The file in `folder`. Unreadable or unwritable, it is as if nothing had been measured."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE

    def of(self, model: str) -> Measured:
        return Measured(self._read().get(model, {}))

    def record(
        self,
        model: str,
        call_id: str | None,
        measured: Mapping[str, float],
        prompt_ratio: float | None = None,
        bound: tuple[str, int] | None = None,
    ) -> None:
        """Add what a query measured.

        Parameters
        ----------
        model : str
            Key of engine and model.
        call_id : str, optional
            The call, where the query asked only one.
        measured : mapping
            `calls`, `prompt`, `cached` and `output` tokens, `seconds`.
        prompt_ratio : float, optional
            Measured over predicted prompt tokens of a call, where they were predicted from characters.
        bound : tuple of str and int, optional
            The kind of the call's constraint, and its `max_tokens`: what other calls of the kind are expected to take.
        """
        everything = self._read()
        entry = everything.setdefault(model, {})
        work = measured["prompt"] - measured["cached"] + OUTPUT_WEIGHT * measured["output"]
        if work >= LEAST_WORK:
            seconds = max(measured["seconds"] - START_SECONDS, 0.1 * measured["seconds"])
            entry["work_seconds"] = [*entry.get("work_seconds", []), seconds / work][-KEPT_QUERIES:]
        if call_id and measured["calls"]:
            answers = entry.get("answers", {})
            answers.pop(call_id, None)
            kept = list(answers.items())[-KEPT_CALLS + 1 :]
            mean = measured["output"] / measured["calls"]
            entry["answers"] = {**dict(kept), call_id: mean}
            if bound:
                lengths = entry.setdefault("lengths", {})
                lengths[bound[0]] = [*lengths.get(bound[0], []), (mean, bound[1])][-KEPT_QUERIES:]
        if prompt_ratio:
            entry["characters_per_token"] = Measured(entry).characters_per_token / prompt_ratio
        self._write(everything)

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(self._file.read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _write(self, everything: Mapping[str, Any]) -> None:
        try:
            handle, name = tempfile.mkstemp(dir=self._file.parent)
            with os.fdopen(handle, "w") as out:
                json.dump(everything, out)
            Path(name).replace(self._file)
        except OSError:
            return
