/* Runs a kernel on several threads, those that PyTorch's OpenMP runtime keeps for its own work.
 *
 * Threads of our own would fight with them for the cores: OpenMP's stay awake for milliseconds after
 * each operation of PyTorch. They also begin at once, while others have to be woken up.
 */

#include "common.h"

/* Changes with every change of a signature, so that an old library is not called by mistake. */
EXPORT int32_t tf_events_version(void) { return 3; }

/* OpenMP's `GOMP_parallel`, which calls a function on so many threads, or fewer, and waits for all,
 * `omp_get_thread_num` and `omp_get_num_threads`. */
typedef struct {
    void (*parallel)(void (*work)(void *), void *job, unsigned threads, unsigned flags);
    int (*thread)(void);
    int (*threads)(void);
} Team;

/* A kernel, the parts into which its range is cut, and whether all had working memory. */
typedef struct {
    Kernel *kernel;
    const Word *args;
    const Team *team;
    int64_t total, parts;
    int32_t *enough;
} Job;

/* A thread always gets the same part, whose data its core still holds. */
static void work(void *given) {
    const Job *job = given;
    for (int64_t part = job->team->thread(); part < job->parts; part += job->team->threads())
        job->enough[part] = job->kernel(job->total * part / job->parts,
                                        job->total * (part + 1) / job->parts, job->args);
}

/* Run a kernel on 0 to total - 1, cut into a range for each thread; without a team, on one. */
EXPORT int32_t tf_run(Kernel *kernel, int64_t total, int64_t threads, const Word *args,
                      const Team *team) {
    if (!team || threads <= 1) return kernel(0, total, args);
    int32_t *enough = malloc((size_t)threads * sizeof *enough), all = 1;
    if (!enough) return 0;
    const Job job = {kernel, args, team, total, threads, enough};
    team->parallel(work, (void *)&job, (unsigned)threads, 0);
    for (int64_t part = 0; part < threads; part++) all &= enough[part];
    free(enough);
    return all;
}
