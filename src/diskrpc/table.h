/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Grant tables and report tables: what a node may have open, and what it says it has open or is
 * opening.
 *
 * Both have the same bytes; the kind tells them apart. Each is stored twice (copies A and B). The
 * grant table of a node is written by the coordinator alone, the report table by the node's agent
 * alone; the reader takes the valid copy with the highest (term, seq) of the grants, the highest
 * (generation, run, seq) of the reports, and whoever decides whether a volume is free takes the
 * union of all four (SAFETY 2). A layer entry names an LV and the generation of the segment map
 * that goes with it (SAFETY 14).
 */
#ifndef LUNAR_DISKRPC_TABLE_H
#define LUNAR_DISKRPC_TABLE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/uuid.h"
#include "diskrpc/layout.h"
#include "diskrpc/page.h"

#define TABLE_ENTRIES_MAX 512u
#define TABLE_LAYERS_MAX  256u /* of one entry: a chain's bound */

enum table_kind { TABLE_GRANTS = 1, TABLE_REPORTS = 2 };

enum table_mode {
    TABLE_MODE_ATTACH = 1, /* read-write attachment: the whole stack */
    TABLE_MODE_JOB =
        2, /* format, zero, import, merge: layers mapped for a helper, no export (SAFETY 18) */
};

enum table_state {
    TABLE_STATE_OPENING = 1, /* reports only: written before anything is mapped (SAFETY 2) */
    TABLE_STATE_OPEN = 2,
    TABLE_STATE_CLOSING = 3, /* reports only */
    TABLE_STATE_GRANTED = 4, /* grants only */
};

/* In a grant, as its term: an older copy alone named it (grants.c). No coordinator has this term.
 */
#define TABLE_TERM_LEFT_OVER 0u

/* A layer is an LV: the short id of the volume that made it, and its number within that volume. */
struct table_layer {
    uint64_t volume_short;
    uint32_t index;
    uint32_t map_generation;
};

struct table_entry {
    struct uuid volume_id;
    struct uuid attachment_id;
    uint64_t generation; /* sanlock generation of the node the entry is for: another one gives
                            nothing (SAFETY 3) */
    uint64_t term;       /* under which it was granted or is being opened; TABLE_TERM_LEFT_OVER */
    enum table_mode mode;
    enum table_state state;
    uint16_t n_layers;
    struct table_layer layers[TABLE_LAYERS_MAX]; /* leaf first; valid up to n_layers */
};

struct table {
    enum table_kind kind;
    uint32_t slot; /* host id */
    struct uuid pool_id;
    struct incarnation writer;
    uint64_t term;  /* grants: the writer's term; reports: the highest term seen */
    uint64_t seq;   /* rises with each write of one incarnation */
    bool node_dead; /* grants only: (slot, dead_generation) was latched DEAD (SAFETY 8) */
    uint64_t dead_generation;
    uint32_t n_entries;
    uint32_t n_allocated;
    struct table_entry *entries; /* owned; table_free() */
};

void table_init(struct table *table, enum table_kind kind, uint32_t slot,
                const struct uuid *pool_id);
void table_free(struct table *table);
/* Appends a zeroed entry and returns it, or NULL if TABLE_ENTRIES_MAX is reached. Pointers move: do
 * not keep it. */
struct table_entry *table_add(struct table *table);
void table_remove(struct table *table, uint32_t index);
struct table_entry *table_find_attachment(struct table *table, const struct uuid *attachment_id);
struct table_entry *table_find_volume(struct table *table, const struct uuid *volume_id);
/* True if these grants say that that life of their node is proved over (SAFETY 8). */
bool table_marks_dead(const struct table *grants, uint64_t generation);
int table_copy(struct table *to,
               const struct table *from); /* deep; `to` is initialised or zeroed */

/* Bytes that table_out would write: a multiple of LAYOUT_PAGE_SIZE; 0 if it exceeds
 * LAYOUT_TABLE_SIZE. */
uint32_t table_size(const struct table *table);
/* So many entries, with so many layers in all, would fit besides. */
bool table_has_room(const struct table *table, uint32_t entries, uint32_t layers);
/* Encodes into `buffer` of table_size() bytes. LUNAR_E_TOO_BIG if that is 0. */
int table_out(const struct table *table, uint8_t *buffer, uint32_t len, struct error *err);
/*
 * Decodes; `len` bytes are at hand (a first page is enough to learn the rest: see table_wanted).
 * Errors as page_in; LUNAR_E_NOT_FOUND: never written. On success the caller owns *ret.
 */
int table_in(const uint8_t *buffer, uint32_t len, enum table_kind kind, uint32_t slot,
             const struct uuid *pool_id, struct table *ret, struct error *err);
/* Bytes to read for a whole table, told from its first page; LAYOUT_PAGE_SIZE if that page is
 * damaged. */
uint32_t table_wanted(const uint8_t page[LAYOUT_PAGE_SIZE]);
/* True if a is newer than b: grants by (term, seq), reports by (generation, run, seq). */
bool table_newer(const struct table *a, const struct table *b);

/* Blocking O_DIRECT read of one copy. */
int table_read(int fd, const struct layout *layout, enum table_kind kind, uint32_t host_id,
               int copy, const struct uuid *pool_id, struct table *ret, struct error *err);
/* Blocking read of both copies, taking the newer valid one; LUNAR_E_NOT_FOUND if neither was ever
 * written, and an empty table then. */
int table_read_newest(int fd, const struct layout *layout, enum table_kind kind, uint32_t host_id,
                      const struct uuid *pool_id, struct table *ret, struct error *err);
/* Blocking: whether the newest grants on the LUN say that of the host id's life. What cannot be
 * read says nothing. */
bool table_read_marks_dead(int fd, const struct layout *layout, uint32_t host_id,
                           const struct uuid *pool_id, uint64_t generation);
/* Blocking write of one copy and read-back compare. */
int table_write(int fd, const struct layout *layout, const struct table *table, int copy,
                struct error *err);

#endif
