"""Cases of the Triton kernels against their references, run by test_gpu_kernels.py under Triton's interpreter.

Run as a program: prints one JSON object, from the name of each case to "" or what went wrong. An access out of bounds
ends the process, which the test reports.
"""

import json
import sys
import traceback
from dataclasses import replace
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import numpy as np
import torch
from spark_llm.kernels import dispatch, kv_store, masked_sample, rms_norm, rotary, silu_and_mul
from spark_llm.kernels.cascade import Query
from spark_llm.kernels.gpu import paged_attention as gpu_attention
from spark_llm.kernels.gpu.merge import merge_parts
from spark_llm.kernels.paged_attention import PagedBatch, paged_attention, paged_attention_reference
from spark_llm.serving.core import Call, Constraint
from spark_llm.serving.device_decode import DeviceDecode

from tests.kernels.test_paged_attention import random_queries
from tests.serving.native_checkpoints import drain, engine_for, requests_for, write_checkpoint

CPU = torch.device("cpu")
DTYPES = (torch.float32, torch.float16)
"""Those that the interpreter computes; bfloat16 is wrong there."""
TOLERANCE = {torch.float32: 2e-5, torch.float16: 4e-3}


def close(got, wanted, tolerance=2e-5):
    torch.testing.assert_close(got, wanted, atol=tolerance, rtol=tolerance)


def case_rms_norm():
    for (rows, heads, width), dtype in product(((1, 1, 7), (5, 3, 64), (3, 2, 96), (2, 1, 1025)), DTYPES):
        tolerance = TOLERANCE[dtype]
        x, weight = torch.randn(rows, heads + 2, width).to(dtype)[:, :heads], torch.randn(width).to(dtype)
        close(rms_norm.rms_norm(x, weight, 1e-5), rms_norm.rms_norm_reference(x, weight, 1e-5), tolerance)
        x, residual = torch.randn(2, rows, width).to(dtype)
        got = rms_norm.add_rms_norm(x, residual, weight, 1e-5)
        for mine, wanted in zip(got, rms_norm.add_rms_norm_reference(x, residual, weight, 1e-5), strict=True):
            close(mine, wanted, tolerance)


def case_rotary():
    for (tokens, heads, width), dtype in product(((1, 1, 2), (5, 3, 64), (4, 5, 96), (3, 7, 80), (2, 33, 128)), DTYPES):
        x = torch.randn(tokens, heads + 4, width).to(dtype)[:, 1 : heads + 1]
        cos, sin = torch.rand(2, tokens, 1, width // 2).to(dtype)
        close(rotary.rotate(x, cos, sin), rotary.rotate_reference(x, cos, sin), TOLERANCE[dtype])


def case_gates():
    for (tokens, width), dtype in product(((0, 8), (1, 3), (3, 1024), (4, 1500)), DTYPES):
        x = (torch.randn(tokens, 2 * width) * 3).to(dtype)
        close(silu_and_mul.silu_and_mul(x), silu_and_mul.silu_and_mul_reference(x), TOLERANCE[dtype])
        close(silu_and_mul.gelu_and_mul(x), silu_and_mul.gelu_and_mul_reference(x), TOLERANCE[dtype])


def case_kv_store():
    for (heads, width), dtype in product(((1, 5), (3, 16), (9, 128)), DTYPES):
        joined = torch.randn(6, 3 * heads, width).to(dtype)
        k, v = joined[:, heads : 2 * heads], joined[:, 2 * heads :]
        slots = torch.randperm(24)[:6]
        ours, theirs = torch.zeros(2, 2, 6, 4, heads, width).to(dtype)
        kv_store.kv_store(k, v, *ours, slots)
        kv_store.kv_store_reference(k, v, *theirs, slots)
        assert torch.equal(ours, theirs)


def case_masked_sample():
    for rows, vocab in ((1, 3), (5, 320), (6, 5001)):
        logits = torch.randn(rows, vocab)
        logits[0, :2] = 9.0  # equal ones: the first is taken
        masks = torch.randint(-(2**31), 2**31 - 1, (2, -(-vocab // 32)), dtype=torch.int32)
        masks[:, 0] |= 1
        mask_of = torch.tensor([-1, 0, 1, 0, -1, 1])[:rows]
        warm, top_p = torch.tensor([0, 0.7, 1.5, 0, 1.0, 0.2])[:rows], torch.tensor([1, 1, 0.5, 0.5, 0.9, 1.0])[:rows]
        keys = torch.from_numpy(masked_sample.noise_keys(np.arange(rows, dtype=np.uint64), np.arange(rows)))
        for case in ((0 * warm, None), (warm, None), (warm, top_p)):
            wanted = masked_sample.masked_sample_reference(logits.clone(), masks, mask_of, *case, keys)
            assert torch.equal(masked_sample.masked_sample(logits.clone(), masks, mask_of, *case, keys), wanted)


def case_merge():
    parts, lse = torch.randn(3, 4, 2, 24), torch.randn(3, 4, 2) * 3
    lse[1, 2] = lse[0, 0] = -torch.inf
    out = torch.empty(4, 2, 24)
    merge_parts(parts, lse, out)
    close(out, (torch.softmax(lse, 0)[..., None] * parts).sum(0))
    lse[:, 3] = -torch.inf  # a padding row
    merge_parts(parts, lse, out)
    assert out[3].eq(0).all()


def attention(seed, *, heads, width, page_size, decode, least, window=0, softcap=0.0, dtype=torch.float32):
    gpu_attention.MIN_SHARED_READS = least
    rng = np.random.default_rng(seed)
    queries, rows = random_queries(rng, page_size, 7)
    if decode:
        queries = [Query(r, q.end - 1, q.end, q.table) for r, q in enumerate(queries)]
        rows = len(queries)
    pages = 1 + max(int(q.table.max()) for q in queries)
    k, v = torch.randn(2, pages, page_size, heads[1], width).to(dtype)
    q = torch.randn(rows, heads[0] + 1, width).to(dtype)[:, 1:]
    shape = (*heads, width)
    batch = PagedBatch.build(queries, page_size, dtype=dtype, device=CPU, window=window, heads=shape)
    assert batch.device_plan is not None
    got = paged_attention(q, k, v, batch, 0.3, softcap=softcap)
    wanted = paged_attention_reference(q, k, v, batch, 0.3, softcap=softcap)
    close(got, wanted, TOLERANCE[dtype])
    return batch.device_plan


def case_extend():
    for seed, heads in enumerate([(4, 4), (6, 2), (3, 1)]):
        attention(seed, heads=heads, width=8 * (seed + 1), page_size=4, decode=False, least=10**9)


def case_decode():
    for seed, heads in enumerate([(4, 4), (6, 2), (3, 1)]):
        attention(seed, heads=heads, width=8 * (seed + 1), page_size=16, decode=True, least=10**9)


def case_shared_prefix():
    levels = 0
    for seed in range(3):
        for decode in (False, True):
            plan = attention(seed, heads=(4, 2), width=16, page_size=4, decode=decode, least=1)
            levels = max(levels, plan.levels - max(plan.splits, 1))
    assert levels >= 2, "no case has shared runs above each other"


def case_windows_and_softcaps():
    for window in (3, 40):
        for decode in (False, True):
            attention(5, heads=(4, 2), width=16, page_size=4, decode=decode, least=1, window=window, softcap=3.0)


def case_sizes_and_half_precision():
    """Heads that no power of two holds, one KV head for many, pages of one token and of 64."""
    shapes = (((7, 7), 80, 1), ((8, 1), 40, 64), ((5, 5), 128, 16), ((4, 2), 16, 16))
    for seed, ((heads, width, page_size), decode) in enumerate(product(shapes, (False, True))):
        sizes = {"heads": heads, "width": width, "page_size": page_size}
        for dtype in DTYPES:
            attention(seed, decode=decode, least=1 if seed % 2 else 10**9, dtype=dtype, **sizes)


def case_split_keys():
    """One long request in many splits, some of them empty."""
    table = np.arange(1, 30, dtype=np.int32)
    k, v = torch.randn(2, 30, 16, 2, 8)
    for length in (1, 450):
        batch = PagedBatch.build(
            [Query(0, length - 1, length, table)], 16, dtype=torch.float32, device=CPU, heads=(4, 2, 8)
        )
        q = torch.randn(1, 4, 8)
        wanted = paged_attention_reference(q, k, v, batch, 0.3)
        split = replace(batch, device_plan=replace(batch.device_plan, splits=9, levels=9))
        close(paged_attention(q, k, v, split, 0.3), wanted, 1e-5)


def case_engine():
    """The whole engine on Triton's kernels, decode runs included, against the engine on torch's."""
    call = Call("c", "Is it good?\n", max_tokens=4)
    chosen = Call("c", "Is it good?\n", constraint=Constraint("choices", ["good", "bad", "gone"]))
    rows = [(f'"review": "A film {i // 4}"\n', f'"title": "{i % 5}"\n') for i in range(9)]
    shape = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    with TemporaryDirectory() as folder:
        for family in ("llama", "gemma2"):
            directory = write_checkpoint(Path(folder) / family, family, **shape)
            answers, steps = [], []
            for interpreted in (True, False):
                dispatch._interpreted = lambda interpreted=interpreted: interpreted
                engine = engine_for(directory, max_running=9, kv_tokens=512, max_length=128)
                with mock.patch.object(DeviceDecode, "run", autospec=True, side_effect=DeviceDecode.run) as run:
                    engine.submit(requests_for(call, rows))
                    engine.submit(requests_for(chosen, rows[:3], first_id=20))
                    answers.append({i: f.text for i, f in drain(engine, check=False).items()})
                steps.append(run.call_count)
            assert answers[0] == answers[1], family
            assert steps[0] > 0 or family != "llama", "no decode run"
            assert steps[1] == 0


CASES = {name.removeprefix("case_"): function for name, function in list(globals().items()) if name.startswith("case_")}


def main(names):
    problems = {}
    for name in names or CASES:
        torch.manual_seed(0)
        try:
            CASES[name]()
            problems[name] = ""
        except Exception:
            problems[name] = traceback.format_exc()[-3000:]
        print(name, "failed" if problems[name] else "ok", file=sys.stderr, flush=True)
    print(json.dumps(problems))


if __name__ == "__main__":
    main(sys.argv[1:])
