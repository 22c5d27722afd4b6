/* Attention of segments (rows of a step over runs of paged keys, see segments.py) in bfloat16 with float32 sums.

   Flash attention (Dao, arXiv 2307.08691) with all query heads of a KV head together: a block of keys and values is
   packed once into pairs of bfloat16, as the dot-product instruction wants them, and multiplied with tiles of six
   query vectors. What a row has seen of its shared runs (maximum, sum, accumulator) stays in `state` for the next of its
   segments; the one that begins with key 0 is the first, its own one the last, which writes the result. */
#include <math.h>
#include <string.h>
#include "multiply.h"

enum { KEYS = 128, AHEAD = 16 /* keys */, WIDEST = 256 };

typedef struct {
    const bf16 *q, *k_cache, *v_cache;
    bf16 *out;
    float *highest, *total, *sums; /* [Hkv, T, group], the same, and [Hkv, T, group, D] */
    const int32_t *tables;
    int64_t q_stride, table_stride, page_stride, rows;
    int heads, kv_heads, width, page_size;
    int window; /* keys that a row sees, 0 for all */
    float scale, softcap;
} Job;

/* The first n of sixteen. */
static inline __mmask16 first_of_16(int n) { return n >= 16 ? 0xffff : n <= 0 ? 0 : (__mmask16)((1u << n) - 1); }

/* a [16][16] of 32-bit words, rows `from` to columns at `to`, whose rows are `stride` words apart */
static inline void transpose16(const uint32_t *const from[16], uint32_t *to, int stride) {
    __m512i r[16], t[16];
    for (int i = 0; i < 16; i++) r[i] = _mm512_loadu_si512(from[i]);
    for (int i = 0; i < 8; i++) {
        t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 2; j++) {
            r[4 * i + 2 * j] = _mm512_unpacklo_epi64(t[4 * i + j], t[4 * i + 2 + j]);
            r[4 * i + 2 * j + 1] = _mm512_unpackhi_epi64(t[4 * i + j], t[4 * i + 2 + j]);
        }
    for (int i = 0; i < 4; i++) { /* r[4 g + i]: column i of every quarter, of rows 4 g to 4 g + 3 */
        const __m512i a = _mm512_shuffle_i32x4(r[i], r[4 + i], 0x88), b = _mm512_shuffle_i32x4(r[i], r[4 + i], 0xdd);
        const __m512i c = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0x88);
        const __m512i d = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0xdd);
        _mm512_storeu_si512(to + (i + 0) * stride, _mm512_shuffle_i32x4(a, c, 0x88));
        _mm512_storeu_si512(to + (i + 4) * stride, _mm512_shuffle_i32x4(b, d, 0x88));
        _mm512_storeu_si512(to + (i + 8) * stride, _mm512_shuffle_i32x4(a, c, 0xdd));
        _mm512_storeu_si512(to + (i + 12) * stride, _mm512_shuffle_i32x4(b, d, 0xdd));
    }
}

/* Keys first:first + count of a table, `count` rounded up to sixteen: pairs of the width of 16 keys side by side,
   and values as pairs of keys. What is behind the last key repeats it; its weight will be 0. The next keys are fetched
   into the second-level cache meanwhile: the first one's misses are too few at a time. */
static void pack(const Job *job, const int32_t *table, int head, int first, int count, uint32_t *k, uint32_t *v) {
    const int half = job->width / 2, padded = (count + 15) / 16 * 16;
    int page = first / job->page_size, offset = first % job->page_size;
    int64_t places[KEYS];
    for (int i = 0; i < padded; i++) {
        places[i] = i < count ? table[page] * job->page_stride + ((int64_t)offset * job->kv_heads + head) * job->width
                              : places[count - 1];
        if (++offset == job->page_size) page++, offset = 0;
    }
    for (int start = 0; start < padded; start += 16) {
        for (int i = start ? start + AHEAD : 0; i < start + AHEAD + 16 && i < padded; i++)
            for (int d = 0; d < job->width; d += 32) {
                _mm_prefetch((const char *)(job->k_cache + places[i] + d), _MM_HINT_T1);
                _mm_prefetch((const char *)(job->v_cache + places[i] + d), _MM_HINT_T1);
            }
        for (int d = 0; d < half; d += 16) {
            const uint32_t *rows[16];
            for (int i = 0; i < 16; i++) rows[i] = (const uint32_t *)(job->k_cache + places[start + i]) + d;
            transpose16(rows, k + d * KEYS + start, KEYS);
        }
        for (int i = start; i < start + 16; i += 2)
            for (int d = 0; d < job->width; d += 16) {
                const bf16 *one = job->v_cache + places[i] + d, *two = job->v_cache + places[i + 1] + d;
                const __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)one));
                const __m512i high = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)two));
                _mm512_storeu_si512(v + i / 2 * job->width + d, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
            }
    }
}

static inline __attribute__((always_inline)) void multiply_rows(
    const uint32_t *const a[TILE], const uint32_t *b, float *c, int depth, int b_stride, int c_stride, int columns,
    const int rows, const int fresh
) {
    for (int at = 0; at < columns; at += 64) {
        const int n = (columns - at + 15) / 16;
        switch (n < 4 ? n : 4) {
            case 1: multiply(a, b + at, c + at, depth, b_stride, c_stride, rows, 1, fresh); break;
            case 2: multiply(a, b + at, c + at, depth, b_stride, c_stride, rows, 2, fresh); break;
            case 3: multiply(a, b + at, c + at, depth, b_stride, c_stride, rows, 3, fresh); break;
            default: multiply(a, b + at, c + at, depth, b_stride, c_stride, rows, 4, fresh);
        }
    }
}

/* Few rows, as in decode, are not filled up to a tile. */
static void multiply_all(
    const uint32_t *const a[TILE], const uint32_t *b, float *c, int depth, int b_stride, int c_stride, int columns,
    int rows, const int fresh
) {
    if (rows <= 2) multiply_rows(a, b, c, depth, b_stride, c_stride, columns, 2, fresh);
    else multiply_rows(a, b, c, depth, b_stride, c_stride, columns, TILE, fresh);
}

/* cap · tanh(x / cap) */
static inline __m512 capped(__m512 x, float cap) {
    const __m512 bounded = _mm512_max_ps(_mm512_min_ps(x / cap, _mm512_set1_ps(20)), _mm512_set1_ps(-20));
    const __m512 power = exp2_16(bounded * _mm512_set1_ps(2 * 1.4426950408889634f));
    return cap * (power - 1) / (power + 1);
}

/* Turn the scores of `rows` vectors into weights in bfloat16; of the `count` keys vector m sees from[m]:to[m]. Its sums
   so far decay by decay[m]. Computed for `most` vectors side by side. */
static inline __attribute__((always_inline)) void weigh(
    const Job *job, float *scores, uint32_t weights[TILE][KEYS / 2], int rows, int count, const int *from, const int *to,
    float *highest, float *total, float *decay, const int most
) {
    const float log2_e = 1.4426950408889634f, factor = job->softcap ? log2_e : job->scale * log2_e;
    float before[16] = {0}, after[16] = {0}, decays[16];
    __m512 top[TILE], shift[TILE], sum[TILE];
    for (int m = 0; m < rows; m++) {
        float *row = scores + m * KEYS;
        if (job->softcap)
            for (int j = 0; j < count; j += 16)
                _mm512_storeu_ps(row + j, capped(_mm512_loadu_ps(row + j) * job->scale, job->softcap));
        if (from[m] > 0 || to[m] < count)
            for (int j = 0; j < count; j += 16) {
                const __mmask16 seen = first_of_16(to[m] - j) & ~first_of_16(from[m] - j);
                _mm512_storeu_ps(row + j, _mm512_mask_loadu_ps(_mm512_set1_ps(-INFINITY), seen, row + j));
            }
    }
    for (int m = 0; m < most; m++) top[m] = _mm512_loadu_ps(scores + m * KEYS);
    for (int j = 16; j < count; j += 16)
        for (int m = 0; m < most; m++) top[m] = _mm512_max_ps(top[m], _mm512_loadu_ps(scores + m * KEYS + j));
    for (int m = 0; m < rows; m++) {
        before[m] = highest[m];
        after[m] = fmaxf(highest[m], _mm512_reduce_max_ps(top[m]) * factor);
    }
    _mm512_storeu_ps(decays, exp2_16(_mm512_loadu_ps(before) - _mm512_loadu_ps(after)));
    for (int m = 0; m < most; m++) {
        shift[m] = _mm512_set1_ps(after[m] == -INFINITY ? 0 : after[m]);
        sum[m] = _mm512_setzero_ps();
    }
    for (int j = 0; j < count; j += 16)
        for (int m = 0; m < most; m++) {
            const __m512 score = _mm512_loadu_ps(scores + m * KEYS + j);
            const __m512 weight = exp2_16(_mm512_fmsub_ps(score, _mm512_set1_ps(factor), shift[m]));
            sum[m] += weight;
            store16((bf16 *)weights[m] + j, weight);
        }
    for (int m = 0; m < rows; m++) {
        decay[m] = decays[m];
        highest[m] = after[m];
        total[m] = total[m] * decay[m] + _mm512_reduce_add_ps(sum[m]);
    }
}

/* Rows begin:end of a segment, with the query heads of one KV head. */
static void attend_unit(const Job *job, const int32_t *segment, int begin, int end, int head) {
    const int group = job->heads / job->kv_heads, width = job->width, vectors = (end - begin) * group;
    const int first_row = segment[0] + begin, position = segment[5] < 0 ? -1 : segment[5] + begin;
    const int32_t *table = job->tables + segment[2] * job->table_stride;
    const int hidden = job->window && position >= 0 ? position + 1 - job->window : 0;
    const int first = hidden > segment[3] ? hidden : segment[3];
    const int last = position < 0 || position + end - begin > segment[4] ? segment[4] : position + end - begin;
    static __thread uint32_t k[WIDEST / 2 * KEYS], v[KEYS / 2 * WIDEST], weights[TILE][KEYS / 2];
    static __thread float scores[TILE * KEYS];
    const int64_t place = ((int64_t)head * job->rows + first_row) * group;
    float *highest = job->highest + place, *total = job->total + place, *sums = job->sums + place * width;
    const int anew = segment[3] == 0; /* the first that these rows see */
    for (int i = 0; anew && i < vectors; i++) highest[i] = -INFINITY, total[i] = 0;
    const int blocks = (last - first + KEYS - 1) / KEYS, block = ((last - first + blocks - 1) / blocks + 15) / 16 * 16;
    for (int start = first; start < last; start += block) {
        const int count = last - start < block ? last - start : block, fresh = anew && start == first;
        pack(job, table, head, start, count, k, v);
        for (int tile = 0; tile < vectors; tile += TILE) {
            const uint32_t *queries[TILE], *rows[TILE];
            const int held = vectors - tile < TILE ? vectors - tile : TILE;
            const int behind = position < 0 ? last : position + (tile + held - 1) / group + 1; /* the last key of the tile */
            if (behind <= start) continue;
            const int padded = ((behind - start < count ? behind - start : count) + 15) / 16 * 16;
            for (int m = 0; m < TILE; m++) {
                const int i = tile + (m < held ? m : held - 1);
                const int64_t row = first_row + i / group;
                queries[m] = (const uint32_t *)(job->q + row * job->q_stride + (head * group + i % group) * width);
                rows[m] = weights[m];
            }
            multiply_all(queries, k, scores, width / 2, KEYS, KEYS, padded, held, 1);
            float spare[TILE * WIDEST];
            float *target = held == TILE ? sums + tile * width : spare;
            if (held < TILE && !fresh) memcpy(spare, sums + tile * width, held * width * sizeof(float));
            int from[TILE], to[TILE];
            float decay[TILE];
            for (int m = 0; m < held; m++) {
                const int limit = position < 0 ? last - 1 : position + (tile + m) / group; /* the last key that it sees */
                from[m] = job->window && position >= 0 ? limit + 1 - job->window - start : 0;
                to[m] = limit + 1 - start < count ? limit + 1 - start : count;
            }
            if (held <= 2) weigh(job, scores, weights, held, padded, from, to, highest + tile, total + tile, decay, 2);
            else weigh(job, scores, weights, held, padded, from, to, highest + tile, total + tile, decay, TILE);
            for (int m = 0; m < held && !fresh; m++)
                if (decay[m] != 1)
                    for (float *at = target + m * width; at < target + (m + 1) * width; at += 16)
                        _mm512_storeu_ps(at, _mm512_loadu_ps(at) * decay[m]);
            if (fresh) multiply_all(rows, v, target, padded / 2, width, width, width, held, 1);
            else multiply_all(rows, v, target, padded / 2, width, width, width, held, 0);
            if (held < TILE) memcpy(sums + tile * width, spare, held * width * sizeof(float));
        }
    }
    for (int i = 0; segment[6] == 0 && i < vectors; i++) {
        bf16 *out = job->out + ((int64_t)(first_row + i / group) * job->heads + head * group + i % group) * width;
        const __m512 factor = _mm512_set1_ps(1 / total[i]);
        for (int d = 0; d < width; d += 16) store16(out + d, _mm512_loadu_ps(sums + i * width + d) * factor);
    }
}

/* units [n, 3]: segment, begin and end of its rows; units of a level are neighbours: stages [s + 1] are their borders. */
void segment_attention(
    const bf16 *q, const bf16 *k_cache, const bf16 *v_cache, bf16 *out, float *state, const int32_t *tables,
    const int32_t *segments, const int32_t *units, const int32_t *stages, int64_t stage_count, int64_t q_stride,
    int64_t table_stride, int64_t rows, int64_t heads, int64_t kv_heads, int64_t width, int64_t page_size, int64_t window,
    double scale, double softcap
) {
    const int64_t states = rows * heads;
    const Job job = {q, k_cache, v_cache, out, state, state + states, state + 2 * states, tables, q_stride, table_stride,
                     page_size * kv_heads * width, rows, (int)heads, (int)kv_heads, (int)width, (int)page_size,
                     (int)window, (float)scale, (float)softcap};
    for (int64_t stage = 0; stage < stage_count; stage++) {
        const int64_t first = stages[stage] * kv_heads, last = stages[stage + 1] * kv_heads;
#pragma omp parallel for schedule(dynamic, 1)
        for (int64_t i = first; i < last; i++) {
            const int32_t *unit = units + i / kv_heads * 3;
            attend_unit(&job, segments + 7 * unit[0], unit[1], unit[2], (int)(i % kv_heads));
        }
    }
}
