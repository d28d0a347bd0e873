/* Eligibility traces that run forward in time, by neuron. */

#ifndef REAL

#include "common.h"
#include "dynamics.h"

#define REAL float
#define SUFFIX f32
#include "eligibility.c"
#undef REAL
#undef SUFFIX
#define REAL double
#define SUFFIX f64
#include "eligibility.c"

#else

/* Add to the gradient of neurons first to last - 1 of `size` by traces that run forward in time.
 *
 * The presynaptic traces A_j and B_j grow by 1 at each input spike and decay with tau_s and tau. At
 * spike k of neuron i the eligibility of its synapses grows by (equations 13 to 21)
 *
 *     dt_k/dw_ij = F_k / y_k (A_j(t_k) - B_j(t_k) + R_ij(t_k))
 *     R_ij(t) = theta / tau sum_{t_l < t} exp((t_l - t) / tau) dt_l/dw_ij
 *
 * and when the sample is over, the error of the neuron meets its eligibilities. Nothing is kept of
 * the past but the traces. `errors` is (B, size): one error for all spikes of a neuron. */
KERNEL int32_t NAME(tf_eligibility_gradient)(int64_t first, int64_t last, const Word *args) {
    const int64_t batch = args++->n, *in_offsets = args++->at;
    const double *in_times = args++->at;
    const int32_t *in_addresses = args++->at;
    const int64_t *offsets = args++->at;
    const double *times = args++->at;
    const int32_t *neurons = args++->at, *parents = args++->at;
    const REAL *currents = args++->at, *ys = args++->at, *errors = args++->at;
    const double theta = args++->f, tau = args++->f;
    const int64_t exact = args++->n, inputs = args++->n, size = args++->n;
    REAL *grad = args++->at;
    const int64_t count = last - first;
    const REAL ratio = (REAL)(theta / tau);
    REAL *fast = malloc((size_t)(inputs * (2 + 2 * count)) * sizeof *fast);
    double *since = malloc((size_t)(count + 1) * sizeof *since);
    if (!fast || !since) {
        free(fast);
        free(since);
        return 0;
    }
    REAL *slow = fast + inputs, *owns = slow + inputs, *eligibilities = owns + inputs * count;
    for (int64_t b = 0; b < batch; b++) {
        int64_t k = offsets[b];
        double at = 0; /* the time to which the presynaptic traces have decayed */
        for (int64_t j = 0; j < inputs; j++) fast[j] = slow[j] = 0;
        for (int64_t i = 0; i < count; i++) since[i] = -1;
        for (int64_t z = in_offsets[b]; z < in_offsets[b + 1]; z++) {
            const REAL decay = (REAL)exp((at - in_times[z]) / tau), squared = decay * decay;
            at = in_times[z];
            for (int64_t j = 0; j < inputs; j++) {
                fast[j] *= squared;
                slow[j] *= decay;
            }
            fast[in_addresses[z]] += 1;
            slow[in_addresses[z]] += 1;
            for (; k < offsets[b + 1] && parents[k] == z - in_offsets[b]; k++) {
                const int64_t i = neurons[k] - first;
                if (i < 0 || i >= count) continue;
                REAL *restrict own = owns + i * inputs;
                REAL *restrict eligibility = eligibilities + i * inputs;
                const REAL y = ys[k], f = (REAL)factor_of(currents[k], theta, tau, exact);
                if (since[i] < 0)
                    for (int64_t j = 0; j < inputs; j++) own[j] = eligibility[j] = 0;
                const REAL held = (REAL)exp((since[i] - times[k]) / tau);
                for (int64_t j = 0; j < inputs; j++) {
                    REAL before = own[j] * held;
                    REAL change = f * (fast[j] * y * y - slow[j] * y + before);
                    own[j] = before + ratio * change;
                    eligibility[j] += change;
                }
                since[i] = times[k];
            }
        }
        for (int64_t i = 0; i < count; i++) {
            if (since[i] < 0) continue;
            const REAL error = errors[b * size + first + i], *eligibility = eligibilities + i * inputs;
            for (int64_t j = 0; j < inputs; j++) grad[j * size + first + i] += error * eligibility[j];
        }
    }
    free(fast);
    free(since);
    return 1;
}

#endif
