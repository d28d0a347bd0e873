/* Transforms of fast convolutions, Winograd's F(4x4, 3x3); winograd.py loads them with ctypes.
 *
 * A picture is cut into tiles of 4 x 4 pixels. A tile of the output needs 6 x 6 pixels of the
 * input; in the transformed domain each of its 36 values is a product of its own, and the sums over
 * channels are 36 products of matrices. Transformed arrays are (36, tiles, channels), with `plane`
 * values from one of the 36 to the next, and channels filled up to a multiple of 16 with zeros.
 * Channels are worked on side by side: in `room`, a picture has its channels last. Transformed
 * arrays, planes and rooms begin at multiples of 64 bytes.
 */

#include "../portable.h"

/* Channels side by side. Compilers without GCC's vectors take one at a time. */
#if defined(__GNUC__) && (defined(__clang__) || __GNUC__ >= 12)
enum { LANES = 16 };
typedef float Lane __attribute__((vector_size(64)));
typedef float Quad __attribute__((vector_size(16), aligned(4), may_alias));
#define QUAD(P) (*(Quad *)(P))
#define PREFETCH(P) __builtin_prefetch(P, 0, 2)
#else
enum { LANES = 1 };
typedef float Lane;
#define PREFETCH(P)
#endif

/* Pictures (samples, channels, height, width), cut into rows x columns tiles. */
typedef struct {
    int64_t samples, channels, height, width, rows, columns;
} Shape;

/* B^T d for six values that lie `step` apart. */
INLINE void transform_input(const Lane *d, int64_t step, Lane *out, int64_t out_step) {
    Lane d0 = d[0], d1 = d[step], d2 = d[2 * step];
    Lane d3 = d[3 * step], d4 = d[4 * step], d5 = d[5 * step];
    Lane a = d4 - 4.0f * d2, b = d3 - 4.0f * d1, c = d4 - d2, e = 2.0f * (d3 - d1);
    out[0] = 4.0f * d0 - 5.0f * d2 + d4;
    out[out_step] = a + b;
    out[2 * out_step] = a - b;
    out[3 * out_step] = c + e;
    out[4 * out_step] = c - e;
    out[5 * out_step] = 4.0f * d1 - 5.0f * d3 + d5;
}

/* B m for six values: the transpose of `transform_input`. */
INLINE void carry_to_input(const Lane *m, int64_t step, Lane *out, int64_t out_step) {
    Lane m0 = m[0], m5 = m[5 * step];
    Lane m1 = m[step], m2 = m[2 * step], m3 = m[3 * step], m4 = m[4 * step];
    Lane sum = m1 + m2, difference = m1 - m2, far = m3 + m4, wide = 2.0f * (m3 - m4);
    out[0] = 4.0f * m0;
    out[out_step] = 4.0f * (m5 - difference) - wide;
    out[2 * out_step] = -5.0f * m0 - 4.0f * sum - far;
    out[3 * out_step] = difference + wide - 5.0f * m5;
    out[4 * out_step] = m0 + sum + far;
    out[5 * out_step] = m5;
}

/* A y for four values. */
INLINE void transform_error(const Lane *y, int64_t step, Lane *out, int64_t out_step) {
    Lane y0 = y[0], y1 = y[step], y2 = y[2 * step], y3 = y[3 * step];
    Lane even = y0 + y2, odd = y1 + y3, far = y0 + 4.0f * y2, wide = 2.0f * y1 + 8.0f * y3;
    out[0] = y0;
    out[out_step] = even + odd;
    out[2 * out_step] = even - odd;
    out[3 * out_step] = far + wide;
    out[4 * out_step] = far - wide;
    out[5 * out_step] = y3;
}

/* A^T m for six values: the transpose of `transform_error`. */
INLINE void transform_output(const Lane *m, int64_t step, Lane *out, int64_t out_step) {
    Lane m1 = m[step], m2 = m[2 * step], m3 = m[3 * step], m4 = m[4 * step];
    Lane sum = m1 + m2, difference = m1 - m2, far = m3 + m4, wide = m3 - m4;
    out[0] = m[0] + sum + far;
    out[out_step] = difference + 2.0f * wide;
    out[2 * out_step] = sum + 4.0f * far;
    out[3 * out_step] = difference + 8.0f * wide + m[5 * step];
}

/* Exchange rows and columns of LANES x LANES values: to[j][i] = from[i][j]. */
INLINE void exchange(const float *const *from, float *const *to) {
#ifdef QUAD
    for (int i = 0; i < LANES; i += 4)
        for (int j = 0; j < LANES; j += 4) {
            Quad a = QUAD(from[i] + j), b = QUAD(from[i + 1] + j);
            Quad c = QUAD(from[i + 2] + j), d = QUAD(from[i + 3] + j);
            Quad ab = __builtin_shufflevector(a, b, 0, 4, 1, 5);
            Quad cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
            Quad ba = __builtin_shufflevector(a, b, 2, 6, 3, 7);
            Quad dc = __builtin_shufflevector(c, d, 2, 6, 3, 7);
            QUAD(to[j] + i) = __builtin_shufflevector(ab, cd, 0, 1, 4, 5);
            QUAD(to[j + 1] + i) = __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
            QUAD(to[j + 2] + i) = __builtin_shufflevector(ba, dc, 0, 1, 4, 5);
            QUAD(to[j + 3] + i) = __builtin_shufflevector(ba, dc, 2, 3, 6, 7);
        }
#else
    to[0][0] = from[0][0];
#endif
}

/* Copy between LANES channels of a picture, of which `there` exist, and its pixels with channels
 * last, `line` pixels from one row to the next. */
INLINE void turn(float *picture, const Shape *s, int64_t there, Lane *pixels, int64_t line,
                 int to_pixels) {
    const int64_t area = s->height * s->width;
    Lane edge[LANES], spare[LANES];
    float *channels[LANES], *places[LANES];
    int64_t y = 0, x = 0;
    memset(edge, 0, sizeof edge);
    for (int64_t first = 0; first < area; first += LANES) {
        const int64_t count = area - first < LANES ? area - first : LANES;
        const int whole = count == LANES;
        for (int c = 0; c < LANES; c++) {
            channels[c] = whole && c < there ? picture + c * area + first : (float *)&edge[c];
            if (to_pixels && !whole && c < there)
                memcpy(&edge[c], picture + c * area + first, (size_t)count * sizeof(float));
        }
        for (int p = 0; p < LANES; p++) {
            places[p] = (float *)(p < count ? &pixels[y * line + x] : &spare[p]);
            if (++x == s->width) x = 0, y++;
        }
        for (int c = 0; c < LANES; c++) PREFETCH(picture + (LANES + c) * area + first);
        if (to_pixels) {
            exchange((const float *const *)channels, places);
            continue;
        }
        exchange((const float *const *)places, channels);
        if (!whole)
            for (int c = 0; c < there; c++)
                memcpy(picture + c * area + first, &edge[c], (size_t)count * sizeof(float));
    }
}

/* The 36 planes of some LANES channels: the lanes of tile 0, and the distances to those of the next
 * tile and of the next plane. */
typedef struct {
    Lane *first;
    int64_t tile, plane;
} Planes;

INLINE Planes planes_of(float *values, const Shape *s, int64_t plane, int64_t sample, int64_t c) {
    const int64_t groups = (s->channels + 15) / 16 * (16 / LANES);
    Lane *all = (Lane *)values;
    Planes p = {all + sample * s->rows * s->columns * groups + c / LANES, groups, plane / LANES};
    return p;
}

#define SHAPE {samples, channels, height, width, (height + 3) / 4, (width + 3) / 4}
#define EACH_GROUP                                             \
    for (int64_t n = 0; n < s.samples; n++)                    \
        for (int64_t c = 0; c < s.channels; c += LANES)
#define THERE (s.channels - c < LANES ? s.channels - c : LANES)
#define PICTURE (pictures + (n * s.channels + c) * s.height * s.width)

typedef void Transform(const Lane *from, int64_t step, Lane *out, int64_t out_step);

/* Turn pictures into planes, with `edge` lines of zeros on each side: `transform` of the columns and
 * then of the rows of every tile. */
INLINE void to_planes(Transform *transform, int64_t edge, Shape s, float *pictures, float *out,
                      int64_t plane, float *room) {
    const int64_t line = 4 * s.columns + 2 * edge, lines = 4 * s.rows + 2 * edge;
    Lane *d = (Lane *)room, *half = d + lines * line;
    memset(d, 0, (size_t)(lines * line) * sizeof(Lane));
    EACH_GROUP {
        Planes p = planes_of(out, &s, plane, n, c);
        turn(PICTURE, &s, THERE, d + edge * (line + 1), line, 1);
        for (int64_t r = 0; r < s.rows; r++) {
            for (int64_t j = 0; j < line; j++)
                transform(d + 4 * r * line + j, line, half + j, line);
            for (int64_t t = 0; t < s.columns; t++, p.first += p.tile)
                for (int i = 0; i < 6; i++)
                    transform(half + i * line + 4 * t, 1, p.first + 6 * i * p.plane, p.plane);
        }
    }
}

/* V = B^T d B of every tile. Room for (4 rows + 8) (4 columns + 2) lanes. */
KERNEL void tf_winograd_input(int64_t samples, int64_t channels, int64_t height, int64_t width,
                              float *pictures, float *out, int64_t plane, float *room) {
    const Shape s = SHAPE;
    to_planes(transform_input, 1, s, pictures, out, plane, room);
}

/* A y A^T of every tile of an error of the output. Room for (4 rows + 6) 4 columns lanes. */
KERNEL void tf_winograd_error(int64_t samples, int64_t channels, int64_t height, int64_t width,
                              float *pictures, float *out, int64_t plane, float *room) {
    const Shape s = SHAPE;
    to_planes(transform_error, 0, s, pictures, out, plane, room);
}

/* A^T m A of every tile, plus a bias per channel (NULL for none), put together to pictures. Room for
 * 16 rows columns lanes. */
KERNEL void tf_winograd_output(int64_t samples, int64_t channels, int64_t height, int64_t width,
                               float *pictures, float *in, int64_t plane, float *room,
                               const float *bias) {
    const Shape s = SHAPE;
    const int64_t line = 4 * s.columns;
    Lane *y = (Lane *)room, half[24], start;
    EACH_GROUP {
        Planes p = planes_of(in, &s, plane, n, c);
        memset(&start, 0, sizeof start);
        if (bias) memcpy(&start, bias + c, (size_t)THERE * sizeof(float));
        for (int64_t r = 0; r < s.rows; r++)
            for (int64_t t = 0; t < s.columns; t++, p.first += p.tile) {
                for (int j = 0; j < 6; j++)
                    transform_output(p.first + j * p.plane, 6 * p.plane, half + j, 6);
                for (int i = 0; i < 4; i++) {
                    Lane *to = y + (4 * r + i) * line + 4 * t;
                    transform_output(half + 6 * i, 1, to, 1);
                    for (int j = 0; j < 4; j++) to[j] += start;
                }
            }
        turn(PICTURE, &s, THERE, y, line, 0);
    }
}

/* B m B^T of every tile, added where tiles meet: the error of the input. Room for
 * (4 rows + 2) (4 columns + 2) lanes. */
KERNEL void tf_winograd_input_error(int64_t samples, int64_t channels, int64_t height,
                                    int64_t width, float *pictures, float *in, int64_t plane,
                                    float *room) {
    const Shape s = SHAPE;
    const int64_t line = 4 * s.columns + 2, lines = 4 * s.rows + 2;
    Lane *d = (Lane *)room, half[36], whole[36];
    EACH_GROUP {
        Planes p = planes_of(in, &s, plane, n, c);
        memset(d, 0, (size_t)(lines * line) * sizeof(Lane));
        for (int64_t r = 0; r < s.rows; r++)
            for (int64_t t = 0; t < s.columns; t++, p.first += p.tile) {
                for (int j = 0; j < 6; j++)
                    carry_to_input(p.first + j * p.plane, 6 * p.plane, half + j, 6);
                for (int i = 0; i < 6; i++) carry_to_input(half + 6 * i, 1, whole + 6 * i, 1);
                for (int i = 0; i < 6; i++) {
                    Lane *to = d + (4 * r + i) * line + 4 * t;
                    for (int j = 0; j < 6; j++) to[j] += whole[6 * i + j];
                }
            }
        turn(PICTURE, &s, THERE, d + line + 1, line, 0);
    }
}

/* Changes with every change of a signature, so that an old library is not called by mistake. */
EXPORT int32_t tf_version(void) { return 2; }
