"""From a call to its prompt: the constant text, what varies by row, and what the answer must look like."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from spark_llm.optimizer.answer import Answer, describe_answer
from spark_llm.optimizer.core import CallSpec
from spark_llm.optimizer.errors import InvalidCall
from spark_llm.optimizer.options import check_options, malformed


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a task needs to ask one call for its rows.

    Attributes
    ----------
    spec : CallSpec
        The call.
    call : mapping
        The fields of `serving.core.Call`; `call["instruction"]` is all text before the first varying piece. There is a
        `call["closing"]` where the question stands behind the record (`spark.llm.prompt.question`).
    head : tuple of (str or int)
        Text between the instruction and the first cell where it varies by row: literals, and indices into
        `spec.fields` whose raw value stands there. Empty for most calls.
    cells : tuple of int
        Indices into `spec.fields` of the fields of the JSON object, in the planned order, else as written.
    unordered : frozenset of int
        Those of the cells that are arrays without order.
    """

    spec: CallSpec
    call: Mapping[str, Any]
    head: tuple[str | int, ...]
    cells: tuple[int, ...]
    unordered: frozenset[int]


def prepare(spec: CallSpec) -> Prompt:
    """The prompt of a call.

    `{name}` in the instruction refers to the field of exactly that name: it becomes the quoted name, or the row's
    value with `inline => true` (the field then leaves the JSON object). `{{` is the text `{`, and a `}}` after it `}`;
    every other brace stays as it is.

    Raises
    ------
    InvalidCall
        Unknown or unusable options, an `unordered` name that is no array field, repeated field names, a result type
        that no answer can have.
    ValueError
        A plan that is none of this call.

    Examples
    --------
    >>> from spark_llm.optimizer.core import CallSpec, Field
    >>> prompt = prepare(CallSpec("llm_filter", "Is {review} positive?", (Field("review"),)))
    >>> print(prompt.call["instruction"])
    Is "review" positive?
    Answer with true or false.
    <BLANKLINE>
    {
    <BLANKLINE>
    >>> prompt.call["constraint"]
    {'kind': 'choices', 'value': ['true', 'false']}
    """
    check_options(spec.function, spec.options)
    _check_names(spec)
    answer = describe_answer(spec)
    pieces = list(_expand(spec, _instruction(spec)))
    pieces += [i for i, f in enumerate(spec.fields) if f.kind == "prompt"]
    head_fields = {piece for piece in pieces if isinstance(piece, int)}
    cells = tuple(i for i in _field_order(spec) if i not in head_fields)
    closing = _closing(spec, pieces, answer) if cells else ""
    instruction, head = (
        ("{\n", ()) if closing else _split([*pieces, answer.sentence + _object_start(pieces, bool(cells))])
    )
    unordered = frozenset(i for i in cells if spec.fields[i].name in spec.options.get("unordered", ()))
    call = _call(spec, instruction, answer) | ({"closing": closing} if closing else {})
    return Prompt(spec, call, head, cells, unordered)


def _check_names(spec: CallSpec) -> None:
    names = [f.name for f in spec.fields]
    if len(set(names)) < len(names):
        raise malformed(spec.function, f"its fields must have distinct names, got {', '.join(names)}")
    if sum(f.kind == "prompt" for f in spec.fields) > 1:
        raise malformed(spec.function, "more than one field is the prompt")
    arrays = [f.name for f in spec.fields if f.kind == "json"]
    for name in spec.options.get("unordered", ()):
        if name not in arrays:
            accepted = ", ".join(arrays) or "none is an array"
            raise InvalidCall(
                condition="LLM_UNKNOWN_FIELD", function=spec.function, option="unordered", field=name, accepted=accepted
            )


def _instruction(spec: CallSpec) -> str:
    default = {
        "llm_classify": "Classify the record.",
        "llm_extract": "Extract the values from the record. A value that it does not state is null.",
    }
    return spec.instruction or spec.options.get("instruction") or default.get(spec.function, "")


def _expand(spec: CallSpec, text: str) -> Iterator[str | int]:
    """The instruction's pieces, with references to fields resolved."""
    names = {f.name: i for i, f in enumerate(spec.fields) if f.kind != "prompt"}
    references = "|".join(map(re.escape, names)) or "(?!)"
    inline = spec.options.get("inline", False)
    end = opened = 0
    for match in re.finditer(rf"\{{\{{|\}}\}}|\{{({references})\}}", text):
        yield text[end : match.start()]
        end = match.end()
        if match[1] is not None:
            yield names[match[1]] if inline else json.dumps(match[1], ensure_ascii=False)
        elif match[0] == "{{":
            opened += 1
            yield "{"
        else:  # closes an escape, else it is text: JSON examples end so
            yield "}" if opened else "}}"
            opened -= opened > 0
    yield text[end:]


def _field_order(spec: CallSpec) -> Sequence[int]:
    every = range(len(spec.fields))
    if spec.plan is None or spec.fixed_order:
        return every
    if sorted(spec.plan.order) != list(every):
        msg = f"the plan's order must hold each of the {len(every)} field indices once, got {list(spec.plan.order)}"
        raise ValueError(msg)
    return spec.plan.order


def _closing(spec: CallSpec, pieces: Sequence[str | int], answer: Answer) -> str:
    """The question, if it shall stand behind the record; one whose text varies by row stays before it."""
    if spec.conf.get("spark.llm.prompt.question") != "last" or any(isinstance(piece, int) for piece in pieces):
        return ""
    return ("".join(map(str, pieces)) + answer.sentence).lstrip("\n")


def _object_start(pieces: Sequence[str | int], has_cells: bool) -> str:
    return ("\n\n{\n" if any(piece != "" for piece in pieces) else "{\n") if has_cells else ""


def _split(pieces: Sequence[str | int]) -> tuple[str, tuple[str | int, ...]]:
    """Constant text and varying rest.

    The border stands after a newline, where tokenizers split anyway: a prompt must not depend on where it is cut.
    """
    constant = "".join(takewhile(lambda piece: isinstance(piece, str), pieces))  # type: ignore[arg-type]
    first = next((i for i, piece in enumerate(pieces) if isinstance(piece, int)), None)
    if first is None:
        return constant, ()
    line = constant.rfind("\n") + 1
    return constant[:line], tuple(piece for piece in (constant[line:], *pieces[first:]) if piece != "")


def _call(spec: CallSpec, instruction: str, answer: Answer) -> dict[str, Any]:
    options, conf = spec.options, spec.conf
    return {
        "call_id": spec.call_id,
        "instruction": instruction,
        "system": options.get("system"),
        "max_tokens": answer.max_tokens,
        "temperature": float(options.get("temperature", 0.0)),
        "top_p": float(options.get("top_p", 1.0)),
        "stop": tuple(options.get("stop", ())),
        "constraint": {"kind": answer.kind, "value": answer.value},
        "chat": conf.get("spark.llm.chat", "true").lower() == "true",
    }
