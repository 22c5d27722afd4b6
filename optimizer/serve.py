"""The resident planner's frames. `python -m spark_llm.planner` adds what its host knows.

A frame is a 4-byte big-endian length and so many bytes of UTF-8 JSON. Requests come on stdin, one answer each goes to
stdout, in order, until stdin ends:

    {"id": 1, "method": "plan", "params": {"calls": [CallSpec, ...], "sample": {"columns": [[[value, ...], ...], ...]},
                                           "rows_estimate": 15000, "distinct": [14200],
                                           "distinct_values": [[14100, 367]], "streams": 8, "hosts": 1}}
    {"id": 1, "result": {"calls": [{"order": [1, 0], "reasons": ["..."], "estimate": {"rows": 15000, ...}}]}}
    {"id": 2, "method": "check", "params": {"call": CallSpec}}
    {"id": 2, "result": {}}
    {"id": 3, "error": {"condition": "LLM_UNKNOWN_OPTION", "message": "..."}}

`sample.columns` holds one list of columns per call, one column of rendered values (text or null) per field. Where
`distinct` says how many distinct tuples each call's whole input has, the sample is one of these, and `distinct_values`
are those of each field. `streams` tasks ask at once, spread over `hosts`. `sql` is the statement where Spark still has
it, from which dependencies between fields follow. Only `calls` is required.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, BinaryIO

from spark_llm.optimizer.core import CallSpec
from spark_llm.optimizer.engine_profile import EngineProfile, engine_profile
from spark_llm.optimizer.errors import InvalidCall

MAX_FRAME = 256 << 20
_BAD_REQUEST = "PLANNER_BAD_REQUEST"
_FAILED = "PLANNER_FAILED"

Json = dict[str, Any]
Method = Callable[[Json], Json]


def serve(requests: BinaryIO, answers: BinaryIO, methods: Mapping[str, Method] | None = None) -> None:
    """Answer frames from `requests` until it ends; `methods` are known beside, or instead of, the planner's own."""
    known = {**_METHODS, **(methods or {})}
    while (frame := _read(requests)) is not None:
        body = json.dumps(answer(frame, known), ensure_ascii=False).encode()
        answers.write(struct.pack(">I", len(body)) + body)
        answers.flush()


def _read(stream: BinaryIO) -> bytes | None:
    """The next frame, None at the end. One longer than `MAX_FRAME` is skipped and read as empty."""
    if len(header := stream.read(4)) < 4:
        return None
    left = struct.unpack(">I", header)[0]
    if left <= MAX_FRAME:
        frame = stream.read(left)
        return frame if len(frame) == left else None
    while left and (piece := stream.read(min(left, 1 << 20))):
        left -= len(piece)
    return None if left else b""


def answer(frame: bytes, methods: Mapping[str, Method] | None = None) -> Json:
    """The answer to one request; never raises."""
    methods = _METHODS if methods is None else methods
    request: Json = {}
    try:
        request = _object(json.loads(frame))
        method = methods.get(request.get("method", ""))
        if method is None:
            return _error(request, _BAD_REQUEST, f"method must be one of {', '.join(methods)}")
        return {"id": request.get("id"), "result": method(_object(request.get("params")))}
    except InvalidCall as error:
        return _error(request, error.condition, str(error))
    except (KeyError, json.JSONDecodeError, UnicodeDecodeError, _BadRequest) as error:
        return _error(request, _BAD_REQUEST, f"the request is not as documented: {type(error).__name__}: {error}")
    except Exception as error:  # its text may hold data of a row; the session goes on in the order as written
        return _error(request, _FAILED, type(error).__name__)


class _BadRequest(ValueError):
    pass


def _object(value: object) -> Json:
    if not isinstance(value, dict):
        msg = f"an object is needed, got {type(value).__name__}"
        raise _BadRequest(msg)
    return value


def _error(request: Mapping[str, Any], condition: str, message: str) -> Json:
    return {"id": request.get("id"), "error": {"condition": condition, "message": message}}


def call_spec(raw: Json) -> CallSpec:
    return CallSpec.from_json(json.dumps(raw))


def standard_methods(profile: Callable[[CallSpec], EngineProfile]) -> dict[str, Method]:
    """`plan` and `check`; `profile` says what is known of the engine that a call will ask."""
    return {"plan": lambda params: _plan(params, profile), "check": _check}


def _plan(params: Json, profile: Callable[[CallSpec], EngineProfile]) -> Json:
    from spark_llm.optimizer.call_dependencies import call_dependencies
    from spark_llm.optimizer.plan import InputSize, plan_call
    from spark_llm.optimizer.plan_conjunction import plan_conjunction

    calls = [call_spec(raw) for raw in params["calls"]]
    samples = (params.get("sample") or {}).get("columns") or [[] for _ in calls]
    distinct = params.get("distinct") or [None for _ in calls]
    values = params.get("distinct_values") or [None for _ in calls]
    rows, spread = params.get("rows_estimate") or 0, (params.get("streams", 1), params.get("hosts", 1))
    plans = []
    for call, sample, tuples, columns in zip(calls, samples, distinct, values, strict=True):
        size = InputSize(rows, tuples, columns and tuple(columns), *spread)
        if call.terms:
            plans.append(plan_conjunction(call, sample, size, profile(call)))
        else:
            plans.append(plan_call(call, sample, size, call_dependencies(call, params.get("sql") or ""), profile(call)))
    return {"calls": [asdict(plan) for plan in plans]}


def _check(params: Json) -> Json:
    from spark_llm.optimizer.prompts import prepare

    prepare(call_spec(params["call"]))
    return {}


_METHODS: Mapping[str, Method] = standard_methods(lambda spec: engine_profile(spec.conf))


def main(methods: Mapping[str, Method] | None = None) -> None:
    """Serve on stdin and stdout; whatever a library prints goes to stderr."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    serve(sys.stdin.buffer, answers, methods)


if __name__ == "__main__":
    main()
