"""The native engine against transformers on tiny random checkpoints, however the work is cut and shared."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from spark_llm.kernels import cpu, dispatch
from spark_llm.serving.core import Call, ClientRef, Constraint, Request
from spark_llm.serving.scheduler.scheduler import PageCopy

from tests.serving.native_checkpoints import (
    FAMILIES,
    constrained,
    drain,
    engine_for,
    logits_of,
    oracle,
    oracle_greedy,
    requests_for,
    trie_size,
    write_checkpoint,
)

CALL = Call("c", "Is the review positive or negative?\n\n{\n", max_tokens=8)
WIDE = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 32}
"""Multiples of 32, as the compiled CPU kernels take them."""
ROWS = [(f'"review": "A warm and funny film {i // 4}",\n', f'"title": "The {i % 5} Lighthouse"\n}}') for i in range(12)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def expected(checkpoint):
    """Text and token count of each row, by transformers alone."""
    return answers_of(checkpoint, ROWS, CALL)


def answers_of(directory, rows, call):
    engine, model = engine_for(directory), oracle(directory)
    prompts = [engine._composer.compose(request) for request in requests_for(call, rows)]
    tokens = [oracle_greedy(model, prompt.tolist(), call.max_tokens) for prompt in prompts]
    return {i: (engine._tokenizer.decode(t), len(t)) for i, t in enumerate(tokens)}


def answers(finished):
    return {i: (f.text, f.usage.output) for i, f in finished.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_answers_equal_transformers(tmp_path, family):
    directory = write_checkpoint(tmp_path, family)
    engine = engine_for(directory)
    engine.submit(requests_for(CALL, ROWS))
    assert answers(drain(engine)) == answers_of(directory, ROWS, CALL)


@pytest.mark.parametrize("budget", [7, 2048])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_equal_transformers(tmp_path, family, budget):
    """Behind the prompts and behind every token of a text, alone in chunks of odd size or all in one step."""
    directory = write_checkpoint(tmp_path, family)
    engine, model = engine_for(directory, max_batch_tokens=budget), oracle(directory)
    prompts = [engine._composer.compose(request).tolist() for request in requests_for(CALL, ROWS[:6])]
    text = prompts[0]
    with torch.no_grad():
        last = torch.stack([model(torch.tensor([prompt])).logits[0, -1] for prompt in prompts])
        every = model(torch.tensor([text])).logits[0]
    got = logits_of(engine, [*prompts, *(text[: i + 1] for i in range(len(text)))])
    torch.testing.assert_close(got, torch.cat([last, every]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "args",
    [
        {},
        {"max_batch_tokens": 16},
        {"max_running": 1},
        {"page_size": 1},
        {"page_size": 64},
        {"kv_tokens": 144, "max_length": 128},
    ],
    ids=lambda args: "-".join(map(str, args)) or "defaults",
)
def test_answers_do_not_depend_on_how_the_work_is_cut(checkpoint, expected, args):
    engine = engine_for(checkpoint, **args)
    engine.submit(requests_for(CALL, ROWS[:5]))
    finished = {f.request_id: f for f in engine.step()}
    engine.submit(requests_for(CALL, ROWS[5:], first_id=5))  # joins the running batch
    finished |= drain(engine)
    assert answers(finished) == expected
    assert engine.stats()["running"] == engine.stats()["waiting"] == 0
    if "kv_tokens" in args:
        assert engine.stats()["preemptions"] > 0
    engine._scheduler.cache.clear()
    assert engine._scheduler.cache.pool.free == engine._scheduler.cache.pool.num_pages


def test_a_cached_prompt_gives_the_same_answer_and_is_counted(checkpoint, expected):
    engine = engine_for(checkpoint)
    engine.submit(requests_for(CALL, ROWS))
    first = drain(engine)
    engine.submit(requests_for(CALL, ROWS))
    second = drain(engine)
    assert answers(first) == answers(second) == expected
    assert all(f.usage.cached == f.usage.prompt - 1 for f in second.values())
    totals = engine.stats()
    assert totals["prompt_tokens"] - totals["cached_tokens"] == totals["prefill_tokens"]


def test_rows_of_one_batch_compute_shared_prefixes_once(checkpoint):
    engine = engine_for(checkpoint)
    requests = requests_for(CALL, ROWS)
    prompts = [engine._composer.compose(request).tolist() for request in requests]
    engine.submit(requests)
    engine.step()
    assert engine.stats()["prefill_tokens"] == trie_size(prompts)


@pytest.mark.parametrize("together", [True, False])
def test_several_calls_about_the_same_fields_compute_these_once(checkpoint, together):
    """With the question behind the record: asked together or one after the other, in any order of their rows."""
    rng, engine = np.random.default_rng(2), engine_for(checkpoint, max_batch_tokens=96, max_running=5, kv_tokens=8192)
    text = "a long and quiet film about a lighthouse, " * 3
    records = [(f'"title": "{i // 4}"\n', f'"review": "{i}: {text}"\n}}\n\n') for i in range(12)]
    compose = engine._composer.compose
    prompts, question_first, finished = [], [], {}
    for number, question in enumerate(["Is it long?", "Is it good?", "Was it fun?"]):
        call = replace(constrained("choices", ["true", "false"]), instruction="{\n", closing=question)
        other = replace(call, instruction=f"{question}\n\n{{\n", closing="")
        rows = [records[i] for i in rng.permutation(len(records))]
        requests = requests_for(call, rows, first_id=100 * number)
        prompts += [compose(request).tolist() for request in requests]
        question_first += [compose(replace(request, call=other)).tolist() for request in requests]
        engine.submit(requests)
        finished |= {} if together else drain(engine)
    finished |= drain(engine)
    assert not any(row.error for row in finished.values())
    assert engine.stats()["prefill_tokens"] <= 1.02 * trie_size(prompts)
    assert 2 * trie_size(prompts) < trie_size(question_first)


def test_sharded_checkpoints_load(tmp_path, checkpoint):
    sharded = write_checkpoint(tmp_path, shard="20KB")
    assert len(list(sharded.glob("*.safetensors"))) > 1
    whole, parts = (engine_for(d)._runner.decoder.weights for d in (checkpoint, sharded))
    torch.testing.assert_close(whole.head.weight, parts.head.weight)
    torch.testing.assert_close(whole.layers[2].qkv.weight, parts.layers[2].qkv.weight)


@pytest.mark.parametrize(
    "operators", ["compiled", *(pytest.param(name, marks=pytest.mark.slow) for name in ("amx", "torch"))]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_is_as_near_to_float32_as_that_of_transformers(tmp_path, monkeypatch, family, operators):
    """Logits and choices of transformers in float32 along its own greedy answers; kernels in C, torch's, and a mixture.

    With AMX torch multiplies, and kernels in C do the rest: on other processors so, too, but slowly.
    """
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: operators == "amx")
    if operators == "torch":
        monkeypatch.setattr(dispatch, "library", lambda: None)
    directory = write_checkpoint(tmp_path, family, **WIDE)
    engine = engine_for(directory, dtype="bfloat16")
    exact_model, rounded_model = oracle(directory), oracle(directory, torch.bfloat16)
    packed_for_c = engine._runner.decoder.weights.layers[0].qkv.weight.dtype == torch.int32
    assert packed_for_c == (operators == "compiled" and cpu.library() is not None)
    asked, answers, exact, rounded = [], [], [], []
    for request in requests_for(CALL, ROWS):
        prompt = engine._composer.compose(request).tolist()
        answer = oracle_greedy(exact_model, prompt, 6)
        asked += [prompt + answer[:i] for i in range(len(answer))]
        answers.append(answer)
        with torch.no_grad():
            whole, rows = torch.tensor([prompt + answer]), slice(len(prompt) - 1, len(prompt) + len(answer) - 1)
            exact.append(exact_model(whole).logits[0, rows])
            rounded.append(rounded_model(whole).logits[0, rows].float())
    exact, error = torch.cat(exact), (torch.cat(rounded) - torch.cat(exact)).abs()
    logits = logits_of(engine, asked)
    assert (logits - exact).abs().mean() < 1.6 * error.mean()
    best = exact.topk(2).values
    sure = best[:, 0] - best[:, 1] > 2 * error.amax(-1).median()
    assert sure.float().mean() > 0.3
    assert (logits.argmax(-1) == exact.argmax(-1))[sure].all()
    engine.submit(requests_for(CALL, ROWS))  # decoded in a run
    finished = drain(engine)
    for i, along in enumerate(sure.split([len(answer) for answer in answers])):
        if along.all():
            assert finished[i].text.startswith(engine._tokenizer.decode(answers[i]))


def test_draws_do_not_depend_on_the_batch(checkpoint):
    call = Call("c", "Say something.", max_tokens=10, temperature=0.9, top_p=0.8)
    together = engine_for(checkpoint)
    together.submit(requests_for(call, ROWS, seed=5))
    together.submit(requests_for(CALL, ROWS, first_id=100))
    mixed = drain(together)
    alone = engine_for(checkpoint)
    for i, row in enumerate(ROWS[:4]):
        alone.submit(requests_for(call, [row], seed=5, first_id=i))
        assert drain(alone)[i].text == mixed[i].text
    alone.submit(requests_for(call, ROWS[:1] * 8))
    assert len({f.text for f in drain(alone).values()}) > 1, "without a seed, every request is drawn anew"


def test_stop_strings_are_cut_off(checkpoint, expected):
    text = max((text for text, _ in expected.values()), key=len)
    row = next(i for i, (other, _) in expected.items() if other == text)
    stop = text[len(text) // 2 : len(text) // 2 + 3]
    engine = engine_for(checkpoint)
    engine.submit(requests_for(Call("c", CALL.instruction, max_tokens=8, stop=("@@", stop)), [ROWS[row]]))
    finished = drain(engine)[0]
    assert finished.finish_reason == "stop"
    assert finished.text == text[: text.index(stop)]


def test_an_end_token_ends_the_answer(tmp_path, checkpoint, expected):
    """With the first answer token declared an end token, the answer is empty and its reason is 'stop'."""
    tokens = engine_for(checkpoint)._composer.compose(requests_for(CALL, ROWS[:1])[0]).tolist()
    end = oracle_greedy(oracle(checkpoint), tokens, 1)[0]
    engine = engine_for(write_checkpoint(tmp_path, eos_token_id=[1, end]))
    engine.submit(requests_for(CALL, ROWS[:1]))
    finished = drain(engine)[0]
    assert (finished.text, finished.finish_reason, finished.usage.output) == ("", "stop", 0)


def test_cancelled_requests_leave_no_trace(checkpoint, expected):
    engine = engine_for(checkpoint, max_batch_tokens=64)
    engine.submit(requests_for(CALL, ROWS))
    engine.step()
    engine.cancel([0, 3, 11, 99])
    engine.check_integrity()
    finished = answers(drain(engine))
    assert finished == {i: expected[i] for i in range(12) if i not in (0, 3, 11)}
    engine.submit(requests_for(CALL, ROWS))
    engine.step()
    engine.close()
    assert not engine.has_work()
    assert not engine.step()
    engine._scheduler.cache.clear()
    assert engine._scheduler.cache.pool.free == engine._scheduler.cache.pool.num_pages


@pytest.mark.slow
def test_a_long_soak_ends_with_all_memory_free_and_every_answer_right(checkpoint, elastic):
    """800 requests of five kinds: cancels at random, a cache of few rows, decode runs that begin and end."""
    rng = np.random.default_rng(11)
    calls = [
        Call("long", "Tell it.\n", max_tokens=40),
        constrained("choices", ["true", "trust", "false"]),
        constrained("regex", "[a-c]{2}-(yes|no)"),
        constrained("regex", "[a-z ]{12,30}"),
        Call("drawn", "Tell it.\n", max_tokens=30, temperature=0.9, top_p=0.8, stop=("e", "zq")),
    ]
    rows = [(f'"title": "{i % 9}"\n', f'"review": "{i % 50} words"\n') for i in range(400)]
    requests = [
        Request(i, calls[int(rng.integers(len(calls)))], rows[int(rng.integers(400))], seed=i) for i in range(800)
    ]
    calm = engine_for(checkpoint, kv_tokens=1 << 15)
    calm.submit(requests)
    undisturbed = answers(drain(calm, check=False))
    engine = engine_for(checkpoint, kv_tokens=720, max_length=160, max_batch_tokens=96, max_running=14)
    finished, cancelled, ahead = {}, set(), list(requests)
    while ahead or engine.has_work():
        if engine.stats()["waiting"] < 10:
            engine.submit(ahead[:30])
            ahead = ahead[30:]
        victim = int(rng.integers(800))
        if rng.random() < 0.02 and victim not in finished and victim < 800 - len(ahead):
            engine.cancel([victim])
            cancelled.add(victim)
        finished |= {f.request_id: f for f in engine.step()}
        if rng.random() < 0.02:
            engine.check_integrity()
    stats = engine.stats()
    assert cancelled
    assert stats["preemptions"] > 0
    assert stats["evicted_tokens"] > 0
    assert answers(finished) == {i: answer for i, answer in undisturbed.items() if i not in cancelled}
    engine.check_integrity()
    engine._scheduler.cache.clear()
    assert engine._scheduler.cache.pool.free == engine._scheduler.cache.pool.num_pages


def test_a_disturbed_engine_gives_the_undisturbed_answers(checkpoint):
    """Random arrivals and cancels over a cache that holds few rows, with constrained and free calls mixed."""
    rng = np.random.default_rng(3)
    calls = [
        CALL,
        constrained("choices", ["true", "false", "unsure"]),
        Call("s", "Say it.", max_tokens=20, stop=("a",)),
    ]
    requests = [
        Request(i, calls[int(rng.integers(3))], ROWS[int(rng.integers(12))][: int(rng.integers(1, 3))])
        for i in range(60)
    ]
    calm = engine_for(checkpoint, kv_tokens=8192)
    calm.submit(requests)
    undisturbed = answers(drain(calm, check=False))
    engine = engine_for(checkpoint, kv_tokens=256, max_length=160, max_batch_tokens=48, max_running=6)
    finished, cancelled, ahead = {}, set(), list(requests)
    while ahead or engine.has_work():
        engine.submit(ahead[:4])
        ahead = ahead[4:]
        victim = int(rng.integers(60))
        if rng.random() < 0.3 and victim not in finished and victim not in {r.request_id for r in ahead}:
            engine.cancel([victim])
            cancelled.add(victim)
        finished |= {f.request_id: f for f in engine.step()}
        engine.check_integrity()
    assert cancelled
    assert engine.stats()["evicted_tokens"] > 0
    assert answers(finished) == {i: answer for i, answer in undisturbed.items() if i not in cancelled}
    engine._scheduler.cache.clear()
    assert engine._scheduler.cache.pool.free == engine._scheduler.cache.pool.num_pages


def test_copies_of_copies_start_at_their_origin(checkpoint):
    runner = engine_for(checkpoint)._runner
    source, target = runner._copies([PageCopy(3, 5, 6), PageCopy(5, 8, 9), PageCopy(8, 2, 7)])
    pairs = dict(zip(target.tolist(), source.tolist(), strict=True))
    assert [pairs[8 * 16 + i] for i in range(9)] == [3 * 16 + i if i < 6 else 5 * 16 + i for i in range(9)]
    assert [pairs[2 * 16 + i] for i in range(7)] == [3 * 16 + i if i < 6 else 5 * 16 + i for i in range(7)]
    assert not set(pairs) & set(source.tolist())


def test_bad_rows_are_error_rows_beside_good_ones(checkpoint, expected):
    engine = engine_for(checkpoint, max_length=100)
    long = ("word " * 200,)
    engine.submit(requests_for(CALL, [long, ROWS[0]]))
    engine.submit(requests_for(Call("c", "", chat=False), [()], first_id=2))
    engine.submit(requests_for(Call("c", "x", constraint=Constraint("regex", "(")), [()], first_id=3))
    finished = drain(engine)
    assert (finished[1].text, finished[1].usage.output) == expected[0]
    conditions = {i: f.error.condition for i, f in finished.items() if f.error}
    assert conditions == {0: "LLM_PROMPT_TOO_LONG", 2: "LLM_ROW_FAILED", 3: "LLM_BAD_CONSTRAINT"}
    count = len(engine._composer.compose(requests_for(CALL, [long])[0]))
    assert finished[0].error.message == f"prompt of {count} tokens exceeds the model's context of 100."


def test_answers_end_at_the_context(checkpoint):
    engine = engine_for(checkpoint, max_length=64)
    engine.submit(requests_for(Call("c", "The quick brown fox", max_tokens=500), [()]))
    finished = drain(engine)[0]
    assert finished.finish_reason == "length"
    assert finished.usage.prompt + finished.usage.output == 64


def test_the_library_needs_no_transformers():
    code = "import sys, spark_llm.serving.engines.native; assert 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_cached_prefixes_stay_within_their_isolation_domain(checkpoint):
    engine = engine_for(checkpoint)
    cached = []
    for number, domain in enumerate(["pool a", "pool a", "pool b"]):
        request = replace(requests_for(CALL, ROWS[:1])[0], request_id=number, domain=domain)
        engine.submit([request])
        cached.append(drain(engine)[number].usage.cached)
    assert [tokens > 0 for tokens in cached] == [False, True, False]
    engine.check_integrity()


@pytest.mark.parametrize(("policy", "fair"), [("dlpm", True), ("vtc", True), ("fcfs", False)])
def test_a_small_query_does_not_wait_behind_a_large_one(checkpoint, policy, fair):
    engine = engine_for(checkpoint, max_running=4, policy=policy, quantum=64)
    rows = [(f'"review": "film {i}"\n}}',) for i in range(100)]
    for client, ids in (("heavy", range(90)), ("light", range(90, 100))):
        engine.submit([Request(i, CALL, rows[i], client=ClientRef(client)) for i in ids])
    order = []
    while engine.has_work():
        order += [finished.request_id for finished in engine.step()]
    last_light = max(order.index(i) for i in range(90, 100))
    assert (last_light < 40) == fair
    assert engine.stats()["waiting"] == 0
