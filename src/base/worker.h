/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A worker: one thread with a first-in-first-out queue of blocking jobs, whose completions come
 * back on the libuv loop.
 *
 * The thread lives until worker_close, so children forked in a job may tie their death signal to it
 * (SAFETY 1). A job is the caller's memory: `run` is called in the thread, then `done` on the loop
 * thread, exactly once, never inline.
 */
#ifndef LUNAR_BASE_WORKER_H
#define LUNAR_BASE_WORKER_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct worker_job {
    void (*run)(struct worker_job *job);  /* may block */
    void (*done)(struct worker_job *job); /* on the loop; may free or reuse the job */
    void *data;
    struct worker_job *next; /* the worker's */
};

struct worker;

/* Aborts without memory or threads: nothing safe can follow. `name` is cut at 15 bytes. */
struct worker *worker_open(uv_loop_t *loop, const char *name);
void worker_submit(struct worker *worker, struct worker_job *job);
bool worker_is_idle(
    const struct worker *worker); /* loop thread: nothing queued, running or undelivered */
/* Loop thread: jobs whose `done` was called. Together with worker_is_idle it tells whether the
 * thread gets on. */
uint64_t worker_done_count(const struct worker *worker);
/* Loop thread, idle only. Joins the thread; memory goes when the loop has closed the handle. */
void worker_close(struct worker *worker);

#endif
