"""A window's prompts in the order in which they should be asked."""

from __future__ import annotations

from spark_llm.optimizer.arrangement import Blocks
from spark_llm.optimizer.cells import cells
from spark_llm.optimizer.columns import Window
from spark_llm.optimizer.window import plan_window


def lay_out(
    window: Window, *, fixed: bool = False, blocks: Blocks | None = None
) -> tuple[list[int], list[tuple[str, ...]]]:
    """Plan a window and render it.

    Parameters
    ----------
    window : Window
        The encoded rows; its text before the object, where there is some, counts as a pinned first column.
    fixed : bool
        Keep the fields in the order of `window.cells` and plan the rows alone.
    blocks : Blocks, optional
        The cache of the engine that will be asked, in characters.

    Returns
    -------
    rows : list of int
        The window's rows in the planned order.
    segments : list of tuple of str
        The segments of each of them.
    """
    pinned = 0 if window.head is None else 1
    columns = window.cells if window.head is None else (window.head, *window.cells)
    if not columns:
        return list(range(window.rows)), cells(window)
    layout = plan_window(columns, range(len(columns)), len(columns) if fixed else pinned, blocks)
    return layout.rows.tolist(), cells(window, layout.rows, layout.order[:, pinned:] - pinned)
