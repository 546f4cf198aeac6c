#ifndef EDBATCH_CORES_H
#define EDBATCH_CORES_H
#include "values.h" /* (_GNU_SOURCE, for sets of cores, is defined by Python.h) */
#ifdef __linux__
#include <pthread.h>
#include <sched.h>
#endif

/* The core that called threads keep away from ------------------------------------------------------------------------
 *
 * Linux often wakes a thread on the core of the thread that calls it, even beside idle ones. There it would wait until
 * the caller has run all kernels itself. So threads that are called leave the core of their caller, and stay away: each
 * one sees to itself, so that no thread of another pool or process is ever moved.
 */

#ifdef __linux__
typedef struct Cores {
    int chosen; /* whether there are cores for all */
    pthread_t caller;
    cpu_set_t others;
} Cores;

/* The cores for the others of `tasks` threads, of which this one is the first. */
static Cores cores_beside(int64_t tasks) {
    Cores cores = {.caller = pthread_self()};
    int core = sched_getcpu();
    if (core < 0 || core >= CPU_SETSIZE || sched_getaffinity(0, sizeof(cores.others), &cores.others)) return cores;
    if (!CPU_ISSET(core, &cores.others) || CPU_COUNT(&cores.others) < tasks) return cores;
    CPU_CLR(core, &cores.others);
    cores.chosen = 1;
    return cores;
}

/* In a thread that runs a task: be on one of these cores, if another thread called it. */
static void leave_core(const Cores *cores) {
    static _Thread_local cpu_set_t kept; /* empty at first */
    if (!cores->chosen || pthread_equal(cores->caller, pthread_self()) || CPU_EQUAL(&kept, &cores->others)) return;
    if (!sched_setaffinity(0, sizeof(kept), &cores->others)) kept = cores->others;
}
#else
typedef struct Cores {
    int chosen;
} Cores;
static Cores cores_beside(int64_t tasks) { return (Cores){0}; }
static void leave_core(const Cores *cores) {}
#endif

#endif
