/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A thread per call but the first, which the caller's own thread runs.
 *
 * Failure mode: a thread that cannot be started costs time, not work: its call is made by the
 * caller's thread.
 */
#include "base/parallel.h"

#include <assert.h>
#include <pthread.h>
#include <stdbool.h>

struct call {
    pthread_t thread;
    bool started;
    void (*fn)(void *data, int index);
    void *data;
    int index;
};

static void *call_main(void *data)
{
    struct call *call = data;
    call->fn(call->data, call->index);
    return NULL;
}

void parallel_run(int n, void (*fn)(void *data, int index), void *data)
{
    struct call calls[PARALLEL_MAX] = {0};

    assert(n >= 1 && n <= PARALLEL_MAX);
    for (int i = 0; i < n; i++) {
        calls[i] = (struct call){.fn = fn, .data = data, .index = i};
        calls[i].started =
            i > 0 && pthread_create(&calls[i].thread, NULL, call_main, &calls[i]) == 0;
    }
    for (int i = 0; i < n; i++)
        if (!calls[i].started)
            call_main(&calls[i]);
    for (int i = 0; i < n; i++)
        if (calls[i].started)
            pthread_join(calls[i].thread, NULL);
}
