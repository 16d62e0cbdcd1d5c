/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LVM's on-disk metadata, read straight from the PV with one or two preads and no lvm process:
 * label -> PV header -> mda header -> raw location -> text. Read-only, for the check before each
 * commit (SAFETY 4) and for `lun dump`.
 */
#ifndef LUNAR_COORDINATOR_MDA_H
#define LUNAR_COORDINATOR_MDA_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define MDA_AREAS_MAX 8 /* lunar makes two: behind the label and at the device's end */

struct mda_area {
    uint64_t start, size; /* bytes on the device; the header is the first 512 */
};

struct mda_state {
    uint64_t offset, size; /* raw location of the committed text, relative to the metadata area */
    uint32_t checksum;     /* LVM's own CRC of the text, checked */
    uint64_t seqno;
};

/* The label and what it says about metadata areas: their number (at least 1), or LUNAR_E_CORRUPT.
 */
int mda_areas(int fd, struct mda_area ret[MDA_AREAS_MAX], struct error *err);

/* One metadata area. Fills *ret and, if ret_text is given, the malloc'ed NUL-terminated text.
 * LUNAR_E_CORRUPT: bad magic, bad checksum, impossible offsets, no seqno. LUNAR_E_NOT_FOUND: a PV
 * without a VG. */
int mda_read_area(int fd, const struct mda_area *area, struct mda_state *ret, char **ret_text,
                  size_t *ret_len, struct error *err);

/* The same of the first metadata area of the device, or LUNAR_E_CORRUPT: no label. */
int mda_read(int fd, struct mda_state *ret, char **ret_text, size_t *ret_len, struct error *err);

#endif
