/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LVM's metadata, and the catalogue that is made from it. The input is the text; where a report is
 * wanted that gets far, seeds and the dictionary have its keys.
 *
 * What must hold beyond "no crash": a refused report is empty and says why; in an accepted one
 * names are unique, a linear LV's segments add up to its size, lie inside the VG and share no byte
 * with another LV's. The catalogue of it is checked by fuzz/check_catalogue.h.
 */
#include "coordinator/catalogue.h"
#include "coordinator/lvm.h"
#include "fuzz/check_catalogue.h"
#include "fuzz/fuzz.h"

static void check_lv(const struct lvm_lv *lv)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < lv->n_segments; i++) {
        MUST(lv->segments[i].length > 0 &&
                 lv->segments[i].lun_offset <= INT64_MAX - lv->segments[i].length,
             "a segment is a range of a device");
        sum += lv->segments[i].length;
    }
    MUST(lv->linear ? sum == lv->size : lv->n_segments == 0, "segments are all of it, or none");
    for (uint32_t i = 0; i < lv->n_tags; i++)
        MUST(!strchr(lv->tags[i], ','), "a tag is one tag");
}

static bool overlap(const struct lvm_lv *a, const struct lvm_lv *b)
{
    for (uint32_t i = 0; i < a->n_segments; i++)
        for (uint32_t k = 0; k < b->n_segments; k++) {
            const struct lvm_segment *x = &a->segments[i], *y = &b->segments[k];
            if (x->pv == y->pv && x->lun_offset < y->lun_offset + y->length &&
                y->lun_offset < x->lun_offset + x->length)
                return true;
        }
    return false;
}

static void check_report(const struct lvm_report *r)
{
    MUST(r->extent_size > 0 && r->vg_free <= r->vg_size, "the VG's sizes make sense");
    uint32_t first = 0;
    for (uint32_t i = 0; i < r->n_pvs; i++)
        first += r->pvs[i].index == 0;
    MUST(first == 1 && r->pvs[0].index == 0, "one PV is the first");
    for (uint32_t i = 0; i < r->n_lvs; i++) {
        check_lv(&r->lvs[i]);
        for (uint32_t k = 0; k < i; k++)
            MUST(strcmp(r->lvs[k].name, r->lvs[i].name) != 0 && !overlap(&r->lvs[k], &r->lvs[i]),
                 "no name and no byte stands for two LVs");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = strndup((const char *)data, size);
    struct lvm_report report;
    struct error err = ERROR_INIT;

    if (!text)
        abort();
    int rc = lvm_report_parse(text, &report, &err);
    free(text);
    if (rc < 0) {
        MUST(err.code == rc && err.text[0], "a refusal says why");
        MUST(!report.lvs && report.n_lvs == 0 && !report.pvs, "and leaves nothing");
        return 0;
    }
    check_report(&report);
    check_catalogue(&report);
    lvm_report_free(&report);
    return 0;
}
