"""The prompt of a request: chat prefix, instruction, segments, closing, chat suffix, as tokens."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from spark_llm.serving.cache.radix import Tokens
from spark_llm.serving.core import Call, EngineFailure, Request
from spark_llm.serving.models.directory import read_json
from spark_llm.serving.tokenizer import Tokenizer

_MARKER = "\ue000prompt\ue000"


class ChatTemplate:
    """The model's chat template, if it has one, rendered in a sandbox."""

    def __init__(self, directory: Path) -> None:
        settings = read_json(directory / "tokenizer_config.json")
        file = directory / "chat_template.jinja"
        source = file.read_text(encoding="utf-8") if file.exists() else settings.get("chat_template")
        if isinstance(source, list):  # several named templates
            source = next((entry["template"] for entry in source if entry["name"] == "default"), None)
        try:
            self._template = _environment().from_string(source) if source else None
        except TemplateError as failure:
            raise _template_failure(str(failure)) from failure
        self._tokens = {
            name: _text(settings.get(name)) for name in ("bos_token", "eos_token", "pad_token", "unk_token")
        }

    def __bool__(self) -> bool:
        return self._template is not None

    def split(self, system: str | None) -> tuple[str, str]:
        """The text before and after the user's message; empty without a template."""
        if self._template is None:
            return "", ""
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": _MARKER})
        try:
            text = self._template.render(
                messages=messages, add_generation_prompt=True, enable_thinking=False, tools=None, **self._tokens
            )
        except (TemplateError, LookupError, TypeError, ValueError) as failure:
            raise _template_failure(str(failure)) from failure
        before, marker, after = text.partition(_MARKER)
        if not marker:
            raise _template_failure("it drops the user's message")
        return before, after


class PromptComposer:
    """Tokens of whole prompts; what a call's requests share is tokenized once."""

    def __init__(self, directory: Path, tokenizer: Tokenizer) -> None:
        self.template, self._tokenizer = ChatTemplate(directory), tokenizer
        self._split: dict[str | None, tuple[str, str]] = {}
        self._framed: tuple[Call, tuple[Tokens, Tokens]] | None = None

    def prepare(self, requests: Sequence[Request]) -> None:
        """Tokenize the segments of many requests at once; `compose` then finds them in the tokenizer's cache."""
        self._tokenizer.encode_pieces([segment for request in requests for segment in request.segments])

    def compose(self, request: Request) -> Tokens:
        """The prompt of a request.

        Raises
        ------
        EngineFailure
            When the chat template refuses the call's system message.
        """
        if self._framed is None or self._framed[0] is not request.call:
            self._framed = request.call, self._frame(request.call)
        before, after = self._framed[1]
        return np.concatenate([before, *self._tokenizer.encode_pieces(request.segments), after])

    def _frame(self, call: Call) -> tuple[Tokens, Tokens]:
        """Tokens before and after the segments; without a template, what the tokenizer puts at the start."""
        encode = self._tokenizer.encode
        if not (call.chat and self.template):
            system = f"{call.system}\n\n" if call.system else ""
            start = np.array(self._tokenizer.start_ids, np.int32)
            return np.concatenate([start, encode(system + call.instruction)]), encode(call.closing)
        if call.system not in self._split:
            self._split[call.system] = self.template.split(call.system)
        before, after = self._split[call.system]
        return encode(before + call.instruction, markup=True), encode(call.closing + after, markup=True)


def _environment() -> Environment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _text(token: Any) -> str:
    return token.get("content", "") if isinstance(token, dict) else token or ""


def _template_failure(detail: str) -> EngineFailure:
    return EngineFailure(
        "LLM_ENGINE_START",
        f"the model's chat template cannot be used: {detail}.",
        "Set spark.llm.chat=false to send prompts without it.",
    )
