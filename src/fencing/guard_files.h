/* SPDX-License-Identifier: Apache-2.0 */
/* What a guard has in hand before it guards: its files, its signals, its memory. Internal to
 * src/fencing. */
#ifndef LUNAR_FENCING_GUARD_FILES_H
#define LUNAR_FENCING_GUARD_FILES_H

#include "fencing/guard_wire.h"
#include "fencing/guard_work.h"

struct guard_files {
    char socket_path[GUARD_PATH_SIZE];
    int lock_fd;                 /* locked: we are the pool's guard */
    int permit_fd;               /* of this life */
    enum guard_permit_byte said; /* what a predecessor left in it */
    int listen_fd, signal_fd;
};

/* 1: all of it, and options->socket; 0: another guard of the pool runs; or an error. What was
 * opened stays open: the program ends. `ret` is zeroed. */
int guard_files_open(struct guard_options *options, struct guard_files *ret, struct error *err);

#endif
