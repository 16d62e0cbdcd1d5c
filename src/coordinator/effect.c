/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbered kill points: a test learns from a trace run how many external effects there are, then
 * kills the coordinator at each of them in turn. A new effect is tested without editing any test.
 * Without the two variables of the environment a point is one predicted branch.
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "coordinator/commit.h"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool enabled;
static long kill_at; /* 0: never */
static int trace_fd = -1;
static atomic_long passed;

static void prepare(void)
{
    const char *at = getenv("LUNAR_KILL_AT"), *trace = getenv("LUNAR_KILL_TRACE");
    if (at)
        kill_at = strtol(at, NULL, 10);
    if (trace)
        trace_fd = open(trace, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    enabled = kill_at > 0 || trace_fd >= 0;
}

void effect_point(const char *name)
{
    char line[160];
    pthread_once(&once, prepare);
    if (!enabled)
        return;
    long n = atomic_fetch_add(&passed, 1) + 1;
    int len = snprintf(line, sizeof line, "%ld %.120s\n", n, name);
    if (trace_fd >= 0) {
        ssize_t ignored = write(trace_fd, line, (size_t)len);
        (void)ignored;
    }
    if (n == kill_at) {
        kill(getpid(), SIGKILL);
        for (;;)
            pause(); /* another thread may take the signal's delivery a moment before this one stops
                      */
    }
}
