/* SPDX-License-Identifier: Apache-2.0 */
/* A report of lvm's made by hand, and the catalogue of it. Included by each test file, so
 * everything is static inline. */
#ifndef LUNAR_TESTS_SUPPORT_LVM_BY_HAND_H
#define LUNAR_TESTS_SUPPORT_LVM_BY_HAND_H

#include <stdlib.h>
#include <string.h>

#include "coordinator/catalogue.h"
#include "support/lvm_lun.h"

#define GIB  (1024 * MIB)
#define ID_A "11111111-1111-4111-8111-111111111111"
#define ID_B "22222222-2222-4222-8222-222222222222"
#define LV_A "v1111111111114111"
#define LV_B "v2222222222224222"
#define REQ  "33333333-3333-4333-8333-333333333333"

static struct lvm_report report;

static inline void add_lv(const char *name, uint64_t size, const char *tags)
{
    struct lvm_lv *lv;
    report.lvs = realloc(report.lvs, (report.n_lvs + 1) * sizeof *report.lvs);
    lv = &report.lvs[report.n_lvs++];
    *lv = (struct lvm_lv){.name = strdup(name), .uuid = strdup("u"), .size = size, .linear = true};
    lv->segments = calloc(1, sizeof *lv->segments);
    lv->segments[0] = (struct lvm_segment){.lun_offset = GIB * report.n_lvs, .length = size};
    lv->n_segments = 1;
    char *copy = strdup(tags), *save = NULL;
    lv->tags = calloc(32, sizeof *lv->tags);
    for (char *t = strtok_r(copy, ",", &save); t; t = strtok_r(NULL, ",", &save))
        lv->tags[lv->n_tags++] = strdup(t);
    free(copy);
}

#define LEAF(id, name, parent)                                                                     \
    "lunar.v=" id ",lunar.n=" name                                                                 \
    ",lunar.s=10737418240,lunar.k=thin,lunar.r=leaf,lunar.p=" parent ",lunar.q=" REQ ",lunar.g=3"
#define FROZEN(id, parent) "lunar.v=" id ",lunar.r=frozen,lunar.p=" parent ",lunar.g=1"

static inline struct catalogue build(void)
{
    struct catalogue c;
    report.vg_size = 100 * GIB;
    report.extent_size = 4 * MIB;
    report.seqno = 7;
    catalogue_build(&report, &c, NULL);
    lvm_report_free(&report);
    return c;
}

static inline bool is_foreign(const struct catalogue *c, const char *lv, const char *why)
{
    for (uint32_t i = 0; i < c->n_foreign; i++)
        if (strncmp(c->foreign[i], lv, strlen(lv)) == 0)
            return strstr(c->foreign[i], why) != NULL;
    return false;
}

#endif
