/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The leader's events: requests and results come in, go to their operation, and time passes. See
 * leader.h.
 *
 * Happy path: leader_new -> leader_set_grants per node -> leader_start -> requests. Failure modes:
 * a commit whose outcome is unknown is judged by the fresh catalogue; a node that restarts is sent
 * its outstanding commands again; an answer for an operation that is no more is ignored.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "coordinator/leader_internal.h"

struct leader *leader_new(const struct leader_config *config)
{
    struct leader *l = calloc(1, sizeof *l);
    if (!l)
        abort();
    l->sb = config->superblock;
    timeouts_of_pool(l->sb->io_timeout_s, l->sb->watchdog_fire_timeout_s, &l->times);
    l->self = config->self;
    l->io = config->io;
    l->data = config->data;
    l->catalogue = config->catalogue;
    l->next_token = 1;
    l->merges = config->merges;
    l->relink_looks = LEADER_RELINK_LOOKS;
    l->merge_speed = (config->merge_speed ? config->merge_speed : LEADER_MERGE_SPEED) << 20;
    l->chain_max = CATALOGUE_LAYERS_MAX;
    if (config->chain_max > 0 && config->chain_max < CATALOGUE_LAYERS_MAX)
        l->chain_max = config->chain_max;
    l->trim_rest_ms = config->trim_rest_ms;
    l->nodes = calloc(l->sb->layout.max_nodes + 1, sizeof *l->nodes);
    if (!l->nodes)
        abort();
    TAILQ_INIT(&l->ops);
    TAILQ_INIT(&l->inspections);
    TAILQ_INIT(&l->growths);
    TAILQ_INIT(&l->groups);
    return l;
}

void leader_free(struct leader *leader)
{
    struct op *op, *next;
    for (op = TAILQ_FIRST(&leader->ops); op; op = next) {
        next = TAILQ_NEXT(op, link);
        free(op->dropped);
        free(op);
    }
    inspect_free_all(leader);
    grow_free_all(leader);
    group_free_all(leader);
    extend_free(leader);
    free(leader->idle);
    for (uint32_t h = 1; h <= leader->sb->layout.max_nodes; h++)
        if (leader->nodes[h].has_grants)
            table_free(&leader->nodes[h].grants);
    catalogue_free(leader->catalogue);
    free(leader->catalogue);
    free(leader->nodes);
    free(leader);
}

void leader_set_grants(struct leader *leader, uint32_t host_id, struct table *grants)
{
    struct node *n = &leader->nodes[host_id];
    assert(host_id >= 1 && host_id <= leader->sb->layout.max_nodes && !n->has_grants);
    n->grants = *grants;
    n->has_grants = true;
    if (grants->node_dead)
        n->over.generation = n->over.marked = grants->dead_generation;
}

/* A grant of a volume that is gone or being deleted (which began with none), a job's on one that is
 * made, or one that is left over: a report or a copy that could not be written, or was written
 * late, left it, and a takeover took it for what the node has. The node is asked to be rid of it,
 * and refuses while a consumer has it open. */
static bool is_orphan(struct leader *leader, const struct table_entry *e)
{
    const struct catalogue_volume *v = catalogue_by_id(leader->catalogue, &e->volume_id);
    bool wanted =
        v && !catalogue_volume_is_deleting(v) &&
        (e->mode == TABLE_MODE_ATTACH ? e->term != TABLE_TERM_LEFT_OVER
                                      : catalogue_volume_is_new(v) || v->overlay || v->expands_to);
    return !wanted && !op_by_volume(leader, &e->volume_id);
}

/* All orphans of one node: one that is refused must not hide the others. */
static void reconcile_node(struct leader *leader, uint32_t host)
{
    struct node *n = &leader->nodes[host];

    for (uint32_t i = 0; n->has_grants && i < n->grants.n_entries;) {
        uint32_t before = n->grants.n_entries;
        const struct table_entry *e = &n->grants.entries[i];
        bool taken = life_is_over(leader, host, e->generation); /* over.c is at it */
        if (leader->n_ops < LEADER_RECONCILE_OPS_MAX && !taken && is_orphan(leader, e))
            detach_resume(leader, host, &n->grants.entries[i]);
        i += n->grants.n_entries == before;
    }
}

/* Begins where the last round came to its bound, so that every node has its turn. */
static void reconcile_grants(struct leader *leader)
{
    uint32_t max = leader->sb->layout.max_nodes;

    for (uint32_t n = 0; n < max && leader->n_ops < LEADER_RECONCILE_OPS_MAX; n++) {
        leader->reconcile_at = leader->reconcile_at % max + 1;
        reconcile_node(leader, leader->reconcile_at);
    }
}

/* What is half-made or half-deleted and has no operation: begun again. */
static void reconcile(struct leader *leader)
{
    reconcile_grants(leader);
    for (uint32_t i = 0; i < leader->catalogue->n_volumes; i++) {
        const struct catalogue_volume *v = &leader->catalogue->volumes[i];
        if (op_by_volume(leader, &v->id))
            continue;
        if (catalogue_volume_is_deleting(v))
            delete_resume(leader, v);
        else if (catalogue_volume_is_new(v))
            create_resume(leader, v);
        else if (catalogue_volume_is_changing(v))
            change_resume(leader, v);
        else if (v->expands_to)
            expand_resume(leader, v);
    }
    group_tidy(leader);
    leader->garbage_waits = false;
    garbage_collect(leader);
    merge_layers(leader);
    relink_attached(leader);
}

void leader_start(struct leader *leader, uint64_t now_ms)
{
    leader->now_ms = now_ms;
    leader->reconciled_ms = now_ms;
    over_start(leader);
    reconcile(leader);
}

static void volume_get(struct leader *l, const struct waiter *w, const Lunar__VolumeGet *m)
{
    struct uuid id = uuid_from_pb(m->volume_id);
    const struct catalogue_volume *v =
        m->name[0] ? catalogue_by_name(l->catalogue, m->name) : catalogue_by_id(l->catalogue, &id);
    char text[VOLUME_NAME_MAX + 300], uuid[UUID_TEXT_SIZE];

    if (v) {
        reply_volume(l, w, v, "");
        return;
    }
    snprintf(text, sizeof text, "no volume '%s' in pool '%s'",
             m->name[0] ? m->name : uuid_format(&id, uuid), l->sb->pool_name);
    reply_error(l, w, LUNAR_E_NOT_FOUND, text);
}

static void volume_delete(struct leader *l, const struct waiter *w, const Lunar__VolumeDelete *m)
{
    struct uuid id = uuid_from_pb(m->volume_id);
    delete_request(l, w, &id);
}

/* Of snapshots and layers, and what nobody knows. */
static void layer_request(struct leader *leader, const struct waiter *from,
                          const Lunar__Request *request)
{
    switch (request->op_case) {
    case LUNAR__REQUEST__OP_SNAPSHOT_CREATE:
        snapshot_request(leader, from, request->snapshot_create);
        break;
    case LUNAR__REQUEST__OP_SNAPSHOT_GROUP:
        group_request(leader, from, request->snapshot_group);
        break;
    case LUNAR__REQUEST__OP_SNAPSHOT_DELETE:
        unsnap_request(leader, from, request->snapshot_delete);
        break;
    case LUNAR__REQUEST__OP_SNAPSHOT_LIST:
        reply_snapshots(leader, from, request->snapshot_list);
        break;
    case LUNAR__REQUEST__OP_VOLUME_ROLLBACK:
        rollback_request(leader, from, request->volume_rollback);
        break;
    case LUNAR__REQUEST__OP_VOLUME_EXPAND:
        expand_request(leader, from, request->volume_expand);
        break;
    case LUNAR__REQUEST__OP_VOLUME_TRIM:
        trim_request(leader, from, request->volume_trim);
        break;
    case LUNAR__REQUEST__OP_VOLUME_IMPORTED:
        imported_request(leader, from, request->volume_imported);
        break;
    case LUNAR__REQUEST__OP_TREE_GET:
        reply_tree(leader, from, request->tree_get);
        break;
    default:
        reply_error(leader, from, LUNAR_E_UNSUPPORTED,
                    "this coordinator does not know the request");
    }
}

void leader_request(struct leader *leader, const struct waiter *from, const Lunar__Request *request,
                    uint64_t now_ms)
{
    leader->now_ms = now_ms;
    if (request->op_case == LUNAR__REQUEST__OP_LAYER_GROW) { /* a writer may wait for it */
        grow_request(leader, from, request->layer_grow);
        return;
    }
    if (leader->n_ops >= LEADER_OPS_MAX) {
        reply_error(leader, from, LUNAR_E_BUSY, "the coordinator has too much to do; try again");
        return;
    }
    switch (request->op_case) {
    case LUNAR__REQUEST__OP_PING:
        reply_ping(leader, from, request->ping);
        break;
    case LUNAR__REQUEST__OP_STATUS_GET:
        reply_status(leader, from);
        break;
    case LUNAR__REQUEST__OP_NODE_LIST:
        reply_nodes(leader, from);
        break;
    case LUNAR__REQUEST__OP_VOLUME_LIST:
        reply_volumes(leader, from, request->volume_list);
        break;
    case LUNAR__REQUEST__OP_VOLUME_GET:
        volume_get(leader, from, request->volume_get);
        break;
    case LUNAR__REQUEST__OP_VOLUME_CREATE:
        create_request(leader, from, request->volume_create);
        break;
    case LUNAR__REQUEST__OP_VOLUME_ATTACH:
        attach_request(leader, from, request->volume_attach);
        break;
    case LUNAR__REQUEST__OP_VOLUME_DETACH:
        detach_request(leader, from, request->volume_detach);
        break;
    case LUNAR__REQUEST__OP_VOLUME_DELETE:
        volume_delete(leader, from, request->volume_delete);
        break;
    case LUNAR__REQUEST__OP_NODE_FENCE:
        fence_request(leader, from, request->node_fence);
        break;
    case LUNAR__REQUEST__OP_NODE_INSPECT:
        inspect_request(leader, from, request->node_inspect);
        break;
    case LUNAR__REQUEST__OP_POOL_SET:
        pool_set_request(leader, from, request->pool_set);
        break;
    case LUNAR__REQUEST__OP_POOL_EXTEND:
        extend_request(leader, from, request->pool_extend);
        break;
    default:
        layer_request(leader, from, request);
    }
}

static void step(struct leader *l, struct op *op, int rc, const struct error *err)
{
    static void (*const steps[OP_KINDS])(struct leader *, struct op *, int,
                                         const struct error *) = {
        [OP_CREATE] = create_step,     [OP_DELETE] = delete_step,     [OP_ATTACH] = attach_step,
        [OP_DETACH] = detach_step,     [OP_SNAPSHOT] = snapshot_step, [OP_ROLLBACK] = rollback_step,
        [OP_UNSNAP] = unsnap_step,     [OP_GARBAGE] = garbage_step,   [OP_EXPAND] = expand_step,
        [OP_IMPORTED] = imported_step, [OP_MERGE] = merge_step,       [OP_TRIM] = trim_step,
        [OP_RELINK] = relink_step,
    };
    steps[op->kind](l, op, rc, err);
}

void leader_result(struct leader *leader, uint32_t host_id, const Lunar__Result *result,
                   uint64_t now_ms)
{
    struct uuid id = uuid_from_pb(result->id);
    struct error err = ERROR_INIT;
    struct op *op;

    leader->now_ms = now_ms;
    if (inspect_result(leader, host_id, result) || extend_result(leader, host_id, result) ||
        pv_watch_result(leader, host_id, result))
        return;
    if (result->error && result->error->code < 0)
        error_set(&err, result->error->code, "%s", result->error->text);
    TAILQ_FOREACH (op, &leader->ops, link) {
        if (!op_is_at_node(op) || op->host_id != host_id || !uuid_equal(&op->command_id, &id))
            continue;
        snprintf(op->device, sizeof op->device, "%s", result->device);
        if (op->state == OP_STATE_SUSPEND)
            op->hold_id = uuid_from_pb(result->hold);
        op->end = result->end;
        step(leader, op, err.code, &err);
        return;
    }
    log_debug("result_ignored node=%u reason=\"no operation waits for it\"", host_id);
}

void leader_progress(struct leader *leader, uint32_t host_id, const Lunar__Progress *progress)
{
    struct uuid id = uuid_from_pb(progress->id);
    struct op *op;

    TAILQ_FOREACH (op, &leader->ops, link)
        if (op_is_at_node(op) && op->host_id == host_id && uuid_equal(&op->command_id, &id)) {
            op->total = progress->total;
            op->done = progress->done < progress->total ? progress->done : progress->total;
        }
}

static void send_again(struct leader *l, struct op *op)
{
    bool is_job = op->kind != OP_ATTACH && op->kind != OP_DETACH && op->state == OP_STATE_COMMAND;
    if (is_job)
        job_command(l, op);
    else
        op_send_command(l, op);
}

/* Commands that were out to a former life of the node are sent to the new one; those that waited
 * for a node try again. */
static void resume_ops(struct leader *l, uint32_t host_id)
{
    struct op *op, *next;
    for (op = TAILQ_FIRST(&l->ops); op; op = next) {
        next = TAILQ_NEXT(op, link);
        if (op_is_at_node(op) && op->host_id == host_id)
            send_again(l, op);
        else if (op->state == OP_STATE_WAIT_NODE)
            step(l, op, 0, NULL);
    }
}

void leader_node(struct leader *leader, uint32_t host_id, const struct channel_stats *stats,
                 uint64_t now_ms)
{
    assert(host_id >= 1 && host_id <= leader->sb->layout.max_nodes);
    struct node *n = &leader->nodes[host_id];
    bool changed = !n->seen || n->self.generation != stats->peer.generation ||
                   n->self.run_or_term != stats->peer.run_or_term;

    leader->now_ms = now_ms;
    if (changed)
        n->first_heard_ms = stats->last_heard_ms;
    n->seen = true;
    n->leaving = (stats->peer_flags & PAGE_FLAG_LEAVING) != 0;
    n->self = stats->peer;
    n->last_heard_ms = stats->last_heard_ms;
    /* A page has room for more than a message may name. */
    snprintf(n->name, MESSAGE_NAME_MAX + 1, "%s", stats->peer_name);
    if (changed) {
        inspect_node_changed(leader, host_id);
        extend_node_changed(leader, host_id);
        pv_watch_node(leader, host_id);
    }
    if (changed && !n->leaving)
        resume_ops(leader, host_id);
}

void leader_heard(struct leader *leader, uint32_t host_id, uint64_t heard_ms)
{
    if (leader->nodes[host_id].seen)
        leader->nodes[host_id].last_heard_ms = heard_ms;
}

static void note_host(struct leader *l, const struct host_status *host, uint64_t asked_ms)
{
    struct node *n = &l->nodes[host->host_id];
    bool moved = n->renewed_ms == 0 || host->generation != n->sanlock_generation ||
                 host->timestamp != n->timestamp || host->look == HOST_LOOK_MOVED;

    if (n->sanlock_state != host->state && n->sanlock_state != 0)
        log_info("host_state node=%u name=%s from=%s to=%s generation=%llu", host->host_id,
                 node_name(l, host->host_id), host_state_name(n->sanlock_state),
                 host_state_name(host->state), (unsigned long long)host->generation);
    n->sanlock_state = host->state;
    n->sanlock_generation = host->generation;
    n->timestamp = host->timestamp;
    if (moved)
        n->renewed_ms = l->now_ms;
    if (host->look == HOST_LOOK_UNMOVED)
        n->looked_ms = asked_ms; /* it may have renewed since, however late we are told */
}

void leader_hosts(struct leader *leader, const struct host_status *hosts, uint32_t n, bool awake,
                  uint64_t asked_ms, uint64_t now_ms)
{
    leader->now_ms = now_ms;
    for (uint32_t i = 0; i < n; i++) {
        if (hosts[i].host_id < 1 || hosts[i].host_id > leader->sb->layout.max_nodes)
            continue;
        note_host(leader, &hosts[i], asked_ms);
        over_judge(leader, &hosts[i], awake);
    }
}

static struct op *by_token(struct leader *l, uint64_t token)
{
    struct op *op;
    TAILQ_FOREACH (op, &l->ops, link)
        if (op->token == token)
            return op;
    return NULL;
}

void leader_catalogue(struct leader *leader, struct catalogue *fresh, uint64_t now_ms)
{
    leader->now_ms = now_ms;
    catalogue_free(leader->catalogue);
    free(leader->catalogue);
    leader->catalogue = fresh; /* what is half-made in it, reconcile takes up */
    grow_resume(leader);
    pool_watch(leader);
}

void leader_commit_done(struct leader *leader, uint64_t token, int rc, const struct error *err,
                        struct catalogue *fresh, uint64_t now_ms)
{
    struct op *op = by_token(leader, token);

    leader->now_ms = now_ms;
    leader_catalogue(leader, fresh, now_ms);
    if (!op) {
        (void)(grow_commit_done(leader, token, rc, err) ||
               pool_commit_done(leader, token, rc, err) ||
               group_commit_done(leader, token, rc, err) ||
               extend_commit_done(leader, token, rc, err));
        return;
    }
    op->token = 0;
    step(leader, op, rc, err);
    unsnap_wake(leader);
    garbage_collect(leader);
    merge_layers(leader);
}

void leader_grants_done(struct leader *leader, uint64_t token, int rc, const struct error *err,
                        uint64_t now_ms)
{
    struct op *op;

    leader->now_ms = now_ms;
    if (over_write_done(leader, token, rc))
        return;
    op = by_token(leader, token);
    assert(op && leader->nodes[op->host_id].grant_writes >
                     0); /* an op waits for its grant write, always */
    leader->nodes[op->host_id].grant_writes--;
    leader->nodes[op->host_id].grants_unsure = rc < 0;
    op->token = 0;
    if (rc == 0)
        over_marked(leader, op->host_id, op->mark);
    step(leader, op, rc, err);
}

/* A command that nobody answered: the client learns it, what stands on the LUN stands. */
static void expire(struct leader *l, struct op *op)
{
    if (op->group && !group_has_failed(op->group)) {
        group_fail(l, op, LUNAR_E_TIMEOUT, "a node did not answer in time");
        op->started_ms = l->now_ms;
        snapshot_leave_group(l, op);
        return;
    }
    if (op->group)
        group_give_up(l, op);
    op_fail(op, LUNAR_E_TIMEOUT,
            "node '%s' did not answer; what was granted stands, the same request again goes on",
            node_name(l, op->host_id));
    /* An overlay or a relink is asked for again at a reconciliation, a new size with the next
     * request or attach; meanwhile a detach may come in. */
    if (op->kind == OP_ATTACH || op->kind == OP_DETACH || op->state == OP_STATE_OVERLAY ||
        op->state == OP_STATE_RESIZE || op->state == OP_STATE_RELINK) {
        op_finish(l, op);
        return;
    }
    for (uint32_t i = 0; i < op->n_waiters; i++)
        reply_error(l, &op->waiters[i], op->error.code, op->error.text);
    op->n_waiters = 0;
    op->started_ms = l->now_ms;
    memset(&op->error, 0, sizeof op->error);
}

void leader_tick(struct leader *leader, uint64_t now_ms)
{
    struct op *op, *next;

    leader->now_ms = now_ms;
    over_tick(leader);
    inspect_tick(leader);
    grow_resume(leader);
    group_tick(leader);
    pool_watch(leader);
    extend_tick(leader);
    pv_watch_tick(leader);
    delete_wake(leader);
    trim_layers(leader);
    if (now_ms - leader->reconciled_ms >= LEADER_RECONCILE_MS) {
        leader->reconciled_ms = now_ms;
        reconcile(leader);
    }
    for (op = TAILQ_FIRST(&leader->ops); op; op = next) {
        next = TAILQ_NEXT(op, link);
        bool waits = op_is_at_node(op) || op->state == OP_STATE_WAIT_NODE ||
                     op->state == OP_STATE_WAIT_SOURCE;
        if (op->state == OP_STATE_WAIT_SOURCE && op->error.code != 0) {
            op_finish(leader, op);
        } else if (waits && now_ms - op->started_ms > LEADER_OP_DEADLINE_MS) {
            expire(leader, op);
        } else if (op->state == OP_STATE_WAIT_NODE) {
            step(leader, op, 0, NULL);
        } else if (op_is_at_node(op) && op->resend) {
            op->resend = false;
            send_again(leader, op);
        }
    }
}

const struct table *leader_grants(const struct leader *leader, uint32_t host_id)
{
    const struct node *n = &leader->nodes[host_id];
    return n->has_grants ? &n->grants : NULL;
}

bool leader_grants_settled(const struct leader *leader, uint32_t host_id)
{
    return leader->nodes[host_id].grant_writes == 0;
}
