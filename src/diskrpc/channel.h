/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One side of one node's channel, pure: no clock, no I/O, no allocation beyond its own queues.
 *
 * The owner feeds events (with the time in them) to channel_step and carries out what
 * channel_update asks for. At most one page write and one page read are in flight per channel; a
 * late completion is still a completion: nothing is reissued while one is out, its buffer is not
 * reused, and its outcome, also after a time-out, arrives as the same event.
 *
 * Happy path: submit -> (spill write ->) page write -> peer reads, delivers, acknowledges in its
 * own page -> read done drops what was acknowledged. Failure modes: a write error is retried with
 * back-off (the page's content may or may not have landed, a rewrite repeats it under a higher
 * page_seq); a bad or foreign page is ignored and counted; a peer of a newer incarnation resets the
 * session: sequence numbers restart at 1, everything received is forgotten, queued messages are
 * dropped and `peer_changed` tells the owner, who sends again what still matters (requests are
 * idempotent by id). A message unacknowledged for CHANNEL_RESEND_US is rewritten even if nothing
 * else changed, because a stale write of a former life may have overwritten the page.
 */
#ifndef LUNAR_DISKRPC_CHANNEL_H
#define LUNAR_DISKRPC_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "diskrpc/page.h"
#include "diskrpc/trace.h"

#define CHANNEL_QUEUE_MAX       1024u /* unacknowledged messages; submit says FULL beyond */
#define CHANNEL_QUEUE_BYTES_MAX (1024u * 1024) /* and their bytes, two spills' worth at least */
#define CHANNEL_MESSAGE_MAX     LAYOUT_SPILL_SIZE

/*
 * Polling: how long to wait from the end of one read of the peer's page to the beginning of the
 * next. While something is pending or was heard lately, a quarter of the time that has passed since
 * the last event, so that an answer that takes t is noticed about t/4 late; the disk's own time
 * paces the first reads, which follow each other at once.
 */
#define CHANNEL_POLL_WAITING_PART 4u
/* Nobody answers faster than this after our page has landed, or sends again after being answered:
 * it takes a read and a write. A read before that gets in their way. */
#define CHANNEL_POLL_FIRST_US 40u
/* While a page of ours is being written there is no answer to it yet, and a read would only slow
 * the write down; but a read is not held up for longer than this. */
#define CHANNEL_POLL_HELD_US 10000u
/* A gap shorter than this is none: a timer would take about as long as it waits. */
#define CHANNEL_POLL_GAP_MIN_US 20u
/* 20 reads a second for whoever waits for minutes. */
#define CHANNEL_POLL_WAITING_MAX_US 50000u
#define CHANNEL_POLL_IDLE_US        1000000u /* nothing pending, nothing heard for CHANNEL_HOT_US */
#define CHANNEL_HOT_US              2000000u
#define CHANNEL_RESEND_US           2000000u
/* A page is rewritten at least this often, so that a hang shows. */
#define CHANNEL_HEARTBEAT_MS 1000u

struct channel;

struct channel_config {
    enum page_kind kind; /* of the pages that this side writes: PAGE_UP on an agent */
    uint32_t slot;
    struct uuid pool_id;
    struct incarnation self;
    const char *node_name; /* agents only; copied */
    uint64_t heartbeat_ms; /* 0: write when there is something to say alone */
    bool external_poll; /* the coordinator's table scan reads for it: never ask for reads while idle
                         */
    /* For an agent: pages of a lower term are dropped from the start; 0 otherwise. */
    uint64_t term_min;
    /* The first page_seq is above this: a restarted writer of the same incarnation never goes back.
     */
    uint64_t page_seq_min;
    struct hint_address hint; /* published in every page; zero: none */
    struct trace *trace;      /* what passes is noted there; NULL: nowhere. Outlives the channel */
};

enum channel_event_type {
    CHANNEL_EVENT_TICK,         /* the deadline passed, or something was submitted */
    CHANNEL_EVENT_PAGE_READ,    /* data: PAGE_SIZE_BYTES if status == 0 */
    CHANNEL_EVENT_PAGE_WRITTEN, /* status; the page asked for last */
    CHANNEL_EVENT_SPILL_READ,   /* data, len if status == 0 */
    CHANNEL_EVENT_SPILL_WRITTEN,
    CHANNEL_EVENT_HINT, /* "look at your page": read it now, and again if a read is out */
};

struct channel_event {
    enum channel_event_type type;
    uint64_t now_us; /* monotonic */
    int status;      /* 0 or a negative error */
    const uint8_t *data;
    uint32_t len;
};

/* What the owner must do after a step; valid until the next step. Buffers are the channel's,
 * IO_ALIGN-aligned, and stay untouched until the matching *_WRITTEN event. */
struct channel_update {
    bool write_page; /* write `page` (PAGE_SIZE_BYTES) */
    const uint8_t *page;
    bool write_spill; /* write `spill` (spill_len bytes, rounded up to a page with zeroes) */
    const uint8_t *spill;
    uint32_t spill_len;
    bool read_page;
    bool read_spill; /* read spill_read_len bytes (rounded up to a page) of the peer's slot */
    uint32_t spill_read_len;
    bool wrote_news;   /* a page that carries messages not said before has landed */
    bool peer_changed; /* a new incarnation of the peer was met: session reset */
    bool term_raised;  /* agent: a higher term was met (implies peer_changed) */
    /* Agent: a coordinator holds this generation of ours for dead, told once. It is a statement
     * about the past that stays true: no term takes it back. */
    bool declared_dead;
    uint64_t deadline_us; /* step a TICK at this time, UINT64_MAX: none */
};

/* Returns NULL never (aborts without memory). */
struct channel *channel_new(const struct channel_config *config);
void channel_free(struct channel *channel);

void channel_step(struct channel *channel, const struct channel_event *event,
                  struct channel_update *ret);

/* Queues a copy of the message; step a TICK afterwards. LUNAR_E_TOO_BIG, LUNAR_E_FULL, or
 * LUNAR_E_NOT_JOINED while no peer is known. */
int channel_submit(struct channel *channel, const uint8_t *data, uint32_t len);
/* Takes the next delivered message; false if there is none. Borrowed until the next step or
 * receive. Taking is what the acknowledgment counts, so take all after each step, and step a TICK
 * after the last one. */
bool channel_receive(struct channel *channel, const uint8_t **ret_data, uint32_t *ret_len);
/* Sets PAGE_FLAG_*; takes effect at the next page write, which a TICK asks for. */
void channel_set_flags(struct channel *channel, uint32_t flags);

/* Coordinator: the peer's generations up to this one are proved over. Every page says so from now
 * on; one that says less is written anew at once, which a TICK asks for. Never goes back. */
void channel_set_dead(struct channel *channel, uint64_t generation);

/* Somebody outside knows of work (an open request): poll fast until told otherwise. */
void channel_set_waiting(struct channel *channel, bool waiting);

struct channel_stats {
    uint64_t pages_written, pages_read, messages_sent, messages_received, resends;
    uint64_t bad_pages, stale_pages, write_errors, read_errors, sessions;
    uint32_t queued, queued_bytes;
    uint64_t last_heard_ms; /* in our monotonic clock; 0: never */
    struct incarnation peer;
    uint64_t term;                  /* highest seen */
    uint32_t peer_flags;            /* PAGE_FLAG_* of the peer's last page */
    char peer_name[PAGE_NAME_SIZE]; /* cut to PAGE_NAME_MAX bytes */
    struct hint_address peer_hint;  /* in its last valid page */
    uint64_t peer_heartbeat_ms;     /* the peer's own clock, in its last valid page */
    uint64_t dead_generation; /* highest that a page has said, ours (down) or the peer's (up) */
    uint64_t peer_term;       /* that the peer said it had seen, in its last valid page */
    struct trace_times ack;   /* a message's landing until its acknowledgment was read */
};
const struct channel_stats *channel_stats(const struct channel *channel);
/* True while it asks for reads in quick succession: something is pending or was heard lately. */
bool channel_hot(const struct channel *channel, uint64_t now_us);
/* True if everything submitted was acknowledged and no write is out. */
bool channel_idle(const struct channel *channel);

#endif
