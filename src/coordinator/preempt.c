/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The coordinator's use of persistent reservations (SAFETY 13), in pools that were made for them.
 *
 * Happy path: the leader asks for a dead life's keys before the first of its grants moves, and is
 * told when the LUN refuses all that life still sends. A new leader does the same to its
 * predecessor's host before its own first commit, if that host is dead: an lvm of the predecessor
 * may have been frozen between its check of the term and its write, and may be thawed. Where only
 * the predecessor's process ended, nothing is preempted: its host lives, and no child of its is
 * left (SAFETY 1).
 *
 * Failure modes: a preempt that fails moves nothing and is tried again by whoever asked; a new
 * leader that cannot preempt does not lead. A former leader's host of which sanlock does not know
 * yet whether it is dead is waited for: the lease was had, so that it is being decided. So is a
 * look at the lease of somebody dead that fails: it does not say that he lives. A leader that has
 * slept, or has just been started, waits until sanlock's word counts again (awake.h), and of a host
 * that it calls dead the lease must stand still (proof.c): the living would be preempted otherwise.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "coordinator/coordinator_internal.h"
#include "fencing/reservation.h"
#include "fencing/timeouts.h"

#define LOOK_MS 200

struct preempt_job {
    struct worker_job job;
    struct coordinator *c;
    uint32_t host_id;
    uint64_t generation;
    int rc;
    struct error err;
};

bool preempt_is_used(const struct coordinator *c)
{
    return c->sb.flags & SUPERBLOCK_FLAG_PR;
}

/* With the key that this node's agent has registered. */
static int open_pvs(const struct coordinator *c, struct reservation **ret, struct error *err)
{
    const char *const devices[] = {c->device};
    int rc = reservation_open(devices, 1, &c->sb.pool_id, ret, err);

    if (rc < 0)
        return rc;
    rc = reservation_adopt(*ret, c->self.host_id, c->self.generation, err);
    if (rc < 0)
        reservation_close(*ret);
    return rc;
}

/* --- for the leader --- */

static void preempt_run(struct worker_job *job)
{
    struct preempt_job *j = job->data;
    struct reservation *r;

    j->rc = open_pvs(j->c, &r, &j->err);
    if (j->rc < 0)
        return;
    j->rc = reservation_preempt(r, j->host_id, j->generation, &j->err);
    reservation_close(r);
}

static void preempt_done(struct worker_job *job)
{
    struct preempt_job *j = job->data;
    leader_preempted(j->c->leader, j->host_id, j->generation, j->rc, &j->err,
                     coordinator_now_ms(j->c));
    free(j);
}

void preempt_start(struct coordinator *c, uint32_t host_id, uint64_t generation)
{
    struct preempt_job *j = calloc(1, sizeof *j);

    if (!j)
        abort();
    *j = (struct preempt_job){.c = c, .host_id = host_id, .generation = generation};
    j->job = (struct worker_job){.run = preempt_run, .done = preempt_done, .data = j};
    if (!c->preempt_worker)
        c->preempt_worker = worker_open(c->loop, "preempt");
    worker_submit(c->preempt_worker, &j->job);
}

/* --- for a new leader --- */

/* Also where its lease is damaged: nobody renews that one any more, and to preempt somebody who yet
 * lives does no more than fence him. */
static bool is_dead(const struct host_status *host)
{
    if (host->look == HOST_LOOK_DAMAGED)
        return host->state == HOST_STATE_DEAD || host->state == HOST_STATE_FREE;
    return host->state == HOST_STATE_DEAD && host->look == HOST_LOOK_UNMOVED;
}

/* One look at whoever is called dead, and at a former leader that is said to have left, which both
 * the decision and the preempt go by. False: a lease could not be read, so that it is not known
 * whom to preempt. */
static bool look_at_dead(const struct coordinator *c, struct host_status *hosts, int n)
{
    bool all = true;
    for (int i = 0; i < n; i++) {
        bool left = hosts[i].state == HOST_STATE_FREE && hosts[i].host_id == c->former.host_id;
        if (hosts[i].state != HOST_STATE_DEAD && !left)
            continue;
        hosts[i].look = proof_look_at(c, &hosts[i]);
        all &= hosts[i].look != HOST_LOOK_NONE;
    }
    return all;
}

/* Whether that life of a host may have left a writer. Another life of the host has begun or this
 * one has ended in order: no. A verdict that its lease belies is none. */
static enum host_state state_of(const struct coordinator *c, const struct host_status *hosts, int n)
{
    for (int i = 0; i < n; i++) {
        const struct host_status *h = &hosts[i];
        if (h->host_id != c->former.host_id)
            continue;
        if (h->generation != c->former.generation) /* older: sanlock has not read it since */
            return h->generation > c->former.generation ? HOST_STATE_FREE : HOST_STATE_UNKNOWN;
        if (is_dead(h))
            return HOST_STATE_DEAD;
        bool ended = h->state == HOST_STATE_DEAD || h->state == HOST_STATE_FREE;
        return ended && h->look != HOST_LOOK_UNMOVED ? HOST_STATE_UNKNOWN : h->state;
    }
    return HOST_STATE_UNKNOWN;
}

static bool anybody_dead(const struct host_status *hosts, int n)
{
    for (int i = 0; i < n; i++)
        if (hosts[i].state == HOST_STATE_DEAD)
            return true;
    return false;
}

static bool is_decided(enum host_state state)
{
    return state == HOST_STATE_LIVE || state == HOST_STATE_FREE || state == HOST_STATE_DEAD;
}

/* Nothing hangs on the former leader, or it is known how it stands. */
static bool is_settled(const struct coordinator *c, const struct host_status *hosts, int n)
{
    return c->former.term == 0 || c->former.host_id == c->self.host_id ||
           is_decided(state_of(c, hosts, n));
}

/* All hosts, once it is decided whether the former leader's is dead: within 8N + W. */
static int wait_decided(const struct coordinator *c, struct host_status **ret, struct error *err)
{
    struct timeouts t;
    int rc = timeouts_compute((int)c->sb.io_timeout_s, (int)c->sb.watchdog_fire_timeout_s, &t, err);

    for (int waited_ms = 0; rc == 0 && waited_ms <= t.dead_s * 1000; waited_ms += LOOK_MS) {
        int n = membership_hosts(&c->sb.pool_id, &c->former.host_id, c->former.term != 0, ret, err);
        bool awake = (uint64_t)waited_ms >= c->takeover_awake_in_ms;
        if (n < 0 && n != -EAGAIN) /* EAGAIN: sanlock has not looked at the others yet */
            return n;
        if (n >= 0 && (awake || !anybody_dead(*ret, n)) && look_at_dead(c, *ret, n) &&
            is_settled(c, *ret, n))
            return n;
        free(*ret);
        *ret = NULL;
        usleep(LOOK_MS * 1000);
    }
    return rc < 0 ? rc
                  : error_set(err, LUNAR_E_TIMEOUT,
                              "sanlock does not say whether host id %u, the former leader's, is "
                              "dead",
                              c->former.host_id);
}

/* The former leader may have been cut short in the same place, so everybody dead who has a key is
 * meant; the former leader also without one, for the sake of commands that are being aborted. */
static int preempt_dead(const struct coordinator *c, struct reservation *r,
                        const struct host_status *host, struct error *err)
{
    bool found = host->host_id == c->former.host_id && host->generation == c->former.generation;
    int rc = 0;

    if (host->host_id == c->self.host_id || !is_dead(host))
        return 0;
    if (!found)
        rc = reservation_find(r, host->host_id, host->generation, &found, err);
    if (rc < 0 || !found)
        return rc;
    log_info("preempting_before_first_commit host_id=%u generation=%llu", host->host_id,
             (unsigned long long)host->generation);
    return reservation_preempt(r, host->host_id, host->generation, err);
}

int preempt_before_first_commit(struct coordinator *c, struct error *err)
{
    struct host_status *hosts = NULL;
    struct reservation *r;

    if (!preempt_is_used(c))
        return 0;
    int n = wait_decided(c, &hosts, err);
    int rc = n < 0 ? n : open_pvs(c, &r, err);
    if (rc == 0) {
        for (int i = 0; rc == 0 && i < n; i++)
            rc = preempt_dead(c, r, &hosts[i], err);
        reservation_close(r);
    }
    free(hosts);
    if (rc < 0)
        error_prefix(err, "preempting who is dead before the first commit");
    return rc;
}
