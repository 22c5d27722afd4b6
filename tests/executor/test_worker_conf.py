"""The worker's settings: one list, whoever starts the worker."""

import re
from dataclasses import asdict, fields

from spark_llm.serving.worker.ensure import read_options
from spark_llm.serving.worker.rendezvous import WorkerConf

from spark_llm.conf import Settings, conf_table
from spark_llm.executor.connect import worker_conf

PREFIX = "spark.llm.worker."
KEYS = [key for key in conf_table() if key.startswith(PREFIX) and key != f"{PREFIX}eager"]
OPTIONS = {key: re.sub("([A-Z])", r"-\1", key.removeprefix(PREFIX)).lower() for key in KEYS}
KINDS = {field.name: str(field.type) for field in fields(WorkerConf)}
OTHERS = {"float": "7.5", "int": "7", "bool": "true", "str": "/tmp/elsewhere"}


def test_every_setting_of_the_worker_reaches_it_from_a_task_and_from_the_plugin():
    given = {key: OTHERS[KINDS[option.replace("-", "_")]] for key, option in OPTIONS.items()}
    of_task = worker_conf(Settings(given))
    of_plugin, _ = read_options([f"--{OPTIONS[key]}={value}" for key, value in given.items()])
    unset = WorkerConf()
    for name in KINDS.keys() - {"python", "gpus"}:
        assert getattr(of_task, name) == getattr(of_plugin, name) != getattr(unset, name)
    assert len(KEYS) == len(KINDS) - 2


def test_defaults_are_those_of_the_table():
    assert asdict(worker_conf(Settings({}))) | {"python": ""} == asdict(WorkerConf())
