"""Finds the Java that Spark will use. Standard library alone: the build runs it before anything is installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

OLDEST = 17
REMEDY = "install a JDK 17 or 21 (for example: apt install openjdk-17-jdk-headless) or set JAVA_HOME"


class JavaNotUsable(RuntimeError):
    """No Java, or one that Spark 4 cannot run on; the message is one line with the remedy."""


def java_command() -> str:
    """The path of a usable `java`: `$JAVA_HOME/bin/java`, else the one on the PATH.

    Raises
    ------
    JavaNotUsable
        When there is none or its version is below 17.
    """
    home = os.environ.get("JAVA_HOME")
    found = shutil.which(str(Path(home) / "bin" / "java")) if home else shutil.which("java")
    if found is None:
        where = f"in JAVA_HOME={home}" if home else "on the PATH"
        msg = f"spark-llm: no Java {where}; {REMEDY}"
        raise JavaNotUsable(msg)
    version = _major_version(found)
    if version < OLDEST:
        msg = f"spark-llm: Java {OLDEST} or newer is needed, {found} is Java {version}; {REMEDY}"
        raise JavaNotUsable(msg)
    return found


def _major_version(java: str) -> int:
    printed = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    match = re.search(r'version "(?:1\.)?(\d+)', printed)
    return int(match[1]) if match else 0


def main() -> None:
    """Exit with the one-line message when there is no usable Java."""
    try:
        java_command()
    except JavaNotUsable as error:
        raise SystemExit(str(error)) from None
