/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What lvm is told to do for a volume: argument vectors, each one command and one commit.
 *
 * No failure modes: the inputs were checked, and the bounds (name, layers) make everything fit;
 * asserted.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "coordinator/catalogue.h"

#define ARGS_MAX (sizeof((struct catalogue_args *)0)->argv / sizeof(char *))

__attribute__((format(printf, 2, 3))) static void add(struct catalogue_args *args,
                                                      const char *format, ...)
{
    va_list list;
    va_start(list, format);
    int n = vsnprintf(args->text + args->used, sizeof args->text - args->used, format, list);
    va_end(list);
    assert(n >= 0 && (size_t)n < sizeof args->text - args->used && args->n + 1 < ARGS_MAX);
    args->argv[args->n++] = args->text + args->used;
    args->argv[args->n] = NULL;
    args->used += (unsigned)n + 1;
}

static void begin(struct catalogue_args *args, const char *command)
{
    args->used = args->n = 0;
    add(args, "%s", command);
    add(args, "-qq");
    add(args, "-y");
}

static void add_tag(struct catalogue_args *args, const char *key, const char *value)
{
    add(args, "--addtag");
    add(args, "lunar.%s=%s", key, value);
}

static uint64_t round_up(uint64_t value, uint64_t step)
{
    return (value + step - 1) / step * step;
}

/* Upper bound of a QCOW2 file with 64 KiB clusters: an L2 entry (8 bytes) and a refcount (2 bytes)
 * per cluster are 1/6554 of the data; 1/4096 and 1 MiB also cover the refcounts of the metadata
 * itself, header, L1 and rounding. */
static uint64_t qcow2_size_max(uint64_t virtual_size)
{
    return virtual_size + virtual_size / 4096 + (1ull << 20);
}

uint64_t catalogue_initial_size(uint64_t virtual_size, bool thick, uint64_t extent_size)
{
    uint64_t size = thick ? virtual_size : qcow2_size_max(virtual_size);
    if (!thick && size > CATALOGUE_THIN_START)
        size = CATALOGUE_THIN_START;
    return round_up(size, extent_size);
}

uint64_t catalogue_growth_max(uint64_t virtual_size, uint64_t extent_size)
{
    uint64_t size = 2 * qcow2_size_max(virtual_size);
    return size < CATALOGUE_THIN_MAP_SIZE ? round_up(size, extent_size)
                                          : CATALOGUE_THIN_MAP_SIZE / extent_size * extent_size;
}

static void add_number_tag(struct catalogue_args *args, const char *key, uint64_t value)
{
    char number[24];
    snprintf(number, sizeof number, "%" PRIu64, value);
    add_tag(args, key, number);
}

static void add_name_tag(struct catalogue_args *args, const char *key, const char *name)
{
    char escaped[3 * VOLUME_NAME_MAX + 1];
    tag_escape(name, escaped, sizeof escaped);
    add_tag(args, key, escaped);
}

static void add_uuid_tag(struct catalogue_args *args, const char *key, const struct uuid *id)
{
    char text[UUID_TEXT_SIZE];
    add_tag(args, key, uuid_format(id, text));
}

static void drop_tag(struct catalogue_args *args, const char *tag)
{
    add(args, "--deltag");
    add(args, "%s", tag);
}

/* What most leaves do not have. */
static void add_history(struct catalogue_args *args, const struct catalogue_leaf *leaf)
{
    if (leaf->source_id && !uuid_is_zero(leaf->source_id))
        add_uuid_tag(args, leaf->source_is_volume ? "cv" : "c", leaf->source_id);
    if (leaf->below) {
        add_uuid_tag(args, "fi", &leaf->below->snapshot_id);
        add_number_tag(args, "ft", leaf->below->created_s);
    }
    if (leaf->below && leaf->below->name[0])
        add_name_tag(args, "fn", leaf->below->name);
    if (leaf->below && !uuid_is_zero(&leaf->below->group))
        add_uuid_tag(args, "fg", &leaf->below->group);
    if (leaf->replaces) {
        add_tag(args, "o", leaf->replaces);
        add_uuid_tag(args, "rb", leaf->rollback_id);
    }
}

void catalogue_create_args(const char *vg, const struct catalogue_leaf *leaf, uint64_t extent_size,
                           struct catalogue_args *ret)
{
    begin(ret, "lvcreate");
    add(ret, "-an");
    add(ret, "-Zn");
    add(ret, "-Wn");
    add(ret, "-L");
    add(ret, "%" PRIu64 "b", catalogue_initial_size(leaf->size, leaf->thick, extent_size));
    add(ret, "-n");
    add(ret, "v%016" PRIx64 ".%" PRIu32, uuid_short(leaf->volume_id), leaf->index);
    add_uuid_tag(ret, "v", leaf->volume_id);
    add_name_tag(ret, "n", leaf->name);
    add_number_tag(ret, "s", leaf->size);
    add_tag(ret, "k", leaf->thick ? "thick" : "thin");
    add_tag(ret, "r", "leaf");
    add_tag(ret, "p", leaf->parent ? leaf->parent : "-");
    add_uuid_tag(ret, "q", leaf->request_id);
    add_tag(ret, "g", "1");
    add_history(ret, leaf);
    if (leaf->importing) {
        add(ret, "--addtag");
        add(ret, "lunar.im");
    }
    add(ret, "--addtag");
    add(ret, "lunar.new");
    add(ret, "%s", vg);
}

uint64_t catalogue_merged_max(uint64_t virtual_size, uint64_t extent_size)
{
    uint64_t size = qcow2_size_max(virtual_size);
    return round_up(size + size / 16, extent_size);
}

void catalogue_merged_args(const char *vg, const struct catalogue_layer *layer,
                           struct catalogue_args *ret)
{
    begin(ret, "lvchange");
    add(ret, "--addtag");
    add(ret, "lunar.m");
    add(ret, "%s/%s", vg, layer->lv_name);
}

void catalogue_reparent_args(const char *vg, const struct catalogue_layer *layer,
                             const struct catalogue_layer *from, const struct catalogue_layer *to,
                             struct catalogue_args *ret)
{
    begin(ret, "lvchange");
    add(ret, "--deltag");
    add(ret, "lunar.p=%s", from->lv_name);
    add_tag(ret, "p", to->lv_name);
    add(ret, "%s/%s", vg, layer->lv_name);
}

void catalogue_extend_args(const char *vg, const struct catalogue_layer *layer, uint64_t size,
                           struct catalogue_args *ret)
{
    begin(ret, "lvextend");
    add(ret, "-L");
    add(ret, "%" PRIu64 "b", size);
    add(ret, "%s/%s", vg, layer->lv_name);
}

void catalogue_generation_args(const char *vg, const struct catalogue_layer *layer,
                               struct catalogue_args *ret)
{
    begin(ret, "lvchange");
    add(ret, "--deltag");
    add(ret, "lunar.g=%" PRIu32, layer->map_generation);
    add_number_tag(ret, "g", (uint64_t)layer->map_generation + 1);
    add(ret, "%s/%s", vg, layer->lv_name);
}

void catalogue_reduce_args(const char *vg, const struct catalogue_layer *layer, uint64_t size,
                           struct catalogue_args *ret)
{
    begin(ret, "lvreduce");
    add(ret, LVM_FS_ARG "ignore");
    add(ret, "-L");
    add(ret, "%" PRIu64 "b", size);
    add(ret, "%s/%s", vg, layer->lv_name);
}

static void drop_expansion(struct catalogue_args *args, const struct catalogue_volume *v)
{
    if (v->expands_to == 0)
        return;
    add(args, "--deltag");
    add(args, "lunar.x=%" PRIu64, v->expands_to);
}

void catalogue_expanding_args(const char *vg, const struct catalogue_volume *v, uint64_t size,
                              struct catalogue_args *ret)
{
    assert(v->thick && size != v->expands_to);
    begin(ret, "lvchange");
    drop_expansion(ret, v);
    if (size)
        add_number_tag(ret, "x", size);
    add(ret, "%s/%s", vg, v->layers[0].lv_name);
}

void catalogue_size_args(const char *vg, const struct catalogue_volume *v, uint64_t size,
                         struct catalogue_args *ret)
{
    begin(ret, "lvchange");
    add(ret, "--deltag");
    add(ret, "lunar.s=%" PRIu64, v->size);
    add_number_tag(ret, "s", size);
    drop_expansion(ret, v);
    add(ret, "%s/%s", vg, v->layers[0].lv_name);
}

void catalogue_made_args(const char *vg, const struct catalogue_layer *layer,
                         struct catalogue_args *ret)
{
    begin(ret, "lvchange");
    drop_tag(ret, "lunar.new");
    add(ret, "%s/%s", vg, layer->lv_name);
}

void catalogue_imported_args(const char *vg, const struct catalogue_volume *v,
                             struct catalogue_args *ret)
{
    begin(ret, "lvchange");
    drop_tag(ret, "lunar.im");
    add(ret, "%s/%s", vg, v->layers[0].lv_name);
}

void catalogue_frozen_args(const char *vg, const struct catalogue_volume *v,
                           struct catalogue_args *ret)
{
    const struct catalogue_former *former = v->former;
    bool snapshot = former->becomes_snapshot;

    begin(ret, "lvchange");
    for (uint32_t i = 0; i < former->n_tags; i++)
        drop_tag(ret, former->tags[i]);
    add_tag(ret, "r", snapshot ? "snap" : "frozen");
    if (snapshot) { /* its tag of the size stays */
        add_uuid_tag(ret, "si", &v->below.snapshot_id);
        add_name_tag(ret, "sn", v->below.name);
        add_number_tag(ret, "st", v->below.created_s);
    }
    if (snapshot && !uuid_is_zero(&v->below.group))
        add_uuid_tag(ret, "sg", &v->below.group);
    add(ret, "%s/%s", vg, former->layer.lv_name);
}

void catalogue_unsnap_args(const char *vg, const struct catalogue_layer *layer,
                           const struct catalogue_snapshot *s, struct catalogue_args *ret)
{
    char escaped[3 * VOLUME_NAME_MAX + 1], id[UUID_TEXT_SIZE];

    tag_escape(s->name, escaped, sizeof escaped);
    begin(ret, "lvchange");
    drop_tag(ret, "lunar.r=snap");
    add(ret, "--deltag");
    add(ret, "lunar.si=%s", uuid_format(&s->id, id));
    add(ret, "--deltag");
    add(ret, "lunar.sn=%s", escaped);
    add(ret, "--deltag");
    add(ret, "lunar.st=%" PRIu64, s->created_s);
    add(ret, "--deltag");
    add(ret, "lunar.s=%" PRIu64, s->size);
    if (!uuid_is_zero(&s->group)) {
        add(ret, "--deltag");
        add(ret, "lunar.sg=%s", uuid_format(&s->group, id));
    }
    add(ret, "--deltag"); /* no error where it is not there */
    add(ret, "lunar.sv=%s", uuid_format(&s->volume_id, id));
    add_tag(ret, "r", "frozen");
    add(ret, "%s/%s", vg, layer->lv_name);
}

void catalogue_snap_args(const char *vg, const struct catalogue_layer *layer,
                         const struct catalogue_snapshot *s, struct catalogue_args *ret)
{
    begin(ret, "lvchange");
    drop_tag(ret, "lunar.r=frozen");
    add_tag(ret, "r", "snap");
    add_uuid_tag(ret, "si", &s->id);
    add_name_tag(ret, "sn", s->name);
    add_number_tag(ret, "st", s->created_s);
    /* Never the same tag to be dropped and added: which comes first is LVM's. */
    if (layer->left_size && layer->left_size != s->size) {
        add(ret, "--deltag");
        add(ret, "lunar.s=%" PRIu64, layer->left_size);
    }
    if (layer->left_size != s->size)
        add_number_tag(ret, "s", s->size);
    if (!uuid_is_zero(&s->group))
        add_uuid_tag(ret, "sg", &s->group);
    if (uuid_short(&s->volume_id) != layer->volume_short)
        add_uuid_tag(ret, "sv", &s->volume_id);
    add(ret, "%s/%s", vg, layer->lv_name);
}

void catalogue_deleting_args(const char *vg, const struct catalogue_volume *v,
                             struct catalogue_args *ret)
{
    begin(ret, "lvchange");
    add(ret, "--addtag");
    add(ret, "lunar.del");
    add(ret, "%s/%s", vg, v->layers[0].lv_name);
}

void catalogue_remove_args(const char *vg, const struct catalogue_layer *const *layers, uint32_t n,
                           struct catalogue_args *ret)
{
    assert(n >= 1 && n <= CATALOGUE_REMOVE_MAX);
    begin(ret, "lvremove");
    for (uint32_t i = 0; i < n; i++)
        add(ret, "%s/%s", vg, layers[i]->lv_name);
}

static void change_number(struct catalogue_args *args, const char *key, uint32_t from, uint32_t to)
{
    char number[12];

    if (from == to)
        return;
    add(args, "--deltag"); /* no error where it is not there, as a default is not */
    add(args, "lunar.%s=%" PRIu32, key, from);
    snprintf(number, sizeof number, "%" PRIu32, to);
    if (to)
        add_tag(args, key, number);
}

void catalogue_settings_args(const char *vg, const struct catalogue_settings *from,
                             const struct catalogue_settings *to, struct catalogue_args *ret)
{
    begin(ret, "vgchange");
    change_number(ret, "oc", from->overcommit_percent, to->overcommit_percent);
    change_number(ret, "warn", from->warn_percent, to->warn_percent);
    add(ret, "%s", vg);
}

void catalogue_group_args(const char *vg, const struct uuid *group, bool whole,
                          struct catalogue_args *ret)
{
    char id[UUID_TEXT_SIZE];

    begin(ret, "vgchange");
    add(ret, whole ? "--addtag" : "--deltag");
    add(ret, "lunar.gw=%s", uuid_format(group, id));
    add(ret, "%s", vg);
}

void catalogue_add_pv_args(const char *vg, const char *uuid, struct catalogue_args *ret)
{
    begin(ret, "vgextend");
    add(ret, "%s", vg);
    add(ret, LVM_PV_ARG "%s", uuid);
}

void catalogue_resize_pv_args(const struct lvm_pv *pv, struct catalogue_args *ret)
{
    begin(ret, "pvresize");
    add(ret, LVM_PV_ARG "%s", pv->uuid);
}
