/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting one of the guard's threads; see guard_threads.h. All of them are started before it
 * guards anything, so the only failure mode, a thread that cannot be had, is an error of the start.
 */
#include "fencing/guard_threads.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>

/* libsanlock and the log keep some KiB on the stack, the sanitizers of a test build much more. All
 * of it is locked into memory. */
#ifdef __SANITIZE_ADDRESS__
#define STACK_BYTES (1024u * 1024)
#else
#define STACK_BYTES (128u * 1024)
#endif

int guard_thread_start(void *(*run)(void *data), void *data, struct error *err)
{
    pthread_attr_t attr;
    pthread_t thread;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* inherited: no ioctl of its is interrupted */
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    int rv = pthread_create(&thread, &attr, run, data);
    pthread_attr_destroy(&attr);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rv == 0 ? 0 : error_set(err, -rv, "cannot start a thread: %s", strerror(rv));
}
