/* Fused element-wise kernels in single precision; kernels.py loads them with ctypes.
 *
 * Plain C99 loops that the compiler turns into vector code. Nothing here may be compiled with
 * -ffast-math: a NaN must come out as a NaN. There is no Python module inside.
 */

#include <math.h>

#include "../portable.h"

INLINE float as_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

INLINE uint32_t as_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* ---- elementary functions, a few units in the last place, free of branches ---- */

/* exp(x) for x <= 0; 0 below -87, where single precision ends; NaN for NaN. */
INLINE float exp_negative(float x) {
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to a whole number */
    float inside = x < -87.0f ? -87.0f : x;
    float shifted = inside * 1.44269504088896341f + magic;
    float n = shifted - magic;
    float r = inside - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    /* The low bits of `shifted` hold n: move them to the exponent. */
    float result = p * as_float((as_bits(shifted) << 23) + 0x3f800000u);
    return x < -87.0f ? 0.0f : result;
}

/* log(x) for normal x > 0. */
INLINE float log_positive(float x) {
    uint32_t bits = as_bits(x);
    /* Split into 2^e * m with m between sqrt(1/2) and sqrt(2). */
    uint32_t shifted = bits - 0x3f3504f3u;
    float e = (float)((int32_t)shifted >> 23);
    float m = as_float((shifted & 0x007fffffu) + 0x3f3504f3u) - 1.0f;
    float z = m * m;
    float p = 7.0376836292e-2f;
    p = p * m - 1.1514610310e-1f;
    p = p * m + 1.1676998740e-1f;
    p = p * m - 1.2420140846e-1f;
    p = p * m + 1.4249322787e-1f;
    p = p * m - 1.6668057665e-1f;
    p = p * m + 2.0000714765e-1f;
    p = p * m - 2.4999993993e-1f;
    p = p * m + 3.3333331174e-1f;
    p = p * m * z;
    p = p - 2.12194440e-4f * e - 0.5f * z;
    return m + p + 0.693359375f * e;
}

/* ---- random numbers: xoshiro128++ (Blackman and Vigna 2019), LANES streams side by side ---- */

#define LANES 16
#define BLOCK 512 /* words that are made at a time; a multiple of 2 * LANES */

typedef struct {
    uint32_t s0[LANES], s1[LANES], s2[LANES], s3[LANES];
} Streams;

/* splitmix64: turns one seed into the unrelated states of all streams. */
INLINE uint64_t split(uint64_t *state) {
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

INLINE void seed_streams(Streams *streams, uint64_t seed) {
    for (int j = 0; j < LANES; j++) {
        uint64_t a = split(&seed), b = split(&seed);
        streams->s0[j] = (uint32_t)a | 1u; /* a state of zeros alone would stay there */
        streams->s1[j] = (uint32_t)(a >> 32);
        streams->s2[j] = (uint32_t)b;
        streams->s3[j] = (uint32_t)(b >> 32);
    }
}

INLINE uint32_t rotate(uint32_t x, int k) { return (x << k) | (x >> (32 - k)); }

INLINE void draw_words(Streams *streams, uint32_t *restrict words) {
    Streams s = *streams;
    for (int i = 0; i < BLOCK; i += LANES) {
        for (int j = 0; j < LANES; j++) {
            words[i + j] = rotate(s.s0[j] + s.s3[j], 7) + s.s0[j];
            uint32_t t = s.s1[j] << 9;
            s.s2[j] ^= s.s0[j];
            s.s3[j] ^= s.s1[j];
            s.s1[j] ^= s.s2[j];
            s.s0[j] ^= s.s3[j];
            s.s2[j] ^= t;
            s.s3[j] = rotate(s.s3[j], 11);
        }
    }
    *streams = s;
}

/* Box-Muller: two words make two normal values, one in each half of the block. */
INLINE void words_to_normals(const uint32_t *restrict words, float *restrict out, float scale) {
    for (int i = 0; i < BLOCK / 2; i++) {
        uint32_t a = words[i], b = words[i + BLOCK / 2];
        /* Uniform on (0, 1], finest near 0, where the tails come from: up to 6.7 deviations. */
        float u = ((float)(int32_t)(a >> 1) + 0.5f) * 4.656612873077393e-10f;
        float radius = scale * sqrtf(-2.0f * log_positive(u));
        /* An angle within 45 degrees of an axis; one bit chooses the axis, one its direction. */
        float x = (float)((int32_t)(b << 2) >> 8) * (0.785398163397448f / 8388608.0f);
        float z = x * x;
        float sine = ((-1.9515295891e-4f * z + 8.3321608736e-3f) * z - 1.6666654611e-1f) * z * x + x;
        float cosine = ((2.443315711809948e-5f * z - 1.388731625493765e-3f) * z +
                        4.166664568298827e-2f) * z * z - 0.5f * z + 1.0f;
        uint32_t swap = 0u - (b >> 31), sign = (b << 1) & 0x80000000u;
        uint32_t c = as_bits(cosine), s = as_bits(sine), exchange = (c ^ s) & swap;
        out[i] = radius * as_float((c ^ exchange) ^ sign);
        out[i + BLOCK / 2] = radius * as_float((s ^ exchange) ^ sign);
    }
}

/* Fill with independent normal values of mean 0 and standard deviation `scale`. */
KERNEL void tf_gaussian(int64_t n, float *out, uint64_t seed, float scale) {
    Streams streams;
    uint32_t words[BLOCK];
    float last[BLOCK];
    seed_streams(&streams, seed);
    int64_t i = 0;
    for (; i + BLOCK <= n; i += BLOCK) {
        draw_words(&streams, words);
        words_to_normals(words, out + i, scale);
    }
    if (i < n) {
        draw_words(&streams, words);
        words_to_normals(words, last, scale);
        memcpy(out + i, last, (size_t)(n - i) * sizeof(float));
    }
}

/* Fill with `value`, or with 0 where a random word lies below `threshold` (of 2^31). */
KERNEL void tf_mask(int64_t n, float *out, uint64_t seed, int32_t threshold, float value) {
    Streams streams;
    uint32_t words[BLOCK];
    seed_streams(&streams, seed);
    for (int64_t i = 0; i < n; i += BLOCK) {
        draw_words(&streams, words);
        int count = n - i < BLOCK ? (int)(n - i) : BLOCK;
        for (int j = 0; j < count; j++)
            out[i + j] = (int32_t)(words[j] >> 1) < threshold ? 0.0f : value;
    }
}

/* ---- neurons ---- */

/* Into how many parts to cut n neurons, one a thread; less than 2^14 are not worth waking one. */
INLINE int64_t parts_of(int64_t n, int32_t threads) {
    const int64_t most = n >> 14;
    return most < 1 ? 1 : most < threads ? most : threads;
}

/* What a spike of the step before leaves of the potential: V less, or nothing. */
INLINE float rest(float u, float s, float threshold, int zero) {
    return zero ? (s != 0.0f ? 0.0f : u) : u - threshold * s;
}

INLINE void lif(int64_t n, float *restrict u, float *restrict s, const float *restrict current,
                const float *restrict noise, float leak, float threshold, int zero) {
    if (noise) {
        for (int64_t i = 0; i < n; i++) {
            float v = leak * rest(u[i], s[i], threshold, zero) + current[i];
            v = v + noise[i];
            u[i] = v;
            s[i] = v >= threshold ? 1.0f : 0.0f;
        }
    } else {
        for (int64_t i = 0; i < n; i++) {
            float v = leak * rest(u[i], s[i], threshold, zero) + current[i];
            u[i] = v;
            s[i] = v >= threshold ? 1.0f : 0.0f;
        }
    }
}

/* u = leak * rest(u, s) + current [+ noise], s = [u >= V]. */
KERNEL void tf_lif(int64_t n, float *restrict u, float *restrict s, const float *restrict current,
                   const float *restrict noise, float leak, float threshold, int32_t zero) {
    if (zero)
        lif(n, u, s, current, noise, leak, threshold, 1);
    else
        lif(n, u, s, current, noise, leak, threshold, 0);
}

INLINE int64_t lif_activity(int64_t n, float *restrict u, float *restrict s,
                            const float *restrict current, const float *restrict gate, float scale,
                            const float *restrict after, float *restrict out, float leak,
                            float threshold, int zero) {
    int64_t total = 0;
    int32_t largest = 0; /* of the potentials' bits without their sign: those of NaN are largest */
    for (int64_t start = 0; start < n; start += BLOCK) {
        int count = n - start < BLOCK ? (int)(n - start) : BLOCK;
        int32_t fired = 0;
        for (int j = 0; j < count; j++) {
            int64_t i = start + j;
            float v = leak * rest(u[i], s[i], threshold, zero) + current[i];
            u[i] = v;
            s[i] = v >= threshold ? 1.0f : 0.0f;
            fired += v >= threshold;
            int32_t size = (int32_t)(as_bits(v) & 0x7fffffffu);
            largest = size > largest ? size : largest;
        }
        total += fired;
        /* This much is still in the nearest cache. */
        for (int64_t i = start; i < start + count; i++) out[i] = gate ? s[i] * gate[i] : s[i] * scale;
        if (after)
            for (int64_t i = start; i < start + count; i++) out[i] += after[i];
    }
    return largest < 0x7f800000 ? total : -1;
}

KERNEL int64_t tf_lif_activity_part(int64_t n, float *restrict u, float *restrict s,
                                    const float *restrict current, const float *restrict gate,
                                    float scale, const float *restrict after,
                                    float *restrict out, float leak, float threshold,
                                    int32_t zero) {
    if (zero) return lif_activity(n, u, s, current, gate, scale, after, out, leak, threshold, 1);
    return lif_activity(n, u, s, current, gate, scale, after, out, leak, threshold, 0);
}

/* The same step, and in the same pass the activity s * gate [+ after] that the next layer sees; a
 * gate of NULL means `scale` for every neuron. Returns the number of spikes, or -1 if a potential is
 * NaN or infinite. */
EXPORT int64_t tf_lif_activity(int64_t n, float *u, float *s, const float *current,
                               const float *gate, float scale, const float *after, float *out,
                               float leak, float threshold, int32_t zero, int32_t threads) {
    int64_t total = 0, bad = 0;
    const int64_t parts = parts_of(n, threads);
#pragma omp parallel for num_threads((int)parts) if (parts > 1) reduction(+ : total, bad)
    for (int64_t p = 0; p < parts; p++) {
        const int64_t i = n * p / parts, count = n * (p + 1) / parts - i;
        const int64_t fired =
            tf_lif_activity_part(count, u + i, s + i, current + i, gate ? gate + i : 0, scale,
                                 after ? after + i : 0, out + i, leak, threshold, zero);
        total += fired;
        bad += fired < 0;
    }
    return bad ? -1 : total;
}

/* a psi(u) = q / (1 + q)^2 with q = exp(-|u - V| / a): no difference of nearly equal numbers. */
INLINE float surrogate(float u, float threshold, float inverse) {
    float x = (u - threshold) * inverse;
    float q = exp_negative(-fabsf(x));
    float d = 1.0f + q;
    return q / (d * d);
}

KERNEL void tf_surrogate_part(int64_t n, float *restrict out, const float *restrict error,
                              const float *restrict u, const float *restrict gate, float threshold,
                              float inverse, float factor) {
    if (gate) {
        for (int64_t i = 0; i < n; i++)
            out[i] = error[i] * (surrogate(u[i], threshold, inverse) * (gate[i] * factor));
    } else {
        for (int64_t i = 0; i < n; i++)
            out[i] = error[i] * (surrogate(u[i], threshold, inverse) * factor);
    }
}

/* out = error * a psi(u) * gate * factor, a gate of NULL meaning 1. */
EXPORT void tf_surrogate(int64_t n, float *out, const float *error, const float *u,
                         const float *gate, float threshold, float inverse, float factor,
                         int32_t threads) {
    const int64_t parts = parts_of(n, threads);
#pragma omp parallel for num_threads((int)parts) if (parts > 1)
    for (int64_t p = 0; p < parts; p++) {
        const int64_t i = n * p / parts, count = n * (p + 1) / parts - i;
        tf_surrogate_part(count, out + i, error + i, u + i, gate ? gate + i : 0, threshold, inverse,
                          factor);
    }
}

/* ---- pooling ---- */

/* The average of each square of side `pool` of each picture (height, width), rows first; what is
 * left over at the right and below is dropped. Squares are done in blocks that stay in the cache. */
INLINE void average(int64_t pictures, int64_t height, int64_t width, int64_t pool,
                    const float *restrict in, float *restrict out) {
    enum { ROOM = 2048 };
    float sums[ROOM];
    const int64_t rows = height / pool, columns = width / pool;
    const int64_t most = columns * pool < ROOM ? columns : ROOM / pool;
    const float scale = 1.0f / (float)(pool * pool);
    for (int64_t first = 0; first < columns; first += most) {
        const int64_t some = columns - first < most ? columns - first : most, run = some * pool;
        const int64_t block = ROOM / run;
        for (int64_t done = 0; done < pictures * rows; done += block) {
            const int64_t end = done + block < pictures * rows ? done + block : pictures * rows;
            for (int64_t r = done; r < end; r++) {
                const float *row = in + (r / rows * height + r % rows * pool) * width + first * pool;
                float *to = sums + (r - done) * run;
                for (int64_t x = 0; x < run; x++) to[x] = row[x] + row[width + x];
                for (int64_t i = 2; i < pool; i++)
                    for (int64_t x = 0; x < run; x++) to[x] += row[i * width + x];
            }
            for (int64_t r = done; r < end; r++) {
                const float *from = sums + (r - done) * run;
                float *to = out + r * columns + first;
                for (int64_t c = 0; c < some; c++) {
                    float total = from[c * pool] + from[c * pool + 1];
                    for (int64_t i = 2; i < pool; i++) total += from[c * pool + i];
                    to[c] = total * scale;
                }
            }
        }
    }
}

/* The same, for a side of at least 2 and at most 2048. */
KERNEL void tf_average(int64_t pictures, int64_t height, int64_t width, int64_t pool,
                       const float *restrict in, float *restrict out) {
    if (pool == 2)
        average(pictures, height, width, 2, in, out);
    else
        average(pictures, height, width, pool, in, out);
}

/* ---- losses ---- */

/* (1 - c) cross entropy + c mean squared error of each row, and its gradient by the row.
 * Returns 0 if a target is not below m; nothing useful is written then. */
EXPORT int32_t tf_cross_entropy_mse(int64_t rows, int64_t m, const float *restrict output,
                                    const int64_t *restrict targets, float c,
                                    float *restrict losses, float *restrict error) {
    const float share = c / (float)m;
    for (int64_t i = 0; i < rows; i++, output += m, error += m) {
        int64_t y = targets[i];
        if (y < 0 || y >= m) return 0;
        float top = output[0];
        for (int64_t k = 1; k < m; k++) top = output[k] > top ? output[k] : top;
        for (int64_t k = 0; k < m; k++) error[k] = exp_negative(output[k] - top);
        float total = 0.0f, squares = 0.0f;
        for (int64_t k = 0; k < m; k++) {
            float difference = output[k] - (k == y ? 1.0f : 0.0f);
            total += error[k];
            squares += difference * difference;
        }
        losses[i] = (1.0f - c) * (logf(total) - (output[y] - top)) + share * squares;
        for (int64_t k = 0; k < m; k++) {
            float hot = k == y ? 1.0f : 0.0f;
            error[k] = (1.0f - c) * (error[k] / total - hot) + 2.0f * share * (output[k] - hot);
        }
    }
    return 1;
}

/* Changes with every change of a signature, so that an old library is not called by mistake. */
EXPORT int32_t tf_version(void) { return 6; }
