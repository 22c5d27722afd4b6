"""Faults at random points under load, by the benchmark itself: nothing lost, doubled, wrong or left behind."""

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import resilience

pytestmark = pytest.mark.slow


def check(line):
    assert (line["lost"], line["duplicated"], line["wrong"], line["left_behind"]) == (0, 0, 0, 0), line
    assert line["repeated_calls"] <= line["allowed_repeats"], line
    assert line["faults"] > 0 or line["fault"] == "none"


@pytest.mark.parametrize("fault", ["none", "engine_kill", "engine_hang", "worker_kill", "bad_sockets", "soak"])
def test_every_row_is_answered_once_and_hardly_any_asked_twice(fault, tmp_path):
    line = resilience.FAULTS[fault][0](tmp_path / "host", 2000)
    check(line)
    assert line["error_rows"] == 0


def test_a_row_that_ends_the_engine_costs_one_row_of_many(tmp_path):
    line = resilience.one_bad_row(tmp_path / "host", 20_000)
    check(line)
    assert (line["rows"], line["error_rows"]) == (20_000, 1)


@pytest.mark.spark
@pytest.mark.parametrize("fault", ["python_worker_kill", "executor_kill", "log_full"])
def test_sparks_processes_may_die_and_the_logs_disk_may_be_full(fault, tmp_path):
    if fault == "log_full" and subprocess.run(["unshare", "-rm", "true"], check=False, capture_output=True).returncode:
        pytest.skip("this host mounts nothing for its users")
    line = resilience.spark_fault(fault, tmp_path / "host", 1000)
    check(line)
    assert line["error_rows"] == 0
