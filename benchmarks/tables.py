"""Tables for the benchmarks: the movies reviews where they are at hand, else a synthetic table of the same shape."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

MOVIES = Path(__file__).resolve().parents[2] / "shared" / "data" / "movies_15000x8.parquet"


def movies(rows: int) -> tuple[str, pa.Table]:
    """The name of the source and its first `rows` rows (repeated from the start when there are fewer)."""
    name, table = ("movies", pq.read_table(MOVIES)) if MOVIES.exists() else ("synthetic", synthetic_movies(rows))
    return name, table.take(pa.array([i % table.num_rows for i in range(rows)]))


def synthetic_movies(rows: int, seed: int = 7) -> pa.Table:
    """Reviews in the shape of the movies table: long film descriptions that repeat, short reviews that do not."""
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdefghijklmnoprstuvwy", k=rng.randint(3, 9))) for _ in range(4000)]

    def text(count: int) -> str:
        return " ".join(rng.choices(words, k=count)).capitalize() + "."

    films = [(text(110), text(3), text(2), text(4)) for _ in range(max(1, rows // 40))]
    picked = [films[i * len(films) // rows] for i in range(rows)]
    columns = {
        "reviewcontent": [text(rng.randint(8, 35)) for _ in range(rows)],
        "reviewtype": [rng.choice(["Fresh", "Rotten"]) for _ in range(rows)],
        "topcritic": [rng.choice(["True", "False"]) for _ in range(rows)],
        "rottentomatoeslink": [film[1] for film in picked],
        "movietitle": [film[2] for film in picked],
        "movieinfo": [film[0] for film in picked],
        "genres": [film[3] for film in picked],
        "productioncompany": [film[2] for film in picked],
    }
    return pa.table(columns)


def synthetic_reviews(rows: int, seed: int = 7) -> pa.Table:
    """Five text columns, 160 characters a row: a review of its own, a product per 50 rows, its brand, rating, day."""
    rng = np.random.default_rng(seed)
    words = pa.array(["".join(rng.choice(list("abcdefghijklmnoprstuvwy"), rng.integers(3, 9))) for _ in range(4000)])

    def texts(count: int, length: int) -> pa.Array:
        drawn = [words.take(pa.array(rng.integers(0, len(words), count))) for _ in range(length)]
        return pc.binary_join_element_wise(*drawn, " ")

    products = rng.integers(0, max(1, rows // 50), rows)
    catalogue = {"product": texts(max(1, rows // 50), 10), "brand": texts(max(1, rows // 500), 2)}
    return pa.table(
        {
            "review": texts(rows, 10),
            "product": catalogue["product"].take(pa.array(products)),
            "brand": catalogue["brand"].take(pa.array(products % len(catalogue["brand"]))),
            "rating": pa.array(rng.integers(1, 6, rows)).cast(pa.string()),
            "day": pa.array(rng.integers(0, 2000, rows)).cast(pa.string()),
        }
    )


def short_cells(rows: int, seed: int = 1) -> pa.Table:
    """Five columns of 7 to 16 characters: a key, a city, an amount, a day, a code."""
    rng = np.random.default_rng(seed)

    def drawn(values: list[str]) -> pa.Array:
        return pa.array(values).take(pa.array(rng.integers(0, len(values), rows)))

    return pa.table(
        {
            "id": pa.array([f"k{i:09d}" for i in range(rows)]),
            "city": drawn([f"city {i}" for i in range(5000)]),
            "amount": pa.array(np.round(rng.random(rows) * 10_000, 2)).cast(pa.string()),
            "day": drawn([f"2024-01-{i:05d}" for i in range(3000)]),
            "code": drawn([f"{i:06x}-{i % 97}" for i in range(200_000)]),
        }
    )


def unique_keys(rows: int, seed: int = 3) -> pa.Table:
    """Five columns of seven digits, each value once; the last has a NULL for a tenth of them."""
    rng = np.random.default_rng(seed)
    drawn = [pa.array(rng.permutation(rows) + (i + 1) * 1_000_000).cast(pa.string()) for i in range(5)]
    missing = pa.array(rng.random(rows) < 0.1)
    return pa.table(
        {f"key{i}": pc.if_else(missing, pa.scalar(None, pa.string()), c) if i == 4 else c for i, c in enumerate(drawn)}
    )


def nulls(rows: int) -> pa.Table:
    return pa.table({f"nothing{i}": pa.nulls(rows, pa.string()) for i in range(5)})
