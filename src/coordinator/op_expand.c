/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Expansion: a volume gets a larger size, absolute (SAFETY 6), never a smaller one.
 *
 * Happy path, thin: one commit exchanges the size in the leaf's tags; if a node has the volume,
 * command Resize makes its disk larger, and only then the client is answered. A volume that is
 * attached nowhere is larger from the next attach on, which grows its leaf. The size that it has
 * already is success, after the node was told again.
 *
 * Failure modes: the commit fails: nothing has happened. The leader is lost after it, or the node
 * does not answer or refuses: the volume has the new size, its disk on the node still the former
 * one, which is no harm to any byte; the same request again (the agent keeps a client's until it is
 * answered) tells the node, and so does the next attach. The node is proved dead meanwhile, or
 * knows nothing of the attachment: the next attach has the size. Thick volumes: op_expand_thick.c.
 */
#include <inttypes.h>
#include <string.h>

#include "coordinator/leader_internal.h"

static int check_size(struct leader *l, const struct catalogue_volume *v, uint64_t size,
                      struct error *err)
{
    int rc = volume_size_check(size, err);

    if (rc < 0)
        return rc;
    if (size < v->size)
        return error_set(err, LUNAR_E_INVALID,
                         "the volume has %" PRIu64 " bytes and is never made smaller", v->size);
    return size > v->size ? pool_check_overcommit(l, size - v->size, err) : 0;
}

int expand_check_held(struct leader *l, const struct catalogue_volume *v, struct error *err)
{
    uint32_t host = 0;
    const struct table_entry *e = grant_find(l, &v->id, &host);

    if (!e || (e->mode == TABLE_MODE_JOB && v->expands_to)) /* its own: gone on with */
        return 0;
    if (e->mode == TABLE_MODE_JOB || e->term == TABLE_TERM_LEFT_OVER ||
        life_is_over(l, host, e->generation))
        return error_set(err, LUNAR_E_BUSY, "the volume is being taken from node '%s'; try again",
                         node_name(l, host));
    if (!node_usable(l, host))
        return error_set(err, LUNAR_E_NOT_JOINED,
                         "node '%s' has the volume and does not answer; an expansion needs it, or "
                         "the proof of its death",
                         node_name(l, host));
    return 0;
}

static int check(struct leader *l, const struct catalogue_volume *v, uint64_t size,
                 struct error *err)
{
    if (!v || catalogue_volume_is_deleting(v))
        return error_set(err, LUNAR_E_NOT_FOUND, "no such volume");
    if (catalogue_volume_is_changing(v))
        change_resume(l, v);
    if (catalogue_volume_is_new(v) || catalogue_volume_is_changing(v))
        return error_set(err, LUNAR_E_BUSY,
                         "another operation on the volume is under way; try again");
    int rc = check_size(l, v, size, err);
    return rc < 0 ? rc : expand_check_held(l, v, err);
}

void expand_tell(struct leader *l, struct op *op)
{
    const struct table_entry *e = grant_find_attach(l, &op->volume_id, &op->host_id);

    if (!e || life_is_over(l, op->host_id, e->generation)) {
        op_finish(l, op);
        return;
    }
    op->attachment_id = e->attachment_id;
    op->command_id = uuid_random();
    op_move(op, OP_STATE_RESIZE);
    op_send_command(l, op);
}

static void start(struct leader *l, const struct waiter *w, const struct catalogue_volume *v,
                  uint64_t size)
{
    struct op *op = op_new(l, OP_EXPAND, &v->id);
    struct catalogue_args args;
    char vg[POOL_NAME_SIZE + 6];

    op->size = size;
    op->prefers_host = w->host_id;
    strcpy(op->name, v->name);
    op_add_waiter(l, op, w);
    if (size == v->size) {
        expand_tell(l, op);
        return;
    }
    if (v->thick) {
        op->thick = true;
        expand_thick(l, op);
        return;
    }
    pool_vg_name(l->sb->pool_name, vg);
    catalogue_size_args(vg, v, size, &args);
    op_commit(l, op, OP_STATE_COMMIT_SIZE, &args);
}

void expand_request(struct leader *l, const struct waiter *w, const Lunar__VolumeExpand *m)
{
    struct uuid id = uuid_from_pb(m->volume_id);
    const struct catalogue_volume *v = catalogue_by_id(l->catalogue, &id);
    relink_gives_way(l, &id);
    struct op *op = op_by_volume(l, &id);
    struct error err = ERROR_INIT;

    if (op && op->kind == OP_EXPAND && op->size == m->size)
        op_add_waiter(l, op, w);
    else if (op)
        reply_busy(l, w, op);
    else if (check(l, v, m->size, &err) < 0)
        reply_error(l, w, err.code, err.text);
    else
        start(l, w, v, m->size);
}

static void after_commit(struct leader *l, struct op *op, int rc, const struct error *err)
{
    const struct catalogue_volume *v = catalogue_by_id(l->catalogue, &op->volume_id);

    if (v && v->size == op->size) {
        expand_tell(l, op);
        return;
    }
    op_fail(op, rc < 0 ? rc : LUNAR_E_INDETERMINATE, "%s",
            rc < 0 ? err->text : "the new size is not in the metadata");
    op_finish(l, op);
}

/* Told the size that it has: its next attach has it. */
void expand_life_ended(struct leader *l, struct op *op)
{
    const struct catalogue_volume *v = catalogue_by_id(l->catalogue, &op->volume_id);

    if (v && v->size != op->size)
        op_fail(op, LUNAR_E_NOT_JOINED,
                "node '%s' was proved dead while it zeroed; it goes on elsewhere",
                node_name(l, op->host_id));
    op_finish(l, op);
}

void expand_step(struct leader *l, struct op *op, int rc, const struct error *err)
{
    const struct catalogue_volume *v = catalogue_by_id(l->catalogue, &op->volume_id);

    if (op->thick && (!v || v->size != op->size)) {
        expand_thick_step(l, op, rc, err);
        return;
    }
    if (op->state == OP_STATE_COMMIT_SIZE) {
        after_commit(l, op, rc, err);
        return;
    }
    if (rc == LUNAR_E_INDETERMINATE || rc == LUNAR_E_STALE || rc == LUNAR_E_BUSY ||
        rc == LUNAR_E_TIMEOUT) {
        op->command_id = uuid_random(); /* its writers wait for space, perhaps: asked again */
        op->resend = true;
        return;
    }
    if (rc < 0 && rc != LUNAR_E_NOT_FOUND)
        op_fail(op, rc, "the volume has the new size, its disk on node '%s' not yet: %s",
                node_name(l, op->host_id), err->text);
    op_finish(l, op);
}
