/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pool's settings, as the VG's tags tell them: lunar.oc=PERCENT (limit of overcommit) and
 * lunar.warn=PERCENT (how full it may be without a warning). Pure.
 *
 * Failure modes: a tag that is missing, double, malformed or out of bounds counts as not set.
 */
#include "coordinator/catalogue.h"
#include "coordinator/tags.h"

static uint32_t setting(const struct lvm_lv *vg, const char *key, uint64_t max, uint32_t otherwise)
{
    uint64_t value;
    return tags_number(vg, key, &value) && value >= 1 && value <= max ? (uint32_t)value : otherwise;
}

struct catalogue_settings catalogue_read_settings(const struct lvm_report *report)
{
    const struct lvm_lv vg = {.tags = report->vg_tags, .n_tags = report->n_vg_tags};

    return (struct catalogue_settings){
        .overcommit_percent = setting(&vg, "oc", CATALOGUE_OVERCOMMIT_MAX, 0),
        .warn_percent = setting(&vg, "warn", 100, CATALOGUE_WARN_DEFAULT)};
}
