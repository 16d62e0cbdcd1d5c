/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Creating a volume: one LVM commit makes the layer, tagged new; a live node formats it (op_job.c);
 * a second commit drops the tag, and only then may it be attached.
 *
 * Failure modes: killed after any step, the next leader sees a layer tagged new and goes on from
 * the node's step with the same job if a job grant stands (formatting twice is harmless), so the
 * client's repeated request finds it. The node refuses or fails: the layer is removed again and the
 * client told why. The node does not answer: the job grant stands, the client gets a time-out, the
 * volume shows as "creating" and goes on when the node is back. A volume of that name exists: the
 * same parameters are success (idempotent), others are EXISTS. A volume that is to be imported is
 * made by one request alone, or two that copy into it would both be told that it is theirs.
 *
 * A clone is the same with a layer below: of a snapshot, that one's; of a volume, what its leaf was
 * until an internal snapshot (op_snapshot.c), which is waited for first.
 */
#include <stdio.h>
#include <string.h>

#include "coordinator/leader_internal.h"

/* What a request for a volume asks for. */
struct wanted {
    const char *name;
    uint64_t size; /* 0: of a clone, the source's */
    bool thick;
    bool importing;
    struct uuid source_id; /* zero: no clone */
    bool source_is_volume;
};

static void refuse_other(struct leader *l, const struct waiter *w, const struct wanted *want,
                         uint64_t size, bool thick, const struct uuid *source_id)
{
    char text[VOLUME_NAME_MAX + 128];
    snprintf(text, sizeof text, "a volume '%s' exists with %s; choose another name", want->name,
             want->size && size != want->size           ? "another size"
             : thick != want->thick                     ? "another kind"
             : !uuid_equal(source_id, &want->source_id) ? "another source"
                                                        : "bytes of its own");
    reply_error(l, w, LUNAR_E_EXISTS, text);
}

/* `importing`: what stands is being imported, or will be. */
static bool is_wanted(const struct wanted *want, uint64_t size, bool thick,
                      const struct uuid *source_id, bool importing, bool same_request)
{
    bool sized = want->size == size || (want->size == 0 && !uuid_is_zero(source_id));
    bool whose = want->importing ? same_request : !importing;
    return whose && sized && want->thick == thick && uuid_equal(&want->source_id, source_id);
}

static void existing(struct leader *l, const struct waiter *w, const struct catalogue_volume *v,
                     const struct wanted *want)
{
    struct op *op = op_by_volume(l, &v->id);

    if (!is_wanted(want, v->size, v->thick, &v->source_id, v->importing,
                   uuid_equal(&w->request_id, &v->request_id)))
        refuse_other(l, w, want, v->size, v->thick, &v->source_id);
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

static void commit_leaf(struct leader *l, struct op *op)
{
    struct catalogue_args args;
    char vg[POOL_NAME_SIZE + 6];
    const struct catalogue_leaf leaf = {.volume_id = &op->volume_id,
                                        .name = op->name,
                                        .size = op->size,
                                        .thick = op->thick,
                                        .importing = op->importing,
                                        .request_id = &op->request_id,
                                        .parent = op->parent_lv[0] ? op->parent_lv : NULL,
                                        .source_id = &op->source_id,
                                        .source_is_volume = op->source_is_volume};

    pool_vg_name(l->sb->pool_name, vg);
    catalogue_create_args(vg, &leaf, l->catalogue->extent_size, &args);
    op_commit(l, op, OP_STATE_COMMIT_CREATE, &args);
}

/* --- clones --- */

static int check_source(const struct leader *l, const struct wanted *want, uint64_t source_size,
                        uint32_t depth, struct error *err)
{
    if (want->thick)
        return error_set(err, LUNAR_E_UNSUPPORTED, "a clone is thin");
    if (want->size && want->size < source_size)
        return error_set(err, LUNAR_E_INVALID,
                         "a clone is not smaller than its source, which has %llu bytes",
                         (unsigned long long)source_size);
    if (depth >= l->chain_max)
        return error_set(err, LUNAR_E_FULL,
                         "the source has %u layers already, the most that a volume may have",
                         depth);
    return 0;
}

/* NULL: an error. */
static const struct catalogue_snapshot *check_snapshot(struct leader *l, const struct wanted *want,
                                                       struct error *err)
{
    const struct catalogue_snapshot *s = catalogue_snapshot_by_id(l->catalogue, &want->source_id);

    if (!s)
        error_set(err, LUNAR_E_NOT_FOUND, "no such snapshot");
    else if (!s->ready || op_by_volume(l, &s->id))
        error_set(err, LUNAR_E_BUSY, "the snapshot is being %s; try again",
                  s->ready ? "deleted" : "made");
    else if (check_source(l, want, s->size, l->catalogue->layers[s->layer].depth, err) == 0)
        return s;
    return NULL;
}

static const struct catalogue_volume *check_volume(struct leader *l, const struct wanted *want,
                                                   struct error *err)
{
    const struct catalogue_volume *v = catalogue_by_id(l->catalogue, &want->source_id);

    if (!v)
        error_set(err, LUNAR_E_NOT_FOUND, "no such volume");
    else if (snapshot_check(l, v, err) == 0 &&
             check_source(l, want, v->size, v->n_layers, err) == 0)
        return v;
    return NULL;
}

/* Its source is checked, and its size known. */
static int check_clone(struct leader *l, struct op *op, const struct wanted *want,
                       struct error *err)
{
    const struct catalogue_volume *v = NULL;
    const struct catalogue_snapshot *s = NULL;

    if (want->source_is_volume)
        v = check_volume(l, want, err);
    else
        s = check_snapshot(l, want, err);
    if (!v && !s)
        return err->code;
    op->source_id = want->source_id;
    op->source_is_volume = want->source_is_volume;
    op->size = want->size ? want->size : v ? v->size : s->size;
    if (s)
        strcpy(op->parent_lv, l->catalogue->layers[s->layer].lv_name);
    return 0;
}

/* The source's internal snapshot is ready, or has failed; then the next tick ends the clone,
 * because who calls may be going through all operations. */
static void source_done(struct leader *l, struct op *op, const struct op *snapshot)
{
    if (snapshot->error.code == 0) {
        strcpy(op->parent_lv, snapshot->parent_lv);
        commit_leaf(l, op);
        return;
    }
    op_fail(op, snapshot->error.code, "the source could not be snapshotted: %s",
            snapshot->error.text);
}

void create_wake(struct leader *l, const struct op *snapshot)
{
    struct op *op;

    TAILQ_FOREACH (op, &l->ops, link) {
        if (op->state == OP_STATE_WAIT_SOURCE && uuid_equal(&op->source_id, &snapshot->volume_id))
            source_done(l, op, snapshot);
    }
}

/* --- requests --- */

static void start(struct leader *l, const struct waiter *w, const struct wanted *want)
{
    struct error err = ERROR_INIT;
    struct uuid id = uuid_random();

    struct op *op = op_new(l, OP_CREATE, &id);
    op->request_id = w->request_id;
    op->prefers_host = w->host_id;
    op->size = want->size;
    op->thick = want->thick;
    op->importing = want->importing;
    strcpy(op->name, want->name); /* its length was checked */
    op_add_waiter(l, op, w);
    int rc = uuid_is_zero(&want->source_id) ? 0 : check_clone(l, op, want, &err);
    if (rc == 0)
        rc = pool_check_overcommit(l, op->size, &err);
    if (rc < 0) {
        op_fail(op, rc, "%s", err.text);
        op_finish(l, op);
        return;
    }
    if (!op->source_is_volume) {
        commit_leaf(l, op);
        return;
    }
    op_move(op, OP_STATE_WAIT_SOURCE);
    snapshot_start(l, catalogue_by_id(l->catalogue, &op->source_id), "", w->host_id, NULL);
}

/* False: answered. */
static bool take_request(struct leader *l, const struct waiter *w, const Lunar__VolumeCreate *m,
                         struct wanted *ret)
{
    struct error err = ERROR_INIT;
    struct uuid snapshot = uuid_from_pb(m->source_snapshot_id);
    struct uuid volume = uuid_from_pb(m->source_volume_id);

    *ret = (struct wanted){.name = m->name,
                           .size = m->size,
                           .thick = m->thick,
                           .importing = m->importing,
                           .source_is_volume = !uuid_is_zero(&volume)};
    ret->source_id = ret->source_is_volume ? volume : snapshot;
    int rc = volume_name_check(m->name, &err);
    if (rc == 0 && !uuid_is_zero(&snapshot) && !uuid_is_zero(&volume))
        rc = error_set(&err, LUNAR_E_INVALID, "a clone has one source");
    if (rc == 0 && m->importing && !uuid_is_zero(&ret->source_id))
        rc = error_set(&err, LUNAR_E_INVALID, "a clone is not imported");
    if (rc == 0 && (m->size || uuid_is_zero(&ret->source_id)))
        rc = volume_size_check(m->size, &err);
    if (rc < 0)
        reply_error(l, w, err.code, err.text);
    return rc == 0;
}

void create_request(struct leader *l, const struct waiter *w, const Lunar__VolumeCreate *m)
{
    struct wanted want;

    if (!take_request(l, w, m, &want))
        return;
    const struct catalogue_volume *v = catalogue_by_name(l->catalogue, m->name);
    if (v) {
        existing(l, w, v, &want);
        return;
    }
    struct op *op = op_by_name(l, m->name);
    if (!op)
        start(l, w, &want);
    else if (is_wanted(&want, op->size, op->thick, &op->source_id, op->importing,
                       uuid_equal(&w->request_id, &op->request_id)))
        op_add_waiter(l, op, w);
    else
        refuse_other(l, w, &want, op->size, op->thick, &op->source_id);
}

/* After a takeover: a layer that is still new, whoever asked for it. */
struct op *create_resume(struct leader *l, const struct catalogue_volume *v)
{
    struct op *op = op_new(l, OP_CREATE, &v->id);
    op->request_id = v->request_id;
    op->size = v->size;
    op->thick = v->thick;
    op->importing = v->importing;
    op->source_id = v->source_id;
    op->source_is_volume = v->source_is_volume;
    strcpy(op->name, v->name);
    op_move(op, OP_STATE_WAIT_NODE);
    job_start(l, op);
    return op;
}

static void after_create(struct leader *l, struct op *op, int rc, const struct error *err)
{
    if (catalogue_by_id(l->catalogue, &op->volume_id)) {
        op_move(op, OP_STATE_WAIT_NODE);
        job_start(l, op);
        return;
    }
    op_fail(op, rc < 0 ? rc : LUNAR_E_INDETERMINATE, "%s",
            rc < 0 ? err->text : "the new layer is not in the metadata");
    op_finish(l, op);
}

static void after_job(struct leader *l, struct op *op)
{
    const struct catalogue_layer *leaf = job_layer(l, op);
    struct catalogue_args args;
    char vg[POOL_NAME_SIZE + 6];

    pool_vg_name(l->sb->pool_name, vg);
    catalogue_made_args(vg, leaf, &args);
    op_commit(l, op, OP_STATE_COMMIT_MADE, &args);
}

void create_step(struct leader *l, struct op *op, int rc, const struct error *err)
{
    switch (op->state) {
    case OP_STATE_COMMIT_CREATE:
        after_create(l, op, rc, err);
        return;
    case OP_STATE_WAIT_NODE:
    case OP_STATE_GRANT:
    case OP_STATE_COMMAND:
    case OP_STATE_UNGRANT:
        if (job_step(l, op, rc, err))
            after_job(l, op);
        return;
    default:
        if (rc < 0)
            op_fail(op, rc, "%s", err->text);
        op_finish(l, op);
    }
}
