/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every structure of the reserved area begins with: magic, version, kind, pool, length,
 * CRC-32C.
 *
 * These 48 bytes mean the same in every version of every kind, for ever, so that a reader can tell
 * a damaged unit (the CRC) from one of a newer lunar (the version) from somebody else's (magic,
 * kind, pool, slot), in this order. Internal to src/diskrpc.
 */
#ifndef LUNAR_DISKRPC_UNIT_H
#define LUNAR_DISKRPC_UNIT_H

#include <stdint.h>
#include <string.h>

#include "base/error.h"
#include "base/uuid.h"

#define UNIT_HEADER_SIZE 48u
#define UNIT_VERSION     1u

enum unit_kind {
    UNIT_SUPERBLOCK = 1,
    UNIT_UP_PAGE = 2,
    UNIT_DOWN_PAGE = 3,
    UNIT_GRANTS = 4,
    UNIT_REPORTS = 5,
    UNIT_METADATA = 6,
    UNIT_BEAT = 7,
    UNIT_CLAIM = 8,
};

struct unit {
    enum unit_kind kind;
    uint32_t header_len; /* of the kind's own header, these 48 bytes included */
    uint32_t len;        /* of the whole unit: what the CRC covers */
    uint32_t slot;       /* host id whose unit it is; 0 where there is but one */
    uint32_t flags;      /* the kind's own */
    struct uuid pool_id;
};

/* Writes the header with a zero CRC. */
void unit_out(const struct unit *unit, uint8_t *buffer);
/* Computes the CRC of the finished unit and puts it in. The last thing done to a buffer. */
void unit_seal(uint8_t *buffer);
/*
 * Checks a unit of which `available` bytes are at hand. LUNAR_E_NOT_FOUND: all zeroes.
 * LUNAR_E_FOREIGN: no magic, or another kind, slot or pool (pool_id NULL: any). LUNAR_E_CORRUPT,
 * LUNAR_E_VERSION.
 */
int unit_in(const uint8_t *buffer, uint32_t available, enum unit_kind kind, uint32_t slot,
            const struct uuid *pool_id, struct unit *ret, struct error *err);
/* The length that a header claims, 0 if it has no magic. The claim is not checked yet. */
uint32_t unit_claimed_len(const uint8_t *buffer);

/* Puts at most `max` characters into a zero-filled field. */
static inline void unit_text_put(uint8_t *field, const char *text, size_t max)
{
    memcpy(field, text, strnlen(text, max));
}

#endif
