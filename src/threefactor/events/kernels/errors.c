/* Errors of spikes by their times, and what a layer's spikes weigh in its gradients, by sample. */

#ifndef REAL

#include "common.h"
#include "dynamics.h"

/* Fill F_k / y_k of spikes with the synaptic currents I_k; see `dynamics.h`. */
EXPORT int32_t tf_factors(int64_t first, int64_t last, const Word *args) {
    const double *currents = args++->at, theta = args++->f, tau = args++->f;
    const int64_t exact = args++->n;
    double *out = args++->at;
    for (int64_t k = first; k < last; k++) out[k] = factor_of(currents[k], theta, tau, exact);
    return 1;
}

#define REAL float
#define SUFFIX f32
#include "errors.c"
#undef REAL
#undef SUFFIX
#define REAL double
#define SUFFIX f64
#include "errors.c"

#else

#include "common.h"

/* Give each spike the error of its neuron, (B, size).
 *
 * With `first_only`, later spikes than a neuron's first get 0. */
EXPORT int32_t NAME(tf_per_spike)(int64_t first, int64_t last, const Word *args) {
    const int64_t *offsets = args++->at;
    const int32_t *neurons = args++->at;
    const int64_t size = args++->n;
    const REAL *errors = args++->at;
    const int64_t first_only = args++->n;
    REAL *out = args++->at;
    uint8_t *spiked = malloc((size_t)size);
    if (!spiked) return 0;
    for (int64_t b = first; b < last; b++) {
        const REAL *own = errors + b * size;
        if (first_only) memset(spiked, 0, (size_t)size);
        for (int64_t k = offsets[b]; k < offsets[b + 1]; k++) {
            int32_t i = neurons[k];
            out[k] = first_only && spiked[i] ? 0 : own[i];
            spiked[i] = 1;
        }
    }
    free(spiked);
    return 1;
}

/* Fill the time of each neuron's first spike, (B, size), which is `duration` without one. */
EXPORT int32_t NAME(tf_first_times)(int64_t first, int64_t last, const Word *args) {
    const int64_t *offsets = args++->at;
    const double *times = args++->at;
    const int32_t *neurons = args++->at;
    const int64_t size = args++->n;
    const double duration = args++->f;
    REAL *out = args++->at;
    for (int64_t b = first; b < last; b++) {
        REAL *own = out + b * size;
        for (int64_t i = 0; i < size; i++) own[i] = (REAL)duration;
        for (int64_t k = offsets[b + 1] - 1; k >= offsets[b]; k--) own[neurons[k]] = (REAL)times[k];
    }
    return 1;
}

/* Turn the error of each spike, q_k, into v_k = lam_k F_k / y_k, the neuron's resets included:
 *
 *     lam_k = q_k + theta / tau sum_{m > k} v_m exp((t_k - t_m) / tau)
 *
 * `fast` and `slow` get v_k decayed to the time of the spike's parent with tau_s and tau. */
KERNEL int32_t NAME(tf_spike_weights)(int64_t first, int64_t last, const Word *args) {
    const int64_t *offsets = args++->at;
    const double *times = args++->at;
    const int32_t *neurons = args++->at;
    const REAL *currents = args++->at, *ys = args++->at, *errors = args++->at;
    const int64_t size = args++->n;
    const double theta = args++->f, tau = args++->f;
    const int64_t exact = args++->n;
    REAL *fast = args++->at, *slow = args++->at;
    double *later = malloc((size_t)size * 2 * sizeof *later);
    if (!later) return 0;
    double *since = later + size;
    const double ratio = theta / tau;
    for (int64_t b = first; b < last; b++) {
        for (int64_t i = 0; i < 2 * size; i++) later[i] = 0;
        for (int64_t k = offsets[b + 1] - 1; k >= offsets[b]; k--) {
            int32_t i = neurons[k];
            double t = times[k], y = ys[k], held = later[i];
            if (held != 0) held *= exp((t - since[i]) / tau);
            double v = (errors[k] + ratio * held) * factor_of(currents[k], theta, tau, exact);
            later[i] = held + v;
            since[i] = t;
            slow[k] = (REAL)(v * y);
            fast[k] = (REAL)(v * y * y);
        }
    }
    free(later);
    return 1;
}

/* Decay two rows, p and q; add weights times 2 p - q to one sum for each place in a group. */
INLINE void NAME(add_decayed)(int64_t groups, REAL *restrict p, REAL *restrict q, REAL fast, REAL slow,
                              const REAL *restrict weight, REAL *restrict sums) {
    for (int64_t g = 0; g < groups; g++) {
        for (int lane = 0; lane < GROUP; lane++) {
            const int64_t i = g * GROUP + lane;
            const REAL pi = p[i] * fast, qi = q[i] * slow;
            p[i] = pi;
            q[i] = qi;
            sums[lane] += weight[i] * (pi + pi - qi);
        }
    }
}

/* Return the error of each input spike by its time:
 *
 *     q_z = sum_i w_ij (P_i(t_z) / tau_s - Q_i(t_z) / tau)
 *
 * P and Q are those of `gradient.c`. The order of the sum is the same on all machines. */
KERNEL int32_t NAME(tf_input_errors)(int64_t first, int64_t last, const Word *args) {
    const int64_t *in_offsets = args++->at;
    const int32_t *in_addresses = args++->at;
    const REAL *decays = args++->at;
    const int64_t *offsets = args++->at;
    const int32_t *neurons = args++->at, *parents = args++->at;
    const REAL *fast = args++->at, *slow = args++->at;
    const int64_t inputs = args++->n, size = args++->n;
    const REAL *weight = args++->at;
    const double tau = args++->f;
    REAL *out = args++->at;
    const int64_t whole = size / GROUP * GROUP, padded = (size + GROUP - 1) / GROUP * GROUP;
    const REAL rate = (REAL)(1 / tau);
    void *memory = malloc(in_lines((size_t)padded * 2 * sizeof(REAL)));
    REAL *filled = NAME(filled)(inputs, size, weight);
    if (!memory || !filled) {
        free(memory);
        free(filled);
        return 0;
    }
    REAL *p = first_line(memory), *q = p + padded;
    for (int64_t b = first; b < last; b++) {
        const int64_t begin = in_offsets[b], end = in_offsets[b + 1];
        int64_t k = offsets[b + 1] - 1;
        const int64_t after = k >= offsets[b] ? begin + parents[k] + 1 : begin;
        for (int64_t i = 0; i < padded * 2; i++) p[i] = 0;
        for (int64_t z = after; z < end; z++) out[z] = 0; /* no spike of the layer comes after */
        for (int64_t z = after - 1; z >= begin; z--) {
            const REAL *row = weight + in_addresses[z] * size;
            const REAL slower = decays[z], faster = slower * slower;
            REAL sums[GROUP] = {0};
            NAME(add_decayed)(whole / GROUP, p, q, faster, slower, row, sums);
            if (padded > whole)
                NAME(add_decayed)(1, p + whole, q + whole, faster, slower,
                                  filled + in_addresses[z] * GROUP, sums);
            ROLLED for (int lane = 0; lane < 8; lane++) sums[lane] += sums[lane + 8];
            ROLLED for (int lane = 0; lane < 4; lane++) sums[lane] += sums[lane + 4];
            REAL total = (sums[0] + sums[2]) + (sums[1] + sums[3]);
            for (; k >= offsets[b] && parents[k] == z - begin; k--) {
                int32_t i = neurons[k];
                p[i] += fast[k];
                q[i] += slow[k];
                total += row[i] * (fast[k] + fast[k] - slow[k]);
            }
            out[z] = total * rate;
        }
    }
    free(memory);
    free(filled);
    return 1;
}

#endif
