"""The native engine: paged prefix cache, continuous batching, constrained decoding, our own decoder."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from spark_llm.serving.allocator import keep_freed_memory
from spark_llm.serving.cache.radix import PrefixCache, Tokens
from spark_llm.serving.choices import Choices
from spark_llm.serving.core import Call, Capacity, EngineFailure, Finished, ModelRef, Request, RowError, Usage
from spark_llm.serving.decode_run import MIN_SEQUENCES, DecodeRun
from spark_llm.serving.generation import Generation
from spark_llm.serving.grammar import Grammar, GrammarCompiler
from spark_llm.serving.model_runner import ModelRunner
from spark_llm.serving.models.config import read_config
from spark_llm.serving.models.decoder import Decoder, KVCache
from spark_llm.serving.models.directory import find_model, model_identity, read_json
from spark_llm.serving.models.weights import load_weights
from spark_llm.serving.prompt import PromptComposer
from spark_llm.serving.sampling import choose
from spark_llm.serving.scheduler.backlog import Backlog
from spark_llm.serving.scheduler.policies import create_policy
from spark_llm.serving.scheduler.scheduler import Chunk, Scheduler, Step
from spark_llm.serving.scheduler.sequence import Sequence as TokenSequence
from spark_llm.serving.settings import NativeSettings
from spark_llm.serving.stop_strings import StopStrings
from spark_llm.serving.tokenizer import Tokenizer
from torch import Tensor

HELD_BACK_SECONDS = 0.005
"""Pause of an idle engine whose policy lets nobody begin yet (requests per minute)."""


class NativeEngine:
    """An `Engine` over a model directory.

    Parameters
    ----------
    model : ModelRef
        Its `args` are those of `NativeSettings`.

    Raises
    ------
    EngineFailure
        For an unknown, unsupported or incomplete model, and for unknown settings.
    """

    def __init__(self, model: ModelRef) -> None:
        settings = NativeSettings.from_args(model.args)
        if settings.threads:
            torch.set_num_threads(settings.threads)
        directory = find_model(model.name)
        self._tokenizer = Tokenizer(directory)
        self._composer = PromptComposer(directory, self._tokenizer)
        self._stop_ids = _stop_ids(directory)
        self._stop_array = np.array(sorted(self._stop_ids), np.int64)
        self._runner, self._capacity = _load(directory, settings)
        policy = create_policy(
            settings.policy,
            quantum=settings.quantum,
            requests_per_minute=settings.requests_per_minute,
            predict=settings.predict_lengths,
        )
        self._scheduler = Scheduler(
            PrefixCache(self._runner.num_pages, settings.page_size),
            max_batch_tokens=settings.max_batch_tokens,
            max_running=settings.max_running,
            policy=policy,
        )
        self._grammars: GrammarCompiler | None = None
        self._stops: StopStrings | None = None
        self._queued = Backlog(policy)
        self._active: dict[int, tuple[TokenSequence, Generation]] = {}
        self._done: list[Finished] = []
        self._run: DecodeRun | None = None
        self._totals = dict.fromkeys(("steps", "prompt_tokens", "cached_tokens", "output_tokens"), 0)

    def submit(self, requests: Sequence[Request]) -> None:
        self._queued.add(requests)

    def has_work(self) -> bool:
        return bool(self._done or self._active or self._queued)

    def step(self) -> list[Finished]:
        self._start_queued()
        if self._active:
            self._compute()
        done, self._done = self._done, []
        return done

    def cancel(self, request_ids: Sequence[int]) -> None:
        self._end_run()
        self._scheduler.cancel(request_ids)
        for request_id in request_ids:
            self._active.pop(request_id, None)
            self._queued.remove(request_id)
        cancelled = set(request_ids)
        self._done = [finished for finished in self._done if finished.request_id not in cancelled]

    def capacity(self) -> Capacity:
        return self._capacity

    def stats(self) -> Mapping[str, float]:
        """Also `prefill_tokens` (prompt tokens computed), `preemptions`, `evicted_tokens`."""
        scheduler = self._scheduler
        return {
            **self._totals,
            "running": len(scheduler.running),
            "waiting": len(scheduler.waiting) + len(self._queued),
            "prefill_tokens": scheduler.prefill_tokens,
            "preemptions": scheduler.preemptions,
            "evicted_tokens": scheduler.cache.evicted_tokens,
            "kv_usage": 1 - scheduler.cache.pool.available / scheduler.cache.pool.num_pages,
            **scheduler.policy.stats(),
        }

    def running(self) -> Mapping[str, int]:
        return Counter(sequence.client.name for sequence in self._scheduler.running.values())

    def check_integrity(self) -> None:
        """Assert that every page of the KV cache is accounted for."""
        self._end_run()
        self._scheduler.check_integrity()

    def close(self) -> None:
        self.cancel([*self._active, *self._queued])

    def _start_queued(self) -> None:
        """Tokenize and compile a batch ahead of each client; what waits behind it costs no more than its text."""
        if not self._queued:
            return
        requests = self._queued.take(self._capacity.max_running, 2 * self._capacity.max_running)
        if not requests:
            return
        self._composer.prepare(requests)
        for request in requests:
            try:
                self._start(request, self._composer.compose(request))
            except EngineFailure as failure:
                self._done.append(_failed(request, failure))

    def _start(self, request: Request, prompt: Tokens) -> None:
        call, limit = request.call, self._capacity.max_length
        if not len(prompt):
            raise EngineFailure("LLM_ROW_FAILED", "the engine could not answer this row: the prompt is empty.")
        if request.adapter:
            raise EngineFailure("LLM_ROW_FAILED", "the engine could not answer this row: 'native' has no adapters.")
        if len(prompt) >= limit:
            message = f"prompt of {len(prompt)} tokens exceeds the model's context of {limit}."
            raise EngineFailure("LLM_PROMPT_TOO_LONG", message)
        most = min(call.max_tokens, limit - len(prompt))
        seed = secrets.randbits(63) if request.seed is None else request.seed
        generation = Generation(
            call, self._tokenizer, self._grammar(request), self._stop_strings(call), self._stop_ids, most, seed
        )
        sequence = TokenSequence(request.request_id, prompt, most, request.domain, request.client)
        self._active[request.request_id] = sequence, generation
        sequence.extend(generation.begin())
        if generation.finish_reason is None:
            self._scheduler.add(sequence)
        else:
            self._report(sequence, generation)

    def _grammar(self, request: Request) -> Grammar | Choices | None:
        constraint = request.call.constraint
        if constraint.kind == "none":
            return None
        if self._grammars is None:
            vocab_size = self._runner.decoder.config.vocab_size
            self._grammars = GrammarCompiler(self._tokenizer, vocab_size, self._stop_ids)
        return self._grammars.matcher(constraint)

    def _stop_strings(self, call: Call) -> StopStrings | None:
        """The last call's are kept: the requests of a call follow each other."""
        if not call.stop:
            return None
        if self._stops is None or self._stops.texts != call.stop:
            self._stops = StopStrings(call.stop, self._tokenizer, self._runner.decoder.config.vocab_size)
        return self._stops

    @torch.inference_mode()
    def _compute(self) -> None:
        if self._run is not None:
            self._run.look_around()
            if not self._run.begin_step():
                self._end_run()
        run, scheduler = self._run, self._scheduler
        step = scheduler.schedule() if run is None or (run.elastic and scheduler.has_others()) else Step()
        if run is None and not step.chunks:  # a lone sequence gave back its pages: the next step admits it again
            if self._active and scheduler.policy.next() is None:
                time.sleep(HELD_BACK_SECONDS)
            return
        self._totals["steps"] += 1
        asked, logits = self._runner.run(step) if run is None else run.compute(step)
        self._start_queued()  # a GPU computes the step meanwhile
        if run is not None:
            for sequence, generation in run.take_finished():
                self._end(sequence, generation)
            if run.ended:
                self._end_run()
        self._extend(asked, logits)
        self._decode_on(step, asked)

    def _extend(self, asked: list[Chunk], logits: Tensor) -> None:
        """Choose the next tokens, and go on as far along the sequences' branches as these were computed, too."""
        row_of = {(chunk.sequence.request_id, chunk.branch): row for row, chunk in enumerate(asked)}
        places = [place for place in row_of if place[1] < 0]
        while places:
            due = [self._active[request_id] for request_id, _ in places]
            rows = logits if len(places) == len(logits) else logits[[row_of[place] for place in places]]
            tokens = choose(rows, [g.mask for _, g in due], [g.draw for _, g in due])
            reached = []
            for (sequence, generation), (request_id, at), token in zip(due, places, tokens, strict=True):
                accepted = generation.extend(token)
                sequence.extend(accepted)
                if generation.finish_reason is not None:
                    self._end(sequence, generation)
                elif sequence.ahead and (place := (request_id, sequence.branch(at, accepted))) in row_of:
                    reached.append(place)
                else:
                    sequence.ahead = generation.ahead
            places = reached

    def _decode_on(self, step: Step, asked: list[Chunk]) -> None:
        """Leave to a decode run what is ready for one."""
        run, runner = self._run, self._runner
        if run is not None and run.elastic:
            active = (self._active.get(chunk.sequence.request_id) for chunk in asked)
            if rows := [row for row in active if row is not None and DecodeRun.ready(row, runner)]:
                run.join(rows)
        elif run is None and (runner.elastic or all(chunk.end - chunk.start == 1 for chunk in step.chunks)):
            running = [self._active[request_id] for request_id in self._scheduler.running]
            rows = [row for row in running if DecodeRun.ready(row, runner)]
            if len(rows) >= MIN_SEQUENCES and (runner.elastic or len(rows) == len(running)):
                self._run = DecodeRun(rows, self._scheduler, runner, self._stop_array, self._grammars)

    def _end_run(self) -> None:
        run, self._run = self._run, None
        for sequence, generation in run.end() if run is not None else ():
            self._end(sequence, generation)

    def _end(self, sequence: TokenSequence, generation: Generation) -> None:
        self._scheduler.finish(sequence)
        self._report(sequence, generation)

    def _report(self, sequence: TokenSequence, generation: Generation) -> None:
        del self._active[sequence.request_id]
        usage = Usage(sequence.prompt_length, sequence.cached or 0, len(generation.tokens))
        self._totals["prompt_tokens"] += usage.prompt
        self._totals["cached_tokens"] += usage.cached
        self._totals["output_tokens"] += usage.output
        reason = generation.finish_reason or "error"
        if reason == "error":
            error = RowError("LLM_ROW_FAILED", "the engine could not answer this row: the model left the constraint.")
            self._done.append(Finished(sequence.request_id, None, reason, usage, error))
        else:
            self._done.append(Finished(sequence.request_id, generation.text, reason, usage))


def _load(directory: Path, settings: NativeSettings) -> tuple[ModelRunner, Capacity]:
    config = read_config(read_json(directory / "config.json"))
    device = settings.torch_device()
    dtype = settings.torch_dtype(device)
    weights = load_weights(directory, config, dtype=dtype, device=device)
    pages = settings.kv_pages(config, dtype, device)  # of what the weights have left
    max_length = min(settings.max_length or config.max_positions, config.max_positions, pages * settings.page_size)
    cache = KVCache.zeros(config, pages + 1, settings.page_size, dtype, device)
    if device.type == "cpu":
        keep_freed_memory()
    capacity = Capacity(pages * settings.page_size, max_length, settings.max_running, model_identity(directory))
    decoder = Decoder(config, weights, max_length)
    return ModelRunner(decoder, cache, max_running=settings.max_running, max_length=max_length), capacity


def _stop_ids(directory: Path) -> frozenset[int]:
    """The tokens that end an answer, by generation_config.json or else config.json."""
    for file in ("generation_config.json", "config.json"):
        ids = read_json(directory / file).get("eos_token_id")
        if ids is not None:
            return frozenset([ids] if isinstance(ids, int) else ids)
    return frozenset()


def _failed(request: Request, failure: EngineFailure) -> Finished:
    error = RowError(failure.condition, failure.message)
    return Finished(request.request_id, None, "error", error=error)
