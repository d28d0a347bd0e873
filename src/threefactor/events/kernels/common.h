/* What all kernels of the event-driven engine share; `__init__.py` loads them with ctypes.
 *
 * Plain C99 loops that the compiler turns into vector code. A kernel takes a range of samples or of
 * neurons, `first` to `last - 1`, and what `__init__.py` says of its arguments, in this order. It
 * may run beside others on other ranges; what a sample or a neuron gets never depends on how the
 * ranges are cut. Kernels that need working memory return 0 if there was none, and 1 otherwise.
 *
 * Each file holds its kernels once, in terms of REAL, the type of the weights, and includes itself
 * for single and for double precision. Times are always double.
 *
 * Nothing here may be compiled with -ffast-math: a NaN must come out as a NaN.
 */

#ifndef THREEFACTOR_EVENTS_COMMON_H
#define THREEFACTOR_EVENTS_COMMON_H

#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "../../portable.h"

/* Before a loop over a few lanes that sums them up: unrolled, GCC would take the vector apart. */
#if defined(__GNUC__) && !defined(__clang__)
#define ROLLED _Pragma("GCC unroll 1")
#else
#define ROLLED
#endif

/* Neurons are worked on in groups of so many, without remainders: the last group of a layer is
 * filled up. A block of groups has its state in the nearest cache, and one bit for each. */
#define GROUP 16
#define BLOCK 32

/* An argument of a kernel: a whole number, a float or an array. */
typedef union {
    int64_t n;
    double f;
    void *at;
} Word;
typedef int32_t Kernel(int64_t first, int64_t last, const Word *args);

#define JOIN_(name, suffix) name##_##suffix
#define JOIN(name, suffix) JOIN_(name, suffix)
/* The name of a function in the precision that is being compiled. */
#define NAME(name) JOIN(name, SUFFIX)

/* Working memory of vectors begins with a line of the cache: a vector across two lines takes twice
 * as long. It shares none of its lines with other memory, which another thread may write. */
#define LINE 64
INLINE size_t in_lines(size_t bytes) { return bytes + 2 * LINE; }
INLINE void *first_line(void *memory) {
    return (char *)memory + (LINE - (uintptr_t)memory % LINE) % LINE;
}

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

#endif

#ifdef REAL

/* Return the weights of the neurons beyond the last whole group, (inputs, GROUP), filled up with 0;
 * to be freed. NULL if there is no memory. */
INLINE REAL *NAME(filled)(int64_t inputs, int64_t neurons, const REAL *weight) {
    const int64_t rest = neurons % GROUP, whole = neurons - rest;
    REAL *found = calloc(rest ? (size_t)(inputs * GROUP) : 1, sizeof *found);
    for (int64_t j = 0; found && rest && j < inputs; j++)
        for (int64_t i = 0; i < rest; i++) found[j * GROUP + i] = weight[j * neurons + whole + i];
    return found;
}

#endif
