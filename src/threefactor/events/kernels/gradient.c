/* The gradient of a layer's weights, by neuron. */

#ifndef REAL

/* A compiler that fuses p[i] * fast - q[i] * slow does so in some copies of a loop and not in
 * others: the bits of a gradient would depend on how the neurons are cut into ranges. */
#if defined(__clang__)
#pragma clang fp contract(off)
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif

#include "common.h"

#define REAL float
#define SUFFIX f32
#include "gradient.c"
#undef REAL
#undef SUFFIX
#define REAL double
#define SUFFIX f64
#include "gradient.c"

#else

/* Decay two rows, and add their difference to a third, or fill it if it holds nothing yet. */
INLINE void NAME(step_back)(int64_t width, REAL *restrict p, REAL *restrict q, REAL fast, REAL slow,
                            REAL *restrict grad, int fills) {
    if (fills) {
        for (int64_t i = 0; i < width; i++) {
            const REAL pi = p[i] * fast, qi = q[i] * slow;
            p[i] = pi;
            q[i] = qi;
            grad[i] = pi - qi;
        }
    } else {
        for (int64_t i = 0; i < width; i++) {
            const REAL pi = p[i] * fast, qi = q[i] * slow;
            p[i] = pi;
            q[i] = qi;
            grad[i] += pi - qi;
        }
    }
}

/* A spike of one of the neurons at work: how far it stands from the first of them. */
typedef struct {
    int32_t place, parent;
    REAL fast, slow;
} NAME(Cause);

/* What came into a layer, and the spikes of the neurons at work: those of sample b end at
 * `ends[b]`. */
typedef struct {
    int64_t batch;
    const int64_t *in_offsets;
    const int32_t *in_addresses;
    const REAL *decays;
    NAME(Cause) * causes;
    int64_t *ends;
} NAME(Past);

/* List the spikes of the neurons first to last - 1. */
INLINE void NAME(list)(NAME(Past) past, int64_t first, int64_t last, const int64_t *offsets,
                       const int32_t *neurons, const int32_t *parents, const REAL *fast,
                       const REAL *slow) {
    int64_t n = 0;
    for (int64_t b = 0; b < past.batch; b++) {
        for (int64_t k = offsets[b]; k < offsets[b + 1]; k++) {
            NAME(Cause) cause = {(int32_t)(neurons[k] - first), parents[k], fast[k], slow[k]};
            past.causes[n] = cause;
            n += (neurons[k] >= first) & (neurons[k] < last); /* a branch would be guessed wrong */
        }
        past.ends[b] = n;
    }
}

/* Fill the rows of a gradient, of `width` neurons, that get anything; `touched` says which do. */
INLINE void NAME(walk_back)(NAME(Past) past, int64_t width, REAL *restrict p, REAL *restrict q,
                            REAL *grad, int64_t stride, uint8_t *touched) {
    for (int64_t b = 0; b < past.batch; b++) {
        const int64_t stop = b ? past.ends[b - 1] : 0;
        int64_t k = past.ends[b] - 1;
        if (k < stop) continue;
        for (int64_t i = 0; i < width; i++) p[i] = q[i] = 0;
        for (int64_t parent = past.causes[k].parent; parent >= 0; parent--) {
            const int64_t z = past.in_offsets[b] + parent, address = past.in_addresses[z];
            const REAL decay = past.decays[z];
            REAL *row = grad + address * stride;
            NAME(step_back)(width, p, q, decay * decay, decay, row, !touched[address]);
            touched[address] = 1;
            for (; k >= stop && past.causes[k].parent == parent; k--) {
                const NAME(Cause) *cause = past.causes + k;
                p[cause->place] += cause->fast;
                q[cause->place] += cause->slow;
                row[cause->place] += cause->fast - cause->slow;
            }
        }
    }
}

/* Fill the gradient of neurons first to last - 1 of `size`, over all samples, backward in time:
 *
 *     dL/dw_ij = sum_z P_i(t_z) - Q_i(t_z)
 *     P_i(t) = sum_{t_k > t} v_k exp((t - t_k) / tau_s)
 *     Q_i(t) = sum_{t_k > t} v_k exp((t - t_k) / tau)
 */
KERNEL int32_t NAME(tf_weight_gradient)(int64_t first, int64_t last, const Word *args) {
    const int64_t batch = args++->n, *in_offsets = args++->at;
    const int32_t *in_addresses = args++->at;
    const REAL *decays = args++->at;
    const int64_t *offsets = args++->at;
    const int32_t *neurons = args++->at, *parents = args++->at;
    const REAL *fast = args++->at, *slow = args++->at;
    const int64_t inputs = args++->n, size = args++->n;
    REAL *grad = args++->at;
    const int64_t count = last - first, width = (count + GROUP - 1) / GROUP * GROUP;
    /* A range has memory of its own, filled up to whole groups: threads that write different parts
     * of the same rows slow each other down by a factor of two to five. */
    const int direct = count == size && width == size;
    const int64_t stride = direct ? size : width;
    void *memory = malloc(in_lines((size_t)width * 2 * sizeof(REAL)));
    void *rows = malloc(direct ? 1 : in_lines((size_t)(inputs * width) * sizeof(REAL)));
    NAME(Cause) *causes = malloc((size_t)(offsets[batch] + 1) * sizeof *causes);
    int64_t *ends = malloc((size_t)batch * sizeof *ends);
    uint8_t *touched = calloc((size_t)inputs, 1);
    const int enough = memory && rows && causes && ends && touched;
    if (enough) {
        const NAME(Past) past = {batch, in_offsets, in_addresses, decays, causes, ends};
        REAL *p = first_line(memory), *own = direct ? grad : first_line(rows);
        NAME(list)(past, first, last, offsets, neurons, parents, fast, slow);
        NAME(walk_back)(past, width, p, p + width, own, stride, touched);
        for (int64_t j = 0; j < inputs; j++) {
            REAL *row = grad + j * size + first;
            if (!touched[j])
                memset(row, 0, (size_t)count * sizeof *row);
            else if (!direct)
                memcpy(row, own + j * stride, (size_t)count * sizeof *row);
        }
    }
    free(memory);
    free(rows);
    free(causes);
    free(ends);
    free(touched);
    return enough;
}

#endif
