/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a coordinator process: candidate, takeover, leader, resignation. Whoever has set it
 * up (coordinator.c, or the simulator) calls coordinator_begin.
 *
 * Happy path: the lease thread tries every COORDINATOR_TRY_MS; on success the LVM thread takes over
 * (takeover.c); then the leader answers, and each heartbeat checks the lease on the LUN, writes the
 * beat (beat.c), asks sanlock for the hosts' states and re-checks some grants. Failure modes:  the
 * lease or the sanlock daemon is lost: the process ends at once, children that could write the LUN
 * die with it or keep the lease until they have died (SAFETY 1). The takeover fails: the process
 * ends, which frees the lease, and its supervisor makes it a candidate again. Told to go (SIGTERM,
 * resign): no new requests, a running commit ends, the lease is released, exit.
 */
#include <stdlib.h>
#include <string.h>

#include "base/hangup.h"
#include "base/log.h"
#include "coordinator/coordinator_internal.h"
#include "diskrpc/rpc_view.h"

uint64_t coordinator_now_ms(const struct coordinator *c)
{
    return uv_now(c->loop);
}

/* --- taking over --- */

static void takeover_job_run(struct worker_job *job)
{
    struct coordinator *c = job->data;
    c->takeover_rc = takeover_run(c, &c->takeover, &c->takeover_err);
}

static void on_lease_socket(uv_poll_t *poll, int status, int events)
{
    (void)poll;
    (void)status;
    (void)events;
    coordinator_die("the sanlock daemon is gone", "its socket hung up");
}

static void takeover_job_done(struct worker_job *job)
{
    struct coordinator *c = job->data;
    struct error err = ERROR_INIT;

    if (c->state == COORDINATOR_STATE_RESIGNING)
        return; /* the resign timer ends us */
    if (c->takeover_rc < 0 || leader_uv_open(c, &err) < 0)
        coordinator_die("the takeover failed",
                        c->takeover_rc < 0 ? c->takeover_err.text : err.text);
    c->state = COORDINATOR_STATE_LEADING;
    log_info("leading term=%llu host_id=%u generation=%llu vg_seqno=%llu",
             (unsigned long long)c->self.run_or_term, c->self.host_id,
             (unsigned long long)c->self.generation,
             (unsigned long long)committer_seqno(c->takeover.committer));
}

static void start_takeover(struct coordinator *c)
{
    c->state = COORDINATOR_STATE_TAKEOVER;
    c->takeover_awake_in_ms = awake_in_ms(&c->awake, &c->times, coordinator_now_ms(c));
    log_info("elected term=%llu host_id=%u", (unsigned long long)c->self.run_or_term,
             c->self.host_id);
    int hangup = hangup_fd(leadership_fd(c->leadership));
    if (hangup < 0 || uv_poll_init(c->loop, &c->lease_poll, hangup) != 0)
        coordinator_die("out of descriptors", "the sanlock socket cannot be watched");
    c->lease_poll.data = c;
    uv_poll_start(&c->lease_poll, UV_READABLE, on_lease_socket);
    c->takeover_job =
        (struct worker_job){.run = takeover_job_run, .done = takeover_job_done, .data = c};
    worker_submit(c->lvm_worker, &c->takeover_job);
}

/* --- the lease thread's job: one attempt, or one check --- */

static int try_once(struct coordinator *c, struct error *err)
{
    if (!c->leadership) {
        int rc = leadership_open(c->device, &c->sb, &c->leadership, err);
        if (rc < 0)
            return rc;
    }
    /* An acquire overwrites who had it. One that is not told in time is the one before. */
    if (preempt_is_used(c))
        leadership_owner(c->leadership, &c->former, NULL);
    int rc = leadership_try(c->leadership, &c->lease_self.run_or_term, err);
    if (rc == 0)
        beat_watch_leader(c);
    if (rc != 1)
        return rc;
    rc = membership_find(&c->sb.pool_id, &c->lease_self.host_id, &c->lease_self.generation, err);
    if (rc < 0)
        return rc;
    beat_write_next(
        c, BEAT_PHASE_TAKEOVER); /* at once: standbys have been counting since the acquire */
    return 1;
}

static void lease_run(struct worker_job *job)
{
    struct coordinator *c = job->data;
    memset(&c->lease_err, 0, sizeof c->lease_err);
    if (c->lease_trying) {
        c->lease_rc = try_once(c, &c->lease_err);
        return;
    }
    c->lease_rc = leadership_check(c->leadership, c->self.run_or_term, &c->lease_err);
    if (c->lease_rc == 0 && c->lease_beats)
        beat_write_next(c, c->lease_phase);
    if (c->lease_rc == 0)
        c->n_hosts = proof_hosts(c, &c->hosts, &c->lease_err);
    if (c->lease_rc == 0 && c->n_hosts > 0)
        proof_list_still(c, c->hosts, c->n_hosts);
}

static void lease_done(struct worker_job *job)
{
    struct coordinator *c = job->data;

    c->lease_busy = false;
    if (c->state == COORDINATOR_STATE_CANDIDATE && c->lease_rc == 1) {
        c->self = c->lease_self;
        start_takeover(c);
    } else if (c->state == COORDINATOR_STATE_CANDIDATE && c->lease_rc < 0) {
        log_warn("lease_attempt_failed code=%s text=\"%s\"", error_name(c->lease_rc),
                 c->lease_err.text);
        if (c->leadership)
            leadership_close(
                c->leadership); /* a fresh socket next time: the daemon may have been restarted */
        c->leadership = NULL;
    } else if (c->state != COORDINATOR_STATE_CANDIDATE && c->lease_rc == LUNAR_E_STALE) {
        coordinator_die("the lease is somebody else's", c->lease_err.text);
    } else if (c->state == COORDINATOR_STATE_LEADING && c->lease_rc < 0) {
        /* The LUN did not tell; sanlock decides how long that may last. Every commit looks again.
         */
        log_warn("lease_check_failed code=%s text=\"%s\"", error_name(c->lease_rc),
                 c->lease_err.text);
    } else if (c->state == COORDINATOR_STATE_LEADING && c->lease_rc == 0 && c->n_hosts > 0) {
        proof_judge(c, c->hosts, c->n_hosts, c->lease_asked_ms);
    }
    free(c->hosts);
    c->hosts = NULL;
    c->n_hosts = 0;
}

static enum beat_phase phase_of(const struct coordinator *c)
{
    return c->state == COORDINATOR_STATE_LEADING     ? BEAT_PHASE_LEADING
           : c->state == COORDINATOR_STATE_RESIGNING ? BEAT_PHASE_RESIGNING
                                                     : BEAT_PHASE_TAKEOVER;
}

static void submit_lease_job(struct coordinator *c)
{
    if (c->lease_busy)
        return;
    c->lease_busy = true;
    c->lease_asked_ms = coordinator_now_ms(c);
    c->lease_trying = c->state == COORDINATOR_STATE_CANDIDATE;
    c->lease_beats = !c->lease_trying && beat_is_due(c);
    c->lease_phase = phase_of(c);
    c->lease_job = (struct worker_job){.run = lease_run, .done = lease_done, .data = c};
    worker_submit(c->lease_worker, &c->lease_job);
}

static void on_timer(uv_timer_t *timer)
{
    struct coordinator *c = timer->data;
    uint64_t period =
        c->state == COORDINATOR_STATE_CANDIDATE ? COORDINATOR_TRY_MS : COORDINATOR_HEARTBEAT_MS;

    awake_look(&c->awake, &c->times, coordinator_now_ms(c));
    if (uv_timer_get_repeat(timer) != period) {
        uv_timer_set_repeat(timer, period);
        uv_timer_again(timer);
    }
    if (c->state == COORDINATOR_STATE_RESIGNING && c->self.run_or_term == 0)
        return; /* it never led */
    submit_lease_job(c);
    if (c->state != COORDINATOR_STATE_LEADING)
        return;
    for (uint32_t h = 1; h <= c->sb.layout.max_nodes; h++) {
        const struct channel_stats *stats = hub_stats(c->hub, h);
        if (stats)
            leader_heard(c->leader, h, stats->last_heard_ms);
    }
    leader_tick(c->leader, coordinator_now_ms(c));
    if (!c->recheck_busy)
        recheck_start(c);
    leader_uv_tend(c);
}

/* --- resigning --- */

#define RESIGN_LOOK_MS 50 /* how often a resigning leader looks whether its threads are done */

static void on_resign_timer(uv_timer_t *timer)
{
    struct coordinator *c = timer->data;

    c->resign_waited_ms += RESIGN_LOOK_MS;
    bool quiet = worker_is_idle(c->lvm_worker) && worker_is_idle(c->grants_worker);
    if (!quiet && c->resign_waited_ms < COORDINATOR_RESIGN_MS)
        return;
    log_info("resigned term=%llu quiet=%d", (unsigned long long)c->self.run_or_term, quiet);
    coordinator_exit(); /* sanlock frees the lease, after any child that could still write */
}

void coordinator_resign(struct coordinator *c)
{
    if (c->state == COORDINATOR_STATE_RESIGNING)
        return;
    c->state = COORDINATOR_STATE_RESIGNING;
    uv_timer_start(&c->resign_timer, on_resign_timer, RESIGN_LOOK_MS, RESIGN_LOOK_MS);
}

/* --- local clients --- */

/* "I go": before the socket closes with the process. */
static void answer_resign(struct coordinator *c, uint64_t client)
{
    Lunar__Envelope e = LUNAR__ENVELOPE__INIT;
    Lunar__Response response = LUNAR__RESPONSE__INIT;
    struct uuid zero = {{0}}; /* local requests carry no id */
    uint8_t *bytes;
    uint32_t len;

    response.id = uuid_to_pb(&zero);
    e.body_case = LUNAR__ENVELOPE__BODY_RESPONSE;
    e.response = &response;
    if (envelope_pack(&e, &bytes, &len, NULL) < 0)
        return;
    local_send(c->local, client, bytes, len);
    free(bytes);
}

static void on_local_message(void *data, uint64_t client, const Lunar__Envelope *e,
                             const uint8_t *bytes, uint32_t len)
{
    struct coordinator *c = data;
    bool is_resign = e->body_case == LUNAR__ENVELOPE__BODY_LOCAL_REQUEST &&
                     e->local_request->op_case == LUNAR__LOCAL_REQUEST__OP_RESIGN;
    if (is_resign) {
        answer_resign(c, client);
        coordinator_resign(c);
    } else if (rpc_view_wants(e)) {
        coordinator_rpc_answer(c, client, e->local_request);
    } else if (c->state == COORDINATOR_STATE_LEADING &&
               e->body_case == LUNAR__ENVELOPE__BODY_REQUEST) {
        leader_uv_request(c, client, e->request);
    } else {
        relay_message(c, client, bytes, len);
    }
}

static void on_local_gone(void *data, uint64_t client)
{
    relay_gone(data, client);
}

const struct local_callbacks coordinator_local_callbacks = {.message = on_local_message,
                                                            .gone = on_local_gone};

void coordinator_begin(struct coordinator *c)
{
    c->lease_worker = worker_open(c->loop, "lease");
    c->lvm_worker = worker_open(c->loop, "lvm");
    c->grants_worker = worker_open(c->loop, "grants");
    proof_open(c);
    uv_timer_init(c->loop, &c->timer);
    uv_timer_init(c->loop, &c->resign_timer);
    c->timer.data = c->resign_timer.data = c;
    uv_timer_start(&c->timer, on_timer, 0, COORDINATOR_TRY_MS);
}
