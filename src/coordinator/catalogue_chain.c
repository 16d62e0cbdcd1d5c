/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chains: who stands on whom (SAFETY 16: the tags say the chain, nothing else does), and which
 * layers nobody needs.
 *
 * While a merged layer's snapshot gets its place in the layer below (op_merge_name.c) there is a
 * moment at which both have its tags, every one of them alike. Then the lower one is it, and the
 * upper one a plain frozen layer that has something to lose. Two layers of one id that are anything
 * else than that are no snapshot at all (catalogue.c).
 *
 * Happy path: each layer's parent is looked up and is sound itself; a layer that no leaf and no
 * snapshot stands upon, and that is neither, is garbage. Failure modes: a parent that is missing,
 * foreign, or a leaf, a chain that is a ring or too long: all that stand on it are foreign. As long
 * as anything of lunar's is foreign nothing is held for garbage: what is broken may have needed it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/catalogue_private.h"
#include "coordinator/mem.h"
#include "coordinator/tags.h"

static int by_lv_name(const void *a, const void *b)
{
    return strcmp(((const struct candidate *)a)->lv->name, ((const struct candidate *)b)->lv->name);
}

static struct candidate *find_candidate(const struct builder *b, const char *lv_name)
{
    const struct lvm_lv lv = {.name = (char *)(uintptr_t)lv_name};
    const struct candidate key = {.lv = &lv};
    return b->n ? bsearch(&key, b->all, b->n, sizeof key, by_lv_name) : NULL;
}

/* A leaf has nobody above it but its own volume's overlay, a former leaf nobody but the leaf. */
static bool may_stand_on(const struct candidate *c, const struct candidate *parent)
{
    switch (parent->role) {
    case CATALOGUE_LEAF:
        return c->role == CATALOGUE_OVERLAY && c->leaf == parent;
    case CATALOGUE_FREEZING:
        return parent->leaf == c;
    default:
        return parent->role == CATALOGUE_SNAPSHOT || parent->role == CATALOGUE_FROZEN;
    }
}

static const char *parent_problem(const struct candidate *c, const struct candidate *parent)
{
    if (!parent)
        return "a layer below it is missing";
    if (parent->visiting)
        return "its chain of layers is a ring";
    if (parent->why)
        return "a layer below it is broken";
    if (!may_stand_on(c, parent))
        return "a layer below it is a leaf itself";
    return parent->depth == CATALOGUE_LAYERS_MAX ? "its chain of layers is too long" : NULL;
}

/*
 * Settles c and what is below it. Depth first by a list of its own: the chain of a broken VG may be
 * as long as it has LVs.
 */
static void check(struct builder *b, struct candidate *c, struct candidate **stack)
{
    uint32_t n = 0;

    for (; c && !c->why && c->depth == 0 && !c->visiting;) {
        c->visiting = true;
        stack[n++] = c;
        if (strcmp(c->parent, "-") == 0)
            break;
        c = find_candidate(b, c->parent);
    }
    while (n > 0) {
        c = stack[--n];
        bool bottom = strcmp(c->parent, "-") == 0;
        struct candidate *parent = bottom ? NULL : find_candidate(b, c->parent);
        c->why = bottom ? NULL : parent_problem(c, parent);
        c->visiting = false;
        c->below_it = parent;
        c->depth = parent ? parent->depth + 1 : 1;
    }
}

/* The volume whose state the snapshot is. */
static const char *snapshot_volume(const struct candidate *c)
{
    return tags_has_key(c->lv, "sv") ? tags_value(c->lv, "sv") : tags_value(c->lv, "v");
}

static bool same_text(const char *a, const char *b)
{
    return a && b && strcmp(a, b) == 0;
}

static bool is_same_snapshot(const struct candidate *a, const struct candidate *b)
{
    static const char *const keys[] = {"si", "sn", "st", "s"};

    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (!same_text(tags_value(a->lv, keys[i]), tags_value(b->lv, keys[i])))
            return false;
    if (tags_has_key(a->lv, "sg") != tags_has_key(b->lv, "sg"))
        return false;
    return same_text(snapshot_volume(a), snapshot_volume(b)) &&
           (!tags_has_key(a->lv, "sg") ||
            same_text(tags_value(a->lv, "sg"), tags_value(b->lv, "sg")));
}

/* A mark that says more than a merge may do is not believed: the layer is right where it is. */
static void find_merged(struct candidate *c)
{
    const struct candidate *below = c->below_it;

    if (!below || !tags_has(c->lv, "lunar.m"))
        return;
    if (c->role == CATALOGUE_FROZEN ||
        (c->role == CATALOGUE_SNAPSHOT && below->role == CATALOGUE_FROZEN)) {
        c->merged = true;
    } else if (c->role == CATALOGUE_SNAPSHOT && below->role == CATALOGUE_SNAPSHOT &&
               is_same_snapshot(c, below)) {
        c->merged = c->sheds_name = true;
        c->role = CATALOGUE_FROZEN;
    }
}

void chain_check_all(struct builder *b)
{
    struct candidate **stack = mem_array(b->n, sizeof *stack);

    for (uint32_t i = 0; i < b->n; i++)
        check(b, &b->all[i], stack);
    free(stack);
    /* Roles hang together: neither half of a pair stands without the other. */
    for (uint32_t i = 0; i < b->n; i++) {
        struct candidate *c = &b->all[i];
        if (!c->why && c->leaf && c->leaf->why)
            c->why = "its volume's leaf is foreign";
        if (!c->why && c->former && c->former->why)
            c->former = NULL;
        if (!c->why && c->overlay && c->overlay->why)
            c->overlay = NULL;
        if (!c->why)
            find_merged(c);
    }
}

static void fill_layer(const struct candidate *c, struct catalogue_layer *ret)
{
    const struct lvm_lv *lv = c->lv;

    *ret = (struct catalogue_layer){.volume_short = uuid_short(&c->volume),
                                    .index = c->index,
                                    .map_generation = c->map_generation,
                                    .size = lv->size,
                                    .is_new = c->is_new,
                                    .deleting = tags_has(lv, "lunar.del"),
                                    .n_segments = lv->n_segments,
                                    .merged = c->merged,
                                    .sheds_name = c->sheds_name,
                                    .role = c->role,
                                    .parent = CATALOGUE_NO_LAYER,
                                    .depth = c->depth};
    snprintf(ret->lv_name, sizeof ret->lv_name, "%s", lv->name);
    if (c->role == CATALOGUE_FROZEN)
        tags_number(lv, "s", &ret->left_size);
    ret->segments = mem_array(lv->n_segments, sizeof *ret->segments);
    if (lv->n_segments)
        memcpy(ret->segments, lv->segments, lv->n_segments * sizeof *ret->segments);
}

void chain_fill_layers(struct builder *b)
{
    struct catalogue *c = b->ret;

    c->layers = mem_array(b->n, sizeof *c->layers);
    for (uint32_t i = 0; i < b->n; i++) {
        if (b->all[i].why) {
            c->broken |= tags_any(b->all[i].lv);
            continue;
        }
        b->all[i].layer = c->n_layers;
        fill_layer(&b->all[i], &c->layers[c->n_layers++]);
    }
    for (uint32_t i = 0; i < b->n; i++) {
        const struct candidate *below = b->all[i].below_it;
        if (b->all[i].why || !below)
            continue;
        c->layers[b->all[i].layer].parent = below->layer;
        c->layers[below->layer].users++;
    }
}

void chain_find_garbage(struct catalogue *c)
{
    for (uint32_t i = 0; i < c->n_layers; i++)
        c->layers[i].garbage = !c->broken;
    for (uint32_t i = 0; i < c->n_layers; i++) {
        enum catalogue_role role = c->layers[i].role;
        if ((role == CATALOGUE_FROZEN && !c->layers[i].sheds_name) || role == CATALOGUE_REPLACED)
            continue; /* as such nobody needs it */
        for (uint32_t k = i; k != CATALOGUE_NO_LAYER && c->layers[k].garbage;
             k = c->layers[k].parent)
            c->layers[k].garbage = false;
    }
}
