/* Closed forms of one LIF neuron with membrane constant tau = 2 tau_s, as scalar functions.
 *
 * Between two input spikes the state of a neuron is two numbers, both relative to the time t_0 of
 * the last event, so that nothing overflows however long the simulation is:
 *
 *     s = sum_z w_z exp((t_z - t_0) / tau_s)
 *     c = sum_z w_z exp((t_z - t_0) / tau) - theta sum_l exp((t_l - t_0) / tau)
 *
 * the synaptic current, and the slow part with the resets. With y = exp(-(t - t_0) / tau), which
 * falls from 1 towards 0, the potential is a parabola: u = c y - s y^2.
 *
 * Source: Bacho & Chu (SFDFA), equations 1 to 4 and 13 to 18.
 */

#ifndef THREEFACTOR_EVENTS_DYNAMICS_H
#define THREEFACTOR_EVENTS_DYNAMICS_H

/* What rounding leaves of I_k - theta, as a share of theta. */
#define RESOLUTION 1e-6
/* What `crossing` returns when the threshold is not reached. */
#define NEVER -1

/* Return F_k / y_k in seconds per potential,
 *
 *     tau / (I_k - theta)  (exact),    tau / I_k  (modified)
 *
 * I_k is the current at the spike, at least theta. The exact factor diverges at a hair trigger;
 * I_k - theta is taken to be at least theta times RESOLUTION, which is what rounding leaves of it.
 * The modified factor is at most tau / theta (equation 18). */
INLINE double factor_of(double current, double theta, double tau, int64_t exact) {
    double least_current = exact ? theta * RESOLUTION : theta;
    double found = exact ? current - theta : current;
    return tau / (found > least_current ? found : least_current);
}

#endif

#ifdef REAL

/* Return y of the first upward crossing of theta, between 1 and y_end, or NEVER.
 *
 * An upward crossing has s y^2 >= theta, so s >= theta at every earlier moment. With s >= theta and
 * u(1) < theta no crossing can lie in the past. u(1) >= theta comes from rounding only, when a
 * crossing at the very end of the interval before was missed: it counts now. */
INLINE double NAME(crossing)(REAL c, REAL s, REAL theta, REAL y_end) {
    REAL square = c * c - (theta + theta) * (s + s);
    if (!(s >= theta && square >= 0)) return NEVER;
    REAL root = sizeof(REAL) == sizeof(float) ? (REAL)sqrtf((float)square) : (REAL)sqrt(square);
    REAL y = (c + root) / (s + s);
    if (!(y >= y_end)) return NEVER; /* or a state is infinite */
    if (y > 1) return c - s >= theta ? 1 : NEVER;
    return y;
}

#endif
