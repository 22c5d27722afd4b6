"""What client and worker say to each other: Arrow schemas of both directions and the JSON header of a stream.

Nothing is pickled. Rows are matched by `request_id`, never by position.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from spark_llm.serving.checked import from_json_object
from spark_llm.serving.core import Call, ClientRef, EngineFailure, Finished, ModelRef, Request, RowError, Terms, Usage

PROTOCOL = 3
TEXT = "text"
END = b'{"end":true}'
"""The client's last message: only behind it does the front end the call (see `worker.front`)."""

UP = pa.schema(
    [
        pa.field("request_id", pa.int64(), nullable=False),
        pa.field("call_id", pa.string(), nullable=False),
        pa.field("group_id", pa.int64(), nullable=False),
        pa.field("segments", pa.list_(pa.struct([("kind", pa.string()), ("payload", pa.binary())]))),
        pa.field("adapter", pa.string()),
        pa.field("seed", pa.int64()),
        pa.field("identity", pa.binary(32)),
    ]
)
DOWN = pa.schema(
    [
        pa.field("request_id", pa.int64(), nullable=False),
        pa.field("payload", pa.string()),
        pa.field("finish_reason", pa.string(), nullable=False),
        pa.field("usage", pa.struct([("prompt", pa.int64()), ("cached", pa.int64()), ("output", pa.int64())])),
        pa.field(
            "error",
            pa.struct([("condition", pa.string()), ("message", pa.string()), ("attempts", pa.int32())]),
        ),
        pa.field("shared", pa.bool_(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class StreamHeader:
    """What a stream is about; sent once, as the command of its Flight descriptor."""

    application: str
    execution: str
    pool: str
    model: ModelRef
    call: Call
    terms: Terms = field(default_factory=Terms)

    @property
    def client(self) -> str:
        return f"{self.application}/{self.execution}"

    @property
    def payer(self) -> ClientRef:
        return ClientRef(self.client, self.pool, self.terms.weight)

    @property
    def domain(self) -> str:
        """Within it answers in flight and cached prefixes are shared; '' = everywhere."""
        return {"none": "", "pool": f"pool {self.pool}", "query": f"query {self.client}"}[self.terms.isolation]

    def to_json(self) -> bytes:
        return json.dumps({"protocol": PROTOCOL, **asdict(self)}).encode()

    @classmethod
    def from_json(cls, text: bytes) -> StreamHeader:
        """Read a header; raises EngineFailure where it is malformed or of another protocol version."""
        try:
            raw = json.loads(text, parse_constant=_refuse_constant)
            version = raw.pop("protocol")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
            raise _refused(detail=f"the stream's header is no JSON object with 'protocol': {problem}") from problem
        if version != PROTOCOL:
            raise _refused(detail=f"the worker speaks protocol {PROTOCOL}, the client protocol {version}")
        try:
            header = from_json_object(cls, raw)
            _check_call(header.call)
            _check_weight(header.terms.weight)
        except ValueError as problem:
            raise _refused(detail=f"the stream's header has missing or unknown parts: {problem}") from problem
        return header


def _refuse_constant(name: str) -> None:
    message = f"{name} is no JSON"
    raise ValueError(message)


def _check_weight(weight: float) -> None:
    if not 0 < weight < math.inf:
        message = "Terms.weight is not positive"
        raise ValueError(message)


def _check_call(call: Call) -> None:
    """Raise ValueError where a call would surprise an engine."""
    kind, value = call.constraint.kind, call.constraint.value
    usable = {
        "none": value is None,
        "choices": isinstance(value, list) and bool(value) and all(isinstance(text, str) for text in value),
        "regex": isinstance(value, str),
        "json_schema": isinstance(value, str | dict),
    }
    sampling = call.max_tokens >= 1 and 0 <= call.temperature < math.inf and 0 < call.top_p <= 1
    if not (usable[kind] and sampling):
        message = "Call holds a constraint or sampling options that no engine accepts"
        raise ValueError(message)


def _refused(detail: str) -> EngineFailure:
    remedy = "Install one version of spark-llm on all hosts and end older workers."
    return EngineFailure(condition="LLM_WORKER_START", message=detail, remedy=remedy)


def requests_to_batch(requests: Sequence[Request]) -> pa.RecordBatch:
    """Requests as a batch of schema `UP`. Their `call` and `client` are not in it: the header has them."""
    texts = [text for request in requests for text in request.segments]
    pieces = pa.StructArray.from_arrays(
        [pa.repeat(pa.scalar(TEXT), len(texts)), pa.array(texts, pa.binary())], names=["kind", "payload"]
    )
    ends = np.cumsum([0, *(len(request.segments) for request in requests)], dtype=np.int32)
    columns = [
        pa.array([request.request_id for request in requests], pa.int64()),
        pa.array([request.call.call_id for request in requests], pa.string()),
        pa.array([request.group_id for request in requests], pa.int64()),
        pa.ListArray.from_arrays(pa.array(ends), pieces),
        pa.array([request.adapter or None for request in requests], pa.string()),
        pa.array([request.seed for request in requests], pa.int64()),
        pa.array([request.identity for request in requests], pa.binary(32)),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=UP)


def check_requests(batch: pa.RecordBatch) -> None:
    """Raise EngineFailure unless `batch` holds requests of schema `UP` that can be read without surprises."""
    if batch.schema != UP:
        raise _refused(detail=f"requests must have the schema of protocol {PROTOCOL}, not: {batch.schema}")
    try:
        batch.validate(full=True)  # offsets that lead outside of a buffer would be followed
        segments = batch.column("segments")
        pieces = segments.flatten()
        pieces.field("payload").cast(pa.string())
        nulls = sum(part.null_count for part in (segments, pieces, *pieces.flatten()))
        nulls += sum(batch.column(name).null_count for name in ("request_id", "call_id", "group_id"))
        whole = not nulls and not pc.any(pc.not_equal(pieces.field("kind"), TEXT)).as_py()
    except pa.ArrowException:
        whole = False
    if not whole:
        raise _refused(detail="a batch of requests is corrupt: offsets, NULLs, kinds of segments or their UTF-8")


def batch_to_requests(batch: pa.RecordBatch, call: Call, client: ClientRef, domain: str = "") -> list[Request]:
    """The requests of a batch of schema `UP`, all of one `call`, `client` and isolation domain."""
    segments = batch.column("segments")
    texts = segments.flatten().field("payload").cast(pa.string()).to_pylist()
    lengths = segments.value_lengths().to_pylist()
    ids, groups, seeds, identities, adapters = (
        batch.column(name).to_pylist() for name in ("request_id", "group_id", "seed", "identity", "adapter")
    )
    requests, start = [], 0
    for i, length in enumerate(lengths):
        pieces = tuple(texts[start : start + length])
        adapter = adapters[i] or ""
        requests.append(Request(ids[i], call, pieces, identities[i], groups[i], seeds[i], client, domain, adapter))
        start += length
    return requests


def finished_to_batch(rows: Sequence[Finished]) -> pa.RecordBatch:
    """Ends of requests as a batch of schema `DOWN`."""
    usage = [pa.array([getattr(row.usage, name) for row in rows], pa.int64()) for name in _names("usage")]
    columns = [
        pa.array([row.request_id for row in rows], pa.int64()),
        pa.array([row.text for row in rows], pa.string()),
        pa.array([row.finish_reason for row in rows], pa.string()),
        pa.StructArray.from_arrays(usage, names=_names("usage")),
        pa.array([row.error and asdict(row.error) for row in rows], DOWN.field("error").type),
        pa.array([row.shared for row in rows], pa.bool_()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=DOWN)


def batch_to_finished(batch: pa.RecordBatch) -> list[Finished]:
    """The ends of requests in a batch of schema `DOWN`."""
    usage = zip(*(part.to_pylist() for part in batch.column("usage").flatten()), strict=True)
    columns = (batch.column(name).to_pylist() for name in ("request_id", "payload", "finish_reason", "error", "shared"))
    return [
        Finished(request_id, text, reason, Usage(*used), error and RowError(**error), shared)
        for (request_id, text, reason, error, shared), used in zip(zip(*columns, strict=True), usage, strict=True)
    ]


def _names(column: str) -> list[str]:
    return [part.name for part in DOWN.field(column).type]


def failure_to_dict(failure: EngineFailure) -> dict[str, str]:
    """A failure of a whole stream, for the wire."""
    return {"condition": failure.condition, "message": failure.message, "remedy": failure.remedy}


def to_metadata(message: dict[str, Any]) -> bytes:
    """A JSON message that travels beside batches: `totals`, `failure`, `report`."""
    return json.dumps(message, separators=(",", ":")).encode()


def from_metadata(buffer: pa.Buffer | None) -> dict[str, Any]:
    """The JSON message beside a batch; {} where there is none."""
    return json.loads(buffer.to_pybytes()) if buffer is not None else {}


def is_end(buffer: pa.Buffer | None) -> bool:
    """Whether the message beside a batch is the client's last."""
    return buffer is not None and buffer.size == len(END) and buffer.to_pybytes() == END


def read_report(buffer: pa.Buffer | None) -> tuple[int, list[RowError]] | None:
    """What the executor found itself, out of the message beside a batch; None where there is no such message.

    Raises
    ------
    EngineFailure
        For a message that is none.
    """
    if buffer is None:
        return None
    try:
        report = dict(json.loads(buffer.to_pybytes()))["report"]
        calls, errors = int(report["calls"]), [from_json_object(RowError, error) for error in report["errors"]]
    except (ValueError, TypeError, KeyError, RecursionError) as problem:
        raise _refused(detail=f"a message of a stream is malformed: {type(problem).__name__}") from problem
    return calls, errors
