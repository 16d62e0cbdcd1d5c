/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hints: a UDP datagram that says "look at your page" and nothing else (docs/PROTOCOL.md).
 *
 * Everything works without them; with them a side that reads its page once a second reads it now.
 * Lost, late, repeated, forged or sent in a flood they change nothing but latency and, within the
 * bounds below, how much is read. Nothing is ever answered, so no attacker gains a datagram by us.
 *
 * All on the loop thread. `looked` is called from the loop, never inline.
 */
#ifndef LUNAR_DISKRPC_HINT_H
#define LUNAR_DISKRPC_HINT_H

#include <uv.h>

#include "base/error.h"
#include "base/uuid.h"
#include "diskrpc/hint_address.h"

#define HINT_DATAGRAM_SIZE 28u

/*
 * The sender's bound: one datagram per peer in this time; what would come sooner is left out, not
 * queued, for the first one has made the peer read every millisecond by itself.
 */
#define HINT_SEND_GAP_US 1000u
/* The receiver's: one look per slot in this time, which is how often a hot channel reads anyway. */
#define HINT_SLOT_GAP_US 1000u
/*
 * And over all slots: a look costs one read of 4 KiB, so forged ones cost 16 MiB/s and, at 30 us a
 * read, an eighth of a core. Honest traffic stays below: a node that talks all the time is polled
 * all the time, with or without hints. The depth holds one look for each node of the largest pool,
 * for the moment when all have something to say.
 */
#define HINT_LOOKS_PER_S   4096u
#define HINT_LOOKS_AT_ONCE 2048u
/*
 * Datagrams of any kind that are taken from the kernel: 3 us each make 6 % of a core. When the
 * bucket is empty nothing is received for a while; the kernel's buffer fills up and it drops the
 * rest, at its own cost.
 */
#define HINT_DATAGRAMS_PER_S   20000u
#define HINT_DATAGRAMS_AT_ONCE 4096u
#define HINT_PAUSE_MS          20u

struct hint;

struct hint_config {
    uv_loop_t *loop;
    struct uuid pool_id;
    struct hint_address bind; /* ip zero: choose one; port 0: any free one */
    /* Slots that may be looked at, 1 or more: an agent's own alone, all of a coordinator's. */
    uint32_t slot_min, slot_max;
    void (*looked)(void *data, uint32_t slot); /* may close the hint */
    void *data;
};

struct hint_stats {
    uint64_t sent;
    uint64_t send_left_out; /* too soon after another one to the same slot */
    uint64_t send_errors;   /* refused by the kernel, or an address that nobody may be sent to */
    uint64_t received;      /* became a look */
    uint64_t dropped_bad;   /* not a hint, another pool's, or a slot that is not ours */
    uint64_t dropped_rate;  /* beyond the bounds above */
    uint64_t pauses;
};

/* Binds and listens. On an error (no such address here, the port is taken) nothing is left open. */
int hint_open(const struct hint_config *config, struct hint **ret, struct error *err);
/*
 * For a daemon: NULL if the option says so, or if it cannot be opened, which is logged: nothing
 * depends on hints. Otherwise the address is logged.
 */
struct hint *hint_start(const struct hint_option *option, const struct hint_config *config);
/* What to publish; none for NULL. */
struct hint_address hint_address(const struct hint *hint);
/* Tells `to` to look at the page of `slot`, one of the configuration's. Never blocks, never fails;
 * nothing happens for a NULL hint or an address that is none. */
void hint_send(struct hint *hint, const struct hint_address *to, uint32_t slot);
const struct hint_stats *hint_stats(const struct hint *hint);
/* Async: `closed` (may be NULL) is called from the loop, `looked` no more. */
void hint_close(struct hint *hint, void (*closed)(void *data), void *data);

#endif
