"""Pages made from code are fresh, links lead somewhere, tables are well formed, examples in docstrings run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest
from spark_llm.optimizer.core import function_table

import spark_llm
from spark_llm import cli
from spark_llm.conf import Settings, conf_table
from spark_llm.errors import LlmError, error_conditions
from spark_llm.executor.connect import worker_conf

ROOT = Path(__file__).resolve().parent.parent


def test_configuration_page_is_fresh(capsys):
    assert cli.main(["conf"]) == 0
    assert capsys.readouterr().out == (ROOT / "docs" / "configuration.md").read_text(), "run `make docs`"


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_conditions_are_sorted_sentences():
    for condition, row in error_conditions().items():
        assert re.fullmatch(r"LLM_[A-Z0-9_]+", condition)
        assert set(row) == {"message", "remedy"}
        assert row["message"].endswith("."), condition


class ReadSettings(Settings):
    """Notes which settings were read."""

    def __init__(self):
        super().__init__({})
        self.read = set()

    def text(self, name):
        self.read.add(name)
        return super().text(name)


def test_settings_have_a_default_that_parses_and_a_reader():
    settings, worker = Settings({}), ReadSettings()
    worker_conf(worker)  # reads the settings of the worker by the names of its own
    sources = [
        file.read_text()
        for folder in ("spark_llm", "serving", "optimizer")
        for file in (ROOT / folder).rglob("*")
        if file.suffix in (".py", ".scala")
    ]
    for key, row in conf_table().items():
        assert settings.text(key.removeprefix("spark.llm.")) == str(row["default"])
        name = key.removeprefix("spark.llm.")
        rewrite = name.removeprefix("optimize.").removesuffix(".enabled")  # LlmConf.optimizes(rewrite)
        marks = (f'"{name}"', f'"{key}"', f'optimizes("{rewrite}")')
        assert name in worker.read or any(mark in text for text in sources for mark in marks), f"nothing reads {key}"


def test_every_ready_made_configuration_is_known():
    for file in (ROOT / "conf").glob("*.conf"):
        lines = [line.split(None, 1) for line in file.read_text().splitlines() if line and not line.startswith("#")]
        Settings({key: value.strip() for key, value in lines})


def test_functions_name_known_options():
    table = function_table()
    for function in table["functions"].values():
        assert set(function["options"]) <= set(table["options"])


def test_errors_fill_their_template():
    text = str(LlmError("LLM_UNKNOWN_OPTION", function="llm", option="x", accepted="a, b"))
    assert text.startswith("[LLM_UNKNOWN_OPTION] llm() has no option 'x'; accepted: a, b.\n\n")


def library_modules() -> list[str]:
    folders = [str(ROOT / name) for name in ("optimizer", "serving", "kernels")]
    names = [m.name for m in pkgutil.walk_packages(spark_llm.__path__, "spark_llm.")]
    for folder in folders:
        names += [m.name for m in pkgutil.walk_packages([folder], f"spark_llm.{Path(folder).name}.")]
    skipped = ("__main__", "replica", "engines.vllm", "engines.vllm_scheduler", ".ensure", ".serve")
    return sorted({n for n in names if not n.endswith(skipped)})


@pytest.mark.parametrize("name", library_modules())
def test_docstring_examples(name):
    module = importlib.import_module(name)
    assert doctest.testmod(module, optionflags=doctest.ELLIPSIS).failed == 0
    assert module.__doc__, f"{name} does not say what it is for"
