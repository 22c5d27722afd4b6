"""Paged attention against its formula, over batches in which requests share pages in every way that can occur."""

import numpy as np
import pytest
import torch
from spark_llm.kernels import cascade
from spark_llm.kernels.attention import attend, attend_reference, merge_states
from spark_llm.kernels.cascade import Query, plan_cascade, table_order
from spark_llm.kernels.decode_batch import AHEAD, DecodeBatch
from spark_llm.kernels.paged_attention import PagedBatch, paged_attention, paged_attention_reference

CPU = torch.device("cpu")


def random_queries(rng, page_size, requests):
    """Requests on a random tree of pages: children copy a prefix of an earlier request's full pages."""
    tables, spans, fresh = [], [], iter(range(1, 100_000))
    for _ in range(requests):
        shared = []
        if tables and rng.random() < 0.8:
            parent = int(rng.integers(len(tables)))
            full = spans[parent][1] // page_size
            shared = list(tables[parent][: int(rng.integers(full + 1))])
        end = len(shared) * page_size + int(rng.integers(1, 5 * page_size))
        low = len(shared) * page_size if rng.random() < 0.7 else end - 1
        start = int(rng.integers(low, end))
        need = -(-end // page_size)
        tables.append(np.array([*shared, *(next(fresh) for _ in range(need - len(shared)))], np.int32))
        spans.append((start, end))
    order, queries, row = table_order(tables), [], 0
    for i in order:
        queries.append(Query(row, *spans[i], tables[i]))
        row += spans[i][1] - spans[i][0]
    return queries, row


@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (6, 1)])
@pytest.mark.parametrize("min_shared", [1, 64, 10**9])
@pytest.mark.parametrize("operator", [attend, attend_reference], ids=["flash", "formula"])
def test_equals_the_reference(monkeypatch, heads, min_shared, operator):
    monkeypatch.setattr(cascade, "MIN_SHARED_READS", min_shared)
    monkeypatch.setattr("spark_llm.kernels.paged_attention.attend", operator)
    rng = np.random.default_rng(sum(heads) + min_shared)
    for page_size in (1, 4, 16):
        queries, rows = random_queries(rng, page_size, int(rng.integers(1, 24)))
        pages = 1 + max(int(q.table.max()) for q in queries)
        k, v = torch.randn(2, pages, page_size, heads[1], 8)
        q = torch.randn(rows, heads[0], 8)
        batch = PagedBatch.build(queries, page_size, dtype=torch.float32, device=CPU)
        got = paged_attention(q, k, v, batch, 0.3)
        torch.testing.assert_close(got, paged_attention_reference(q, k, v, batch, 0.3), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("min_shared", [1, 10**9])
def test_the_plan_covers_every_visible_key_once(monkeypatch, min_shared):
    monkeypatch.setattr(cascade, "MIN_SHARED_READS", min_shared)
    rng = np.random.default_rng(7)
    for _ in range(20):
        queries, rows = random_queries(rng, 4, 12)
        seen = {row: [] for row in range(rows)}
        for group in plan_cascade(queries, 4):
            for b in range(len(group.rows)):
                keys = (group.pages[b][:, None] * 4 + np.arange(4)).reshape(-1)[group.first : group.last]
                read = {}
                for i, row in enumerate(group.rows[b].tolist()):
                    visible = keys[: i + 1] if group.causal else keys
                    if group.query_positions is not None:
                        at = group.key_offsets[b] + np.arange(len(keys))
                        visible = keys[at <= group.query_positions[b, i]]
                    read[row] = visible.tolist()
                for row, slots in read.items():
                    seen[row] += slots
        for query in queries:
            slots = (query.table[:, None] * 4 + np.arange(4)).reshape(-1)
            for position in range(query.start, query.end):
                assert sorted(seen[query.row + position - query.start]) == sorted(slots[: position + 1].tolist())


def test_sharers_read_the_trunk_in_one_call():
    trunk = np.arange(1, 65, dtype=np.int32)
    queries = [Query(i, 1024 + 5, 1024 + 6, np.append(trunk, 100 + i).astype(np.int32)) for i in range(50)]
    groups = plan_cascade(queries, 16)
    assert [(g.rows.shape, g.diagonal) for g in groups] == [((50, 1), True), ((1, 50), False)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attend_and_merge_equal_the_formula(dtype):
    q, k, v = (
        torch.randn(2, 4, 5, 16).to(dtype),
        torch.randn(2, 2, 9, 16).to(dtype),
        torch.randn(2, 2, 9, 16).to(dtype),
    )
    whole, whole_lse = attend_reference(q, k, v, scale=0.25)
    first = attend(q, k[:, :, :4], v[:, :, :4], scale=0.25)
    second = attend(q, k[:, :, 4:], v[:, :, 4:], scale=0.25)
    out, lse = first[0].float(), first[1].clone()
    merge_states(out, lse, *second)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(out, whole.float(), atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(lse, whole_lse, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("window", [1, 5, 40, 10**6])
def test_windows_and_softcaps_equal_the_reference(window):
    rng = np.random.default_rng(window)
    for page_size in (1, 4, 16):
        queries, rows = random_queries(rng, page_size, 9)
        pages = 1 + max(int(q.table.max()) for q in queries)
        k, v = torch.randn(2, pages, page_size, 2, 8)
        q = torch.randn(rows, 4, 8)
        batch = PagedBatch.build(queries, page_size, dtype=torch.float32, device=CPU, window=window)
        for softcap in (0.0, 2.0):
            got = paged_attention(q, k, v, batch, 0.9, softcap=softcap)
            wanted = paged_attention_reference(q, k, v, batch, 0.9, softcap=softcap)
            torch.testing.assert_close(got, wanted, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("page_size", [1, 4, 16])
@pytest.mark.parametrize("min_shared", [1, 10**9])
def test_a_carried_plan_equals_a_new_one_at_every_step(monkeypatch, page_size, min_shared):
    monkeypatch.setattr(cascade, "MIN_SHARED_READS", min_shared)
    rng = np.random.default_rng(page_size)
    queries, _ = random_queries(rng, page_size, 14)
    fresh = iter(range(1 + max(int(q.table.max()) for q in queries), 10_000))
    tables = [np.append(q.table[:-1], next(fresh)).astype(np.int32) for q in queries]  # every last page is its own
    tables = [tables[i] for i in table_order(tables)]
    positions = np.array([(len(t) - 1) * page_size + int(rng.integers(page_size)) for t in tables])
    k, v = torch.randn(2, 2000, page_size, 2, 8)
    carried = DecodeBatch(tables, positions, page_size, dtype=torch.float32, device=CPU)
    steps = carried.room
    assert steps >= AHEAD * page_size - page_size
    for step in range(steps + 1):
        q = torch.randn(len(tables), 4, 8)
        queries = [Query(r, p, p + 1, t) for r, (p, t) in enumerate(zip(positions.tolist(), tables, strict=True))]
        new = PagedBatch.build(queries, page_size, dtype=torch.float32, device=CPU)
        wanted = paged_attention_reference(q, k, v, new, 0.3)
        torch.testing.assert_close(paged_attention(q, k, v, carried.batch, 0.3), wanted, atol=2e-6, rtol=1e-5)
        slots = [t[p // page_size] * page_size + p % page_size for p, t in zip(positions.tolist(), tables, strict=True)]
        assert carried.slots().tolist() == slots
        if step < steps:
            positions = positions + 1
            begun = {r: next(fresh) for r in np.flatnonzero(positions % page_size == 0).tolist()}
            tables = [np.append(t, np.int32(begun[r])) if r in begun else t for r, t in enumerate(tables)]
            carried.advance(begun)
