/* SPDX-License-Identifier: Apache-2.0 */
/* A look at a QCOW2 image without QEMU: whether it is one of lunar's, how large, and empty. */
#ifndef LUNAR_AGENT_QCOW2_H
#define LUNAR_AGENT_QCOW2_H

#include <stdint.h>

#include "base/error.h"

#define QCOW2_HEADER_BYTES 104u /* of version 3, without its extensions */
/* What one entry of a first-level table stands for: a table of 8-byte entries, as long as a cluster
 * of 64 KiB, of such clusters. */
#define QCOW2_L1_ENTRY_BYTES ((64ull << 10) * ((64ull << 10) / 8))

struct qcow2_header {
    uint64_t size; /* virtual; l1_entries reach that far */
    uint64_t l1_offset;
    uint32_t l1_entries;
};

/* Pure. LUNAR_E_CORRUPT with the reason for what lunar does not make. */
int qcow2_header_decode(const uint8_t bytes[QCOW2_HEADER_BYTES], struct qcow2_header *ret,
                        struct error *err);
/* Of the image on this device (or in this file). Blocks. */
int qcow2_read_header(const char *path, struct qcow2_header *ret, struct error *err);
/* Is the image on this device (or in this file) as a format job makes it, and was nothing written
 * to it? Then *ret_size is its virtual size. LUNAR_E_CORRUPT with the reason if not. Blocks. */
int qcow2_check_empty(const char *path, uint64_t *ret_size, struct error *err);

#endif
