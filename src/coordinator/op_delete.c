/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Deleting a volume: refused while any node has it or may have it; one commit tags it as being
 * deleted, a second removes its leaf. Its snapshots stay, and what stands on them; the layers below
 * the leaf that nobody needs then are garbage (op_garbage.c). A node that is just measuring the
 * leaf (op_trim.c) is waited for in between: its grant names it (SAFETY 14).
 *
 * Failure modes: killed in between, the next leader sees the tag and removes the leaf; the same
 * request again, also after everything is gone, is success, because it names the volume by its UUID
 * (SAFETY 6). A volume that was never formatted is deleted like any other once no job grant names
 * it.
 */
#include <stdio.h>
#include <string.h>

#include "coordinator/leader_internal.h"

static void refuse_held(struct leader *l, const struct waiter *w, const struct catalogue_volume *v,
                        uint32_t host, const struct table_entry *e)
{
    char text[512], id[UUID_TEXT_SIZE];
    snprintf(text, sizeof text, "volume '%s' is %s node '%s' (attachment %s); detach it first",
             v->name, e->mode == TABLE_MODE_JOB ? "being worked on by" : "attached to",
             node_name(l, host), uuid_format(&e->attachment_id, id));
    reply_error(l, w, LUNAR_E_IN_USE, text);
}

/* Unless a grant names it: then delete_wake tries again. */
static void remove_leaf(struct leader *l, struct op *op, const struct catalogue_volume *v)
{
    const struct catalogue_layer *leaf = &v->layers[0];
    struct catalogue_args args;
    char vg[POOL_NAME_SIZE + 6];

    if (grant_any_names(l, leaf))
        return;
    pool_vg_name(l->sb->pool_name, vg);
    catalogue_remove_args(vg, &leaf, 1, &args);
    op_commit(l, op, OP_STATE_COMMIT_REMOVE, &args);
}

void delete_request(struct leader *l, const struct waiter *w, const struct uuid *volume_id)
{
    const struct catalogue_volume *v = catalogue_by_id(l->catalogue, volume_id);
    struct catalogue_args args;
    char vg[POOL_NAME_SIZE + 6];
    uint32_t host;

    relink_gives_way(l, volume_id);
    struct op *op = op_by_volume(l, volume_id);
    if (op && op->kind == OP_DELETE) {
        op_add_waiter(l, op, w);
        return;
    }
    if (op) {
        reply_busy(l, w, op);
        return;
    }
    if (!v) {
        reply_plain(l, w);
        return;
    }
    const struct table_entry *e = grant_find(l, volume_id, &host);
    if (e && life_is_over(l, host, e->generation)) {
        reply_taking(l, w, host, e);
        return;
    }
    if (e && e->term == TABLE_TERM_LEFT_OVER && detach_resume(l, host, e)) {
        reply_busy(l, w, op_by_volume(l, volume_id));
        return;
    }
    if (e) {
        refuse_held(l, w, v, host, e);
        return;
    }
    if (catalogue_volume_is_changing(v)) {
        change_resume(l, v);
        reply_error(l, w, LUNAR_E_BUSY,
                    "a snapshot or rollback of the volume is being completed; try again");
        return;
    }
    op = op_new(l, OP_DELETE, volume_id);
    op_add_waiter(l, op, w);
    pool_vg_name(l->sb->pool_name, vg);
    catalogue_deleting_args(vg, v, &args);
    op_commit(l, op, OP_STATE_COMMIT_DELETING, &args);
}

/* Deletion began with no grant in the way. One that is there now was brought back by a late write:
 * it is looked into first. */
void delete_resume(struct leader *l, const struct catalogue_volume *v)
{
    uint32_t host;
    if (grant_find(l, &v->id, &host) || grant_any_names(l, &v->layers[0]))
        return;
    struct op *op = op_new(l, OP_DELETE, &v->id);
    remove_leaf(l, op, v);
}

void delete_wake(struct leader *l)
{
    struct op *op;

    TAILQ_FOREACH (op, &l->ops, link) {
        if (op->kind != OP_DELETE || op->state != OP_STATE_COMMIT_DELETING || op->token != 0)
            continue;
        const struct catalogue_volume *v = catalogue_by_id(l->catalogue, &op->volume_id);
        if (v)
            remove_leaf(l, op, v);
    }
}

void delete_step(struct leader *l, struct op *op, int rc, const struct error *err)
{
    const struct catalogue_volume *v = catalogue_by_id(l->catalogue, &op->volume_id);

    if (op->state == OP_STATE_COMMIT_DELETING && v && catalogue_volume_is_deleting(v)) {
        remove_leaf(l, op, v);
        return;
    }
    if (v)
        op_fail(op, rc < 0 ? rc : LUNAR_E_INDETERMINATE, "%s",
                rc < 0 ? err->text : "the volume is still in the metadata");
    op_finish(l, op);
}
