"""Compiles the Scala sources into one JAR with the scala-compiler that the pyspark wheel bundles.

Runs before the package is importable (from setup.py), so it uses the standard library alone.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
JAR = HERE.parent / "jars" / "spark-llm.jar"
SHARED_TABLES = [
    ROOT / "optimizer" / "functions.json",
    HERE.parent / "conf.json",
    HERE.parent / "error-conditions.json",
]


def inputs() -> list[Path]:
    """Everything the JAR is made of."""
    resources = [p for p in (HERE / "resources").rglob("*") if p.is_file()]
    return [*sorted((HERE / "src").rglob("*.scala")), *sorted(resources), *SHARED_TABLES, Path(__file__).resolve()]


def is_fresh() -> bool:
    """Whether the JAR is newer than all its inputs."""
    return JAR.exists() and all(p.stat().st_mtime <= JAR.stat().st_mtime for p in inputs())


def java_command() -> str:
    """The `java` that Spark itself would use."""
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    if not java or not Path(java).exists():
        sys.exit(
            "spark-llm: no Java found; install a JDK 17 or 21 "
            "(e.g. apt install openjdk-17-jdk-headless) or set JAVA_HOME"
        )
    return java


def spark_jars() -> Path:
    """The folder of JARs inside the installed pyspark."""
    spec = importlib.util.find_spec("pyspark")
    if spec is None or spec.origin is None:
        sys.exit(
            "spark-llm: the build needs pyspark 4.0 to 4.3 for its Scala compiler; pip install 'pyspark>=4.0,<4.4'"
        )
    return Path(spec.origin).parent / "jars"


def build_jar(*, force: bool = False) -> Path:
    """Compile, unless the JAR is fresh, and return its path."""
    if is_fresh() and not force:
        return JAR
    jars = spark_jars()
    classpath = os.pathsep.join(str(p) for p in sorted(jars.glob("*.jar")))
    JAR.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as classes:
        sources = [str(p) for p in inputs() if p.suffix == ".scala"]
        command = [java_command(), "-cp", f"{jars}/*", "scala.tools.nsc.Main", "-classpath", classpath]
        flags = ["-release", "17", "-deprecation", "-Xlint:-byname-implicit,_", "-d", classes]
        done = subprocess.run([*command, *flags, *sources], check=False)
        if done.returncode != 0:
            sys.exit("spark-llm: the Scala sources did not compile (messages above)")
        _pack(Path(classes))
    return JAR


def _pack(classes: Path) -> None:
    part = JAR.with_suffix(".part")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as jar:
        for root in (classes, HERE / "resources"):
            for file in sorted(p for p in root.rglob("*") if p.is_file()):
                jar.write(file, file.relative_to(root).as_posix())
        for table in SHARED_TABLES:
            jar.write(table, f"spark_llm/{table.name}")
    part.replace(JAR)


if __name__ == "__main__":
    print(build_jar(force="--force" in sys.argv))
