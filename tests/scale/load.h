/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The load generator's two halves: load_agents.c (the simulated agents and the commands that drive
 * them) and load_hosts.c (one real member of the lockspace and the delta leases of all the others).
 * One thread, one process per pool.
 */
#ifndef LUNAR_TESTS_SCALE_LOAD_H
#define LUNAR_TESTS_SCALE_LOAD_H

#include <stdint.h>

#include "diskrpc/superblock.h"
#include "fencing/membership.h"

/* The generation of every host but the real member: they have joined once. */
#define LOAD_GENERATION 1u

struct load_hosts;

/*
 * Joins the pool as `node_name` by way of sanlock, then writes delta leases for host ids 1 to
 * max_nodes as if every other host had joined too. Blocks for seconds. Only for a pool that nobody
 * else uses: the others' sectors are written over.
 */
int load_hosts_open(const char *device, const struct superblock *sb, const char *node_name,
                    struct load_hosts **ret, struct error *err);
/* Moves the others' timestamps, so that sanlock takes them for alive; call it every 2N seconds.
 * Blocks for one write of the whole lockspace. */
int load_hosts_renew(struct load_hosts *hosts, struct error *err);
/* Writes grant tables with that many entries for every host, as a coordinator of the first term
 * would have left them. Before the first coordinator leads. Blocks for some seconds. */
int load_hosts_grant(struct load_hosts *hosts, const struct uuid *pool_id, uint32_t n_entries,
                     struct error *err);
uint32_t load_hosts_own_id(const struct load_hosts *hosts);
uint64_t load_hosts_own_generation(const struct load_hosts *hosts);
/* The lockspace stays joined: whoever started the daemon ends it. */
void load_hosts_close(struct load_hosts *hosts);

#endif
