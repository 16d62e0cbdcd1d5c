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

void catalogue_create_args(const char *vg, const struct uuid *id, const char *name, uint64_t size,
                           bool thick, const struct uuid *request_id, uint64_t extent_size,
                           struct catalogue_args *ret)
{
    char uuid_text[UUID_TEXT_SIZE], escaped[3 * VOLUME_NAME_MAX + 1], number[24];

    begin(ret, "lvcreate");
    add(ret, "-an");
    add(ret, "-Zn");
    add(ret, "-Wn");
    add(ret, "-L");
    add(ret, "%" PRIu64 "b", catalogue_initial_size(size, thick, extent_size));
    add(ret, "-n");
    add(ret, "v%016" PRIx64 ".0", uuid_short(id));
    add_tag(ret, "v", uuid_format(id, uuid_text));
    tag_escape(name, escaped, sizeof escaped);
    add_tag(ret, "n", escaped);
    snprintf(number, sizeof number, "%" PRIu64, size);
    add_tag(ret, "s", number);
    add_tag(ret, "k", thick ? "thick" : "thin");
    add_tag(ret, "r", "leaf");
    add_tag(ret, "p", "-");
    add_tag(ret, "q", uuid_format(request_id, uuid_text));
    add_tag(ret, "g", "1");
    add(ret, "--addtag");
    add(ret, "lunar.new");
    add(ret, "%s", vg);
}

void catalogue_extend_args(const char *vg, const struct catalogue_layer *layer, uint64_t size,
                           struct catalogue_args *ret)
{
    begin(ret, "lvextend");
    add(ret, "-L");
    add(ret, "%" PRIu64 "b", size);
    add(ret, "%s/%s", vg, layer->lv_name);
}

void catalogue_made_args(const char *vg, const struct catalogue_layer *layer,
                         struct catalogue_args *ret)
{
    begin(ret, "lvchange");
    add(ret, "--deltag");
    add(ret, "lunar.new");
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

void catalogue_remove_args(const char *vg, const struct catalogue_volume *v,
                           struct catalogue_args *ret)
{
    begin(ret, "lvremove");
    for (uint32_t i = 0; i < v->n_layers; i++)
        if (v->layers[i].volume_short == uuid_short(&v->id))
            add(ret, "%s/%s", vg, v->layers[i].lv_name);
}
