"""The wheel holds the JAR and our packages under one name; entry points say what is wrong with Java."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CLI = Path(sys.executable).with_name("spark-llm")


@pytest.mark.slow
def test_wheel(tmp_path):
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
        str(ROOT),
    ]
    subprocess.run(command, check=True, timeout=300)
    [wheel] = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert [n for n in names if n.endswith(".jar")] == ["spark_llm/jars/spark-llm.jar"]
    assert {n.split("/")[0] for n in names} == {"spark_llm", f"{wheel.name.split('-py3')[0]}.dist-info"}
    for needed in (
        "optimizer/functions.json",
        "conf.json",
        "error-conditions.json",
        "default_model/config.json",
        "py.typed",
    ):
        assert f"spark_llm/{needed}" in names
    assert not [n for n in names if n.endswith(".scala")]


@pytest.mark.parametrize("command", [["sql", "-e", "SELECT 1"], ["demo"]])
def test_no_java_is_one_line(command, tmp_path):
    environment = {**os.environ, "JAVA_HOME": str(tmp_path)}
    done = subprocess.run(
        [str(CLI), *command], env=environment, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "install a JDK 17 or 21" in done.stderr


def test_old_java_is_named(tmp_path):
    fake = tmp_path / "bin" / "java"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho 'openjdk version \"1.8.0_292\"' >&2\n")
    fake.chmod(0o755)
    done = subprocess.run(
        [str(CLI), "sql"], env={**os.environ, "JAVA_HOME": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert "is Java 8" in done.stderr


def test_configure_needs_java(monkeypatch, tmp_path):
    from pyspark.sql import SparkSession

    import spark_llm
    from spark_llm.java import JavaNotUsable

    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(JavaNotUsable, match="no Java in JAVA_HOME"):
        spark_llm.configure(SparkSession.builder)
