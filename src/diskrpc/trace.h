/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What passed: a ring of the last records of everything that went over a daemon's channels, always
 * on, so that it is there when something hangs.
 *
 * One allocation at the start and none later, no clock and no I/O: whoever notes gives the time.
 * Loop thread only. Records are numbered from 1 in each ring, so a reader with a cursor knows what
 * it missed. An answer is paired with what it answers by its id, where that was noted lately: see
 * trace_times. None of this guards anything: losing it loses nothing but sight.
 */
#ifndef LUNAR_DISKRPC_TRACE_H
#define LUNAR_DISKRPC_TRACE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/uuid.h"
#include "diskrpc/page.h"

/* What a daemon keeps: half a MiB. At 5,000 requests a second, of two messages each, that is the
 * last 0.4 s; of a node that is asked for something now and then, hours. */
#define TRACE_RECORDS 4096u

/* X(name, text) -- the order is the number in lunar.proto: append only. */
#define TRACE_EVENTS(X)                                                                            \
    X(SENT, "sent")                                                                                \
    X(RECEIVED, "received")                                                                        \
    X(ACKED, "acknowledged")                                                                       \
    X(SESSION, "new session")                                                                      \
    X(RESEND, "resend")                                                                            \
    X(BAD_PAGE, "bad page")                                                                        \
    X(STALE_PAGE, "stale page")                                                                    \
    X(READ_ERROR, "read error")                                                                    \
    X(WRITE_ERROR, "write error")                                                                  \
    X(HINT, "hint")

enum trace_event {
    TRACE_NONE,
#define X(name, text) TRACE_##name,
    TRACE_EVENTS(X)
#undef X
};

struct trace_record {
    uint64_t number;  /* from 1; filled by the ring */
    uint64_t time_us; /* monotonic */
    uint8_t event;    /* enum trace_event */
    bool spilled;
    uint8_t body; /* what envelope_peek says of a message */
    uint8_t op;
    uint32_t slot; /* host id whose pages they are */
    struct incarnation peer;
    uint64_t page_seq; /* of the page that carried it: ours when sent, the peer's when received */
    uint64_t seq;      /* of the message; ACKED: the highest one acknowledged */
    uint32_t len;      /* of the message */
    int32_t error;     /* of an answer, or of the I/O */
    struct uuid id, volume;
    uint64_t took_us; /* answers and ACKED: lunar.proto; 0: not known */
};

/* How long something took, over and over. */
struct trace_times {
    uint64_t count, last_us, avg_us, max_us; /* avg: each new one counts an eighth */
};
void trace_times_add(struct trace_times *times, uint64_t us);

struct trace;

/* Room for `capacity` records (a power of two) and for the times of slots 1..slots. Aborts without
 * memory. */
struct trace *trace_new(uint32_t capacity, uint32_t slots);
void trace_free(struct trace *trace);
/* Random, of this ring. */
const struct uuid *trace_id(const struct trace *trace);

/*
 * Copies the record in. A page-level trouble (BAD_PAGE to HINT) that repeats on its slot with
 * nothing else in between is noted once: the channel's counters count it, and a bad page that is
 * read a thousand times a second must not push everything else out. Without a trace (NULL) both do
 * nothing, and what reads finds nothing.
 */
void trace_note(struct trace *trace, const struct trace_record *record);
/* The same for a message: its body, op, id, volume and error are read from the bytes, and an answer
 * gets its took_us. */
void trace_note_message(struct trace *trace, const struct trace_record *record,
                        const uint8_t *bytes, uint32_t len);

/* Number of the newest record; 0: none yet. */
uint64_t trace_last(const struct trace *trace);
/* The first record behind *cursor that is still there, and moves the cursor to it; NULL: none.
 * Adds to *missed what was overwritten in between. Borrowed until the next note. */
const struct trace_record *trace_next(const struct trace *trace, uint64_t *cursor,
                                      uint64_t *missed);
/* From sending a request or command to receiving its response or result, on a slot. A slot beyond
 * the ring's has no times: zeroes. */
struct trace_times trace_times(const struct trace *trace, uint32_t slot);

/* "sent", ...; "?" for what is none. */
const char *trace_event_text(unsigned event);

#endif
