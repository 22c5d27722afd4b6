"""Feeds recorded requests to an engine in this process and prints what it took: the floor of the end-to-end figure.

Runs with the engine's own Python. Input: a JSON file {"model": ModelRef, "call": Call, "requests": [segments, ...]}.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from spark_llm.serving.core import Call, ModelRef, Request
from spark_llm.serving.engines import create_engine


def main(path: str) -> None:
    recorded = json.loads(Path(path).read_text())
    engine = create_engine(ModelRef(**recorded["model"]))
    call = Call.from_dict(recorded["call"])
    engine.submit([Request(-1, call, ("warm up\n",))])
    while engine.has_work():
        engine.step()
    requests = [Request(i, call, tuple(segments)) for i, segments in enumerate(recorded["requests"])]
    begin, finished = time.perf_counter(), []
    engine.submit(requests)
    while engine.has_work():
        finished += engine.step()
    seconds = time.perf_counter() - begin
    usage = [f.usage for f in finished]
    totals = {name: sum(getattr(u, name) for u in usage) for name in ("prompt", "cached", "output")}
    errors = sum(f.error is not None for f in finished)
    print(json.dumps({"engine_s": seconds, "rows": len(finished), "errors": errors, **totals}))
    engine.close()


if __name__ == "__main__":
    main(sys.argv[1])
