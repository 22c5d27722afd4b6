"""The dataclasses that client, worker, scheduler and engines share. Imports nothing of this package."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

TRANSIENT = frozenset({"LLM_ROW_INTERRUPTED"})
"""Conditions of rows that may well be answered when they are asked again."""
FinishReason = Literal["stop", "length", "error", "cancelled"]
ConstraintKind = Literal["none", "choices", "regex", "json_schema"]
Isolation = Literal["none", "pool", "query"]


class EngineFailure(Exception):
    """A failure that concerns every row of a call: unknown model, missing directory, an engine that cannot start.

    `condition` names a row of the table of error conditions; `remedy` tells the user what to do.
    """

    def __init__(self, condition: str, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.condition, self.message, self.remedy = condition, message, remedy


@dataclass(frozen=True, slots=True)
class ModelRef:
    """Which model, served by which engine.

    `name` is a directory in the Hugging Face format, a hub name, or `default` (the embedded model). `args` are
    engine settings (`dtype`, `kv_tokens`, `max_batch_tokens`, …); `python` is the interpreter of the replica's process.
    """

    name: str = "default"
    engine: str = "native"
    python: str = ""
    args: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Equal for references that can share one replica."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Constraint:
    """What the answer must look like. `value`: list of texts, a regular expression, or a JSON Schema (as text)."""

    kind: ConstraintKind = "none"
    value: Any = None


@dataclass(frozen=True, slots=True)
class Call:
    """What all requests of one call site have in common; sent once per stream.

    The prompt of a request is: chat prefix (with `system`), `instruction`, the request's segments, `closing`, chat
    suffix.
    """

    call_id: str
    instruction: str = ""
    system: str | None = None
    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    constraint: Constraint = Constraint()
    chat: bool = True
    closing: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Call:
        raw = {**raw, "stop": tuple(raw.get("stop", ())), "constraint": Constraint(**raw.get("constraint", {}))}
        return cls(**raw)


@dataclass(frozen=True, slots=True)
class Terms:
    """What a query asks for beside its question.

    Parameters
    ----------
    isolation : {'none', 'pool', 'query'}
        Who shares cached prefixes of prompts.
    max_rows : int
        Rows that the query may ask on one host; 0 = no limit.
    deadline_seconds : float
        Life of the query on one host; 0 = no limit.
    attempts : int
        Times that a row is asked while its engine's failures are transient.
    weight : float
        The pool's share of the engine beside other pools.
    """

    isolation: Isolation = "pool"
    max_rows: int = 0
    deadline_seconds: float = 0.0
    attempts: int = 3
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class ClientRef:
    """Who pays: one query, in a pool. Pools share an engine by weight, the clients of one pool equally."""

    name: str = ""
    pool: str = "default"
    weight: float = 1.0


NOBODY = ClientRef()


@dataclass(frozen=True, slots=True)
class Request:
    """One question. `segments` are pieces of prompt text: equal pieces are equal token runs in the engine.

    `identity` (32 bytes) is the answer's identity without the model: equal identities may share one answer; None means
    that the request must be asked by itself. `group_id` ties calls over one row. `client` is who pays. The engine's
    cache shares prefixes among requests of one `domain` only. `adapter` is a directory with a LoRA adapter, or ''.
    """

    request_id: int
    call: Call
    segments: tuple[str, ...]
    identity: bytes | None = None
    group_id: int = 0
    seed: int | None = None
    client: ClientRef = NOBODY
    domain: str = ""
    adapter: str = ""

    @property
    def text(self) -> str:
        """What the user says: the prompt without system message and chat template."""
        return "".join((self.call.instruction, *self.segments, self.call.closing))


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one answered request. `cached` of the `prompt` tokens came from the prefix cache."""

    prompt: int = 0
    cached: int = 0
    output: int = 0


@dataclass(frozen=True, slots=True)
class RowError:
    """Why one row has no answer: a condition of the error table, a message without user data, and the attempts made."""

    condition: str
    message: str
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of one request: an answer or an error.

    `shared` marks an answer that another equal request paid for (memo or merged in flight): its usage is zero.
    """

    request_id: int
    text: str | None
    finish_reason: FinishReason
    usage: Usage = Usage()
    error: RowError | None = None
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Capacity:
    """What an engine can hold: KV cache tokens, longest prompt + answer, requests running at once, model identity."""

    kv_tokens: int
    max_length: int
    max_running: int
    model_identity: str


class Engine(Protocol):
    """One loaded model. Not thread-safe: one thread submits, steps and cancels."""

    def submit(self, requests: Sequence[Request]) -> None:
        """Queue requests. A request that can never be served comes back as an error from `step`."""

    def step(self) -> list[Finished]:
        """Do one bounded piece of work and return what it finished; empty and immediate when idle."""

    def has_work(self) -> bool:
        """Whether `step` has anything to do."""

    def cancel(self, request_ids: Sequence[int]) -> None:
        """Forget these requests; they are not reported by `step` afterwards."""

    def capacity(self) -> Capacity: ...

    def stats(self) -> Mapping[str, float]:
        """Counters since the start: `steps`, `prompt_tokens`, `cached_tokens`, `output_tokens`, and more."""

    def running(self) -> Mapping[str, int]:
        """How many requests of each client are being computed; empty where the engine cannot tell."""

    def close(self) -> None: ...
