/* The forward pass of a layer: from its input spikes to its own, by sample.
 *
 * `prepare` looks at all that is given, `integrate` finds every spike, block of neurons by block,
 * and `pack` sorts the spikes of a sample.
 */

#ifndef REAL

#include "common.h"
#include "dynamics.h"

/* The number of the lowest bit that is set. */
INLINE int lowest(uint32_t bits) {
#if defined(__GNUC__)
    return __builtin_ctz(bits);
#else
    int found = 0;
    for (; !(bits & 1); bits >>= 1) found++;
    return found;
#endif
}

/* Spikes to sort: their times, and a place for each; all places differ. */
typedef struct {
    double *times;
    int64_t *places;
} Order;

#define RANKED 32 /* spikes that are sorted by counting those before each */
#define SPREAD 8  /* spikes in a bucket, if their times are spread evenly */

INLINE Order from(Order order, int64_t at) {
    Order found = {order.times + at, order.places + at};
    return found;
}

INLINE int64_t comes_first(double time, int64_t place, double other_time, int64_t other_place) {
    return (time < other_time) | ((time == other_time) & (place < other_place));
}

/* Sort a few spikes by time, and by place if that is equal: each goes where its rank says. */
INLINE void sort_few(int64_t n, Order given, Order out) {
    int64_t ranks[RANKED];
    for (int64_t k = 0; k < n; k++) ranks[k] = 0;
    for (int64_t j = 0; j < n; j++) {
        const double time = given.times[j];
        const int64_t place = given.places[j];
        for (int64_t k = 0; k < n; k++)
            ranks[k] += comes_first(time, place, given.times[k], given.places[k]);
    }
    for (int64_t k = 0; k < n; k++) {
        out.times[ranks[k]] = given.times[k];
        out.places[ranks[k]] = given.places[k];
    }
}

/* Sort any number, by merging; what was given is used as memory. */
static void sort_by_merging(int64_t n, Order given, Order out) {
    if (n <= RANKED) {
        sort_few(n, given, out);
        return;
    }
    const int64_t middle = n / 2;
    sort_by_merging(middle, given, out);
    sort_by_merging(n - middle, from(given, middle), from(out, middle));
    memcpy(given.times, out.times, (size_t)n * sizeof *out.times);
    memcpy(given.places, out.places, (size_t)n * sizeof *out.places);
    for (int64_t k = 0, left = 0, right = middle; k < n; k++) {
        const int from_right =
            left == middle || (right < n && comes_first(given.times[right], given.places[right],
                                                        given.times[left], given.places[left]));
        const int64_t next = from_right ? right++ : left++;
        out.times[k] = given.times[next];
        out.places[k] = given.places[next];
    }
}

/* Sort any number. Times that are spread evenly go into buckets of a few each; a crowded bucket is
 * sorted by merging. What was given is used as memory, and `heads` is for n numbers. */
INLINE void sort(int64_t n, Order given, Order out, int64_t *heads) {
    if (n <= RANKED) {
        sort_few(n, given, out);
        return;
    }
    const int64_t buckets = n / SPREAD;
    double low = given.times[0], high = low;
    for (int64_t k = 1; k < n; k++) {
        low = given.times[k] < low ? given.times[k] : low;
        high = given.times[k] > high ? given.times[k] : high;
    }
    const double scale = (double)(buckets - 1) / (high - low);
    if (!(scale > 0 && scale <= DBL_MAX)) { /* all at once, or one infinite */
        sort_by_merging(n, given, out);
        return;
    }
    /* heads[i + 1] is where the next spike of bucket i goes, at last where they end. */
    memset(heads, 0, (size_t)(buckets + 2) * sizeof *heads);
    for (int64_t k = 0; k < n; k++) heads[(int64_t)((given.times[k] - low) * scale) + 2] += 1;
    for (int64_t i = 1; i <= buckets; i++) heads[i + 1] += heads[i];
    for (int64_t k = 0; k < n; k++) {
        const int64_t at = heads[(int64_t)((given.times[k] - low) * scale) + 1]++;
        out.times[at] = given.times[k];
        out.places[at] = given.places[k];
    }
    memcpy(given.times, out.times, (size_t)n * sizeof *out.times);
    memcpy(given.places, out.places, (size_t)n * sizeof *out.places);
    for (int64_t i = 0; i < buckets; i++) {
        const int64_t begin = heads[i], own = heads[i + 1] - begin;
        if (own <= RANKED)
            sort_few(own, from(given, begin), from(out, begin));
        else
            sort_by_merging(own, from(given, begin), from(out, begin));
    }
}

/* LARGEST is the largest weight: the square of a sum of a thousand is finite. Where it is not, a
 * neuron would be silent. */
#define REAL float
#define WORD uint32_t
#define LARGEST 1e16f
#define SUFFIX f32
#include "forward.c"
#undef REAL
#undef WORD
#undef LARGEST
#undef SUFFIX
#define REAL double
#define WORD uint64_t
#define LARGEST 1e150
#define SUFFIX f64
#include "forward.c"

#else

#include "common.h"
#include "dynamics.h"

/* One input spike of a sample: the row of weights that it adds, and the decays around it. */
typedef struct {
    int64_t address;
    REAL slow, fast; /* since the spike before, with tau and tau_s */
    REAL y, y2, yy;  /* until the next spike, or the end: with tau, twice that, with tau_s */
    int32_t looks;   /* 0 if the next spike is simultaneous: then nothing can fire in between */
} NAME(Step);

/* One spike as `integrate` finds it. A spike's parent is the input spike of its sample after which
 * it was emitted, y the decay since then, current the synaptic current at that moment. */
typedef struct {
    int32_t neuron, parent;
    REAL y, current;
} NAME(Spike);

/* Fill exp(-dt / tau), dt from each of a sample's n spikes to the next, or the simulation's end.
 *
 * Spikes beyond the end are never looked at; theirs is 1. Return whether the times rise from 0 or
 * later, and all addresses are below `inputs`. */
INLINE int NAME(decays)(int64_t n, const double *times, const int32_t *addresses, int64_t inputs,
                        double tau, double duration, REAL *out) {
    double until = duration, next = INFINITY;
    int sound = 1;
    for (int64_t z = n - 1; z >= 0; z--) {
        sound &= times[z] <= next && 0 <= addresses[z] && addresses[z] < inputs;
        next = times[z];
        double dt = times[z] - until;
        out[z] = dt < 0 ? (REAL)exp(dt / tau) : 1;
        until = times[z] < duration ? times[z] : duration;
    }
    return sound && next >= 0;
}

/* Look at samples before `integrate`; fill the decays between their spikes.
 *
 * `wrong[0]` becomes the number of a sample whose spikes are not what they should be: nothing is to
 * be read or written beyond the arrays. `wrong[1]` becomes 0 if a weight is beyond LARGEST; each sample
 * looks at a share of the weights, such that all samples together answer for all. */
KERNEL int32_t NAME(tf_prepare)(int64_t first, int64_t last, const Word *args) {
    const int64_t batch = args++->n, spikes = args++->n, *offsets = args++->at;
    const double *times = args++->at;
    const int32_t *addresses = args++->at;
    const int64_t inputs = args++->n, neurons = args++->n;
    const REAL *weight = args++->at;
    const double tau = args++->f, duration = args++->f;
    REAL *decays = args++->at;
    int64_t *wrong = args++->at;
    for (int64_t b = first; b < last; b++) {
        int64_t begin = offsets[b], end = offsets[b + 1];
        if (!(0 <= begin && begin <= end && end <= spikes) ||
            !NAME(decays)(end - begin, times + begin, addresses + begin, inputs, tau, duration,
                          decays + begin))
            wrong[0] = b;
        int32_t odd = 0;
        for (int64_t i = inputs * b / batch * neurons; i < inputs * (b + 1) / batch * neurons; i++) {
            REAL w = weight[i];
            odd |= !((w < 0 ? -w : w) <= LARGEST);
        }
        if (odd) wrong[1] = 0;
    }
    return 1;
}

/* Decay the states of a block to now and add one input spike. */
INLINE void NAME(update)(int64_t groups, REAL *restrict c, REAL *restrict s,
                         const REAL *restrict weight, REAL slow, REAL fast) {
    for (int64_t i = 0; i < groups * GROUP; i++) {
        c[i] = c[i] * slow + weight[i];
        s[i] = s[i] * fast + weight[i];
    }
}

/* As `update`; also mark the neurons that may fire before the next input spike: bit g of
 * `marks[lane]` stands for neuron g GROUP + lane. Return whether there is any.
 *
 * A neuron can fire only if the parabola has a root, and its peak lies within the interval or its
 * end above the threshold. `crossing` decides. */
INLINE uint32_t NAME(update_and_look)(int64_t groups, REAL *restrict c, REAL *restrict s,
                                      const REAL *restrict weight, const NAME(Step) * step,
                                      REAL theta, WORD *restrict marks) {
    const REAL slow = step->slow, fast = step->fast, y = step->y, y2 = step->y2, yy = step->yy;
    const REAL theta4 = (theta + theta) + (theta + theta);
    WORD found[GROUP] = {0}, bit = 1, any = 0;
    for (int64_t g = 0; g < groups; g++, bit += bit) {
        for (int lane = 0; lane < GROUP; lane++) {
            const int64_t i = g * GROUP + lane;
            const REAL ci = c[i] * slow + weight[i], si = s[i] * fast + weight[i];
            c[i] = ci;
            s[i] = si;
            /* No branches here: they would keep the compiler from making vector code. */
            const WORD may = (si >= theta) & (ci * ci >= theta4 * si) &
                             ((ci >= si * y2) | (ci * y - si * yy >= theta));
            found[lane] |= -may & bit;
        }
    }
    for (int lane = 0; lane < GROUP; lane++) marks[lane] = found[lane];
    ROLLED for (int lane = 0; lane < GROUP; lane++) any |= found[lane];
    return any != 0;
}

/* What `integrate` knows of one sample. */
typedef struct {
    const NAME(Step) * steps;
    int64_t length, cap, room;
    int64_t found, capped; /* spikes, and neurons that reached the threshold once more */
    NAME(Spike) * spikes;
} NAME(Sample);

/* Write the spikes of one neuron from the input spike z on until the next one. */
INLINE void NAME(fire)(NAME(Sample) * sample, int64_t z, REAL theta, int64_t neuron, REAL *c, REAL *s,
                       int32_t *fired) {
    const REAL y_end = sample->steps[z].y, current = *s;
    REAL slow = *c;
    double y;
    while ((y = NAME(crossing)(slow, current, theta, y_end)) != NEVER) {
        if (*fired >= sample->cap) {
            sample->capped += 1;
            *s = -(REAL)INFINITY; /* never asked again */
            break;
        }
        if (sample->found < sample->room) {
            NAME(Spike) spike = {(int32_t)neuron, (int32_t)z, (REAL)y, (REAL)(current * y * y)};
            sample->spikes[sample->found] = spike;
        }
        slow = (REAL)(slow - theta / y);
        *fired += 1;
        sample->found += 1;
    }
    *c = slow;
}

/* Run a block of neurons on a sample. `weight` and `counts` begin with its first one, `start`; of
 * the last group, only those up to `neurons` exist. */
INLINE void NAME(run_block)(NAME(Sample) * sample, REAL theta, int64_t start, int64_t neurons,
                            const REAL *weight, int64_t stride, REAL *counts) {
    REAL c[BLOCK * GROUP], s[BLOCK * GROUP];
    int32_t fired[BLOCK * GROUP];
    WORD marks[GROUP];
    const int64_t groups = (neurons + GROUP - 1) / GROUP;
    for (int64_t i = 0; i < groups * GROUP; i++) c[i] = s[i] = 0;
    for (int64_t i = 0; i < groups * GROUP; i++) fired[i] = 0;
    for (int64_t z = 0; z < sample->length; z++) {
        const NAME(Step) *step = sample->steps + z;
        const REAL *row = weight + step->address * stride;
        if (!step->looks) {
            NAME(update)(groups, c, s, row, step->slow, step->fast);
            continue;
        }
        if (!NAME(update_and_look)(groups, c, s, row, step, theta, marks)) continue;
        uint32_t lanes = 0;
        for (int lane = 0; lane < GROUP; lane++) lanes |= marks[lane] ? 1u << lane : 0;
        for (; lanes; lanes &= lanes - 1) {
            const int lane = lowest(lanes);
            for (uint32_t set = (uint32_t)marks[lane]; set; set &= set - 1) {
                const int64_t i = lowest(set) * GROUP + lane;
                NAME(fire)(sample, z, theta, start + i, c + i, s + i, fired + i);
            }
        }
    }
    for (int64_t i = 0; i < neurons; i++) counts[i] = (REAL)fired[i];
}

/* Run a layer on samples and write every spike, block of neurons by block.
 *
 * `counts` gets the spikes of each neuron. `capped[b]` counts the neurons that reached the threshold
 * once more after `cap` spikes. `spikes` is (B, room); a sample with more spikes than that counts on
 * in `totals[b]`, but writes no more. The input must be what `prepare` found sound. */
KERNEL int32_t NAME(tf_integrate)(int64_t first, int64_t last, const Word *args) {
    const int64_t *offsets = args++->at;
    const double *times = args++->at;
    const int32_t *addresses = args++->at;
    const int64_t inputs = args++->n, neurons = args++->n;
    const REAL *weight = args++->at;
    const double theta = args++->f, duration = args++->f;
    const int64_t cap = args++->n;
    const REAL *decays = args++->at;
    REAL *counts = args++->at;
    int64_t *totals = args++->at, *capped = args++->at;
    NAME(Spike) *spikes = args++->at;
    const int64_t room = args++->n;
    const int64_t whole = neurons / GROUP * GROUP, rest = neurons - whole;
    const int64_t blocks = (whole / GROUP + BLOCK - 1) / BLOCK;
    int64_t longest = 0;
    for (int64_t b = first; b < last; b++)
        if (offsets[b + 1] - offsets[b] > longest) longest = offsets[b + 1] - offsets[b];
    NAME(Step) *steps = malloc((size_t)(longest + 1) * sizeof *steps);
    REAL *filled = NAME(filled)(inputs, neurons, weight);
    if (!steps || !filled) {
        free(steps);
        free(filled);
        return 0;
    }
    for (int64_t b = first; b < last; b++) {
        const int64_t begin = offsets[b], end = offsets[b + 1];
        REAL slow = 1;
        int64_t n = 0;
        for (int64_t z = begin; z < end && times[z] < duration; z++) {
            const REAL y = decays[z];
            NAME(Step) step = {addresses[z], slow, slow * slow, y, y + y, y * y,
                               !(z + 1 < end && times[z + 1] == times[z])};
            steps[n++] = step;
            slow = y;
        }
        NAME(Sample) sample = {steps, n, cap, room, 0, 0, spikes + b * room};
        REAL *own = counts + b * neurons;
        for (int64_t block = 0; block < blocks; block++) {
            const int64_t start = whole / GROUP * block / blocks * GROUP;
            const int64_t next = whole / GROUP * (block + 1) / blocks * GROUP;
            NAME(run_block)(&sample, (REAL)theta, start, next - start, weight + start, neurons,
                            own + start);
        }
        if (rest)
            NAME(run_block)(&sample, (REAL)theta, whole, rest, filled, GROUP, own + whole);
        totals[b] = sample.found;
        capped[b] = sample.capped;
    }
    free(steps);
    free(filled);
    return 1;
}

/* Copy the spikes of samples into flat arrays, sorted by time and neuron. */
KERNEL int32_t NAME(tf_pack)(int64_t first, int64_t last, const Word *args) {
    const int64_t *in_offsets = args++->at;
    const double *in_times = args++->at, tau = args++->f;
    const int64_t *offsets = args++->at;
    const NAME(Spike) *spikes = args++->at;
    const int64_t room = args++->n;
    double *times = args++->at;
    int32_t *neurons = args++->at, *parents = args++->at;
    REAL *currents = args++->at, *ys = args++->at;
    int64_t longest = 0, most = 0;
    for (int64_t b = first; b < last; b++) {
        if (in_offsets[b + 1] - in_offsets[b] > longest) longest = in_offsets[b + 1] - in_offsets[b];
        if (offsets[b + 1] - offsets[b] > most) most = offsets[b + 1] - offsets[b];
    }
    int64_t *heads = malloc((size_t)(longest + 2 + most + 2) * sizeof *heads);
    double *moments = malloc((size_t)(2 * most + 1) * sizeof *moments);
    int64_t *places = malloc((size_t)(2 * most + 1) * sizeof *places);
    if (!heads || !moments || !places) {
        free(heads);
        free(moments);
        free(places);
        return 0;
    }
    const Order given = {moments, places}, sorted = {moments + most, places + most};
    for (int64_t b = first; b < last; b++) {
        const NAME(Spike) *own = spikes + b * room;
        const double *parent_times = in_times + in_offsets[b];
        const int64_t start = offsets[b], n = offsets[b + 1] - start;
        const int64_t length = in_offsets[b + 1] - in_offsets[b];
        memset(heads, 0, (size_t)(length + 2) * sizeof *heads);
        /* heads[z + 1] is where the next spike of parent z goes, at last where they end. */
        for (int64_t k = 0; k < n; k++) heads[own[k].parent + 2] += 1;
        for (int64_t z = 1; z <= length; z++) heads[z + 1] += heads[z];
        for (int64_t k = 0; k < n; k++) {
            const NAME(Spike) *spike = own + k;
            const int64_t at = heads[spike->parent + 1]++;
            given.times[at] = parent_times[spike->parent] - tau * log(spike->y);
            given.places[at] = ((int64_t)spike->neuron << 32) + k;
        }
        for (int64_t z = 0; z < length; z++)
            if (heads[z + 1] > heads[z])
                sort(heads[z + 1] - heads[z], from(given, heads[z]), from(sorted, heads[z]),
                     heads + longest + 2);
        /* Rounding may put a spike beyond its interval, and so behind one of the next: it moves
         * before that one. */
        for (int64_t k = n - 2; k >= 0; k--)
            if (sorted.times[k] > sorted.times[k + 1]) sorted.times[k] = sorted.times[k + 1];
        for (int64_t k = 0; k < n; k++) {
            const NAME(Spike) *spike = own + (uint32_t)sorted.places[k];
            times[start + k] = sorted.times[k];
            neurons[start + k] = spike->neuron;
            parents[start + k] = spike->parent;
            currents[start + k] = spike->current;
            ys[start + k] = spike->y;
        }
    }
    free(heads);
    free(moments);
    free(places);
    return 1;
}

#endif
