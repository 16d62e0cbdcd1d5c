/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Layers that nobody needs: removed in the background, many in one commit, the topmost first, so
 * that a layer never goes before one that stands upon it.
 *
 * A layer stays while any node's grant names it (SAFETY 14), and while an operation is about to
 * build upon it. Failure modes: the commit fails, or its outcome is unknown: the fresh catalogue
 * says what is left, and the next reconciliation tries again, as does the next leader.
 */
#include <stdlib.h>
#include <string.h>

#include "coordinator/leader_internal.h"

/* Names of one command's layers. */
struct batch {
    const struct catalogue_layer *layers[CATALOGUE_REMOVE_MAX];
    uint32_t n;
};

bool op_builds_upon(const struct leader *l, const struct catalogue_layer *layer)
{
    const struct op *op;
    TAILQ_FOREACH (op, &l->ops, link)
        if (strcmp(op->parent_lv, layer->lv_name) == 0)
            return true;
    return false;
}

bool grant_any_names(const struct leader *l, const struct catalogue_layer *layer)
{
    for (uint32_t h = 1; h <= l->sb->layout.max_nodes; h++) {
        const struct node *n = &l->nodes[h];
        for (uint32_t i = 0; n->has_grants && i < n->grants.n_entries; i++)
            if (grant_names(&n->grants.entries[i], layer))
                return true;
    }
    return false;
}

static int deepest_first(const void *a, const void *b)
{
    const struct catalogue_layer *one = *(const struct catalogue_layer *const *)a;
    const struct catalogue_layer *two = *(const struct catalogue_layer *const *)b;
    return one->depth == two->depth ? strcmp(one->lv_name, two->lv_name)
                                    : (one->depth < two->depth) - (one->depth > two->depth);
}

/* What stays keeps what it stands upon. */
static void choose(struct leader *l, const struct catalogue_layer **garbage, uint32_t n,
                   struct batch *ret)
{
    bool *stays = calloc(l->catalogue->n_layers, sizeof *stays);

    if (!stays)
        abort();
    qsort(garbage, n, sizeof *garbage, deepest_first);
    for (uint32_t i = 0; i < n && ret->n < CATALOGUE_REMOVE_MAX; i++) {
        const struct catalogue_layer *layer = garbage[i];
        bool stay = stays[layer - l->catalogue->layers] || op_builds_upon(l, layer) ||
                    grant_any_names(l, layer);
        if (!stay)
            ret->layers[ret->n++] = layer;
        else if (layer->parent != CATALOGUE_NO_LAYER)
            stays[layer->parent] = true;
    }
    free(stays);
}

void garbage_collect(struct leader *l)
{
    const struct catalogue *c = l->catalogue;
    const struct catalogue_layer **garbage = NULL;
    struct uuid none = {{0}};
    struct batch batch = {.n = 0};
    struct catalogue_args args;
    char vg[POOL_NAME_SIZE + 6];
    uint32_t n = 0;

    for (uint32_t i = 0; i < c->n_layers; i++)
        n += c->layers[i].garbage;
    if (n == 0 || l->garbage_waits || op_by_volume(l, &none))
        return;
    garbage = calloc(n, sizeof *garbage);
    if (!garbage)
        abort();
    for (uint32_t i = n = 0; i < c->n_layers; i++)
        if (c->layers[i].garbage)
            garbage[n++] = &c->layers[i];
    choose(l, garbage, n, &batch);
    free(garbage);
    if (batch.n == 0)
        return;
    pool_vg_name(l->sb->pool_name, vg);
    catalogue_remove_args(vg, batch.layers, batch.n, &args);
    op_commit(l, op_new(l, OP_GARBAGE, &none), OP_STATE_COMMIT_REMOVE, &args);
}

void garbage_step(struct leader *l, struct op *op, int rc, const struct error *err)
{
    if (rc < 0)
        op_fail(op, rc, "%s", err->text);
    l->garbage_waits = rc < 0;
    op_finish(l, op);
}
