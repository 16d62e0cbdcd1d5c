/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lvm's report as structures: one `lvm fullreport` in JSON, read with suspicion.
 *
 * Happy path: the "vg" row gives sizes and seqno, the "pv" row where extents begin, the "seg" rows
 * (sorted by LV and place in it) the LVs with their tags and segments, which become byte ranges of
 * the LUN. Failure modes: what is not the shape we asked for, a number that is none, a range
 * outside the VG, an LV with a gap, two LVs on one extent: LUNAR_E_CORRUPT with the LV's name, and
 * no report at all, because a wrong map destroys data. Every number is text of digits; products are
 * checked for overflow. jansson bounds the nesting.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/lvm.h"
#include "coordinator/mem.h"

#define REPORT_LVS_MAX (1u << 20)

struct parser {
    struct lvm_report *report;
    const char *pv_name;
    uint64_t pe_start;
    const char *lv_uuid; /* of the LV that the last row belonged to */
    uint64_t lv_done;    /* bytes of it seen */
    struct error *err;
};

static int bad(const struct parser *p, const char *lv, const char *what)
{
    return error_set(p->err, LUNAR_E_CORRUPT, "lvm's report makes no sense: %s%s%s", lv ? lv : "",
                     lv ? ": " : "", what);
}

static const char *text_of(const json_t *row, const char *key)
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

static int number_of(const struct parser *p, const json_t *row, const char *key, uint64_t *ret)
{
    const char *text = text_of(row, key), *end;
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
    uint64_t pvs;
    int rc;

    if (!row)
        return bad(p, NULL, "there is not exactly one VG");
    if ((rc = number_of(p, row, "vg_size", &r->vg_size)) < 0 ||
        (rc = number_of(p, row, "vg_free", &r->vg_free)) < 0 ||
        (rc = number_of(p, row, "vg_extent_size", &r->extent_size)) < 0 ||
        (rc = number_of(p, row, "vg_seqno", &r->seqno)) < 0 ||
        (rc = number_of(p, row, "pv_count", &pvs)) < 0)
        return rc;
    if (pvs != 1)
        return error_set(p->err, LUNAR_E_UNSUPPORTED,
                         "the VG has %llu PVs; pools of several LUNs are not supported yet",
                         (unsigned long long)pvs);
    if (r->extent_size == 0 || r->extent_size % 512 || r->vg_size % r->extent_size ||
        r->vg_free % r->extent_size || r->vg_free > r->vg_size)
        return bad(p, NULL, "the VG's sizes contradict each other");
    const char *tags = text_of(row, "vg_tags");
    parse_tags(&r->vg_tags, &r->n_vg_tags, tags ? tags : "");
    return 0;
}

static int parse_pv(struct parser *p, const json_t *section)
{
    const json_t *row = only_row(section);
    if (!row)
        return bad(p, NULL, "there is not exactly one PV");
    p->pv_name = text_of(row, "pv_name");
    if (!p->pv_name || !*p->pv_name)
        return bad(p, NULL, "the PV has no name");
    return number_of(p, row, "pe_start", &p->pe_start);
}

/* The first row of an LV opens it; its later rows only add segments. */
static int open_lv(struct parser *p, const json_t *row, const char *name, const char *uuid)
{
    struct lvm_report *r = p->report;
    const char *tags = text_of(row, "lv_tags");
    uint64_t size;

    if (!tags)
        return bad(p, name, "it has no list of tags");
    int rc = number_of(p, row, "lv_size", &size);
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
static bool parse_range(const struct parser *p, const char *text, uint64_t *ret_first,
                        uint64_t *ret_last)
{
    size_t len = strlen(p->pv_name);
    const char *end;
    return strncmp(text, p->pv_name, len) == 0 && text[len] == ':' &&
           digits(text + len + 1, ret_first, &end) && *end == '-' &&
           digits(end + 1, ret_last, &end) && *end == 0 && *ret_first <= *ret_last;
}

static void add_segment(struct lvm_lv *lv, uint64_t offset, uint64_t length)
{
    struct lvm_segment *last = lv->n_segments ? &lv->segments[lv->n_segments - 1] : NULL;
    if (last && last->lun_offset + last->length == offset) {
        last->length += length;
        return;
    }
    lv->segments = mem_grow(lv->segments, lv->n_segments, sizeof *lv->segments);
    lv->segments[lv->n_segments++] = (struct lvm_segment){offset, length};
}

static int parse_linear(struct parser *p, const json_t *row, struct lvm_lv *lv, uint64_t size)
{
    const struct lvm_report *r = p->report;
    const char *range = text_of(row, "seg_pe_ranges");
    uint64_t first, last;

    if (!range || !parse_range(p, range, &first, &last))
        return bad(p, lv->name, "a segment does not say where on the PV it lies");
    if (last >= r->vg_size / r->extent_size)
        return bad(p, lv->name, "a segment lies beyond the VG's end");
    if (size != (last - first + 1) * r->extent_size)
        return bad(p, lv->name, "a segment's size is not that of its extents");
    add_segment(lv, p->pe_start + first * r->extent_size, size);
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
    const char *name = text_of(row, "lv_name"), *uuid = text_of(row, "lv_uuid");
    const char *type = text_of(row, "segtype");
    uint64_t start, size;
    int rc;

    if (!name || !*name || !uuid || !*uuid || !type)
        return bad(p, name, "a segment without name, uuid or type");
    if ((rc = number_of(p, row, "seg_start", &start)) < 0 ||
        (rc = number_of(p, row, "seg_size", &size)) < 0)
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
        const char *uuid = text_of(row, "lv_uuid");
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
    return (x->lun_offset > y->lun_offset) - (x->lun_offset < y->lun_offset);
}

/* One name stands for one LV, and one byte of the LUN belongs to one LV at most. */
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
        if (all[i - 1].lun_offset + all[i - 1].length > all[i].lun_offset)
            rc = error_set(p->err, LUNAR_E_CORRUPT,
                           "lvm's report makes no sense: two LVs share byte %llu of the LUN",
                           (unsigned long long)all[i].lun_offset);
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
        rc = parse_pv(&p, json_object_get(report, "pv"));
    if (rc == 0 && p.pe_start > INT64_MAX - ret->vg_size)
        rc = bad(&p, NULL, "the PV's extents begin beyond all devices");
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
        "pv_name,pe_start",
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
    memset(report, 0, sizeof *report);
}
