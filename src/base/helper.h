/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Helper programs and calls that may hang in the kernel, run in a child with a deadline; and the
 * clock that deadlines are measured with. Blocking: worker threads only.
 *
 * A child has no descriptor but its standard three (never sanlock's socket: SAFETY 1), default
 * signals, and dies with the thread that started it. One that outlives its deadline is killed and
 * reported LUNAR_E_INDETERMINATE: what it began may still take effect. If it cannot die, because
 * the kernel holds it, it is left behind and reaped when the agent exits.
 */
#ifndef LUNAR_BASE_HELPER_H
#define LUNAR_BASE_HELPER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "base/error.h"

static inline int64_t clock_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* What is left until `deadline` (of clock_ms), never negative: fit for poll(). */
static inline int clock_left(int64_t deadline)
{
    int64_t left = deadline - clock_ms();
    return left < 0 ? 0 : left > INT32_MAX ? INT32_MAX : (int)left;
}

/* Runs argv[0], found in PATH or the usual sbin and bin folders, with our environment but LC_ALL=C.
 * `output` (may be NULL) gets the first bytes of what it said on both streams, NUL-terminated.
 * LUNAR_E_NOT_FOUND: no such program. An exit code other than 0, or a signal, is LUNAR_E_EXEC with
 * its last words. */
int helper_run(const char *const *argv, int deadline_ms, char *output, size_t output_size,
               struct error *err);
/* Runs `call` in a child that has not exec'ed: it may use system calls only. Returns 0 or the
 * -errno that it returned. */
int helper_call(int (*call)(const char *path), const char *path, int deadline_ms,
                struct error *err);
/* In a child, before anything else: descriptors above 2 closed, signals reset. The `n` of `keep`,
 * at most HELPER_KEEP_MAX, become 3 and up. */
#define HELPER_KEEP_MAX 2u
void helper_isolate(const int *keep, unsigned n);
/* Waits for the process to exit and reaps it if it is ours: 0, or LUNAR_E_TIMEOUT. */
int helper_wait_pidfd(int pidfd, int deadline_ms);

#endif
