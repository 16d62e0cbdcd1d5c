/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The leader's outside: commits in the LVM thread, grant writes in their own, messages through the
 * hub, answers to nodes or to local clients. See leader.h for what each must promise.
 *
 * Failure modes: a commit that says STALE, a hub that meets a higher term, a grant table of a
 * higher term: deposed, the process ends. A catalogue that cannot be read after a commit, or whose
 * copy cannot be stored, is tried again; then the process ends too, for it would act blindly.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "coordinator/coordinator_internal.h"

struct commit_job {
    struct worker_job job;
    struct coordinator *c;
    uint64_t token;
    struct catalogue_args args;
    uint64_t basis, fresh_basis; /* of the catalogue that it was decided on; of `fresh` */
    int rc;
    struct error err, fresh_err;
    struct catalogue *fresh;
};

struct grants_job {
    struct worker_job job;
    struct coordinator *c;
    uint64_t token;
    struct table table;
    int rc;
    struct error err;
};

static void commit_run(struct worker_job *job)
{
    struct commit_job *j = job->data;
    struct coordinator *c = j->c;
    const struct takeover *t = &c->takeover;

    if (j->args.argv[0])
        j->rc = committer_run(t->committer, j->args.argv, j->basis, &j->err);
    if (j->rc != LUNAR_E_STALE)
        j->fresh = truth_read(t->lvm, t->committer, &j->fresh_err);
    j->fresh_basis = committer_basis(t->committer);
}

static void commit_done(struct worker_job *job)
{
    struct commit_job *j = job->data;
    struct coordinator *c = j->c;

    if (j->rc == LUNAR_E_STALE)
        coordinator_die("deposed before a commit", j->err.text);
    if (!j->fresh)
        coordinator_die("the catalogue cannot be read", j->fresh_err.text);
    if (j->rc < 0)
        log_error("commit_failed code=%s text=\"%s\"", error_name(j->rc), j->err.text);
    c->catalogue_basis = j->fresh_basis;
    leader_commit_done(c->leader, j->token, j->rc, &j->err, j->fresh, coordinator_now_ms(c));
    free(j);
}

/* The argv of a catalogue_args points into its own text: a copy's must point into the copy's. */
static void args_copy(struct catalogue_args *to, const struct catalogue_args *from)
{
    *to = *from;
    for (size_t i = 0; i < sizeof to->argv / sizeof *to->argv && to->argv[i]; i++)
        if (from->argv[i] >= from->text && from->argv[i] < from->text + sizeof from->text)
            to->argv[i] = to->text + (from->argv[i] - from->text);
}

static void io_commit(void *data, uint64_t token, const struct catalogue_args *args)
{
    struct coordinator *c = data;
    struct commit_job *j = calloc(1, sizeof *j);
    if (!j)
        abort();
    j->job = (struct worker_job){.run = commit_run, .done = commit_done, .data = j};
    j->c = c;
    j->token = token;
    j->basis = c->catalogue_basis;
    args_copy(&j->args, args);
    worker_submit(c->lvm_worker, &j->job);
}

static void grants_run(struct worker_job *job)
{
    struct grants_job *j = job->data;
    for (int copy = 0; copy < 2 && j->rc == 0; copy++) {
        effect_point("grants");
        j->rc = table_write(j->c->fd, &j->c->sb.layout, &j->table, copy, &j->err);
    }
    effect_point("grants-written");
}

static void grants_done(struct worker_job *job)
{
    struct grants_job *j = job->data;
    if (j->rc < 0)
        log_error("grants_write_failed host=%u code=%s text=\"%s\"", j->table.slot,
                  error_name(j->rc), j->err.text);
    leader_grants_done(j->c->leader, j->token, j->rc, &j->err, coordinator_now_ms(j->c));
    table_free(&j->table);
    free(j);
}

static void io_write_grants(void *data, uint64_t token, const struct table *table)
{
    struct coordinator *c = data;
    struct grants_job *j = calloc(1, sizeof *j);
    if (!j)
        abort();
    j->job = (struct worker_job){.run = grants_run, .done = grants_done, .data = j};
    j->c = c;
    j->token = token;
    table_copy(&j->table, table);
    worker_submit(c->grants_worker, &j->job);
}

static int io_send(void *data, uint32_t host_id, const uint8_t *bytes, uint32_t len)
{
    struct coordinator *c = data;
    effect_point("command");
    return hub_send(c->hub, host_id, bytes, len);
}

static void io_respond(void *data, const struct waiter *to, const uint8_t *bytes, uint32_t len)
{
    struct coordinator *c = data;
    effect_point("respond");
    if (to->host_id == 0)
        local_send(c->local, to->client, bytes, len);
    else if (hub_send(c->hub, to->host_id, bytes, len) < 0)
        log_warn("response_not_sent node=%u reason=\"its queue is full or it is gone\"",
                 to->host_id);
}

static uint64_t io_wall_s(void *data)
{
    (void)data;
    return (uint64_t)time(NULL);
}

static void io_declare_dead(void *data, uint32_t host_id, uint64_t generation)
{
    struct coordinator *c = data;
    hub_set_dead(c->hub, host_id, generation);
}

static const struct leader_io leader_io = {
    .commit = io_commit,
    .write_grants = io_write_grants,
    .send = io_send,
    .respond = io_respond,
    .declare_dead = io_declare_dead,
    .wall_s = io_wall_s,
};

static void on_message(void *data, uint32_t host_id, const uint8_t *bytes, uint32_t len)
{
    struct coordinator *c = data;
    struct error err = ERROR_INIT;
    Lunar__Envelope *e;

    if (c->state != COORDINATOR_STATE_LEADING)
        return; /* resigning: the next leader is sent it again */
    if (envelope_unpack(bytes, len, &e, &err) < 0) {
        log_warn("message_refused node=%u text=\"%s\"", host_id, err.text);
        return;
    }
    if (e->body_case == LUNAR__ENVELOPE__BODY_REQUEST) {
        struct waiter w = {.host_id = host_id, .request_id = uuid_from_pb(e->request->id)};
        leader_request(c->leader, &w, e->request, coordinator_now_ms(c));
    } else if (e->body_case == LUNAR__ENVELOPE__BODY_RESULT) {
        leader_result(c->leader, host_id, e->result, coordinator_now_ms(c));
    } else if (e->body_case == LUNAR__ENVELOPE__BODY_PROGRESS) {
        leader_progress(c->leader, host_id, e->progress);
    } else {
        log_warn("message_refused node=%u text=\"not a request nor a result\"", host_id);
    }
    envelope_free(e);
}

static void on_node(void *data, uint32_t host_id, const struct channel_stats *stats)
{
    struct coordinator *c = data;
    log_info("node_changed node=%u name=%s generation=%llu run=%llu flags=%u", host_id,
             stats->peer_name, (unsigned long long)stats->peer.generation,
             (unsigned long long)stats->peer.run_or_term, stats->peer_flags);
    leader_node(c->leader, host_id, stats, coordinator_now_ms(c));
}

static void on_deposed(void *data, uint64_t term)
{
    char text[64];
    (void)data;
    snprintf(text, sizeof text, "term %llu is on the LUN", (unsigned long long)term);
    coordinator_die("deposed", text);
}

static void on_wrote(void *data, uint32_t host_id)
{
    struct coordinator *c = data;
    hint_send(c->hint, &hub_stats(c->hub, host_id)->peer_hint, host_id);
}

static void on_hint(void *data, uint32_t host_id)
{
    struct coordinator *c = data;
    hub_hint(c->hub, host_id);
}

static void open_hub(struct coordinator *c)
{
    const struct hint_config hint = {
        .loop = c->loop,
        .pool_id = c->sb.pool_id,
        .slot_min = 1,
        .slot_max = c->sb.layout.max_nodes,
        .looked = on_hint,
        .data = c,
    };
    c->hint = hint_start(&c->hint_option, &hint);
    const struct hub_config hub = {
        .loop = c->loop,
        .disk = uv_disk_disk(c->disk),
        .layout = &c->sb.layout,
        .pool_id = c->sb.pool_id,
        .self = c->self,
        .hint = hint_address(c->hint),
        .trace = c->trace,
        .callbacks = {.message = on_message,
                      .node_changed = on_node,
                      .deposed = on_deposed,
                      .wrote = on_wrote},
        .data = c,
    };
    c->hub = hub_open(&hub);
}

void leader_uv_request(struct coordinator *c, uint64_t client, const Lunar__Request *request)
{
    struct waiter w = {.client = client, .request_id = uuid_from_pb(request->id)};
    leader_request(c->leader, &w, request, coordinator_now_ms(c));
}

static void on_preempt(void *data, uint32_t host_id, uint64_t generation)
{
    preempt_start(data, host_id, generation);
}

/* A number from 1 to `max` of the environment; 0, which means the default: it is missing, or
 * something else. */
static uint64_t setting(const char *name, uint64_t max)
{
    const char *text = getenv(name);
    char *end = NULL;
    uint64_t value = text && *text >= '0' && *text <= '9' ? strtoull(text, &end, 10) : 0;
    bool good = end && *end == 0 && value >= 1 && value <= max;

    if (text && !good)
        log_warn("setting_ignored name=%s value=\"%s\"", name, text);
    return good ? value : 0;
}

int leader_uv_open(struct coordinator *c, struct error *err)
{
    c->io = leader_io;
    c->io.preempt = preempt_is_used(c) ? on_preempt : NULL;
    const char *merges = getenv("LUNAR_MERGE");
    const char *rest = getenv("LUNAR_TRIM"); /* seconds; 0: only when asked to */
    uint64_t rest_ms = rest ? strtoull(rest, NULL, 10) * 1000 : LEADER_TRIM_REST_MS;
    struct leader_config config = {
        .superblock = &c->sb,
        .trim_rest_ms = rest_ms,
        .merges = !merges || strcmp(merges, "0") != 0,
        .merge_speed = setting("LUNAR_MERGE_SPEED", LEADER_MERGE_SPEED_MAX),
        .chain_max = (uint32_t)setting("LUNAR_CHAIN_MAX", CATALOGUE_LAYERS_MAX),
        .self = c->self,
        .io = &c->io,
        .data = c,
        .catalogue = c->takeover.catalogue};
    int rc = uv_disk_open(c->loop, c->device, 4, &c->disk, err);
    if (rc < 0)
        return rc;
    for (uint32_t i = 0; i < c->takeover.catalogue->n_foreign; i++)
        log_warn("lv_left_alone lv=\"%s\"", c->takeover.catalogue->foreign[i]);
    c->leader = leader_new(&config);
    for (uint32_t h = 1; h <= c->takeover.n; h++) {
        if (c->takeover.grants[h])
            leader_set_grants(c->leader, h, c->takeover.grants[h]);
        free(c->takeover.grants[h]); /* the table inside is the leader's now */
    }
    free(c->takeover.grants);
    c->takeover.grants = NULL;
    c->takeover.catalogue = NULL;
    c->catalogue_basis = committer_basis(c->takeover.committer);
    open_hub(c); /* before the first that is declared dead */
    if (c->takeover.n_hosts > 0)
        proof_judge(c, c->takeover.hosts, c->takeover.n_hosts, 0); /* nobody knows since when */
    free(c->takeover.hosts);
    c->takeover.hosts = NULL;
    leader_start(c->leader, coordinator_now_ms(c));
    return 0;
}

/* --- the metadata on the LUN, while nothing is committed (SAFETY 4) --- */

static void tend_run(struct worker_job *job)
{
    struct coordinator *c = job->data;
    memset(&c->tend_err, 0, sizeof c->tend_err);
    struct committer *committer = c->takeover.committer;
    c->tend_rc = committer_tend(committer, &c->tend_err);
    /* A commit that was taken for failed has landed: the leader is shown what it made. */
    if (c->tend_rc == 0 && committer_basis(committer) != c->tend_basis)
        c->tend_fresh = truth_read(c->takeover.lvm, committer, &c->tend_err);
    c->tend_basis = committer_basis(committer);
}

static void tend_done(struct worker_job *job)
{
    struct coordinator *c = job->data;
    if (c->tend_rc == LUNAR_E_STALE)
        coordinator_die("deposed", c->tend_err.text);
    if (c->tend_rc < 0)
        log_warn("metadata_unsettled code=%s text=\"%s\"", error_name(c->tend_rc),
                 c->tend_err.text);
    if (c->tend_fresh) {
        c->catalogue_basis = c->tend_basis;
        leader_catalogue(c->leader, c->tend_fresh, coordinator_now_ms(c));
        c->tend_fresh = NULL;
    }
    c->tend_busy = false;
}

/* In the LVM thread, so that it never meets a commit. */
void leader_uv_tend(struct coordinator *c)
{
    if (c->tend_busy || coordinator_now_ms(c) - c->tended_ms < COORDINATOR_TEND_MS)
        return;
    c->tended_ms = coordinator_now_ms(c);
    c->tend_busy = true;
    c->tend_basis = c->catalogue_basis;
    c->tend_job = (struct worker_job){.run = tend_run, .done = tend_done, .data = c};
    worker_submit(c->lvm_worker, &c->tend_job);
}
