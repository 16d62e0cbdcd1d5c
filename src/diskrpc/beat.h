/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The beat: one 4 KiB page in which the coordinator says each second that it is at work.
 *
 * sanlock tells whether a leader's *process* and *host* live; a process that is stopped or hung
 * keeps its lease. Its beats end, and a standby sees that (src/coordinator/beat_judge.c). No grant,
 * no term and no right to write follows from it.
 *
 * It also names leases that stand still: "the lease of host id H had generation G and timestamp T
 * when I saw it first, and 3N later I still had seen nothing newer". A node that boots and finds
 * its own name on a lease with exactly this G and T need not watch it for another 3N
 * (src/fencing/lockspace.c). That is true for ever, whoever says it and however late it lands: a
 * renewal changes T, and no lease gets an old T of the same G back.
 *
 * Late writes: a reader believes only the beat of the term that the lease has on the LUN. The write
 * of a former leader that lands late shows an older term and is passed over; the living one writes
 * over it within a second. A late beat of the leader's own looks like one more beat.
 */
#ifndef LUNAR_DISKRPC_BEAT_H
#define LUNAR_DISKRPC_BEAT_H

#include <stdint.h>

#include "base/error.h"
#include "diskrpc/layout.h"
#include "diskrpc/page.h"

#define BEAT_SIZE LAYOUT_PAGE_SIZE
/* A rack that reboots together; a life that is proved over needs no entry, so they are few. */
#define BEAT_STILL_MAX 64u

enum beat_phase {
    BEAT_PHASE_TAKEOVER = 1, /* has the lease, answers nobody yet */
    BEAT_PHASE_LEADING = 2,
    BEAT_PHASE_RESIGNING = 3, /* was told to go: ends what runs */
};
const char *beat_phase_name(enum beat_phase phase);

struct beat_still {
    uint32_t host_id;
    uint64_t generation, timestamp; /* of its delta lease; the timestamp is in its own seconds */
};

struct beat {
    struct uuid pool_id;
    struct incarnation writer; /* run_or_term: its term */
    uint64_t count;            /* rises with each beat of one term, from 1 */
    enum beat_phase phase;
    char node_name[PAGE_NAME_SIZE]; /* "" where it is not known */
    uint32_t n_still;
    struct beat_still still[BEAT_STILL_MAX];
};

/* Pure. Errors as page_in. */
void beat_out(const struct beat *beat, uint8_t buffer[BEAT_SIZE]);
int beat_in(const uint8_t buffer[BEAT_SIZE], const struct uuid *pool_id, struct beat *ret,
            struct error *err);

uint64_t beat_offset(const struct layout *layout);

/* Blocking. beat_read's errors: those of beat_in, or the LUN's. */
int beat_write(int fd, const struct layout *layout, const struct beat *beat, struct error *err);
int beat_read(int fd, const struct layout *layout, const struct uuid *pool_id, struct beat *ret,
              struct error *err);

#endif
