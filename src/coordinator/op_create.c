/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Creating a volume: one LVM commit makes the layer, tagged new; a live node formats it under a job
 * grant (SAFETY 17, 18); a second commit drops the tag, and only then may it be attached.
 *
 * Failure modes: killed after any step, the next leader sees a layer tagged new and goes on from
 * the node's step with the same job if a job grant stands (formatting twice is harmless), so the
 * client's repeated request finds it. The node refuses or fails: the layer is removed again and the
 * client told why. The node does not answer: the job grant stands, the client gets a time-out, the
 * volume shows as "creating" and goes on when the node is back. A volume of that name exists: the
 * same parameters are success (idempotent), others are EXISTS.
 */
#include <stdio.h>
#include <string.h>

#include "coordinator/leader_internal.h"

static void start_job(struct leader *l, struct op *op);
static void new_job(struct leader *l, struct op *op);

static void join_or_refuse(struct leader *l, const struct waiter *w, uint64_t size, bool thick,
                           const char *name, uint64_t want_size, bool want_thick)
{
    char text[VOLUME_NAME_MAX + 128];
    (void)l;
    snprintf(text, sizeof text, "a volume '%s' exists with %s; choose another name", name,
             size != want_size     ? "another size"
             : thick != want_thick ? "another kind"
                                   : "this name");
    reply_error(l, w, LUNAR_E_EXISTS, text);
}

static void existing(struct leader *l, const struct waiter *w, const struct catalogue_volume *v,
                     const Lunar__VolumeCreate *m)
{
    struct op *op = op_by_volume(l, &v->id);

    if (v->size != m->size || v->thick != m->thick)
        join_or_refuse(l, w, v->size, v->thick, m->name, m->size, m->thick);
    else if (catalogue_volume_is_deleting(v) || (op && op->kind == OP_DELETE))
        reply_error(l, w, LUNAR_E_BUSY, "a volume of this name is being deleted; try again");
    else if (op && op->kind == OP_CREATE)
        op_add_waiter(l, op, w);
    else if (catalogue_volume_is_new(v) && op) /* its job is being taken back: one at a time */
        reply_busy(l, w, op);
    else if (catalogue_volume_is_new(v)) /* an earlier attempt failed half-way: it is made now */
        op_add_waiter(l, create_resume(l, v), w);
    else
        reply_volume(l, w, v, "");
}

void create_request(struct leader *l, const struct waiter *w, const Lunar__VolumeCreate *m)
{
    struct error err = ERROR_INIT;
    struct catalogue_args args;

    if (volume_name_check(m->name, &err) < 0 || volume_size_check(m->size, &err) < 0) {
        reply_error(l, w, err.code, err.text);
        return;
    }
    struct catalogue_volume *v = catalogue_by_name(l->catalogue, m->name);
    if (v) {
        existing(l, w, v, m);
        return;
    }
    struct op *op = op_by_name(l, m->name);
    if (op && (op->size != m->size || op->thick != m->thick)) {
        join_or_refuse(l, w, op->size, op->thick, m->name, m->size, m->thick);
        return;
    }
    if (op) {
        op_add_waiter(l, op, w);
        return;
    }
    if (pool_check_overcommit(l, m->size, &err) < 0) {
        reply_error(l, w, err.code, err.text);
        return;
    }
    struct uuid id = uuid_random();
    op = op_new(l, OP_CREATE, &id);
    op->request_id = w->request_id;
    op->prefers_host = w->host_id;
    op->size = m->size;
    op->thick = m->thick;
    strcpy(op->name, m->name); /* its length was checked */
    op_add_waiter(l, op, w);
    char vg[POOL_NAME_SIZE + 6];
    pool_vg_name(l->sb->pool_name, vg);
    const struct catalogue_leaf leaf = {.volume_id = &op->volume_id,
                                        .name = op->name,
                                        .size = op->size,
                                        .thick = op->thick,
                                        .request_id = &op->request_id};
    catalogue_create_args(vg, &leaf, l->catalogue->extent_size, &args);
    op_commit(l, op, OP_STATE_COMMIT_CREATE, &args);
}

/* After a takeover: a layer that is still new, whoever asked for it. */
struct op *create_resume(struct leader *l, const struct catalogue_volume *v)
{
    struct op *op = op_new(l, OP_CREATE, &v->id);
    op->request_id = v->request_id;
    op->size = v->size;
    op->thick = v->thick;
    strcpy(op->name, v->name);
    op_move(op, OP_STATE_WAIT_NODE);
    start_job(l, op);
    return op;
}

static uint32_t pick_node(const struct leader *l, const struct op *op)
{
    uint32_t perhaps = 0;
    if (op->prefers_host && op->prefers_host != op->refused_by && node_usable(l, op->prefers_host))
        return op->prefers_host;
    for (uint32_t h = 1; h <= l->sb->layout.max_nodes; h++) {
        if (!node_usable(l, h) || h == op->refused_by)
            continue;
        if (node_moves(&l->nodes[h]))
            return h;
        perhaps = h;
    }
    bool again = perhaps == 0 && op->refused_by && node_usable(l, op->refused_by);
    return again ? op->refused_by : perhaps;
}

/* In WAIT_NODE: a standing job grant decides where; otherwise any usable node. Called again at
 * every node event and tick. */
static void start_job(struct leader *l, struct op *op)
{
    struct table_entry *job = grant_find(l, &op->volume_id, &op->host_id);

    if (!job) {
        new_job(l, op);
        return;
    }
    op->attachment_id = job->attachment_id;
    op->command_id = uuid_random();
    create_command(l, op);
}

static void new_job(struct leader *l, struct op *op)
{
    const struct catalogue_volume *v = catalogue_by_id(l->catalogue, &op->volume_id);

    op->host_id = pick_node(l, op);
    if (op->host_id == 0)
        return;
    op->command_id = uuid_random();
    op->attachment_id = uuid_random();
    if (v && grant_add(l, op, TABLE_MODE_JOB, v))
        op_write_grants(l, op, OP_STATE_GRANT);
    else
        op->host_id = 0; /* that node's table is full: another try at the next node event */
}

/* (Again) the job's command. A node that has rebooted since gets a grant of its new life: the old
 * one gives it nothing, and whatever the old life was doing ended with it. */
void create_command(struct leader *l, struct op *op)
{
    const struct node *n = &l->nodes[op->host_id];
    const struct catalogue_volume *v = catalogue_by_id(l->catalogue, &op->volume_id);
    struct table_entry *job =
        table_find_attachment(&l->nodes[op->host_id].grants, &op->attachment_id);

    if (op_life_is_over(l, op)) {
        op_life_ended(l, op);
        return;
    }
    if (n->grants_unsure) { /* SAFETY 3: both copies before the command */
        op_write_grants(l, op, OP_STATE_GRANT);
        return;
    }
    if (!n->seen || !v || job->generation == n->self.generation) {
        op_send_command(l, op);
        return;
    }
    grant_drop(l, op);
    op->attachment_id = uuid_random();
    op->command_id = uuid_random();
    if (grant_add(l, op, TABLE_MODE_JOB, v)) {
        op_write_grants(l, op, OP_STATE_GRANT);
        return;
    }
    op->attachment_id = op->dropped->attachment_id;
    grant_restore(l, op);
    op->resend = true; /* its table is full: another try at the next tick */
}

static void after_create(struct leader *l, struct op *op, int rc, const struct error *err)
{
    if (catalogue_by_id(l->catalogue, &op->volume_id)) {
        op_move(op, OP_STATE_WAIT_NODE);
        start_job(l, op);
        return;
    }
    op_fail(op, rc < 0 ? rc : LUNAR_E_INDETERMINATE, "%s",
            rc < 0 ? err->text : "the new layer is not in the metadata");
    op_finish(l, op);
}

static void after_job(struct leader *l, struct op *op, int rc, const struct error *err)
{
    if (rc == LUNAR_E_INDETERMINATE || rc == LUNAR_E_STALE || rc == LUNAR_E_BUSY) {
        /* The node may be at it still, or did not believe us yet: the job stands and is asked for
         * again. */
        op->command_id = uuid_random();
        op->resend = true;
        return;
    }
    /* It is leaving, or has no room in its report: it does nothing for us. */
    op->elsewhere = rc == LUNAR_E_NOT_JOINED || rc == LUNAR_E_FULL;
    if (rc < 0 && !op->elsewhere)
        op_fail(op, rc, "node %s could not format the volume: %s", node_name(l, op->host_id),
                err->text);
    grant_drop(l, op);
    op_write_grants(l, op, OP_STATE_UNGRANT);
}

static void after_ungrant(struct leader *l, struct op *op, int rc, const struct error *err)
{
    const struct catalogue_volume *v = catalogue_by_id(l->catalogue, &op->volume_id);
    struct catalogue_args args;
    char vg[POOL_NAME_SIZE + 6];
    uint32_t host;

    if (rc < 0) {
        grant_restore(l, op);
        op_fail(op, rc, "the job's grant could not be erased: %s", err->text);
    }
    if (rc < 0 || !v) {
        op_finish(l, op);
        return;
    }
    if (op->elsewhere) {
        bool first = op->refused_by == 0;
        op->refused_by = op->host_id;
        op->elsewhere = false;
        op->host_id = 0;
        op_move(op, OP_STATE_WAIT_NODE);
        /* After a second refusal at the next tick, not in a circle of grant, command and refusal.
         */
        if (first && pick_node(l, op) != op->refused_by)
            start_job(l, op);
        return;
    }
    if (grant_find(l, &op->volume_id, &host)) {
        /* Another node was given the job, too, before a takeover: while it may be at it, the layer
         * is neither made nor removed (SAFETY 14, 18). It formats again, and its grant is erased.
         */
        op_move(op, OP_STATE_WAIT_NODE);
        start_job(l, op);
        return;
    }
    pool_vg_name(l->sb->pool_name, vg);
    if (op->error.code == 0) {
        catalogue_made_args(vg, &v->layers[0], &args);
        op_commit(l, op, OP_STATE_COMMIT_MADE, &args);
    } else {
        const struct catalogue_layer *leaf = &v->layers[0];
        catalogue_remove_args(vg, &leaf, 1, &args);
        op_commit(l, op, OP_STATE_COMMIT_REMOVE, &args);
    }
}

void create_step(struct leader *l, struct op *op, int rc, const struct error *err)
{
    switch (op->state) {
    case OP_STATE_COMMIT_CREATE:
        after_create(l, op, rc, err);
        return;
    case OP_STATE_WAIT_NODE:
        start_job(l, op);
        return;
    case OP_STATE_GRANT:
        if (rc == 0) {
            op_send_command(l, op);
            return;
        }
        op_fail(op, rc, "%s", err->text);
        op_finish(l, op);
        return;
    case OP_STATE_COMMAND:
        after_job(l, op, rc, err);
        return;
    case OP_STATE_UNGRANT:
        after_ungrant(l, op, rc, err);
        return;
    default:
        if (rc < 0)
            op_fail(op, rc, "%s", err->text);
        op_finish(l, op);
    }
}
