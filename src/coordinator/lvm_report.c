/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LVM's metadata as structures: the text that LVM has written to the LUN, parsed by LVM's own
 * library and read with suspicion.
 *
 * Happy path: the VG's section gives extent size, seqno and tags, "physical_volumes" the LUNs and
 * where extents begin on each (lvm_report_pvs.c), "logical_volumes" the LVs with their tags and
 * segments, which become byte ranges of a LUN; what no segment takes is free. Failure modes: what
 * is not the shape that LVM writes, a number that is none, a range outside its PV, an LV with a
 * gap, two LVs on one extent: LUNAR_E_CORRUPT with the LV's name, a PV that is missing:
 * LUNAR_E_NOT_FOUND, and no report at all, because a wrong map destroys data. Products are checked
 * for overflow. The library's parser recurses, so the nesting is bounded before it sees the text.
 *
 * What is linear: type "striped" with one stripe, on a PV. An LV whose segments lie on other LVs
 * (a mirror, a thin pool) is not; those others, which lvm hides, are LVs of this report like any.
 */
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "coordinator/lvm.h"
#include "coordinator/lvm_report_private.h"
#include "coordinator/mem.h"

#define REPORT_LVS_MAX (1u << 20)
#define SECTOR         512u
#define LOG_WARN_LEVEL 4 /* of the library: more is debugging */
/* LVM nests four deep: VG, logical_volumes, LV, segment. */
#define NESTING_MAX 8u
/* In one text of it: a tag has 1,024 bytes at most. */
#define SLASHES_MAX 1024u

int report_bad(const struct parser *p, const char *whose, const char *what)
{
    return error_set(p->err, LUNAR_E_CORRUPT, "LVM's metadata makes no sense: %s%s%s",
                     whose ? whose : "", whose ? ": " : "", what);
}

static int bad(const struct parser *p, const char *lv, const char *what)
{
    return report_bad(p, lv, what);
}

/* --- entries of a section --- */

const struct dm_config_node *report_child(const struct dm_config_node *section, const char *key)
{
    const struct dm_config_node *found = NULL;

    for (const struct dm_config_node *n = section->child; n; n = n->sib) {
        if (strcmp(n->key, key) != 0)
            continue;
        if (found)
            return NULL;
        found = n;
    }
    return found;
}

/* Its one value; NULL: it is missing, a section, or a list. */
static const struct dm_config_value *value_of(const struct dm_config_node *section, const char *key)
{
    const struct dm_config_node *n = report_child(section, key);
    return n && n->v && !n->v->next ? n->v : NULL;
}

const char *report_text(const struct dm_config_node *section, const char *key)
{
    const struct dm_config_value *v = value_of(section, key);
    return v && v->type == DM_CFG_STRING && *v->v.str ? v->v.str : NULL;
}

int report_number(const struct parser *p, const struct dm_config_node *section, const char *key,
                  uint64_t *ret)
{
    const struct dm_config_value *v = value_of(section, key);

    /* The library's numbers end at INT64_MAX, which is no sensible one of anything. */
    if (!v || v->type != DM_CFG_INT || v->v.i < 0 || v->v.i == INT64_MAX)
        return error_set(p->err, LUNAR_E_CORRUPT,
                         "LVM's metadata makes no sense: %s: its %s is not a number", section->key,
                         key);
    *ret = (uint64_t)v->v.i;
    return 0;
}

int report_sectors(const struct parser *p, const struct dm_config_node *section, const char *key,
                   uint64_t *ret)
{
    int rc = report_number(p, section, key, ret);
    if (rc == 0 && (__builtin_mul_overflow(*ret, SECTOR, ret) || *ret > INT64_MAX))
        rc = report_bad(p, section->key, "a number of sectors is too large");
    return rc;
}

bool report_lists(const struct dm_config_node *section, const char *key, const char *word)
{
    const struct dm_config_node *n = report_child(section, key);

    for (const struct dm_config_value *v = n ? n->v : NULL; v; v = v->next)
        if (v->type == DM_CFG_STRING && strcmp(v->v.str, word) == 0)
            return true;
    return false;
}

/* An LV without tags has no such entry. */
static int take_tags(const struct parser *p, const struct dm_config_node *section, char ***tags,
                     uint32_t *n)
{
    const struct dm_config_node *list = report_child(section, "tags");

    if (!list && dm_config_has_node(section->child, "tags"))
        return bad(p, section->key, "it has two lists of tags");
    if (list && !list->v)
        return bad(p, section->key, "its tags are no list");
    for (const struct dm_config_value *v = list ? list->v : NULL; v; v = v->next) {
        if (v->type == DM_CFG_EMPTY_ARRAY)
            continue;
        if (v->type != DM_CFG_STRING || !*v->v.str || strchr(v->v.str, ','))
            return bad(p, section->key, "one of its tags is none");
        *tags = mem_grow(*tags, *n, sizeof **tags);
        (*tags)[(*n)++] = mem_strdup(v->v.str);
    }
    return 0;
}

static void free_tags(char **tags, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        free(tags[i]);
    free(tags);
}

/* --- the VG --- */

static int take_vg(struct parser *p, const struct dm_config_node *vg)
{
    struct lvm_report *r = p->report;
    int rc;

    if ((rc = report_sectors(p, vg, "extent_size", &r->extent_size)) < 0 ||
        (rc = report_number(p, vg, "seqno", &r->seqno)) < 0 ||
        (rc = take_tags(p, vg, &r->vg_tags, &r->n_vg_tags)) < 0)
        return rc;
    if (r->extent_size == 0)
        return bad(p, NULL, "the VG's extents have no size");
    rc = report_pvs(p, report_child(vg, "physical_volumes"));
    for (uint32_t i = 0; rc == 0 && i < r->n_pvs; i++)
        if (__builtin_add_overflow(r->vg_size, r->pvs[i].size, &r->vg_size))
            rc = bad(p, NULL, "the PVs together are too large");
    return rc;
}

/* --- LVs --- */

static void add_segment(struct lvm_lv *lv, uint32_t pv, uint64_t offset, uint64_t length)
{
    struct lvm_segment *last = lv->n_segments ? &lv->segments[lv->n_segments - 1] : NULL;
    if (last && last->pv == pv && last->lun_offset + last->length == offset) {
        last->length += length;
        return;
    }
    lv->segments = mem_grow(lv->segments, lv->n_segments, sizeof *lv->segments);
    lv->segments[lv->n_segments++] = (struct lvm_segment){offset, length, pv};
}

static void drop_segments(struct lvm_lv *lv)
{
    free(lv->segments);
    lv->segments = NULL;
    lv->n_segments = 0;
}

static struct lvm_pv *find_pv(const struct parser *p, const char *key)
{
    for (uint32_t i = 0; i < p->report->n_pvs; i++)
        if (strcmp(p->pv_keys[i], key) == 0)
            return &p->report->pvs[i];
    return NULL;
}

/* One stripe of a segment: `size` bytes from that extent of a PV on, which are free no more. */
static int take_stripe(struct parser *p, struct lvm_lv *lv, const struct dm_config_value *name,
                       uint64_t size)
{
    const struct lvm_report *r = p->report;
    const struct dm_config_value *first = name->next;

    if (name->type != DM_CFG_STRING || !first || first->type != DM_CFG_INT || first->v.i < 0)
        return bad(p, lv->name, "a segment does not say where it lies");
    struct lvm_pv *pv = find_pv(p, name->v.str);
    if (!pv) { /* on another LV */
        lv->linear = false;
        return 0;
    }
    uint64_t extents = pv->size / r->extent_size;
    if ((uint64_t)first->v.i > extents || size > (extents - (uint64_t)first->v.i) * r->extent_size)
        return bad(p, lv->name, "a segment lies beyond its PV's end");
    if (size > pv->free)
        return bad(p, lv->name, "its PV has not as many extents as are used");
    pv->free -= size;
    add_segment(lv, pv->index, pv->pe_start + (uint64_t)first->v.i * r->extent_size, size);
    return 0;
}

/* "stripes" is a list of pairs: where, and from which extent on. */
static int take_stripes(struct parser *p, struct lvm_lv *lv, const struct dm_config_node *segment,
                        uint64_t size)
{
    const struct dm_config_node *stripes = report_child(segment, "stripes");
    uint64_t count;
    int rc = report_number(p, segment, "stripe_count", &count);

    if (rc < 0)
        return rc;
    const struct dm_config_value *v = stripes ? stripes->v : NULL;
    if (count == 0 || size / p->report->extent_size % count)
        return bad(p, lv->name, "a segment's stripes are not as many as it says");
    if (count > 1)
        lv->linear = false;
    for (uint64_t i = 0; i < count; i++, v = v->next->next) {
        if (!v)
            return bad(p, lv->name, "a segment's stripes are not as many as it says");
        rc = take_stripe(p, lv, v, size / count);
        if (rc < 0)
            return rc;
    }
    return v ? bad(p, lv->name, "a segment's stripes are not as many as it says") : 0;
}

static int take_segment(struct parser *p, struct lvm_lv *lv, const struct dm_config_node *segment)
{
    const struct lvm_report *r = p->report;
    const char *type = report_text(segment, "type");
    uint64_t start, count, size, end;
    int rc;

    if ((rc = report_number(p, segment, "start_extent", &start)) < 0 ||
        (rc = report_number(p, segment, "extent_count", &count)) < 0)
        return rc;
    if (!type)
        return bad(p, lv->name, "a segment without a type");
    if (__builtin_mul_overflow(count, r->extent_size, &size) ||
        __builtin_mul_overflow(start, r->extent_size, &start) ||
        __builtin_add_overflow(lv->size, size, &end) || end > INT64_MAX || size == 0 ||
        start != lv->size)
        return bad(p, lv->name, "its segments do not follow each other");
    lv->size = end;
    if (strcmp(type, "striped") == 0)
        return take_stripes(p, lv, segment, size);
    lv->linear = false;
    return 0;
}

/* segment1, segment2, ...: in the order of the text, which is that of the LV. */
static int take_segments(struct parser *p, struct lvm_lv *lv, const struct dm_config_node *section)
{
    uint64_t want, n = 0;
    int rc = report_number(p, section, "segment_count", &want);

    for (const struct dm_config_node *s = section->child; rc == 0 && s; s = s->sib) {
        if (s->v || strncmp(s->key, "segment", strlen("segment")) != 0)
            continue;
        n++;
        rc = take_segment(p, lv, s);
    }
    if (rc == 0 && (n != want || n == 0))
        rc = bad(p, lv->name, "it has not as many segments as it says");
    return rc;
}

static int take_lv(struct parser *p, const struct dm_config_node *section)
{
    struct lvm_report *r = p->report;
    const char *uuid = report_text(section, "id");

    if (section->v || !*section->key || !uuid)
        return bad(p, section->key, "an LV without name or uuid");
    if (r->n_lvs >= REPORT_LVS_MAX)
        return bad(p, section->key, "there are more LVs than lunar takes");
    r->lvs = mem_grow(r->lvs, r->n_lvs, sizeof *r->lvs);
    struct lvm_lv *lv = &r->lvs[r->n_lvs++];
    *lv =
        (struct lvm_lv){.name = mem_strdup(section->key), .uuid = mem_strdup(uuid), .linear = true};
    int rc = take_tags(p, section, &lv->tags, &lv->n_tags);
    if (rc == 0)
        rc = take_segments(p, lv, section);
    if (!lv->linear)
        drop_segments(lv);
    return rc;
}

/* A VG without LVs has no such section. */
static int take_lvs(struct parser *p, const struct dm_config_node *vg)
{
    const struct dm_config_node *lvs = report_child(vg, "logical_volumes");
    int rc = 0;

    if (lvs ? lvs->v != NULL : dm_config_has_node(vg->child, "logical_volumes"))
        return bad(p, NULL, "its LVs are no section, or two");
    for (const struct dm_config_node *lv = lvs ? lvs->child : NULL; rc == 0 && lv; lv = lv->sib)
        rc = take_lv(p, lv);
    for (uint32_t i = 0; i < p->report->n_pvs; i++)
        p->report->vg_free += p->report->pvs[i].free;
    return rc;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct lvm_lv *)a)->name, ((const struct lvm_lv *)b)->name);
}

static int by_offset(const void *a, const void *b)
{
    const struct lvm_segment *x = a, *y = b;
    if (x->pv != y->pv)
        return (x->pv > y->pv) - (x->pv < y->pv);
    return (x->lun_offset > y->lun_offset) - (x->lun_offset < y->lun_offset);
}

/* One name stands for one LV, and one byte of a LUN belongs to one LV at most. */
static int check_unique(const struct parser *p)
{
    struct lvm_report *r = p->report;
    size_t n = 0;
    int rc = 0;

    if (r->n_lvs == 0)
        return 0;
    qsort(r->lvs, r->n_lvs, sizeof *r->lvs, by_name);
    for (uint32_t i = 1; i < r->n_lvs; i++)
        if (strcmp(r->lvs[i - 1].name, r->lvs[i].name) == 0)
            return bad(p, r->lvs[i].name, "two LVs have this name");
    for (uint32_t i = 0; i < r->n_lvs; i++)
        n += r->lvs[i].n_segments;
    struct lvm_segment *all = mem_array(n, sizeof *all);
    n = 0;
    for (uint32_t i = 0; i < r->n_lvs; i++)
        for (uint32_t k = 0; k < r->lvs[i].n_segments; k++)
            all[n++] = r->lvs[i].segments[k];
    qsort(all, n, sizeof *all, by_offset);
    for (size_t i = 1; i < n && rc == 0; i++)
        if (all[i - 1].pv == all[i].pv &&
            all[i - 1].lun_offset + all[i - 1].length > all[i].lun_offset)
            rc = error_set(p->err, LUNAR_E_CORRUPT,
                           "LVM's metadata makes no sense: two LVs share byte %llu of LUN %u",
                           (unsigned long long)all[i].lun_offset, all[i].pv);
    free(all);
    return rc;
}

/* --- the text --- */

/* What the library's parser makes deep: sections within sections, and the slashes of one key, each
 * of which is a section to it. Texts between other quotes than LVM writes are none. */
struct depth {
    unsigned sections, slashes;
    bool deep;
};

static void count(struct depth *d, char c)
{
    if (c == '/')
        d->deep |= ++d->slashes > SLASHES_MAX;
    else if (c != '"' && c != '\\')
        d->slashes = strchr(" \t\n,=[]{}", c) ? 0 : d->slashes;
}

/* Behind the closing quote, or the end. */
static const char *skip_string(struct depth *d, const char *text)
{
    for (text++; *text && *text != '"'; text++) {
        if (*text == '\\' && text[1])
            text++;
        d->deep |= *text == '/' && ++d->slashes > SLASHES_MAX;
    }
    return text + (*text == '"');
}

static bool is_deep(const char *text)
{
    struct depth d = {0};

    while (*text && !d.deep) {
        if (*text == '#') {
            text += strcspn(text, "\n");
            continue;
        }
        if (*text == '"') {
            text = skip_string(&d, text);
            continue;
        }
        d.deep = *text == '\'' || (*text == '{' && ++d.sections > NESTING_MAX);
        d.sections -= *text == '}' && d.sections > 0;
        count(&d, *text++);
    }
    return d.deep;
}

/* The one section of the text: the VG. */
static const struct dm_config_node *find_vg(const struct dm_config_node *root)
{
    const struct dm_config_node *found = NULL;

    for (const struct dm_config_node *n = root; n; n = n->sib) {
        if (n->v)
            continue;
        if (found)
            return NULL;
        found = n;
    }
    return found;
}

static int take_tree(struct parser *p, const struct dm_config_tree *tree)
{
    const struct dm_config_node *vg = find_vg(tree->root);
    int rc = vg ? take_vg(p, vg) : bad(p, NULL, "there is not exactly one VG");
    if (rc == 0)
        rc = take_lvs(p, vg);
    return rc == 0 ? check_unique(p) : rc;
}

/* The library's words of what it cannot parse, with the line. */
__attribute__((format(printf, 5, 6))) static void
on_library_log(int level, const char *file, int line, int dm_errno, const char *format, ...)
{
    char text[300];
    va_list args;

    (void)file, (void)line, (void)dm_errno;
    if ((level & 7) > LOG_WARN_LEVEL)
        return;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    log_warn("metadata_syntax text=\"%s\"", text);
}

static void setup_once(void)
{
    dm_log_with_errno_init(on_library_log);
}

int lvm_report_parse(const char *text, struct lvm_report *ret, struct error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct parser p = {.report = ret, .err = err};

    pthread_once(&once, setup_once);
    memset(ret, 0, sizeof *ret);
    if (is_deep(text))
        return bad(&p, NULL, "it is nested too deeply");
    struct dm_config_tree *tree = mem_must(dm_config_create());
    /* As LVM parses metadata: the check for duplicates is quadratic, and ours is below. */
    int rc = dm_config_parse_without_dup_node_check(tree, text, text + strlen(text))
                 ? take_tree(&p, tree)
                 : bad(&p, NULL, "its syntax is broken");
    dm_config_destroy(tree);
    if (rc < 0)
        lvm_report_free(ret);
    return rc;
}

void lvm_report_free(struct lvm_report *report)
{
    for (uint32_t i = 0; i < report->n_lvs; i++) {
        struct lvm_lv *lv = &report->lvs[i];
        free_tags(lv->tags, lv->n_tags);
        free(lv->segments);
        free(lv->name);
        free(lv->uuid);
    }
    free_tags(report->vg_tags, report->n_vg_tags);
    free(report->lvs);
    free(report->pvs);
    memset(report, 0, sizeof *report);
}
