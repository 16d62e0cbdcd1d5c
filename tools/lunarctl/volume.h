/* SPDX-License-Identifier: Apache-2.0 */
/* Names to ids, for the commands about volumes and snapshots: what changes something travels by id
 * alone (SAFETY 6). */
#ifndef LUNARCTL_VOLUME_H
#define LUNARCTL_VOLUME_H

#include <jansson.h>

#include "request.h"

/* Looks the volume up by name or UUID. What looks like a UUID is one: CSI's names never do, and a
 * volume that does is found by its own UUID. CLI_OK: free *ret with envelope_free. */
int volume_get(const struct cli *cli, struct client *client, const char *name,
               Lunar__Envelope **ret);
/* The same for a snapshot: the answer holds a list of that one. */
int snapshot_get(const struct cli *cli, struct client *client, const char *name,
                 Lunar__Envelope **ret);
void volume_print(const json_t *volume);

#endif
