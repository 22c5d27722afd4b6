"""Our policies inside vLLM's scheduler, through `scheduler_cls`.

vLLM decides what fits and what a step computes; the policy decides whose request it looks at next, and learns what was
served. Imported by name in vLLM's own process; the interface is that of vLLM 0.32 and changes between releases.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from spark_llm.serving.core import ClientRef
from spark_llm.serving.scheduler.policies import create_policy
from spark_llm.serving.scheduler.policy import CHARGED_TOKENS, Policy
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.request_queue import RequestQueue
from vllm.v1.request import Request

CONFIG = "spark_llm"
"""Entry of vLLM's `additional_config` with the arguments of `create_policy`."""
CLIENT = "spark_llm_client"
"""Entry of a request's `extra_args`: name, pool and weight of its client."""


class PolicyQueue(RequestQueue):  # type: ignore[misc]
    """vLLM's waiting requests in the order of a policy.

    Peek and the pop that follows agree. What a request finds cached is looked up when vLLM peeks at it: once its blocks
    are allocated, its own would be found.
    """

    def __init__(self, policy: Policy, cached: Callable[[Request], int]) -> None:
        self._policy, self._cached = policy, cached
        self._requests: dict[str, Request] = {}
        self._peeked: tuple[str, int] = ("", 0)
        policy.matched = lambda request_id: cached(self._requests[request_id])

    def add_request(self, request: Request) -> None:
        self._add(request, front=False)

    def _add(self, request: Request, *, front: bool) -> None:
        self._requests[request.request_id] = request
        self._policy.add(request.request_id, _client(request), _key(request), front=front)

    def peek_request(self) -> Request:
        chosen = self._policy.next()
        if chosen is None:
            message = "nobody waits, or may run now"
            raise IndexError(message)
        request = self._requests[chosen]
        if self._peeked[0] != chosen:
            self._peeked = chosen, self._cached(request)
        return request

    def pop_request(self) -> Request:
        """To be admitted, or put back in this very step: its prompt is charged until the step says what it computed."""
        request = self.peek_request()
        self._policy.admit(request.request_id, self._peeked[1], reserved=request.num_prompt_tokens)
        self._peeked = ("", 0)
        return self._requests.pop(request.request_id)

    def prepend_request(self, request: Request) -> None:
        self._add(request, front=True)

    def prepend_requests(self, requests: Iterable[Request]) -> None:
        for request in requests:
            self._add(request, front=True)

    def remove_request(self, request: Request) -> None:
        self._policy.remove(request.request_id)
        del self._requests[request.request_id]

    def remove_requests(self, requests: Iterable[Request]) -> None:
        for request in requests:
            if request.request_id in self._requests:
                self.remove_request(request)

    def refresh(self) -> None:
        """A new step begins."""
        self._peeked = ("", 0)
        self._policy.refresh()

    def __bool__(self) -> bool:
        return self._policy.next() is not None

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[Request]:
        return iter(list(self._requests.values()))


class SharingScheduler(AsyncScheduler):  # type: ignore[misc]
    """vLLM's scheduler with one of our policies in place of its own, `sharing`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sharing = create_policy(**self.vllm_config.additional_config.get(CONFIG, {}))
        self.waiting: PolicyQueue = PolicyQueue(self.sharing, self._cached_tokens)

    def schedule(self, *args: Any, **kwargs: Any) -> SchedulerOutput:
        self.waiting.refresh()
        return super().schedule(*args, **kwargs)

    def running_by_client(self) -> Counter[str]:
        """Running requests of each client."""
        return Counter(_client(request).name for request in self.running)

    def _cached_tokens(self, request: Request) -> int:
        return self.kv_cache_manager.get_computed_blocks(request)[1]

    def _update_after_schedule(self, scheduler_output: SchedulerOutput) -> None:
        super()._update_after_schedule(scheduler_output)
        for request_id in scheduler_output.num_scheduled_tokens:
            request = self.requests[request_id]
            computed, prompt = request.num_computed_tokens, request.num_prompt_tokens
            told = computed <= prompt or not request.num_output_tokens % CHARGED_TOKENS
            if told and self.sharing.is_running(request_id):
                self.sharing.serve(request_id, min(computed, prompt), request.num_output_tokens)

    def _free_request(self, request: Request, *args: Any, **kwargs: Any) -> Any:
        self.sharing.finish(request.request_id, request.num_output_tokens)
        return super()._free_request(request, *args, **kwargs)


def _client(request: Request) -> ClientRef:
    parameters = request.sampling_params
    extra = (parameters.extra_args if parameters else None) or {}
    return ClientRef(*extra.get(CLIENT, ()))


def _key(request: Request) -> bytes:
    """Requests of one adapter together, then those of one prefix."""
    adapter = request.lora_request.lora_name if request.lora_request else ""
    return adapter.encode() + array("i", request.prompt_token_ids or ()).tobytes()
