/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Invariants of space that is given back (SAFETY 14).
 *
 * Whoever has a layer mapped has only extents that are that layer's in the truth, at the same
 * place: what is free others may be given at once. And what a layer loses at its end holds nothing
 * that was ever written to it.
 *
 * Bytes are looked at as the consumers write them, a sector at a time; what a node measures of a
 * layer is the end of the last one of them.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "sim/ghost.h"
#include "sim/lvm_text.h"

#define WRITTEN_MAX 16384u
#define CLUSTER     65536u
/* Header and tables of an image that nobody has written to. */
#define EMPTY_END (5u * CLUSTER)

static uint64_t written[WRITTEN_MAX]; /* offsets on the LUN, of sectors that belong to a layer */
static uint32_t n_written;

void ghost_space_written(uint64_t offset)
{
    for (uint32_t i = 0; i < n_written; i++)
        if (written[i] == offset)
            return;
    assert(n_written < WRITTEN_MAX);
    written[n_written++] = offset;
}

uint64_t ghost_space_end(const struct stack_layer *layer)
{
    uint64_t end = EMPTY_END, at = 0;

    for (uint32_t s = 0; s < layer->n_segments; at += layer->segments[s++].length)
        for (uint32_t i = 0; i < n_written; i++) {
            uint64_t in = written[i] - layer->segments[s].lun_offset; /* huge if it lies before */
            if (in < layer->segments[s].length && at + in >= end)
                end = (at + in) / CLUSTER * CLUSTER + CLUSTER;
        }
    return end;
}

static const struct lvm_lv *find(const struct fake_lvm *f, const char *name)
{
    for (uint32_t i = 0; i < f->n_lvs; i++)
        if (strcmp(f->lvs[i].name, name) == 0)
            return &f->lvs[i];
    return NULL;
}

/* Where byte `at` of the layer lies; UINT64_MAX: behind its end. */
static uint64_t place(const struct lvm_lv *lv, uint64_t at)
{
    for (uint32_t i = 0; lv && i < lv->n_segments; at -= lv->segments[i++].length)
        if (at < lv->segments[i].length)
            return lv->segments[i].lun_offset + at;
    return UINT64_MAX;
}

/* The extent is not the layer's any more. */
static void lost(const struct lvm_lv *from, bool reduced, uint64_t offset)
{
    for (uint32_t i = 0; i < n_written; i++) {
        if (written[i] < offset || written[i] - offset >= FAKE_EXTENT)
            continue;
        if (reduced)
            sim_violation("what-was-written-is-kept",
                          "layer %s is made shorter by what was written at %" PRIu64, from->name,
                          written[i]);
        written[i--] = written[--n_written];
    }
}

static void compare(const struct lvm_lv *before, const struct lvm_lv *after)
{
    uint64_t at = 0;

    for (uint32_t s = 0; s < before->n_segments; s++)
        for (uint64_t in = 0; in < before->segments[s].length; in += FAKE_EXTENT, at += FAKE_EXTENT)
            if (place(after, at) != before->segments[s].lun_offset + in)
                lost(before, after != NULL, before->segments[s].lun_offset + in);
}

static void check_layer(const struct mapped_view *v, const struct stack_layer *layer,
                        const struct fake_lvm *truth)
{
    char name[32];
    uint64_t at = 0;

    snprintf(name, sizeof name, "v%016" PRIx64 ".%u", layer->volume_short, layer->index);
    const struct lvm_lv *lv = find(truth, name);
    for (uint32_t s = 0; s < layer->n_segments; s++)
        for (uint64_t in = 0; in < layer->segments[s].length; in += FAKE_EXTENT, at += FAKE_EXTENT)
            if (place(lv, at) != layer->segments[s].lun_offset + in)
                sim_violation("what-is-mapped-is-not-free",
                              "%s (host %u) has byte %" PRIu64 " of %s mapped at %" PRIu64
                              ", which is not that layer's",
                              v->machine->name, v->host, at, name,
                              layer->segments[s].lun_offset + in);
}

static void check_view(void *data, const struct mapped_view *v)
{
    const struct fake_lvm *truth = data;

    if (!v->writes || !lun_lets_write(v->machine, sim_now_us()) ||
        ghost_is_excused(v->machine, v->host, v->generation))
        return;
    for (uint32_t i = 0; i < v->spec->n_layers; i++)
        check_layer(v, &v->spec->layers[i], truth);
}

void ghost_space_check(const struct fake_lvm *truth)
{
    stack_model_each(check_view, (void *)(uintptr_t)truth);
}

void ghost_space_moved(const struct fake_lvm *before, const struct fake_lvm *after)
{
    for (uint32_t i = 0; i < before->n_lvs; i++)
        compare(&before->lvs[i], find(after, before->lvs[i].name));
    ghost_space_check(after);
}
