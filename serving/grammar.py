"""Constrained decoding: what a call's constraint allows next, by xgrammar (Dong et al., arXiv 2411.15100)."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import cached_property
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from spark_llm.serving.choices import Choices, ChoiceTree, Mask
from spark_llm.serving.core import Constraint, EngineFailure
from spark_llm.serving.scheduler.sequence import Branch
from spark_llm.serving.tokenizer import Tokenizer
from spark_llm.serving.vocabulary import Vocabulary

CACHED_GRAMMARS = 256
SPLIT_SECONDS = 5e-4
"""Masks that took one thread so long are filled by several the next time."""


class GrammarCompiler:
    """Compiles constraints for one tokenizer; equal ones once.

    Choices need no grammar, where the vocabulary's bytes are known; others are xgrammar's, which is loaded by the first
    of them: that takes seconds.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, stop_ids: frozenset[int]) -> None:
        self._tokenizer, self._vocab_size, self.stop_ids = tokenizer, vocab_size, sorted(stop_ids)
        self._compiled: dict[tuple[str, str], Any] = {}
        self.words = -(-vocab_size // 32)
        self._only_stop = _mask_of(self.stop_ids, self.words)
        self._pool: ThreadPoolExecutor | None = None

    def matcher(self, constraint: Constraint) -> Grammar | Choices:
        """A matcher at the start of an answer.

        Raises
        ------
        EngineFailure
            `LLM_BAD_CONSTRAINT` for what xgrammar does not accept.
        """
        value = constraint.value if isinstance(constraint.value, str) else json.dumps(constraint.value)
        key = (constraint.kind, value)
        if key not in self._compiled:
            if len(self._compiled) == CACHED_GRAMMARS:
                self._compiled.pop(next(iter(self._compiled)))
            self._compiled[key] = self._compile(constraint, value)
        compiled = self._compiled[key]
        if isinstance(compiled, ChoiceTree):
            return compiled.matcher()
        # JSON never has raw control characters; xgrammar lets them into strings that have a length limit
        allowed = self._no_control if constraint.kind == "json_schema" else ~np.zeros(self.words, np.int32)
        matcher = self._xgrammar.GrammarMatcher(compiled)
        return Grammar(matcher, self._tokenizer, self._only_stop, allowed)

    def batch(self, threads: int) -> GrammarBatch:
        """For grammars that advance together, in so many threads where they take long."""
        # threads of xgrammar's own would gain nothing: it starts them anew for each call
        fill = self._xgrammar.BatchGrammarMatcher(max_threads=1).batch_fill_next_token_bitmask
        if self._pool is None and threads > 1:
            self._pool = ThreadPoolExecutor(threads - 1)
        return GrammarBatch(fill, self._pool, threads, self._single_bytes)

    def _compile(self, constraint: Constraint, value: str) -> Any:
        if constraint.kind == "choices":
            grammar = _choices_grammar(constraint.value)
            if self._vocabulary.known:
                return ChoiceTree(constraint.value, self._tokenizer, self._vocabulary, self._only_stop)
        try:
            if constraint.kind == "choices":
                return self._compiler.compile_grammar(grammar)
            if constraint.kind == "regex":
                return self._compiler.compile_regex(value)
            return self._compiler.compile_json_schema(value, any_whitespace=False)
        except (RuntimeError, ValueError) as failure:
            raise bad_constraint(constraint.kind, _reason(failure)) from failure

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return self._tokenizer.vocabulary

    @cached_property
    def _xgrammar(self) -> Any:
        return _load_xgrammar()

    @cached_property
    def _info(self) -> Any:
        backend = self._tokenizer.backend
        vocab = sorted(backend.get_vocab(with_added_tokens=True).items(), key=lambda entry: entry[1])
        encoded = [""] * (vocab[-1][1] + 1)
        for token, token_id in vocab:
            encoded[token_id] = token
        kind = self._xgrammar.TokenizerInfo
        metadata = kind._detect_metadata_from_hf(backend.to_str())
        return kind(encoded, vocab_size=self._vocab_size, stop_token_ids=self.stop_ids, **metadata)

    @cached_property
    def _compiler(self) -> Any:
        return self._xgrammar.GrammarCompiler(self._info, max_threads=1)

    @cached_property
    def _single_bytes(self) -> Mask:
        """Allows a token for each byte, where there is one."""
        spelling = self._tokenizer.vocabulary.spelling
        tokens = [spelling[bytes([byte])][0] for byte in range(256) if bytes([byte]) in spelling]
        return _mask_of(tokens, self.words)

    @cached_property
    def _no_control(self) -> Mask:
        control = [i for i, token in enumerate(self._info.decoded_vocab) if any(byte < 0x20 for byte in token)]
        return ~_mask_of(control, self.words)


class Grammar:
    """Where one answer stands in its grammar."""

    ahead: tuple[Branch, ...] = ()
    """Too much may follow to compute it ahead."""

    def __init__(self, matcher: Any, tokenizer: Tokenizer, only_stop: Mask, allowed: Mask) -> None:
        self.matcher, self._tokenizer, self._only_stop, self.allowed = matcher, tokenizer, only_stop, allowed
        self.mask: Mask = np.empty(len(only_stop), np.int32)  # bit t of word t // 32: token t may come next
        self._refresh()

    @property
    def finished(self) -> bool:
        """Whether nothing but the end can follow."""
        return self.matcher.is_completed() and not (self.mask & ~self._only_stop).any()

    def accept(self, token: int) -> bool:
        """Advance by a token; False if the grammar does not allow it."""
        if not self.matcher.accept_token(token):
            return False
        self._refresh()
        return True

    def forced(self) -> list[int]:
        """Tokens that can be appended without asking the model, because the grammar leaves no other text.

        The forced text is tokenized as it stands. Its last token is left to the model, which may join it with what
        follows, unless the grammar ends there (jump-forward decoding; SGLang, arXiv 2312.07104, section 4).
        """
        try:
            text = self.matcher.find_jump_forward_string()
        except UnicodeDecodeError:  # it begins or ends inside of a character
            text = ""
        tokens = self._tokenizer.encode(text).tolist() if text else []
        ahead = Grammar(self.matcher.fork(), self._tokenizer, self._only_stop, self.allowed) if tokens else self
        if not all(ahead.accept(token) for token in tokens):
            tokens = []  # the tokenizer normalizes the text into another
        elif not ahead.finished:
            tokens = tokens[:-1]
        return tokens or self._only_token()

    def _only_token(self) -> list[int]:
        words = np.flatnonzero(self.mask)
        bits = int(self.mask.view(np.uint32)[words[0]]) if len(words) == 1 else 0
        return [int(words[0]) * 32 + bits.bit_length() - 1] if bits.bit_count() == 1 else []

    def _refresh(self) -> None:
        self.matcher.fill_next_token_bitmask(self.mask[None], 0)
        self.mask &= self.allowed


class GrammarBatch:
    """Grammars of several answers that take one token each, step by step.

    Each has a place: a row of `masks` [n, words], which is what it allows next.

    Parameters
    ----------
    fill : callable
        xgrammar's, which fills the masks of matchers at places; it lets other threads run meanwhile.
    pool : Executor, optional
        Which fills masks beside the caller, in `threads` parts altogether, where one thread takes long.
    single_bytes : Mask
        A token for each byte: where fewer than two of them may come next, what follows is decided.
    """

    def __init__(
        self,
        fill: Callable[[Sequence[Any], NDArray[np.int32], list[int]], None],
        pool: Executor | None,
        threads: int,
        single_bytes: Mask,
    ) -> None:
        self._fill_some, self._pool, self._threads = fill, pool, threads
        self._parts = 1  # in which the next masks are filled
        words, self._words = len(single_bytes), np.flatnonzero(single_bytes)
        self._bits = single_bytes[self._words]
        self._grammars: list[Grammar | None] = []
        self.masks = np.empty((0, words), np.int32)
        self._allowed = np.empty((0, words), np.int32)

    def join(self, grammars: Sequence[Grammar]) -> list[int]:
        """Take in grammars; returns their places, those that others have left first."""
        free = [place for place, grammar in enumerate(self._grammars) if grammar is None]
        missing = len(grammars) - len(free)
        if missing > 0:
            free += range(len(self._grammars), len(self._grammars) + missing)
            self._grammars += [None] * missing
            more = np.zeros((missing, self.masks.shape[1]), np.int32)
            self.masks, self._allowed = np.concatenate([self.masks, more]), np.concatenate([self._allowed, more])
        places = free[: len(grammars)]
        for place, grammar in zip(places, grammars, strict=True):
            self._grammars[place] = grammar
            self.masks[place], self._allowed[place] = grammar.mask, grammar.allowed
        return places

    def leave(self, place: int) -> None:
        """Give a grammar its mask, and its place to others."""
        grammar = self._grammars[place]
        assert grammar is not None, "nobody is at this place"
        grammar.mask, self._grammars[place] = self.masks[place].copy(), None

    def advance(self, tokens: Sequence[int], places: Sequence[int]) -> tuple[list[int], list[int]]:
        """Take a token at each of these places; returns where what follows is decided, and where it is refused."""
        matchers = [grammar.matcher for place in places if (grammar := self._grammars[place]) is not None]
        accepted = [matcher.accept_token(token) for matcher, token in zip(matchers, tokens, strict=True)]
        self._fill(matchers, list(places))
        np.bitwise_and(self.masks, self._allowed, out=self.masks)
        bytes_allowed = self.masks.take(self._words, axis=1) & self._bits
        following = np.unpackbits(bytes_allowed.view(np.uint8), axis=1).sum(axis=1)
        refused = [place for place, taken in zip(places, accepted, strict=True) if not taken]
        return [place for place in places if following[place] < 2], refused

    def _fill(self, matchers: Sequence[Any], places: list[int]) -> None:
        begin, size = time.perf_counter(), -(-len(places) // self._parts)
        others = [
            self._pool.submit(self._fill_some, matchers[i : i + size], self.masks, places[i : i + size])
            for i in range(size, len(places), size)
            if self._pool is not None
        ]
        self._fill_some(matchers[:size], self.masks, places[:size])
        for other in others:
            other.result()
        took = (time.perf_counter() - begin) * self._parts
        self._parts = self._threads if took > SPLIT_SECONDS else 1


def bad_constraint(kind: str, detail: str) -> EngineFailure:
    return EngineFailure(
        "LLM_BAD_CONSTRAINT",
        f"the {kind} is not usable: {detail}.",
        "Correct it; JSON Schema and regular expressions follow xgrammar's subset.",
    )


def _choices_grammar(choices: Any) -> str:
    if not choices or not all(isinstance(choice, str) and choice for choice in choices):
        raise bad_constraint("choices", "it must be a list of texts, none of them empty")
    return "root ::= " + " | ".join(json.dumps(choice, ensure_ascii=False) for choice in choices)


def _load_xgrammar() -> ModuleType:
    """xgrammar, with a stand-in for transformers, whose classes it only names: loading them all takes seconds."""
    if "transformers" in sys.modules:
        return import_module("xgrammar")
    stand_in = ModuleType("transformers")
    stand_in.__getattr__ = _empty_class  # type: ignore[method-assign]
    sys.modules["transformers"] = stand_in
    try:
        return import_module("xgrammar")
    finally:
        del sys.modules["transformers"]


def _empty_class(name: str) -> type:
    if name.startswith("__"):  # what `inspect` asks of every module
        raise AttributeError(name)
    return type(name, (), {})


def _mask_of(tokens: list[int], words: int) -> Mask:
    mask = np.zeros(words, np.uint32)
    for token in tokens:
        mask[token // 32] |= np.uint32(1 << token % 32)
    return mask.view(np.int32)


def _reason(failure: Exception) -> str:
    """xgrammar's message without time and source position."""
    return re.sub(r"^\[[^]]*\] \S+: ", "", str(failure)).strip().rstrip(".").split("\n")[0][:200]
