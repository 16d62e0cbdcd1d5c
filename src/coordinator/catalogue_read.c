/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One LV's tags, read for the catalogue. Failure modes: a tag that is missing, doubled or
 * malformed, a name that does not fit its volume's id: the LV is foreign, with the reason.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/catalogue_private.h"
#include "coordinator/mem.h"
#include "coordinator/tags.h"

/* "v<16 hex>.<index>", the hex being the volume's short id. The highest index is nobody's, so that
 * there is always a next one. */
static bool parse_name(const char *name, const struct uuid *volume, uint32_t *ret_index)
{
    char want[32];
    unsigned long index;
    char *end;
    if (strlen(name) < 19 || strlen(name) > 28 || name[18] < '0' || name[18] > '9')
        return false;
    index = strtoul(name + 18, &end, 10);
    snprintf(want, sizeof want, "v%016" PRIx64 ".%lu", uuid_short(volume), index);
    *ret_index = (uint32_t)index;
    return *end == 0 && index < UINT32_MAX && strcmp(name, want) == 0;
}

static bool read_name(const struct lvm_lv *lv, const char *key, char ret[VOLUME_NAME_MAX + 1])
{
    const char *escaped = tags_value(lv, key);
    return escaped && tag_unescape(escaped, ret, VOLUME_NAME_MAX + 1) == 0 &&
           volume_name_check(ret, NULL) == 0;
}

/* A tag that need not be there: false if it is, and is no UUID or there twice. */
static bool read_optional_uuid(const struct lvm_lv *lv, const char *key, struct uuid *ret)
{
    memset(ret, 0, sizeof *ret);
    return !tags_has_key(lv, key) || (tags_uuid(lv, key, ret) && !uuid_is_zero(ret));
}

/* What becomes of the layer below. */
static bool read_below(const struct lvm_lv *lv, struct catalogue_below *ret)
{
    if (!read_optional_uuid(lv, "fi", &ret->snapshot_id))
        return false;
    if (uuid_is_zero(&ret->snapshot_id))
        return !tags_has_key(lv, "fn") && !tags_has_key(lv, "ft") && !tags_has_key(lv, "fg");
    if (!read_optional_uuid(lv, "fg", &ret->group))
        return false;
    if (tags_has_key(lv, "fn") && !read_name(lv, "fn", ret->name))
        return false;
    return tags_number(lv, "ft", &ret->created_s);
}

static const char *leaf_problem(const struct lvm_lv *lv, struct candidate *c)
{
    char name[VOLUME_NAME_MAX + 1];
    const char *kind = tags_value(lv, "k");
    struct uuid id, other;
    uint64_t size, more;

    if (!read_name(lv, "n", name))
        return "its tag of the volume's name is missing or broken";
    if (!tags_number(lv, "s", &size) || volume_size_check(size, NULL) < 0)
        return "its tag of the volume's size is missing or broken";
    if (!kind || (strcmp(kind, "thin") != 0 && strcmp(kind, "thick") != 0))
        return "its tag of the volume's kind is missing or broken";
    if (strcmp(kind, "thick") == 0 && lv->size < size)
        return "it is smaller than the volume";
    if (tags_has_key(lv, "x") && (!tags_number(lv, "x", &more) || more <= size ||
                                  volume_size_check(more, NULL) < 0 || strcmp(kind, "thick") != 0))
        return "its tag of the size to come is broken";
    if (!tags_uuid(lv, "q", &id))
        return "its tag of the request is missing or broken";
    if (!read_optional_uuid(lv, "c", &id) || !read_optional_uuid(lv, "cv", &other) ||
        (!uuid_is_zero(&id) && !uuid_is_zero(&other)))
        return "its tag of the clone's source is broken";
    if (!read_below(lv, &c->below))
        return "its tags of the snapshot below are broken";
    c->replaces = tags_value(lv, "o");
    if (!read_optional_uuid(lv, "rb", &c->rollback_id) || tags_has_key(lv, "o") != !!c->replaces ||
        !!c->replaces == uuid_is_zero(&c->rollback_id))
        return "its tags of the rollback are broken";
    return NULL;
}

static const char *role_problem(const struct lvm_lv *lv, struct candidate *c)
{
    const char *role = tags_value(lv, "r");

    c->is_new = tags_has(lv, "lunar.new");
    if (role && strcmp(role, "leaf") == 0) {
        c->is_leaf = true;
        c->role = CATALOGUE_LEAF;
        return leaf_problem(lv, c);
    }
    if (!role || (strcmp(role, "frozen") != 0 && strcmp(role, "snap") != 0))
        return "its tag of the role is missing or broken";
    c->role = strcmp(role, "snap") == 0 ? CATALOGUE_SNAPSHOT : CATALOGUE_FROZEN;
    return c->is_new ? "it is new and no leaf" : NULL;
}

struct candidate candidate_read(const struct lvm_lv *lv)
{
    struct candidate c = {.lv = lv, .parent = tags_value(lv, "p")};
    uint64_t generation;

    if (!tags_any(lv)) {
        c.why = "not lunar's";
    } else if (!tags_uuid(lv, "v", &c.volume)) {
        c.why = "its tag of the volume's id is missing or broken";
    } else if (!parse_name(lv->name, &c.volume, &c.index)) {
        c.why = "its name does not fit the volume's id";
    } else if (!lv->linear) {
        c.why = "it is not linear";
    } else if (!tags_number(lv, "g", &generation) || generation > UINT32_MAX) {
        c.why = "its tag of the map generation is missing or broken";
    } else if (!c.parent || !*c.parent) {
        c.why = "its tag of the parent is missing";
    } else {
        c.map_generation = (uint32_t)generation;
        c.why = role_problem(lv, &c);
    }
    return c;
}

const char *candidate_snapshot(const struct candidate *c, struct catalogue_snapshot *ret)
{
    *ret = (struct catalogue_snapshot){.volume_id = c->volume, .layer = c->layer, .ready = true};
    if (!tags_uuid(c->lv, "si", &ret->id) || uuid_is_zero(&ret->id))
        return "its tag of the snapshot's id is missing or broken";
    if (!read_name(c->lv, "sn", ret->name))
        return "its tag of the snapshot's name is missing or broken";
    if (!tags_number(c->lv, "st", &ret->created_s))
        return "its tag of the snapshot's time is missing or broken";
    if (!tags_number(c->lv, "s", &ret->size) || volume_size_check(ret->size, NULL) < 0)
        return "its tag of the snapshot's size is missing or broken";
    if (!read_optional_uuid(c->lv, "sg", &ret->group))
        return "its tag of the snapshot's group is broken";
    if (tags_has_key(c->lv, "sv") && !tags_uuid(c->lv, "sv", &ret->volume_id))
        return "its tag of the snapshot's volume is broken";
    return NULL;
}

void candidate_leaf_tags(const struct candidate *c, struct catalogue_former *ret)
{
    /* candidate_read has found that each is there once at most: they fit. */
    static const char *const keys[] = {"r",  "n",  "k",  "q",  "c", "cv",
                                       "fi", "fn", "ft", "fg", "o", "rb"};
    _Static_assert(sizeof keys / sizeof *keys <= CATALOGUE_FORMER_TAGS_MAX, "room for all");

    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const char *value = tags_value(c->lv, keys[i]);
        if (value && asprintf(&ret->tags[ret->n_tags++], "lunar.%s=%s", keys[i], value) < 0)
            abort();
    }
}
