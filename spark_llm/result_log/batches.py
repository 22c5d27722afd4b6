"""Batches of answers as Parquet files."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

SCHEMA = pa.schema([("identity", pa.binary()), ("answer", pa.string()), ("written", pa.int64())])
"""`identity`: 32 bytes. `answer`: the model's text. `written`: seconds since 1970."""

ROW_GROUP = 1 << 17
"""Answers that a task of Spark reads at least; a compacted file is read by several."""


def make_batch(rows: Sequence[tuple[bytes, str]], written: float) -> pa.Table:
    """Answers with their identities as a table of `SCHEMA`."""
    identities, answers = zip(*rows, strict=True)
    columns = [pa.array(identities, pa.binary()), pa.array(answers, pa.string())]
    return pa.Table.from_arrays([*columns, pa.repeat(pa.scalar(int(written), pa.int64()), len(rows))], schema=SCHEMA)


def to_bytes(table: pa.Table, call: str) -> pa.Buffer:
    """A table of `SCHEMA` as a Parquet file; `call` says in words what was asked, for `spark-llm log`."""
    out = pa.BufferOutputStream()
    described = table.replace_schema_metadata({"spark_llm.call": call})
    pq.write_table(
        described,
        out,
        row_group_size=ROW_GROUP,
        compression="zstd",
        use_dictionary=["answer"],
        write_statistics=["written"],
        store_schema=False,
        write_page_checksum=True,
    )
    return out.getvalue()


def read_batch(system: fs.FileSystem, path: str, columns: Sequence[str] | None = None) -> pa.Table:
    """The table of a file.

    Raises
    ------
    OSError, ArrowException
        The file is gone or torn.
    """
    with system.open_input_file(path) as stream, pq.ParquetFile(stream, page_checksum_verification=True) as file:
        return file.read(columns)


def described(system: fs.FileSystem, path: str) -> str:
    """What the answers of a file were asked, as `to_bytes` was told."""
    with system.open_input_file(path) as stream, pq.ParquetFile(stream) as file:
        return (file.metadata.metadata or {}).get(b"spark_llm.call", b"").decode()
