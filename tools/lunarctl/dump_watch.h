/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of `lun dump --watch`: a look, the difference of two, a line of it. */
#ifndef LUNARCTL_DUMP_WATCH_H
#define LUNARCTL_DUMP_WATCH_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "cli.h"
#include "diskrpc/superblock.h"

/* Looks again and again until told to stop; `all`: also at what only shows that its writer lives.
 * Returns the exit code. */
int dump_watch(const struct cli *cli, int fd, const struct superblock *sb, uint64_t interval_s,
               bool all);

/* Everything that is watched, by unit. */
json_t *dump_watch_look(int fd, const struct superblock *sb);
/* The changes: {"time", "wall_us", "unit", "host_id", "node", "before", "now"}, "now" is null where
 * a unit went. `now` is corrected where it may have been read in the middle of a write: it is the
 * next look's `before`. */
json_t *dump_watch_changes(const json_t *before, json_t *now, uint64_t wall_us, bool all);
void dump_watch_print(const json_t *change);

#endif
