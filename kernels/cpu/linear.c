/* Products with packed weights in bfloat16 with float32 sums: panels [N / 64, K / 2, 64] of pairs along K.

   A panel stays in the second-level cache while a block of rows passes over it, six rows a tile, whose sums are the
   registers (after Goto and van de Geijn, Anatomy of High-Performance Matrix Multiplication, 2008). The rows of x need
   no packing: their pairs are broadcast one by one. */
#include <string.h>
#include "multiply.h"

enum { PANEL = 64, ROWS = 21 * TILE, DEPTH = 1024 /* pairs */, GROUP = 2 /* panels of a unit of work */ };
enum { PLAIN, SILU, GELU };

typedef struct {
    const bf16 *x, *bias, *added; /* [T, K], [N] or none, [T, N] or none (never with a gate) */
    const uint32_t *panels;
    bf16 *out;
    int64_t depth, columns; /* K / 2; of out */
    int gate;
} Product;

/* gate · sigmoid(gate), or the GELU's approximation by tanh, which is gate · sigmoid(√(8/π) (gate + 0.044715 gate³)) */
static inline __m512 activated(__m512 gate, int gelu) {
    __m512 at = gate;
    if (gelu) at *= _mm512_fmadd_ps(gate * gate, _mm512_set1_ps(0.0713548163f), _mm512_set1_ps(1.5957691216f));
    const __m512 power = _mm512_min_ps(at * _mm512_set1_ps(-1.4426950408889634f), _mm512_set1_ps(126));
    return gate / (1 + exp2_16(power));
}

/* Sums of one row and panel to the output; a gate's panel holds 32 columns of it and the 32 that it gates. */
static inline void finish(const Product *job, const float *sums, int64_t row, int64_t panel) {
    const int half = PANEL / 2;
    __m512 values[PANEL / 16];
    for (int j = 0; j < PANEL / 16; j++) {
        values[j] = _mm512_loadu_ps(sums + 16 * j);
        if (job->bias) values[j] += load16(job->bias + (job->gate == PLAIN ? panel * PANEL + 16 * j :
                                           panel * half + 16 * j + (16 * j < half ? 0 : job->columns - half)));
    }
    for (int j = 0; job->added && j < PANEL / 16; j++)
        values[j] += load16(job->added + row * job->columns + panel * PANEL + 16 * j);
    if (job->gate == PLAIN)
        for (int j = 0; j < PANEL / 16; j++) store16(job->out + row * job->columns + panel * PANEL + 16 * j, values[j]);
    else
        for (int j = 0; j < half / 16; j++)
            store16(job->out + row * job->columns + panel * half + 16 * j,
                    activated(values[j], job->gate == GELU) * values[half / 16 + j]);
}

/* What `finish` will write and read comes into the cache while the sums are computed. */
static inline void fetch(const Product *job, int64_t row, int64_t panel) {
    const int64_t width = job->gate == PLAIN ? PANEL : PANEL / 2, at = row * job->columns + panel * width;
    for (int64_t d = 0; d < width; d += 32) {
        __builtin_prefetch(job->out + at + d, 1);
        if (job->added) __builtin_prefetch(job->added + at + d);
    }
}

/* Rows begin:end of a panel. */
static void multiply_panel(const Product *job, int64_t begin, int64_t end, int64_t panel) {
    static __thread float sums[ROWS * PANEL];
    for (int64_t first = 0; first < job->depth; first += DEPTH) {
        const int64_t length = job->depth - first < DEPTH ? job->depth - first : DEPTH;
        const uint32_t *b = job->panels + (panel * job->depth + first) * PANEL;
        for (int64_t row = begin; row < end; row += TILE) {
            const int held = end - row < TILE ? (int)(end - row) : TILE;
            const uint32_t *a[TILE];
            float *c = sums + (row - begin) * PANEL;
            for (int m = 0; m < held; m++) a[m] = (const uint32_t *)job->x + (row + m) * job->depth + first;
            for (int m = 0; m < held; m++) fetch(job, row + m, panel);
            switch (held) {
                case 1: multiply(a, b, c, length, PANEL, PANEL, 1, 4, !first); break;
                case 2: multiply(a, b, c, length, PANEL, PANEL, 2, 4, !first); break;
                case 3: multiply(a, b, c, length, PANEL, PANEL, 3, 4, !first); break;
                case 4: multiply(a, b, c, length, PANEL, PANEL, 4, 4, !first); break;
                case 5: multiply(a, b, c, length, PANEL, PANEL, 5, 4, !first); break;
                default: multiply(a, b, c, length, PANEL, PANEL, TILE, 4, !first);
            }
            if (first + length == job->depth)
                for (int m = 0; m < held; m++) finish(job, c + m * PANEL, row + m, panel);
        }
    }
}

/* out [T, N] = x [T, K] · panels (+ bias) (+ added), or [T, N / 2] of activated gates times what they gate */
void linear(const bf16 *x, const uint32_t *panels, const bf16 *bias, const bf16 *added, bf16 *out, int64_t rows,
            int64_t count, int64_t depth, int64_t columns, int64_t gate) {
    const Product job = {x, bias, added, panels, out, depth, columns, (int)gate};
    const int64_t blocks = (rows + ROWS - 1) / ROWS, groups = (count + GROUP - 1) / GROUP;
    const int64_t block = ((rows + blocks - 1) / blocks + TILE - 1) / TILE * TILE;
#pragma omp parallel for schedule(dynamic, 1)
    for (int64_t unit = 0; unit < blocks * groups; unit++) {
        const int64_t begin = unit / groups * block, end = begin + block < rows ? begin + block : rows;
        const int64_t first = unit % groups * GROUP, last = first + GROUP < count ? first + GROUP : count;
        for (int64_t panel = first; panel < last; panel++) multiply_panel(&job, begin, end, panel);
    }
}
