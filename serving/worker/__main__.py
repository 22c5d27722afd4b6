"""Detaches from the starter, then runs the front: the worker outlives the task that needed it first.

Nothing heavy is imported before the fork.
"""

from __future__ import annotations

import os


def detach() -> None:
    """Continue in an orphaned child in a session of its own, so that the starter never has to reap it."""
    if os.fork():
        os._exit(0)
    os.setsid()


if __name__ == "__main__":
    detach()
    from spark_llm.serving.worker.front import main

    main()
