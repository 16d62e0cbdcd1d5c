/* SPDX-License-Identifier: Apache-2.0 */
/* The program lunar-guard without its options: guard_run is its whole life, guard_wake what
 * sanlock's killpath runs. Internal to src/fencing. */
#ifndef LUNAR_FENCING_GUARD_RUN_H
#define LUNAR_FENCING_GUARD_RUN_H

#include "fencing/guard_work.h"

/* Returns when the guard is over (0), another guard of the pool runs (0), or it could not start.
 * `first_words` (or -1) is closed when it guards or begins to fence; an error before that is
 * written to it, "CODE\tSENTENCE\n". `options->socket` is filled. */
int guard_run(struct guard_options *options, int first_words, struct error *err);
/* Tells the guard that sanlock gave up (host id, generation). */
int guard_wake(const char *socket, uint32_t host_id, uint64_t generation, struct error *err);

#endif
