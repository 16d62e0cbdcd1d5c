/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ring of trace.h.
 *
 * Happy path: record n lies at n modulo the capacity; a message is peeked at, a question is put
 * into a small table under its id, its answer takes it out again and knows how long it took.
 * Failure modes: a reader that is too slow finds that the ring has run over and is told how much it
 * missed; a question whose place in the table was taken by a later one has an answer without a
 * time.
 */
#include "diskrpc/trace.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/le.h"
#include "diskrpc/message.h"

#define TRACE_MAGIC 0x4c545243u
/* Open questions that answers are looked for in, by the low bits of their (random) id. 1024 are in
 * one channel's queue at most; a lost pair costs one figure of a statistic. */
#define QUESTIONS 1024u

/* Pages of records are what the memory argument in trace.h counts on. */
_Static_assert(sizeof(struct trace_record) <= 128, "a record has 128 bytes at most");

struct question {
    struct uuid id; /* zero: free */
    uint64_t time_us;
    uint32_t slot;
    bool sent;
};

struct slot_state {
    struct trace_times answers;
    uint8_t last_event;
};

struct trace {
    uint32_t magic;
    uint32_t capacity, slots;
    struct uuid id;
    uint64_t last; /* number of the newest record */
    struct question questions[QUESTIONS];
    struct slot_state *state; /* [slot] */
    struct trace_record records[];
};

struct trace *trace_new(uint32_t capacity, uint32_t slots)
{
    assert(capacity > 0 && (capacity & (capacity - 1)) == 0);
    size_t ring = sizeof(struct trace) + capacity * sizeof(struct trace_record);
    struct trace *t = calloc(1, ring + (slots + 1) * sizeof(struct slot_state));

    if (!t)
        abort();
    t->magic = TRACE_MAGIC;
    t->capacity = capacity;
    t->slots = slots;
    t->id = uuid_random();
    t->state = (struct slot_state *)&t->records[capacity];
    return t;
}

void trace_free(struct trace *trace)
{
    if (!trace)
        return;
    assert(trace->magic == TRACE_MAGIC);
    trace->magic = 0;
    free(trace);
}

const struct uuid *trace_id(const struct trace *trace)
{
    static const struct uuid none;
    return trace ? &trace->id : &none;
}

void trace_times_add(struct trace_times *times, uint64_t us)
{
    times->last_us = us;
    times->avg_us = times->count == 0 ? us : (times->avg_us * 7 + us) / 8;
    if (us > times->max_us)
        times->max_us = us;
    times->count++;
}

/* True if it is the same trouble again, with nothing in between. */
static bool repeats(struct trace *t, const struct trace_record *r)
{
    if (r->slot > t->slots)
        return false;
    struct slot_state *s = &t->state[r->slot];
    bool again = r->event >= TRACE_BAD_PAGE && s->last_event == r->event;
    s->last_event = r->event;
    return again;
}

void trace_note(struct trace *trace, const struct trace_record *record)
{
    if (!trace)
        return;
    assert(trace->magic == TRACE_MAGIC && record->event != TRACE_NONE);
    if (repeats(trace, record))
        return;
    uint64_t number = ++trace->last;
    struct trace_record *r = &trace->records[number & (trace->capacity - 1)];
    *r = *record;
    r->number = number;
}

static bool is_question(unsigned body)
{
    return body == LUNAR__ENVELOPE__BODY_REQUEST || body == LUNAR__ENVELOPE__BODY_COMMAND;
}

/* Pairs a question with its answer. A question that passes again, to another coordinator, keeps
 * its first time: that is how long its sender has waited. */
static void pair(struct trace *t, struct trace_record *r)
{
    struct question *q = &t->questions[le32_get(r->id.b) % QUESTIONS];
    bool mine = q->slot == r->slot && uuid_equal(&q->id, &r->id);
    bool sent = r->event == TRACE_SENT;

    if (uuid_is_zero(&r->id) || r->body == 0)
        return;
    if (is_question(r->body)) {
        if (!mine)
            *q = (struct question){r->id, r->time_us, r->slot, sent};
        return;
    }
    if (!mine || q->sent == sent)
        return;
    r->took_us = r->time_us > q->time_us ? r->time_us - q->time_us : 0;
    if (q->sent && r->slot <= t->slots)
        trace_times_add(&t->state[r->slot].answers, r->took_us);
    memset(q, 0, sizeof *q);
}

void trace_note_message(struct trace *trace, const struct trace_record *record,
                        const uint8_t *bytes, uint32_t len)
{
    struct trace_record r = *record;
    struct envelope_head head;

    if (!trace)
        return;
    assert(r.event == TRACE_SENT || r.event == TRACE_RECEIVED);
    envelope_peek(bytes, len, &head);
    r.len = len;
    r.body = (uint8_t)head.body;
    r.op = head.op <= UINT8_MAX ? (uint8_t)head.op : 0;
    r.id = head.id;
    r.volume = head.volume;
    r.error = head.error;
    pair(trace, &r);
    trace_note(trace, &r);
}

uint64_t trace_last(const struct trace *trace)
{
    return trace ? trace->last : 0;
}

const struct trace_record *trace_next(const struct trace *trace, uint64_t *cursor, uint64_t *missed)
{
    if (!trace || *cursor >= trace->last)
        return NULL;
    assert(trace->magic == TRACE_MAGIC);
    uint64_t first = trace->last > trace->capacity ? trace->last - trace->capacity + 1 : 1;
    uint64_t next = *cursor + 1;
    if (next < first) {
        *missed += first - next;
        next = first;
    }
    *cursor = next;
    return &trace->records[next & (trace->capacity - 1)];
}

struct trace_times trace_times(const struct trace *trace, uint32_t slot)
{
    return trace && slot <= trace->slots ? trace->state[slot].answers : (struct trace_times){0};
}

const char *trace_event_text(unsigned event)
{
    static const char *const texts[] = {"?",
#define X(name, text) text,
                                        TRACE_EVENTS(X)
#undef X
    };
    return event < sizeof texts / sizeof *texts ? texts[event] : "?";
}
