/* SPDX-License-Identifier: Apache-2.0 */
/* What import and export share: a volume that is attached to this node for a while. */
#ifndef LUNARCTL_TRANSFER_H
#define LUNARCTL_TRANSFER_H

#include "volume.h"

struct transfer {
    struct client *client;
    struct uuid volume_id, attachment_id; /* zero: there is none (any more) */
    bool ours; /* the volume was made by us, and nobody else attaches it */
    char device[512];
};

/* A request whose answer may take longer than a time-out: the same one again, until there is an
 * answer or a signal has come (-EINTR). */
int transfer_call(struct client *client, Lunar__Request *request, Lunar__Response__OpCase op_case,
                  Lunar__Envelope **ret, struct error *err);
/* Creates the volume and notes it. */
int transfer_create(struct transfer *t, Lunar__VolumeCreate *create, struct error *err);
int transfer_attach(struct transfer *t, bool importing, struct error *err);
/* Waits a little for whoever looks at a device that was just closed. */
int transfer_detach(struct transfer *t, struct error *err);
int transfer_delete(struct transfer *t, struct error *err);

#endif
