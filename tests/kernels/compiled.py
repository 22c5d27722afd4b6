"""Compiles every Triton kernel to machine code of an H200 with the shapes of an 8B model; needs no GPU.

Run as a program by test_gpu_kernels.py: prints one JSON object, from the name of each kernel to what its code contains.
"""

import json

import triton
from spark_llm.kernels.gpu import (
    decode_attention,
    kv_store,
    masked_sample,
    merge,
    rms_norm,
    rotary,
    segment_attention,
    silu_and_mul,
)
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

BF16, FP32, INT32, INT64 = "*bf16", "*fp32", "*i32", "*i64"
HEADS = {"KV_HEADS": 8, "GROUP": 4, "D": 128, "P": 16, "BLOCK_D": 128}
FREE = {"SOFTCAP": False, "WINDOW": False}
CACHE = {"q": BF16, "k_cache": BF16, "v_cache": BF16, "lse": FP32, "tables": INT32}
SCALARS = {"scale": "fp32", "softcap": "fp32", "eps": "fp32"}


def compiled(kernel, pointers, constants, **options):
    """Counts of instructions; integers are 32 bits wide and, but for counts, divisible by 16."""
    names = kernel.arg_names
    kinds = {n: pointers.get(n) or SCALARS.get(n) or ("constexpr" if n in constants else "i32") for n in names}
    aligned = [i for i, n in enumerate(names) if n in pointers or n.endswith("stride") or n == "width"]
    source = ASTSource(
        kernel,
        kinds,
        {(names.index(n),): value for n, value in constants.items()},
        {(i,): [["tt.divisibility", 16]] for i in aligned},
    )
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    code = made.asm["ptx"]
    counts = {name: code.count(name) for name in ("wgmma.mma_async", "mma.sync", "cp.async.cg")}
    return {**counts, "shared": made.metadata.shared, "machine_code": len(made.asm["cubin"])}


def main():
    row = {"x": BF16, "out": BF16}
    segment = CACHE | {"out": BF16, "segments": INT32, "blocks": INT32}
    shapes = {name: segment_attention.block_shape(128, 4, rows) for name, rows in (("extend", 2048), ("shared", 4))}
    made = {
        "rms_norm": compiled(
            rms_norm._rms_norm_kernel,
            row | {"residual": BF16, "weight": BF16, "total": BF16},
            {"ADD": True, "BLOCK": 4096},
            num_warps=16,
        ),
        "rotary": compiled(
            rotary._rotate_kernel, row | {"cos": BF16, "sin": BF16}, {"HALF": 64, "BLOCK_H": 32, "BLOCK_D": 64}
        ),
        "silu_and_mul": compiled(
            silu_and_mul._gate_kernel, {"gate_up": BF16, "out": BF16}, {"GELU": False, "BLOCK": silu_and_mul.BLOCK}
        ),
        "kv_store": compiled(
            kv_store._store_kernel,
            {"k": BF16, "v": BF16, "k_cache": BF16, "v_cache": BF16, "slots": INT64},
            {"BLOCK": 1024},
        ),
        "masked_sample": compiled(
            masked_sample._masked_sample_kernel,
            {"logits": FP32, "masks": INT32, "mask_of": INT64, "temperature": FP32, "keys": INT32, "tokens": INT64},
            {"BLOCK": masked_sample.BLOCK},
        ),
        "merge": compiled(
            merge._merge_kernel, {"parts": FP32, "lse": FP32, "out": BF16}, {"D": 128, "BLOCK_D": 128}, num_warps=1
        ),
        "decode": compiled(
            decode_attention._decode_kernel,
            CACHE | {"out": FP32, "firsts": INT32, "lengths": INT32},
            HEADS
            | {"SPLITS": 4, "BLOCK_M": 16, "BLOCK_N": decode_attention.BLOCK_N, "SOFTCAP": False, "WINDOW": False},
            num_stages=3,
        ),
    }
    for name, (block_m, block_n, warps, stages) in shapes.items():
        constants = HEADS | FREE | {"BLOCK_M": block_m, "BLOCK_N": block_n}
        made[name] = compiled(segment_attention._segment_kernel, segment, constants, num_warps=warps, num_stages=stages)
    print(json.dumps(made))


if __name__ == "__main__":
    main()
