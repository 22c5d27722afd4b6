"""The training model, its directory, and the loop."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from training import tokenizer as bpe
from training.model import Model, ModelConfig, load, save
from training.render import prompt_text
from training.train import Recipe, Run, batches, learning_rate, loss_of

SHIPPED = Path("spark_llm/default_model")
SMALL = ModelConfig(vocab_size=300, hidden_size=64, intermediate_size=96, num_hidden_layers=2)


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
        torch.testing.assert_close(ours(tokens, at), theirs(tokens).logits[at], atol=1e-4, rtol=1e-4)


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
    from spark_llm.optimizer.prompts import prepare

    from tests.training.test_data import draw
    from training.render import call_spec, segments

    for asked in draw(1, 200):
        prompt = prepare(call_spec(asked))
        pieces = (prompt.call["instruction"], *segments(prompt, asked.fields))
        apart = [token for piece in pieces for token in tokenizer.encode(piece).ids]
        assert apart == tokenizer.encode("".join(pieces)).ids
        assert prompt_text(asked).endswith("".join(pieces) + "<|end|><|assistant|>")


def test_any_text_survives_the_tokenizer(tokenizer):
    for text in ("Größe 東京 \t\n\n  x", "a\n\n\nb", "12345.67", "🙂 é\r\n", "'s don't"):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_a_resumed_run_sees_the_same_batches(tokenizer):
    whole = list(islice(batches(tokenizer, 0, 4, 0), 20))
    assert list(islice(batches(tokenizer, 0, 4, 11), 9)) == whole[11:]


def test_loss_counts_answers_alone(tokenizer):
    torch.manual_seed(0)
    model = Model(SMALL)
    short, long = ([5, 6, 7], [8, 1]), ([5] * 30, [9, 1])
    together = loss_of(model, [short, long], pad=0)
    apart = (loss_of(model, [short], pad=0) + loss_of(model, [long], pad=0)) / 2
    torch.testing.assert_close(together, apart, atol=2e-2, rtol=2e-2)  # bf16


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
