/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Trimming: what lies behind the end of what a layer holds goes back to the pool. A discard, a
 * merge or a growth that was more than the writer needed leaves such space.
 *
 * Happy path, for one layer that nobody has: any node gets a job grant that names it and measures
 * where its bytes end (command Measure, which only reads); the grant is erased; one commit raises
 * the layer's map generation; one makes the LV shorter. When a client asked, then the next layer of
 * its volume.
 *
 * Why nobody has the extents that others may be given at once (SAFETY 14): no grant names the
 * layer, of any node, in memory, which has what either copy or a report said at the takeover; one
 * whose erasure is under way counts. Every grant comes through grant_add or grant_prepend, which
 * tell us (trim_may_grant): then what was measured is void, for its new owner may have written
 * behind it, even if he is gone again. From the first commit on an attach of what stands on the
 * layer is refused as BUSY; merges do not begin. The node that measured has said that its map is
 * gone, or is proved dead.
 *
 * Why nobody comes with an old map: an agent maps under a grant that it finds on the LUN, with the
 * extents of the command for that attachment; a grant made later is told by the catalogue after the
 * commit, an older one is erased, and its attachment is given to nobody again. And the generation
 * rises before the extents go: within one generation maps only get longer, and an agent refuses a
 * lower one.
 *
 * Failure modes: the leader is lost while a node measures: the job's grant is one of no volume and
 * is taken back as a left-over. Lost after the generation's commit: the layer is what it was, with
 * another number. Lost at the last commit: the catalogue says which of both sizes it has, and
 * either is right; the next leader has read it after the lease was its own. The node fails,
 * refuses or dies: the layer stays as it is. An end that cannot be is not believed.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "coordinator/leader_internal.h"

/* What every layer's image is made of (agent/stack_format.c): an image ends with a whole one, and
 * has a few at least, of its header and tables. */
#define CLUSTER 65536u
#define END_MIN (3u * CLUSTER)
/* A leaf keeps so much behind its end: the first growth of a writer is a chunk of that size. */
#define LEAF_RESERVE CATALOGUE_THIN_START

static void start_look(struct leader *l, struct op *op);

static bool frees(const struct op *op)
{
    return op->kind == OP_TRIM &&
           (op->state == OP_STATE_COMMIT_GENERATION || op->state == OP_STATE_COMMIT_REDUCE);
}

bool trim_measures(const struct leader *l, const struct catalogue_layer *layer)
{
    const struct op *op;

    TAILQ_FOREACH (op, &l->ops, link)
        if (op->kind == OP_TRIM && !frees(op) && strcmp(layer->lv_name, op->name) == 0)
            return true;
    return false;
}

bool trim_frees_layer(const struct leader *l, const struct op *except,
                      const struct catalogue_layer *layer)
{
    const struct op *op;

    TAILQ_FOREACH (op, &l->ops, link)
        if (op != except && frees(op) && strcmp(layer->lv_name, op->name) == 0)
            return true;
    return false;
}

bool trim_frees(const struct leader *l, const struct catalogue_volume *v)
{
    for (uint32_t i = 0; i < v->n_layers; i++)
        if (trim_frees_layer(l, NULL, &v->layers[i]))
            return true;
    return false;
}

bool trim_may_grant(struct leader *l, const struct op *op, const struct catalogue_layer *layers,
                    uint32_t n)
{
    struct op *trim;

    for (uint32_t i = 0; i < n; i++)
        if (trim_frees_layer(l, op, &layers[i]))
            return false;
    for (uint32_t i = 0; i < n && (!op || op->kind != OP_TRIM); i++)
        trim_idle_reset(l, &layers[i]);
    TAILQ_FOREACH (trim, &l->ops, link)
        for (uint32_t i = 0; trim->kind == OP_TRIM && trim != op && i < n; i++)
            trim->active |= strcmp(layers[i].lv_name, trim->name) == 0;
    return true;
}

/* --- from layer to layer --- */

/* Below the one that the op was at, in the chain of the volume that a client named; NULL: it was
 * the last one. */
static const struct catalogue_layer *next_layer(struct leader *l, const struct op *op)
{
    const struct catalogue_volume *v = catalogue_by_id(l->catalogue, &op->source_id);

    for (uint32_t i = 0; v && i + 1 < v->n_layers; i++)
        if (strcmp(v->layers[i].lv_name, op->name) == 0)
            return catalogue_layer_by_name(l->catalogue, v->layers[i + 1].lv_name);
    return NULL;
}

static bool may_shrink(struct leader *l, const struct op *op, const struct catalogue_layer *layer)
{
    uint64_t floor = trim_floor(l, layer);
    return floor < layer->size && trim_is_idle(l, layer, op);
}

/* With the layer that the op names, or the first one below it that may get shorter. */
static void go_on(struct leader *l, struct op *op)
{
    const struct catalogue_layer *layer = catalogue_layer_by_name(l->catalogue, op->name);

    while (layer && !may_shrink(l, op, layer)) {
        layer = next_layer(l, op);
        if (layer)
            strcpy(op->name, layer->lv_name);
    }
    if (!layer) {
        op_finish(l, op);
        return;
    }
    op->started_ms = l->now_ms; /* each layer has its time */
    op_move(op, OP_STATE_WAIT_NODE);
    start_look(l, op);
}

static void end_layer(struct leader *l, struct op *op)
{
    const struct catalogue_layer *layer = catalogue_layer_by_name(l->catalogue, op->name);
    const struct catalogue_layer *below = next_layer(l, op);

    if (layer && !op->active)
        trim_idle_done(l, layer);
    l->trim_failures = 0;
    if (!below) {
        op_finish(l, op);
        return;
    }
    strcpy(op->name, below->lv_name);
    go_on(l, op);
}

static void give_up(struct leader *l, struct op *op)
{
    const struct catalogue_layer *layer = catalogue_layer_by_name(l->catalogue, op->name);

    l->trim_failures++;
    if (layer && !error_retryable(op->error.code))
        trim_idle_done(l, layer);
    else if (layer)
        trim_idle_reset(l, layer);
    op_finish(l, op);
}

/* --- steps --- */

/* In WAIT_NODE, again with each node event and tick. */
static void start_look(struct leader *l, struct op *op)
{
    const struct catalogue_layer *layer = catalogue_layer_by_name(l->catalogue, op->name);

    if (!layer || !may_shrink(l, op, layer)) {
        end_layer(l, op);
        return;
    }
    op->host_id = node_for_job(l);
    if (op->host_id == 0)
        return;
    op->attachment_id = uuid_random();
    op->command_id = uuid_random();
    op->active = false;
    op->end = 0;
    if (grant_add(l, op, TABLE_MODE_JOB, layer, 1))
        op_write_grants(l, op, OP_STATE_GRANT);
    else
        op->host_id = 0;
}

static void after_look(struct leader *l, struct op *op, int rc, const struct error *err)
{
    if (rc == LUNAR_E_INDETERMINATE || rc == LUNAR_E_STALE) {
        op->command_id = uuid_random(); /* its map may stand: the grant does, too */
        op->resend = true;
        return;
    }
    if (rc < 0)
        op_fail(op, rc, "node '%s': %s", node_name(l, op->host_id), err->text);
    grant_drop(l, op);
    op_write_grants(l, op, OP_STATE_UNGRANT);
}

/* The end that the node told is possible. */
static bool is_sound(const struct op *op, const struct catalogue_layer *layer)
{
    return op->end >= END_MIN && op->end <= layer->size && op->end % CLUSTER == 0;
}

static uint64_t size_for(struct leader *l, const struct catalogue_layer *layer, uint64_t end)
{
    uint64_t extent = l->catalogue->extent_size, floor = trim_floor(l, layer);
    uint64_t want = end + (layer->role == CATALOGUE_LEAF ? LEAF_RESERVE : 0);

    want = (want + extent - 1) / extent * extent;
    return want > floor ? want : floor;
}

static void raise_generation(struct leader *l, struct op *op, const struct catalogue_layer *layer)
{
    struct catalogue_args args;
    char vg[POOL_NAME_SIZE + 6];

    op->map_generation = layer->map_generation + 1;
    pool_vg_name(l->sb->pool_name, vg);
    catalogue_generation_args(vg, layer, &args);
    op_commit(l, op, OP_STATE_COMMIT_GENERATION, &args);
}

/* Measured, and no job is left. */
static void decide(struct leader *l, struct op *op)
{
    const struct catalogue_layer *layer = catalogue_layer_by_name(l->catalogue, op->name);

    if (layer && op->active) {
        op_fail(op, LUNAR_E_BUSY, "somebody has had layer %s meanwhile; try again", op->name);
        give_up(l, op);
        return;
    }
    if (!layer || !may_shrink(l, op, layer)) {
        end_layer(l, op);
        return;
    }
    if (!is_sound(op, layer)) {
        op_fail(op, LUNAR_E_CORRUPT,
                "node '%s' says that layer %s, of %" PRIu64 " bytes, ends at %" PRIu64,
                node_name(l, op->host_id), op->name, layer->size, op->end);
        give_up(l, op);
        return;
    }
    op->size = size_for(l, layer, op->end);
    bool asked = !uuid_is_zero(&op->source_id);
    if (op->size < layer->size && (asked || trim_is_worth(layer->size, op->size))) {
        raise_generation(l, op, layer);
        return;
    }
    log_debug("trim_not_worth layer=%s size=%" PRIu64 " end=%" PRIu64, op->name, layer->size,
              op->end);
    end_layer(l, op);
}

static void after_ungrant(struct leader *l, struct op *op, int rc, const struct error *err)
{
    if (rc < 0) {
        grant_restore(l, op);
        op_fail(op, rc, "the job's grant could not be erased: %s", err->text);
    }
    free(op->dropped);
    op->dropped = NULL;
    if (op->elsewhere)
        op_fail(op, LUNAR_E_NOT_JOINED, "node '%s' died", node_name(l, op->host_id));
    if (op->error.code != 0)
        give_up(l, op);
    else
        decide(l, op);
}

static void after_generation(struct leader *l, struct op *op, int rc, const struct error *err)
{
    const struct catalogue_layer *layer = catalogue_layer_by_name(l->catalogue, op->name);
    struct catalogue_args args;
    char vg[POOL_NAME_SIZE + 6];

    if (!layer || layer->map_generation != op->map_generation || layer->size <= op->size ||
        !may_shrink(l, op, layer)) {
        op_fail(op, rc < 0 ? rc : LUNAR_E_INDETERMINATE, "%s",
                rc < 0 ? err->text : "the layer is not as it was any more");
        give_up(l, op);
        return;
    }
    log_info("trim layer=%s from=%" PRIu64 " to=%" PRIu64 " end=%" PRIu64 " generation=%u",
             op->name, layer->size, op->size, op->end, op->map_generation);
    pool_vg_name(l->sb->pool_name, vg);
    catalogue_reduce_args(vg, layer, op->size, &args);
    op_commit(l, op, OP_STATE_COMMIT_REDUCE, &args);
}

static void after_reduce(struct leader *l, struct op *op, int rc, const struct error *err)
{
    const struct catalogue_layer *layer = catalogue_layer_by_name(l->catalogue, op->name);

    if (!layer || layer->size <= op->size) {
        end_layer(l, op);
        return;
    }
    op_fail(op, rc < 0 ? rc : LUNAR_E_INDETERMINATE, "%s",
            rc < 0 ? err->text : "the layer has not become shorter");
    give_up(l, op);
}

void trim_step(struct leader *l, struct op *op, int rc, const struct error *err)
{
    switch (op->state) {
    case OP_STATE_WAIT_NODE:
        start_look(l, op);
        return;
    case OP_STATE_GRANT:
        if (rc == 0) {
            op_send_command(l, op);
            return;
        }
        op_fail(op, rc, "%s", err->text); /* the entry stands, and is taken back as a left-over */
        give_up(l, op);
        return;
    case OP_STATE_COMMAND:
        after_look(l, op, rc, err);
        return;
    case OP_STATE_UNGRANT:
        after_ungrant(l, op, rc, err);
        return;
    case OP_STATE_COMMIT_GENERATION:
        after_generation(l, op, rc, err);
        return;
    default:
        after_reduce(l, op, rc, err);
    }
}

/* --- beginnings --- */

static struct op *new_op(struct leader *l, const char *lv_name)
{
    struct uuid id = uuid_random(); /* the job's: no volume has it */
    struct op *op = op_new(l, OP_TRIM, &id);

    snprintf(op->name, sizeof op->name, "%s", lv_name);
    return op;
}

void trim_begin(struct leader *l, const struct catalogue_layer *layer)
{
    go_on(l, new_op(l, layer->lv_name));
}

static int check(struct leader *l, const struct catalogue_volume *v, struct error *err)
{
    uint32_t host = 0;

    if (!v || catalogue_volume_is_deleting(v))
        return error_set(err, LUNAR_E_NOT_FOUND, "no such volume");
    if (v->thick)
        return error_set(err, LUNAR_E_UNSUPPORTED, "a thick volume has all of its space for good");
    const struct table_entry *e = grant_find(l, &v->id, &host);
    if (e && e->mode == TABLE_MODE_ATTACH && !life_is_over(l, host, e->generation))
        return error_set(err, LUNAR_E_IN_USE,
                         "volume '%s' is attached to node '%s'; space is given back of what nobody "
                         "has open: detach it first",
                         v->name, node_name(l, host));
    if (e || catalogue_volume_is_new(v) || catalogue_volume_is_changing(v) ||
        !trim_is_idle(l, catalogue_layer_by_name(l->catalogue, v->layers[0].lv_name), NULL))
        return error_set(err, LUNAR_E_BUSY,
                         "another operation on the volume is under way; try again");
    return 0;
}

void trim_request(struct leader *l, const struct waiter *w, const Lunar__VolumeTrim *m)
{
    struct uuid id = uuid_from_pb(m->volume_id);
    const struct catalogue_volume *v = catalogue_by_id(l->catalogue, &id);
    struct error err = ERROR_INIT;
    struct op *op;

    TAILQ_FOREACH (op, &l->ops, link)
        if (op->kind == OP_TRIM && uuid_equal(&op->source_id, &id)) {
            op_add_waiter(l, op, w);
            return;
        }
    if (check(l, v, &err) < 0) {
        reply_error(l, w, err.code, err.text);
        return;
    }
    op = new_op(l, v->layers[0].lv_name);
    op->source_id = id;
    op_add_waiter(l, op, w);
    go_on(l, op);
}
