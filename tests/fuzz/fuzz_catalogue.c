/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The catalogue, from LVs that the input describes: for each LV which of a few volumes it belongs
 * to, its index, its parent, and which of its tags are missing, doubled or somebody's text. Unlike
 * fuzz_lvm_report this reaches chains, rings and double leaves at once.
 *
 * What must hold beyond "no crash": fuzz/check_catalogue.h.
 */
#include <inttypes.h>

#include "coordinator/catalogue.h"
#include "coordinator/lvm.h"
#include "fuzz/check_catalogue.h"
#include "fuzz/fuzz.h"

#define LVS_MAX  32u
#define TAGS_MAX 48u

static void add_tag(struct lvm_lv *lv, const char *key, const char *value)
{
    char tag[200];
    if (lv->n_tags == TAGS_MAX)
        return;
    snprintf(tag, sizeof tag, value ? "lunar.%s=%s" : "lunar.%s", key, value);
    lv->tags[lv->n_tags++] = strdup(tag);
}

/* One byte per tag: mostly as it should be, else missing, twice, or the input's own text. */
static void feed_tag(struct feed *f, struct lvm_lv *lv, const char *key, const char *value)
{
    char text[160] = "";
    const uint8_t *bytes;
    uint8_t how = feed_u8(f);

    if (how == 1)
        return;
    if (how >= 16) {
        size_t n = feed_bytes(f, how & 127, &bytes);
        if (n > 0)
            memcpy(text, bytes, n);
        value = text;
    }
    add_tag(lv, key, value);
    if (how == 2)
        add_tag(lv, key, value);
}

static void lv_name(char ret[32], uint8_t volume, uint8_t index)
{
    struct uuid id = fuzz_uuid(volume);
    snprintf(ret, 32, "v%016" PRIx64 ".%u", uuid_short(&id), index);
}

/* The tags of snapshots, clones and rollbacks: sets of them, as the code writes them, one of them
 * broken now and then. */
static void feed_snapshot(struct feed *f, struct lvm_lv *lv)
{
    static const char *const names[] = {"s", "t", "/c3/a4"};
    char id_text[UUID_TEXT_SIZE], other[32];
    uint8_t which = feed_u8(f);
    struct uuid id = fuzz_uuid((uint8_t)(16 + feed_u8(f) % 4));

    uuid_format(&id, id_text);
    lv_name(other, feed_u8(f) % 4, feed_u8(f) % 8);
    if (which & 1) {
        feed_tag(f, lv, "fi", id_text);
        feed_tag(f, lv, "ft", "1700000000");
    }
    if (which & 2)
        feed_tag(f, lv, "fn", names[feed_u8(f) % 3]);
    if (which & 4) {
        feed_tag(f, lv, "o", other);
        feed_tag(f, lv, "rb", id_text);
    }
    if (which & 8) {
        feed_tag(f, lv, "si", id_text);
        feed_tag(f, lv, "sn", names[feed_u8(f) % 3]);
        feed_tag(f, lv, "st", "1700000000");
    }
    if (which & 48)
        feed_tag(f, lv, which & 16 ? "c" : "cv", id_text);
}

static void feed_lv(struct feed *f, struct lvm_lv *lv, uint64_t *at)
{
    static const char *const roles[] = {"leaf", "frozen", "snap"};
    static const char *const names[] = {"a", "b", "vol", "/c3/a4", "name/2fwith"};
    char name[32], parent[32], id_text[UUID_TEXT_SIZE], size[24];
    uint8_t volume = feed_u8(f) % 4, index = feed_u8(f) % 8, shape = feed_u8(f);
    struct uuid id = fuzz_uuid(volume);

    lv_name(name, volume, index);
    lv_name(parent, feed_u8(f) % 4, feed_u8(f) % 8);
    *lv = (struct lvm_lv){.name = strdup(name), .uuid = strdup(name), .linear = !(shape & 128)};
    lv->tags = calloc(TAGS_MAX, sizeof *lv->tags);
    lv->size = (uint64_t)(1 + shape % 64) << 20;
    if (lv->linear) {
        lv->segments = calloc(1, sizeof *lv->segments);
        lv->segments[lv->n_segments++] =
            (struct lvm_segment){.lun_offset = *at, .length = lv->size};
        *at += lv->size;
    }
    snprintf(size, sizeof size, "%llu", (1ull + feed_u8(f) % 80) << 20);
    feed_tag(f, lv, "v", uuid_format(&id, id_text));
    feed_tag(f, lv, "r", roles[feed_u8(f) % 3]);
    feed_tag(f, lv, "p", feed_u8(f) & 1 ? parent : "-");
    feed_tag(f, lv, "g", "1");
    feed_tag(f, lv, "n", names[feed_u8(f) % 5]);
    feed_tag(f, lv, "s", size);
    feed_tag(f, lv, "k", feed_u8(f) & 1 ? "thick" : "thin");
    feed_tag(f, lv, "q", uuid_format(&id, id_text));
    feed_snapshot(f, lv);
    if (shape & 64)
        add_tag(lv, shape & 32 ? "new" : "del", NULL);
}

static bool is_double(const struct lvm_report *r)
{
    for (uint32_t i = 0; i + 1 < r->n_lvs; i++)
        if (strcmp(r->lvs[i].name, r->lvs[r->n_lvs - 1].name) == 0)
            return true;
    return false;
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feed f = {data, size};
    struct lvm_lv lvs[LVS_MAX];
    struct lvm_report r = {.vg_size = 1ull << 40, .extent_size = 1u << 20, .seqno = 3, .lvs = lvs};
    uint64_t at = 1ull << 30;

    while (f.left > 0 && r.n_lvs < LVS_MAX) {
        feed_lv(&f, &lvs[r.n_lvs++], &at);
        if (is_double(&r)) /* the parser lets no two LVs of one name through */
            lv_free(&lvs[--r.n_lvs]);
    }
    check_catalogue(&r);
    for (uint32_t i = 0; i < r.n_lvs; i++)
        lv_free(&lvs[i]);
    return 0;
}
