/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A channel with its disk operations and its timer: what a mailbox has one of and a hub has one of
 * per node. Internal to src/diskrpc; all on the loop thread.
 */
#ifndef LUNAR_DISKRPC_ENDPOINT_H
#define LUNAR_DISKRPC_ENDPOINT_H

#include <uv.h>

#include "diskrpc/channel.h"
#include "diskrpc/disk.h"

struct endpoint;

struct endpoint_callbacks {
    void (*message)(struct endpoint *ep, const uint8_t *bytes, uint32_t len);
    /* After each step that met a page: `peer_changed` and `term_raised` of the update. */
    void (*stepped)(struct endpoint *ep, const struct channel_update *update);
    /* A page that carries messages not said before has landed: the peer may be hinted at it. */
    void (*wrote)(struct endpoint *ep);
    void (*closed)(struct endpoint *ep); /* last; the owner frees */
};

/* Where the four things of one node lie. */
struct endpoint_places {
    uint64_t own_page, own_spill, peer_page, peer_spill;
};

struct endpoint {
    uint32_t magic;
    uv_loop_t *loop;
    struct disk *disk;
    struct channel *channel;
    struct endpoint_places places;
    const struct endpoint_callbacks *callbacks;
    void *data; /* the owner's */
    uv_timer_t timer;
    struct disk_op page_read, page_write, spill_read, spill_write;
    uint8_t *page_buffer;  /* of page_read */
    uint8_t *spill_buffer; /* of spill_read; allocated with the first spill */
    uint32_t outstanding;
    bool reading; /* page_read is out */
    bool stepping;
    bool again; /* something was submitted during a step */
    bool hinted;
    bool closing;
    bool timer_closed;
};

/* Takes the configuration's copy; the first step happens from the loop. */
void endpoint_open(struct endpoint *ep, uv_loop_t *loop, struct disk *disk,
                   const struct channel_config *config, const struct endpoint_places *places,
                   const struct endpoint_callbacks *callbacks, void *data);
/* As channel_submit; LUNAR_E_NOT_JOINED while closing. */
int endpoint_send(struct endpoint *ep, const uint8_t *bytes, uint32_t len);
/* Makes the loop step the channel soon: after channel_set_*. */
void endpoint_kick(struct endpoint *ep);
/* Makes the loop read the peer's page soon, and again if a read is out: that one may have been too
 * early. */
void endpoint_hint(struct endpoint *ep);
/* A page of the peer's that somebody else read. Ignored while a read of our own is out. Calls back
 * inline. */
void endpoint_feed_page(struct endpoint *ep, const uint8_t page[PAGE_SIZE_BYTES]);
/* Async: waits for what is in flight, then calls `closed`. No other callback fires any more. */
void endpoint_close(struct endpoint *ep);

#endif
