/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Joining a pool: everything an agent does before its first message, in this order, blocking.
 *
 *   1. No lockspace here: whatever lunar maps and QSDs a former life left are torn down first
 * (SAFETY 19).
 *   2. No other machine may live under our node name (SAFETY 7): its up page names it, its delta
 * lease shows whether it lives.
 *   3. In a pool with persistent reservations: the key of the life to be (SAFETY 13). sanlock: the
 * lockspace (membership_join). The key again, should another life have come of it, before 5.
 *   4. The guard of this generation is found or started; it sets USED and holds the member lease
 * (SAFETY 9, 11).
 *   5. run = last + 1 in our up page, written and read back before anything is sent (SAFETY 5).
 *   6. With the lockspace held all along (agent restart): the stacks are adopted.
 *
 * Failure modes: each returns an error with what to do; the agent shows it in its status and tries
 * again. A generation that its guard is fencing, or has fenced, is over: whatever stands of it is
 * torn down and the lockspace given up, and a later try joins as the next one.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/agent_internal.h"
#include "base/io.h"
#include "base/log.h"
#include "diskrpc/wwid.h"
#include "fencing/leases.h"
#include "fencing/timeouts.h"

static void on_progress(void *data, const char *text)
{
    struct agent *a = data;
    log_info("joining pool=%s text=\"%s\"", a->sb.pool_name, text);
}

static void on_adopted(void *data, struct stack *stack)
{
    struct join *j = data;
    if (j->n_stacks == JOIN_STACKS_MAX)
        abort(); /* more attachments than a grant table holds: not lunar's doing */
    j->stacks[j->n_stacks++] = stack;
}

/* --- 2: another machine under our node name --- */

/* Seconds since `lease` was first seen unmoved; negative once it moved. */
static int watch_lease(struct agent *a, uint32_t host_id, const struct delta_lease *first,
                       int seconds, const char *space, struct error *err)
{
    struct delta_lease now;
    uint8_t *page = io_alloc(IO_ALIGN);
    int rc = 0;

    for (int waited = 0; waited <= seconds && rc == 0; waited++) {
        uint64_t at = a->sb.layout.lockspace + (uint64_t)(host_id - 1) * a->sb.layout.sector_size;
        uint64_t base = at / IO_ALIGN * IO_ALIGN;
        rc = io_read(a->fd, page, IO_ALIGN, base, err);
        if (rc == 0)
            rc = delta_lease_in(page + (at - base), host_id, space, &now, err);
        if (rc == 0 && now.timestamp == 0)
            break; /* it left meanwhile */
        if (rc == 0 && (now.timestamp != first->timestamp || now.generation != first->generation))
            rc = error_set(err, LUNAR_E_ALIVE,
                           "another machine is in this pool as node '%s' (host id %u, sanlock name "
                           "%s) and alive: give this one another --node-name",
                           a->node_name, host_id, now.owner_name);
        if (rc == 0 && waited < seconds)
            sleep(1);
    }
    free(page);
    return rc;
}

static int check_name_at(struct agent *a, const struct delta_lease *lease, const char *space,
                         const struct timeouts *t, struct error *err)
{
    struct page *page = calloc(1, sizeof *page);
    uint8_t *buffer = io_alloc(PAGE_SIZE_BYTES);
    uint32_t h = lease->host_id;

    if (!page)
        abort();
    int rc = io_read(a->fd, buffer, PAGE_SIZE_BYTES, layout_up_page(&a->sb.layout, h), err);
    bool same = rc == 0 && page_in(buffer, PAGE_UP, h, &a->sb.pool_id, page, NULL) == 0 &&
                strcmp(page->node_name, a->node_name) == 0 &&
                page->writer.generation == lease->generation;
    free(buffer);
    free(page);
    if (rc < 0 || !same)
        return rc;
    log_warn("same_node_name host_id=%u owner=%s text=\"watching its lease for %d s\"", h,
             lease->owner_name, t->dead_s);
    return watch_lease(a, h, lease, t->dead_s, space, err);
}

static int check_name(struct agent *a, struct error *err)
{
    char own[LEASES_NAME_SIZE], machine[128], space[48];
    uint32_t n = a->sb.layout.max_nodes;
    struct delta_lease *leases = calloc(n, sizeof *leases);
    struct timeouts t;

    if (!leases)
        abort();
    pool_lockspace(&a->sb.pool_id, space);
    int rc = timeouts_compute((int)a->sb.io_timeout_s, (int)a->sb.watchdog_fire_timeout_s, &t, err);
    if (rc == 0)
        rc = leases_machine_id(machine, sizeof machine, err);
    if (rc == 0)
        rc = leases_read(a->fd, &a->sb.layout, space, leases, err);
    if (rc == 0)
        leases_host_name(a->node_name, machine, own);
    for (uint32_t i = 0; rc == 0 && i < n; i++)
        if (leases[i].timestamp != 0 && strcmp(leases[i].owner_name, own) != 0)
            rc = check_name_at(a, &leases[i], space, &t, err);
    free(leases);
    return rc;
}

/* --- 5: the run --- */

static int write_hello(struct agent *a, const struct page *page, uint8_t *buffer, struct error *err)
{
    uint64_t at = layout_up_page(&a->sb.layout, page->slot);
    uint8_t *back = io_alloc(PAGE_SIZE_BYTES);

    page_out(page, buffer);
    int rc = io_write(a->fd, buffer, PAGE_SIZE_BYTES, at, err);
    if (rc == 0)
        rc = io_read(a->fd, back, PAGE_SIZE_BYTES, at, err);
    if (rc == 0 && memcmp(buffer, back, PAGE_SIZE_BYTES) != 0)
        rc = error_set(err, -EIO, "our up page reads back other bytes than were written");
    free(back);
    return rc;
}

/* The run of our last report in this generation; 0: none. A second witness, should the up page be
 * damaged. What cannot be read is not "none": the join fails and is tried again. */
static int last_reported_run(struct agent *a, const struct join *j, uint64_t *ret,
                             struct error *err)
{
    struct table t = {0};

    *ret = 0;
    int rc = table_read_newest(a->fd, &a->sb.layout, TABLE_REPORTS, j->self.host_id, &a->sb.pool_id,
                               &t, err);
    if (rc == LUNAR_E_NOT_FOUND || rc == LUNAR_E_CORRUPT || rc == LUNAR_E_FOREIGN)
        return 0;
    if (rc == 0 && t.writer.generation == j->self.generation)
        *ret = t.writer.run_or_term;
    table_free(&t);
    return rc;
}

/* A damaged page hides the runs since the last report: attempts to join that came as far as their
 * hello and no further, one every AGENT_JOIN_RETRY_MS. This many are more than half an hour
 * of them. */
#define RUNS_HIDDEN_MAX 1000u

static int find_last_run(struct agent *a, const struct join *j, struct page *page, uint64_t *ret,
                         struct error *err)
{
    uint8_t *buffer = io_alloc(PAGE_SIZE_BYTES);
    uint32_t slot = j->self.host_id;

    int rc = last_reported_run(a, j, ret, err);
    if (rc == 0)
        rc = io_read(a->fd, buffer, PAGE_SIZE_BYTES, layout_up_page(&a->sb.layout, slot), err);
    int sound = rc == 0 ? page_in(buffer, PAGE_UP, slot, &a->sb.pool_id, page, NULL) : rc;
    if (rc == 0 && sound < 0 && sound != LUNAR_E_NOT_FOUND)
        *ret += RUNS_HIDDEN_MAX;
    if (sound == 0 && page->writer.generation == j->self.generation &&
        page->writer.run_or_term > *ret)
        *ret = page->writer.run_or_term;
    free(buffer);
    return rc;
}

static int take_run(struct agent *a, struct join *j, struct error *err)
{
    struct page *page = calloc(1, sizeof *page);
    uint8_t *buffer = io_alloc(PAGE_SIZE_BYTES);
    uint64_t last = 0;

    if (!page)
        abort();
    int rc = find_last_run(a, j, page, &last, err);
    if (rc == 0) {
        /* An attempt of ours that failed behind its hello has been seen, perhaps, although a late
         * write of a former run lies there now. */
        if (a->tried.host_id == j->self.host_id && a->tried.generation == j->self.generation &&
            a->tried.run_or_term > last)
            last = a->tried.run_or_term;
        j->self.run_or_term = last + 1;
        a->tried = j->self;
        memset(page, 0, sizeof *page);
        page->kind = PAGE_UP;
        page->slot = j->self.host_id;
        page->pool_id = a->sb.pool_id;
        page->writer = j->self;
        page->page_seq = j->page_seq = 1;
        page->first_seq = 1;
        snprintf(page->node_name, sizeof page->node_name, "%s", a->node_name);
        rc = write_hello(a, page, buffer, err);
    }
    free(buffer);
    free(page);
    return rc;
}

static int join_sanlock(struct agent *a, struct join *j, struct error *err)
{
    struct membership_config config = {.device = a->device,
                                       .superblock = &a->sb,
                                       .node_name = a->node_name,
                                       .progress = on_progress,
                                       .candidate = reserve_candidate,
                                       .data = a};
    int rc = reserve_open(a, j, err);
    if (rc == 0)
        rc = membership_join(&config, &j->membership, err);
    if (rc < 0) {
        if (j->registered)
            reserve_leave(j);
        return rc;
    }
    j->self.host_id = membership_host_id(j->membership);
    j->self.generation = membership_generation(j->membership);
    return 0;
}

/* --- 4: the guard --- */

int join_guard(struct agent *a, struct join *j, struct error *err)
{
    const struct guard_config config = {.device = a->device,
                                        .pool_name = a->sb.pool_name,
                                        .run_dir = a->run_dir,
                                        .superblock = &a->sb,
                                        .host_id = j->self.host_id,
                                        .generation = j->self.generation,
                                        .ending = a->fence.ending};
    return guard_open(&config, &j->guard, err);
}

/* This generation is over, or about to be: what an agent that died meanwhile has left to do. */
static int end_life(struct agent *a, struct join *j, const struct error *why, struct error *err)
{
    int rc = stack_recover(a->root, &a->sb.pool_id, true, on_adopted, j, err);

    if (rc == 0)
        rc = membership_end(&a->sb.pool_id, err);
    return rc < 0 ? error_prefix(err, "ending a life that was fenced off")
                  : error_set(err, LUNAR_E_FENCED, "%s; joining as the next generation", why->text);
}

static int find_guard(struct agent *a, struct join *j, struct error *err)
{
    struct error why = ERROR_INIT;
    int rc = join_guard(a, j, &why);

    if (rc == LUNAR_E_FENCED)
        return end_life(a, j, &why, err);
    return rc < 0 ? error_set(err, rc, "the guard: %s", why.text) : 0;
}

/* The key as this life must have it. A life that was preempted while no agent ran is for the guard
 * to end, and for the next try to follow. */
static int check_reservation(struct join *j, struct error *err)
{
    int rc = reserve_joined(j, err);

    if (rc == LUNAR_E_FENCED)
        guard_fence(j->guard, "preempted by a persistent reservation", NULL);
    return rc;
}

/* A node that was taken for dead and goes on may be told so by its down page alone, which a late
 * write can have hit. Before what stands is adopted, the grants are asked, too (SAFETY 8). What
 * cannot be read tells nothing; the down page still does. */
static int check_not_dead(struct agent *a, struct join *j, struct error *err)
{
    if (!table_read_marks_dead(a->fd, &a->sb.layout, j->self.host_id, &a->sb.pool_id,
                               j->self.generation))
        return 0;
    int rc = guard_fence(j->guard, "the coordinator has declared this life of the node dead", err);
    return rc < 0
               ? rc
               : error_set(err, LUNAR_E_FENCED,
                           "the coordinator has declared this life of the node dead; it is being "
                           "fenced off and joins again");
}

/* --- 0: the LUN is back, perhaps as a new device of the same name --- */

static int check_same_pool(struct agent *a, int fd, struct error *err)
{
    struct superblock sb;
    int rc = superblock_read(fd, &sb, err);

    if (rc == 0 && !uuid_equal(&sb.pool_id, &a->sb.pool_id))
        return error_set(err, LUNAR_E_FOREIGN, "%s carries another pool now", a->device);
    return rc < 0 ? rc : wwid_check(fd, a->device, &a->sb, err);
}

static int reopen(struct agent *a, struct error *err)
{
    int fd = io_open(a->device, 1, err);

    if (fd < 0)
        return fd;
    int rc = check_same_pool(a, fd, err);
    if (rc < 0)
        close(fd);
    else
        a->fd = fd;
    return rc;
}

void join_undo(struct join *join)
{
    for (uint32_t i = 0; i < join->n_stacks; i++)
        stack_free(join->stacks[i]); /* they stand; the next attempt adopts them again */
    join->n_stacks = 0;
    /* The lockspace stays joined, and the guard, if there is one, on guard: the next attempt finds
     * both. */
    if (join->guard)
        guard_close(join->guard);
    join->guard = NULL;
    reserve_close(join);
    if (join->membership)
        membership_abandon(join->membership);
    join->membership = NULL;
}

int join_run(struct agent *a, struct join *ret, struct error *err)
{
    uint32_t host_id;
    uint64_t generation;
    int rc = 0;

    memset(ret, 0, sizeof *ret);
    if (a->fd < 0)
        rc = reopen(a, err);
    if (rc < 0)
        return rc;
    int found = membership_find(&a->sb.pool_id, &host_id, &generation, err);
    bool fresh = found == LUNAR_E_NOT_JOINED;
    if (found < 0 &&
        !fresh) /* not known is not "no": tearing down is only for a node that is out for sure */
        return error_prefix(err, "asking sanlock whether this node is in the pool");
    if (fresh) {
        rc = stack_recover(a->root, &a->sb.pool_id, true, on_adopted, ret, err);
        if (rc < 0)
            return error_prefix(err, "tearing down what a former life left");
        rc = check_name(a, err);
    }
    if (rc == 0)
        rc = join_sanlock(a, ret, err);
    if (rc == 0)
        rc = find_guard(a, ret, err);
    if (rc == 0)
        rc = check_reservation(ret, err);
    if (rc == 0 && !fresh)
        rc = check_not_dead(a, ret, err);
    if (rc == 0)
        rc = take_run(a, ret, err);
    if (rc == 0 && !fresh)
        rc = stack_recover(a->root, &a->sb.pool_id, false, on_adopted, ret, err);
    if (rc < 0)
        join_undo(ret);
    return rc;
}
