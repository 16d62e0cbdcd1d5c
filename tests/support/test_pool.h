/* SPDX-License-Identifier: Apache-2.0 */
/* A pool on a sparse file, for tests with sanlock daemons of their own and without a watchdog. */
#ifndef LUNAR_TESTS_SUPPORT_TEST_POOL_H
#define LUNAR_TESTS_SUPPORT_TEST_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include "diskrpc/superblock.h"

bool test_pool_has_sanlock(void); /* it is installed */

/* Makes the file, laid out for `max_nodes` like a LUN, with a superblock that says FORMATTING and
 * is in *ret, too. What sanlock has on it is still to be made: membership_format. 0 or an error. */
int test_pool_make(const char *path, uint32_t max_nodes, uint32_t io_timeout_s,
                   uint32_t watchdog_fire_timeout_s, struct superblock *ret);
/* Writes `sb` again under another state. */
int test_pool_set_state(const char *path, struct superblock *sb, enum superblock_state state);

/* Starts a daemon that dies with the calling thread; its log is `run_dir`/log, and whoever has
 * SANLOCK_RUN_DIR set to `run_dir` talks to it. Its pid. */
int test_pool_start_sanlock(const char *run_dir, const char *host_name);

#endif
