/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Merging layers that nobody needs alone, in the background, one pair at a time: of a plain frozen
 * layer X and the one layer Y upon it, plain and frozen or a snapshot, what Y holds goes into X,
 * and then whatever stood on Y stands on X, which is the snapshot if Y was one. Y is garbage then.
 *
 * Happy path: one commit gives X room; any node gets a job grant that names the chain from Y down
 * and copies (command Merge; SAFETY 18); the grant is erased; one commit marks Y as merged; two
 * move the snapshot's name (op_merge_name.c); one for each layer upon Y puts it upon X.
 *
 * Why X may be written though other nodes have it open (SAFETY 15): all of them read it through Y,
 * so they never ask it for what the job changes (agent/qsd_merge.c). That holds while X has no user
 * but Y: in the catalogue, in every operation that is about to build upon it, and in every grant,
 * for a node keeps the chain that it opened until it detaches. Until Y is marked, X with only a
 * part of Y in it is what it was to everybody; from then on X alone shows the same as Y upon X.
 *
 * Failure modes: the leader is lost: its job's grant is one of no volume, and is taken back like
 * any other left-over (leader.c), which cancels the job; then the pair is found again and copied
 * from the beginning; a marked Y goes on with its name and what stands upon it. The node says BUSY:
 * it is asked again. It refuses, fails or dies: the next attempt comes after a pause, which doubles
 * if the pair may be the reason, and other pairs have their turn first. The pool has not enough
 * room for X: it waits. What X got was not enough, for attempts that were killed have left clusters
 * in it that nothing refers to: it gets more, up to a bound; other failures give it nothing.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "coordinator/leader_internal.h"

/* A failed attempt is followed by a pause of this, doubled with each further failure, up to 64
 * times. */
#define MERGE_PAUSE_MS     (30u * 1000)
#define MERGE_PAUSE_SHIFTS 6u

/* --- which pair --- */

static bool is_at_rest(const struct catalogue_layer *layer)
{
    return (layer->role == CATALOGUE_FROZEN || layer->role == CATALOGUE_SNAPSHOT) &&
           !layer->is_new && !layer->deleting && !layer->garbage;
}

static const struct catalogue_layer *below(const struct catalogue *c,
                                           const struct catalogue_layer *layer)
{
    return layer->parent == CATALOGUE_NO_LAYER ? NULL : &c->layers[layer->parent];
}

/* Somebody has X, or will have, and reads it otherwise than through Y; or a job is at one of them.
 */
static bool is_read_directly(const struct leader *l, const struct catalogue_layer *y,
                             const struct catalogue_layer *x)
{
    for (uint32_t h = 1; h <= l->sb->layout.max_nodes; h++) {
        const struct node *n = &l->nodes[h];
        for (uint32_t i = 0; n->has_grants && i < n->grants.n_entries; i++) {
            const struct table_entry *e = &n->grants.entries[i];
            bool has_x = grant_names(e, x), has_y = grant_names(e, y);
            if ((has_x && !has_y) || ((has_x || has_y) && e->mode == TABLE_MODE_JOB))
                return true;
        }
    }
    return op_builds_upon(l, x);
}

static bool is_pair(const struct catalogue_layer *y, const struct catalogue_layer *x)
{
    return y && x && is_at_rest(y) && is_at_rest(x) && x->role == CATALOGUE_FROZEN && !x->merged &&
           x->users == 1;
}

/* The largest virtual size of what stands on the layer: no more clusters than that are ever needed.
 */
static bool stands_on(const struct catalogue *c, uint32_t layer, const char *lv_name)
{
    while (layer != CATALOGUE_NO_LAYER && strcmp(c->layers[layer].lv_name, lv_name) != 0)
        layer = c->layers[layer].parent;
    return layer != CATALOGUE_NO_LAYER;
}

static uint64_t virtual_size(const struct catalogue *c, const struct catalogue_layer *y)
{
    uint64_t size = 0;

    for (uint32_t i = 0; i < c->n_volumes; i++) {
        const struct catalogue_volume *v = &c->volumes[i];
        for (uint32_t k = 0; k < v->n_layers; k++)
            if (strcmp(v->layers[k].lv_name, y->lv_name) == 0 && v->size > size)
                size = v->size;
    }
    for (uint32_t i = 0; i < c->n_snapshots; i++)
        if (stands_on(c, c->snapshots[i].layer, y->lv_name) && c->snapshots[i].size > size)
            size = c->snapshots[i].size;
    return size;
}

static uint64_t most_for(const struct catalogue *c, const struct catalogue_layer *y)
{
    return catalogue_merged_max(virtual_size(c, y), c->extent_size);
}

/* --- what failed --- */

static struct merge_failure *failure_of(struct leader *l, const struct catalogue_layer *y,
                                        const struct catalogue_layer *x)
{
    for (uint32_t i = 0; i < LEADER_MERGE_FAILED_MAX; i++) {
        struct merge_failure *f = &l->merge_failed[i];
        if (f->number > 0 && strcmp(f->upper, y->lv_name) == 0 && strcmp(f->lower, x->lv_name) == 0)
            return f;
    }
    return NULL;
}

static struct merge_failure *oldest_failure(struct leader *l)
{
    struct merge_failure *oldest = &l->merge_failed[0];

    for (uint32_t i = 1; i < LEADER_MERGE_FAILED_MAX; i++)
        if (l->merge_failed[i].number < oldest->number)
            oldest = &l->merge_failed[i];
    return oldest;
}

static void note_failure(struct leader *l, const struct op *op)
{
    const struct catalogue *c = l->catalogue;
    const struct catalogue_layer *y = catalogue_layer_by_name(l->catalogue, op->name);
    const struct catalogue_layer *x = y ? below(c, y) : NULL;
    int code = op->error.code;

    if (!x)
        return;
    bool full = code == LUNAR_E_NO_SPACE;
    struct merge_failure *f = failure_of(l, y, x);
    if (!f)
        f = oldest_failure(l);
    *f = (struct merge_failure){.number = ++l->n_merges_failed, .room = full ? 0 : op->size};
    snprintf(f->upper, sizeof f->upper, "%s", y->lv_name);
    snprintf(f->lower, sizeof f->lower, "%s", x->lv_name);
    /* By the node that was to copy: a commit's METADATA, for one, says nothing about the pair. */
    f->refused = op->state == OP_STATE_UNGRANT &&
                 (code == LUNAR_E_UNSUPPORTED || code == LUNAR_E_METADATA ||
                  code == LUNAR_E_CORRUPT || (full && x->size >= most_for(c, y)));
}

/* What X needs at most; X's own size if that is enough. */
static uint64_t room_for(struct leader *l, const struct catalogue_layer *y,
                         const struct catalogue_layer *x)
{
    const struct merge_failure *f = failure_of(l, y, x);
    uint64_t most = most_for(l->catalogue, y);
    uint64_t both = x->size + y->size;
    uint64_t want = both < most ? both : most;

    if (f && f->room > 0)
        want = f->room; /* X has it, or most of it: nothing was wrong with that */
    return want > x->size ? want : x->size;
}

/* --- steps --- */

static void pause_merges(struct leader *l)
{
    uint32_t shifts =
        l->merge_failures < MERGE_PAUSE_SHIFTS ? l->merge_failures : MERGE_PAUSE_SHIFTS;

    l->merge_failures++;
    l->merge_not_before_ms = l->now_ms + ((uint64_t)MERGE_PAUSE_MS << shifts);
}

/* It says nothing about the pair. */
static bool is_passing(int code)
{
    return code == LUNAR_E_BUSY || code == LUNAR_E_NOT_JOINED || code == LUNAR_E_FULL;
}

static void give_up(struct leader *l, struct op *op)
{
    if (is_passing(op->error.code))
        l->merge_not_before_ms = l->now_ms + MERGE_PAUSE_MS;
    else
        pause_merges(l);
    note_failure(l, op);
    op_finish(l, op);
}

/* The pair as it is now; NULL and the operation has come to its end if it is none any more. */
static const struct catalogue_layer *pair(struct leader *l, struct op *op,
                                          const struct catalogue_layer **ret_x)
{
    const struct catalogue_layer *y = catalogue_layer_by_name(l->catalogue, op->name);

    *ret_x = y ? below(l->catalogue, y) : NULL;
    if (is_pair(y, *ret_x))
        return y;
    op_fail(op, LUNAR_E_NOT_FOUND, "the layers are not as they were any more");
    op_finish(l, op);
    return NULL;
}

/* Y first, then what is below it; free(). */
static struct catalogue_layer *chain_of(const struct catalogue *c, const struct catalogue_layer *y,
                                        uint32_t *ret_n)
{
    struct catalogue_layer *chain = calloc(y->depth, sizeof *chain);
    uint32_t n = 0;

    if (!chain)
        abort();
    for (const struct catalogue_layer *layer = y; layer && n < y->depth; layer = below(c, layer))
        chain[n++] = *layer;
    *ret_n = n;
    return chain;
}

/* In WAIT_NODE, again with each node event and tick. */
static void start_job(struct leader *l, struct op *op)
{
    const struct catalogue_layer *x, *y = pair(l, op, &x);
    uint32_t n;

    if (!y)
        return;
    if (is_read_directly(l, y, x)) { /* by somebody who came while the layer got its room */
        op_fail(op, LUNAR_E_BUSY, "layer %s has got another reader", x->lv_name);
        give_up(l, op);
        return;
    }
    op->host_id = node_for_job(l);
    if (op->host_id == 0)
        return;
    op->attachment_id = uuid_random();
    op->command_id = uuid_random();
    struct catalogue_layer *chain = chain_of(l->catalogue, y, &n);
    bool added = grant_add(l, op, TABLE_MODE_JOB, chain, n);
    free(chain);
    if (added)
        op_write_grants(l, op, OP_STATE_GRANT);
    else
        op->host_id = 0;
}

static void after_extend(struct leader *l, struct op *op, int rc, const struct error *err)
{
    const struct catalogue_layer *x, *y = pair(l, op, &x);

    if (!y)
        return;
    if (x->size < op->size) {
        op_fail(op, rc < 0 ? rc : LUNAR_E_INDETERMINATE, "%s",
                rc < 0 ? err->text : "the layer has not grown");
        give_up(l, op);
        return;
    }
    op_move(op, OP_STATE_WAIT_NODE);
    start_job(l, op);
}

static void after_job(struct leader *l, struct op *op, int rc, const struct error *err)
{
    if (rc == LUNAR_E_INDETERMINATE || rc == LUNAR_E_STALE || rc == LUNAR_E_BUSY) {
        op->command_id = uuid_random(); /* it may be at it still: the grant stands */
        op->resend = true;
        return;
    }
    if (rc < 0)
        op_fail(op, rc, "node '%s': %s", node_name(l, op->host_id), err->text);
    grant_drop(l, op);
    op_write_grants(l, op, OP_STATE_UNGRANT);
}

static void after_ungrant(struct leader *l, struct op *op, int rc, const struct error *err)
{
    const struct catalogue_layer *x, *y;
    struct catalogue_args args;
    char vg[POOL_NAME_SIZE + 6];

    if (rc < 0) {
        grant_restore(l, op);
        op_fail(op, rc, "the job's grant could not be erased: %s", err->text);
    }
    if (op->elsewhere)
        op_fail(op, LUNAR_E_NOT_JOINED, "node '%s' died", node_name(l, op->host_id));
    if (op->error.code != 0) {
        give_up(l, op);
        return;
    }
    y = pair(l, op, &x);
    if (!y)
        return;
    pool_vg_name(l->sb->pool_name, vg);
    catalogue_merged_args(vg, y, &args);
    op_commit(l, op, OP_STATE_COMMIT_MERGED, &args);
}

/* Y is marked: its name goes to X, then the next layer that stands on it gets another place, or
 * none does any more. */
static void put_down(struct leader *l, struct op *op, int rc, const struct error *err)
{
    const struct catalogue *c = l->catalogue;
    const struct catalogue_layer *y = catalogue_layer_by_name(l->catalogue, op->name);
    struct catalogue_args args;
    char vg[POOL_NAME_SIZE + 6];
    uint32_t i = 0;

    if (!y) { /* what stood on it was deleted meanwhile, and it went with that */
        l->merge_failures = 0;
        op_finish(l, op);
        return;
    }
    if (rc < 0 || !y->merged || y->parent == CATALOGUE_NO_LAYER) {
        op_fail(op, rc < 0 ? rc : LUNAR_E_METADATA, "%s",
                rc < 0 ? err->text : "the merged layer is not in the metadata");
        give_up(l, op);
        return;
    }
    if (merge_name_waits(l, y)) {
        op_finish(l, op); /* taken up again when that commit is done */
        return;
    }
    if (merge_move_name(l, op, y))
        return;
    while (i < c->n_layers && !(c->layers[i].parent == (uint32_t)(y - c->layers)))
        i++;
    if (i == c->n_layers) {
        l->merge_failures = 0;
        op_finish(l, op);
        return;
    }
    pool_vg_name(l->sb->pool_name, vg);
    catalogue_reparent_args(vg, &c->layers[i], y, below(c, y), &args);
    op_commit(l, op, OP_STATE_COMMIT_REPARENT, &args);
}

void merge_step(struct leader *l, struct op *op, int rc, const struct error *err)
{
    switch (op->state) {
    case OP_STATE_COMMIT_EXTEND:
        after_extend(l, op, rc, err);
        return;
    case OP_STATE_WAIT_NODE:
        start_job(l, op);
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
        after_job(l, op, rc, err);
        return;
    case OP_STATE_UNGRANT:
        after_ungrant(l, op, rc, err);
        return;
    default:
        put_down(l, op, rc, err);
    }
}

/* --- beginnings --- */

static struct op *new_op(struct leader *l, const struct catalogue_layer *y)
{
    struct uuid id = uuid_random(); /* the job's: no volume has it */
    struct op *op = op_new(l, OP_MERGE, &id);

    snprintf(op->name, sizeof op->name, "%s", y->lv_name);
    return op;
}

static void begin(struct leader *l, const struct catalogue_layer *y,
                  const struct catalogue_layer *x)
{
    uint64_t room = room_for(l, y, x);
    struct catalogue_args args;
    char vg[POOL_NAME_SIZE + 6];

    /* Writers come first: a merge takes no more than half of what is left. */
    if (room > x->size && room - x->size > l->catalogue->vg_free / 2) {
        log_info("merge_waits layer=%s into=%s needs=%" PRIu64 " free=%" PRIu64, y->lv_name,
                 x->lv_name, room - x->size, l->catalogue->vg_free);
        pause_merges(l);
        return;
    }
    struct op *op = new_op(l, y);
    op->size = room;
    log_info("merge_begins layer=%s into=%s room=%" PRIu64, y->lv_name, x->lv_name, room);
    if (room == x->size) {
        op_move(op, OP_STATE_WAIT_NODE);
        start_job(l, op);
        return;
    }
    pool_vg_name(l->sb->pool_name, vg);
    catalogue_extend_args(vg, x, room, &args);
    op_commit(l, op, OP_STATE_COMMIT_EXTEND, &args);
}

bool merge_takes(const struct leader *l, const struct catalogue_layer *layer)
{
    const struct op *op = op_by_kind(l, OP_MERGE); /* there is one at a time */

    return op && strcmp(op->name, layer->lv_name) == 0;
}

/* Of each layer: how long the longest chain is that it is a part of. Free it. */
static uint32_t *chain_lengths(const struct catalogue *c)
{
    uint32_t *lengths = calloc(c->n_layers + 1u, sizeof *lengths);

    if (!lengths)
        abort();
    for (uint32_t i = 0; i < c->n_layers; i++) {
        uint32_t length = c->layers[i].depth;
        for (uint32_t k = i; c->layers[i].users == 0 && k != CATALOGUE_NO_LAYER;
             k = c->layers[k].parent)
            if (lengths[k] < length)
                lengths[k] = length;
    }
    return lengths;
}

/* The upper layer of the pair that is next: of the longest chain, and those that failed last. */
static const struct catalogue_layer *choose(struct leader *l)
{
    const struct catalogue *c = l->catalogue;
    const struct catalogue_layer *best = NULL;
    uint32_t *lengths = chain_lengths(c);
    uint64_t most = 0;

    for (uint32_t i = 0; i < c->n_layers; i++) {
        const struct catalogue_layer *y = &c->layers[i], *x = below(c, y);
        if (y->merged || !is_pair(y, x))
            continue;
        const struct merge_failure *f = failure_of(l, y, x);
        uint64_t rank = f ? UINT64_MAX / 2 - f->number : UINT64_MAX / 2 + lengths[i];
        if (rank > most && !(f && f->refused) && !is_read_directly(l, y, x)) {
            best = y;
            most = rank;
        }
    }
    free(lengths);
    return best;
}

void merge_layers(struct leader *l)
{
    const struct catalogue *c = l->catalogue;

    if (!l->merges || c->broken || l->now_ms < l->merge_not_before_ms || op_by_kind(l, OP_MERGE) ||
        op_by_kind(l, OP_TRIM))
        return;
    for (uint32_t i = 0; i < c->n_layers; i++) {
        const struct catalogue_layer *y = &c->layers[i];
        if (!merge_is_left(y))
            continue;
        if (!merge_name_waits(l, y))
            put_down(l, new_op(l, y), 0, NULL);
        return;
    }
    const struct catalogue_layer *y = choose(l);
    if (y)
        begin(l, y, below(c, y));
}
