/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of commit share: the metadata as it is on the disk now, and how it is put back. */
#ifndef LUNAR_COORDINATOR_COMMIT_PRIVATE_H
#define LUNAR_COORDINATOR_COMMIT_PRIVATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "coordinator/commit.h"

/* One metadata text and what identifies it. The text is the owner's; metadata_drop frees it. */
struct metadata {
    char *text; /* NULL: nothing known */
    size_t len;
    uint64_t seqno;
    uint32_t crc;  /* CRC-32C of the text */
    uint64_t term; /* of the coordinator that committed it, from the VG's tag; 0: none */
};

struct metadata_view {
    struct metadata best; /* the newest sound one of all metadata areas; no text: none is sound */
    bool agree;           /* every area is sound and holds this very text */
    char why[256];        /* what is wrong, where something is */
};

void metadata_drop(struct metadata *m);
/* Takes over `text`. */
struct metadata metadata_make(char *text, size_t len, uint64_t seqno);
static inline bool metadata_same(const struct metadata *a, const struct metadata *b)
{
    return a->text && b->text && a->seqno == b->seqno && a->crc == b->crc && a->len == b->len;
}
/* The same VG (name and id) at all, whatever its content. */
bool metadata_same_vg(const char *a, const char *b);
/* The same VG in both, but for seqno, device hint and who wrote it when: what a restore must reach.
 */
bool metadata_equivalent(const char *a, const char *b);
/* Reads every metadata area. < 0 only if the device cannot be read: that proves nothing about the
 * metadata. */
int metadata_look(int fd, struct metadata_view *ret, struct error *err);

/* How much of the PV a restore makes anew: the next one is for what the one before cannot repair.
 */
enum metadata_depth { METADATA_TEXT, METADATA_HEADERS, METADATA_LABEL, METADATA_DEPTHS };

/* Puts `text` back. Does not look at the result: an exit status of 0 does not mean that every area
 * was written. `fd` is the device, O_DIRECT. */
int metadata_restore(struct lvm *lvm, int fd, const char *text, enum metadata_depth depth,
                     struct error *err);

#endif
