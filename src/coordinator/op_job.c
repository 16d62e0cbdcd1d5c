/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Formatting a new layer: a job that a live node does under a grant of its own (SAFETY 17, 18).
 * What create, snapshot and rollback have in common between the commit that makes the layer and the
 * one that drops "new"; and the zeroing behind a thick volume that is expanded (op_expand_thick.c).
 *
 * Happy path: WAIT_NODE, a node is chosen; GRANT, both copies; COMMAND; UNGRANT, both copies; then
 * the operation's own file goes on. Failure modes: the leader is lost at any point: the next one
 * finds a layer that is new and begins again, with the same job if its grant stands (formatting
 * twice is harmless). The node leaves, has no room or is proved dead: another one. It refuses or
 * fails: the grant is erased, the layer removed, and the client told why. It does not answer: the
 * grant stands.
 */
#include <stdio.h>

#include "coordinator/leader_internal.h"

static void new_job(struct leader *l, struct op *op);

const struct catalogue_layer *job_layer(struct leader *l, const struct op *op)
{
    const struct catalogue_volume *v = catalogue_by_id(l->catalogue, &op->volume_id);

    if (!v)
        return NULL;
    if (op->kind == OP_CREATE || op->kind == OP_EXPAND)
        return &v->layers[0];
    return v->overlay ? &v->overlay->layer : NULL;
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
void job_start(struct leader *l, struct op *op)
{
    const struct table_entry *job = grant_find_job(l, &op->volume_id, &op->host_id);

    if (!job) {
        new_job(l, op);
        return;
    }
    op->attachment_id = job->attachment_id;
    op->command_id = uuid_random();
    job_command(l, op);
}

static void new_job(struct leader *l, struct op *op)
{
    const struct catalogue_layer *layer = job_layer(l, op);

    op->host_id = pick_node(l, op);
    if (op->host_id == 0)
        return;
    op->command_id = uuid_random();
    op->attachment_id = uuid_random();
    if (layer && grant_add(l, op, TABLE_MODE_JOB, layer, 1))
        op_write_grants(l, op, OP_STATE_GRANT);
    else
        op->host_id = 0; /* that node's table is full: another try at the next node event */
}

/* (Again) the job's command. A node that has rebooted since gets a grant of its new life: the old
 * one gives it nothing, and whatever the old life was doing ended with it. A page of a life before
 * the grant's has landed late: that life is past, and the job may be at work. */
void job_command(struct leader *l, struct op *op)
{
    const struct node *n = &l->nodes[op->host_id];
    const struct catalogue_layer *layer = job_layer(l, op);
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
    if (!n->seen || !layer || job->generation >= n->self.generation) {
        op_send_command(l, op);
        return;
    }
    grant_drop(l, op);
    op->attachment_id = uuid_random();
    op->command_id = uuid_random();
    if (grant_add(l, op, TABLE_MODE_JOB, layer, 1)) {
        op_write_grants(l, op, OP_STATE_GRANT);
        return;
    }
    op->attachment_id = op->dropped->attachment_id;
    grant_restore(l, op);
    op->resend = true; /* its table is full: another try at the next tick */
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
        op_fail(op, rc, "node %s could not %s the layer: %s", node_name(l, op->host_id),
                op->kind == OP_EXPAND ? "zero" : "format", err->text);
    grant_drop(l, op);
    op_write_grants(l, op, OP_STATE_UNGRANT);
}

/* True: it is formatted; else it goes on elsewhere, or the operation has come to its end. */
static bool after_ungrant(struct leader *l, struct op *op, int rc, const struct error *err)
{
    uint32_t host;

    if (rc < 0) {
        grant_restore(l, op);
        op_fail(op, rc, "the job's grant could not be erased: %s", err->text);
    }
    if (!job_layer(l, op))
        op_fail(op, LUNAR_E_METADATA, "the new layer is not in the metadata any more");
    if (rc < 0 || !job_layer(l, op)) {
        op_finish(l, op);
        return false;
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
            job_start(l, op);
        return false;
    }
    if (grant_find_job(l, &op->volume_id, &host)) {
        /* Another node was given the job, too, before a takeover: while it may be at it, the layer
         * is neither made nor removed (SAFETY 14, 18). It formats again, and its grant is erased.
         */
        op_move(op, OP_STATE_WAIT_NODE);
        job_start(l, op);
        return false;
    }
    if (op->error.code != 0) {
        job_undo(l, op);
        return false;
    }
    return true;
}

/* The layer goes again; where a grant names it after all it stays, and is taken up again later. */
void job_undo(struct leader *l, struct op *op)
{
    const struct catalogue_layer *layer = job_layer(l, op);
    struct catalogue_args args;
    char vg[POOL_NAME_SIZE + 6];

    if (!layer || !layer->is_new || grant_any_names(l, layer)) {
        op_finish(l, op);
        return;
    }
    pool_vg_name(l->sb->pool_name, vg);
    catalogue_remove_args(vg, &layer, 1, &args);
    op_commit(l, op, OP_STATE_COMMIT_REMOVE, &args);
}

bool job_step(struct leader *l, struct op *op, int rc, const struct error *err)
{
    switch (op->state) {
    case OP_STATE_WAIT_NODE:
        job_start(l, op);
        return false;
    case OP_STATE_GRANT:
        if (rc == 0) {
            op_send_command(l, op);
            return false;
        }
        op_fail(op, rc, "%s", err->text);
        op_finish(l, op);
        return false;
    case OP_STATE_COMMAND:
        after_job(l, op, rc, err);
        return false;
    default:
        return after_ungrant(l, op, rc, err);
    }
}
