/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A channel with its disk operations and its alarm: what a mailbox has one of and a hub has one of
 * per node. Internal to src/diskrpc; all on the loop thread.
 */
#ifndef LUNAR_DISKRPC_ENDPOINT_H
#define LUNAR_DISKRPC_ENDPOINT_H

#include "base/alarm.h"
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
    struct alarms *alarms;
    struct disk *disk;
    struct channel *channel;
    struct endpoint_places places;
    const struct endpoint_callbacks *callbacks;
    void *data; /* the owner's */
    struct alarm alarm;
    struct disk_op page_read, page_write, spill_read, spill_write;
    uint8_t *page_buffer;  /* of page_read */
    uint8_t *spill_buffer; /* of spill_read; allocated with the first spill */
    uint32_t outstanding;
    bool reading; /* page_read is out */
    bool held;    /* the owner reads for it */
    bool wants;   /* held, and the channel waits for a page */
    bool stepping;
    bool again; /* something was submitted during a step */
    bool hinted;
    bool refused; /* the last page's write met a reservation conflict */
    bool closing;
    bool alarm_done; /* closing: the loop has turned since */
};

/* Takes the configuration's copy; the first step happens from the loop. `alarms` outlives it. */
void endpoint_open(struct endpoint *ep, struct alarms *alarms, struct disk *disk,
                   const struct channel_config *config, const struct endpoint_places *places,
                   const struct endpoint_callbacks *callbacks, void *data);
/* As channel_submit; LUNAR_E_NOT_JOINED while closing. The page's write is submitted at once. */
int endpoint_send(struct endpoint *ep, const uint8_t *bytes, uint32_t len);
/* Steps the channel, now or when the step that is under way ends: after channel_set_*. Nothing is
 * called back: no event but a page or a spill brings messages. */
void endpoint_kick(struct endpoint *ep);
/* Reads the peer's page now, and again if a read is out: that one may have been too early. */
void endpoint_hint(struct endpoint *ep);
/* A page of the peer's that somebody else read. Ignored while a read of our own is out. Calls back
 * inline. */
void endpoint_feed_page(struct endpoint *ep, const uint8_t page[PAGE_SIZE_BYTES]);
/* While held, a read that the channel asks for is not submitted but answered by the next
 * endpoint_feed_page. Let go, one that waits is submitted at once. */
void endpoint_hold(struct endpoint *ep, bool held);
/* Async: waits for what is in flight, then calls `closed`. No other callback fires any more. */
void endpoint_close(struct endpoint *ep);

#endif
