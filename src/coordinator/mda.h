/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LVM's on-disk metadata, read straight from the PV with one or two preads and no lvm process: label -> PV header -> mda
 * header -> raw location -> text. Read-only, for the check before each commit (SAFETY 4) and for `lun dump`.
 */
#ifndef LUNAR_COORDINATOR_MDA_H
#define LUNAR_COORDINATOR_MDA_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct mda_state {
    uint64_t offset, size; /* raw location of the committed text, relative to the metadata area */
    uint32_t checksum;     /* LVM's own CRC of the text, opaque to us */
    uint64_t seqno;
};

/* First metadata area of the device. Fills *ret and, if ret_text is given, the malloc'ed NUL-terminated text.
 * LUNAR_E_CORRUPT: no label, bad magic, impossible offsets, no seqno. LUNAR_E_NOT_FOUND: a PV without a VG. */
int mda_read(int fd, struct mda_state *ret, char **ret_text, size_t *ret_len, struct error *err);

#endif
