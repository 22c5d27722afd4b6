"""The resident planner of a session, `python -m spark_llm.planner`: the optimizer's, knowing this host's engines.

Besides the methods of `optimizer/serve.py`, where the result log lies, and what a finished query measured:

    {"method": "log", "params": {"calls": [CallSpec, ...]}}
    {"result": {"calls": [{"folder": "…", "base": "…", "fields": [0, 1], "unordered": []}, {"unseen": "why not"}]}}
    {"method": "record", "params": {"calls": [CallSpec, ...], "measured": {"calls": 9, "prompt": 800, ...}}}
"""

from __future__ import annotations

import json
from typing import Any

from spark_llm.conf import Settings
from spark_llm.errors import LlmError
from spark_llm.optimizer.core import CallSpec
from spark_llm.optimizer.identity import IdentityRule
from spark_llm.optimizer.prompts import prepare
from spark_llm.optimizer.serve import main, standard_methods
from spark_llm.planning import profile, record
from spark_llm.result_log.call import locate
from spark_llm.result_log.files import open_log


def log(params: dict[str, Any]) -> dict[str, Any]:
    """Where the answers of calls lie and how identities are computed; what is not allowed is `refused`."""
    specs = [CallSpec.from_json(json.dumps({**raw, "plan": None})) for raw in params["calls"]]
    try:
        for path in {Settings(spec.conf).text("resultLog.path") for spec in specs}:
            open_log(path)
        return {"calls": [locate(spec, IdentityRule.of(prepare(spec))) for spec in specs]}
    except LlmError as error:
        return {"refused": str(error)}


if __name__ == "__main__":
    main({"log": log, "record": record, **standard_methods(profile)})
