/* SPDX-License-Identifier: Apache-2.0 */
/* The PVs that a text of LVM's metadata names. Pure. */
#ifndef LUNAR_COORDINATOR_PV_TEXT_H
#define LUNAR_COORDINATOR_PV_TEXT_H

#include "coordinator/lvm.h"

struct pv_text {
    char uuid[PV_UUID_SIZE];
    uint64_t device_size; /* when the text was written; bytes */
};
/* In the order of the text. Their number; LUNAR_E_CORRUPT, LUNAR_E_UNSUPPORTED. */
int pv_text_read(const char *text, struct pv_text ret[LVM_PVS_MAX], struct error *err);
/* The one with the metadata areas: that lunar has not added. LUNAR_E_CORRUPT: not just one. */
int pv_text_first(const char *text, struct pv_text *ret, struct error *err);

#endif
