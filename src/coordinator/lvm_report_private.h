/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the report's parser share. */
#ifndef LUNAR_COORDINATOR_LVM_REPORT_PRIVATE_H
#define LUNAR_COORDINATOR_LVM_REPORT_PRIVATE_H

#include <libdevmapper.h>

#include "coordinator/lvm.h"

struct parser {
    struct lvm_report *report;
    const char *pv_keys[LVM_PVS_MAX]; /* "pv0": what segments call report->pvs[i]; borrowed */
    struct error *err;
};

/* LUNAR_E_CORRUPT; `whose` may be NULL. */
int report_bad(const struct parser *p, const char *whose, const char *what);
/* The one entry of a section with that key; NULL: there is none, or more than one. */
const struct dm_config_node *report_child(const struct dm_config_node *section, const char *key);
/* A text that is not empty; NULL: there is none. */
const char *report_text(const struct dm_config_node *section, const char *key);
/* Not negative. LUNAR_E_CORRUPT. */
int report_number(const struct parser *p, const struct dm_config_node *section, const char *key,
                  uint64_t *ret);
/* A number of sectors as bytes. */
int report_sectors(const struct parser *p, const struct dm_config_node *section, const char *key,
                   uint64_t *ret);
/* Is that word in the section's list of that key? */
bool report_lists(const struct dm_config_node *section, const char *key, const char *word);
/* The section "physical_volumes": fills report->pvs and pv_keys. The extent size is known. */
int report_pvs(struct parser *p, const struct dm_config_node *section);

#endif
