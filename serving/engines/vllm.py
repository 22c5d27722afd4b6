"""vLLM in this process: its V1 engine behind the `Engine` interface, with the native engine's prompts.

vLLM's interfaces change between releases, so one release line is accepted. It may live in a Python of its own
(`spark.llm.engine.vllm.python`); that one needs vLLM and pyarrow, not spark-llm.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import TYPE_CHECKING, Any

from spark_llm.serving.core import (
    Capacity,
    Constraint,
    EngineFailure,
    Finished,
    FinishReason,
    ModelRef,
    Request,
    RowError,
    Usage,
)
from spark_llm.serving.models.directory import find_model, model_identity
from spark_llm.serving.prompt import PromptComposer
from spark_llm.serving.scheduler.backlog import Backlog
from spark_llm.serving.scheduler.dlpm import QUANTUM
from spark_llm.serving.scheduler.policies import DEFAULT_POLICY, POLICIES
from spark_llm.serving.tokenizer import Tokenizer

if TYPE_CHECKING:
    from spark_llm.serving.engines.vllm_scheduler import SharingScheduler
    from vllm import RequestOutput, SamplingParams
    from vllm.lora.request import LoRARequest
    from vllm.v1.engine.llm_engine import LLMEngine

RELEASE = "0.32"
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the replica is a process of its own already
    "VLLM_CPU_KVCACHE_SPACE": "2",  # GiB
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}
SCHEDULER = "spark_llm.serving.engines.vllm_scheduler.SharingScheduler"
SETTINGS = {
    "dtype": "dtype",
    "max_batch_tokens": "max_num_batched_tokens",
    "max_running": "max_num_seqs",
    "max_length": "max_model_len",
    "kv_tokens": "num_gpu_blocks_override",
}
"""Our engine settings and the vLLM arguments they become; every other setting must be a vLLM argument itself."""
LOAD_FORMATS = ("safetensors", "dummy")
POLICY_SETTINGS: dict[str, tuple[str, Any]] = {
    "policy": ("name", DEFAULT_POLICY),
    "quantum": ("quantum", QUANTUM),
    "requests_per_minute": ("requests_per_minute", 600),
    "predict_lengths": ("predict", False),
}
"""Our engine settings, the arguments of `create_policy` that they become, and their defaults."""
AHEAD = 4
"""Requests of a client handed to vLLM, as a multiple of those that run at once: steps do not wait for submitting."""
HELD_BACK_SECONDS = 0.005
"""Pause of an idle engine whose policy lets nobody begin yet (requests per minute)."""
OURS = ("model", "scheduler_cls")
"""Arguments of vLLM that are not for users to set."""
REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length", "abort": "cancelled"}


class VllmEngine:
    """A model served by vLLM.

    Parameters
    ----------
    model : ModelRef
        `args` may hold `dtype`, `kv_tokens`, `max_batch_tokens`, `max_running`, `max_length`, `policy`, `quantum`,
        `requests_per_minute`, `predict_lengths`, and any argument of vLLM's `EngineArgs` (`tensor_parallel_size`,
        `gpu_memory_utilization`, `quantization`, `enable_lora`, …). With `load_format` `dummy` the weights are random
        and only the configuration and the tokenizer need to be there.

    Raises
    ------
    EngineFailure
        For an absent or other vLLM, an unknown model, unknown settings, and whatever vLLM refuses.
    """

    def __init__(self, model: ModelRef) -> None:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        directory = find_model(model.name)
        self._engine = _load(str(directory), model.args)
        self._composer = PromptComposer(directory, Tokenizer(directory))
        identity = model_identity(directory)
        if model.args.get("load_format") == "dummy":
            identity = f"random {identity}"  # its answers are not the model's
        self._capacity = _capacity(self._engine, identity)
        self._scheduler: SharingScheduler = self._engine.engine_core.engine_core.scheduler
        self._waiting = Backlog(self._scheduler.sharing)
        self._adapters: dict[str, LoRARequest] = {}
        self._running: set[int] = set()
        self._refused: list[Finished] = []
        self._stats = dict.fromkeys(("steps", "prompt_tokens", "cached_tokens", "output_tokens"), 0)

    def submit(self, requests: Sequence[Request]) -> None:
        self._waiting.add(requests)

    def has_work(self) -> bool:
        return bool(self._waiting or self._running or self._refused)

    def step(self) -> list[Finished]:
        self._admit()
        finished, self._refused = self._refused, []
        if self._running:
            self._stats["steps"] += 1
            finished += [self._finish(output) for output in self._engine.step() if output.finished]
            waiting = self._scheduler.waiting
            if len(waiting) and not (waiting or self._scheduler.running):
                time.sleep(HELD_BACK_SECONDS)
        return finished

    def cancel(self, request_ids: Sequence[int]) -> None:
        dropped = set(request_ids)
        self._engine.abort_request([str(request_id) for request_id in dropped & self._running])
        self._running -= dropped
        for request_id in dropped:
            self._waiting.remove(request_id)
        self._refused = [row for row in self._refused if row.request_id not in dropped]

    def capacity(self) -> Capacity:
        return self._capacity

    def stats(self) -> Mapping[str, float]:
        """Also `kv_usage` (share of the KV cache that is in use) and the policy's own."""
        running, waiting = self._scheduler.get_request_counts()
        return {
            **self._stats,
            "running": running,
            "waiting": waiting + len(self._waiting),
            "kv_usage": self._scheduler.get_kv_cache_usage(),
            **self._scheduler.sharing.stats(),
        }

    def running(self) -> Mapping[str, int]:
        return self._scheduler.running_by_client()

    def close(self) -> None:
        self.cancel([*self._running, *self._waiting])
        self._engine.engine_core.shutdown()

    def _admit(self) -> None:
        most = AHEAD * self._capacity.max_running
        requests = self._waiting.take(most // 2, most)
        self._composer.prepare(requests)
        for request in requests:
            try:
                self._add(request, self._composer.compose(request).tolist())
            except EngineFailure as failure:
                error = RowError(failure.condition, failure.message)
                self._refused.append(Finished(request.request_id, None, "error", error=error))

    def _add(self, request: Request, prompt: list[int]) -> None:
        limit = self._capacity.max_length
        if len(prompt) >= limit:
            message = f"prompt of {len(prompt)} tokens exceeds the model's context of {limit}."
            raise EngineFailure("LLM_PROMPT_TOO_LONG", message)
        params = _sampling(request, min(request.call.max_tokens, limit - len(prompt)))
        from vllm.exceptions import VLLMClientError

        tokens: Any = {"prompt_token_ids": prompt}
        if request.domain:
            tokens["cache_salt"] = request.domain

        try:
            self._engine.add_request(str(request.request_id), tokens, params, lora_request=self._adapter(request))
        except (ValueError, VLLMClientError) as problem:
            raise _refusal(request.call.constraint, problem) from problem
        self._running.add(request.request_id)

    def _adapter(self, request: Request) -> LoRARequest | None:
        """Load the request's adapter when it is first asked for: vLLM would end with one that does not load."""
        name = request.adapter
        if not name:
            return None
        if self._engine.vllm_config.lora_config is None:
            raise EngineFailure("LLM_ROW_FAILED", "the engine could not answer this row: adapters need enable_lora.")
        from vllm.lora.request import LoRARequest

        if name not in self._adapters:
            adapter = LoRARequest(name, len(self._adapters) + 1, name)
            try:
                self._engine.add_lora(adapter)
            except Exception as problem:  # whatever vLLM, safetensors or JSON say of its files
                message = f"the engine could not answer this row: the adapter does not load ({type(problem).__name__})."
                raise EngineFailure("LLM_ROW_FAILED", message) from problem
            self._adapters[name] = adapter
        return self._adapters[name]

    def _finish(self, output: RequestOutput) -> Finished:
        request_id, answer = int(output.request_id), output.outputs[0]
        self._running.discard(request_id)
        prompt, cached = len(output.prompt_token_ids or ()), output.num_cached_tokens or 0
        usage = Usage(prompt, cached, len(answer.token_ids))
        for name, value in (("prompt", prompt), ("cached", cached), ("output", usage.output)):
            self._stats[f"{name}_tokens"] += value
        reason = REASONS.get(answer.finish_reason or "", "error")
        if reason == "error":
            error = RowError(
                "LLM_ROW_INTERRUPTED", "the engine could not answer this row now: vLLM ended it with an error."
            )
            return Finished(request_id, None, reason, usage, error)
        return Finished(request_id, answer.text, reason, usage)


def check_harmless(settings: Mapping[str, Any]) -> None:
    """Raise EngineFailure for settings that would run code of the model's directory, or unpickle its files."""
    for name, value in settings.items():
        if name == "trust_remote_code" or (name == "load_format" and value not in LOAD_FORMATS):
            detail = f"setting '{name}' would run code or unpickle files of the model's directory"
            raise EngineFailure("LLM_BAD_CONF", f"{detail}.", f"Leave it out; load_format: {', '.join(LOAD_FORMATS)}.")


def _load(directory: str, settings: Mapping[str, Any]) -> LLMEngine:
    check_harmless(settings)
    _check_release()
    from vllm import EngineArgs
    from vllm.platforms import current_platform
    from vllm.v1.engine.llm_engine import LLMEngine

    accepted = EngineArgs.__dataclass_fields__.keys() | POLICY_SETTINGS.keys()
    policy = {name: settings.get(key, default) for key, (name, default) in POLICY_SETTINGS.items()}
    if policy["name"] not in POLICIES:
        detail = f"'policy' must be one of {', '.join(POLICIES)}"
        raise EngineFailure("LLM_BAD_CONF", f"{detail}.", "Correct spark.llm.engine.args.")
    arguments: dict[str, Any] = {
        "model": directory,
        "load_format": "safetensors",
        "enable_prefix_caching": True,
        "enforce_eager": current_platform.is_cpu(),
        "scheduler_cls": SCHEDULER,
        "additional_config": {**settings.get("additional_config", {}), "spark_llm": policy},
        "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
    }
    for name, value in settings.items():
        if SETTINGS.get(name, name) not in accepted or name in OURS:
            own = ", ".join([*SETTINGS, *POLICY_SETTINGS])
            detail = f"engine 'vllm' has no setting '{name}'; accepted: {own}, and those of EngineArgs"
            raise EngineFailure("LLM_BAD_CONF", f"{detail}.", "Correct spark.llm.engine.args.")
        if name not in POLICY_SETTINGS and name != "additional_config":
            arguments[SETTINGS.get(name, name)] = value
    if "kv_tokens" in settings:
        arguments["block_size"] = block = settings.get("block_size", 32 if current_platform.is_cpu() else 16)
        arguments["num_gpu_blocks_override"] = -(-settings["kv_tokens"] // block)
    return LLMEngine.from_engine_args(EngineArgs(**arguments))


def _check_release() -> None:
    try:
        from vllm import __version__ as version
    except ImportError as problem:
        version = f"none ({problem})"
    if not version.startswith(f"{RELEASE}."):
        raise EngineFailure(
            "LLM_ENGINE_START",
            f"engine 'vllm' needs vLLM {RELEASE}.x in '{sys.executable}', found {version}.",
            f"Set spark.llm.engine.vllm.python to a Python that has vllm=={RELEASE}.* and pyarrow.",
        )


def _capacity(engine: LLMEngine, identity: str) -> Capacity:
    configuration = engine.vllm_config
    cache = configuration.cache_config
    kv_tokens = (cache.num_gpu_blocks or 0) * cache.block_size
    length = configuration.model_config.max_model_len
    return Capacity(kv_tokens, length, configuration.scheduler_config.max_num_seqs, identity)


def _sampling(request: Request, max_tokens: int) -> SamplingParams:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    call = request.call
    return SamplingParams(
        max_tokens=max_tokens,
        temperature=call.temperature,
        top_p=call.top_p,
        seed=request.seed,
        stop=list(call.stop),
        structured_outputs=_structured(call.constraint),
        output_kind=RequestOutputKind.FINAL_ONLY,
        extra_args={"spark_llm_client": list(astuple(request.client))},
    )


def _structured(constraint: Constraint) -> Any:
    from vllm.sampling_params import StructuredOutputsParams

    match constraint.kind:
        case "choices":
            return StructuredOutputsParams(choice=list(constraint.value))
        case "regex":
            return StructuredOutputsParams(regex=constraint.value)
        case "json_schema":
            schema = constraint.value if isinstance(constraint.value, str) else json.dumps(constraint.value)
            return StructuredOutputsParams(json=schema)
    return None


def _refusal(constraint: Constraint, problem: Exception) -> EngineFailure:
    if constraint.kind == "none":
        return EngineFailure("LLM_ROW_FAILED", f"the engine could not answer this row: {type(problem).__name__}.")
    return EngineFailure("LLM_BAD_CONSTRAINT", f"the {constraint.kind} is not usable: {problem}")
