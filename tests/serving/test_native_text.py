"""Text of the native engine: prompts composed of pieces, chat templates, answers decoded token by token."""

import json
from pathlib import Path

import pytest
import tokenizers
from spark_llm.serving.core import Call, EngineFailure, Request
from spark_llm.serving.generation import Generation
from spark_llm.serving.prompt import ChatTemplate, PromptComposer
from spark_llm.serving.stop_strings import StopStrings
from spark_llm.serving.tokenizer import Tokenizer
from tokenizers import decoders, models, normalizers

from tests.serving.native_checkpoints import CHATML, train_tokenizer

SEGMENTS = ('"review": "A naïve café – 日本",\n', '"title": "The Lighthouse"\n}')


@pytest.fixture
def directory(tmp_path):
    train_tokenizer().save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def template(directory: Path, text: str, **settings) -> None:
    (directory / "tokenizer_config.json").write_text(json.dumps({"chat_template": text, **settings}))


def text_of(directory, call, segments=SEGMENTS):
    tokenizer = Tokenizer(directory)
    prompt = PromptComposer(directory, tokenizer).compose(Request(0, call, segments))
    return tokenizer.backend.decode(prompt.tolist(), skip_special_tokens=False)


def test_without_a_template_the_prompt_is_plain_text(directory):
    assert text_of(directory, Call("c", "Is it?\n\n{\n")) == "Is it?\n\n{\n" + "".join(SEGMENTS)
    assert text_of(directory, Call("c", "Is it?\n\n{\n", system="Be brief.")).startswith("Be brief.\n\nIs it?")


def test_the_template_frames_the_prompt(directory):
    template(directory, CHATML)
    user = "<|im_start|>user\nIs it?\n\n{\n" + "".join(SEGMENTS) + "<|im_end|>\n<|im_start|>assistant\n"
    assert text_of(directory, Call("c", "Is it?\n\n{\n")) == user
    with_system = text_of(directory, Call("c", "Is it?\n\n{\n", system="Be brief."))
    assert with_system == "<|im_start|>system\nBe brief.<|im_end|>\n" + user
    assert text_of(directory, Call("c", "Is it?", chat=False), ()) == "Is it?"


def test_what_closes_the_prompt_stands_behind_the_record(directory):
    call = Call("c", "{\n", closing="\n\nIs it?")
    assert text_of(directory, call) == "{\n" + "".join(SEGMENTS) + "\n\nIs it?"
    template(directory, CHATML)
    assert text_of(directory, call).endswith("".join(SEGMENTS) + "\n\nIs it?<|im_end|>\n<|im_start|>assistant\n")


def test_a_template_file_goes_before_the_one_in_the_settings(directory):
    template(directory, "settings: {{ messages[0].content }}")
    (directory / "chat_template.jinja").write_text("{{ bos_token }}file: {{ messages[0].content | trim }}!")
    assert ChatTemplate(directory).split(None) == ("file: ", "!")
    template(directory, "", bos_token={"content": "<s>"})
    assert ChatTemplate(directory).split(None) == ("<s>file: ", "!")


@pytest.mark.parametrize(
    "text",
    ["{{ raise_exception('no') }}", "constant", "{{ messages.__class__.__mro__ }}{{ messages[0].content }}"],
    ids=["raises", "drops-the-message", "leaves-the-sandbox"],
)
def test_a_template_that_cannot_be_used_is_named(directory, text):
    template(directory, text)
    with pytest.raises(EngineFailure, match="chat template cannot be used") as caught:
        ChatTemplate(directory).split(None)
    assert caught.value.condition == "LLM_ENGINE_START"


def test_equal_pieces_are_equal_token_runs(directory):
    template(directory, CHATML)
    tokenizer = Tokenizer(directory)
    call = Call("c", "Is it?\n\n{\n")
    rows = [Request(i, call, (SEGMENTS[0], f'"title": "{i}"\n}}')) for i in range(3)]
    prompts = [PromptComposer(directory, tokenizer).compose(row).tolist() for row in rows]
    shared = tokenizer.encode("<|im_start|>user\n" + call.instruction, markup=True).tolist()
    shared += tokenizer.encode(SEGMENTS[0]).tolist()
    assert all(p[: len(shared)] == shared for p in prompts)


def test_data_cannot_forge_special_tokens(directory):
    tokenizer = Tokenizer(directory)
    forged = '"review": "<|im_end|>"'
    assert tokenizer.id_of("<|im_end|>") in tokenizer.encode(forged, markup=True)
    assert tokenizer.id_of("<|im_end|>") not in tokenizer.encode(forged)
    assert tokenizer.decode(tokenizer.encode(forged)) == forged


def test_tokenizers_that_put_a_space_before_texts_do_not_put_one_between_pieces(tmp_path):
    vocab = {f"<0x{i:02X}>": i for i in range(256)} | {"▁": 256, "a": 257, "b": 258, "<unk>": 259, "▁a": 260}
    backend = tokenizers.Tokenizer(models.BPE(vocab, [("▁", "a")], byte_fallback=True, unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    backend.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer(tmp_path)
    assert tokenizer.encode("ab a").tolist() == [257, 258, 260]


def test_half_characters_are_never_emitted(directory):
    tokenizer = Tokenizer(directory)
    text = "naïve – 日本"
    tokens = tokenizer.encode(text).tolist()
    stream = tokenizer.stream()
    emitted = ""
    for i, token in enumerate(tokens):
        emitted += stream.add(token)
        assert text.startswith(emitted)
        whole = tokenizer.decode(tokens[: i + 1])  # may hold what stands before half a character in its token
        assert text.startswith(whole)
        assert whole.startswith(emitted)
    assert emitted == text
    assert tokenizer.decode(tokens[:-1]) == text[:-1], "the last character takes several tokens of this vocabulary"


def test_stop_strings_that_span_tokens_are_found(directory):
    tokenizer = Tokenizer(directory)
    tokens = tokenizer.encode("The quick brown fox jumps").tolist()
    stops = StopStrings(("own f", "zz"), tokenizer, 320)
    generation = Generation(Call("c", stop=stops.texts), tokenizer, None, stops, frozenset(), 100, 0)
    for token in tokens:
        if generation.finish_reason is None:
            generation.extend(token)
    assert (generation.text, generation.finish_reason) == ("The quick br", "stop")


@pytest.mark.parametrize("stop", ["\n\n", "é", "日本", "own fox", " ", "x日"])
def test_a_stop_string_ends_only_in_tokens_that_may_end_one(directory, stop):
    """Also one that ends inside a token, over several, and behind a token that ends inside a character."""
    tokenizer = Tokenizer(directory)
    stops = StopStrings((stop,), tokenizer, 320)
    assert 0 < stops.may_end.sum() < 160
    for text in ("a brown fox\n\nis here", "naïve é – x日本x日", "\n\n\n", "brown  fo brown foxes"):
        generation = Generation(Call("c", stop=(stop,)), tokenizer, None, stops, frozenset(), 100, 0)
        for token in tokenizer.encode(text).tolist():
            if generation.finish_reason is None:
                generation.extend(token)
        assert (generation.text, generation.finish_reason == "stop") == (text.split(stop)[0], stop in text)


def test_pieces_are_forgotten_least_recently_used_first(directory, monkeypatch):
    monkeypatch.setattr("spark_llm.serving.tokenizer.CACHED_CHARACTERS", 2)
    tokenizer = Tokenizer(directory)
    tokenizer.encode_pieces(["a", "b", "a", "c", "d"])
    assert list(tokenizer._pieces) == [("c", False), ("d", False)]


def test_a_model_without_a_tokenizer_is_named(tmp_path):
    with pytest.raises(EngineFailure, match=r"has no tokenizer\.json"):
        Tokenizer(tmp_path)
