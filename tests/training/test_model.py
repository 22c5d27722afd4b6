"""The training model, its directory, and the loop."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from spark_llm.optimizer.prompts import prepare
from tokenizers import Tokenizer
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.training.test_data import draw
from training import tokenizer as bpe
from training.model import Model, ModelConfig, load, save
from training.render import call_spec, prompt_text, record, segments
from training.tagging import TAGS, tag_places
from training.train import Encoded, Recipe, Run, batches, learning_rate, loss_of

SHIPPED = Path("spark_llm/default_model")
SMALL = ModelConfig(vocab_size=300, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.from_file(str(SHIPPED / "tokenizer.json"))


def test_scores_equal_transformers(tmp_path):
    torch.manual_seed(0)
    save(Model(SMALL), tmp_path, end_id=1, pad_id=0)
    ours, theirs = load(tmp_path), AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    tokens = torch.randint(0, SMALL.vocab_size, (3, 40))
    at = torch.tensor([0, 0, 1, 2, 2]), torch.tensor([0, 39, 17, 1, 20])
    with torch.no_grad():
        scores, inside = ours(tokens, at)
        torch.testing.assert_close(scores, theirs(tokens).logits[at], atol=1e-4, rtol=1e-4)
    assert inside.shape == (3, 40, SMALL.hidden_size)


def test_shipped_directory_loads_everywhere(tokenizer):
    model = load(SHIPPED)
    assert model.config == ModelConfig()
    assert tokenizer.get_vocab_size() == model.config.vocab_size
    text = AutoTokenizer.from_pretrained(SHIPPED).apply_chat_template(
        [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}],
        add_generation_prompt=True,
        tokenize=False,
    )
    assert text == "<|system|>S<|end|><|user|>U<|end|><|assistant|>"
    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) < 12 << 20


def test_prompts_tokenize_alike_whole_and_by_segment(tokenizer):

    from tests.training.test_data import draw

    for asked in draw(1, 200):
        prompt = prepare(call_spec(asked))
        pieces = (prompt.call["instruction"], *segments(prompt, asked.fields))
        apart = [token for piece in pieces for token in tokenizer.encode(piece).ids]
        assert apart == tokenizer.encode("".join(pieces)).ids
        if not any(isinstance(value, list) for value in asked.fields.values()):
            assert "".join(pieces[1:]) == record(asked.fields)
            assert prompt_text(asked).endswith("".join(pieces) + "<|end|><|assistant|>")


def test_any_text_survives_the_tokenizer(tokenizer):
    for text in ("Größe 東京 \t\n\n  x", "a\n\n\nb", "12345.67", "🙂 é\r\n", "'s don't"):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_a_resumed_run_sees_the_same_batches(tokenizer):
    whole = list(islice(batches(tokenizer, 0, 4, 0), 20))
    assert list(islice(batches(tokenizer, 0, 4, 11), 9)) == whole[11:]


def test_losses_are_of_answers_and_tags_alone():
    torch.manual_seed(0)
    model, tagger = Model(SMALL), nn.Linear(SMALL.hidden_size, len(TAGS))
    short, long = Encoded([5, 6, 7], [8, 1], [(1, 4)]), Encoded([5] * 30, [9, 1], [(29, 2)])
    together = loss_of(model, tagger, [short, long], pad=0)
    apart = [loss_of(model, tagger, [one], pad=0) for one in (short, long)]
    for part in (0, 1):
        mean = (apart[0][part] + apart[1][part]) / 2
        torch.testing.assert_close(together[part], mean, atol=2e-2, rtol=2e-2)  # bf16
    assert loss_of(model, tagger, [Encoded([5, 6], [8, 1], [])], pad=0)[1] == 0


def test_tags_stand_at_the_ends_of_their_phrases(tokenizer):
    found = 0
    for asked in draw(2, 300):
        text = prompt_text(asked)
        encoded = tokenizer.encode(text)
        for position, number in tag_places(text, encoded, asked.tags, ""):
            read = text[: encoded.offsets[position][1]].lower()
            phrases = [phrase.lower().rstrip(".!?") for phrase, tag in asked.tags if tag == TAGS[number]]
            assert read.endswith(tuple(phrases))
            found += 1
    assert found > 600


def test_learning_rate_warms_up_and_decays():
    rates = [learning_rate(p, 1.0) for p in np.linspace(0, 1, 101)]
    assert rates[0] < 0.05
    assert max(rates) > 0.95
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[-1] == pytest.approx(0.02)


def test_a_run_learns_and_resumes(tmp_path, tokenizer):
    torch.manual_seed(0)
    (tmp_path / "model").mkdir()
    bpe.save(tokenizer, tmp_path / "model")
    recipe = Recipe(minutes=0.02, batch=4, save_every=1000, run=tmp_path)
    first = Run(recipe)
    first.train()
    assert first.step > 0
    second = Run(recipe)
    assert second.step == first.step
    for name, weights in second.model.state_dict().items():
        assert torch.equal(weights, first.model.state_dict()[name])
    assert load(tmp_path / "model").config == ModelConfig()
