/* SPDX-License-Identifier: Apache-2.0 */
/* Blocking work side by side, for worker threads: never from the loop thread. */
#ifndef LUNAR_BASE_PARALLEL_H
#define LUNAR_BASE_PARALLEL_H

#define PARALLEL_MAX 16

/* Runs fn(data, 0) to fn(data, n - 1) at the same time, 1 <= n <= PARALLEL_MAX, and returns when
 * all have ended. Where threads run out some of them run one after the other, so none may wait for
 * another. */
void parallel_run(int n, void (*fn)(void *data, int index), void *data);

#endif
