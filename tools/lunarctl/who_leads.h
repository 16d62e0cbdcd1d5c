/* SPDX-License-Identifier: Apache-2.0 */
/* Who leads, as the LUN says, when no coordinator answers. */
#ifndef LUNARCTL_WHO_LEADS_H
#define LUNARCTL_WHO_LEADS_H

#include <stddef.h>

#include "cli.h"
#include "diskrpc/beat.h"
#include "fencing/leases.h"

struct leading {
    struct leader_record lease;
    int beat_rc;
    struct beat beat;
};
/* A sentence for people from two looks. Pure. */
void who_leads_text(const struct leading *first, const struct leading *second, char *ret,
                    size_t size);
/* Looks, which takes 3 s, and says it on standard error. */
void who_leads_explain(const struct cli *cli);

#endif
