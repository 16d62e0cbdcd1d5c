/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the VG's tags tell. The pool's settings: lunar.oc=PERCENT (limit of overcommit) and
 * lunar.warn=PERCENT (how full it may be without a warning); the groups of snapshots that are
 * whole: lunar.gw=UUID each. Pure.
 *
 * Failure modes: a tag that is missing, double, malformed or out of bounds counts as not set.
 */
#include <stdlib.h>
#include <string.h>

#include "coordinator/catalogue.h"
#include "coordinator/mem.h"
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

#define GROUP_PREFIX "lunar.gw="

uint32_t catalogue_read_groups(const struct lvm_report *report, struct uuid **ret)
{
    uint32_t n = 0;

    *ret = mem_array(report->n_vg_tags, sizeof **ret);
    for (uint32_t i = 0; i < report->n_vg_tags; i++)
        if (strncmp(report->vg_tags[i], GROUP_PREFIX, strlen(GROUP_PREFIX)) == 0 &&
            uuid_parse(report->vg_tags[i] + strlen(GROUP_PREFIX), &(*ret)[n]) == 0)
            n++;
    return n;
}

bool catalogue_group_is_whole(const struct catalogue *c, const struct uuid *group)
{
    for (uint32_t i = 0; i < c->n_groups; i++)
        if (uuid_equal(&c->groups[i], group))
            return true;
    return false;
}

bool catalogue_group_is_needed(const struct catalogue *c, const struct uuid *group)
{
    for (uint32_t i = 0; i < c->n_volumes; i++) {
        const struct catalogue_volume *v = &c->volumes[i];
        if ((v->former && uuid_equal(&v->below.group, group)) ||
            (v->overlay && uuid_equal(&v->overlay->below.group, group)))
            return true;
    }
    return false;
}
