"""The endpoint engine against servers on loopback that behave, and that do not."""

import json
import os
import threading
import time

import pytest
from spark_llm.serving.core import Call, ClientRef, Constraint, ModelRef, Request
from spark_llm.serving.endpoint.answer import UnusableAnswer, conform, read_usage
from spark_llm.serving.endpoint.dialect import Dialect
from spark_llm.serving.endpoint.limits import HostRate, HostSlots
from spark_llm.serving.endpoint.refusal import read_refusal, retry_after
from spark_llm.serving.endpoint.settings import EndpointSettings
from spark_llm.serving.engines import create_engine
from spark_llm.serving.local import LocalExchange

from spark_llm.conf import Settings
from tests.serving.endpoint_server import MODEL, Server, completion, prompt_of
from tests.serving.worker_kit import drain, failure_of, requests, wait_until

CALL = Call("c", "say ")
KEY = "sk-never-to-be-seen-0123456789"
QUICK = {"patience_seconds": 30.0, "read_seconds": 5.0, "total_seconds": 10.0}


@pytest.fixture(autouse=True)
def quick_and_private(monkeypatch, tmp_path):
    """Waits of milliseconds, limits in a folder of the test."""
    monkeypatch.setattr("spark_llm.serving.endpoint.pace.FIRST_WAIT", 0.01)
    folder = tmp_path / "worker"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("SPARK_LLM_WORKER_DIR", str(folder))
    monkeypatch.delenv("SPARK_LLM_API_KEY", raising=False)


@pytest.fixture
def server():
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def engine_of():
    made = []

    def make(server, name=MODEL, **args):
        made.append(create_engine(ModelRef(name, "endpoint", args={"url": server.url, **QUICK, **args})))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


def ask(engine, texts, call=CALL):
    with LocalExchange(engine, call) as exchange:
        exchange.submit(requests(call, texts))
        return drain(exchange, len(texts))


def test_rows_are_answered_with_their_usage(server, engine_of):
    engine = engine_of(server, price_prompt=2.0, price_cached=1.0, price_output=10.0)
    rows = ask(engine, [f"row {i}" for i in range(40)])
    assert {i: row.text for i, row in rows.items()} == {i: f"SAY ROW {i}" for i in range(40)}
    assert (rows[7].usage.prompt, rows[7].usage.cached, rows[7].usage.output) == (9, 4, 9)
    stats = engine.stats()
    assert stats["prompt_tokens"] == sum(row.usage.prompt for row in rows.values())
    spent = sum(2 * (u.prompt - u.cached) + u.cached + 10 * u.output for u in (row.usage for row in rows.values()))
    assert stats["cost"] == pytest.approx(spent / 1e6)
    assert (stats["requests"], stats["running"], stats["waiting"]) == (40, 0, 0)


def test_chat_and_completions_send_what_the_call_says(server, engine_of):
    engine = engine_of(server, extra={"user": "spark"})
    chat = Call("c", "say ", system="Be brief.", max_tokens=7, temperature=0.5, top_p=0.9, stop=("W",))
    row = ask(engine, ["how"], chat)[0]
    assert row.text == "SAY HO", "cut at the stop string, which this server ignores"
    body = server.bodies[0]
    assert body["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "say how"}]
    assert (body["max_tokens"], body["temperature"], body["top_p"], body["stop"]) == (7, 0.5, 0.9, ["W"])
    assert (body["model"], body["user"]) == (MODEL, "spark")
    ask(engine, ["how"], Call("c", "say ", chat=False))
    assert server.bodies[1]["prompt"] == "say how"
    assert server.paths == ["/v1/chat/completions", "/v1/completions"]


def test_concurrency_is_a_limit_of_the_host(server, engine_of):
    server.seconds = 0.03
    engines = [engine_of(server, concurrency=3), engine_of(server, concurrency=3)]
    rows = []
    threads = [
        threading.Thread(target=lambda engine=engine: rows.append(ask(engine, ["x"] * 20))) for engine in engines
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(answered) for answered in rows] == [20, 20]
    assert server.most_running == 3


def test_slots_come_back_from_a_process_that_ends(tmp_path):
    slots = HostSlots(tmp_path / "s", 2)
    held = slots.acquire()
    if (child := os.fork()) == 0:
        os._exit(0 if HostSlots(tmp_path / "s", 2).acquire() is not None and slots.acquire() is None else 1)
    assert os.waitpid(child, 0)[1] == 0
    second = slots.acquire()
    assert second is not None
    assert slots.acquire() is None
    slots.release(held)
    assert slots.acquire() is not None


@pytest.mark.parametrize("per_minute", [10, 60, 300])
def test_no_minute_has_more_than_the_rate(tmp_path, per_minute):
    rates = [HostRate(tmp_path / "r", per_minute) for _ in range(2)]
    now, granted = 1e9, []
    while now < 1e9 + 300:
        wait = rates[len(granted) % 2].reserve(1, now)
        if wait:
            now += wait
        else:
            granted.append(now)
    most = max(sum(start <= t < start + 60 for t in granted) for start in granted)
    assert most <= per_minute
    assert len(granted) >= 0.85 * 5 * per_minute, "and little of it is wasted"


def test_a_rate_is_corrected_by_what_was_used(tmp_path):
    rate = HostRate(tmp_path / "r", 600)
    assert rate.reserve(60, 1e9) == 0
    assert rate.reserve(60, 1e9) > 0
    rate.correct(-60, 1e9)
    assert rate.reserve(60, 1e9) == 0
    assert HostRate(tmp_path / "none", 0).reserve(1e9) == 0
    assert rate.reserve(10_000, 1e9 + 3000) == 0, "more than a burst goes alone"
    assert rate.reserve(1, 1e9 + 3000) > 60


@pytest.mark.parametrize("fault", ["hang", "drip", "truncated", "closed", "no_json", "wrong_json", "500"])
def test_an_attempt_that_fails_is_repeated(server, engine_of, fault):
    failing = {"500": (500, {"error": "boom"})}.get(fault, fault)
    seen = set()

    def behave(_number, body):
        first = prompt_of(body) not in seen
        seen.add(prompt_of(body))
        return failing if first and body["messages"][-1]["content"].endswith("1") else "well"

    server.behave = behave
    rows = ask(engine_of(server, read_seconds=0.5, total_seconds=1.0), ["0", "1", "2"])
    assert [rows[i].text for i in range(3)] == ["SAY 0", "SAY 1", "SAY 2"]
    assert len(server.bodies) == 4


def test_a_row_that_always_fails_fails_alone(server, engine_of):
    server.behave = lambda _, body: (500, b"boom") if prompt_of(body) == "say 3" else "well"
    rows = ask(engine_of(server, retries=2), [str(i) for i in range(6)])
    assert [i for i, row in rows.items() if row.error] == [3]
    assert (rows[3].error.condition, rows[3].error.attempts) == ("LLM_ROW_FAILED", 3)
    assert "HTTP 500" in rows[3].error.message
    assert sum(prompt_of(body) == "say 3" for body in server.bodies) == 3


def test_retry_after_is_honoured_by_all_requests(server, engine_of):
    times = []

    def behave(number, _body):
        times.append(time.monotonic())
        return (429, {}, {"retry-after": "1"}) if number == 0 else "well"

    server.behave = behave
    engine = engine_of(server, concurrency=1)
    assert all(row.text for row in ask(engine, ["a", "b", "c"]).values())
    assert times[1] - times[0] >= 1.0, "nothing is sent before the time that the server names"
    assert engine.stats()["throttled"] == 1


def test_throttling_narrows_the_window_and_loses_nothing(server, engine_of):
    server.seconds = 0.02
    server.behave = lambda *_: (429, {}) if server.running > 4 else "well"
    engine = engine_of(server, concurrency=32, retries=0)
    rows = ask(engine, [str(i) for i in range(60)])
    assert not any(row.error for row in rows.values()), "throttled attempts are not the row's fault"
    assert engine.stats()["window"] < 32


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({"retry-after": "7"}, 7), ({"retry-after-ms": "250"}, 0.25), ({"retry-after": "soon"}, None), ({}, None)],
)
def test_retry_after_forms(headers, seconds):
    assert retry_after(headers) == seconds


def test_retry_after_as_a_date():
    future = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 90))
    assert 80 < retry_after({"retry-after": future}) <= 90


def test_a_wait_beyond_patience_fails_the_query(server, engine_of):
    server.behave = lambda *_: (429, {}, {"retry-after": "3600"})
    failure = failure_of(lambda: ask(engine_of(server), ["a"]))
    assert failure.condition == "LLM_ENDPOINT_THROTTLED"
    assert "3600 seconds" in failure.message
    assert len(server.bodies) == 1


def test_used_up_quota_fails_the_query_at_once(server, engine_of):
    server.behave = lambda *_: (429, {"error": {"code": "insufficient_quota", "message": "pay"}})
    assert failure_of(lambda: ask(engine_of(server), ["a"])).condition == "LLM_ENDPOINT_THROTTLED"
    assert len(server.bodies) == 1


def test_a_server_that_stays_down_fails_the_query(server, engine_of):
    server.behave = lambda *_: "closed"
    failure = failure_of(lambda: ask(engine_of(server, patience_seconds=0.5, retries=1000), ["x"] * 200))
    assert failure.condition == "LLM_ENDPOINT_DOWN"
    assert server.url in failure.message
    assert len(server.bodies) < 100, "while it is down one attempt at a time is made"


def test_an_outage_within_patience_costs_no_row(server, engine_of):
    engine = engine_of(server)
    port, asked = server.server_port, server.bodies
    ask(engine, ["before"])
    server.stop()
    back = []

    def restart():
        wait_until(lambda: engine.stats()["retries"] >= 8)
        back.append(Server(port=port))

    thread = threading.Thread(target=restart)
    thread.start()
    try:
        rows = ask(engine, [str(i) for i in range(30)])
    finally:
        thread.join()
        back[0].stop()
    assert [rows[i].text for i in range(30)] == [f"SAY {i}" for i in range(30)]
    assert len(asked) + len(back[0].bodies) == 31, "open connections may outlive the server's door"


def test_the_key_goes_to_the_server_and_nowhere_else(server, engine_of, monkeypatch, capfd):
    server.key = KEY
    monkeypatch.setenv("SPARK_LLM_API_KEY", KEY)
    engine = engine_of(server)
    assert ask(engine, ["a"])[0].text == "SAY A"
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    server.key = "another"
    failure = failure_of(lambda: ask(engine, ["b"]))
    assert failure.condition == "LLM_ENDPOINT_KEY"
    shown = failure.message + failure.remedy + json.dumps(engine.stats()) + repr(capfd.readouterr())
    assert KEY not in shown


def test_a_wrong_key_is_told_before_any_row_is_sent(server, engine_of):
    server.key = KEY
    failure = failure_of(lambda: engine_of(server))
    assert failure.condition == "LLM_ENDPOINT_KEY"
    assert KEY not in failure.message
    assert server.bodies == []


def test_key_files_must_be_private(server, engine_of, tmp_path):
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    file.chmod(0o644)
    failure = failure_of(lambda: engine_of(server, key_file=str(file)))
    assert failure.condition == "LLM_BAD_CONF"
    assert "600" in failure.message
    file.chmod(0o600)
    server.key = KEY
    assert ask(engine_of(server, key_file=str(file)), ["a"])[0].text == "SAY A"
    file.write_text("two words")
    failure = failure_of(lambda: engine_of(server, key_file=str(file)))
    assert "two words" not in failure.message + failure.remedy
    assert failure_of(lambda: engine_of(server, key_file=str(tmp_path / "absent"))).condition == "LLM_BAD_CONF"


@pytest.mark.parametrize(
    "url", ["", "ftp://a/v1", "api.example.com", "https://user:secret@a/v1", "https://a/v1?key=secret", "http://[::1"]
)
def test_unusable_addresses_are_refused_without_repeating_them(url):
    failure = failure_of(lambda: EndpointSettings.from_args({"url": url}))
    assert failure.condition == "LLM_BAD_CONF"
    assert "secret" not in failure.message + failure.remedy


def test_the_key_does_not_travel_unencrypted(monkeypatch):
    monkeypatch.setenv("SPARK_LLM_API_KEY", KEY)
    remote = {"url": "http://gpu.example.com/v1"}
    assert "https" in failure_of(EndpointSettings.from_args(remote).api_key).message
    assert EndpointSettings.from_args({**remote, "plain_key": True}).api_key() == KEY
    assert EndpointSettings.from_args({"url": "http://127.0.0.1:8000/v1/chat/completions/"}).url.endswith("/v1")


def test_bad_settings_are_named():
    for args in ({"concurency": 3}, {"concurrency": 0}, {"retries": "many"}, {"structured": "maybe"}, {"policy": "?"}):
        failure = failure_of(lambda args=args: EndpointSettings.from_args({"url": "http://127.0.0.1/v1", **args}))
        assert next(iter(args)) in failure.message


def test_addresses_and_models_that_do_not_exist(server, engine_of):
    server.owner = "vllm"
    failure = failure_of(lambda: engine_of(server, "other"))
    assert failure.condition == "LLM_UNKNOWN_MODEL"
    assert MODEL in failure.message
    assert ask(engine_of(server, "default"), ["a"])[0].text == "SAY A", "the only model that it serves"
    failure = failure_of(lambda: engine_of(server, url=server.url.removesuffix("/v1")))
    assert failure.condition == "LLM_ENDPOINT_URL"
    assert server.url in failure.message, "the address that works is named"
    failure = failure_of(lambda: engine_of(server, url="http://127.0.0.1:9/v1"))
    assert failure.condition == "LLM_ENDPOINT_URL"
    assert "refused" in failure.message
    server.owner = "someone"
    server.behave = lambda *_: (404, {"error": {"code": "model_not_found", "message": "The model does not exist"}})
    assert failure_of(lambda: ask(engine_of(server, "unlisted"), ["a"])).condition == "LLM_UNKNOWN_MODEL"


def test_refused_rows_fail_alone_without_their_text(server, engine_of):
    refusals = {
        "say long": (400, {"error": {"message": "maximum context length is 10 tokens; say long", "code": "x"}}),
        "say bad": (400, {"error": {"message": "say bad cannot be", "code": "say bad"}}),
        "say filtered": (200, completion({"prompt": "p"}, "", "content_filter")),
    }
    server.behave = lambda _, body: refusals.get(prompt_of(body), "well")
    rows = ask(engine_of(server), ["long", "bad", "filtered", "fine"])
    assert [rows[i].error.condition for i in range(3)] == ["LLM_PROMPT_TOO_LONG", "LLM_ROW_FAILED", "LLM_ROW_FAILED"]
    assert rows[3].text == "SAY FINE"
    assert not any("say" in rows[i].error.message for i in range(3))
    assert len(server.bodies) == 4


CHOICES = Call("c", "say ", constraint=Constraint("choices", ["yes", "no"]))
REGEX = Call("c", "say ", constraint=Constraint("regex", "[0-9]{3}"))
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
OBJECT = Call("c", "say ", constraint=Constraint("json_schema", json.dumps(SCHEMA)))
NUMBER = Call("c", "say ", constraint=Constraint("json_schema", '{"type": "integer"}'))


@pytest.mark.parametrize(
    ("call", "answer", "text"),
    [
        (CHOICES, '{"answer": "yes"}', "yes"),
        (REGEX, '{"answer": "123"}', "123"),
        (OBJECT, '{"n": 3}', '{"n": 3}'),
        (NUMBER, '{"answer": 42}', "42"),
    ],
)
def test_answers_are_constrained_through_response_format(server, engine_of, call, answer, text):
    server.behave = lambda _, body: (200, completion(body, answer))
    assert ask(engine_of(server), ["a"], call)[0].text == text
    asked = server.bodies[0]["response_format"]["json_schema"]
    assert asked["strict"] is True
    assert asked["schema"]["type"] == "object"


def test_vllm_is_asked_through_its_own_field(server, engine_of):
    server.owner = "vllm"
    server.behave = lambda _, body: (200, completion(body, "no"))
    assert ask(engine_of(server), ["a"], CHOICES)[0].text == "no"
    assert server.bodies[0]["structured_outputs"] == {"choice": ["yes", "no"]}
    assert "response_format" not in server.bodies[0]


def test_a_server_without_structured_outputs_is_asked_in_words(server, engine_of):
    def behave(_number, body):
        if "response_format" in body:
            return 400, {"error": {"message": "response_format is not supported", "param": "response_format"}}
        return 200, completion(body, " Yes. ")

    server.behave = behave
    rows = ask(engine_of(server, concurrency=1), ["a", "b"], CHOICES)
    assert [row.text for row in rows.values()] == ["yes", "yes"]
    assert ["response_format" in body for body in server.bodies] == [True, False, False]


def test_newer_models_name_the_token_limit_otherwise(server, engine_of):
    unsupported = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    server.behave = lambda _, body: (400, {"error": {"message": unsupported}}) if "max_tokens" in body else "well"
    assert ask(engine_of(server), ["a"])[0].text == "SAY A"
    assert server.bodies[1]["max_completion_tokens"] == CALL.max_tokens


def test_an_answer_that_breaks_its_constraint_is_no_answer(server, engine_of):
    server.behave = lambda number, body: (200, completion(body, "maybe" if number < 2 else "yes"))
    row = ask(engine_of(server, structured="none"), ["a"], CHOICES)[0]
    assert row.text == "yes"
    assert row.usage.prompt == 3 * len("say a"), "all three attempts were paid for"
    server.behave = lambda _, body: (200, completion(body, "maybe"))
    row = ask(engine_of(server, structured="none", retries=1), ["a"], CHOICES)[0]
    assert row.error.condition == "LLM_ROW_FAILED"
    assert "maybe" not in row.error.message
    server.behave = lambda _, body: (200, completion(body, "12", "length"))
    assert ask(engine_of(server, structured="none"), ["a"], REGEX)[0].error.condition == "LLM_ANSWER_TRUNCATED"


def test_a_constraint_that_no_server_can_take(server, engine_of):
    for value in ("no json", '{"type": 7}'):
        call = Call("c", "say ", constraint=Constraint("json_schema", value))
        assert ask(engine_of(server), ["a"], call)[0].error.condition == "LLM_BAD_CONSTRAINT"
    server.behave = lambda *_: (400, {"error": {"message": "Invalid regex", "code": "invalid"}})
    assert ask(engine_of(server), ["a"], REGEX)[0].error.condition == "LLM_BAD_CONSTRAINT"


def test_conformance_of_texts():
    assert conform(CHOICES.constraint, "```\nYES\n```", "none") == "yes"
    assert conform(OBJECT.constraint, '```json\n{"n": 1}\n```', "none") == '{"n": 1}'
    for constraint, text in ((CHOICES.constraint, "yes or no"), (REGEX.constraint, "1234"), (OBJECT.constraint, "{}")):
        with pytest.raises(UnusableAnswer):
            conform(constraint, text, "none")


def test_references_in_a_wrapped_schema_stay_valid():
    schema = {"$defs": {"a": {"type": "integer"}}, "type": "array", "items": {"$ref": "#/$defs/a"}}
    dialect = Dialect(EndpointSettings(), "m", "")
    call = Call("c", "p", constraint=Constraint("json_schema", json.dumps(schema)))
    asked = dialect.body(Request(0, call, ()))["response_format"]["json_schema"]["schema"]
    assert asked["$defs"] == schema["$defs"]
    assert asked["properties"]["answer"]["items"] == {"$ref": "#/$defs/a"}


def test_usage_forms():
    assert read_usage({"prompt_tokens": 9, "prompt_cache_hit_tokens": 4, "completion_tokens": 2}).cached == 4
    assert read_usage({"prompt_tokens": "9", "completion_tokens": -1}).prompt == 0
    assert read_usage(None).output == 0
    assert read_refusal(500, {}, b"\xff{").label == "HTTP 500"
    assert read_refusal(400, {}, b'{"detail": [1]}').code == ""


def test_a_light_query_does_not_wait_behind_a_heavy_one(server, engine_of):
    engine = engine_of(server, concurrency=1)
    heavy, light = ClientRef("heavy"), ClientRef("light")
    text = ("x" * 4000,)
    engine.submit([Request(i, CALL, text, client=heavy) for i in range(100)])
    engine.submit([Request(100 + i, CALL, text, client=light) for i in range(3)])
    order = []
    while not {100, 101, 102} <= set(order):
        order += [row.request_id for row in engine.step()]
    engine.cancel(range(100))
    assert len(order) < 30


def test_cancelling_closes_the_connections_and_drops_the_queue(server, engine_of):
    server.behave = lambda *_: "hang"
    engine = engine_of(server, concurrency=4)
    engine.submit(requests(CALL, ["x"] * 100))
    while len(server.bodies) < 4:
        engine.step()
    engine.cancel(range(100))
    assert not engine.has_work()
    assert engine.running() == {}
    server.behave = lambda *_: "well"
    assert ask(engine, ["fine"])[0].text == "SAY FINE", "the slots came back"
    assert len(server.bodies) == 5


def test_settings_of_a_session_become_the_engine_s():
    conf = {"spark.llm.engine": "endpoint", "spark.llm.endpoint.url": "http://127.0.0.1:1/v1", "spark.llm.model": "m"}
    conf |= {"spark.llm.endpoint.requestsPerMinute": "30", "spark.llm.price.output": "1.5"}
    model = Settings(conf).model()
    settings = EndpointSettings.from_args(model.args)
    assert (model.name, settings.requests_per_minute, settings.price_output) == ("m", 30.0, 1.5)
    defaults = EndpointSettings(url=settings.url, requests_per_minute=30.0, price_output=1.5)
    assert settings == defaults, "the two tables of defaults agree"
