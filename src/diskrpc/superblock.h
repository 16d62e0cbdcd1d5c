/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The superblock: what a LUN is, written twice by `lun format` and read by everybody first.
 *
 * State machine of a format, so that a killed one is seen and can be started over: FORMATTING is
 * written (both copies) as soon as the area exists, READY only after the VG, the lockspace and
 * every resource are in place.
 */
#ifndef LUNAR_DISKRPC_SUPERBLOCK_H
#define LUNAR_DISKRPC_SUPERBLOCK_H

#include <stdint.h>

#include "base/error.h"
#include "base/uuid.h"
#include "diskrpc/layout.h"

#define SUPERBLOCK_SIZE    4096u
#define SUPERBLOCK_VERSION 1u
#define POOL_NAME_SIZE     33 /* 32 characters [a-z0-9-], first a letter, and the NUL */
#define WWID_SIZE          129

enum superblock_state { SUPERBLOCK_FORMATTING = 1, SUPERBLOCK_READY = 2 };

#define SUPERBLOCK_FLAG_TEST                                                                       \
    1u /* a pool for tests: agents may join without a watchdog (SAFETY 12) */
#define SUPERBLOCK_FLAG_PR                                                                         \
    2u /* every member registers for persistent reservations (SAFETY 13, fencing/reservation.h) */

struct superblock {
    enum superblock_state state;
    uint32_t flags;
    uint64_t write_count; /* rises with each rewrite; the higher valid copy counts */
    struct uuid pool_id;
    char pool_name[POOL_NAME_SIZE];   /* VG name is "lunar-" + this; lockspace name is
                                         pool_lockspace() */
    uint32_t io_timeout_s;            /* sanlock's N */
    uint32_t watchdog_fire_timeout_s; /* sanlock's W that every member must use */
    uint64_t created_s;               /* seconds since the epoch */
    uint32_t extent_size;             /* bytes, of the VG */
    char wwid[WWID_SIZE]; /* the PV's WWID at format time; "" where the device has none */
    struct layout layout;
};

/* Encodes into a zero-filled SUPERBLOCK_SIZE buffer, checksum last. */
void superblock_out(const struct superblock *sb, uint8_t buffer[SUPERBLOCK_SIZE]);
/* LUNAR_E_FOREIGN: no lunar magic. LUNAR_E_VERSION, LUNAR_E_CORRUPT: says which field. */
int superblock_in(const uint8_t buffer[SUPERBLOCK_SIZE], struct superblock *ret, struct error *err);

/* Reads both copies with blocking O_DIRECT reads and takes the better one. Errors as above, or
 * -errno. */
int superblock_read(int fd, struct superblock *ret, struct error *err);
/* Writes both copies, B first, each with write_count + 1, and reads them back. Blocking. */
int superblock_write(int fd, struct superblock *sb, struct error *err);

/* 0 or LUNAR_E_INVALID with a sentence. */
int pool_name_check(const char *name, struct error *err);
/* "lunar-NAME"; `ret` has room for POOL_NAME_SIZE + 6. */
void pool_vg_name(const char *pool_name, char ret[POOL_NAME_SIZE + 6]);
/* sanlock's lockspace name, 48 bytes at most: "lunar-" + the pool's short id in hex. */
void pool_lockspace(const struct uuid *pool_id, char ret[48]);
/* The VG's system id that only lunar's own commands use: "lunar-" + the short id in hex. */
void pool_system_id(const struct uuid *pool_id, char ret[48]);

#endif
