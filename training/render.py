"""The prompt of an example, by the planner's own code: what the model learns is what it will be asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from spark_llm.optimizer.cells import cells
from spark_llm.optimizer.columns import encode_window
from spark_llm.optimizer.core import CallSpec, Field
from spark_llm.optimizer.ddl import parse_ddl
from spark_llm.optimizer.prompts import Prompt, prepare

from training.examples import Example

END = "<|end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def call_spec(example: Example) -> CallSpec:
    """The call site that a user would have written for the example."""
    options: dict[str, Any] = {}
    if example.labels:
        options["choices"] = list(example.labels)
    if example.returns:
        options["returns"] = example.returns
    if example.system:
        options["system"] = example.system
    if arrays := [name for name, value in example.fields.items() if isinstance(value, list)]:
        options["unordered"] = arrays
    result = (
        "boolean" if example.function == "llm_filter" else parse_ddl(example.returns) if example.returns else "string"
    )
    fields = tuple(Field(name, "text" if isinstance(value, str) else "json") for name, value in example.fields.items())
    return CallSpec(example.function, example.instruction, fields, options, result)


def segments(prompt: Prompt, fields: Mapping[str, Any]) -> tuple[str, ...]:
    """The record's pieces, as an executor task would send them."""
    rendered = [pa.array([v if isinstance(v, str) else json.dumps(v, ensure_ascii=False)]) for v in fields.values()]
    return cells(encode_window(prompt, rendered))[0]


def record(fields: Mapping[str, Any]) -> str:
    """The joined `segments`, but lists keep their order; written apart because training renders many."""
    return ",\n".join(f"{_json(name)}: {_value(value)}" for name, value in fields.items()) + "\n}"


def _value(value: Any) -> str:
    if not isinstance(value, list) or not value:
        return _json(value)
    return "[\n" + ",\n".join(map(_json, value)) + "\n]"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def prompt_text(example: Example) -> str:
    """The whole prompt of an example, in the chat format of `CHAT_TEMPLATE`."""
    prompt = prepare(call_spec(example))
    system = f"<|system|>{example.system}{END}" if example.system else ""
    return f"{system}<|user|>{prompt.call['instruction']}{record(example.fields)}{END}<|assistant|>"
