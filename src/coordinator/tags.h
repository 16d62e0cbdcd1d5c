/* SPDX-License-Identifier: Apache-2.0 */
/* The tags of one LV, found by key, and what may stand in a volume's name. Pure. */
#ifndef LUNAR_COORDINATOR_TAGS_H
#define LUNAR_COORDINATOR_TAGS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/uuid.h"
#include "coordinator/lvm.h"

/* The value of the one tag "lunar.KEY=VALUE"; NULL if there is none or more than one. Borrowed from
 * the LV. */
const char *tags_value(const struct lvm_lv *lv, const char *key);
/* A tag that stands as it is, like "lunar.new". */
bool tags_has(const struct lvm_lv *lv, const char *tag);
/* Decimal digits alone; false if the tag is missing or something else. */
bool tags_number(const struct lvm_lv *lv, const char *key, uint64_t *ret);
bool tags_uuid(const struct lvm_lv *lv, const char *key, struct uuid *ret);
/* Any tag "lunar.KEY=...", be it malformed or there twice. */
bool tags_has_key(const struct lvm_lv *lv, const char *key);
/* Any tag of lunar's. */
bool tags_any(const struct lvm_lv *lv);

#endif
