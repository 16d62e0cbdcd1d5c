/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The copy of the last committed LVM metadata in the reserved area (SAFETY 4): term, VG seqno,
 * CRC-32C and the text, in two slots that are written in turn, so that the older one stays whole
 * while the newer is written.
 */
#ifndef LUNAR_DISKRPC_MDCOPY_H
#define LUNAR_DISKRPC_MDCOPY_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/uuid.h"
#include "diskrpc/layout.h"

#define MDCOPY_HEADER_SIZE 4096u

struct mdcopy {
    struct uuid pool_id;
    uint64_t term;     /* of the coordinator that stored it */
    uint64_t seq;      /* rises with each store; the higher valid slot counts */
    uint64_t vg_seqno; /* LVM's own */
    uint32_t text_crc; /* CRC-32C of the text */
    uint32_t text_len;
    int slot; /* 0 is A, 1 is B: where it was found */
};

/* Header codec, pure. Errors as page_in. */
void mdcopy_out(const struct mdcopy *copy, uint8_t buffer[MDCOPY_HEADER_SIZE]);
int mdcopy_in(const uint8_t buffer[MDCOPY_HEADER_SIZE], const struct uuid *pool_id,
              struct mdcopy *ret, struct error *err);

/* Blocking. Takes the better valid slot (text CRC checked); *ret_text is malloc'ed and
 * NUL-terminated. LUNAR_E_NOT_FOUND: none was ever stored. */
int mdcopy_read(int fd, const struct layout *layout, const struct uuid *pool_id, struct mdcopy *ret,
                char **ret_text, struct error *err);
/* Blocking. Writes the slot that does not hold `previous` (NULL: slot A): text, then header, then
 * reads back. LUNAR_E_TOO_BIG if the text exceeds the slot. *ret describes what was stored. */
int mdcopy_store(int fd, const struct layout *layout, const struct uuid *pool_id,
                 const struct mdcopy *previous, uint64_t term, uint64_t vg_seqno, const char *text,
                 size_t len, struct mdcopy *ret, struct error *err);

#endif
