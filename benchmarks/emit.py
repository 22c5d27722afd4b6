"""What a benchmark found: a line of JSON kept in its results, and shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def emit(line: dict[str, Any], results: Path, *, as_json: bool) -> None:
    """Append the line to `results` and print it, as JSON or one entry a line."""
    results.parent.mkdir(exist_ok=True)
    with results.open("a") as out:
        out.write(json.dumps(line) + "\n")
    width = max(map(len, line))
    print(json.dumps(line) if as_json else "\n".join(f"{k:>{width}}  {v}" for k, v in line.items()), flush=True)
