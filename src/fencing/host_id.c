/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Claims of host ids; see host_id.h and diskrpc/claim.h.
 *
 * Two nodes that ask sanlock for one id at the same time cost the loser 8N + W (27 s with N = 2).
 * So a node first writes its claim into the id's up page, waits, and reads back:
 *
 *     ms     node A                   node B
 *     0      reads the lease: free    reads the lease: free
 *     1      writes claim a
 *     20                              writes claim b
 *     50     reads b: another id      reads b: its own
 *     520                             claim b and a free lease still: adds
 *     ~570                            sanlock has written the lease
 *
 * Whoever wrote last goes on; everybody else sees its claim within a look. A node that comes later
 * than that, behind the winner's last look, finds the lease taken at its own last look, because
 * sanlock writes the lease at the beginning of its add and the wait is longer than that takes on a
 * LUN that is well. On a LUN that is not well two nodes may both go on: then sanlock decides, and
 * the loser has waited 27 s. Nothing else hangs on it.
 *
 * A claim that lands late, in the page of an id that has an owner by now, does no harm: it is no
 * page, so its readers skip it; the owner writes its page anew within a second, with every message
 * that was not acknowledged; no proof of anything is kept in up pages (grants and reports are
 * tables of their own). What it may hide for that second is a node's name, its hint address, and
 * that it left. The owner's first page of a run is read back after the write, so a claim over that
 * one fails the join, which is tried again. A claim that a node left behind when it died is read by
 * nobody but joiners, who prefer other ids while there are any.
 */
#include "fencing/host_id.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "diskrpc/claim.h"
#include "fencing/lockspace.h"

/* The loser of a claim looks for another id after this at the latest. */
#define LOOK_MS 50

static int page_read(const struct host_id_claims *c, uint32_t host_id, uint8_t *page,
                     struct error *err)
{
    return io_read(c->fd, page, PAGE_SIZE_BYTES, layout_up_page(&c->superblock->layout, host_id),
                   err);
}

static int page_write(const struct host_id_claims *c, uint32_t host_id, const uint8_t *page,
                      struct error *err)
{
    return io_write(c->fd, page, PAGE_SIZE_BYTES, layout_up_page(&c->superblock->layout, host_id),
                    err);
}

/* 1: the page holds what we wrote and the lease is as it was; 0: not so. */
static int still_ours(const struct host_id_claims *c, const struct delta_lease *then,
                      const uint8_t *claim, uint8_t *page, struct error *err)
{
    struct delta_lease now;
    int rc = page_read(c, then->host_id, page, err);
    if (rc == 0 && memcmp(page, claim, PAGE_SIZE_BYTES) != 0)
        return 0;
    if (rc == 0)
        rc = lease_read(c->fd, &c->superblock->layout, c->lockspace, then->host_id, &now, err);
    return rc < 0 ? rc : now.timestamp == 0 && now.generation == then->generation;
}

int host_id_claim(const struct host_id_claims *c, const struct delta_lease *free_lease,
                  struct error *err)
{
    struct claim claim = {.slot = free_lease->host_id,
                          .pool_id = c->superblock->pool_id,
                          .nonce = uuid_random(),
                          .lease_generation = free_lease->generation};
    uint8_t *ours = io_alloc(PAGE_SIZE_BYTES), *page = io_alloc(PAGE_SIZE_BYTES);

    snprintf(claim.node_name, sizeof claim.node_name, "%s", c->node_name);
    claim_out(&claim, ours);
    int rc = page_write(c, claim.slot, ours, err);
    if (rc == 0)
        rc = 1;
    for (int waited_ms = 0; rc == 1 && waited_ms < c->wait_ms; waited_ms += LOOK_MS) {
        lockspace_pause(LOOK_MS);
        rc = still_ours(c, free_lease, ours, page, err);
    }
    free(ours);
    free(page);
    return rc;
}

int host_id_avoid_claimed(const struct host_id_claims *c, const struct delta_lease *leases,
                          bool *avoid, struct error *err)
{
    uint32_t n = c->superblock->layout.max_nodes;
    size_t len = (size_t)n * PAGE_SIZE_BYTES;
    uint8_t *pages = io_alloc(len);
    struct claim claim;

    int rc = io_read(c->fd, pages, len, layout_up_page(&c->superblock->layout, 1), err);
    for (uint32_t i = 0; rc == 0 && i < n; i++)
        if (leases[i].timestamp == 0 &&
            claim_in(pages + (size_t)i * PAGE_SIZE_BYTES, i + 1, &c->superblock->pool_id, &claim,
                     NULL) == 0 &&
            strcmp(claim.node_name, c->node_name) != 0) /* ours is of an attempt that is over */
            avoid[i] = true;
    free(pages);
    return rc;
}

int host_id_clear_claim(const struct host_id_claims *c, uint32_t host_id, struct error *err)
{
    uint8_t *page = io_alloc(PAGE_SIZE_BYTES);
    struct claim claim;

    int rc = page_read(c, host_id, page, err);
    if (rc == 0 && claim_in(page, host_id, &c->superblock->pool_id, &claim, NULL) == 0) {
        memset(page, 0, PAGE_SIZE_BYTES);
        rc = page_write(c, host_id, page, err);
    }
    free(page);
    return rc;
}
