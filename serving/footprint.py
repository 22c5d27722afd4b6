"""How much memory a model will take, told from its files before it is loaded, and how much a process has."""

from __future__ import annotations

import json
import os
from importlib.resources import files
from pathlib import Path
from typing import Any

from spark_llm.serving.core import ModelRef

KV_SHARE = 0.25
"""Share of the host's memory that a KV cache may take by default; of a GPU's free memory, twice as much."""
MAX_DEFAULT_KV_TOKENS = 1 << 17
BUDGET_SHARE = 0.8
"""Share of the machine's, or the container's, memory that a worker may take by default."""
RUNTIME_BYTES = {"endpoint": 100 << 20, "stub": 60 << 20, "native": 500 << 20, "vllm": 1500 << 20}
VLLM_KV_BYTES = 2 << 30
CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def host_memory() -> int:
    """Bytes of memory of this machine, or of this container where it has a limit."""
    sizes = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for file in CGROUP_LIMITS:
        try:
            sizes.append(int(Path(file).read_text()))
        except (OSError, ValueError):  # absent, or `max`
            continue
    return min(sizes)


def resident_bytes(pid: int) -> int:
    """Memory that a process has in use; 0 where it cannot be told."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) << 10
    except (OSError, ValueError, IndexError):
        return 0
    return 0


def footprint(model: ModelRef, *, on_gpu: bool = False) -> int:
    """Bytes of host memory that a replica of `model` will need: runtime, weights and KV cache.

    Unknown directories count as a runtime only: the engine says in its own words what is wrong with them.
    """
    runtime = RUNTIME_BYTES.get(model.engine, RUNTIME_BYTES["native"])
    if model.engine in ("endpoint", "stub"):
        return runtime + _count(model.args.get("memory_bytes"))
    directory = _directory(model.name)
    weights = sum(file.stat().st_size for file in directory.glob("*.safetensors")) if directory.is_dir() else 0
    return runtime if on_gpu else runtime + weights + _kv_bytes(model, _read(directory / "config.json"))


def _kv_bytes(model: ModelRef, config: dict[str, Any]) -> int:
    config = config.get("text_config") or config
    heads = _count(config.get("num_attention_heads"))
    head_dim = _count(config.get("head_dim")) or _count(config.get("hidden_size")) // max(1, heads)
    kv_heads = _count(config.get("num_key_value_heads")) or heads
    item = 4 if model.args.get("dtype") == "float32" else 2
    per_token = 2 * _count(config.get("num_hidden_layers")) * kv_heads * head_dim * item
    tokens = _count(model.args.get("kv_tokens"))
    if not per_token or tokens:
        return per_token * tokens
    if model.engine == "vllm":
        return VLLM_KV_BYTES
    return min(int(host_memory() * KV_SHARE), per_token * MAX_DEFAULT_KV_TOKENS)


def _directory(name: str) -> Path:
    return Path(str(files("spark_llm") / "default_model")) if name == "default" else Path(name)


def _read(file: Path) -> dict[str, Any]:
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return raw if isinstance(raw, dict) else {}


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0
