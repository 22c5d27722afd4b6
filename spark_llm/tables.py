"""Shows what spark-sql prints as tables that fit the terminal."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence

HEADING = "== "
NO_ROWS = "Response code"
"""What spark-sql prints for a statement without rows, when it prints headers."""


def show_tables(lines: Iterable[str]) -> None:
    """Print blocks of tab-separated lines as aligned tables; a line that begins with `== ` is a heading of its own.

    Under a heading stands one statement's table; a row of fewer cells than its first goes on in the next line.
    """
    block: list[list[str]] = []
    for line in (line.rstrip("\r\n") for line in lines):
        if line.startswith(HEADING):
            _show(block)
            block = []
            print(f"\n{line}", flush=True)
        elif line.strip() and line.strip() != NO_ROWS:
            cells = line.split("\t")
            if block and len(block[-1]) < len(block[0]):  # a line break inside of a cell
                first, *others = cells
                block[-1] = [*block[-1][:-1], f"{block[-1][-1]} {first}", *others]
            else:
                block.append(cells)
    _show(block)


def _show(block: Sequence[Sequence[str]]) -> None:
    if block:
        print(format_table(block, shutil.get_terminal_size((120, 24)).columns), flush=True)


def format_table(rows: Sequence[Sequence[str]], width: int) -> str:
    """Rows as an aligned table with a rule under the first; long cells are cut so that a line takes at most `width`.

    Examples
    --------
    >>> print(format_table([["id", "answer"], ["1", "a long answer"]], 14))
    id  answer
    --  ----------
    1   a long an…
    """
    columns = max(map(len, rows))
    padded = [[*row, *[""] * (columns - len(row))] for row in rows]
    widths = _fit([max(len(row[c]) for row in padded) for c in range(columns)], width - 2 * (columns - 1))
    lines = ["  ".join(_cut(cell, w).ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in padded]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])


def _fit(wanted: Sequence[int], width: int) -> list[int]:
    """Widths that sum to at most `width`: the widest columns give way first."""
    limit = max(wanted)
    while limit > 1 and sum(min(w, limit) for w in wanted) > width:
        limit -= 1
    return [min(w, limit) for w in wanted]


def _cut(cell: str, width: int) -> str:
    return cell if len(cell) <= width else cell[: width - 1] + "…"
