/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mailboxes: channels bound to a disk and a libuv loop. An agent has one; the coordinator has one
 * per node in a hub that scans all up pages with one large read (HUB_SCAN_MS) and polls the hot
 * nodes alone.
 *
 * All on the loop thread. Callbacks fire from the loop, never inline from a call. Close is async.
 */
#ifndef LUNAR_DISKRPC_MAILBOX_H
#define LUNAR_DISKRPC_MAILBOX_H

#include <uv.h>

#include "base/error.h"
#include "base/uuid.h"
#include "diskrpc/channel.h"
#include "diskrpc/disk.h"
#include "diskrpc/layout.h"

/* --- the agent's side --- */
struct mailbox;
struct mailbox_callbacks {
    /* A message from the coordinator; borrowed until it returns. */
    void (*message)(void *data, const uint8_t *bytes, uint32_t len);
    /* A coordinator of a newer term answers (or the first one): send again what is pending. */
    void (*peer_changed)(void *data, const struct incarnation *peer);
    /* A page with messages not said before has landed: who wants to may hint the coordinator at it
     * over the network. NULL: nobody does. */
    void (*wrote)(void *data);
    /* A coordinator holds our life, of a generation up to this one, for dead: its grants are gone
     * or going to others. Once, before any message of that page. NULL: nobody listens. */
    void (*dead)(void *data, uint64_t generation);
};
struct mailbox_config {
    uv_loop_t *loop;
    struct disk *disk;
    const struct layout *layout;
    struct uuid pool_id;
    struct incarnation self;
    const char *node_name;
    uint64_t term_min, page_seq_min;
    struct hint_address hint; /* published in the up page; zero: none wanted */
    struct trace *trace;      /* see channel_config */
    struct mailbox_callbacks callbacks;
    void *data;
};
struct mailbox *mailbox_open(const struct mailbox_config *config);
int mailbox_send(struct mailbox *mailbox, const uint8_t *bytes,
                 uint32_t len); /* as channel_submit */
/* Look at the down page now: somebody says that there is something. Costs one read, whether true or
 * not. Nothing while closing. */
void mailbox_hint(struct mailbox *mailbox);
void mailbox_set_waiting(struct mailbox *mailbox, bool waiting);
void mailbox_set_leaving(struct mailbox *mailbox);
const struct channel_stats *mailbox_stats(const struct mailbox *mailbox);
bool mailbox_idle(const struct mailbox *mailbox);
/* The LUN refused our last page because of a reservation (EBADE): this node's was preempted. */
bool mailbox_refused(const struct mailbox *mailbox);
void mailbox_close(struct mailbox *mailbox, void (*closed)(void *data), void *data);

/* --- the coordinator's side --- */
#define HUB_SCAN_MS                                                                                \
    1000 /* the table scan's period: bounds how late an idle node's first message is noticed */

struct hub;
struct hub_callbacks {
    void (*message)(void *data, uint32_t host_id, const uint8_t *bytes, uint32_t len);
    /* A node's first page, or one of a newer incarnation, or its flags changed to leaving. */
    void (*node_changed)(void *data, uint32_t host_id, const struct channel_stats *stats);
    /* A down page of a higher term than ours was met on the LUN: we are deposed and must stop at
     * once. */
    void (*deposed)(void *data, uint64_t term);
    /* As the mailbox's, for that node's down page. May be NULL. */
    void (*wrote)(void *data, uint32_t host_id);
};
struct hub_config {
    uv_loop_t *loop;
    struct disk *disk;
    const struct layout *layout;
    struct uuid pool_id;
    struct incarnation self;  /* run_or_term is the term */
    struct hint_address hint; /* published in the down pages; zero: none wanted */
    struct trace *trace;      /* see channel_config */
    struct hub_callbacks callbacks;
    void *data;
};
/* Reads all up pages at once and from then on. `node_changed` fires for each node found. */
struct hub *hub_open(const struct hub_config *config);
/* LUNAR_E_NOT_JOINED if no up page of that node was ever seen. */
int hub_send(struct hub *hub, uint32_t host_id, const uint8_t *bytes, uint32_t len);
/* Look at that node's up page now. A node that was never seen is left to the scan: ignored. */
void hub_hint(struct hub *hub, uint32_t host_id);
/* That node's generations up to this one are proved over: its down page says so from now on (at
 * once, if the node was ever seen), and never less. */
void hub_set_dead(struct hub *hub, uint32_t host_id, uint64_t generation);
void hub_set_waiting(struct hub *hub, uint32_t host_id, bool waiting);
const struct channel_stats *hub_stats(const struct hub *hub,
                                      uint32_t host_id); /* NULL: never seen */
void hub_close(struct hub *hub, void (*closed)(void *data), void *data);

#endif
