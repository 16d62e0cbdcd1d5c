/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Beating as a leader, and watching the leader's beats as a standby (docs: FAILURES.md, "the
 * coordinator hangs").
 *
 * Happy path: each second the loop's timer lets the lease thread write the next beat, right after
 * its look at the lease; so a beat says that loop and lease thread get on, and that the LUN takes
 * writes. A standby reads lease and beat after each attempt (beat_judge.c). Failure modes: the loop
 * is stuck, or a thread that works for it ends no job for COORDINATOR_STUCK_MS: no more beats, by
 * design. The process is stopped: none either. The lease is somebody else's: the look says so, and
 * nothing is written over the successor's beat; what was under way then lands as a beat of an older
 * term, which readers pass over (diskrpc/beat.h).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/log.h"
#include "coordinator/coordinator_internal.h"

#define MS_PER_S 1000u

/* --- the loop: may the next beat be written? --- */

/* Jobs in the thread, and none has ended since the last look that saw one end. */
static bool is_stuck(struct coordinator *c, struct thread_watch *watch, const struct worker *worker)
{
    uint64_t now = coordinator_now_ms(c), ended = worker_done_count(worker);

    if (watch->since_ms == 0 || worker_is_idle(worker) || ended != watch->ended) {
        watch->ended = ended;
        watch->since_ms = now;
    }
    return now - watch->since_ms > COORDINATOR_STUCK_MS;
}

bool beat_is_due(struct coordinator *c)
{
    bool lvm = is_stuck(c, &c->lvm_watch, c->lvm_worker);
    bool grants = is_stuck(c, &c->grants_watch, c->grants_worker);

    if ((lvm || grants) && !c->beats_withheld)
        log_error(
            "beats_end term=%llu thread=%s text=\"it has ended no job for %u s: a standby may "
            "take over\"",
            (unsigned long long)c->self.run_or_term, lvm ? "lvm" : "grants",
            COORDINATOR_STUCK_MS / MS_PER_S);
    c->beats_withheld = lvm || grants;
    return !c->beats_withheld;
}

/* --- the lease thread: beating --- */

/* As the node's agent writes it into its page; a beat without a name is as good. */
static void learn_name(struct coordinator *c, uint32_t host_id, char ret[PAGE_NAME_SIZE])
{
    uint8_t *buffer = io_alloc(PAGE_SIZE_BYTES);
    struct page *page = calloc(1, sizeof *page);

    if (!page)
        abort();
    ret[0] = '\0';
    if (io_read(c->fd, buffer, PAGE_SIZE_BYTES, layout_up_page(&c->sb.layout, host_id), NULL) ==
            0 &&
        page_in(buffer, PAGE_UP, host_id, &c->sb.pool_id, page, NULL) == 0)
        snprintf(ret, PAGE_NAME_SIZE, "%s", page->node_name);
    free(page);
    free(buffer);
}

void beat_write_next(struct coordinator *c, enum beat_phase phase)
{
    struct error err = ERROR_INIT;
    struct beat *beat = &c->beat;

    if (beat->count == 0)
        learn_name(c, c->lease_self.host_id, beat->node_name);
    beat->pool_id = c->sb.pool_id;
    beat->writer = c->lease_self;
    beat->phase = phase;
    beat->count++;
    if (beat_write(c->fd, &c->sb.layout, beat, &err) < 0)
        log_warn("beat_failed term=%llu code=%s text=\"%s\"",
                 (unsigned long long)beat->writer.run_or_term, error_name(err.code), err.text);
}

/* --- the lease thread: watching --- */

/* The lease is read before the beat: a beat of a later term than the lease's means that the lease
 * has moved in between. One of a newer lunar is a beat, though we cannot tell which: never silence.
 */
static void look_at_leader(struct coordinator *c, struct leadership_owner *owner,
                           struct beat_look *look)
{
    struct beat beat;

    *look = (struct beat_look){.began_ms = uv_hrtime() / 1000000};
    int rc = leadership_owner(c->leadership, owner, NULL);
    look->term = rc < 0 ? 0 : owner->term;
    if (rc == 0 && owner->term != 0) {
        rc = beat_read(c->fd, &c->sb.layout, &c->sb.pool_id, &beat, NULL);
        if (rc == 0 && beat.writer.run_or_term == owner->term)
            look->count = beat.count;
        else if (rc == 0 && beat.writer.run_or_term > owner->term)
            rc = -EAGAIN;
        else if (rc == LUNAR_E_NOT_FOUND || rc == LUNAR_E_CORRUPT || rc == LUNAR_E_FOREIGN)
            rc = 0;
    }
    look->readable = rc == 0;
    look->ended_ms = uv_hrtime() / 1000000;
}

void beat_watch_leader(struct coordinator *c)
{
    struct leadership_owner owner = {0};
    struct error err = ERROR_INIT;
    struct beat_look look;

    if (c->judge.io_timeout_s == 0)
        beat_judge_init(&c->judge, c->sb.io_timeout_s);
    look_at_leader(c, &owner, &look);
    if (beat_judge_step(&c->judge, &look) != BEAT_FORCE)
        return;
    log_error(
        "leader_silent term=%llu host_id=%u generation=%llu beat=%llu text=\"forcing it out\"",
        (unsigned long long)owner.term, owner.host_id, (unsigned long long)owner.generation,
        (unsigned long long)look.count);
    if (leadership_force(c->leadership, owner.term, &err) == 0)
        return;
    log_warn("force_failed term=%llu code=%s text=\"%s\"", (unsigned long long)owner.term,
             error_name(err.code), err.text);
    beat_judge_refused(&c->judge);
}
