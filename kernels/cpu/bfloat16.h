/* Sixteen bfloat16 numbers as floats and back, and 2 to their power. */
#pragma once
#include <immintrin.h>
#include <stdint.h>

typedef uint16_t bf16;

static inline __m512 load16(const bf16 *x) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)x)), 16));
}

static inline void store16(bf16 *x, __m512 value) {
    _mm256_storeu_si256((__m256i *)x, (__m256i)_mm512_cvtneps_pbh(value));
}

static inline float to_float(bf16 x) {
    union { uint32_t bits; float value; } cast = {(uint32_t)x << 16};
    return cast.value;
}

/* Rounded to the nearest, ties to even; finite numbers only. */
static inline bf16 to_bf16(float value) {
    union { float value; uint32_t bits; } cast = {value};
    return (bf16)((cast.bits + 0x7fff + ((cast.bits >> 16) & 1)) >> 16);
}

/* 2^x, within 3e-6 of it; 0 below the smallest normal float. */
static inline __m512 exp2_16(__m512 x) {
    const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512 part = _mm512_sub_ps(x, whole); /* in [-1/2, 1/2]: Taylor's series of exp(part ln 2) */
    __m512 sum = _mm512_set1_ps(1.3333558e-3f);
    sum = _mm512_fmadd_ps(sum, part, _mm512_set1_ps(9.6181291e-3f));
    sum = _mm512_fmadd_ps(sum, part, _mm512_set1_ps(5.5504109e-2f));
    sum = _mm512_fmadd_ps(sum, part, _mm512_set1_ps(0.24022651f));
    sum = _mm512_fmadd_ps(sum, part, _mm512_set1_ps(0.69314718f));
    sum = _mm512_fmadd_ps(sum, part, _mm512_set1_ps(1.0f));
    const __mmask16 held = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-126.0f), _CMP_GE_OQ);
    return _mm512_maskz_scalef_ps(held, sum, whole);
}
