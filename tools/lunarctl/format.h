/* SPDX-License-Identifier: Apache-2.0 */
/* `lun format` in two halves: format_look.c refuses, format.c writes; and the LUN's reservations.
 */
#ifndef LUNARCTL_FORMAT_H
#define LUNARCTL_FORMAT_H

#include "device.h"
#include "diskrpc/superblock.h"
#include "fencing/timeouts.h"

struct format {
    struct device device;
    struct superblock sb;
    struct timeouts timeouts;
    bool force;
    bool can_reserve; /* the device has persistent reservations that lunar can use */
};

/* Claims the device and finds every reason not to format it; writes nothing. 0, or the refusal. */
int format_look(struct format *format, struct error *err);

/* format_reserve.c: whether the device has persistent reservations; LUNAR_E_UNSUPPORTED if the pool
 * is to have them and the device has not. Writes nothing. */
int format_look_reserve(struct format *format, struct error *err);
/* Clears what pools that are dead left of them, so that this machine may write. */
int format_clear_reserve(struct format *format, struct error *err);

#endif
