/* Products of matrices in single precision; products.py loads them with ctypes.
 *
 * A dense product keeps a tile of the result in registers while it goes through the inner
 * dimension; nothing is packed, since the panel of the right matrix stays in the second cache. A
 * sparse product first lists the values of each row that are not zero, and then does only their
 * multiplications. Either sums in the order of the inner dimension, with fused multiply-adds, so
 * that both give the same bits, for any number of threads. GCC's vectors make the code the same for
 * every instruction set; other compilers build a library without any kernel.
 *
 * A dense product may also take its factors in bfloat16, two neighbours of the inner dimension in
 * the place of one float: the processor then multiplies both and adds them to the float of the sum.
 */

#include <stdlib.h>

#include "../portable.h"

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && \
    __GNUC__ >= 12
#define KERNELS 1
#endif

#ifdef KERNELS

#include <immintrin.h>

#define UNROLL _Pragma("GCC unroll 32")
#define WIDE __attribute__((target("arch=x86-64-v4")))
#define WIDE_BF16 __attribute__((target("arch=x86-64-v4,avx512bf16")))

typedef float Vector __attribute__((vector_size(64), aligned(4)));
typedef int32_t Places __attribute__((vector_size(64)));
enum { LANES = 16 };

/* Left matrix: `row` values from one row to the next, `column` from one column to the next. A value
 * is a float, or a pair of bfloat16. */
typedef struct {
    const float *values;
    int64_t row, column;
} Left;

/* What one value of the left matrix and a vector of the right one add to a sum. */
WIDE INLINE Vector with_floats(Vector sum, float x, Vector right) { return sum + x * right; }

WIDE_BF16 INLINE Vector with_pairs(Vector sum, float x, Vector right) {
    return (Vector)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_ps(x), (__m512bh)right);
}

/* Rows x (16 V) values of the result, whose first `skip` columns stay as they are. */
#define TILE(KIND, TARGET, ROWS, V)                                                                \
    TARGET INLINE void tile_##KIND##_##ROWS##_##V(                                                 \
        int64_t inner, Left a, const float *restrict b, int64_t width, const float *bias,          \
        float *restrict out, int64_t out_row, int skip, float keep, const float *next) {           \
        UNROLL for (int i = 0; i < ROWS; i++)                                                      \
            UNROLL for (int j = 0; j < V; j++)                                                     \
                __builtin_prefetch(out + i * out_row + LANES * j, 1, 2);                           \
        Vector sum[ROWS][V];                                                                       \
        UNROLL for (int i = 0; i < ROWS; i++)                                                      \
            UNROLL for (int j = 0; j < V; j++)                                                     \
                sum[i][j] = bias ? *(const Vector *)(bias + LANES * j) : (Vector){0};              \
        for (int64_t k = 0; k < inner; k++) {                                                      \
            if (next)                                                                              \
                UNROLL for (int j = 0; j < V; j++)                                                 \
                    __builtin_prefetch(next + k * width + LANES * j, 0, 2);                        \
            Vector right[V];                                                                       \
            UNROLL for (int j = 0; j < V; j++)                                                     \
                right[j] = *(const Vector *)(b + k * width + LANES * j);                           \
            UNROLL for (int i = 0; i < ROWS; i++) {                                                \
                float x = a.values[i * a.row + k * a.column];                                      \
                UNROLL for (int j = 0; j < V; j++)                                                 \
                    sum[i][j] = with_##KIND(sum[i][j], x, right[j]);                               \
            }                                                                                      \
        }                                                                                          \
        UNROLL for (int i = 0; i < ROWS; i++)                                                      \
            UNROLL for (int j = 0; j < V; j++) {                                                   \
                float *to = out + i * out_row + LANES * j;                                         \
                if (skip) {                                                                        \
                    for (int l = skip; l < LANES; l++)                                             \
                        to[l] = keep != 0.0f ? keep * to[l] + sum[i][j][l] : sum[i][j][l];         \
                } else {                                                                           \
                    *(Vector *)to = keep != 0.0f ? keep * *(Vector *)to + sum[i][j] : sum[i][j];   \
                }                                                                                  \
            }                                                                                      \
    }

/* All rows of 16 V columns of the result. The compiler makes one loop for either layout. Meanwhile,
 * the right matrix of the panel after it is fetched, from `next` on (NULL for none). */
#define PANEL(KIND, TARGET, V)                                                                     \
    TILE(KIND, TARGET, 8, V)                                                                       \
    TILE(KIND, TARGET, 1, V)                                                                       \
    TARGET static void panel_##KIND##_##V(int64_t rows, int64_t inner, Left a, const float *b,     \
                                          int64_t width, const float *bias, float *out,            \
                                          int64_t out_row, int skip, float keep,                   \
                                          const float *next) {                                     \
        int64_t i = 0;                                                                             \
        if (a.column == 1) {                                                                       \
            if (next && rows >= 8) {                                                               \
                tile_##KIND##_8_##V(inner, (Left){a.values, a.row, 1}, b, width, bias, out,        \
                                    out_row, skip, keep, next);                                    \
                i = 8;                                                                             \
            }                                                                                      \
            for (; i + 8 <= rows; i += 8)                                                          \
                tile_##KIND##_8_##V(inner, (Left){a.values + i * a.row, a.row, 1}, b, width, bias, \
                                    out + i * out_row, out_row, skip, keep, 0);                    \
        } else if (a.row == 1) {                                                                   \
            if (next && rows >= 8) {                                                               \
                tile_##KIND##_8_##V(inner, (Left){a.values, 1, a.column}, b, width, bias, out,     \
                                    out_row, skip, keep, next);                                    \
                i = 8;                                                                             \
            }                                                                                      \
            for (; i + 8 <= rows; i += 8)                                                          \
                tile_##KIND##_8_##V(inner, (Left){a.values + i, 1, a.column}, b, width, bias,      \
                                    out + i * out_row, out_row, skip, keep, 0);                    \
        }                                                                                          \
        for (; i < rows; i++)                                                                      \
            tile_##KIND##_1_##V(inner, (Left){a.values + i * a.row, a.row, a.column}, b, width,    \
                                bias, out + i * out_row, out_row, skip, keep, 0);                  \
    }

PANEL(floats, WIDE, 3)
PANEL(floats, WIDE, 2)
PANEL(floats, WIDE, 1)
PANEL(pairs, WIDE_BF16, 3)
PANEL(pairs, WIDE_BF16, 2)
PANEL(pairs, WIDE_BF16, 1)

typedef void Panel(int64_t, int64_t, Left, const float *, int64_t, const float *, float *, int64_t,
                   int, float, const float *);
static Panel *const PANELS[2][3] = {{panel_floats_1, panel_floats_2, panel_floats_3},
                                    {panel_pairs_1, panel_pairs_2, panel_pairs_3}};

/* Rows of at least this many floats share places in the caches: they are copied side by side. */
enum { FAR = 1024 };

/* The columns from `first` on, at most 48, of one product. */
static void columns_from(Panel *const panel[3], int64_t first, int64_t rows, int64_t inner,
                         int64_t columns, Left a, const float *b, int64_t width, const float *bias,
                         float *out, int64_t out_row, float keep, const float *next) {
    int64_t j = first, rest = columns - first;
#define AT(J) b + (J), width, bias ? bias + (J) : 0, out + (J), out_row
    if (rest >= 3 * LANES) {
        const size_t bytes = 3 * LANES * sizeof(float);
        float *copy = width >= FAR && rows > 8 ? malloc((size_t)inner * bytes) : 0;
        if (copy) {
            for (int64_t k = 0; k < inner; k++) memcpy(copy + 3 * LANES * k, b + k * width + j, bytes);
            panel[2](rows, inner, a, copy, 3 * LANES, bias ? bias + j : 0, out + j, out_row, 0,
                     keep, 0);
            free(copy);
        } else {
            panel[2](rows, inner, a, AT(j), 0, keep, next);
        }
        return;
    }
    if (rest >= 2 * LANES) {
        panel[1](rows, inner, a, AT(j), 0, keep, next);
        rest -= 2 * LANES;
    } else if (rest >= LANES) {
        panel[0](rows, inner, a, AT(j), 0, keep, next);
        rest -= LANES;
    }
    if (rest) /* the last vector reaches back over columns that are done */
        panel[0](rows, inner, a, AT(columns - LANES), LANES - (int)rest, keep, next);
#undef AT
}

/* out = a b [+ bias] [+ keep out] for `count` products, whose matrices lie `a_plane`, `b_plane` and
 * `out_plane` apart; a (rows, inner), b (inner, columns) with rows `width` apart, a bias of each
 * column or NULL. At least 16 columns. With `pairs`, the values of a and b are pairs, as
 * `tf_pairs_along` and `tf_pairs_across` make them, and all that is said of them counts pairs. */
EXPORT void tf_dense(int64_t count, int64_t rows, int64_t inner, int64_t columns, const float *a,
                     int64_t a_row, int64_t a_column, int64_t a_plane, const float *b,
                     int64_t width, int64_t b_plane, const float *bias, float *out,
                     int64_t out_row, int64_t out_plane, float keep, int32_t pairs, int32_t threads) {
    const int64_t wide = 3 * LANES, panels = (columns + wide - 1) / wide;
    /* With few multiplications for each value, reading or writing it takes the time. So a run of
     * panels reads longer pieces of far rows, and writes longer pieces of few rows. */
    const int packed = width >= FAR && rows > 8 && inner > LANES && inner <= 4 * LANES;
    const int64_t run = inner <= LANES ? 16 : packed ? 8 : 1, runs = (panels + run - 1) / run;
    const int64_t strip = inner <= LANES ? 8 : rows;
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t r = 0; r < count * runs; r++) {
        const int64_t which = r / runs, first = r % runs * run;
        const int64_t end = first + run < panels ? first + run : panels;
        const float *right = b + which * b_plane, *after = right + b_plane;
        int64_t step = width;
        /* The last vector of all reaches back, maybe before the run. */
        const int64_t from = first ? first * wide - LANES : 0;
        const int64_t to = end * wide < columns ? end * wide : columns;
        float *copy = packed ? malloc((size_t)(inner * (to - from)) * sizeof(float)) : 0;
        if (copy) {
            step = to - from;
            for (int64_t k = 0; k < inner; k++)
                memcpy(copy + k * step, right + k * width + from, (size_t)step * sizeof(float));
            right = copy - from;
        }
        for (int64_t i = 0; i < rows; i += strip)
            for (int64_t p = first; p < end; p++) {
                const int64_t height = rows - i < strip ? rows - i : strip;
                Left left = {a + which * a_plane + i * a_row, a_row, a_column};
                const float *next = 0;
                if (!copy && i == 0 && p + 1 < panels)
                    next = right + (p + 1) * wide;
                else if (!copy && i == 0 && which + 1 < count)
                    next = after;
                columns_from(PANELS[pairs], p * wide, height, inner, columns, left, right, step,
                             bias, out + which * out_plane + i * out_row, out_row, keep, next);
            }
        free(copy);
    }
}

/* ---- pairs of bfloat16, rounded to the nearest ---- */

/* 16 pairs of the floats at `first` and those at `second`, of which `there` are there. */
WIDE_BF16 INLINE void pairs_of(__mmask16 there, const float *first, const float *second,
                               uint32_t *out) {
    __m512 low = _mm512_maskz_loadu_ps(there, first);
    __m512 high = second ? _mm512_maskz_loadu_ps(there, second) : _mm512_setzero_ps();
    __m512i both = (__m512i)_mm512_cvtne2ps_pbh(high, low);
    __m512i left = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(both));
    __m512i right = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(both, 1));
    _mm512_mask_storeu_epi32(out, there, _mm512_or_si512(left, _mm512_slli_epi32(right, 16)));
}

/* Pair the rows of x (inner, columns): out (half of inner, columns). An odd row has 0 beside it. */
EXPORT WIDE_BF16 void tf_pairs_across(int64_t inner, int64_t columns, const float *x,
                                      uint32_t *out, int32_t threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t k = 0; k < inner; k += 2) {
        const float *first = x + k * columns, *second = k + 1 < inner ? first + columns : 0;
        for (int64_t j = 0; j < columns; j += LANES) {
            __mmask16 there = columns - j < LANES ? (1u << (columns - j)) - 1 : 0xffff;
            pairs_of(there, first + j, second ? second + j : 0, out + k / 2 * columns + j);
        }
    }
}

/* Pair the columns of x (rows, inner), whose rows lie `row` apart: out (rows, half of inner). */
EXPORT WIDE_BF16 void tf_pairs_along(int64_t rows, int64_t inner, const float *x, int64_t row,
                                     uint32_t *out, int32_t threads) {
    const int64_t half = (inner + 1) / 2;
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t i = 0; i < rows; i++)
        for (int64_t k = 0; k < inner; k += 2 * LANES) {
            const float *from = x + i * row + k;
            int64_t count = inner - k < 2 * LANES ? inner - k : 2 * LANES;
            uint32_t there = count == 2 * LANES ? 0xffffffff : (1u << count) - 1;
            __m512 low = _mm512_maskz_loadu_ps((__mmask16)there, from);
            __m512 high = _mm512_maskz_loadu_ps((__mmask16)(there >> 16), from + LANES);
            __m512i both = (__m512i)_mm512_cvtne2ps_pbh(high, low);
            _mm512_mask_storeu_epi32(out + i * half + k / 2,
                                     (__mmask16)((1u << (count + 1) / 2) - 1), both);
        }
}

/* ---- sparse ---- */

/* List the values of each row of a (rows, inner) that are not zero, and their columns; the list of
 * row i begins at starts[i] and ends at starts[i + 1]. There is room for `most + inner` values.
 * Returns 0, as soon as it is clear, if there are more than `most`. */
WIDE static int list_rows(int64_t rows, int64_t inner, const float *restrict a, int64_t most,
                          int32_t *restrict starts, int32_t *restrict places,
                          float *restrict values) {
    int32_t n = 0;
    for (int64_t i = 0; i < rows; i++) {
        const float *row = a + i * inner;
        starts[i] = n;
        for (int64_t k = 0; k < inner; k++) {
            places[n] = (int32_t)k;
            values[n] = row[k];
            n += row[k] != 0.0f; /* a zero is overwritten by what follows */
        }
        if (n > most || (i == 3 && n > 2 * inner)) return 0;
    }
    starts[rows] = n;
    return 1;
}

/* The same for the columns of a (inner, rows). */
WIDE static int list_columns(int64_t rows, int64_t inner, const float *restrict a, int64_t most,
                             int32_t *restrict starts, int32_t *restrict places,
                             float *restrict values) {
    int64_t few = 0;
    for (int64_t i = 0; i < rows; i++) few += a[i] != 0.0f;
    if (2 * few > rows) return 0;
    memset(starts, 0, (size_t)(rows + 1) * sizeof *starts);
    for (int64_t k = 0; k < inner; k++)
        for (int64_t i = 0; i < rows; i++) starts[i + 1] += a[k * rows + i] != 0.0f;
    for (int64_t i = 0; i < rows; i++) starts[i + 1] += starts[i];
    if (starts[rows] > most) return 0;
    for (int64_t k = 0; k < inner; k++) {
        const float *row = a + k * rows;
        for (int64_t first = 0; first < rows; first += LANES) {
            uint32_t there = 0;
            int count = rows - first < LANES ? (int)(rows - first) : LANES;
            for (int l = 0; l < count; l++) there |= (uint32_t)(row[first + l] != 0.0f) << l;
            for (; there; there &= there - 1) {
                int64_t i = first + __builtin_ctz(there);
                int32_t slot = starts[i]++;
                places[slot] = (int32_t)k;
                values[slot] = row[i];
            }
        }
    }
    /* Every start has moved to the next one's place. */
    memmove(starts + 1, starts, (size_t)rows * sizeof *starts);
    starts[0] = 0;
    return 1;
}

#define SPARSE(NAME, V)                                                                            \
    WIDE static void NAME(int64_t rows, const int32_t *starts, const int32_t *places,              \
                          const float *values, const float *b, int64_t width, const float *bias,   \
                          float *out) {                                                            \
        for (int64_t i = 0; i < rows; i++, out += width) {                                         \
            const int32_t end = starts[i + 1];                                                     \
            Vector sum[V];                                                                         \
            UNROLL for (int j = 0; j < V; j++)                                                     \
                sum[j] = bias ? *(const Vector *)(bias + LANES * j) : (Vector){0};                 \
            for (int32_t e = starts[i]; e < end; e++) {                                            \
                const float *row = b + places[e] * width;                                          \
                UNROLL for (int j = 0; j < V; j++)                                                 \
                    sum[j] += values[e] * *(const Vector *)(row + LANES * j);                      \
            }                                                                                      \
            UNROLL for (int j = 0; j < V; j++) *(Vector *)(out + LANES * j) = sum[j];              \
        }                                                                                          \
    }

SPARSE(sparse_10, 10)
SPARSE(sparse_1, 1)

/* out = a b [+ bias] from the values of a that are not zero, b (inner, columns), out (rows,
 * columns), or with `transposed` that of a given as (inner, rows). `starts` (rows + 1), `places` and
 * `values` (most + inner) are memory to work with. Returns 0, with nothing written, if more than
 * `most` values are not zero. At least 16 columns. */
EXPORT int32_t tf_sparse(int64_t rows, int64_t inner, int64_t columns, const float *a,
                         int32_t transposed, int64_t most, const float *b, const float *bias,
                         float *out, int32_t *starts, int32_t *places, float *values,
                         int32_t threads) {
    int few = transposed ? list_columns(rows, inner, a, most, starts, places, values)
                         : list_rows(rows, inner, a, most, starts, places, values);
    if (!few) return 0;
    const int64_t panel = 10 * LANES, panels = (columns + panel - 1) / panel;
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t p = 0; p < panels; p++) {
        int64_t j = p * panel, end = columns - j < panel ? columns : j + panel;
#define AT(J) rows, starts, places, values, b + (J), columns, bias ? bias + (J) : 0, out + (J)
        if (end - j == panel) {
            sparse_10(AT(j));
            continue;
        }
        for (; j < end; j += LANES) sparse_1(AT(j + LANES <= end ? j : columns - LANES));
#undef AT
    }
    return 1;
}

/* ---- transposition ---- */

WIDE INLINE Vector exchanged(Vector one, Vector other, int half, int high) {
    Places from;
    UNROLL for (int l = 0; l < LANES; l++)
        from[l] = high ? (l & half ? LANES + l : l + half) : (l & half ? LANES + l - half : l);
    return __builtin_shuffle(one, other, from);
}

/* 16 rows from `i` on of a (rows, columns), as columns of out. */
WIDE static void transpose_rows(int64_t i, int64_t rows, int64_t columns, const float *restrict a,
                                float *restrict out) {
    for (int64_t j = 0; j < columns; j += LANES) {
        if (rows - i < LANES || columns - j < LANES) {
            for (int64_t r = i; r < rows && r < i + LANES; r++)
                for (int64_t c = j; c < columns && c < j + LANES; c++)
                    out[c * rows + r] = a[r * columns + c];
            continue;
        }
        Vector v[LANES];
        UNROLL for (int r = 0; r < LANES; r++) v[r] = *(const Vector *)(a + (i + r) * columns + j);
#define STAGE(HALF)                                                                                \
    UNROLL for (int r = 0; r < LANES; r++) if (!(r & HALF)) {                                      \
    Vector low = exchanged(v[r], v[r + HALF], HALF, 0);                                        \
    v[r + HALF] = exchanged(v[r], v[r + HALF], HALF, 1);                                       \
    v[r] = low;                                                                                \
    }
        STAGE(8) STAGE(4) STAGE(2) STAGE(1)
#undef STAGE
        UNROLL for (int c = 0; c < LANES; c++) *(Vector *)(out + (j + c) * rows + i) = v[c];
    }
}

/* out = a^T for `count` matrices (rows, columns) that lie `plane` apart, without gaps in out. */
EXPORT void tf_transpose(int64_t count, int64_t rows, int64_t columns, const float *a,
                         int64_t plane, float *out, int32_t threads) {
    const int64_t blocks = (rows + LANES - 1) / LANES;
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t p = 0; p < count * blocks; p++) {
        const int64_t which = p / blocks;
        transpose_rows(p % blocks * LANES, rows, columns, a + which * plane,
                       out + which * rows * columns);
    }
}

/* What the processor has: 1 for the vectors, 2 for units that multiply matrices in bfloat16, 4 if it
 * is one of Intel's, for which PyTorch's own library is as fast, 8 for vectors of bfloat16. */
EXPORT int32_t tf_processor(void) {
    return (__builtin_cpu_supports("x86-64-v4") ? 1 : 0) |
           (__builtin_cpu_supports("amx-bf16") ? 2 : 0) | (__builtin_cpu_is("intel") ? 4 : 0) |
           (__builtin_cpu_supports("avx512bf16") ? 8 : 0);
}

#else

EXPORT int32_t tf_processor(void) { return 0; }

#endif

/* Changes with every change of a signature, so that an old library is not called by mistake. */
EXPORT int32_t tf_version(void) { return 3; }
