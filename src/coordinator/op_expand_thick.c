/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Expansion of a thick volume: what it gets is zeroed before anybody can read it (SAFETY 17).
 *
 * Happy path: a commit says what size it is to have; a second one makes the LV longer; the bytes
 * behind the size are zeroed, by the node that has the volume (command Resize with the size as it
 * is and the longer layer), or, if none has it, by any node under a job grant (SAFETY 18); a third
 * commit is the flip: the new size, and the note of it goes; then the node that has the volume
 * makes its disk larger, as for a thin one. Until the flip nobody can reach the new bytes, after it
 * nobody zeroes them: zeroing begins at the size that stands in the catalogue when the command is
 * made, and a job's grant is erased before the flip.
 *
 * Failure modes: the leader is lost after any step, the node is lost, refuses or takes longer than
 * the client waits: the note is in the catalogue, so the expansion is taken up again, by whoever
 * leads, until it is done or the volume is deleted; zeroing again does no harm. Meanwhile the
 * volume is used with the size it has. No space for the LV: the note is taken back and the client
 * told. Another size is asked for meanwhile: that one counts; what the LV has too much then stays
 * its until it is expanded again or deleted, for nothing takes extents from a thick volume's LV.
 */
#include <string.h>

#include "coordinator/leader_internal.h"

static void commit_expanding(struct leader *l, struct op *op, const struct catalogue_volume *v,
                             uint64_t size)
{
    struct catalogue_args args;
    char vg[POOL_NAME_SIZE + 6];

    pool_vg_name(l->sb->pool_name, vg);
    catalogue_expanding_args(vg, v, size, &args);
    op_commit(l, op, OP_STATE_COMMIT_EXPANDING, &args);
}

static void commit_extend(struct leader *l, struct op *op, const struct catalogue_volume *v,
                          uint64_t bytes)
{
    struct catalogue_args args;
    char vg[POOL_NAME_SIZE + 6];

    pool_vg_name(l->sb->pool_name, vg);
    catalogue_extend_args(vg, &v->layers[0], bytes, &args);
    op_commit(l, op, OP_STATE_COMMIT_EXTEND, &args);
}

static void commit_size(struct leader *l, struct op *op, const struct catalogue_volume *v)
{
    struct catalogue_args args;
    char vg[POOL_NAME_SIZE + 6];

    pool_vg_name(l->sb->pool_name, vg);
    catalogue_size_args(vg, v, op->size, &args);
    op_commit(l, op, OP_STATE_COMMIT_SIZE, &args);
}

/* By a job if one stands or nobody has the volume; else by who has it. */
static void zero(struct leader *l, struct op *op, const struct catalogue_volume *v)
{
    struct error err = ERROR_INIT;
    uint32_t host = 0;

    int rc = expand_check_held(l, v, &err);
    if (rc < 0) {
        op_fail(op, rc, "%s", err.text);
        op_finish(l, op);
    } else if (grant_find_job(l, &v->id, &host) || !grant_find(l, &v->id, &host)) {
        op_move(op, OP_STATE_WAIT_NODE);
        job_start(l, op);
    } else {
        expand_tell(l, op);
    }
}

static uint64_t bytes_wanted(const struct leader *l, const struct op *op)
{
    return catalogue_initial_size(op->size, true, l->catalogue->extent_size);
}

void expand_thick(struct leader *l, struct op *op)
{
    const struct catalogue_volume *v = catalogue_by_id(l->catalogue, &op->volume_id);
    uint64_t bytes = bytes_wanted(l, op);

    if (v->expands_to != op->size)
        commit_expanding(l, op, v, op->size);
    else if (v->layers[0].size < bytes)
        commit_extend(l, op, v, bytes);
    else
        zero(l, op, v);
}

void expand_resume(struct leader *l, const struct catalogue_volume *v)
{
    struct error err = ERROR_INIT;

    if (expand_check_held(l, v, &err) < 0)
        return;
    struct op *op = op_new(l, OP_EXPAND, &v->id);
    op->size = v->expands_to;
    op->thick = true;
    strcpy(op->name, v->name);
    expand_thick(l, op);
}

/* It is what the commit was for, or the operation has come to its end. */
static bool check_commit(struct leader *l, struct op *op, bool done, int rc,
                         const struct error *err)
{
    if (done)
        return true;
    op_fail(op, rc < 0 ? rc : LUNAR_E_INDETERMINATE, "%s",
            rc < 0 ? err->text : "the change is not in the metadata");
    op_finish(l, op);
    return false;
}

static void after_extend(struct leader *l, struct op *op, const struct catalogue_volume *v, int rc,
                         const struct error *err)
{
    if (v->layers[0].size >= bytes_wanted(l, op)) {
        expand_thick(l, op);
        return;
    }
    op_fail(op, rc < 0 ? rc : LUNAR_E_INDETERMINATE, "%s",
            rc < 0 ? err->text : "the longer layer is not in the metadata");
    commit_expanding(l, op, v, 0);
}

static void after_zero(struct leader *l, struct op *op, const struct catalogue_volume *v, int rc,
                       const struct error *err)
{
    if (rc == LUNAR_E_INDETERMINATE || rc == LUNAR_E_STALE || rc == LUNAR_E_BUSY ||
        rc == LUNAR_E_TIMEOUT) {
        op->command_id = uuid_random();
        op->resend = true;
        return;
    }
    if (rc == 0) {
        commit_size(l, op, v);
        return;
    }
    op_fail(op, rc, "node '%s' could not zero what the volume is to get: %s",
            node_name(l, op->host_id), err->text);
    op_finish(l, op); /* the note stands: again at the next reconciliation */
}

/* Before the flip. */
void expand_thick_step(struct leader *l, struct op *op, int rc, const struct error *err)
{
    const struct catalogue_volume *v = catalogue_by_id(l->catalogue, &op->volume_id);

    if (!v && op->state != OP_STATE_GRANT && op->state != OP_STATE_UNGRANT) {
        op_fail(op, LUNAR_E_NOT_FOUND, "the volume is not in the metadata any more");
        op_finish(l, op);
        return;
    }
    switch (op->state) {
    case OP_STATE_COMMIT_EXPANDING:
        if (op->error.code != 0)
            op_finish(l, op); /* it was taken back */
        else if (check_commit(l, op, v->expands_to == op->size, rc, err))
            expand_thick(l, op);
        return;
    case OP_STATE_COMMIT_EXTEND:
        after_extend(l, op, v, rc, err);
        return;
    case OP_STATE_RESIZE:
        after_zero(l, op, v, rc, err);
        return;
    case OP_STATE_COMMIT_SIZE:
        check_commit(l, op, false, rc, err);
        return;
    default:
        if (job_step(l, op, rc, err))
            commit_size(l, op, v);
    }
}
