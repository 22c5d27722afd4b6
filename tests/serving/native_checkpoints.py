"""Tiny random checkpoints of each family, written by transformers, and a tiny byte-level tokenizer."""

import json
from pathlib import Path

import numpy as np
import tokenizers
import torch
import transformers
from spark_llm.serving.core import Call, Constraint, ModelRef, Request
from spark_llm.serving.scheduler.sequence import Sequence
from tokenizers import decoders, models, pre_tokenizers, trainers

TEXT = [
    "Is the review positive or negative? Answer true or false.",
    '"review": "A warm and funny film with a great cast",\n"title": "The Lighthouse",\n',
    "The quick brown fox jumps over the lazy dog 0123456789 {}[]:,\"' – naïve café",
]
SHAPE = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": None,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "rope_theta": 1000.0, "factor": 4.0, "original_max_position_embeddings": 128}
SLIDING = {"sliding_window": 24, "head_dim": 8}
GEMMA3_ROPE = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
    "full_attention": {"rope_type": "linear", "rope_theta": 5000.0, "factor": 2.0},
}
MOE = {"num_experts_per_tok": 2, "num_local_experts": 6}
FAMILIES = {
    "llama": ("LlamaConfig", {}),
    "llama2": ("LlamaConfig", {"num_key_value_heads": 4, "rms_norm_eps": 1e-5}),
    "llama-biased": ("LlamaConfig", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    "llama3": ("LlamaConfig", {"rope_parameters": LLAMA3}),
    "llama-linear": (
        "LlamaConfig",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}},
    ),
    "qwen2": ("Qwen2Config", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3Config", {"head_dim": 16}),
    "llama-yarn": ("LlamaConfig", {"rope_parameters": YARN}),
    "llama-dynamic": (
        "LlamaConfig",
        {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1000.0, "factor": 2.0}},
    ),
    "qwen2-sliding": ("Qwen2Config", {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1}),
    "mistral": ("MistralConfig", SLIDING),
    "mistral-whole": ("MistralConfig", {"sliding_window": None, "head_dim": 16}),
    "mixtral": ("MixtralConfig", MOE | {"sliding_window": 24}),
    "qwen3-moe": (
        "Qwen3MoeConfig",
        {**MOE, "num_experts": 6, "moe_intermediate_size": 24, "mlp_only_layers": [1], "norm_topk_prob": True},
    ),
    "gemma": ("GemmaConfig", {"head_dim": 16}),
    "gemma2": ("Gemma2Config", SLIDING | {"query_pre_attn_scalar": 20}),
    "gemma3": (
        "Gemma3TextConfig",
        SLIDING
        | {
            "query_pre_attn_scalar": 12,
            "rope_parameters": GEMMA3_ROPE,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
}
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def train_tokenizer() -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return tokenizer


def write_checkpoint(directory: Path, family: str = "llama", *, shard: str | None = None, **changes) -> Path:
    """A checkpoint with weights large enough that greedy answers depend on the whole prompt."""
    name, special = FAMILIES[family]
    torch.manual_seed(len(family))
    config = getattr(transformers, name)(**(SHAPE | special | changes))
    model = transformers.AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2 if parameter.dim() > 1 else 0.5)
    model.save_pretrained(directory, **({"max_shard_size": shard} if shard else {}))
    train_tokenizer().save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps({"chat_template": CHATML}))
    return directory


def oracle(directory: Path, dtype: torch.dtype = torch.float32):
    """The checkpoint in transformers."""
    load = transformers.AutoModelForCausalLM.from_pretrained
    return load(directory, dtype=dtype, attn_implementation="eager").eval()


def oracle_greedy(model, prompt: list[int], count: int) -> list[int]:
    ids = torch.tensor([prompt])
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False, pad_token_id=0
    )
    return [t for t in out[0, len(prompt) :].tolist() if t != 1]


def engine_for(directory: Path, **args):
    from spark_llm.serving.engines.native import NativeEngine

    return NativeEngine(ModelRef(str(directory), args={"dtype": "float32", "kv_tokens": 4096, "threads": 1, **args}))


def requests_for(call: Call, rows: list[tuple[str, ...]], first_id: int = 0, seed: int | None = None) -> list[Request]:
    return [Request(first_id + i, call, row, seed=seed) for i, row in enumerate(rows)]


def drain(engine, *, check: bool = True) -> dict:
    finished = {}
    while engine.has_work():
        finished |= {f.request_id: f for f in engine.step()}
        if check:
            engine.check_integrity()
    return finished


def logits_of(engine, prompts: list[list[int]]) -> torch.Tensor:
    """The engine's logits [n, vocab] behind these tokens, asked for together."""
    found = {}
    for i, prompt in enumerate(prompts):
        engine._scheduler.add(Sequence(i, np.array(prompt, np.int32), 1))
    while engine._scheduler.has_work():
        for chunk, row in zip(*engine._runner.run(engine._scheduler.schedule()), strict=True):
            found[chunk.sequence.request_id] = row
            engine._scheduler.finish(chunk.sequence)
    return torch.stack([found[i] for i in range(len(prompts))])


def trie_size(prompts: list[list[int]]) -> int:
    """Distinct prefixes of the prompts."""
    return len({tuple(prompt[:i]) for prompt in prompts for i in range(1, len(prompt) + 1)})


def constrained(kind: str, value, **options) -> Call:
    return Call("c", "Question", constraint=Constraint(kind, value), **options)
