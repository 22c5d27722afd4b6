"""Seconds from the start of a process to a native engine that is ready: the embedded model, and 0.5 billion parameters.

    python benchmarks/load.py --json

The larger checkpoint has random bfloat16 weights in the shapes of Qwen2.5-0.5B and is written to a temporary folder; it
is read from the page cache. Each figure is the median of the runs, imports of Python and torch included.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from spark_llm.serving.models.directory import find_model
from torch import Tensor

CONFIG: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "vocab_size": 151936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 4096,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "eos_token_id": 2,
}
READY = """if True:
    import sys
    from spark_llm.serving.core import ModelRef
    from spark_llm.serving.engines import create_engine
    create_engine(ModelRef(sys.argv[1], "native", "", {"kv_tokens": 16384}))
    """


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one JSON line instead of a table")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        parameters = write_checkpoint(Path(folder))
        line = {
            "default_s": ready(["default"] * arguments.runs),
            "half_billion_s": ready([folder] * arguments.runs),
            "parameters": parameters,
        }
    results = Path(__file__).resolve().parent / "results"
    with (results / "load.jsonl").open("a") as out:
        out.write(json.dumps(line) + "\n")
    print(json.dumps(line) if arguments.json else "\n".join(f"{k:>16}  {v}" for k, v in line.items()))


def ready(models: list[str]) -> float:
    times = []
    for model in models:
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", READY, model], check=True)
        times.append(time.perf_counter() - begin)
    return round(statistics.median(times), 2)


def write_checkpoint(folder: Path) -> int:
    """Write config, random weights and the embedded model's tokenizer; returns the number of parameters."""
    (folder / "config.json").write_text(json.dumps(CONFIG))
    for file in find_model("default").glob("tokenizer*.json"):
        shutil.copy(file, folder)
    weights = dict(_weights())
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return sum(weight.numel() for weight in weights.values())


def _weights() -> Iterator[tuple[str, Tensor]]:
    hidden, inner = CONFIG["hidden_size"], CONFIG["intermediate_size"]
    width, kv_width = (CONFIG[name] * CONFIG["head_dim"] for name in ("num_attention_heads", "num_key_value_heads"))
    yield "model.embed_tokens.weight", _random(CONFIG["vocab_size"], hidden)
    yield "model.norm.weight", _random(hidden)
    for i in range(CONFIG["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        for name, rows in (("q", width), ("k", kv_width), ("v", kv_width)):
            yield f"{layer}.self_attn.{name}_proj.weight", _random(rows, hidden)
            yield f"{layer}.self_attn.{name}_proj.bias", _random(rows)
        yield f"{layer}.self_attn.o_proj.weight", _random(hidden, width)
        yield f"{layer}.mlp.gate_proj.weight", _random(inner, hidden)
        yield f"{layer}.mlp.up_proj.weight", _random(inner, hidden)
        yield f"{layer}.mlp.down_proj.weight", _random(hidden, inner)
        yield f"{layer}.input_layernorm.weight", _random(hidden)
        yield f"{layer}.post_attention_layernorm.weight", _random(hidden)


def _random(*shape: int) -> Tensor:
    """A long run of random numbers again and again: their values do not matter here."""
    numbers = torch.randn(1 << 16).bfloat16().mul_(0.02)
    return numbers.repeat(-(-math.prod(shape) // len(numbers)))[: math.prod(shape)].view(shape).clone()


if __name__ == "__main__":
    main()
