/* SPDX-License-Identifier: Apache-2.0 */
/* `lun dump` in two halves: dump_area.c and dump_pages.c read and decode into JSON, dump_text.c
 * prints that for people. */
#ifndef LUNARCTL_DUMP_H
#define LUNARCTL_DUMP_H

#include <stdbool.h>

#include <jansson.h>

#include "base/error.h"
#include "diskrpc/page.h"
#include "diskrpc/superblock.h"

/* The parts, each of which never fails: what cannot be read or decoded is an object with "damaged":
 * reason. */
json_t *dump_superblock_copy(int fd, int copy, struct superblock *ret, int *ret_status);
json_t *dump_lockspace(int fd, const struct superblock *sb);
json_t *dump_resources(int fd, const struct superblock *sb);
json_t *dump_beat(int fd, const struct superblock *sb); /* NULL: never written */
json_t *dump_pages(int fd, const struct superblock *sb, enum page_kind kind);
json_t *dump_tables(int fd, const struct superblock *sb, bool reports);
/* One copy of one node's; NULL: never written. */
json_t *dump_table(int fd, const struct superblock *sb, bool reports, uint32_t host_id, int copy);
json_t *dump_metadata_copies(int fd, const struct superblock *sb);
json_t *dump_lvm(int fd);

/* {"damaged": "text (NAME)"} */
json_t *dump_damaged(int code, const struct error *err);

void dump_print(const json_t *doc);
void dump_print_pages(const json_t *doc); /* the same with every page's header and messages */

#endif
