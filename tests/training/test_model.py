"""The training model, its directory, and the loop."""

from __future__ import annotations

import random
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from spark_llm.optimizer.prompts import prepare
from tokenizers import Tokenizer
from torch import multiprocessing, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.training.test_data import draw
from training import tokenizer as bpe
from training.batches import Batch, Encoded, Source, batch_of, echo
from training.induction import KINSHIP, relate_variants
from training.model import Model, ModelConfig, load, save
from training.muon import Muon, orthogonal
from training.render import call_spec, prompt_text, record, segments
from training.tagging import TAGS, tag_places
from training.train import Recipe, Run, learning_rate, loss_of, work

SHIPPED = Path("spark_llm/default_model")
SMALL = ModelConfig(
    vocab_size=300,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
)


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
    assert tokenizer.get_vocab_size() == model.config.vocab_size
    text = AutoTokenizer.from_pretrained(SHIPPED).apply_chat_template(
        [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}],
        add_generation_prompt=True,
        tokenize=False,
    )
    assert text == "<|system|>S<|end|><|user|>U<|end|><|assistant|>"
    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) < 24 << 20


def test_prompts_tokenize_alike_whole_and_by_segment(tokenizer):
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
    source = Source(tokenizer, seed=0, worker=0, workers=2, size=4)
    whole = [batch.tokens.tolist() for batch in islice(source.batches(0), 20)]
    assert [batch.tokens.tolist() for batch in islice(source.batches(11), 9)] == whole[11:]
    other = next(replace(source, worker=1).batches(0))
    assert other.tokens.tolist() != whole[0]


@pytest.mark.slow
def test_generators_make_the_same_batches(tokenizer):
    source = Source(tokenizer, seed=0, worker=0, workers=1, size=4)
    alone, helped = (islice(source.batches(5, generators), 20) for generators in (0, 2))
    for one, other in zip(alone, helped, strict=True):
        assert all(np.array_equal(getattr(one, f.name), getattr(other, f.name)) for f in fields(Batch))


def tensors(examples) -> Batch:
    return batch_of(examples, 0).to(torch.device("cpu"))


def test_losses_are_of_answers_and_tags_alone():
    torch.manual_seed(0)
    model, tagger = Model(SMALL), nn.Linear(SMALL.hidden_size, len(TAGS))
    short, long = Encoded([5, 6, 7], [8, 1], [(1, 4)]), Encoded([5] * 30, [9, 1], [(29, 2)])
    together = loss_of(model, tagger, tensors([short, long]))
    apart = [loss_of(model, tagger, tensors([one])) for one in (short, long)]
    for part in (0, 1):
        mean = (apart[0][part] + apart[1][part]) / 2
        torch.testing.assert_close(together[part], mean, atol=2e-2, rtol=2e-2)  # bf16
    assert loss_of(model, tagger, tensors([Encoded([5, 6], [8, 1], [])]))[1] == 0


def test_tags_stand_at_the_ends_of_their_phrases(tokenizer):
    found = 0
    for asked in draw(2, 300):
        text = prompt_text(asked)
        encoded = tokenizer.encode(text)
        for position, number in tag_places(text, encoded, replace(asked, gist="")):
            read = text[: encoded.offsets[position][1]].lower()
            named = (*asked.tags, *zip(asked.labels, asked.label_tags, strict=False))
            phrases = [phrase.lower().rstrip(".!?") for phrase, tag in named if tag == TAGS[number]]
            assert read.endswith(tuple(phrases))
            found += 1
    assert found > 600


def test_an_echo_is_its_prompt(tokenizer):
    asked = echo(random.Random(0), tokenizer)
    assert (asked.prompt + asked.answer)[: len(asked.answer) + 1] * 2 == asked.prompt + asked.answer


def test_a_new_model_copies_and_a_step_leaves_its_copying_heads(tokenizer):
    torch.manual_seed(0)
    rng, model, tagger = random.Random(0), Model(ModelConfig()), nn.Linear(192, len(TAGS))
    echoes = tensors([echo(rng, tokenizer) for _ in range(32)])
    with torch.no_grad():
        found = model(echoes.tokens, (echoes.rows, echoes.places))[0].argmax(-1)
    assert (found == echoes.targets).float().mean() > 0.6
    sum(loss_of(model, tagger, echoes)).backward()
    near, match = (layer.self_attn for layer in model.layers[:2])
    held = {near.q_proj: 96, near.k_proj: 64, near.v_proj: 64, match.q_proj: 32, match.k_proj: 64}
    for projection, rows in held.items():
        for gradient in (projection.weight.grad, projection.bias.grad):
            assert not gradient[:rows].any()
            assert gradient[rows:].any()
    assert not near.o_proj.weight.grad[:, :96].any()
    for free in (near.o_proj.weight.grad[:, 96:], match.v_proj.weight.grad, match.o_proj.weight.grad):
        assert free.any()


def test_variants_of_a_word_begin_near_each_other():
    torch.manual_seed(0)
    model = Model(SMALL)
    before = model.embed_tokens.weight.detach().clone()
    relate_variants(model, ["kite", "Ġkite", "Kite", *map(str, range(SMALL.vocab_size - 3))])
    after = model.embed_tokens.weight.detach()
    near = torch.nn.functional.cosine_similarity(after[:1], after[1:3])
    assert (near - KINSHIP**0.5).abs().max() < 0.3
    assert torch.equal(after[3:], before[3:])
    torch.testing.assert_close(after[1:3].norm(dim=1), before[1:3].norm(dim=1), rtol=0.4, atol=0)


@pytest.mark.parametrize("shape", [(64, 24), (24, 64), (32, 32)])
def test_muon_steps_are_orthogonal(shape):
    torch.manual_seed(0)
    singular = torch.linalg.svdvals(orthogonal(torch.randn(3, *shape)))
    assert singular.min() > 0.4
    assert singular.max() < 1.4


def test_muon_descends():
    torch.manual_seed(0)
    weight, wanted = nn.Parameter(torch.randn(16, 8)), torch.randn(16, 8)
    optimizer, losses = Muon([weight], lr=0.05, decay=0.0), []
    for _ in range(100):
        loss = (weight - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 10


@pytest.mark.slow
def test_two_workers_train_together(tmp_path, tokenizer):
    (tmp_path / "model").mkdir()
    bpe.save(tokenizer, tmp_path / "model")
    recipe = Recipe(minutes=0.01, workers=2, batch=4, save_every=1, run=tmp_path)
    multiprocessing.spawn(work, (recipe,), 2)
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert saved["step"] >= 1
    assert saved["seconds"] >= 0.6


def test_learning_rate_warms_up_and_decays():
    rates = [learning_rate(p, 1.0) for p in np.linspace(0, 1, 101)]
    assert rates[0] < 0.05
    assert max(rates) > 0.95
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[2:60] == [1.0] * 58
    assert rates[-1] == pytest.approx(0.02)


def test_a_run_learns_and_resumes(tmp_path, tokenizer):
    torch.manual_seed(0)
    (tmp_path / "model").mkdir()
    bpe.save(tokenizer, tmp_path / "model")
    recipe = Recipe(minutes=0.02, workers=1, batch=4, save_every=1000, run=tmp_path)
    first = Run(recipe)
    first.train()
    assert first.step > 0
    second = Run(recipe)
    assert second.step == first.step
    for name, weights in second.model.state_dict().items():
        assert torch.equal(weights, first.model.state_dict()[name])
    assert load(tmp_path / "model").config == ModelConfig()
