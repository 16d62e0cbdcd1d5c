/* SPDX-License-Identifier: Apache-2.0 */
/* LVM in memory; see fake_lvm.h. Knows vgchange, lvcreate, lvextend, lvreduce, lvchange, lvremove
 * and pvresize as catalogue_args.c writes them; asserts on anything else. */
#include "support/fake_lvm.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void fake_lvm_init(struct fake_lvm *f)
{
    memset(f, 0, sizeof *f);
    f->seqno = 1;
    f->vg_size = 128 * FAKE_EXTENT;
    f->next_offset = 1ull << 30;
    f->n_pvs = 1;
    f->pvs[0] =
        (struct lvm_pv){.uuid = FAKE_PV_UUID "0",
                        .size = f->vg_size,
                        .pe_start = f->next_offset,
                        .device_size = f->next_offset + f->vg_size + LAYOUT_LVM_METADATA_SIZE};
}

/* To what the device has: behind the extents of the first one is the second metadata area. */
static int resize(struct fake_lvm *f, const char *const *argv)
{
    for (uint32_t i = 0; i < f->n_pvs; i++) {
        struct lvm_pv *pv = &f->pvs[i];
        uint64_t other = pv->pe_start + (i == 0 ? LAYOUT_LVM_METADATA_SIZE : 0);
        if (strcmp(argv[3] + strlen(LVM_PV_ARG), pv->uuid) != 0)
            continue;
        f->vg_size -= pv->size;
        pv->size = (pv->device_size - other) / FAKE_EXTENT * FAKE_EXTENT;
        f->vg_size += pv->size;
        return 0;
    }
    assert(!"no such PV");
    return -1;
}

/* A LUN of the size that a test has set. */
static int add_pv(struct fake_lvm *f, const char *const *argv, struct error *err)
{
    if (!f->new_lun_size)
        return error_set(err, LUNAR_E_NOT_FOUND, "this node has no such LUN");
    assert(f->n_pvs < sizeof f->pvs / sizeof *f->pvs);
    struct lvm_pv *pv = &f->pvs[f->n_pvs];
    *pv = (struct lvm_pv){.index = f->n_pvs++,
                          .size = f->new_lun_size,
                          .free = f->new_lun_size,
                          .pe_start = 1u << 20,
                          .device_size = f->new_lun_size + (1u << 20)};
    snprintf(pv->uuid, sizeof pv->uuid, "%s", argv[4] + strlen(LVM_PV_ARG));
    f->vg_size += pv->size;
    return 0;
}

static void lv_free(struct lvm_lv *lv)
{
    for (uint32_t i = 0; i < lv->n_tags; i++)
        free(lv->tags[i]);
    free(lv->tags);
    free(lv->segments);
    free(lv->name);
    free(lv->uuid);
}

void fake_lvm_free(struct fake_lvm *f)
{
    for (uint32_t i = 0; i < f->n_lvs; i++)
        lv_free(&f->lvs[i]);
    for (uint32_t i = 0; i < f->n_vg_tags; i++)
        free(f->vg_tags[i]);
}

static void add_tag(struct lvm_lv *lv, const char *tag)
{
    lv->tags = realloc(lv->tags, (lv->n_tags + 1) * sizeof *lv->tags);
    lv->tags[lv->n_tags++] = strdup(tag);
}

static void drop_tag(struct lvm_lv *lv, const char *tag)
{
    for (uint32_t i = 0; i < lv->n_tags; i++) {
        if (strcmp(lv->tags[i], tag) != 0)
            continue;
        free(lv->tags[i]);
        lv->tags[i] = lv->tags[--lv->n_tags];
        return;
    }
}

uint64_t fake_lvm_free_bytes(const struct fake_lvm *f)
{
    uint64_t used = 0;
    for (uint32_t i = 0; i < f->n_lvs; i++)
        used += f->lvs[i].size;
    return f->vg_size - used;
}

static int create(struct fake_lvm *f, const char *const *argv, struct error *err)
{
    struct lvm_lv lv = {.linear = true};
    for (int i = 1; argv[i]; i++) {
        if (strcmp(argv[i], "-n") == 0)
            lv.name = strdup(argv[++i]);
        else if (strcmp(argv[i], "-L") == 0)
            lv.size = strtoull(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--addtag") == 0)
            add_tag(&lv, argv[++i]);
    }
    assert(lv.name && lv.size > 0 && f->n_lvs < sizeof f->lvs / sizeof *f->lvs);
    if (lv.size > fake_lvm_free_bytes(f)) {
        lv_free(&lv);
        return error_set(err, LUNAR_E_NO_SPACE, "insufficient free extents");
    }
    lv.uuid = strdup(lv.name);
    lv.segments = calloc(1, sizeof *lv.segments);
    lv.n_segments = 1;
    lv.segments[0].lun_offset = f->next_offset;
    lv.segments[0].length = lv.size;
    f->next_offset += lv.size;
    f->lvs[f->n_lvs++] = lv;
    return 0;
}

static struct lvm_lv *find(struct fake_lvm *f, const char *vg_lv)
{
    const char *name = strchr(vg_lv, '/');
    for (uint32_t i = 0; name && i < f->n_lvs; i++)
        if (strcmp(f->lvs[i].name, name + 1) == 0)
            return &f->lvs[i];
    return NULL;
}

static int change_vg(struct fake_lvm *f, const char *const *argv)
{
    for (int i = 1; argv[i]; i++) {
        if (strcmp(argv[i], "--addtag") == 0) {
            assert(f->n_vg_tags < sizeof f->vg_tags / sizeof *f->vg_tags);
            f->vg_tags[f->n_vg_tags++] = strdup(argv[++i]);
        } else if (strcmp(argv[i], "--deltag") == 0) {
            i++;
            for (uint32_t k = 0; k < f->n_vg_tags; k++)
                if (strcmp(f->vg_tags[k], argv[i]) == 0) {
                    free(f->vg_tags[k]);
                    f->vg_tags[k--] = f->vg_tags[--f->n_vg_tags];
                }
        }
    }
    return 0;
}

static int change(struct fake_lvm *f, const char *const *argv, struct error *err)
{
    struct lvm_lv *lv = NULL;
    for (int i = 1; argv[i]; i++)
        if (strchr(argv[i], '/'))
            lv = find(f, argv[i]);
    if (!lv)
        return error_set(err, LUNAR_E_EXEC, "no such LV");
    for (int i = 1; argv[i]; i++) {
        if (strcmp(argv[i], "--addtag") == 0)
            add_tag(lv, argv[++i]);
        else if (strcmp(argv[i], "--deltag") == 0)
            drop_tag(lv, argv[++i]);
    }
    return 0;
}

/* At `next_offset`, in one segment with what is there if that is where it ends. */
static void extend_at(struct fake_lvm *f, struct lvm_lv *lv, uint64_t size)
{
    struct lvm_segment *last = &lv->segments[lv->n_segments - 1];
    uint64_t more = size - lv->size;

    if (last->lun_offset + last->length == f->next_offset) {
        last->length += more;
    } else {
        lv->segments = realloc(lv->segments, (lv->n_segments + 1) * sizeof *lv->segments);
        lv->segments[lv->n_segments++] =
            (struct lvm_segment){.lun_offset = f->next_offset, .length = more};
    }
    f->next_offset += more;
    lv->size = size;
}

static int extend(struct fake_lvm *f, const char *const *argv, struct error *err)
{
    struct lvm_lv *lv = NULL;
    uint64_t size = 0;
    for (int i = 1; argv[i]; i++) {
        if (strcmp(argv[i], "-L") == 0)
            size = strtoull(argv[++i], NULL, 10);
        else if (strchr(argv[i], '/'))
            lv = find(f, argv[i]);
    }
    if (!lv || size <= lv->size || size % FAKE_EXTENT)
        return error_set(err, LUNAR_E_EXEC, "no such LV, or not a larger size in whole extents");
    if (size - lv->size > fake_lvm_free_bytes(f))
        return error_set(err, LUNAR_E_NO_SPACE, "insufficient free extents");
    extend_at(f, lv, size);
    return 0;
}

static void reduce_to(struct lvm_lv *lv, uint64_t size)
{
    uint64_t at = 0;
    uint32_t n = 0;

    for (; at < size; at += lv->segments[n++].length)
        if (lv->segments[n].length > size - at)
            lv->segments[n].length = size - at;
    lv->n_segments = n;
    lv->size = size;
}

static int reduce(struct fake_lvm *f, const char *const *argv, struct error *err)
{
    struct lvm_lv *lv = NULL;
    uint64_t size = 0;
    for (int i = 1; argv[i]; i++) {
        if (strcmp(argv[i], "-L") == 0)
            size = strtoull(argv[++i], NULL, 10);
        else if (strchr(argv[i], '/'))
            lv = find(f, argv[i]);
    }
    if (!lv || size == 0 || size >= lv->size || size % FAKE_EXTENT)
        return error_set(err, LUNAR_E_EXEC, "no such LV, or not a smaller size in whole extents");
    reduce_to(lv, size);
    return 0;
}

static int drop(struct fake_lvm *f, const char *const *argv, struct error *err)
{
    bool any = false;

    for (int i = 1; argv[i]; i++) {
        if (!strchr(argv[i], '/'))
            continue;
        any = true;
        if (!find(f, argv[i]))
            return error_set(err, LUNAR_E_EXEC, "no such LV");
    }
    for (int i = 1; argv[i]; i++) {
        struct lvm_lv *lv = strchr(argv[i], '/') ? find(f, argv[i]) : NULL;
        if (!lv)
            continue;
        lv_free(lv);
        *lv = f->lvs[--f->n_lvs];
    }
    return any ? 0 : error_set(err, LUNAR_E_EXEC, "no LV is named");
}

int fake_lvm_run(struct fake_lvm *f, const char *const *argv, struct error *err)
{
    int fail = f->fail_with, rc = 0;
    f->fail_with = 0;
    if (fail == 0 || f->fail_after) {
        rc = strcmp(argv[0], "lvcreate") == 0   ? create(f, argv, err)
             : strcmp(argv[0], "vgchange") == 0 ? change_vg(f, argv)
             : strcmp(argv[0], "lvextend") == 0 ? extend(f, argv, err)
             : strcmp(argv[0], "lvreduce") == 0 ? reduce(f, argv, err)
             : strcmp(argv[0], "lvchange") == 0 ? change(f, argv, err)
             : strcmp(argv[0], "lvremove") == 0 ? drop(f, argv, err)
             : strcmp(argv[0], "pvresize") == 0 ? resize(f, argv)
             : strcmp(argv[0], "vgextend") == 0 ? add_pv(f, argv, err)
                                                : -1;
        assert(rc != -1);
        f->seqno += rc == 0;
    }
    return fail ? error_set(err, fail, "made to fail") : rc;
}

struct catalogue *fake_lvm_catalogue(struct fake_lvm *f)
{
    struct lvm_report report = {.vg_size = f->vg_size,
                                .vg_free = fake_lvm_free_bytes(f),
                                .extent_size = FAKE_EXTENT,
                                .seqno = f->seqno,
                                .vg_tags = f->vg_tags,
                                .n_vg_tags = f->n_vg_tags,
                                .pvs = f->pvs,
                                .n_pvs = f->n_pvs,
                                .lvs = f->lvs,
                                .n_lvs = f->n_lvs};
    struct catalogue *c = calloc(1, sizeof *c);
    struct error err = ERROR_INIT;
    int rc = catalogue_build(&report, c, &err);
    assert(rc == 0);
    return c;
}
