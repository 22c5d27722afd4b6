"""What must hold of the code itself: nothing pickled is read, secrets are not shown, models can be restricted."""

import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from spark_llm.conf import Settings, conf_table
from spark_llm.errors import LlmError, is_secret_name, redact

ROOT = Path(__file__).resolve().parent.parent
SECRET = "hunter2hunter2hunter2"


def test_worker_and_engines_read_no_pickles_and_run_no_code():
    forbidden = re.compile(r"\b(pickle|cloudpickle|marshal|shelve|torch\.load|__reduce__)\b|(?<!\.)\b(eval|exec)\(")
    for file in sorted((ROOT / "serving").rglob("*.py")):
        code = re.sub(r'""".*?"""|#[^\n]*', "", file.read_text(), flags=re.DOTALL)
        found = [line for line in code.splitlines() if forbidden.search(line)]
        assert not found, f"{file.name}: {found}"


@pytest.mark.parametrize(
    "text",
    [
        f'{{"api_key": "{SECRET}"}}',
        f"{{'hf_token': '{SECRET}'}}",
        f"password={SECRET}",
        f"Authorization: Bearer {SECRET}",
        f"https://me:{SECRET}@host/path",
        f"openai.api-key = {SECRET}",
        f"the key sk-{SECRET} is wrong",
    ],
)
def test_secrets_are_not_shown_in_errors(text):
    assert SECRET not in redact(text)
    assert SECRET not in str(LlmError("LLM_BAD_CONF", key="k", value=text, detail=text))
    assert SECRET not in str(LlmError.of("LLM_ENGINE_START", text, text))


@pytest.mark.parametrize(
    "text",
    ['{"kv_tokens": 4096, "max_batch_tokens": 2048}', "prompt of 12 tokens exceeds 8", "max_tokens => 5", "token: "],
)
def test_what_is_no_secret_stays(text):
    assert redact(text) == text


def test_settings_take_the_place_of_a_secret_but_no_secret():
    assert [is_secret_name(name) for name in ("api_key", "hf_token", "api_key_file", "kv_tokens")] == [
        True,
        True,
        False,
        False,
    ]
    with pytest.raises(LlmError, match="keep it in a file") as caught:
        Settings({"spark.llm.engine.args": f'{{"api_key": "{SECRET}"}}'}).model()
    assert SECRET not in str(caught.value)


@pytest.fixture
def models(tmp_path):
    (tmp_path / "allowed" / "one").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "allowed" / "link").symlink_to(tmp_path / "other")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "accepted"),
    [
        ("default", True),
        ("{}/allowed/one", True),
        ("Qwen/Qwen3-0.6B", True),
        ("{}/other", False),
        ("{}/allowed/../other", False),
        ("{}/allowed/link", False),
        ("Other/model", False),
        ("../..", False),
        ("~/model", False),
    ],
)
def test_models_can_be_restricted_to_folders_and_hub_names(models, name, accepted):
    settings = Settings({"spark.llm.models.allowed": f"{models}/allowed, Qwen/*"})
    if accepted:
        assert settings.model(name.format(models)).name == name.format(models)
    else:
        with pytest.raises(LlmError, match="LLM_NOT_ALLOWED"):
            settings.model(name.format(models))


def test_key_files_can_be_restricted_to_folders(models):
    conf = {"spark.llm.engine": "endpoint", "spark.llm.files.allowed": str(models / "allowed")}
    Settings({**conf, "spark.llm.endpoint.keyFile": str(models / "allowed" / "key")}).model()
    with pytest.raises(LlmError, match="LLM_NOT_ALLOWED"):
        Settings({**conf, "spark.llm.endpoint.keyFile": str(models / "allowed" / "link" / "key")}).model()


def test_every_model_is_allowed_by_default(models):
    assert Settings({}).model(str(models / "other")).name == str(models / "other")


def test_the_docs_name_every_setting_that_guards():
    page = (ROOT / "docs" / "security.md").read_text()
    for key in ("models.allowed", "sealed", "cache.isolation", "worker.logPrompts", "limit.rows", "worker.queueBytes"):
        assert f"spark.llm.{key}" in page


def test_the_shared_configuration_seals_all_that_reaches_beyond_a_query():
    """Programs, folders, addresses, engine settings, limits and budgets, whatever settings are added."""
    lines = (ROOT / "conf" / "shared.conf").read_text().splitlines()
    [sealed] = [line.split(maxsplit=1)[1] for line in lines if line.startswith("spark.llm.sealed")]
    always = ["spark.llm.sealed", "spark.llm.*.allowed"]
    patterns = [*always, *(pattern.strip() for pattern in sealed.split(","))]
    reaching = re.compile(r"python|path|url|dir|key|args|limit|budget|price|worker|allowed|sealed|isolation|placement")
    open_keys = [
        key
        for key in conf_table()
        if reaching.search(key.removeprefix("spark.llm.").lower())
        and not any(fnmatchcase(key, pattern) for pattern in patterns)
    ]
    assert open_keys == ["spark.llm.optimize.limits.enabled"]


@pytest.mark.spark
def test_sealed_settings_keep_the_applications_value(spark, spark_root):
    conf = spark_root.sparkContext._jsc.sc().conf()
    conf.set("spark.llm.sealed", "spark.llm.limit.*, spark.llm.worker.dir").set("spark.llm.limit.rows", "3")
    try:
        text = "SELECT llm('Q', id) FROM range(2)"
        with pytest.raises(Exception, match=r"LLM_LIMIT_EXCEEDED[\s\S]*spark\.llm\.limit\.rows = 3"):
            spark.sql("SELECT llm('Q', id) FROM range(50)").collect()
        assert len(spark.sql(text).collect()) == 2
        changes = {"limit.rows": "1000", "sealed": "", "models.allowed": "/models", "worker.dir": "/tmp/x"}
        for key, value in changes.items():
            spark.conf.set(f"spark.llm.{key}", value)
            with pytest.raises(Exception, match=rf"LLM_SEALED_CONF\] spark\.llm\.{key}"):
                spark.sql(text).collect()
            spark.conf.unset(f"spark.llm.{key}")
        assert len(spark.sql(text).collect()) == 2
    finally:
        conf.remove("spark.llm.sealed")
        conf.remove("spark.llm.limit.rows")


@pytest.mark.spark
def test_plans_do_not_show_what_a_setting_holds(spark):
    spark.conf.set("spark.llm.engine.args", f'{{"calls_dir": "", "note": "{SECRET}"}}')
    plan = spark.sql("SELECT llm('Q', id) FROM range(2)")
    assert SECRET not in plan._jdf.queryExecution().toString()
    assert SECRET not in spark.sql("EXPLAIN EXTENDED SELECT llm('Q', id) FROM range(2)").collect()[0][0]
