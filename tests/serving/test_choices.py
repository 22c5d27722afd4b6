"""Choices against xgrammar's grammar of the same choices: same masks, ends and forced tokens along every way."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import tokenizers
from spark_llm.serving.choices import MOST_AHEAD, ChoiceTree
from spark_llm.serving.core import Constraint
from spark_llm.serving.grammar import GrammarCompiler
from spark_llm.serving.tokenizer import Tokenizer
from spark_llm.serving.vocabulary import Vocabulary
from tokenizers import decoders, models, normalizers

from tests.serving.native_checkpoints import train_tokenizer

WORDS = [
    "true",
    "false",
    "positive",
    "negative",
    "neither",
    "a",
    "ab",
    "abc",
    "naïve café",
    "naïf",
    "日本",
    "日曜",
    "no ",
]


@pytest.fixture(scope="module", params=["byte_level", "byte_fallback"])
def tokenizer(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    (train_tokenizer() if request.param == "byte_level" else space_marked()).save(str(folder / "tokenizer.json"))
    return Tokenizer(folder)


def space_marked():
    pieces = [
        "<unk>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁",
        "t",
        "r",
        "u",
        "e",
        "tr",
        "ue",
        "ab",
        "é",
    ]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    bpe = models.BPE(vocab, [("t", "r"), ("u", "e")], unk_token="<unk>", byte_fallback=True)
    tokenizer = tokenizers.Tokenizer(bpe)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(["<unk>", "</s>"])
    return tokenizer


def test_equal_xgrammar_on_every_way(tokenizer):
    rng = np.random.default_rng(5)
    compiler = GrammarCompiler(tokenizer, 320, frozenset([1]))
    for _ in range(25):
        choices = rng.choice(WORDS, int(rng.integers(1, 6)), replace=False).tolist()
        assert isinstance(compiler._compile(Constraint("choices", choices), ""), ChoiceTree)
        ours = compiler.matcher(Constraint("choices", choices))
        theirs = grammar_of(compiler, choices)
        while True:
            assert ours.finished == theirs.finished
            assert (ours.mask == theirs.mask).all(), "another mask"
            if ours.finished:
                break
            assert ours.forced() == theirs.forced() or not theirs.forced(), "of characters cut in two it says nothing"
            bits = np.unpackbits(ours.mask.view(np.uint8), bitorder="little")
            token = int(rng.choice([t for t in np.flatnonzero(bits) if t != 1]))
            assert ours.accept(token)
            assert theirs.accept(token)


def test_ways_ahead_lead_to_the_next_decisions(tokenizer):
    """Each way is what the matcher takes, and after it the model decides, unless it is not among the ways."""
    rng = np.random.default_rng(7)
    compiler = GrammarCompiler(tokenizer, 320, frozenset([1]))
    for _ in range(25):
        choices = rng.choice(WORDS, int(rng.integers(1, 6)), replace=False).tolist()
        constraint = Constraint("choices", choices)
        start = compiler.matcher(constraint)
        ahead = start.ahead
        assert sum(len(branch.tokens) for branch in ahead) <= MOST_AHEAD
        for i, branch in enumerate(ahead):
            matcher, known = compiler.matcher(constraint), way_to(ahead, i)
            assert len(known) == branch.end
            assert all(matcher.accept(token) for token in known)
            assert not matcher.finished
            assert not matcher.forced()
        assert len({tuple(way_to(ahead, i)) for i in range(len(ahead))}) == len(ahead)


def way_to(ahead, at):
    return [] if at < 0 else [*way_to(ahead, ahead[at].parent), *ahead[at].tokens]


def grammar_of(compiler, choices):
    """xgrammar's matcher, by a compiler that does not know the vocabulary's bytes."""
    other = GrammarCompiler(compiler._tokenizer, 320, frozenset([1]))
    other._vocabulary = SimpleNamespace(known=False)
    return other.matcher(Constraint("choices", choices))


def test_tokens_outside_of_the_choices_are_refused(tokenizer):
    matcher = GrammarCompiler(tokenizer, 320, frozenset([1])).matcher(Constraint("choices", ["true", "tree"]))
    (foreign,) = Vocabulary(tokenizer.backend).spelling[b"z"]
    assert not matcher.accept(foreign)
    assert not matcher.accept(1)


def test_grammars_load_no_transformers():
    code = """if True:
        import sys
        from spark_llm.serving.core import Constraint
        from spark_llm.serving.grammar import GrammarCompiler
        from spark_llm.serving.models.directory import find_model
        from spark_llm.serving.tokenizer import Tokenizer
        GrammarCompiler(Tokenizer(find_model("default")), 8192, frozenset([2])).matcher(Constraint("regex", "[0-9]+"))
        assert "xgrammar" in sys.modules
        assert "transformers" not in sys.modules
        """
    subprocess.run([sys.executable, "-c", code], check=True)


def test_choices_load_no_grammar_library(tokenizer):
    compiler = GrammarCompiler(tokenizer, 320, frozenset([1]))
    compiler.matcher(Constraint("choices", ["true", "false"]))
    assert "_xgrammar" not in vars(compiler)
