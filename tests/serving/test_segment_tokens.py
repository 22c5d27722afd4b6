"""Prompts tokenized in segments beside the same prompts tokenized whole, over real tables and kinds of tokenizers."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import tokenizers
from spark_llm.optimizer.columns import encode_window
from spark_llm.optimizer.core import CallSpec, Field
from spark_llm.optimizer.layout import lay_out
from spark_llm.optimizer.prompts import prepare
from spark_llm.serving.core import Call, Request
from spark_llm.serving.models.directory import find_model
from spark_llm.serving.prompt import PromptComposer
from spark_llm.serving.tokenizer import Tokenizer
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

from tests.serving.native_checkpoints import CHATML

DATA = Path(__file__).parents[3] / "shared" / "data"
TABLES = ("movies_15000x8", "movies_authors_1019x5", "xquad_rag_1190x6", "climate_fever_1535")
ROWS = 200
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Its pre-tokenizer's pattern; Qwen's differs in numbers alone."""
SPLITS = {
    "gpt2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "llama3": pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(LLAMA3), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    ),
}


def write_tokenizer(folder: Path, kind: str, texts: list[str]) -> Path:
    """A tokenizer that cuts texts as those of that family do, trained on the table."""
    bpe = models.BPE(byte_fallback=True) if kind == "llama2" else models.BPE()
    tokenizer, alphabet = tokenizers.Tokenizer(bpe), pre_tokenizers.ByteLevel.alphabet()
    if kind == "llama2":  # no cuts, a space before every text, bytes for what the vocabulary lacks
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        alphabet, texts = [], [word for text in texts for word in text.split()]
    else:
        tokenizer.pre_tokenizer, tokenizer.decoder = SPLITS[kind], decoders.ByteLevel()
    bytes_ = [f"<0x{i:02X}>" for i in range(256)] if kind == "llama2" else []
    trainer = trainers.BpeTrainer(
        vocab_size=3000,
        special_tokens=["<|im_start|>", "<|im_end|>", *bytes_],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": CHATML}))
    return folder


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("kind", ["embedded", "gpt2", "llama3", "llama2"])
def test_segments_take_as_many_tokens_as_whole_prompts(tmp_path, table, kind):
    if not (DATA / f"{table}.parquet").exists():
        pytest.skip("the measured tables are not here")
    rows = pq.read_table(DATA / f"{table}.parquet").slice(0, ROWS)
    prompt = prepare(CallSpec("llm_filter", "Is it true?", tuple(map(Field, rows.column_names)), {}, "boolean", {}))
    columns = [column.combine_chunks().cast("string") for column in rows.columns]
    _, segments = lay_out(encode_window(prompt, columns))
    texts = ["".join(pieces) for pieces in segments]
    directory = find_model("default") if kind == "embedded" else write_tokenizer(tmp_path, kind, texts)
    tokenizer, call = Tokenizer(directory), Call.from_dict(prompt.call)
    composer = PromptComposer(directory, tokenizer)
    before, after = composer.template.split(call.system)
    in_segments = sum(len(composer.compose(Request(i, call, pieces))) for i, pieces in enumerate(segments))
    whole = [before + call.instruction + text + after for text in texts]
    canonical = sum(map(len, tokenizer.encode_pieces(whole, markup=True)))
    assert in_segments <= 1.02 * canonical
