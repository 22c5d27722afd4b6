/* What stands between the matrix products, in bfloat16: computed in float32, rounded once. */
#include <math.h>
#include <string.h>
#include "bfloat16.h"

const char *kernels_version = KERNELS_VERSION; /* of all sources, see build.py */

/* total = x + residual; normed = total / sqrt(mean(total²) + eps) · weight. Without a residual, total is not written. */
void rms_norm(const bf16 *x, const bf16 *residual, const bf16 *weight, bf16 *normed, bf16 *total, int64_t rows,
              int64_t width, int64_t stride, double eps) {
#pragma omp parallel for
    for (int64_t row = 0; row < rows; row++) {
        const bf16 *from = x + row * stride;
        __m512 squares = _mm512_setzero_ps();
        if (residual) {
            const bf16 *other = residual + row * width;
            for (int64_t d = 0; d < width; d += 16) store16(total + row * width + d, load16(from + d) + load16(other + d));
            from = total + row * width;
        }
        for (int64_t d = 0; d < width; d += 16) {
            const __m512 value = load16(from + d);
            squares = _mm512_fmadd_ps(value, value, squares);
        }
        const float mean = _mm512_reduce_add_ps(squares) / (float)width;
        const __m512 factor = _mm512_set1_ps(1 / sqrtf(mean + (float)eps));
        for (int64_t d = 0; d < width; d += 16)
            store16(normed + row * width + d, load16(from + d) * factor * load16(weight + d));
    }
}

/* The halves of a head rotated by cos and sin [D / 2], after its norm where there is a weight; in place, too. */
static inline void rotate_head(const bf16 *from, bf16 *to, const bf16 *cos, const bf16 *sin, const bf16 *weight,
                               int64_t width, float eps) {
    const int64_t half = width / 2;
    __m512 squares = _mm512_setzero_ps(), factor = _mm512_set1_ps(1);
    for (int64_t d = 0; weight && d < width; d += 16) squares = _mm512_fmadd_ps(load16(from + d), load16(from + d), squares);
    if (weight) factor = _mm512_set1_ps(1 / sqrtf(_mm512_reduce_add_ps(squares) / (float)width + eps));
    for (int64_t d = 0; d < half; d += 16) {
        __m512 a = load16(from + d), b = load16(from + half + d);
        if (weight) a *= factor * load16(weight + d), b *= factor * load16(weight + half + d);
        const __m512 c = load16(cos + d), s = load16(sin + d);
        store16(to + d, a * c - b * s);
        store16(to + half + d, b * c + a * s);
    }
}

/* Of heads [T, Hq + 2 Hkv, D] the queries are rotated in place by cos and sin [T, D / 2], the keys into slot slots[t] of
   the caches, and the values stored there; queries and keys are normalized first where there are weights. */
void rotate_and_store(bf16 *heads, const bf16 *cos, const bf16 *sin, const bf16 *q_norm, const bf16 *k_norm, bf16 *k_cache,
                      bf16 *v_cache, const int64_t *slots, int64_t rows, int64_t q_heads, int64_t kv_heads, int64_t width,
                      double eps) {
    const int64_t half = width / 2, stored = kv_heads * width;
#pragma omp parallel for
    for (int64_t row = 0; row < rows; row++) {
        bf16 *q = heads + row * (q_heads + 2 * kv_heads) * width, *k = q + q_heads * width;
        const bf16 *c = cos + row * half, *s = sin + row * half;
        for (int64_t head = 0; head < q_heads; head++)
            rotate_head(q + head * width, q + head * width, c, s, q_norm, width, (float)eps);
        for (int64_t head = 0; head < kv_heads; head++)
            rotate_head(k + head * width, k_cache + slots[row] * stored + head * width, c, s, k_norm, width, (float)eps);
        if (kv_heads) memcpy(v_cache + slots[row] * stored, k + stored, (size_t)stored * sizeof(bf16));
    }
}

/* out [T, I] = silu(gate) · up of gate_up [T, 2 I] */
void silu_and_mul(const bf16 *gate_up, bf16 *out, int64_t rows, int64_t width) {
    const __m512 one = _mm512_set1_ps(1), minus_log2_e = _mm512_set1_ps(-1.4426950408889634f);
#pragma omp parallel for
    for (int64_t row = 0; row < rows; row++)
        for (int64_t d = 0; d < width; d += 16) {
            const __m512 gate = load16(gate_up + 2 * row * width + d), up = load16(gate_up + (2 * row + 1) * width + d);
            const __m512 power = _mm512_min_ps(gate * minus_log2_e, _mm512_set1_ps(126));
            store16(out + row * width + d, gate / (one + exp2_16(power)) * up);
        }
}

/* Slots source[i] of the caches, `width` numbers each, to slots target[i]; no slot is in both */
void kv_copy(bf16 *k_cache, bf16 *v_cache, const int64_t *source, const int64_t *target, int64_t slots, int64_t width) {
#pragma omp parallel for
    for (int64_t i = 0; i < slots; i++) {
        memcpy(k_cache + target[i] * width, k_cache + source[i] * width, (size_t)width * sizeof(bf16));
        memcpy(v_cache + target[i] * width, v_cache + source[i] * width, (size_t)width * sizeof(bf16));
    }
}
