/* SPDX-License-Identifier: Apache-2.0 */
/* What must hold of the catalogue of any report that the parser accepts. */
#ifndef LUNAR_TESTS_FUZZ_CHECK_CATALOGUE_H
#define LUNAR_TESTS_FUZZ_CHECK_CATALOGUE_H

#include "coordinator/lvm.h"

/*
 * Builds it and checks: volumes are sorted, each with a name of its own, found by name and by id;
 * the leaf is the volume's own, sound and long enough; a chain is of LVs of the report; every LV is
 * either a layer of some volume or listed as foreign; no LV is the leaf of two; every argument
 * vector for lvm can be made.
 */
void check_catalogue(const struct lvm_report *report);

#endif
