/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots: the leaf X is frozen under a new leaf Y (SAFETY 16: the catalogue flips first).
 *
 * Happy path, of a volume that is attached: one commit makes Y, new, standing on X and saying what
 * X becomes; a node formats Y (op_job.c), the one that has the volume if it can; the attachment's
 * grant gets Y, both copies; one commit drops "new": Y is the leaf; the node puts Y on top of X and
 * answers when it writes X no more (command Overlay); one commit gives X its role: the snapshot is
 * ready. A volume that is attached nowhere needs no grant and no command. Until X has its role
 * nobody builds upon it.
 *
 * Failure modes: the leader is lost after any step: the next one sees Y new, or X with a leaf's
 * role below the leaf, and goes on from there; each step may be done twice. Formatting fails: Y is
 * removed and nothing has happened. The node refuses the overlay: the client is told, and it is
 * tried again each LEADER_RECONCILE_MS, and by the same request; meanwhile the volume may be
 * detached, and then nobody writes X. One that is busy is asked again each tick, and a detach goes
 * before that. The node is proved dead meanwhile: neither does it write X. It knows
 * nothing of the attachment: nothing is mapped there, and what is attached from now on has Y on
 * top. One of a group (op_group.c) stops where the others must be as far; when that has failed it
 * is removed, or, once the catalogue has flipped, completed like any other, X becoming nobody's
 * snapshot.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "coordinator/leader_internal.h"

/* A node that cannot switch now is asked at each tick for so long, then at each reconciliation: it
 * may need a detach first, where an earlier one has failed half-way. */
#define SWITCH_PATIENCE_MS (20u * 1000)

/* --- may it? --- */

static int check_held(struct leader *l, const struct catalogue_volume *v, struct error *err)
{
    uint32_t host = 0;
    const struct table_entry *e = grant_find(l, &v->id, &host);

    if (!e)
        return 0;
    if (life_is_over(l, host, e->generation))
        return error_set(err, LUNAR_E_BUSY,
                         "the volume is being taken from the dead node '%s'; try again",
                         node_name(l, host));
    if (e->mode == TABLE_MODE_JOB || e->term == TABLE_TERM_LEFT_OVER)
        return error_set(err, LUNAR_E_BUSY, "node '%s' still works on the volume; try again",
                         node_name(l, host));
    uint32_t other = 0;
    if (grant_conflict(l, &v->id, host, &other))
        return error_set(err, LUNAR_E_BUSY,
                         "the grants of node '%s' name the volume, too: detach it there first "
                         "(lunarctl verify)",
                         node_name(l, other));
    if (!node_usable(l, host))
        return error_set(err, LUNAR_E_NOT_JOINED,
                         "node '%s' has the volume and does not answer; a snapshot needs it, or "
                         "the proof of its death",
                         node_name(l, host));
    if (!grant_has_room(l, host, 1, 2)) /* the job, and one layer more */
        return error_set(err, LUNAR_E_FULL, "node '%s' has as many layers as its grant table holds",
                         node_name(l, host));
    return 0;
}

int snapshot_check(struct leader *l, const struct catalogue_volume *v, struct error *err)
{
    if (catalogue_volume_is_deleting(v))
        return error_set(err, LUNAR_E_NOT_FOUND, "the volume is being deleted");
    if (v->thick)
        return error_set(err, LUNAR_E_UNSUPPORTED, "a thick volume has no snapshots");
    if (v->importing) /* its next leaf would not say so any more */
        return error_set(err, LUNAR_E_BUSY, "the volume is being imported");
    relink_gives_way(l, &v->id);
    if (catalogue_volume_is_new(v) || op_by_volume(l, &v->id))
        return error_set(err, LUNAR_E_BUSY,
                         "another operation on the volume is under way; try again");
    if (catalogue_volume_is_changing(v)) {
        change_resume(l, v);
        return error_set(err, LUNAR_E_BUSY,
                         "an earlier snapshot or rollback is being completed; try again");
    }
    if (v->n_layers >= l->chain_max || v->next_index == UINT32_MAX)
        return error_set(err, LUNAR_E_FULL,
                         "the volume has %u layers, the most that it may have; those of deleted "
                         "snapshots are merged by and by",
                         v->n_layers);
    return check_held(l, v, err);
}

/* --- requests --- */

struct op *snapshot_start(struct leader *l, const struct catalogue_volume *v, const char *name,
                          uint32_t prefers_host, struct group *group)
{
    struct catalogue_below below = {.snapshot_id = uuid_random(),
                                    .created_s = l->io->wall_s ? l->io->wall_s(l->data) : 0};
    const struct catalogue_leaf leaf = {.volume_id = &v->id,
                                        .index = v->next_index,
                                        .name = v->name,
                                        .size = v->size,
                                        .request_id = &v->request_id,
                                        .parent = v->layers[0].lv_name,
                                        .source_id = &v->source_id,
                                        .source_is_volume = v->source_is_volume,
                                        .below = &below};
    struct op *op = op_new(l, OP_SNAPSHOT, &v->id);
    struct catalogue_args args;
    char vg[POOL_NAME_SIZE + 6];
    uint32_t host = 0;

    strcpy(below.name, name); /* its length was checked */
    strcpy(op->name, name);
    strcpy(op->parent_lv, v->layers[0].lv_name);
    op->snapshot_id = below.snapshot_id;
    op->group = group;
    if (group)
        below.group = *group_id(group);
    op->size = v->size;
    op->prefers_host = grant_find_attach(l, &v->id, &host) ? host : prefers_host;
    pool_vg_name(l->sb->pool_name, vg);
    catalogue_create_args(vg, &leaf, l->catalogue->extent_size, &args);
    op_commit(l, op, OP_STATE_COMMIT_CREATE, &args);
    return op;
}

struct op *snapshot_op_by_name(struct leader *l, const char *name)
{
    struct op *op;
    TAILQ_FOREACH (op, &l->ops, link)
        if (op->kind == OP_SNAPSHOT && strcmp(op->name, name) == 0)
            return op;
    return NULL;
}

static void refuse_name(struct leader *l, const struct waiter *w, const char *name)
{
    char text[VOLUME_NAME_MAX + 100];
    snprintf(text, sizeof text, "a snapshot '%s' exists, of another volume; choose another name",
             name);
    reply_error(l, w, LUNAR_E_EXISTS, text);
}

/* It is there already, or half-made. */
static void existing(struct leader *l, const struct waiter *w, const struct catalogue_snapshot *s,
                     const struct uuid *volume_id)
{
    const struct catalogue_volume *v = catalogue_by_id(l->catalogue, volume_id);
    struct op *op = op_by_volume(l, volume_id);

    if (!uuid_equal(&s->volume_id, volume_id))
        refuse_name(l, w, s->name);
    else if (op_by_volume(l, &s->id))
        reply_error(l, w, LUNAR_E_BUSY, "a snapshot of this name is being deleted; try again");
    else if (s->ready)
        reply_snapshot(l, w, s);
    else if (op && op->kind != OP_SNAPSHOT)
        reply_busy(l, w, op);
    else if (op || (v && (op = change_resume(l, v))))
        op_add_waiter(l, op, w);
    else
        reply_error(l, w, LUNAR_E_BUSY, "the snapshot is being made; try again");
}

void snapshot_request(struct leader *l, const struct waiter *w, const Lunar__SnapshotCreate *m)
{
    struct uuid id = uuid_from_pb(m->volume_id);
    const struct catalogue_volume *v = catalogue_by_id(l->catalogue, &id);
    const struct catalogue_snapshot *s = catalogue_snapshot_by_name(l->catalogue, m->name);
    struct error err = ERROR_INIT;
    struct op *op;

    if (volume_name_check(m->name, &err) < 0)
        reply_error(l, w, err.code, err.text);
    else if (s)
        existing(l, w, s, &id);
    else if ((op = snapshot_op_by_name(l, m->name)) && uuid_equal(&op->volume_id, &id))
        op_add_waiter(l, op, w);
    else if (op)
        refuse_name(l, w, m->name);
    else if (!v)
        reply_error(l, w, LUNAR_E_NOT_FOUND, "no such volume");
    else if (snapshot_check(l, v, &err) < 0)
        reply_error(l, w, err.code, err.text);
    else
        op_add_waiter(l, snapshot_start(l, v, m->name, w->host_id, NULL), w);
}

/* --- steps --- */

static void commit_frozen(struct leader *l, struct op *op, const struct catalogue_volume *v)
{
    struct catalogue_args args;
    char vg[POOL_NAME_SIZE + 6];

    pool_vg_name(l->sb->pool_name, vg);
    catalogue_frozen_args(vg, v, &args);
    op_commit(l, op, OP_STATE_COMMIT_FROZEN, &args);
}

/* The attachment that writes the volume, of a life that is not over. */
static struct table_entry *writer(struct leader *l, const struct op *op, uint32_t *ret_host)
{
    struct table_entry *e = grant_find_attach(l, &op->volume_id, ret_host);
    return e && !life_is_over(l, *ret_host, e->generation) ? e : NULL;
}

/* An entry that a late write or a report has brought back. What its node would say is not known. */
bool snapshot_may_be_elsewhere(const struct leader *l, const struct op *op)
{
    for (uint32_t h = 1; h <= l->sb->layout.max_nodes; h++) {
        const struct node *n = &l->nodes[h];
        for (uint32_t i = 0; n->has_grants && i < n->grants.n_entries; i++) {
            const struct table_entry *e = &n->grants.entries[i];
            bool asked = (op->state == OP_STATE_OVERLAY || op->state == OP_STATE_GROUP) &&
                         h == op->host_id && uuid_equal(&e->attachment_id, &op->attachment_id);
            if (e->mode == TABLE_MODE_ATTACH && uuid_equal(&e->volume_id, &op->volume_id) &&
                !asked && !life_is_over(l, h, e->generation))
                return true;
        }
    }
    return false;
}

/* Nobody writes X any more. */
static void freeze(struct leader *l, struct op *op, const struct catalogue_volume *v)
{
    if (!snapshot_may_be_elsewhere(l, op)) {
        commit_frozen(l, op, v);
        return;
    }
    op_fail(op, LUNAR_E_BUSY,
            "the grants of another node name the volume, too: detach it there first (lunarctl "
            "verify); then the snapshot is completed");
    op_finish(l, op);
}

/* The catalogue has flipped: whoever has the volume must switch; then X is written no more. */
static void switch_over(struct leader *l, struct op *op, const struct catalogue_volume *v)
{
    const struct table_entry *e = writer(l, op, &op->host_id);

    if (!e) {
        freeze(l, op, v);
        return;
    }
    op->attachment_id = e->attachment_id;
    op->command_id = uuid_random();
    op_move(op, OP_STATE_OVERLAY);
    op_send_command(l, op);
}

static void flip(struct leader *l, struct op *op, const struct catalogue_volume *v)
{
    struct catalogue_args args;
    char vg[POOL_NAME_SIZE + 6];

    pool_vg_name(l->sb->pool_name, vg);
    catalogue_made_args(vg, &v->overlay->layer, &args);
    op_commit(l, op, OP_STATE_COMMIT_MADE, &args);
}

/* The writer's grant names the new leaf, in both copies, before anything is told to the node, and
 * before the flip: until then all can be undone. */
static void grant_chain(struct leader *l, struct op *op, const struct catalogue_volume *v)
{
    struct table_entry *e = writer(l, op, &op->host_id);

    if (!e && v->overlay) {
        flip(l, op, v);
    } else if (!e) {
        freeze(l, op, v);
    } else if (grant_prepend(l, op->host_id, e, v->overlay ? &v->overlay->layer : &v->layers[0])) {
        op->attachment_id = e->attachment_id;
        op_write_grants(l, op, OP_STATE_CHAIN_GRANT);
    } else {
        op_fail(op, LUNAR_E_FULL, "node '%s' has as many layers as its grant table holds",
                node_name(l, op->host_id));
        job_undo(l, op);
    }
}

/* --- in a group --- */

static bool is_member(const struct op *op)
{
    return op->group && !group_has_failed(op->group);
}

static void arrive(struct leader *l, struct op *op)
{
    op_move(op, OP_STATE_GROUP);
    group_arrived(l, op);
}

void snapshot_flip(struct leader *l, struct op *op)
{
    grant_chain(l, op, catalogue_by_id(l->catalogue, &op->volume_id));
}

void snapshot_suspend(struct leader *l, struct op *op)
{
    const struct table_entry *e = writer(l, op, &op->host_id);

    memset(&op->hold_id, 0, sizeof op->hold_id);
    if (!e) { /* and nobody will before it ends: one operation per volume */
        group_arrived(l, op);
        return;
    }
    op->attachment_id = e->attachment_id;
    op->command_id = uuid_random();
    op_move(op, OP_STATE_SUSPEND);
    op_send_command(l, op);
}

void snapshot_switch(struct leader *l, struct op *op)
{
    if (uuid_is_zero(&op->hold_id)) {
        group_arrived(l, op);
        return;
    }
    op->command_id = uuid_random();
    op_move(op, OP_STATE_OVERLAY);
    op_send_command(l, op);
}

void snapshot_freeze(struct leader *l, struct op *op)
{
    const struct catalogue_volume *v = catalogue_by_id(l->catalogue, &op->volume_id);

    if (v && v->former) {
        freeze(l, op, v);
        return;
    }
    op_fail(op, LUNAR_E_METADATA, "the volume is not in the metadata any more");
    op_finish(l, op);
}

void snapshot_leave_group(struct leader *l, struct op *op)
{
    const struct catalogue_volume *v = catalogue_by_id(l->catalogue, &op->volume_id);
    bool suspended = op->state == OP_STATE_SUSPEND || !uuid_is_zero(&op->hold_id);

    if (op->state != OP_STATE_GROUP && op->state != OP_STATE_SUSPEND &&
        op->state != OP_STATE_OVERLAY)
        return; /* it finds out when that has ended */
    if (suspended)
        command_resume(l, op); /* lost: the deadline does it */
    memset(&op->hold_id, 0, sizeof op->hold_id);
    op->started_ms = l->now_ms;
    if (v && v->former) {
        switch_over(l, op, v);
    } else if (v && v->overlay) {
        job_undo(l, op);
    } else {
        op_fail(op, LUNAR_E_METADATA, "the volume is not in the metadata any more");
        op_finish(l, op);
    }
}

static void after_suspend(struct leader *l, struct op *op, int rc, const struct error *err)
{
    bool held = rc == 0 && !uuid_is_zero(&op->hold_id);

    if (held && is_member(op)) {
        arrive(l, op);
        return;
    }
    group_fail(l, op, rc < 0 ? rc : LUNAR_E_INDETERMINATE,
               rc < 0 ? err->text : "its node does not say what it has suspended");
    snapshot_leave_group(l, op);
}

/* --- the steps' ends --- */

static void after_create(struct leader *l, struct op *op, int rc, const struct error *err)
{
    const struct catalogue_volume *v = catalogue_by_id(l->catalogue, &op->volume_id);

    if (v && v->overlay && uuid_equal(&v->overlay->below.snapshot_id, &op->snapshot_id)) {
        op_move(op, OP_STATE_WAIT_NODE);
        job_start(l, op);
        return;
    }
    op_fail(op, rc < 0 ? rc : LUNAR_E_INDETERMINATE, "%s",
            rc < 0 ? err->text : "the new layer is not in the metadata");
    op_finish(l, op);
}

static void after_chain_grant(struct leader *l, struct op *op, const struct catalogue_volume *v,
                              int rc, const struct error *err)
{
    if (rc == 0 && v->overlay) {
        flip(l, op, v);
        return;
    }
    if (rc == 0) {
        switch_over(l, op, v);
        return;
    }
    op_fail(op, rc, "the grant of the new layer could not be written: %s", err->text);
    op_finish(l, op); /* what is half-done is taken up again */
}

static void after_flip(struct leader *l, struct op *op, const struct catalogue_volume *v, int rc,
                       const struct error *err)
{
    if (v->former && is_member(op)) {
        arrive(l, op);
        return;
    }
    if (v->former) {
        switch_over(l, op, v);
        return;
    }
    op_fail(op, rc < 0 ? rc : LUNAR_E_INDETERMINATE, "%s",
            rc < 0 ? err->text : "the new leaf is not in the metadata");
    op_finish(l, op);
}

static void after_overlay(struct leader *l, struct op *op, const struct catalogue_volume *v, int rc,
                          const struct error *err)
{
    if (rc == 0 && is_member(op)) {
        arrive(l, op);
        return;
    }
    if (is_member(op)) {
        group_fail(l, op, rc, err->text);
        snapshot_leave_group(l, op);
        return;
    }
    if (rc == 0 || rc == LUNAR_E_NOT_FOUND) {
        freeze(l, op, v);
        return;
    }
    bool again = rc == LUNAR_E_INDETERMINATE || rc == LUNAR_E_STALE || rc == LUNAR_E_BUSY;
    if (again && l->now_ms - op->started_ms < SWITCH_PATIENCE_MS) {
        op->command_id = uuid_random(); /* it may be at it: asked again until it is certain */
        op->resend = op->refused = true;
        return;
    }
    op_fail(op, rc, "node '%s' could not switch to the new layer: %s", node_name(l, op->host_id),
            err->text);
    op_finish(l, op);
}

void snapshot_life_ended(struct leader *l, struct op *op)
{
    if (is_member(op))
        group_fail(l, op, LUNAR_E_NOT_JOINED, "its node was proved dead");
    snapshot_freeze(l, op);
}

static void after_frozen(struct leader *l, struct op *op, const struct catalogue_volume *v, int rc,
                         const struct error *err)
{
    if (v->former)
        op_fail(op, rc < 0 ? rc : LUNAR_E_INDETERMINATE, "%s",
                rc < 0 ? err->text : "the snapshot is not ready in the metadata");
    op_finish(l, op);
}

bool snapshot_gives_way(struct leader *l, struct op *op)
{
    if (op->kind != OP_SNAPSHOT || op->state != OP_STATE_OVERLAY || !op->refused)
        return false;
    op_fail(op, LUNAR_E_BUSY,
            "node '%s' cannot switch to the new layer now, and the volume is being detached; the "
            "snapshot is ready when it is; ask again",
            node_name(l, op->host_id));
    op_finish(l, op);
    return true;
}

/* The layers that the op is about are where it left them; else it ends. */
static bool is_as_left(const struct op *op, const struct catalogue_volume *v)
{
    switch (op->state) {
    case OP_STATE_CHAIN_GRANT:
        return v && (v->overlay || v->former);
    case OP_STATE_SUSPEND:
    case OP_STATE_OVERLAY:
        return v && v->former;
    default:
        return v != NULL;
    }
}

void snapshot_step(struct leader *l, struct op *op, int rc, const struct error *err)
{
    const struct catalogue_volume *v = catalogue_by_id(l->catalogue, &op->volume_id);

    if (op->state >= OP_STATE_WAIT_NODE && op->state <= OP_STATE_UNGRANT) {
        if (!job_step(l, op, rc, err))
            return;
        if (is_member(op))
            arrive(l, op);
        else
            snapshot_flip(l, op);
        return;
    }
    if (op->state == OP_STATE_COMMIT_CREATE) {
        after_create(l, op, rc, err);
        return;
    }
    if (!is_as_left(op, v) || op->state == OP_STATE_COMMIT_REMOVE) {
        op_fail(op, LUNAR_E_METADATA, "the volume is not in the metadata any more");
        op_finish(l, op);
        return;
    }
    if (op->state == OP_STATE_CHAIN_GRANT)
        after_chain_grant(l, op, v, rc, err);
    else if (op->state == OP_STATE_COMMIT_MADE)
        after_flip(l, op, v, rc, err);
    else if (op->state == OP_STATE_SUSPEND)
        after_suspend(l, op, rc, err);
    else if (op->state == OP_STATE_OVERLAY)
        after_overlay(l, op, v, rc, err);
    else
        after_frozen(l, op, v, rc, err);
}

/* --- resumption --- */

/* Of a group whose leader is lost: undone, if no writer was granted the new layer. */
static void undo_if_grouped(struct leader *l, struct op *op, const struct catalogue_volume *v)
{
    uint32_t host;
    const struct table_entry *e = grant_find_attach(l, &v->id, &host);

    if (!uuid_is_zero(&v->overlay->below.group) && !(e && grant_names(e, &v->overlay->layer)))
        op_fail(op, LUNAR_E_BUSY, "the coordinator changed before its group was taken; try again");
}

struct op *change_resume(struct leader *l, const struct catalogue_volume *v)
{
    bool replaces = v->overlay ? v->overlay->replaces : v->former->layer.role == CATALOGUE_REPLACED;
    const struct catalogue_below *below = v->overlay ? &v->overlay->below : &v->below;
    uint32_t host = 0;

    /* What is left over is taken back first: then it is certain who writes. */
    if (grant_is_left_over(l, &v->id))
        return NULL;
    struct op *op = op_new(l, replaces ? OP_ROLLBACK : OP_SNAPSHOT, &v->id);
    op->size = v->size;
    op->snapshot_id = below->snapshot_id;
    strcpy(op->name, replaces ? v->name : below->name);
    strcpy(op->parent_lv, v->overlay ? v->layers[0].lv_name : v->former->layer.lv_name);
    op->prefers_host = grant_find_attach(l, &v->id, &host) ? host : 0;
    if (v->overlay) {
        undo_if_grouped(l, op, v);
        op_move(op, OP_STATE_WAIT_NODE);
        job_start(l, op);
    } else if (replaces) {
        commit_frozen(l, op, v);
    } else {
        grant_chain(l, op, v);
    }
    return op_by_volume(l, &v->id); /* it may have come to its end */
}
