/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guard's threads: each has a small stack that is touched when it starts, and no signals.
 * Internal to src/fencing.
 */
#ifndef LUNAR_FENCING_GUARD_THREADS_H
#define LUNAR_FENCING_GUARD_THREADS_H

#include "base/error.h"

/* Detached; it runs until the process ends. */
int guard_thread_start(void *(*run)(void *data), void *data, struct error *err);

#endif
