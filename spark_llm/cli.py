"""The `spark-llm` command."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from subprocess import PIPE

from spark_llm.conf import Settings, conf_markdown
from spark_llm.errors import LlmError
from spark_llm.java import JavaNotUsable, java_command
from spark_llm.progress import CLEAR, Progress
from spark_llm.result_log import command as log_command
from spark_llm.serving.core import EngineFailure
from spark_llm.session import jar_path, settings
from spark_llm.tables import show_tables

ABOUT = """\
The embedded model answers first queries without a download. For real work set spark.llm.model, for example to
Qwen/Qwen3-0.6B on a laptop's CPU, or to Qwen/Qwen3-4B, Qwen/Qwen3-8B, Qwen/Qwen3-32B on a GPU of 16, 24, 80 GB."""
DEMO = ("01_first_query", "02_classify", "03_filter", "04_extract", "05_answer_over_contexts", "08_real_questions")
CHATTER = ("Time taken:", "WARNING: Using incubator modules", "Setting ", "To adjust logging", "Spark master:")
QUIET = {
    "spark.sql.catalogImplementation": "in-memory",
    "spark.sql.cli.print.header": "true",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "ERROR",
    "spark.sql.shuffle.partitions": "4",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="spark-llm", description="LLM calls as SQL functions of Apache Spark.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    commands.add_parser("jar", help="print the path of the extension's JAR")
    commands.add_parser("conf", help="print the table of spark.llm.* settings")
    commands.add_parser("sql", help="run spark-sql, with its arguments, and show progress", add_help=False)
    plan = commands.add_parser("plan", help="show what the LLM calls of SQL statements will take, without asking")
    plan.add_argument("sql", metavar="FILE|SQL", help="a file of statements, or one or more statements")
    plan.add_argument("--conf", action="append", default=[], metavar="KEY=VALUE", help="a Spark setting")
    demo = commands.add_parser("demo", help="run the examples on the embedded model")
    demo.add_argument("--examples", type=Path, default=Path("sql_examples"), help="folder of the example files")
    log_command.add_arguments(commands.add_parser("log", help="show, compact or expire a result log"))
    commands.add_parser("stop", help="end this host's engine worker")
    top = commands.add_parser("top", help="show what this host's engine workers are doing")
    top.add_argument("--dir", default="", help="the workers' folder, where spark.llm.worker.dir is set")
    top.add_argument("--once", action="store_true", help="print one table and end")
    top.add_argument("--json", action="store_true", help="print the counters as JSON, one line per worker")
    top.add_argument("--interval", type=float, default=1.0, metavar="SECONDS", help="pause between two tables")
    given, rest = parser.parse_known_args(arguments)
    if rest and given.command != "sql":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    given.rest = rest
    try:
        return _COMMANDS[given.command](given)
    except (JavaNotUsable, EngineFailure, LlmError) as failure:
        print(failure, file=sys.stderr)
        return 1


def _jar(_: argparse.Namespace) -> int:
    print(jar_path())
    return 0


def _conf(_: argparse.Namespace) -> int:
    print("# Configuration\n\nMade by `make docs` from `spark_llm/conf.json`.\n")
    print(conf_markdown())
    return 0


def _sql(given: argparse.Namespace) -> int:
    return run_spark_sql(given.rest)


def _plan(given: argparse.Namespace) -> int:
    from pyspark.errors import PySparkException

    from spark_llm.plan_statements import plan_statements

    text = Path(given.sql).read_text() if given.sql.endswith(".sql") or Path(given.sql).is_file() else given.sql
    conf = {"spark.master": "local[*]", **QUIET, **dict(pair.partition("=")[::2] for pair in given.conf)}
    try:
        for explained in plan_statements(text, conf):
            print(explained, flush=True)
    except PySparkException as problem:
        print(f"spark-llm: {problem.getMessage() or problem}", file=sys.stderr)
        return 1
    return 0


def _demo(given: argparse.Namespace) -> int:
    java_command()
    files = [given.examples / f"{name}.sql" for name in DEMO]
    missing = [str(file) for file in files if not file.exists()]
    if missing:
        print(
            f"spark-llm: no example {', '.join(missing)}; run it in the repository, or give --examples", file=sys.stderr
        )
        return 1
    print(ABOUT, flush=True)
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write("".join(f"!echo == {file};\nsource {file};\n" for file in files))
        script.flush()
        return run_spark_sql(["-S", "-f", script.name], show=show_tables)


def _stop(_: argparse.Namespace) -> int:
    from spark_llm.executor.connect import worker_conf
    from spark_llm.serving.worker.ensure import act, find
    from spark_llm.serving.worker.rendezvous import Rendezvous, worker_folder, worker_key

    conf = worker_conf(Settings({}))
    endpoint = find(Rendezvous(worker_folder(conf.dir), worker_key(conf.gpus)))
    if endpoint is None:
        print("spark-llm: no engine worker runs on this host")
        return 0
    act(endpoint, "shutdown")
    print(f"spark-llm: ended the engine worker (process {endpoint.pid})")
    return 0


def _top(given: argparse.Namespace) -> int:
    from spark_llm.top import run_top

    return run_top(given.dir, once=given.once, as_json=given.json, interval=given.interval)


def run_spark_sql(arguments: Sequence[str], show: Callable[[Iterable[str]], None] | None = None) -> int:
    """Run spark-sql with the extension, and show progress on the terminal meanwhile.

    `show` receives the lines that spark-sql prints; without it they go to standard output as they are.
    """
    from spark_llm.executor.connect import worker_conf

    java_command()
    spec = find_spec("pyspark")
    assert spec is not None
    assert spec.origin is not None
    home = Path(spec.origin).parent
    conf = {"spark.master": "local[*]", **QUIET, **settings()}
    options = [part for key, value in conf.items() for part in ("--conf", f"{key}={value}")]
    logging = f"-Dlog4j2.configurationFile={Path(__file__).with_name('log4j2.properties')}"
    environment = {"SPARK_HOME": str(home), "SPARK_LOCAL_IP": "127.0.0.1", **os.environ}
    command = [str(home / "bin" / "spark-sql"), "--driver-java-options", logging, *options, *arguments]
    with Progress(worker_conf(Settings({}))):
        if show is None:
            return subprocess.run(command, env=environment, check=False).returncode
        with subprocess.Popen(command, env=environment, stdout=PIPE, stderr=PIPE, text=True) as running:
            assert running.stdout is not None
            assert running.stderr is not None
            threading.Thread(target=_pass_on, args=(running.stderr,), daemon=True).start()
            show(running.stdout)
        return running.returncode


def _pass_on(lines: Iterable[str]) -> None:
    """Messages and reports, without Spark's chatter."""
    for line in lines:
        if not line.startswith(CHATTER):
            sys.stderr.write(CLEAR + line if sys.stderr.isatty() else line)
            sys.stderr.flush()


_COMMANDS = {
    "jar": _jar,
    "conf": _conf,
    "sql": _sql,
    "plan": _plan,
    "demo": _demo,
    "log": log_command.run,
    "stop": _stop,
    "top": _top,
}
