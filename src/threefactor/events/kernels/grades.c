/* What learned feedback needs: grades of spikes, sums of them, and products of matrices. */

#ifndef REAL

#include "common.h"

#define REAL float
#define SUFFIX f32
#include "grades.c"
#undef REAL
#undef SUFFIX
#define REAL double
#define SUFFIX f64
#include "grades.c"

#else

/* Give every spike its grade.
 *
 * A neuron's running grade gains weight times grade at each graded input spike, leaves on the
 * neuron's own spike and returns to 0; the neuron's first spike also carries its perturbation,
 * (B, size). */
KERNEL int32_t NAME(tf_grades)(int64_t first, int64_t last, const Word *args) {
    const int64_t *in_offsets = args++->at;
    const int32_t *in_addresses = args++->at;
    const REAL *in_grades = args++->at;
    const int64_t *offsets = args++->at;
    const int32_t *neurons = args++->at, *parents = args++->at;
    const int64_t size = args++->n;
    const REAL *weight = args++->at, *perturbation = args++->at;
    REAL *out = args++->at;
    REAL *restrict running = malloc((size_t)size * sizeof *running);
    uint8_t *spiked = malloc((size_t)size);
    if (!running || !spiked) {
        free(running);
        free(spiked);
        return 0;
    }
    for (int64_t b = first; b < last; b++) {
        int64_t k = offsets[b];
        for (int64_t i = 0; i < size; i++) running[i] = 0;
        memset(spiked, 0, (size_t)size);
        for (int64_t z = in_offsets[b]; z < in_offsets[b + 1]; z++) {
            const REAL grade = in_grades[z];
            if (grade != 0) {
                const REAL *restrict row = weight + in_addresses[z] * size;
                for (int64_t i = 0; i < size; i++) running[i] += row[i] * grade;
            }
            for (; k < offsets[b + 1] && parents[k] == z - in_offsets[b]; k++) {
                const int32_t i = neurons[k];
                out[k] = running[i];
                if (!spiked[i]) out[k] += perturbation[b * size + i];
                spiked[i] = 1;
                running[i] = 0;
            }
        }
    }
    free(running);
    free(spiked);
    return 1;
}

/* Sum the values of each neuron's spikes, (B, size). */
EXPORT int32_t NAME(tf_summed)(int64_t first, int64_t last, const Word *args) {
    const int64_t *offsets = args++->at;
    const int32_t *neurons = args++->at;
    const REAL *values = args++->at;
    const int64_t size = args++->n;
    double *out = args++->at;
    for (int64_t b = first; b < last; b++) {
        double *own = out + b * size;
        for (int64_t i = 0; i < size; i++) own[i] = 0;
        for (int64_t k = offsets[b]; k < offsets[b + 1]; k++) own[neurons[k]] += values[k];
    }
    return 1;
}

/* Multiply rows of a matrix, (rows, inner), with another, (inner, columns).
 *
 * Every number is summed in the same order, however many threads there are: BLAS does not. */
KERNEL int32_t NAME(tf_product)(int64_t first, int64_t last, const Word *args) {
    const int64_t inner = args++->n, columns = args++->n;
    const REAL *a = args++->at, *b = args++->at;
    REAL *out = args++->at;
    for (int64_t i = first; i < last; i++) {
        REAL *restrict own = out + i * columns;
        for (int64_t j = 0; j < columns; j++) own[j] = 0;
        for (int64_t k = 0; k < inner; k++) {
            const REAL factor = a[i * inner + k], *restrict row = b + k * columns;
            for (int64_t j = 0; j < columns; j++) own[j] += factor * row[j];
        }
    }
    return 1;
}

#endif
