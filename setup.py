"""Compiles the Catalyst extension into spark_llm/jars/spark-llm.jar, and the CPU kernels, as a step of every build."""

import runpy
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent


class BuildWithBinaries(build_py):
    def run(self) -> None:
        runpy.run_path(str(ROOT / "spark_llm" / "catalyst" / "build.py"))["build_jar"]()
        runpy.run_path(str(ROOT / "kernels" / "cpu" / "build.py"))["build_library"]()
        super().run()


setup(cmdclass={"build_py": BuildWithBinaries})
