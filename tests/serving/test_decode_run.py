"""Decode runs: the answers of single steps, however rows leave, join and wait, and next to no Python for each."""

import cProfile
import json
from dataclasses import replace
from unittest import mock

import pytest
import torch
from spark_llm.serving.core import Call, Constraint
from spark_llm.serving.decode_run import DecodeRun

from tests.serving.native_checkpoints import drain, engine_for, requests_for, write_checkpoint

WIDE = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 32}
"""Multiples of 32, as the compiled CPU kernels take them."""
TEXTS = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}, "required": ["a", "b"]}
QUESTION = "Is the review positive or negative?\n"
ROWS = [(f'"review": "{i} {i * 7}"\n',) for i in range(30)]
ENDS = [1, *range(100, 112)]
"""Tokens that end an answer: so many that some answers end by one."""
KINDS = [
    {},
    {"temperature": 1.0},
    {"temperature": 1.0, "stop": ("qu", "e")},
    {"temperature": 0.8, "top_p": 0.7, "stop": ("a",)},
    {"constraint": Constraint("regex", "[a-z ]{20,60}")},
    {"constraint": Constraint("json_schema", json.dumps(TEXTS)), "temperature": 0.7},
    {"constraint": Constraint("regex", "[a-z ]*"), "stop": ("e",)},
    {"constraint": Constraint("choices", ["positive", "possible", "negative"])},
]


def run(checkpoint, requests, **args):
    """Answers and engine, which has given back all memory."""
    engine = engine_for(checkpoint, **{"kv_tokens": 4096, "max_length": 200, **args})
    engine.submit(requests)
    finished = drain(engine, check=False)
    engine.check_integrity()
    engine._scheduler.cache.clear()
    assert engine._scheduler.cache.pool.free == engine._scheduler.cache.pool.num_pages
    assert not engine._scheduler.decoding
    return {i: (f.text, f.usage.output, f.finish_reason) for i, f in finished.items()}, engine


def seeded(call, rows=ROWS):
    return [replace(request, seed=i) for i, request in enumerate(requests_for(call, rows))]


@pytest.mark.parametrize("args", [{}, {"page_size": 4}, {"kv_tokens": 640}], ids=str)
def test_answers_equal_those_of_single_steps(tmp_path, monkeypatch, args, elastic):
    """Long answers of many rows, with more waiting than run at once, ends in between, and preemptions."""
    checkpoint = write_checkpoint(tmp_path, eos_token_id=ENDS)
    requests = requests_for(Call("c", QUESTION, max_tokens=60), ROWS)
    in_runs, engine = run(checkpoint, requests, max_running=12, **args)
    assert engine.stats()["preemptions"] or "kv_tokens" not in args
    monkeypatch.setattr(DecodeRun, "ready", lambda *_: False)
    one_by_one, single = run(checkpoint, requests, max_running=12, **args)
    assert in_runs == one_by_one
    assert {reason for _, _, reason in in_runs.values()} == {"stop", "length"}
    assert "kv_tokens" in args or engine.stats()["steps"] == single.stats()["steps"]


@pytest.mark.slow
@pytest.mark.parametrize("running", [12, 32])
@pytest.mark.parametrize("more", KINDS, ids=str)
def test_answers_of_any_kind_equal_those_of_single_steps(tmp_path, monkeypatch, more, running, elastic):
    """Rows that end at different steps, with others waiting for their place or not."""
    checkpoint = write_checkpoint(tmp_path, eos_token_id=ENDS)
    requests = seeded(Call("c", QUESTION, max_tokens=60, **more))
    with mock.patch.object(DecodeRun, "compute", autospec=True, side_effect=DecodeRun.compute) as computed:
        in_runs, engine = run(checkpoint, requests, max_running=running)
    kind = more["constraint"].kind if "constraint" in more else ""
    assert (computed.call_count > 0) == (kind != "choices" and not (kind and "stop" in more))
    monkeypatch.setattr(DecodeRun, "ready", lambda *_: False)
    one_by_one, single = run(checkpoint, requests, max_running=running)
    assert in_runs == one_by_one
    assert running == 12 or engine.stats()["steps"] == single.stats()["steps"], "who waits may come in another order"


@pytest.mark.slow
def test_rows_of_all_kinds_share_a_run_and_its_steps(tmp_path, monkeypatch, elastic):
    """Some in the run, some beside it, some that leave for a forced text and come back."""
    checkpoint = write_checkpoint(tmp_path, eos_token_id=ENDS)
    requests = [
        replace(
            requests_for(Call(str(kind), QUESTION, max_tokens=20 + i % 17, **KINDS[kind]), [row])[0],
            request_id=i,
            seed=i,
        )
        for i, row in enumerate(ROWS * 4)
        for kind in [i % len(KINDS)]
    ]
    left, joined = [], []
    if elastic:
        leave, join = DecodeRun._leave, DecodeRun.join
        monkeypatch.setattr(DecodeRun, "_leave", lambda self, rows: (left.append(rows.sum()), leave(self, rows)))
        monkeypatch.setattr(DecodeRun, "join", lambda self, rows: (joined.append(len(rows)), join(self, rows)))
    in_runs, _ = run(checkpoint, requests, max_running=40)
    assert not elastic or (sum(left) > 60 and sum(joined) > 50), "rows leave and join"
    monkeypatch.setattr(DecodeRun, "ready", lambda *_: False)
    assert in_runs == run(checkpoint, requests, max_running=40)[0]


@pytest.mark.parametrize("more", KINDS[:5], ids=str)
def test_answers_by_the_compiled_kernels(tmp_path, monkeypatch, more):
    """In bfloat16, where other tiles may round otherwise."""
    checkpoint = write_checkpoint(tmp_path, eos_token_id=ENDS, **WIDE)
    requests = seeded(Call("c", QUESTION, max_tokens=60, **more))
    in_runs, _ = run(checkpoint, requests, max_running=12, dtype="bfloat16")
    monkeypatch.setattr(DecodeRun, "ready", lambda *_: False)
    one_by_one, _ = run(checkpoint, requests, max_running=12, dtype="bfloat16")
    assert sum(in_runs[i] == one_by_one[i] for i in range(30)) >= 20


@pytest.mark.parametrize("limit", [60, 7])
def test_tokens_read_after_the_next_step_is_queued_give_the_same_answers(tmp_path, monkeypatch, limit):
    """As on a GPU; answers that end by a token, where one step more is computed, by length, and with others waiting."""
    checkpoint = write_checkpoint(tmp_path, eos_token_id=ENDS)
    requests = requests_for(Call("c", QUESTION, max_tokens=limit), ROWS)
    at_once, _ = run(checkpoint, requests, max_running=12, kv_tokens=960)
    compute, unread = DecodeRun.compute, []

    def note_unread(self, step):
        done = compute(self, step)
        unread.append(len(self._queued))
        return done

    monkeypatch.setattr(DecodeRun, "reads_late", property(lambda _: True))
    monkeypatch.setattr(DecodeRun, "compute", note_unread)
    assert run(checkpoint, requests, max_running=12, kv_tokens=960)[0] == at_once
    assert max(unread) == 1, "nothing was read late"
    assert {reason for _, _, reason in at_once.values()} >= ({"stop", "length"} if limit == 60 else {"length"})


@pytest.mark.parametrize("rows", [64, 256])
@pytest.mark.parametrize(
    "more",
    [{}, {"stop": ("zq",)}, {"temperature": 1.0}, {"constraint": Constraint("regex", "[a-z ]{90,100}")}],
    ids=str,
)
def test_the_python_of_a_step_does_not_grow_with_its_rows(tmp_path, monkeypatch, rows, more, elastic):
    """Function calls of a step in a run, beside the model's: as many for 256 rows as for 64, but for grammars' own."""
    engine = engine_for(write_checkpoint(tmp_path), kv_tokens=1 << 15)
    engine.submit(requests_for(Call("c", "Say it.\n", max_tokens=100, **more), [(f"{i}\n",) for i in range(rows)]))
    calls_of_steps(engine, monkeypatch, 4)
    assert engine._run is not None
    calls = calls_of_steps(engine, monkeypatch, 8)
    each = 4 + 8 * 4 * ("constraint" in more)  # a page begun by each row, once; a token accepted, at every step
    assert calls < 8 * 100 + each * rows


@pytest.mark.parametrize("elastic", [True], indirect=True)
@pytest.mark.parametrize("others", [48, 192])
def test_rows_that_end_and_begin_cost_python_for_themselves_alone(tmp_path, monkeypatch, others, elastic):
    """Function calls of steps with a few rows that end and begin: next to none for the others, which are charged."""
    engine = engine_for(write_checkpoint(tmp_path), kv_tokens=1 << 15, max_running=others + 16)
    for i, (count, limit) in enumerate([(others, 100), (64, 8)]):
        call = Call(str(i), "Say it.\n", max_tokens=limit)
        engine.submit(requests_for(call, [(f"{j}\n",) for j in range(count)], first_id=1000 * i))
    while engine.stats()["running"] < others + 16:
        engine.step()
    active = len(engine._active)
    calls = calls_of_steps(engine, monkeypatch, 8)
    ended = active - len(engine._active)
    assert ended >= 16
    assert calls < 8 * 700 + 150 * ended + 12 * others


def calls_of_steps(engine, monkeypatch, steps):
    """Function calls of steps whose model likes all tokens but the end."""
    logits = torch.ones(512, 320)
    logits[:, 1] = -100

    def forward(step, cache):
        rows = len(step.token_ids) if isinstance(step.logit_rows, slice) else len(step.logit_rows)
        return logits[:rows].clone()

    monkeypatch.setattr(engine._runner.decoder, "forward", forward)
    profile = cProfile.Profile(builtins=False)
    profile.runcall(lambda: [engine.step() for _ in range(steps)])
    return sum(entry.callcount for entry in profile.getstats())
