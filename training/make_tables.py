"""Write the tables of `sql_examples/data`: `python -m training.make_tables`. The same seed writes the same rows."""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from training import words
from training.kinds import aspects_of, describe, open_review, profile, ticket
from training.opinions import Subject, review
from training.rows import Row
from training.texts import questions_about

DATA = Path("sql_examples/data")
SEED = 7
PRODUCTS, REVIEWS, TICKETS, COMPANIES = 150, 3000, 1000, 60


@dataclass(frozen=True, slots=True)
class Product:
    """A product of the shop; `kids` is whether its description says that it suits children."""

    number: int
    name: str
    thing: str
    category: str
    kids: bool | None
    description: str
    price: float


def make_product(rng: random.Random, number: int) -> Product:
    """An invented product with a description of two or three sentences."""
    category = rng.choice(sorted(words.PRODUCTS))
    thing = rng.choice(words.PRODUCTS[category])
    kids = rng.choice((None, True, False))
    name = f"{words.invented_name(rng, held_out=False)} {thing}"
    return Product(
        number, name, thing, category, kids, describe(rng, thing, False, kids)[0], round(rng.uniform(5, 400), 2)
    )


def reviews_table(rng: random.Random, products: Sequence[Product]) -> pa.Table:
    """Reviews of the products, popular ones more often, in order of their date."""
    popularity = [1 / (rank + 3) for rank in range(len(products))]
    days = sorted(rng.randrange(730) for _ in range(REVIEWS))
    rows = []
    for number, (day, about) in enumerate(zip(days, rng.choices(products, popularity, k=REVIEWS), strict=True), 1):
        text, facts, _ = review(rng, Subject("product", about.thing, aspects_of(about.category)), False, None)
        rows.append(
            {
                "review_id": number,
                "product_id": about.number,
                "product": about.name,
                "category": about.category,
                "review": open_review(rng, about.name, text, held_out=False),
                "stars": facts["stars"],
                "posted": date(2023, 1, 1) + timedelta(days=day),
            }
        )
    return _table(rows, review_id=pa.int32(), product_id=pa.int32(), stars=pa.int32())


def products_table(products: Sequence[Product]) -> pa.Table:
    """The shop's products."""
    columns = ("product_id", "product", "category", "description", "price")
    rows = [dict(zip(columns, (p.number, p.name, p.category, p.description, p.price), strict=True)) for p in products]
    return _table(rows, product_id=pa.int32())


def tickets_table(rng: random.Random) -> pa.Table:
    """Messages to the shop's support team."""
    drawn: list[Row] = [ticket(rng, held_out=False) for _ in range(TICKETS)]
    return _table([{"ticket_id": i, **row.fields} for i, row in enumerate(drawn, 1)], ticket_id=pa.int32())


def _table(rows: Sequence[dict[str, object]], **types: pa.DataType) -> pa.Table:
    table = pa.Table.from_pylist(list(rows))
    for name, wanted in types.items():
        at = table.schema.get_field_index(name)
        table = table.set_column(at, name, table[name].cast(wanted))
    return table


def questions_table(rng: random.Random) -> pa.Table:
    """Questions about companies with four texts each, one of which answers, and the answer.

    The questions about a company show the same texts, each time in another order, as a retriever might give them.
    """
    companies = [profile(rng, held_out=False) for _ in range(COMPANIES)]
    rows = []
    for about in companies:
        others = rng.sample([company for company in companies if company is not about], 3)
        texts = [str(row.fields["context"]) for row in (about, *others)]
        for question, answer in questions_about(rng, about):
            rows.append({"question": question, "contexts": rng.sample(texts, len(texts)), "answer": answer})
    rng.shuffle(rows)
    return _table([{"question_id": i, **row} for i, row in enumerate(rows, 1)], question_id=pa.int32())


def make_tables(seed: int) -> dict[str, pa.Table]:
    """All tables by their names."""
    rng = random.Random(seed)
    products = [make_product(rng, number) for number in range(1, PRODUCTS + 1)]
    return {
        "products": products_table(products),
        "reviews": reviews_table(rng, products),
        "tickets": tickets_table(rng),
        "questions": questions_table(rng),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=SEED)
    args = parser.parse_args()
    DATA.mkdir(parents=True, exist_ok=True)
    for name, table in make_tables(args.seed).items():
        pq.write_table(table, DATA / f"{name}.parquet", compression="zstd")


if __name__ == "__main__":
    main()
