"""Compiles the Catalyst extension into spark_llm/jars/spark-llm.jar as a step of every build."""

import runpy
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent


class BuildWithJar(build_py):
    def run(self) -> None:
        runpy.run_path(str(ROOT / "spark_llm" / "catalyst" / "build.py"))["build_jar"]()
        super().run()


setup(cmdclass={"build_py": BuildWithJar})
