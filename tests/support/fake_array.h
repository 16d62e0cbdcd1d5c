/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An array with persistent reservations, for reservation.c: LUNs, nexuses (a node's path to a LUN)
 * and what SPC says of their keys. One array at a time; devices are "NODE:LUN", a node's paths to
 * it "NODELUN.PATH" ("a:0" -> "a0.0", "a0.1").
 */
#ifndef LUNAR_TESTS_SUPPORT_FAKE_ARRAY_H
#define LUNAR_TESTS_SUPPORT_FAKE_ARRAY_H

#include <stdbool.h>
#include <stdint.h>

#include "fencing/reservation_internal.h"

#define FAKE_NEXUSES 64
#define FAKE_LUNS    2

struct fake_nexus {
    char path[RESERVATION_NAME_SIZE];
    int lun;
    uint64_t key; /* 0: not registered */
    bool broken;  /* nothing goes through */
    int aborted;  /* times that its commands were aborted */
    int opened;   /* handles of it that are not closed */
};

struct fake_lun {
    bool held, no_type_7;
    uint8_t type;
};

struct fake_array {
    struct fake_nexus nexuses[FAKE_NEXUSES];
    int n_nexuses, paths_per_node; /* of a node to each LUN; default 1 */
    struct fake_lun luns[FAKE_LUNS];
    int outs, paused_ms;
    /* The next `out` is carried out, or not, and its sender does not hear which. */
    enum { FAKE_HEARD, FAKE_DONE_UNHEARD, FAKE_LOST } next;
    /* Somebody else acts in between. */
    void (*before_out)(const struct pr_out *command), (*after_out)(const struct pr_out *command);
};

extern struct fake_array fake_array;
extern const struct reservation_ops fake_array_ops;

void fake_array_reset(int paths_per_node);
struct fake_nexus *fake_nexus(const char *path);
int fake_registered(int lun, uint64_t key); /* how many nexuses have that key */
/* Whether a write through that path would be carried out. */
bool fake_may_write(const char *path);

#endif
