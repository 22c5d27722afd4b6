/* The next token of each row, see masked_sample.py: greedy or drawn by noise, under a bit mask and within a nucleus. */
#include <math.h>
#include <stdlib.h>
#include "bfloat16.h"

enum { BISECTIONS = 30 }; /* as in masked_sample.py */
#define MOST_NOISE 16.7f /* of 23 bits */

static inline __m512i mix(__m512i x) {
    x = _mm512_mullo_epi32(_mm512_xor_si512(x, _mm512_srli_epi32(x, 16)), _mm512_set1_epi32(0x7feb352d));
    x = _mm512_mullo_epi32(_mm512_xor_si512(x, _mm512_srli_epi32(x, 15)), _mm512_set1_epi32((int)0x846ca68bu));
    return _mm512_xor_si512(x, _mm512_srli_epi32(x, 16));
}

/* Natural logarithm of positive normal numbers, within 1e-6 of it, relatively near 1, too: 2 artanh((m - 1) / (m + 1)). */
static inline __m512 log16(__m512 x) {
    const __m512 m = _mm512_getmant_ps(x, _MM_MANT_NORM_p75_1p5, _MM_MANT_SIGN_src), one = _mm512_set1_ps(1);
    const __m512 e = _mm512_getexp_ps(x);
    const __m512 whole = _mm512_mask_add_ps(e, _mm512_cmp_ps_mask(m, one, _CMP_LT_OQ), e, one);
    const __m512 s = (m - one) / (m + one), square = s * s;
    __m512 sum = _mm512_set1_ps(2.0f / 11);
    for (int i = 9; i > 0; i -= 2) sum = _mm512_fmadd_ps(sum, square, _mm512_set1_ps(2.0f / (float)i));
    return _mm512_fmadd_ps(whole, _mm512_set1_ps(0.69314718056f), sum * s);
}

/* Gumbel's noise of sixteen tokens from `first` on */
static inline __m512 noise16(int first, uint64_t key) {
    const __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const __m512i tokens = _mm512_add_epi32(lanes, _mm512_set1_epi32(first));
    const __m512i spread = _mm512_mullo_epi32(tokens, _mm512_set1_epi32((int)0x9e3779b1u));
    const __m512i low = _mm512_set1_epi32((int)key), high = _mm512_set1_epi32((int)(key >> 32));
    const __m512i bits = mix(_mm512_xor_si512(mix(_mm512_add_epi32(spread, low)), high));
    const __m512 uniform = (_mm512_cvtepi32_ps(_mm512_srli_epi32(bits, 9)) + 0.5f) * 0x1p-23f;
    const __m512 zero = _mm512_setzero_ps();
    return zero - log16(zero - log16(uniform));
}

typedef struct {
    const float *logits;
    const int32_t *mask; /* or none */
    int64_t vocab;
} Row;

/* Logits of sixteen tokens from `at` on, -inf for those that may not be taken. */
static inline __m512 allowed16(const Row *row, int64_t at) {
    const int64_t left = row->vocab - at;
    __mmask16 taken = left >= 16 ? 0xffff : (__mmask16)((1u << left) - 1);
    if (row->mask) taken &= (__mmask16)((uint32_t)row->mask[at / 32] >> (at % 32));
    return _mm512_mask_loadu_ps(_mm512_set1_ps(-INFINITY), taken, row->logits + at);
}

/* Fill the weights, relative to the greatest; returns the least of the fewest tokens whose probabilities reach `wanted`. */
static float least_of_nucleus(const Row *row, float temperature, float wanted, float *weights) {
    __m512 top = _mm512_set1_ps(-INFINITY), sum = _mm512_setzero_ps();
    for (int64_t at = 0; at < row->vocab; at += 16) top = _mm512_max_ps(top, allowed16(row, at));
    const float highest = _mm512_reduce_max_ps(top), factor = 1.4426950408889634f / temperature;
    for (int64_t at = 0; at < row->vocab; at += 16) {
        const __m512 weight = exp2_16((allowed16(row, at) - highest) * factor);
        _mm512_storeu_ps(weights + at, weight);
        sum += weight;
    }
    const float goal = wanted * _mm512_reduce_add_ps(sum);
    float low = 0, high = 1;
    for (int i = 0; i < BISECTIONS; i++) {
        const float middle = (low + high) / 2;
        sum = _mm512_setzero_ps();
        for (int64_t at = 0; at < row->vocab; at += 16) {
            const __m512 weight = _mm512_loadu_ps(weights + at);
            const __mmask16 kept = _mm512_cmp_ps_mask(weight, _mm512_set1_ps(middle), _CMP_GE_OQ);
            sum = _mm512_mask_add_ps(sum, kept, sum, weight);
        }
        if (_mm512_reduce_add_ps(sum) >= goal) low = middle;
        else high = middle;
    }
    return low;
}

static int64_t sample(const Row *row, float temperature, float top_p, uint64_t key, float *weights) {
    const int cut = temperature > 0 && top_p < 1;
    const float least = cut ? least_of_nucleus(row, temperature, top_p, weights) : 0;
    __m512 best = _mm512_set1_ps(-INFINITY);
    __m512i best_at = _mm512_setzero_si512();
    float bound = -INFINITY; /* the best of all lanes */
    for (int64_t at = 0; at < row->vocab; at += 16) {
        __m512 value = allowed16(row, at);
        if (temperature > 0) {
            if (cut) {
                const __mmask16 kept = _mm512_cmp_ps_mask(_mm512_loadu_ps(weights + at), _mm512_set1_ps(least), _CMP_GE_OQ);
                value = _mm512_mask_mov_ps(_mm512_set1_ps(-INFINITY), kept, value);
            }
            value = value / _mm512_set1_ps(temperature);
            if (!_mm512_cmp_ps_mask(value, _mm512_set1_ps(bound - MOST_NOISE), _CMP_GT_OQ)) continue; /* no noise helps */
            value += noise16((int)at, key);
        }
        const __mmask16 better = _mm512_cmp_ps_mask(value, best, _CMP_GT_OQ);
        if (!better) continue;
        best = _mm512_mask_mov_ps(best, better, value);
        best_at = _mm512_mask_mov_epi32(best_at, better, _mm512_set1_epi32((int)at));
        bound = _mm512_reduce_max_ps(best);
    }
    float values[16];
    int32_t starts[16];
    _mm512_storeu_ps(values, best);
    _mm512_storeu_si512(starts, best_at);
    int64_t token = row->vocab;
    for (int lane = 0; lane < 16; lane++)
        if (values[lane] == bound && starts[lane] + lane < token) token = starts[lane] + lane;
    return token;
}

void masked_sample(const float *logits, const int32_t *masks, const int64_t *mask_of, const float *temperature,
                   const float *top_p, const uint64_t *keys, int64_t *tokens, int64_t rows, int64_t vocab, int64_t words) {
    const size_t bytes = (size_t)(vocab + 15) / 16 * 16 * sizeof(float);
#pragma omp parallel
    {
        float *weights = malloc(bytes);
#pragma omp for schedule(dynamic, 4)
        for (int64_t i = 0; i < rows; i++) {
            const Row row = {logits + i * vocab, mask_of[i] < 0 ? 0 : masks + mask_of[i] * words, vocab};
            tokens[i] = sample(&row, temperature[i], top_p ? top_p[i] : 1, keys[i], weights);
        }
        free(weights);
    }
}
