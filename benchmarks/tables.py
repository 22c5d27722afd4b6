"""Tables for the benchmarks: the movies reviews where they are at hand, else a synthetic table of the same shape."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
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
