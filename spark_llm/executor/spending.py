"""What a query has taken on all hosts: each tells the driver through the executor plugin, and learns of the others."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

from spark_llm.serving.totals import ClientTotals
from spark_llm.serving.worker.leases import file_name

FOLDER = "spent"
LOOK_SECONDS = 0.1

Tokens = tuple[int, int, int]


class Spending:
    """One query on this host.

    `SpentTokens.scala` takes what is told to the driver and brings back the sum of the others. Both lie in files of the
    worker's folder, "prompt cached output" each; without the plugin nobody answers, and the host counts alone.

    Parameters
    ----------
    folder : Path
        The worker's.
    application, execution : str
        Spark's ids of application and SQL execution.
    """

    def __init__(self, folder: Path, application: str, execution: str) -> None:
        name = f"{file_name(application)}@{execution}"
        self._own, self._others = folder / FOLDER / f"{name}.here", folder / FOLDER / f"{name}.elsewhere"
        self._looked = -LOOK_SECONDS
        self._known: Tokens = (0, 0, 0)

    def everywhere(self, here: ClientTotals) -> ClientTotals:
        """`here`, what this host's worker has answered so far, with the tokens of the other hosts, as last heard."""
        if time.monotonic() >= self._looked + LOOK_SECONDS:
            self._looked = time.monotonic()
            self._tell((here.prompt, here.cached, here.output))
            self._known = _read(self._others) or self._known
        prompt, cached, output = self._known
        return replace(here, prompt=here.prompt + prompt, cached=here.cached + cached, output=here.output + output)

    def before(self) -> ClientTotals:
        """What was known before this task: one that is tried again must not ask beyond the budget."""
        own, others = _read(self._own) or (0, 0, 0), _read(self._others) or (0, 0, 0)
        return ClientTotals(0, 0, (), *map(sum, zip(own, others, strict=True)))

    def _tell(self, tokens: Tokens) -> None:
        """Tasks of one query write the same totals, of which the larger are the newer."""
        if sum(tokens) < sum(_read(self._own) or (0, 0, 0)):
            self._own.touch()  # says that a task is at work, which wants to hear of the others
            return
        if not self._own.parent.parent.is_dir():
            return  # no worker yet: its folder is the worker's to create
        self._own.parent.mkdir(mode=0o700, exist_ok=True)
        draft = self._own.with_suffix(f".{os.getpid()}")
        draft.write_text(" ".join(map(str, tokens)))
        draft.replace(self._own)


def _read(file: Path) -> Tokens | None:
    try:
        prompt, cached, output = map(int, file.read_text().split())
    except (OSError, ValueError):
        return None
    return prompt, cached, output
