/* SPDX-License-Identifier: Apache-2.0 */
/* `lun format` in two halves: format_look.c refuses, format.c writes. */
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
};

/* Claims the device and finds every reason not to format it; writes nothing. 0, or the refusal. */
int format_look(struct format *format, struct error *err);

#endif
