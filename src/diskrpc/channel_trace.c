/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a channel notes in the ring (trace.h), and how long its acknowledgments take.
 *
 * Happy path: each message is noted when the page that offers it first is asked for, and when the
 * owner takes it; each acknowledgment that frees something is noted. One message at a time is
 * timed: from its page's landing to its acknowledgment. Nothing here changes what the channel does;
 * without a ring nothing is noted. Failure modes: none.
 */
#include "diskrpc/channel_private.h"

static struct trace_record record_of(const struct channel *ch, enum trace_event event)
{
    return (struct trace_record){
        .event = (uint8_t)event,
        .time_us = ch->now_us,
        .slot = ch->config.slot,
        .peer = ch->stats.peer,
    };
}

void channel_note(struct channel *ch, enum trace_event event, int error)
{
    struct trace_record r = record_of(ch, event);
    r.error = error;
    if (event == TRACE_RESEND && ch->head)
        r.seq = ch->head->seq;
    trace_note(ch->config.trace, &r);
}

void channel_note_page(struct channel *ch, enum trace_event event, const struct page *page)
{
    struct trace_record r = record_of(ch, event);
    r.peer = page->writer;
    r.page_seq = page->page_seq;
    trace_note(ch->config.trace, &r);
}

void channel_note_sent(struct channel *ch, uint64_t after_seq, uint64_t last_seq)
{
    struct trace_record r = record_of(ch, TRACE_SENT);

    r.page_seq = ch->write.seq;
    for (const struct message *m = ch->head; ch->config.trace && m && m->seq <= last_seq;
         m = m->next) {
        if (m->seq <= after_seq)
            continue;
        r.seq = m->seq;
        r.spilled = m->spilled;
        trace_note_message(ch->config.trace, &r, m->data, m->len);
    }
}

void channel_note_received(struct channel *ch, bool spilled, const uint8_t *data, uint32_t len)
{
    struct trace_record r = record_of(ch, TRACE_RECEIVED);

    r.page_seq = ch->in.page_seq;
    r.seq = ch->seq_received;
    r.spilled = spilled;
    trace_note_message(ch->config.trace, &r, data, len);
}

void channel_time_landed(struct channel *ch, uint64_t last_seq)
{
    if (ch->timed.seq != 0 || last_seq <= ch->seq_acked)
        return;
    ch->timed.seq = last_seq;
    ch->timed.since_us = ch->now_us;
}

void channel_note_acked(struct channel *ch)
{
    struct trace_record r = record_of(ch, TRACE_ACKED);

    r.page_seq = ch->peer_page_seq;
    r.seq = ch->seq_acked;
    if (ch->timed.seq != 0 && ch->timed.seq <= ch->seq_acked) {
        r.took_us = ch->now_us - ch->timed.since_us;
        trace_times_add(&ch->stats.ack, r.took_us);
        ch->timed.seq = 0;
    }
    trace_note(ch->config.trace, &r);
}
