/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The channel's inside, shared by its files: channel.c (life, step), channel_send.c (queue,
 * page, spill out), channel_receive.c (page and spill in, session), channel_poll.c (when to read).
 */
#ifndef LUNAR_DISKRPC_CHANNEL_PRIVATE_H
#define LUNAR_DISKRPC_CHANNEL_PRIVATE_H

#include "diskrpc/channel.h"

#define CHANNEL_MAGIC 0x4c43484eu
#define NEVER         UINT64_MAX

/* The largest message that travels inside a page. */
#define MESSAGE_INLINE_MAX (PAGE_PAYLOAD_SIZE - PAGE_MESSAGE_OVERHEAD)
/*
 * An acknowledgment waits this long for a data page to ride on: an answer that is computed at once
 * takes it along, and the sender is in no hurry. For a spill it is: its slot serves the next one
 * only then; but an answer that is a spill itself gets the time to be written.
 */
#define ACK_DELAY_US       5000u
#define ACK_DELAY_SPILL_US 200u
/* After a failed write: first wait, doubled up to the second. Errors of a LUN last for seconds, not
 * milliseconds. */
#define WRITE_BACKOFF_MIN_US 50000u
#define WRITE_BACKOFF_MAX_US 2000000u
/* After a failed or mismatching read of a spill slot or a failed read of a page. */
#define READ_BACKOFF_US CHANNEL_POLL_WAITING_MAX_US
/*
 * A node that the coordinator has not heard for this long gets no reads of its own any more,
 * whatever is pending for it: the table scan will notice it. Five heartbeats: a live node is never
 * that silent.
 */
#define SILENT_MS 5000u

/* One queued message; owned by the queue, or by spill.flying alone once it was dropped in flight.
 */
struct message {
    struct message *next;
    uint64_t seq;
    uint32_t len;
    uint32_t crc; /* spilled only */
    bool spilled;
    bool
        dropped; /* acknowledged or forgotten while its spill write was out: freed when that ends */
    uint8_t *data; /* spilled: IO_ALIGN-aligned, padded with zeroes to a page */
};

/* What a page said (or is saying) to the peer: compared with what there is to say. */
struct said {
    struct incarnation peer;
    uint32_t flags;
    uint64_t dead_generation;
    uint64_t ack_seq;
    uint64_t last_seq; /* of the last message in it, first_seq - 1 if none */
};

struct channel {
    uint32_t magic;
    struct channel_config config;
    char node_name[PAGE_NAME_SIZE];
    struct channel_stats stats; /* peer and term live here */
    uint32_t flags;
    bool waiting;
    uint64_t now_us; /* of the step that goes on, or was the last */

    /* The session with stats.peer. */
    uint64_t seq_next;      /* of the next submitted message */
    uint64_t seq_offered;   /* highest that was ever put into a page: no peer can have more */
    uint64_t seq_acked;     /* highest that the peer acknowledged */
    uint64_t seq_received;  /* highest that the owner took */
    uint64_t peer_page_seq; /* highest seen of the peer incarnation */
    struct message *head, *tail;

    struct {
        uint8_t *buffer; /* untouched while `out` */
        bool out;
        bool ever;   /* some page of ours has reached the disk */
        bool again;  /* the last write failed: what lies there is unknown */
        bool repeat; /* the peer does not seem to know our page: it may have been overwritten */
        struct said flying; /* valid while `out` */
        struct said landed; /* valid if `ever` */
        uint64_t seq;       /* page_seq of the last page asked for */
        uint64_t done_us;   /* when the last write ended */
    } write;

    struct {
        struct message *flying; /* its write is out */
        uint64_t landed_seq;    /* the message that fills the slot, 0: none of this session */
        bool again;             /* write it once more: a former life may have written over it */
    } spill;
    uint64_t backoff_us;    /* 0: the last write was good */
    uint64_t not_before_us; /* no write before this */
    uint64_t
        progress_us; /* when the oldest message was first sent, last resent, or the last ack came */
    uint64_t ack_due_us;

    /* The peer's last page that was for us, and how far the owner has taken its messages. */
    struct page in;
    uint32_t in_at;
    uint32_t in_left;
    uint64_t in_seq; /* of the message at in_at */
    struct {
        bool out;
        uint64_t session; /* stats.sessions when the read was asked for: another one makes it
                             worthless */
        uint64_t seq;     /* asked for, or at hand if `data` */
        uint32_t len, crc;
        uint8_t *data;
        uint64_t not_before_us;
    } spill_in;

    struct {
        bool out;
        bool started;
        uint64_t since_us; /* of the last event: the gaps grow with the time from here on */
        uint64_t empty;    /* reads since then */
        uint64_t next_us;
        uint64_t not_before_us; /* the last read failed */
        uint64_t hot_until_us;
        bool fresh; /* a waiter came since the last step */
        bool look;  /* hinted: one read, begun after the hint */
    } poll;
    struct page scratch; /* the page being looked at */

    struct {
        uint64_t seq; /* the message whose acknowledgment is timed; 0: none */
        uint64_t since_us;
    } timed;
};

static inline bool incarnation_equal(const struct incarnation *a, const struct incarnation *b)
{
    return a->host_id == b->host_id && a->generation == b->generation &&
           a->run_or_term == b->run_or_term;
}

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* channel_trace.c */
void channel_note(struct channel *ch, enum trace_event event, int error);
void channel_note_page(struct channel *ch, enum trace_event event, const struct page *page);
/* The messages behind `after_seq` up to `last_seq` are in the page asked for. */
void channel_note_sent(struct channel *ch, uint64_t after_seq, uint64_t last_seq);
/* The message that was just counted in seq_received. */
void channel_note_received(struct channel *ch, bool spilled, const uint8_t *data, uint32_t len);
void channel_time_landed(struct channel *ch, uint64_t last_seq);
void channel_note_acked(struct channel *ch); /* seq_acked has risen */

/* channel_send.c */
void channel_send_reset(struct channel *ch); /* the session ended: forget the queue */
void channel_send_acked(struct channel *ch, uint64_t ack_seq, uint64_t now_us);
void channel_page_written(struct channel *ch, const struct channel_event *event,
                          struct channel_update *ret);
void channel_spill_written(struct channel *ch, int status, uint64_t now_us);
void channel_send_step(struct channel *ch, uint64_t now_us, struct channel_update *ret);

/* channel_receive.c */
void channel_page_read(struct channel *ch, const struct channel_event *event,
                       struct channel_update *ret);
void channel_spill_read(struct channel *ch, const struct channel_event *event);
void channel_receive_step(struct channel *ch, uint64_t now_us, struct channel_update *ret);
bool channel_receive_pending(const struct channel *ch); /* the owner has not taken all yet */
void channel_receive_free(struct channel *ch);

/* channel_poll.c */
/* Something happened that deserves a fast look. */
void channel_poll_kick(struct channel *ch, uint64_t now_us);
void channel_poll_done(struct channel *ch, int status, uint64_t now_us);
void channel_poll_step(struct channel *ch, uint64_t now_us, struct channel_update *ret);

#endif
