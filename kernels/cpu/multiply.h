/* The tile of a matrix product that fills the registers. */
#pragma once
#include "bfloat16.h"

enum { TILE = 6 };

/* For the first `rows` m: c[m][0:16 n] += Σ over `depth` pairs of a[m][i] · b[i][0:16 n], from 0 if `fresh`; the rows of b
   and c are b_stride and c_stride words apart. */
static inline __attribute__((always_inline)) void multiply(
    const uint32_t *const a[TILE], const uint32_t *b, float *c, int64_t depth, int64_t b_stride, int64_t c_stride,
    const int rows, const int n, const int fresh
) {
    __m512 sums[TILE][4];
    for (int m = 0; m < rows; m++)
        for (int j = 0; j < n; j++)
            sums[m][j] = fresh ? _mm512_setzero_ps() : _mm512_loadu_ps(c + m * c_stride + 16 * j);
    for (int64_t i = 0; i < depth; i++) {
        __m512bh columns[4];
        for (int j = 0; j < n; j++) columns[j] = (__m512bh)_mm512_loadu_si512(b + i * b_stride + 16 * j);
        for (int m = 0; m < rows; m++) {
            const __m512bh pair = (__m512bh)_mm512_set1_epi32((int)a[m][i]);
            for (int j = 0; j < n; j++) sums[m][j] = _mm512_dpbf16_ps(sums[m][j], pair, columns[j]);
        }
    }
    for (int m = 0; m < rows; m++)
        for (int j = 0; j < n; j++) _mm512_storeu_ps(c + m * c_stride + 16 * j, sums[m][j]);
}
