"""The compiled CPU kernels against their references, over odd sizes; the engine with and without them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from spark_llm.kernels import cpu, dispatch
from spark_llm.kernels.cascade import Query
from spark_llm.kernels.cpu import attention as compiled_attention
from spark_llm.kernels.decode_batch import HostDecodeBatch
from spark_llm.kernels.kv_store import kv_copy, kv_copy_reference
from spark_llm.kernels.linear import gated_linear, gated_linear_reference, linear, linear_reference, pack
from spark_llm.kernels.masked_sample import masked_sample, masked_sample_reference, noise_keys
from spark_llm.kernels.paged_attention import (
    PagedBatch,
    paged_attention,
    paged_attention_reference,
    use_compiled_attention,
)
from spark_llm.kernels.rms_norm import add_rms_norm, add_rms_norm_reference, rms_norm, rms_norm_reference
from spark_llm.kernels.rotary import rotate, rotate_reference
from spark_llm.kernels.rotate_and_store import rotate_and_store, rotate_and_store_reference
from spark_llm.kernels.silu_and_mul import silu_and_mul, silu_and_mul_reference
from spark_llm.serving.core import Call

from tests.kernels.test_paged_attention import CPU, random_queries
from tests.serving.native_checkpoints import engine_for, logits_of, requests_for

pytestmark = pytest.mark.skipif(cpu.library() is None, reason="no compiled kernels for this CPU")
ONE_ROUNDING = {"atol": 1e-2, "rtol": 2**-7}


def random(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).bfloat16()


@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (6, 1), (10, 5)])
@pytest.mark.parametrize("width", [32, 64, 96, 256])
@pytest.mark.parametrize(("window", "softcap"), [(0, 0.0), (7, 0.0), (40, 5.0)])
def test_attention_equals_its_formula(monkeypatch, heads, width, window, softcap):
    rng = np.random.default_rng(width + sum(heads) + window)
    for page_size, least in ((1, 1), (4, 64), (16, 1), (16, 10**9)):
        monkeypatch.setattr(compiled_attention, "MIN_SHARED_READS", least)
        queries, rows = random_queries(rng, page_size, int(rng.integers(1, 24)))
        pages = 1 + max(int(q.table.max()) for q in queries)
        k, v = random(2, pages, page_size, heads[1], width)
        q = random(rows, heads[0], width)
        batch = PagedBatch.build(
            queries, page_size, dtype=torch.bfloat16, device=CPU, window=window, heads=(*heads, width)
        )
        assert batch.host_plan is not None
        got = paged_attention(q, k, v, batch, 0.2, softcap=softcap)
        exact = paged_attention_reference(q.float(), k.float(), v.float(), batch, 0.2, softcap=softcap)
        torch.testing.assert_close(got.float(), exact, atol=2e-2, rtol=2e-2)


def test_attention_over_many_keys_and_rows():
    """Several blocks of keys and units of rows, behind a run that all share."""
    shared = np.arange(40, dtype=np.int32)
    tables = [np.concatenate([shared, np.arange(40 + 40 * i, 80 + 40 * i, dtype=np.int32)]) for i in range(3)]
    queries = [Query(300 * i, 640 + i, 940 + i, table) for i, table in enumerate(tables)]
    k, v = random(2, 160, 16, 2, 64)
    q = random(900, 4, 64)
    batch = PagedBatch.build(queries, 16, dtype=torch.bfloat16, device=CPU, heads=(4, 2, 64))
    exact = paged_attention_reference(q.float(), k.float(), v.float(), batch, 0.3)
    torch.testing.assert_close(paged_attention(q, k, v, batch, 0.3).float(), exact, atol=1e-2, rtol=2e-2)


@pytest.mark.parametrize("new", [1, 20])
def test_attention_copies_nothing_that_grows_with_the_context(monkeypatch, new):
    k, v = random(2, 640, 16, 2, 64)
    q = random(8 * new, 4, 64)

    def allocated(length):
        tables = np.arange(8 * 80, dtype=np.int32).reshape(8, 80)[:, : -(-length // 16)]
        queries = [Query(new * r, length - new, length, table) for r, table in enumerate(tables)]
        batch = PagedBatch.build(queries, 16, dtype=torch.bfloat16, device=CPU, heads=(4, 2, 64))
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            paged_attention(q, k, v, batch, 0.3)
        return sum(max(0, event.self_cpu_memory_usage) for event in profile.events())

    assert allocated(1200) == allocated(60) > 0


@pytest.mark.parametrize("rows", [1, 37])
@pytest.mark.parametrize("width", [32, 96, 640])
def test_pointwise_kernels_equal_their_references(rows, width):
    x, residual, weight = random(rows, width), random(rows + 1, width)[1:], random(width)
    for got, exact in zip(
        add_rms_norm(x, residual, weight, 1e-5), add_rms_norm_reference(x, residual, weight, 1e-5), strict=True
    ):
        torch.testing.assert_close(got, exact, **ONE_ROUNDING)
    heads = random(rows, 7, width)[:, 1:5]  # strided, as queries within their projection are
    torch.testing.assert_close(rms_norm(heads, weight, 1e-6), rms_norm_reference(heads, weight, 1e-6), **ONE_ROUNDING)
    cos, sin = random(2, rows, 1, width // 2)
    exact = rotate_reference(heads.float(), cos.float(), sin.float()).bfloat16()
    torch.testing.assert_close(rotate(heads, cos, sin), exact, **ONE_ROUNDING)
    gate_up = random(rows, 2 * width) * 40
    exact = silu_and_mul_reference(gate_up.float()).bfloat16()
    torch.testing.assert_close(silu_and_mul(gate_up), exact, **ONE_ROUNDING)
    ours = random(2, 4, 16, 4, width)
    theirs = ours.clone()
    source, target = torch.randperm(64)[: rows + rows % 2].view(2, -1)
    kv_copy(*ours, source, target)
    kv_copy_reference(*theirs, source, target)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("rows", [1, 37])
@pytest.mark.parametrize("width", [32, 96, 256])
@pytest.mark.parametrize("normed", [False, True])
def test_queries_are_rotated_while_keys_and_values_are_stored(rows, width, normed):
    heads, slots, (cos, sin) = random(rows, 5 + 2 * 3, width), torch.randperm(64)[:rows], random(2, rows, 1, width // 2)
    norms = (random(width), random(width + 32)[32:]) if normed else None
    wide = None if norms is None else (norms[0].float(), norms[1].float())
    ours, theirs = torch.zeros(2, 4, 16, 3, width).bfloat16(), torch.zeros(2, 4, 16, 3, width)
    exact = rotate_and_store_reference(heads.float(), (cos.float(), sin.float()), wide, 1e-6, *theirs, slots)
    got = rotate_and_store(heads, (cos, sin), norms, 1e-6, *ours, slots)
    torch.testing.assert_close(got, exact.bfloat16(), **ONE_ROUNDING)
    torch.testing.assert_close(ours, theirs.bfloat16(), **ONE_ROUNDING)


@pytest.mark.parametrize("rows", [1, 2, 5, 6, 130])
@pytest.mark.parametrize(("out", "width"), [(64, 2), (128, 96), (192, 3000)])
@pytest.mark.parametrize("biased", [False, True])
def test_products_with_packed_weights_equal_those_without(rows, out, width, biased):
    x, weight, bias = random(rows, width), random(out, width) * width**-0.5, random(out) if biased else None
    wide = (x.float(), weight.float(), bias if bias is None else bias.float())
    packed = pack(weight)
    assert (packed.dtype == torch.int32) != torch.cpu._is_amx_tile_supported()
    torch.testing.assert_close(linear(x, packed, bias), linear_reference(*wide).bfloat16(), **ONE_ROUNDING)
    added = random(rows, out)
    exact = linear_reference(*wide, added.float()).bfloat16()
    torch.testing.assert_close(linear(x, packed, bias, added), exact, **ONE_ROUNDING)
    for activation in ("silu", "gelu_tanh"):
        got = gated_linear(x, pack(weight, gated=True), bias, activation=activation)
        exact = gated_linear_reference(*wide, activation=activation).bfloat16()
        torch.testing.assert_close(got, exact, **ONE_ROUNDING)


@pytest.mark.parametrize("bias", [None, random(40)])
def test_other_weights_are_packed_by_onednn(bias):
    weight, x = random(40, 96), random(33, 96)
    assert pack(weight).is_mkldnn
    torch.testing.assert_close(linear(x, pack(weight), bias), linear_reference(x, weight, bias), **ONE_ROUNDING)


def test_without_bfloat16_products_weights_stay_as_they_are(monkeypatch):
    weight = random(40, 96)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    assert pack(weight) is weight
    assert linear(random(33, 96), weight).shape == (33, 40)


def test_an_input_of_another_width_is_refused():
    with pytest.raises(AssertionError, match="another shape"):
        linear(random(3, 98), pack(random(64, 96)))


def test_a_library_of_other_sources_says_what_to_run(monkeypatch):
    monkeypatch.setattr(cpu, "version", lambda: "another")
    with pytest.warns(UserWarning, match="make kernels"):
        assert cpu.library.__wrapped__() is None
    monkeypatch.setattr(cpu, "version", lambda: "")  # installed without the sources
    assert cpu.library.__wrapped__() is not None


def test_other_tensors_take_torchs_operators():
    assert dispatch.use_compiled(random(2, 64))
    assert not dispatch.use_compiled(random(2, 64).float())
    assert not dispatch.use_compiled(random(2, 40))


def test_heads_that_the_compiled_attention_cannot_hold_take_torchs_operators():
    source = (Path(cpu.__file__).parent / "attention.c").read_text()
    assert f"WIDEST = {compiled_attention.WIDEST} " in source
    taken = [width for width in (0, 32, 80, 256, 288, 512) if use_compiled_attention(width, torch.bfloat16, CPU)]
    assert taken == [32, 256]


@pytest.mark.parametrize("others", ["torch", "amx"])
def test_the_engine_gives_the_same_logits_with_and_without_them(monkeypatch, others):
    """The embedded model in bfloat16, rows that share a prefix in one step; with AMX, torch multiplies."""
    from spark_llm.serving.models.directory import find_model

    rows = [(f'"title": "{i // 4}"\n', f'"review": "film {i} was fine"\n}}') for i in range(16)]

    def logits():
        engine = engine_for(find_model("default"), dtype="bfloat16")
        requests = requests_for(Call("c", "Is it positive?\n", max_tokens=1), rows)
        return logits_of(engine, [engine._composer.compose(request).tolist() for request in requests])

    ours = logits()
    if others == "torch":
        monkeypatch.setattr(dispatch, "library", lambda: None)
    else:
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    torchs = logits()
    assert not torch.equal(ours, torchs)
    torch.testing.assert_close(ours, torchs, atol=0.15, rtol=0.05)


@pytest.mark.parametrize("changing", [False, True])
@pytest.mark.parametrize("page_size", [4, 16])
def test_a_carried_decode_plan_equals_a_new_one_at_every_step(monkeypatch, page_size, changing):
    """Also where requests leave, or join behind the others with prefixes that these share."""
    monkeypatch.setattr(compiled_attention, "MIN_SHARED_READS", 64)
    rng = np.random.default_rng(page_size)
    queries, _ = random_queries(rng, page_size, 20)
    tables, positions = [q.table for q in queries], np.array([q.end - 1 for q in queries])
    fresh = iter(range(1 + max(int(table.max()) for table in tables), 10_000))
    k, v = random(2, 2000, page_size, 2, 64)
    carried = HostDecodeBatch(tables, positions, page_size, group=2)
    shared = (carried.batch.host_plan.segments[:, 6] > 0).sum()
    assert shared
    for step in range(2 * page_size):
        if changing and step % 2:
            staying = rng.random(len(tables)) < 0.8
            staying[0] = True
            carried.keep(staying)
            tables, positions = [tables[i] for i in np.flatnonzero(staying)], positions[staying]
            assert (carried.batch.host_plan.segments[:, 6] > 0).sum() <= shared
            come = rng.integers(len(tables), size=step % 4)
            if len(come):
                joining = [np.append(tables[i], np.int32(next(fresh))) for i in come]
                at = np.array([(len(table) - 1) * page_size + int(rng.integers(page_size)) for table in joining])
                carried.join(joining, at)
                tables, positions = tables + joining, np.concatenate([positions, at])
        begun = {r: next(fresh) for r in np.flatnonzero((positions + 1) % page_size == 0).tolist()}
        positions = positions + 1
        tables = [np.append(t, np.int32(begun[r])) if r in begun else t for r, t in enumerate(tables)]
        carried.advance(begun)
        assert carried.room >= 0
        now = [Query(r, p, p + 1, t) for r, (p, t) in enumerate(zip(positions.tolist(), tables, strict=True))]
        new = PagedBatch.build(now, page_size, dtype=torch.float32, device=CPU)
        q = random(len(tables), 4, 64)
        exact = paged_attention_reference(q.float(), k.float(), v.float(), new, 0.3)
        torch.testing.assert_close(paged_attention(q, k, v, carried.batch, 0.3).float(), exact, atol=1e-2, rtol=2e-2)
        slots = [t[p // page_size] * page_size + p % page_size for p, t in zip(positions, tables, strict=True)]
        assert carried.slots().tolist() == slots


def test_masked_draws_equal_their_definition_and_the_distribution():
    for rows, vocab in ((3, 3), (40, 320), (40, 5001)):
        logits = torch.randn(rows, vocab, generator=torch.Generator().manual_seed(vocab)) * 3
        logits[0, :2] = 30.0  # equal ones: the first is taken
        masks = torch.randint(-(2**31), 2**31 - 1, (2, -(-vocab // 32)), dtype=torch.int32)
        masks[:, 0] |= 1
        at, keys = torch.arange(rows), torch.from_numpy(noise_keys(np.arange(rows, dtype=np.uint64), np.arange(rows)))
        warm, top_p = torch.tensor([0, 0.7, 1.3, 2.0])[at % 4], torch.tensor([1, 0.9, 0.3])[at % 3]
        for case in ((0 * warm, None), (warm, None), (warm, top_p)):
            wanted = masked_sample_reference(logits.clone(), masks, at % 3 - 1, *case, keys)
            got = masked_sample(logits.clone(), masks, at % 3 - 1, *case, keys)
            assert (got == wanted).float().mean() > 0.97, "but for near ties"
    rows = 40_000
    logits, one = torch.tensor([0.5, -1.0, 2.0, 0.0, -3.0]), torch.ones(rows)
    keys = torch.from_numpy(noise_keys(np.full(rows, 7, np.uint64), np.arange(rows)))
    arguments = (torch.zeros(1, 1, dtype=torch.int32), torch.full((rows,), -1), one)
    for top_p, kept in ((None, [0, 1, 2, 3, 4]), (0.8 * one, [0, 2])):
        tokens = masked_sample(logits.expand(rows, -1).contiguous(), *arguments, top_p, keys)
        wanted = torch.zeros(5)
        wanted[kept] = torch.softmax(logits[kept], 0)
        torch.testing.assert_close(tokens.bincount(minlength=5) / rows, wanted, atol=0.01, rtol=0)
