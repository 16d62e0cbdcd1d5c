/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent's use of persistent reservations (SAFETY 13), in pools that were made for them.
 *
 * Happy path: before the join's first write under a host id its key is registered on every path of
 * every PV; after the join it is changed if another life came of it; every AGENT_CHECK_MS it is
 * looked after, with the paths that have come since, in a thread of its own; it is given back as
 * the last of a clean leave. A restarted agent finds its key by host id and generation.
 *
 * Failure modes: no registration, no join. The key is gone while joined: the node was preempted; it
 * fences itself off and comes back as the next generation, whose registration replaces whatever is
 * left of this one. Between two looks a refused write says the same (agent_io.c). A look that hangs
 * on a path holds up nothing but the end of a fence, which waits for all of this life's I/O.
 */
#include <stdlib.h>
#include <string.h>

#include "agent/agent_internal.h"
#include "base/log.h"
#include "fencing/reservation.h"

int reserve_open(struct agent *a, struct join *j, struct error *err)
{
    const char *const devices[] = {a->device};

    if (!(a->sb.flags & SUPERBLOCK_FLAG_PR))
        return 0;
    int rc = reservation_open(devices, 1, &a->sb.pool_id, &j->reservation, err);
    return rc < 0 ? (error_prefix(err, "the pool requires persistent reservations"), rc) : 0;
}

int reserve_candidate(void *data, uint32_t host_id, uint64_t generation, struct error *err)
{
    struct agent *a = data;
    struct join *j = &a->join;

    if (!j->reservation)
        return 0;
    int rc = reservation_register(j->reservation, host_id, generation, err);
    j->registered = rc == 0;
    return rc < 0 ? (error_prefix(err, "registering for persistent reservations"), rc) : 0;
}

int reserve_joined(struct join *j, struct error *err)
{
    const struct incarnation *self = &j->self;

    if (!j->reservation)
        return 0;
    if (j->registered)
        return reservation_change(j->reservation, self->host_id, self->generation, err);
    int rc = reservation_adopt(j->reservation, self->host_id, self->generation, err);
    return rc < 0 ? rc : reservation_check(j->reservation, err);
}

void reserve_close(struct join *j)
{
    if (j->reservation)
        reservation_close(j->reservation);
    j->reservation = NULL;
    j->registered = false;
}

void reserve_leave(struct join *j)
{
    struct error err = ERROR_INIT;

    if (!j->reservation)
        return;
    if (reservation_unregister(j->reservation, &err) < 0)
        log_warn("reservation_left code=%s text=\"%s\"", error_name(err.code), err.text);
    reserve_close(j);
}

/* --- while joined --- */

static void tend_run(struct worker_job *job)
{
    struct agent *a = job->data;
    memset(&a->reserve_err, 0, sizeof a->reserve_err);
    int rc = reservation_check(a->join.reservation, &a->reserve_err);
    if (rc == LUNAR_E_FENCED) {
        a->reserve_rc = rc;
        return;
    }
    /* Also where no path worked: all of them may have gone and come back under other names. */
    a->reserve_rc = reservation_tend_paths(a->join.reservation, &a->reserve_err);
    if (a->reserve_rc == 0 && rc < 0)
        a->reserve_rc = reservation_check(a->join.reservation, &a->reserve_err);
}

static void tend_done(struct worker_job *job)
{
    struct agent *a = job->data;

    a->reserve_busy = false;
    if (a->reserve_rc == LUNAR_E_FENCED)
        agent_fence(a, a->reserve_err.text); /* nothing unless joined */
    else if (a->reserve_rc < 0)
        log_warn("reservation_in_doubt pool=%s code=%s text=\"%s\"", a->sb.pool_name,
                 error_name(a->reserve_rc), a->reserve_err.text);
    agent_fence_advance(a);
}

void reserve_tend(struct agent *a)
{
    if (!a->join.reservation || a->reserve_busy)
        return;
    if (!a->reserve_worker)
        a->reserve_worker = worker_open(a->loop, "reserve");
    a->reserve_busy = true;
    a->reserve_job = (struct worker_job){.run = tend_run, .done = tend_done, .data = a};
    worker_submit(a->reserve_worker, &a->reserve_job);
}
