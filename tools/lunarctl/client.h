/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client of an agent's (or coordinator's) Unix socket: frames of u32 little-endian length and a
 * packed lunar.Envelope. Blocking with a deadline; one thread.
 */
#ifndef LUNARCTL_CLIENT_H
#define LUNARCTL_CLIENT_H

#include <stdint.h>

#include "base/error.h"
#include "base/uuid.h"
#include "proto/lunar.pb-c.h"

struct client;

/* Connects. `path` is copied. Fails at once if nobody listens. */
int client_open(const char *path, uint64_t timeout_ms, struct client **ret, struct error *err);
void client_close(struct client *client);

/*
 * Sends the envelope and waits for a Response: the one with `id`, or, where `id` is NULL (local
 * requests have none), the first. If the connection breaks, a request with an id is sent again over
 * a new one until the time is up, which is safe because the same id is the same request. Errors
 * before anything was sent are -errno; afterwards LUNAR_E_TIMEOUT or LUNAR_E_INDETERMINATE: it may
 * have taken effect. The caller frees *ret with envelope_free. An error that the peer reports is in
 * the Response, not in the return value.
 */
int client_call(struct client *client, const Lunar__Envelope *request, const struct uuid *id,
                Lunar__Envelope **ret, struct error *err);

#endif
