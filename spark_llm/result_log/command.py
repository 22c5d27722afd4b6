"""`spark-llm log`: what a result log holds, and its upkeep."""

from __future__ import annotations

import argparse
import re
import time

from spark_llm.result_log.files import open_log
from spark_llm.result_log.upkeep import CallSummary, compact, expire, summarize

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", help="the log: spark.llm.resultLog.path")
    parser.add_argument("--expire", metavar="AGE", type=_age, help="remove answers older than e.g. 30d, 12h, 10m")
    parser.add_argument(
        "--compact", action="store_true", help="merge small files, drop repeated answers and torn files"
    )


def _age(text: str) -> float:
    """Seconds of e.g. `30d`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if found is None:
        msg = f"'{text}' is no age; write e.g. 30d, 12h, 10m"
        raise argparse.ArgumentTypeError(msg)
    return float(found[1]) * SECONDS[found[2]]


def run(given: argparse.Namespace) -> int:
    """Expire, compact, and show what is left; returns the exit status."""
    system, root = open_log(given.path)
    if given.expire is not None:
        print(f"removed {expire(system, root, given.expire)} answers")
    if given.compact:
        before, after = compact(system, root)
        print(f"{before} files became {after}")
    calls = summarize(system, root)
    print(f"{'call':34}{'answers':>10}{'files':>8}{'torn':>6}{'MiB':>9}{'hits':>10}  {'written':23}  asked")
    for call in calls:
        print(_line(call))
    print(
        f"{len(calls)} calls, {sum(c.answers for c in calls)} answers, {sum(c.size for c in calls) / 2**20:.1f} MiB, "
        f"{sum(c.hits for c in calls)} hits"
    )
    return 0


def _line(call: CallSummary) -> str:
    days = " to ".join(time.strftime("%Y-%m-%d", time.gmtime(t)) for t in (call.first, call.last)) if call.files else ""
    numbers = f"{call.answers:>10}{call.files:>8}{call.torn:>6}{call.size / 2**20:>9.1f}{call.hits:>10}"
    return f"{call.folder:34}{numbers}  {days:23}  {call.asked}"
