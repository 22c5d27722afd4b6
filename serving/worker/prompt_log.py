"""The log of prompts and answers that `spark.llm.worker.logPrompts` asks for; without it none is ever written."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

from spark_llm.serving.core import Finished
from spark_llm.serving.worker.question import Question

MAX_BYTES = 64 << 20
"""A full log replaces the one before it, so at most twice as much is kept."""


class PromptLog:
    """One JSON object a line: client, prompt, answer or error; only the user can read the file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()

    def write(self, question: Question, row: Finished) -> None:
        call = json.loads(question.call)
        segments = question.batch.column("segments")[question.row].as_py()
        pieces = (segment["payload"].decode() for segment in segments)
        prompt = [call["system"] or "", call["instruction"], *pieces, call["closing"]]
        error = row.error and {"condition": row.error.condition, "message": row.error.message}
        line = {"client": question.payer.name, "prompt": "".join(prompt), "answer": row.text, "error": error}
        with self._lock:
            if self._file.exists() and self._file.stat().st_size > MAX_BYTES:
                self._file.replace(self._file.with_suffix(".prompts.old"))
            descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(descriptor, "w") as log:
                log.write(json.dumps(line, ensure_ascii=False) + "\n")
