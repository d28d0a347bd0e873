/* Transforms of fast convolutions, Winograd's F(4x4, 3x3); winograd.py loads them with ctypes.
 *
 * A picture is cut into tiles of 4 x 4 pixels. A tile of the output needs 6 x 6 pixels of the
 * input; in the transformed domain each of its 36 values is a product of its own, and the sums over
 * channels are 36 products of matrices. Transformed arrays are (36, channels, tiles), with `plane`
 * values from one of the 36 to the next. Tiles are worked on side by side, LANES at a time.
 */

#include <stdint.h>
#include <string.h>

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

#if defined(__x86_64__) && defined(__linux__) && defined(__GLIBC__) && defined(__GNUC__) && \
    !defined(__clang__) && __GNUC__ >= 12
#define KERNEL EXPORT __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define KERNEL EXPORT
#endif

#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#else
#define INLINE static inline
#endif

#define LANES 16
typedef float Lane[LANES];

/* Pictures (samples, channels, height, width), cut into rows x columns tiles. */
typedef struct {
    int64_t samples, channels, height, width, rows, columns;
} Shape;

/* B^T d for six values that lie `step` apart. */
INLINE void transform_input(const Lane *d, int step, Lane *out, int out_step) {
    for (int l = 0; l < LANES; l++) {
        float d0 = d[0][l], d1 = d[step][l], d2 = d[2 * step][l];
        float d3 = d[3 * step][l], d4 = d[4 * step][l], d5 = d[5 * step][l];
        float a = d4 - 4.0f * d2, b = d3 - 4.0f * d1, c = d4 - d2, e = 2.0f * (d3 - d1);
        out[0][l] = 4.0f * d0 - 5.0f * d2 + d4;
        out[out_step][l] = a + b;
        out[2 * out_step][l] = a - b;
        out[3 * out_step][l] = c + e;
        out[4 * out_step][l] = c - e;
        out[5 * out_step][l] = 4.0f * d1 - 5.0f * d3 + d5;
    }
}

/* A y for four values. */
INLINE void transform_error(const Lane *y, int step, Lane *out, int out_step) {
    for (int l = 0; l < LANES; l++) {
        float y0 = y[0][l], y1 = y[step][l], y2 = y[2 * step][l], y3 = y[3 * step][l];
        float even = y0 + y2, odd = y1 + y3, far = y0 + 4.0f * y2, wide = 2.0f * y1 + 8.0f * y3;
        out[0][l] = y0;
        out[out_step][l] = even + odd;
        out[2 * out_step][l] = even - odd;
        out[3 * out_step][l] = far + wide;
        out[4 * out_step][l] = far - wide;
        out[5 * out_step][l] = y3;
    }
}

/* A^T m for six values. */
INLINE void transform_output(const Lane *m, int step, Lane *out, int out_step) {
    for (int l = 0; l < LANES; l++) {
        float m1 = m[step][l], m2 = m[2 * step][l], m3 = m[3 * step][l], m4 = m[4 * step][l];
        float sum = m1 + m2, difference = m1 - m2, far = m3 + m4, wide = m3 - m4;
        out[0][l] = m[0][l] + sum + far;
        out[out_step][l] = difference + 2.0f * wide;
        out[2 * out_step][l] = sum + 4.0f * far;
        out[3 * out_step][l] = difference + 8.0f * wide + m[5 * step][l];
    }
}

/* Copy the square of `side` pixels around a tile, from `before` pixels up and left of it, into one
 * lane; zeros beyond the border. */
INLINE void load_tile(const float *picture, const Shape *s, int64_t tile, int side, int before,
                      Lane *out, int lane) {
    int64_t top = 4 * (tile / s->columns) - before, left = 4 * (tile % s->columns) - before;
    int inside = top >= 0 && left >= 0 && top + side <= s->height && left + side <= s->width;
    if (inside) {
        const float *from = picture + top * s->width + left;
        for (int i = 0; i < side; i++, from += s->width)
            for (int j = 0; j < side; j++) out[i * side + j][lane] = from[j];
        return;
    }
    for (int i = 0; i < side; i++) {
        int64_t y = top + i;
        int row = y >= 0 && y < s->height;
        for (int j = 0; j < side; j++) {
            int64_t x = left + j;
            int there = row && x >= 0 && x < s->width;
            out[i * side + j][lane] = there ? picture[y * s->width + x] : 0.0f;
        }
    }
}

INLINE void load_tiles(const float *pictures, const Shape *s, int64_t channel, int64_t first,
                       int count, int side, int before, Lane *out) {
    int64_t tiles = s->rows * s->columns, sample = first / tiles, tile = first % tiles;
    int64_t area = s->height * s->width;
    for (int lane = 0; lane < count; lane++) {
        load_tile(pictures + (sample * s->channels + channel) * area, s, tile, side, before, out,
                  lane);
        if (++tile == tiles) tile = 0, sample++;
    }
}

INLINE void store_planes(const Lane *values, int count, float *out, int64_t plane) {
    for (int k = 0; k < 36; k++) {
        if (count == LANES)
            memcpy(out + k * plane, values[k], sizeof(Lane));
        else
            memcpy(out + k * plane, values[k], (size_t)count * sizeof(float));
    }
}

/* V = B^T d B of every tile. */
KERNEL void tf_winograd_input(int64_t samples, int64_t channels, int64_t height, int64_t width,
                              const float *pictures, float *out, int64_t plane) {
    Shape s = {samples, channels, height, width, (height + 3) / 4, (width + 3) / 4};
    int64_t all = samples * s.rows * s.columns;
    Lane d[36], half[36];
    memset(d, 0, sizeof d);
    for (int64_t c = 0; c < channels; c++)
        for (int64_t p = 0; p < all; p += LANES) {
            int count = all - p < LANES ? (int)(all - p) : LANES;
            load_tiles(pictures, &s, c, p, count, 6, 1, d);
            for (int j = 0; j < 6; j++) transform_input(d + j, 6, half + j, 6);
            for (int i = 0; i < 6; i++) transform_input(half + 6 * i, 1, d + 6 * i, 1);
            store_planes(d, count, out + c * all + p, plane);
        }
}

/* A y A^T of every tile of an error of the output. */
KERNEL void tf_winograd_error(int64_t samples, int64_t channels, int64_t height, int64_t width,
                              const float *pictures, float *out, int64_t plane) {
    Shape s = {samples, channels, height, width, (height + 3) / 4, (width + 3) / 4};
    int64_t all = samples * s.rows * s.columns;
    Lane y[16], half[24], d[36];
    memset(y, 0, sizeof y);
    for (int64_t c = 0; c < channels; c++)
        for (int64_t p = 0; p < all; p += LANES) {
            int count = all - p < LANES ? (int)(all - p) : LANES;
            load_tiles(pictures, &s, c, p, count, 4, 0, y);
            for (int j = 0; j < 4; j++) transform_error(y + j, 4, half + j, 4);
            for (int i = 0; i < 6; i++) transform_error(half + 4 * i, 1, d + 6 * i, 1);
            store_planes(d, count, out + c * all + p, plane);
        }
}

/* A^T m A of every tile, plus a bias per channel (NULL for none), put together to pictures. */
KERNEL void tf_winograd_output(int64_t samples, int64_t channels, int64_t height, int64_t width,
                               const float *in, int64_t plane, const float *bias, float *pictures) {
    Shape s = {samples, channels, height, width, (height + 3) / 4, (width + 3) / 4};
    int64_t tiles = s.rows * s.columns, all = samples * tiles;
    Lane m[36], half[24], y[16];
    memset(m, 0, sizeof m);
    for (int64_t c = 0; c < channels; c++) {
        float start = bias ? bias[c] : 0.0f;
        int64_t sample = 0, tile = 0;
        for (int64_t p = 0; p < all; p += LANES) {
            int count = all - p < LANES ? (int)(all - p) : LANES;
            const float *from = in + c * all + p;
            for (int k = 0; k < 36; k++)
                memcpy(m[k], from + k * plane, (size_t)count * sizeof(float));
            for (int j = 0; j < 6; j++) transform_output(m + j, 6, half + j, 6);
            for (int i = 0; i < 4; i++) transform_output(half + 6 * i, 1, y + 4 * i, 1);
            for (int lane = 0; lane < count; lane++) {
                int64_t top = 4 * (tile / s.columns), left = 4 * (tile % s.columns);
                float *to = pictures + ((sample * channels + c) * height + top) * width + left;
                int high = height - top < 4 ? (int)(height - top) : 4;
                int wide = width - left < 4 ? (int)(width - left) : 4;
                if (high == 4 && wide == 4) {
                    for (int i = 0; i < 4; i++, to += width)
                        for (int j = 0; j < 4; j++) to[j] = y[4 * i + j][lane] + start;
                } else {
                    for (int i = 0; i < high; i++, to += width)
                        for (int j = 0; j < wide; j++) to[j] = y[4 * i + j][lane] + start;
                }
                if (++tile == tiles) tile = 0, sample++;
            }
        }
    }
}

/* Changes with every change of a signature, so that an old library is not called by mistake. */
EXPORT int32_t tf_version(void) { return 1; }
