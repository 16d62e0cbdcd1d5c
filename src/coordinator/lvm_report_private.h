/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the report's parser share. */
#ifndef LUNAR_COORDINATOR_LVM_REPORT_PRIVATE_H
#define LUNAR_COORDINATOR_LVM_REPORT_PRIVATE_H

#include <jansson.h>

#include "coordinator/lvm.h"

struct parser {
    struct lvm_report *report;
    uint64_t pv_count;                 /* that the VG says it has */
    const char *pv_names[LVM_PVS_MAX]; /* of report->pvs[i], borrowed from the JSON */
    const char *lv_uuid;               /* of the LV that the last row belonged to */
    uint64_t lv_done;                  /* bytes of it seen */
    struct error *err;
};

/* LUNAR_E_CORRUPT; `whose` may be NULL. */
int report_bad(const struct parser *p, const char *whose, const char *what);
/* NULL: there is none. */
const char *report_text(const json_t *row, const char *key);
int report_number(const struct parser *p, const json_t *row, const char *key, uint64_t *ret);
/* The "pv" rows: fills report->pvs and pv_names. After the "vg" row. */
int report_pvs(struct parser *p, const json_t *section);

#endif
