"""Answers that a client has been given already, bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from spark_llm.serving.core import FinishReason

Answer = tuple[str, FinishReason]
ENTRY_BYTES = 300
"""Key, tuple and dictionary slot of one remembered answer, roughly."""


class AnswerMemo:
    """Least recently used answers by their identity; the owner serializes access.

    Parameters
    ----------
    limit : int
        Bytes of answers and keys held at most; 0 remembers nothing.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._answers: OrderedDict[Hashable, Answer] = OrderedDict()
        self.bytes = 0

    def get(self, key: Hashable) -> Answer | None:
        answer = self._answers.get(key)
        if answer is not None:
            self._answers.move_to_end(key)
        return answer

    def put(self, key: Hashable, answer: Answer) -> None:
        self._forget(self._answers.pop(key, None))
        self._answers[key] = answer
        self.bytes += _size(answer)
        while self.bytes > self._limit:
            self._forget(self._answers.popitem(last=False)[1])

    def _forget(self, answer: Answer | None) -> None:
        self.bytes -= _size(answer) if answer is not None else 0

    def clear(self) -> None:
        self._answers.clear()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._answers)


def _size(answer: Answer) -> int:
    return len(answer[0].encode()) + ENTRY_BYTES
