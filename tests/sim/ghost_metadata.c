/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Invariants of LVM's metadata (SAFETY 4, 6, 16, 17).
 *
 * Every text that lvm makes has a parent: the text that it read. The truth is the text that a
 * coordinator took for it by storing its copy in the reserved area; each such text must descend
 * from the one before. So no commit that was answered is ever lost, whatever lands late. Each step
 * of the truth must be one that was asked for: nothing vanishes that nobody wanted deleted, and one
 * request makes one volume. The same for snapshots: once ready, one is there until somebody wants
 * it deleted, and then it does not come back. And every layer adds up to something, at each step.
 * What a node is given for a layer that grows is in the truth by then:
 * extents of a commit that may yet be undone could be given to somebody else.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "coordinator/tags.h"
#include "diskrpc/mdcopy.h"
#include "sim/ghost.h"
#include "sim/lvm_text.h"

#define TEXTS_MAX   16384u
#define VOLUMES_MAX 512u
#define FROZEN_MAX  1024u

struct text {
    uint64_t hash, parent; /* hashes; parent 0: the first one */
};

/* A volume that was ever in the truth. */
struct volume {
    struct uuid id, request;
    char name[VOLUME_NAME_MAX + 1];
    enum ghost_volume state;
    uint64_t ready_us;
    bool was_ready;
};

struct snapshot {
    struct uuid id;
    bool there, ready, was_ready;
};

static struct snapshot snapshots[VOLUMES_MAX];
static uint32_t n_snapshots;
static struct {
    uint64_t start, length;
} frozen[FROZEN_MAX];
static uint32_t n_frozen;
/* Of the truth: what is left, and what is not at rest. */
static uint32_t n_layers, n_garbage, n_changing, n_freezing;
static struct text texts[TEXTS_MAX];
static uint32_t n_texts;
static uint64_t head;   /* the accepted one */
static struct vg truth; /* what it says */
/* Whose it is, and what it was when that process was elected. */
static const struct process *head_of;
static uint64_t head_before;
static struct volume volumes[VOLUMES_MAX];
static uint32_t n_volumes;

static uint64_t hash_of(const char *text)
{
    uint64_t h = 14695981039346656037ull;
    for (; *text; text++)
        h = (h ^ (uint8_t)*text) * 1099511628211ull;
    return h;
}

static void add(uint64_t parent, uint64_t hash)
{
    for (uint32_t i = 0; i < n_texts; i++)
        if (texts[i].hash == hash && texts[i].parent == parent)
            return;
    assert(n_texts < TEXTS_MAX);
    texts[n_texts++] = (struct text){hash, parent};
}

void ghost_metadata_built(const struct process *p, const char *base, const char *text)
{
    if (p)
        ghost_commits(p);
    add(base ? hash_of(base) : 0, hash_of(text));
}

void ghost_metadata_restored(const struct process *p, const char *want, const char *text)
{
    ghost_commits(p);
    add(hash_of(want), hash_of(text));
}

/* seqno rises with every step, so there are no rings. */
static bool descends(uint64_t from, uint64_t hash, int depth)
{
    if (hash == from)
        return true;
    for (uint32_t i = 0; depth > 0 && i < n_texts; i++)
        if (texts[i].hash == hash && texts[i].parent != 0 &&
            descends(from, texts[i].parent, depth - 1))
            return true;
    return false;
}

/* --- volumes of the truth --- */

static struct volume *find(const struct uuid *id)
{
    for (uint32_t i = 0; i < n_volumes; i++)
        if (uuid_equal(&volumes[i].id, id))
            return &volumes[i];
    return NULL;
}

enum ghost_volume ghost_volume_state(const struct uuid *volume)
{
    const struct volume *v = find(volume);
    return v ? v->state : GHOST_VOLUME_ABSENT;
}

uint64_t ghost_ready_since(const char *name)
{
    for (uint32_t i = 0; i < n_volumes; i++)
        if (volumes[i].state == GHOST_VOLUME_READY && strcmp(volumes[i].name, name) == 0)
            return volumes[i].ready_us;
    return UINT64_MAX;
}

static _Noreturn void broken(const struct volume *v, const char *invariant, const char *what)
{
    char id[UUID_TEXT_SIZE];
    sim_violation(invariant, "volume %s (%s): %s", v->name, uuid_format(&v->id, id), what);
}

/* Another volume that the same request made. */
static void check_request(const struct volume *v)
{
    for (uint32_t i = 0; i < n_volumes; i++) {
        const struct volume *o = &volumes[i];
        if (o == v || !uuid_equal(&o->request, &v->request))
            continue;
        if (o->state != GHOST_VOLUME_ABSENT || (o->was_ready && !ghost_delete_requested(&o->id)))
            broken(v, "no-request-takes-effect-twice", "its request has made another volume");
    }
}

static struct volume *volume_new(const struct catalogue_volume *from)
{
    assert(n_volumes < VOLUMES_MAX);
    struct volume *v = &volumes[n_volumes++];
    *v = (struct volume){.id = from->id, .request = from->request_id};
    snprintf(v->name, sizeof v->name, "%s", from->name);
    check_request(v);
    return v;
}

static void check_move(const struct volume *v, enum ghost_volume to)
{
    if (v->state == to)
        return;
    if (v->state == GHOST_VOLUME_READY && !ghost_delete_requested(&v->id))
        broken(v, "no-acknowledged-create-is-lost", "it was ready and nobody deleted it");
    if (v->was_ready && to == GHOST_VOLUME_NEW)
        broken(v, "no-acknowledged-create-is-lost", "it was ready and is new again");
    if (v->state == GHOST_VOLUME_DELETING && to == GHOST_VOLUME_READY)
        broken(v, "no-request-takes-effect-twice", "its deletion was taken back");
}

static void move(struct volume *v, enum ghost_volume to)
{
    check_move(v, to);
    if (v->state != GHOST_VOLUME_READY && to == GHOST_VOLUME_READY) {
        v->was_ready = true;
        v->ready_us = sim_now_us();
    }
    v->state = to;
}

static enum ghost_volume state_of(const struct catalogue_volume *v)
{
    return catalogue_volume_is_deleting(v) ? GHOST_VOLUME_DELETING
           : catalogue_volume_is_new(v)    ? GHOST_VOLUME_NEW
                                           : GHOST_VOLUME_READY;
}

static void take_volumes(const struct catalogue *c)
{
    bool seen[VOLUMES_MAX] = {false};

    n_changing = n_freezing = 0;
    for (uint32_t i = 0; i < c->n_volumes; i++) {
        const struct catalogue_volume *from = &c->volumes[i];
        struct volume *v = find(&from->id);
        if (!v)
            v = volume_new(from);
        move(v, state_of(from));
        seen[v - volumes] = true;
        n_changing += from->overlay != NULL;
        n_freezing += from->former != NULL;
    }
    for (uint32_t i = 0; i < n_volumes; i++)
        if (!seen[i])
            move(&volumes[i], GHOST_VOLUME_ABSENT);
}

static void take_frozen(const struct catalogue_layer *layer)
{
    for (uint32_t s = 0; s < layer->n_segments; s++) {
        assert(n_frozen < FROZEN_MAX);
        frozen[n_frozen].start = layer->segments[s].lun_offset;
        frozen[n_frozen++].length = layer->segments[s].length;
    }
}

static void take_layers(const struct catalogue *c)
{
    n_layers = c->n_layers;
    n_frozen = n_garbage = 0;
    for (uint32_t i = 0; i < c->n_layers; i++) {
        const struct catalogue_layer *layer = &c->layers[i];
        n_garbage += layer->garbage;
        if (layer->role == CATALOGUE_SNAPSHOT || layer->role == CATALOGUE_FROZEN)
            take_frozen(layer);
        if (!layer->is_new && !ghost_is_formatted(layer->volume_short, layer->index))
            sim_violation("formatted-before-ready", "layer %s is ready and was never formatted",
                          layer->lv_name);
    }
}

bool ghost_is_frozen(uint64_t offset)
{
    for (uint32_t i = 0; i < n_frozen; i++)
        if (offset >= frozen[i].start && offset - frozen[i].start < frozen[i].length)
            return true;
    return false;
}

static struct snapshot *find_snapshot(const struct uuid *id)
{
    for (uint32_t i = 0; i < n_snapshots; i++)
        if (uuid_equal(&snapshots[i].id, id))
            return &snapshots[i];
    return NULL;
}

bool ghost_snapshot_is_ready(const struct uuid *snapshot)
{
    const struct snapshot *s = find_snapshot(snapshot);
    return s && s->there && s->ready;
}

static void take_snapshots(const struct catalogue *c)
{
    for (uint32_t i = 0; i < n_snapshots; i++)
        snapshots[i].there = snapshots[i].ready = false;
    for (uint32_t i = 0; i < c->n_snapshots; i++) {
        struct snapshot *s = find_snapshot(&c->snapshots[i].id);
        if (!s) {
            assert(n_snapshots < VOLUMES_MAX);
            s = &snapshots[n_snapshots++];
            *s = (struct snapshot){.id = c->snapshots[i].id};
        }
        s->there = true;
        s->ready = c->snapshots[i].ready;
        s->was_ready |= s->ready;
        if (ghost_unsnap_answered(&s->id))
            sim_violation("no-request-takes-effect-twice",
                          "a snapshot is there whose deletion was answered");
    }
    for (uint32_t i = 0; i < n_snapshots; i++)
        if (snapshots[i].was_ready && !snapshots[i].ready &&
            !ghost_unsnap_requested(&snapshots[i].id))
            sim_violation("no-acknowledged-snapshot-is-lost",
                          "a snapshot that was ready is not, and nobody deleted it");
}

static void take_truth(struct vg *vg)
{
    struct catalogue *c = fake_lvm_catalogue(&vg->lvm);

    if (c->n_foreign > 0)
        sim_violation("layers-add-up", "%s", c->foreign[0]);
    take_volumes(c);
    take_layers(c);
    ghost_layers_are_there(c);
    take_snapshots(c);
    ghost_content_check(c);
    catalogue_free(c);
    free(c);
}

void ghost_metadata_accepted(const struct process *p, const char *text)
{
    uint64_t hash = hash_of(text);
    struct vg vg;

    if (p && p != ghost_leader())
        return; /* deposed: its successor decides */
    if (p != head_of)
        head_before = head;
    head_of = p;
    /* What a new leader has restored or adopted counts once it leads: until its stamp stands, a
     * commit that its predecessor had under way may take the place of it. Nobody was told of
     * either. */
    const struct coordinator *c = p ? process_coordinator(p) : NULL;
    bool leads = c && c->state == COORDINATOR_STATE_LEADING;
    if (head != 0 && !descends(leads ? head : head_before, hash, 64))
        sim_violation("metadata-is-linear",
                      "%s took seqno %llu for the truth, which does not descend from the last one",
                      p->name, (unsigned long long)vg_text_seqno(text));
    head = hash;
    stale_repaired();
    if (!vg_in(text, &vg))
        sim_violation("metadata-is-linear", "%s took a damaged text for the truth", p->name);
    sim_trace("ghost: the truth is seqno %llu", (unsigned long long)vg.lvm.seqno);
    take_truth(&vg);
    ghost_space_moved(&truth.lvm, &vg.lvm);
    vg_free(&truth);
    truth = vg;
}

/* Where byte `at` of the layer lies; UINT64_MAX: behind its end. */
static uint64_t truth_at(const struct lvm_lv *lv, uint64_t at)
{
    for (uint32_t i = 0; i < lv->n_segments; at -= lv->segments[i++].length)
        if (at < lv->segments[i].length)
            return lv->segments[i].lun_offset + at;
    return UINT64_MAX;
}

void ghost_metadata_mapped(void)
{
    ghost_space_check(&truth.lvm);
}

void ghost_layer_grown(const struct machine *m, const struct stack_layer *layer)
{
    char name[32];
    const struct lvm_lv *lv = NULL;
    uint64_t at = 0;

    snprintf(name, sizeof name, "v%016llx.%u", (unsigned long long)layer->volume_short,
             layer->index);
    for (uint32_t i = 0; i < truth.lvm.n_lvs; i++)
        if (strcmp(truth.lvm.lvs[i].name, name) == 0)
            lv = &truth.lvm.lvs[i];
    for (uint32_t i = 0; lv && i < layer->n_segments; i++) /* no LV: others judge that */
        for (uint64_t in = 0; in < layer->segments[i].length; in += FAKE_EXTENT, at += FAKE_EXTENT)
            if (truth_at(lv, at) != layer->segments[i].lun_offset + in)
                sim_violation("growth-is-committed",
                              "%s is given extents for %s that the truth does not give it", m->name,
                              name);
}

int __real_mdcopy_store(int fd, const struct layout *layout, const struct uuid *pool_id,
                        const struct mdcopy *previous, uint64_t term, uint64_t vg_seqno,
                        const char *text, size_t len, struct mdcopy *ret, struct error *err);
int __wrap_mdcopy_store(int fd, const struct layout *layout, const struct uuid *pool_id,
                        const struct mdcopy *previous, uint64_t term, uint64_t vg_seqno,
                        const char *text, size_t len, struct mdcopy *ret, struct error *err);
int __wrap_mdcopy_store(int fd, const struct layout *layout, const struct uuid *pool_id,
                        const struct mdcopy *previous, uint64_t term, uint64_t vg_seqno,
                        const char *text, size_t len, struct mdcopy *ret, struct error *err)
{
    struct process *p = process_current();
    int rc =
        __real_mdcopy_store(fd, layout, pool_id, previous, term, vg_seqno, text, len, ret, err);
    if (rc == 0)
        ghost_metadata_accepted(p, text);
    return rc;
}

static void look_for_half(void *data, const struct mapped_view *v)
{
    if (!v->job && ghost_detach_wanted(&v->spec->attachment_id, 0))
        *(bool *)data = true;
}

bool ghost_metadata_is_settled(bool empty, char *why, size_t size)
{
    bool half = false;

    stack_model_each(look_for_half, &half);
    for (uint32_t i = 0; i < n_volumes; i++) {
        const struct volume *v = &volumes[i];
        if (v->state == GHOST_VOLUME_ABSENT || (v->state == GHOST_VOLUME_READY && !empty))
            continue;
        snprintf(why, size, "volume %s is %s", v->name,
                 v->state == GHOST_VOLUME_READY ? "still there"
                 : v->state == GHOST_VOLUME_NEW ? "half-made"
                                                : "half-deleted");
        return false;
    }
    /* Where a detach has failed half-way a volume that is freezing may wait for the next one, and
     * so may what was merged, in its grant. */
    bool waits = (n_freezing > 0 || half) && !empty;
    if (n_changing == 0 && (n_garbage == 0 || waits) && (n_layers == 0 || !empty))
        return true;
    snprintf(why, size, "%u volumes are changing, %u freezing, %u of %u layers are garbage",
             n_changing, n_freezing, n_garbage, n_layers);
    return false;
}
