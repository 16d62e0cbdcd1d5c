/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The catalogue: from lvm's report to layers, volumes and snapshots.
 *
 * Happy path: every LV named like a layer and fully tagged becomes a candidate, each volume's leaf
 * is found, and pulls its chain together; volumes and snapshots are sorted by name. Failure modes:
 * whatever does not add up is not guessed at: the LV is listed as foreign with the reason and lunar
 * never touches it. A snapshot whose own tags are broken, or whose name another one has, is listed
 * as foreign too, but its layer stays where the chains of others need it.
 */
#include "coordinator/catalogue.h"

#include <assert.h>
#include <inttypes.h>
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

static void add_foreign(struct catalogue *c, const char *lv_name, const char *why)
{
    c->foreign = mem_grow(c->foreign, c->n_foreign, sizeof *c->foreign);
    if (asprintf(&c->foreign[c->n_foreign++], "%s (%s)", lv_name, why) < 0)
        abort();
}

/* --- volumes --- */

static struct catalogue_overlay *make_overlay(const struct catalogue *c, const struct candidate *x)
{
    struct catalogue_overlay *o = mem_array(1, sizeof *o);
    o->layer = c->layers[x->layer];
    o->replaces = x->replaces != NULL;
    o->below = x->below;
    o->rollback_id = x->rollback_id;
    return o;
}

/* A group's snapshots are all there or none is: the note that it is whole decides. */
static bool becomes_snapshot(const struct catalogue *c, const struct catalogue_below *below)
{
    return below->name[0] &&
           (uuid_is_zero(&below->group) || catalogue_group_is_whole(c, &below->group));
}

static struct catalogue_former *make_former(const struct catalogue *c, const struct candidate *x)
{
    struct catalogue_former *f = mem_array(1, sizeof *f);
    f->layer = c->layers[x->layer];
    f->becomes_snapshot =
        f->layer.role == CATALOGUE_FREEZING && becomes_snapshot(c, &x->leaf->below);
    candidate_leaf_tags(x, f);
    return f;
}

static void fill_volume(const struct catalogue *c, const struct candidate *leaf,
                        struct catalogue_volume *ret)
{
    const struct lvm_lv *lv = leaf->lv;

    /* candidate_read has found all of these sound. */
    *ret = (struct catalogue_volume){.id = leaf->volume,
                                     .n_layers = leaf->depth,
                                     .next_index = leaf->next_index,
                                     .below = leaf->below,
                                     .rollback_id = leaf->rollback_id};
    tag_unescape(tags_value(lv, "n"), ret->name, sizeof ret->name);
    tags_number(lv, "s", &ret->size);
    tags_number(lv, "x", &ret->expands_to);
    ret->importing = tags_has(lv, "lunar.im");
    ret->thick = strcmp(tags_value(lv, "k"), "thick") == 0;
    tags_uuid(lv, "q", &ret->request_id);
    ret->source_is_volume = tags_uuid(lv, "cv", &ret->source_id);
    if (!ret->source_is_volume)
        tags_uuid(lv, "c", &ret->source_id);
    ret->layers = mem_array(leaf->depth, sizeof *ret->layers);
    uint32_t n = 0;
    for (uint32_t i = leaf->layer; i != CATALOGUE_NO_LAYER; i = c->layers[i].parent)
        ret->layers[n++] = c->layers[i];
    assert(n == leaf->depth);
    ret->overlay = leaf->overlay ? make_overlay(c, leaf->overlay) : NULL;
    ret->former = leaf->former ? make_former(c, leaf->former) : NULL;
}

static void free_volume(struct catalogue_volume *v)
{
    for (uint32_t i = 0; v->former && i < v->former->n_tags; i++)
        free(v->former->tags[i]);
    free(v->former);
    free(v->overlay);
    free(v->layers);
}

static int by_volume_name(const void *a, const void *b)
{
    return strcmp(((const struct catalogue_volume *)a)->name,
                  ((const struct catalogue_volume *)b)->name);
}

static void build_volumes(struct builder *b)
{
    struct catalogue *c = b->ret;

    for (uint32_t i = 0; i < b->n; i++) {
        if (b->all[i].why || b->all[i].role != CATALOGUE_LEAF)
            continue;
        c->volumes = mem_grow(c->volumes, c->n_volumes, sizeof *c->volumes);
        fill_volume(c, &b->all[i], &c->volumes[c->n_volumes++]);
    }
    if (c->n_volumes > 0)
        qsort(c->volumes, c->n_volumes, sizeof *c->volumes, by_volume_name);
}

/* --- snapshots --- */

static void add_snapshot(struct catalogue *c, const struct catalogue_snapshot *s)
{
    c->snapshots = mem_grow(c->snapshots, c->n_snapshots, sizeof *c->snapshots);
    c->snapshots[c->n_snapshots++] = *s;
}

/* One that is not ready yet: the layer above tells it. */
static void add_pending(struct catalogue *c, const struct catalogue_volume *v,
                        const struct catalogue_below *below, const char *lv_name)
{
    struct catalogue_snapshot s = {.id = below->snapshot_id,
                                   .volume_id = v->id,
                                   .size = v->size,
                                   .created_s = below->created_s,
                                   .group = below->group};
    if (below->name[0] == 0)
        return; /* it will be a clone's source and nobody's snapshot */
    memcpy(s.name, below->name, sizeof s.name);
    s.layer = (uint32_t)(catalogue_layer_by_name(c, lv_name) - c->layers);
    add_snapshot(c, &s);
}

static int by_snapshot_name(const void *a, const void *b)
{
    return strcmp(((const struct catalogue_snapshot *)a)->name,
                  ((const struct catalogue_snapshot *)b)->name);
}

static int by_snapshot_id(const void *a, const void *b)
{
    return memcmp(((const struct catalogue_snapshot *)a)->id.b,
                  ((const struct catalogue_snapshot *)b)->id.b, sizeof(struct uuid));
}

/* Sorts by `compare` and drops all that are equal by it. */
static void refuse_double_snapshots(struct catalogue *c, int (*compare)(const void *, const void *),
                                    const char *why)
{
    uint32_t kept = 0;

    if (c->n_snapshots == 0)
        return;
    qsort(c->snapshots, c->n_snapshots, sizeof *c->snapshots, compare);
    for (uint32_t i = 0, next; i < c->n_snapshots; i = next) {
        for (next = i + 1;
             next < c->n_snapshots && compare(&c->snapshots[i], &c->snapshots[next]) == 0;)
            next++;
        if (next - i == 1)
            c->snapshots[kept++] = c->snapshots[i];
        for (uint32_t k = i; next - i > 1 && k < next; k++)
            add_foreign(c, c->layers[c->snapshots[k].layer].lv_name, why);
    }
    c->broken |= kept < c->n_snapshots;
    c->n_snapshots = kept;
}

static void build_snapshots(struct builder *b)
{
    struct catalogue *c = b->ret;
    struct catalogue_snapshot s;

    for (uint32_t i = 0; i < b->n; i++) {
        if (b->all[i].why || b->all[i].role != CATALOGUE_SNAPSHOT)
            continue;
        const char *why = candidate_snapshot(&b->all[i], &s);
        if (why)
            add_foreign(c, b->all[i].lv->name, why);
        else
            add_snapshot(c, &s);
        c->broken |= why != NULL;
    }
    for (uint32_t i = 0; i < c->n_volumes; i++) {
        const struct catalogue_volume *v = &c->volumes[i];
        if (v->overlay && !v->overlay->replaces)
            add_pending(c, v, &v->overlay->below, v->layers[0].lv_name);
        if (v->former && v->former->layer.role == CATALOGUE_FREEZING)
            add_pending(c, v, &v->below, v->former->layer.lv_name);
    }
    refuse_double_snapshots(c, by_snapshot_id, "another snapshot has its id");
    refuse_double_snapshots(c, by_snapshot_name, "another snapshot has its name");
}

/* --- found by id --- */

struct catalogue_index {
    struct uuid id;
    uint32_t at;
};

static int by_index_id(const void *a, const void *b)
{
    const struct catalogue_index *one = a, *two = b;
    return memcmp(one->id.b, two->id.b, sizeof one->id.b);
}

static void make_indexes(struct catalogue *c)
{
    c->by_id = mem_array(c->n_volumes, sizeof *c->by_id);
    for (uint32_t i = 0; i < c->n_volumes; i++)
        c->by_id[i] = (struct catalogue_index){c->volumes[i].id, i};
    if (c->n_volumes > 0)
        qsort(c->by_id, c->n_volumes, sizeof *c->by_id, by_index_id);
    c->snapshots_by_id = mem_array(c->n_snapshots, sizeof *c->snapshots_by_id);
    for (uint32_t i = 0; i < c->n_snapshots; i++)
        c->snapshots_by_id[i] = (struct catalogue_index){c->snapshots[i].id, i};
    if (c->n_snapshots > 0)
        qsort(c->snapshots_by_id, c->n_snapshots, sizeof *c->snapshots_by_id, by_index_id);
}

static const struct catalogue_index *find_id(const struct catalogue_index *index, uint32_t n,
                                             const struct uuid *id)
{
    struct catalogue_index key = {.id = *id};
    return n ? bsearch(&key, index, n, sizeof key, by_index_id) : NULL;
}

/* --- all of it --- */

int catalogue_build(const struct lvm_report *report, struct catalogue *ret, struct error *err)
{
    struct builder b = {.n = report->n_lvs, .ret = ret};

    (void)err;
    *ret = (struct catalogue){.vg_size = report->vg_size,
                              .vg_free = report->vg_free,
                              .extent_size = report->extent_size,
                              .seqno = report->seqno,
                              .settings = catalogue_read_settings(report),
                              .n_pvs = report->n_pvs};
    ret->n_groups = catalogue_read_groups(report, &ret->groups);
    ret->pvs = mem_array(report->n_pvs, sizeof *ret->pvs);
    for (uint32_t i = 0; i < report->n_pvs; i++)
        ret->pvs[i] = report->pvs[i];
    b.all = mem_array(b.n, sizeof *b.all);
    for (uint32_t i = 0; i < b.n; i++)
        b.all[i] = candidate_read(&report->lvs[i]);
    qsort(b.all, b.n, sizeof *b.all, by_lv_name);
    leaf_find_all(&b);
    chain_check_all(&b);
    chain_fill_layers(&b);
    for (uint32_t i = 0; i < b.n; i++)
        if (b.all[i].why)
            add_foreign(ret, b.all[i].lv->name, b.all[i].why);
    build_volumes(&b);
    build_snapshots(&b);
    chain_find_garbage(ret);
    make_indexes(ret);
    free(b.all);
    return 0;
}

void catalogue_free(struct catalogue *catalogue)
{
    for (uint32_t i = 0; i < catalogue->n_volumes; i++)
        free_volume(&catalogue->volumes[i]);
    for (uint32_t i = 0; i < catalogue->n_layers; i++)
        free(catalogue->layers[i].segments);
    for (uint32_t i = 0; i < catalogue->n_foreign; i++)
        free(catalogue->foreign[i]);
    free(catalogue->groups);
    free(catalogue->pvs);
    free(catalogue->volumes);
    free(catalogue->by_id);
    free(catalogue->layers);
    free(catalogue->snapshots);
    free(catalogue->snapshots_by_id);
    free(catalogue->foreign);
    memset(catalogue, 0, sizeof *catalogue);
}

struct catalogue_volume *catalogue_by_name(struct catalogue *c, const char *name)
{
    struct catalogue_volume key;
    if (c->n_volumes == 0 || strlen(name) > VOLUME_NAME_MAX)
        return NULL;
    strcpy(key.name, name);
    return bsearch(&key, c->volumes, c->n_volumes, sizeof key, by_volume_name);
}

struct catalogue_volume *catalogue_by_id(struct catalogue *c, const struct uuid *id)
{
    const struct catalogue_index *found = find_id(c->by_id, c->n_volumes, id);
    return found ? &c->volumes[found->at] : NULL;
}

struct catalogue_snapshot *catalogue_snapshot_by_name(struct catalogue *c, const char *name)
{
    struct catalogue_snapshot key;
    if (c->n_snapshots == 0 || strlen(name) > VOLUME_NAME_MAX)
        return NULL;
    strcpy(key.name, name);
    return bsearch(&key, c->snapshots, c->n_snapshots, sizeof key, by_snapshot_name);
}

struct catalogue_snapshot *catalogue_snapshot_by_id(struct catalogue *c, const struct uuid *id)
{
    const struct catalogue_index *found = find_id(c->snapshots_by_id, c->n_snapshots, id);
    return found ? &c->snapshots[found->at] : NULL;
}

static int by_layer_name(const void *a, const void *b)
{
    return strcmp(((const struct catalogue_layer *)a)->lv_name,
                  ((const struct catalogue_layer *)b)->lv_name);
}

struct catalogue_layer *catalogue_layer_by_name(struct catalogue *c, const char *lv_name)
{
    struct catalogue_layer key;
    if (c->n_layers == 0 || strlen(lv_name) >= sizeof key.lv_name)
        return NULL;
    strcpy(key.lv_name, lv_name);
    return bsearch(&key, c->layers, c->n_layers, sizeof key, by_layer_name);
}

const struct catalogue_layer *catalogue_layer_by_id(const struct catalogue *c,
                                                    uint64_t volume_short, uint32_t index)
{
    struct catalogue_layer key;
    snprintf(key.lv_name, sizeof key.lv_name, "v%016" PRIx64 ".%" PRIu32, volume_short, index);
    return c->n_layers ? bsearch(&key, c->layers, c->n_layers, sizeof key, by_layer_name) : NULL;
}

const struct catalogue_snapshot *catalogue_snapshot_of(const struct catalogue *c,
                                                       const struct catalogue_layer *layer)
{
    for (uint32_t i = 0; i < c->n_snapshots; i++)
        if (&c->layers[c->snapshots[i].layer] == layer)
            return &c->snapshots[i];
    return NULL;
}

const struct catalogue_layer *catalogue_sheds_name(const struct catalogue *c,
                                                   const struct catalogue_snapshot *s)
{
    for (uint32_t i = 0; i < c->n_layers; i++)
        if (c->layers[i].sheds_name && c->layers[i].parent == s->layer)
            return &c->layers[i];
    return NULL;
}

bool catalogue_volume_is_new(const struct catalogue_volume *v)
{
    return v->layers[0].is_new;
}

bool catalogue_volume_is_deleting(const struct catalogue_volume *v)
{
    return v->layers[0].deleting;
}

bool catalogue_volume_is_changing(const struct catalogue_volume *v)
{
    return v->overlay || v->former;
}

uint64_t catalogue_volume_allocated(const struct catalogue_volume *v)
{
    uint64_t bytes = v->layers[0].size;

    for (uint32_t i = 1; i < v->n_layers; i++) {
        const struct catalogue_layer *layer = &v->layers[i];
        if (layer->role == CATALOGUE_SNAPSHOT || layer->users > 1)
            break;
        bytes += layer->size;
    }
    return bytes;
}

int volume_size_check(uint64_t size, struct error *err)
{
    if (size < VOLUME_SIZE_MIN || size > VOLUME_SIZE_MAX)
        return error_set(err, LUNAR_E_INVALID,
                         "a volume has 1 MiB to 64 TiB, not %" PRIu64 " bytes", size);
    if (size % VOLUME_SIZE_STEP)
        return error_set(err, LUNAR_E_INVALID,
                         "a volume's size is a multiple of %u bytes, not %" PRIu64,
                         VOLUME_SIZE_STEP, size);
    return 0;
}
