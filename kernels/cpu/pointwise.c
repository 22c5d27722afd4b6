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

/* out [T, H, D]: the halves of x [T, H, D], whose rows are `stride` numbers apart, rotated by cos and sin [T, D / 2] */
void rotate(const bf16 *x, const bf16 *cos, const bf16 *sin, bf16 *out, int64_t rows, int64_t heads, int64_t width,
            int64_t stride) {
    const int64_t half = width / 2;
#pragma omp parallel for
    for (int64_t row = 0; row < rows; row++)
        for (int64_t head = 0; head < heads; head++) {
            const bf16 *from = x + row * stride + head * width;
            bf16 *to = out + (row * heads + head) * width;
            for (int64_t d = 0; d < half; d += 16) {
                const __m512 a = load16(from + d), b = load16(from + half + d);
                const __m512 c = load16(cos + row * half + d), s = load16(sin + row * half + d);
                store16(to + d, a * c - b * s);
                store16(to + half + d, b * c + a * s);
            }
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

/* Row t of k and v, `width` numbers whose rows are k_stride and v_stride apart, to slot slots[t] of the caches */
void kv_store(const bf16 *k, const bf16 *v, bf16 *k_cache, bf16 *v_cache, const int64_t *slots, int64_t rows,
              int64_t width, int64_t k_stride, int64_t v_stride) {
#pragma omp parallel for
    for (int64_t row = 0; row < rows; row++) {
        memcpy(k_cache + slots[row] * width, k + row * k_stride, (size_t)width * sizeof(bf16));
        memcpy(v_cache + slots[row] * width, v + row * v_stride, (size_t)width * sizeof(bf16));
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
