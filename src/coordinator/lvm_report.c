/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lvm's report as structures: one `lvm fullreport` in JSON, read with suspicion.
 *
 * Happy path: the "vg" row gives sizes and seqno, the "pv" rows the LUNs and where extents begin on
 * each (lvm_report_pvs.c), the "seg" rows (sorted by LV and place in it) the LVs with their tags
 * and segments, which become byte ranges of a LUN. Failure modes: what is not the shape we asked
 * for, a number that is none, a range outside its PV, an LV with a gap, two LVs on one extent:
 * LUNAR_E_CORRUPT with the LV's name, a PV that is not on this machine: LUNAR_E_NOT_FOUND, and
 * no report at all, because a wrong map destroys data. Every number is text of digits; products are
 * checked for overflow. jansson bounds the nesting.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/lvm.h"
#include "coordinator/lvm_report_private.h"
#include "coordinator/mem.h"

#define REPORT_LVS_MAX (1u << 20)

int report_bad(const struct parser *p, const char *whose, const char *what)
{
    return error_set(p->err, LUNAR_E_CORRUPT, "lvm's report makes no sense: %s%s%s",
                     whose ? whose : "", whose ? ": " : "", what);
}

static int bad(const struct parser *p, const char *lv, const char *what)
{
    return report_bad(p, lv, what);
}

const char *report_text(const json_t *row, const char *key)
{
    return json_string_value(json_object_get(row, key));
}

/* Digits alone, below 2^63; *end is what follows them. False: no number there. */
static bool digits(const char *text, uint64_t *ret, const char **end)
{
    uint64_t value = 0;
    const char *p = text;
    for (; *p >= '0' && *p <= '9'; p++)
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*p - '0'), &value) || value > INT64_MAX)
            return false;
    *ret = value;
    *end = p;
    return p > text;
}

int report_number(const struct parser *p, const json_t *row, const char *key, uint64_t *ret)
{
    const char *text = report_text(row, key), *end;
    if (!text || !digits(text, ret, &end) || *end)
        return error_set(p->err, LUNAR_E_CORRUPT,
                         "lvm's report makes no sense: %s is '%.40s', not a number", key,
                         text ? text : "(nothing)");
    return 0;
}

/* The one row of a section that must have exactly one. */
static const json_t *only_row(const json_t *section)
{
    return json_array_size(section) == 1 ? json_array_get(section, 0) : NULL;
}

static void parse_tags(char ***tags, uint32_t *n, const char *text)
{
    while (*text) {
        size_t len = strcspn(text, ",");
        *tags = mem_grow(*tags, *n, sizeof **tags);
        (*tags)[(*n)++] = mem_must(strndup(text, len));
        text += len + (text[len] == ',');
    }
}

static void free_tags(char **tags, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        free(tags[i]);
    free(tags);
}

static int parse_vg(struct parser *p, const json_t *section)
{
    struct lvm_report *r = p->report;
    const json_t *row = only_row(section);
    int rc;

    if (!row)
        return bad(p, NULL, "there is not exactly one VG");
    if ((rc = report_number(p, row, "vg_size", &r->vg_size)) < 0 ||
        (rc = report_number(p, row, "vg_free", &r->vg_free)) < 0 ||
        (rc = report_number(p, row, "vg_extent_size", &r->extent_size)) < 0 ||
        (rc = report_number(p, row, "vg_seqno", &r->seqno)) < 0 ||
        (rc = report_number(p, row, "pv_count", &p->pv_count)) < 0)
        return rc;
    if (r->extent_size == 0 || r->extent_size % 512 || r->vg_size % r->extent_size ||
        r->vg_free % r->extent_size || r->vg_free > r->vg_size)
        return bad(p, NULL, "the VG's sizes contradict each other");
    const char *tags = report_text(row, "vg_tags");
    parse_tags(&r->vg_tags, &r->n_vg_tags, tags ? tags : "");
    return 0;
}

/* The first row of an LV opens it; its later rows only add segments. */
static int open_lv(struct parser *p, const json_t *row, const char *name, const char *uuid)
{
    struct lvm_report *r = p->report;
    const char *tags = report_text(row, "lv_tags");
    uint64_t size;

    if (!tags)
        return bad(p, name, "it has no list of tags");
    int rc = report_number(p, row, "lv_size", &size);
    if (rc < 0)
        return rc;
    if (r->n_lvs >= REPORT_LVS_MAX)
        return bad(p, name, "there are more LVs than lunar takes");
    r->lvs = mem_grow(r->lvs, r->n_lvs, sizeof *r->lvs);
    struct lvm_lv *lv = &r->lvs[r->n_lvs++];
    *lv = (struct lvm_lv){
        .name = mem_strdup(name), .uuid = mem_strdup(uuid), .size = size, .linear = true};
    parse_tags(&lv->tags, &lv->n_tags, tags);
    p->lv_uuid = uuid;
    p->lv_done = 0;
    return 0;
}

/* "/dev/name:12-23": the PV's name may itself hold colons. */
static bool parse_range(const char *pv_name, const char *text, uint64_t *ret_first,
                        uint64_t *ret_last)
{
    size_t len = strlen(pv_name);
    const char *end;
    return strncmp(text, pv_name, len) == 0 && text[len] == ':' &&
           digits(text + len + 1, ret_first, &end) && *end == '-' &&
           digits(end + 1, ret_last, &end) && *end == 0 && *ret_first <= *ret_last;
}

/* The PV on which that range lies; NULL: none, or it is no range. */
static const struct lvm_pv *find_range(const struct parser *p, const char *text,
                                       uint64_t *ret_first, uint64_t *ret_last)
{
    for (uint32_t i = 0; text && i < p->report->n_pvs; i++)
        if (parse_range(p->pv_names[i], text, ret_first, ret_last))
            return &p->report->pvs[i];
    return NULL;
}

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

static int parse_linear(struct parser *p, const json_t *row, struct lvm_lv *lv, uint64_t size)
{
    const struct lvm_report *r = p->report;
    uint64_t first, last;
    const struct lvm_pv *pv = find_range(p, report_text(row, "seg_pe_ranges"), &first, &last);

    if (!pv)
        return bad(p, lv->name, "a segment does not say where on a PV it lies");
    if (last >= pv->size / r->extent_size)
        return bad(p, lv->name, "a segment lies beyond its PV's end");
    if (size != (last - first + 1) * r->extent_size)
        return bad(p, lv->name, "a segment's size is not that of its extents");
    add_segment(lv, pv->index, pv->pe_start + first * r->extent_size, size);
    return 0;
}

static void drop_segments(struct lvm_lv *lv)
{
    free(lv->segments);
    lv->segments = NULL;
    lv->n_segments = 0;
    lv->linear = false;
}

static int parse_segment(struct parser *p, const json_t *row)
{
    const char *name = report_text(row, "lv_name"), *uuid = report_text(row, "lv_uuid");
    const char *type = report_text(row, "segtype");
    uint64_t start, size;
    int rc;

    if (!name || !*name || !uuid || !*uuid || !type)
        return bad(p, name, "a segment without name, uuid or type");
    if ((rc = report_number(p, row, "seg_start", &start)) < 0 ||
        (rc = report_number(p, row, "seg_size", &size)) < 0)
        return rc;
    if ((!p->lv_uuid || strcmp(p->lv_uuid, uuid) != 0) && (rc = open_lv(p, row, name, uuid)) < 0)
        return rc;
    struct lvm_lv *lv = &p->report->lvs[p->report->n_lvs - 1];
    if (strcmp(lv->name, name) != 0)
        return bad(p, name, "two names under one uuid");
    if (start != p->lv_done || size == 0 || size > lv->size - p->lv_done)
        return bad(p, name, "its segments do not follow each other");
    p->lv_done += size;
    if (strcmp(type, "linear") != 0)
        drop_segments(lv);
    return lv->linear ? parse_linear(p, row, lv, size) : 0;
}

static int parse_segments(struct parser *p, const json_t *section)
{
    const json_t *row;
    size_t i;

    if (!json_is_array(section))
        return bad(p, NULL, "there is no list of segments");
    json_array_foreach(section, i, row)
    {
        const struct lvm_report *r = p->report;
        const char *uuid = report_text(row, "lv_uuid");
        bool next = p->lv_uuid && uuid && strcmp(uuid, p->lv_uuid) != 0;
        if (next && p->lv_done != r->lvs[r->n_lvs - 1].size)
            return bad(p, r->lvs[r->n_lvs - 1].name, "its segments end before it does");
        int rc = parse_segment(p, row);
        if (rc < 0)
            return rc;
    }
    if (p->lv_uuid && p->lv_done != p->report->lvs[p->report->n_lvs - 1].size)
        return bad(p, p->report->lvs[p->report->n_lvs - 1].name, "its segments end before it does");
    return 0;
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
                           "lvm's report makes no sense: two LVs share byte %llu of LUN %u",
                           (unsigned long long)all[i].lun_offset, all[i].pv);
    free(all);
    return rc;
}

int lvm_report_parse(const char *json, struct lvm_report *ret, struct error *err)
{
    struct parser p = {.report = ret, .err = err};
    json_error_t where;
    json_t *root = json_loads(json, JSON_REJECT_DUPLICATES, &where);
    int rc;

    memset(ret, 0, sizeof *ret);
    if (!root)
        return error_set(err, LUNAR_E_CORRUPT, "lvm's report is not JSON: line %d: %s", where.line,
                         where.text);
    const json_t *report = only_row(json_object_get(root, "report"));
    rc = report ? parse_vg(&p, json_object_get(report, "vg")) : bad(&p, NULL, "no report in it");
    if (rc == 0)
        rc = report_pvs(&p, json_object_get(report, "pv"));
    if (rc == 0)
        rc = parse_segments(&p, json_object_get(report, "seg"));
    if (rc == 0)
        rc = check_unique(&p);
    json_decref(root);
    if (rc < 0)
        lvm_report_free(ret);
    return rc;
}

int lvm_report(struct lvm *lvm, struct lvm_report *ret, struct error *err)
{
    /* The order of the rows is what the parser counts on. */
    const char *args[] = {
        "fullreport",
        "-qq",
        "--reportformat",
        "json",
        "--units",
        "b",
        "--nosuffix",
        "--configreport",
        "vg",
        "-o",
        "vg_name,vg_size,vg_free,vg_extent_size,vg_seqno,pv_count,vg_tags",
        "--configreport",
        "pv",
        "-o",
        "pv_name,pv_uuid,pe_start,pv_size,pv_free,dev_size,pv_mda_count,pv_missing",
        "--configreport",
        "lv",
        "-o",
        "lv_name",
        "--configreport",
        "pvseg",
        "-o",
        "pv_name",
        "--configreport",
        "seg",
        "-O",
        "lv_uuid,seg_start",
        "-o",
        "lv_name,lv_uuid,lv_size,lv_tags,segtype,seg_start,seg_size,seg_pe_ranges",
        lvm_vg_name(lvm),
        NULL};
    char *json;

    memset(ret, 0, sizeof *ret);
    int rc = lvm_run(lvm, args, &json, err);
    if (rc == 0)
        rc = lvm_report_parse(json, ret, err);
    free(json);
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
