#ifndef EDBATCH_CORES_H
#define EDBATCH_CORES_H
#include "values.h" /* (_GNU_SOURCE, for sets of cores, is defined by Python.h) */
#ifdef __linux__
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

/* The threads that a thread calls, and the core that they are kept from --------------------------------------------
 *
 * Linux often wakes a thread on the core of the thread that calls it, even beside idle ones. There it would wait until
 * the caller has run all kernels itself. So before threads are called, they are kept from the caller's core.
 */

#ifdef __linux__
enum { MOST_KNOWN = 64 };

typedef struct Pool {
    _Atomic int thread[MOST_KNOWN]; /* by task; 0: not known yet */
    int kept_from;                  /* the core + 1 */
    cpu_set_t allowed;              /* to the thread that calls */
} Pool;
static _Thread_local Pool pool_of_thread;

static void keep_away(Pool *pool, int thread) {
    cpu_set_t others = pool->allowed;
    CPU_CLR(pool->kept_from - 1, &others);
    sched_setaffinity(thread, sizeof(others), &others); /* where this cannot be, the thread stays where it is */
}

/* Before `tasks` threads run, with this one: keep the others from its core, if there are cores for all. */
static Pool *clear_core(int64_t tasks) {
    Pool *pool = &pool_of_thread;
    cpu_set_t allowed;
    int core = sched_getcpu();
    if (core < 0 || core >= CPU_SETSIZE || sched_getaffinity(0, sizeof(allowed), &allowed)) return NULL;
    if (!CPU_ISSET(core, &allowed) || CPU_COUNT(&allowed) < tasks) return NULL;
    if (pool->kept_from == core + 1 && CPU_EQUAL(&allowed, &pool->allowed)) return pool;
    pool->allowed = allowed;
    pool->kept_from = core + 1;
    for (int64_t task = 1; task < MOST_KNOWN; task++)
        if (pool->thread[task]) keep_away(pool, pool->thread[task]);
    return pool;
}

/* In the thread that runs a task: be known, if another one called it. */
static void be_known(Pool *pool, int64_t task) {
    if (pool == NULL || pool == &pool_of_thread || task >= MOST_KNOWN) return;
    int thread = (int)syscall(SYS_gettid);
    if (pool->thread[task] == thread) return;
    pool->thread[task] = thread;
    keep_away(pool, thread);
}
#else
typedef struct Pool Pool;
static Pool *clear_core(int64_t tasks) { return NULL; }
static void be_known(Pool *pool, int64_t task) {}
#endif

#endif
