/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What lunar-guard and its clients share: the files in the run directory, the messages on the
 * socket, the permit file. Internal to src/fencing.
 *
 * Both ends are on one machine and of one build or the next, so the messages are structs; a version
 * in the magic number makes an end of another build say so. Each message is one record of a
 * SOCK_SEQPACKET socket.
 */
#ifndef LUNAR_FENCING_GUARD_WIRE_H
#define LUNAR_FENCING_GUARD_WIRE_H

#include <stdint.h>
#include <sys/un.h>

#include "base/error.h"
#include "fencing/guard.h"
#include "fencing/guard_core.h"

#define GUARD_WIRE_MAGIC 0x4c474401u /* "LGD", version 1 */
#define GUARD_PATH_SIZE  sizeof(((struct sockaddr_un *)0)->sun_path)

enum guard_request_type {
    GUARD_REQUEST_HELLO = 1, /* whoever says it last, of this life, is the agent */
    GUARD_REQUEST_FENCE,
    GUARD_REQUEST_DRAINED,
    GUARD_REQUEST_LEAVE,
    GUARD_REQUEST_WAKE, /* killpath: no answer, the sender closes */
};

struct guard_request {
    uint32_t magic, type;
    uint32_t host_id, pad;
    uint64_t generation;
    char reason[GUARD_REASON_SIZE];
};

struct guard_answer {
    uint32_t magic, state;
    uint32_t host_id;
    uint32_t refused; /* 1: a leave was refused, because maps stand */
    uint64_t generation;
    char reason[GUARD_REASON_SIZE];
};

/* "RUN_DIR/guard-POOL.KIND"; LUNAR_E_TOO_BIG if it does not fit a socket's address. */
int guard_path(const char *run_dir, const char *pool, const char *kind, char ret[GUARD_PATH_SIZE],
               struct error *err);
/* "RUN_DIR/guard-POOL-HOST-GENERATION.permit" */
int guard_permit_path(const char *run_dir, const char *pool, uint32_t host_id, uint64_t generation,
                      char ret[GUARD_PATH_SIZE], struct error *err);

/* --- the guard's side of the permit file --- */

/* Opens or makes it; *ret_said is what it says. Returns the descriptor. */
int guard_permit_open(const char *path, enum guard_permit_byte *ret_said, struct error *err);
/* System calls only. 0, or -errno. */
int guard_permit_say(int fd, enum guard_permit_byte byte);
/* Never blocks: 1 nobody holds a permit and nobody can take one; 0 somebody does. */
int guard_permit_lock(int fd);
void guard_permit_unlock(int fd);

#endif
