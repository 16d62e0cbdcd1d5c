/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which layer is a volume's leaf (the rule stands in catalogue.h).
 *
 * Happy path: of the layers with a leaf's role one is not new and not succeeded: the leaf. Beside
 * it there may be one that is new, the overlay, and one that it succeeded, the former leaf. Failure
 * modes: whatever else the roles say together is nobody's intent, and all of those layers are
 * foreign: two leaves, none, two new ones, a new one that goes nowhere, two volumes of one name.
 */
#include <stdlib.h>
#include <string.h>

#include "coordinator/catalogue_private.h"
#include "coordinator/mem.h"
#include "coordinator/tags.h"

/* A leaf, the one before it and the next one. */
#define GROUP_MAX 3u

/* One volume's layers that have a leaf's role. */
struct group {
    struct candidate *leaves[GROUP_MAX];
    uint32_t n, n_new;
    uint32_t next_index;
};

static void refuse(struct group *g, const char *why)
{
    for (uint32_t i = 0; i < g->n; i++)
        g->leaves[i]->why = why;
}

static bool succeeds(const struct candidate *by, const struct candidate *c)
{
    return by != c && !by->is_new &&
           (strcmp(by->parent, c->lv->name) == 0 ||
            (by->replaces && strcmp(by->replaces, c->lv->name) == 0));
}

static bool is_succeeded(const struct group *g, const struct candidate *c)
{
    for (uint32_t i = 0; i < g->n; i++)
        if (succeeds(g->leaves[i], c))
            return true;
    return false;
}

/* The one that is not succeeded and is as new as that; NULL: none, or several (`*ret_many`). */
static struct candidate *find_top(const struct group *g, bool is_new, bool *ret_many)
{
    struct candidate *top = NULL;

    *ret_many = false;
    for (uint32_t i = 0; i < g->n; i++) {
        struct candidate *c = g->leaves[i];
        if (c->is_new != is_new || (!is_new && is_succeeded(g, c)))
            continue;
        *ret_many |= top != NULL;
        top = c;
    }
    return *ret_many ? NULL : top;
}

/* It stands on the leaf and says what that becomes, or takes its place. */
static const char *overlay_problem(const struct candidate *overlay, const struct candidate *leaf)
{
    bool on_top = strcmp(overlay->parent, leaf->lv->name) == 0;
    bool instead = overlay->replaces && strcmp(overlay->replaces, leaf->lv->name) == 0;
    bool becomes = !uuid_is_zero(&overlay->below.snapshot_id);

    return (on_top && !overlay->replaces && becomes) || (instead && !on_top)
               ? NULL
               : "it is new, but not for its volume's leaf";
}

static void take_overlay(struct candidate *overlay, struct candidate *leaf)
{
    overlay->why = overlay_problem(overlay, leaf);
    if (overlay->why)
        return;
    overlay->role = CATALOGUE_OVERLAY;
    overlay->leaf = leaf;
    leaf->overlay = overlay;
}

static void take_former(struct candidate *former, struct candidate *leaf)
{
    former->role =
        strcmp(leaf->parent, former->lv->name) == 0 ? CATALOGUE_FREEZING : CATALOGUE_REPLACED;
    former->leaf = leaf;
    leaf->former = former;
}

/* What the former leaf becomes must be told by who succeeded it. */
static bool is_told(const struct candidate *leaf, const struct candidate *former)
{
    return strcmp(leaf->parent, former->lv->name) != 0 || !uuid_is_zero(&leaf->below.snapshot_id);
}

static void settle(struct group *g)
{
    bool two_leaves, two_new;
    struct candidate *leaf = find_top(g, false, &two_leaves);
    struct candidate *overlay = find_top(g, true, &two_new);

    for (uint32_t i = 1; i < g->n; i++)
        two_leaves |= !uuid_equal(&g->leaves[0]->volume, &g->leaves[i]->volume);
    if (two_leaves || two_new) {
        refuse(g, two_leaves ? "its volume has two leaves" : "its volume has two new layers");
        return;
    }
    if (!leaf && g->n == 1)
        leaf = overlay; /* the volume is being made */
    if (!leaf) {
        refuse(g, "its volume has no leaf");
        return;
    }
    leaf->next_index = g->next_index;
    for (uint32_t i = 0; i < g->n; i++) {
        struct candidate *c = g->leaves[i];
        if (c == leaf)
            continue;
        if (c->is_new)
            take_overlay(c, leaf);
        else if (!leaf->former && succeeds(leaf, c) && is_told(leaf, c))
            take_former(c, leaf);
        else
            c->why = "it is no leaf any more, and nothing else";
    }
}

/* From the name alone: an LV whose tags are broken has its name all the same. */
static void count_index(struct group *g, const char *lv_name)
{
    unsigned long index = strlen(lv_name) > CATALOGUE_PREFIX_LEN
                              ? strtoul(lv_name + CATALOGUE_PREFIX_LEN, NULL, 10)
                              : 0;
    if (index >= g->next_index && index < UINT32_MAX)
        g->next_index = (uint32_t)index + 1;
}

/* All candidates whose names begin alike are neighbours in the sorted list; returns the next
 * group's. */
static uint32_t settle_group(struct builder *b, uint32_t first)
{
    const char *prefix = b->all[first].lv->name;
    struct group g = {.n = 0};
    uint32_t leaves = 0, end = first;

    for (; end < b->n && strncmp(b->all[end].lv->name, prefix, CATALOGUE_PREFIX_LEN) == 0; end++) {
        struct candidate *c = &b->all[end];
        count_index(&g, c->lv->name);
        if (c->why || !c->is_leaf)
            continue;
        if (g.n < GROUP_MAX)
            g.leaves[g.n++] = c;
        leaves++;
    }
    if (leaves <= GROUP_MAX) {
        if (g.n > 0)
            settle(&g);
        return end;
    }
    for (uint32_t i = first; i < end; i++)
        if (!b->all[i].why && b->all[i].is_leaf)
            b->all[i].why = "its volume has two leaves";
    return end;
}

static int by_volume_name(const void *a, const void *b)
{
    const struct candidate *one = *(struct candidate *const *)a;
    const struct candidate *two = *(struct candidate *const *)b;
    /* An escaped name has one spelling. */
    return strcmp(tags_value(one->lv, "n"), tags_value(two->lv, "n"));
}

static void refuse_double_names(struct builder *b)
{
    struct candidate **leaves = mem_array(b->n, sizeof *leaves);
    uint32_t n = 0;

    for (uint32_t i = 0; i < b->n; i++)
        if (!b->all[i].why && b->all[i].role == CATALOGUE_LEAF)
            leaves[n++] = &b->all[i];
    if (n > 0)
        qsort(leaves, n, sizeof *leaves, by_volume_name);
    for (uint32_t i = 0, next; i < n; i = next) {
        for (next = i + 1; next < n && by_volume_name(&leaves[i], &leaves[next]) == 0;)
            next++;
        for (uint32_t k = i; next - i > 1 && k < next; k++)
            leaves[k]->why = "another volume has its name";
    }
    free(leaves);
}

void leaf_find_all(struct builder *b)
{
    for (uint32_t i = 0; i < b->n;)
        i = settle_group(b, i);
    refuse_double_names(b);
    for (uint32_t i = 0; i < b->n; i++) {
        struct candidate *c = &b->all[i];
        if (!c->why && c->leaf && c->leaf->why)
            c->why = "its volume's leaf is foreign";
    }
}
