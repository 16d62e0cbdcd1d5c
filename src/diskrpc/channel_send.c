/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a channel writes: its queue, its page, its spill slot.
 *
 * Happy path: the page always begins with the oldest unacknowledged message and carries as many as
 * fit, so whatever the peer has missed is in the page that lies there now. A large message is first
 * written to the spill slot; only when that write has ended well may a page refer to it, and the
 * slot is not used again before the peer acknowledged. Failure modes: a failed write is
 * indeterminate and repeated after a wait, under a higher page_seq. A write of a former life may
 * land late on our page or slot: unacknowledged messages are written again every CHANNEL_RESEND_US,
 * the spill with them, and a peer that does not seem to know our page gets it again (write.repeat).
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/io.h"
#include "diskrpc/channel_private.h"

static void message_free(struct message *m)
{
    free(m->data);
    free(m);
}

static struct message *message_new(const uint8_t *data, uint32_t len)
{
    struct message *m = calloc(1, sizeof *m);
    if (!m)
        abort();
    m->len = len;
    m->spilled = len > MESSAGE_INLINE_MAX;
    m->data = m->spilled ? io_alloc(len) : malloc(len);
    if (!m->data)
        abort();
    memcpy(m->data, data, len);
    if (m->spilled)
        m->crc = crc32c(data, len);
    return m;
}

int channel_submit(struct channel *channel, const uint8_t *data, uint32_t len)
{
    assert(channel->magic == CHANNEL_MAGIC && len > 0);
    struct channel_stats *stats = &channel->stats;

    if (len > CHANNEL_MESSAGE_MAX)
        return LUNAR_E_TOO_BIG;
    if (stats->peer.host_id == 0)
        return LUNAR_E_NOT_JOINED;
    if (stats->queued == CHANNEL_QUEUE_MAX || len > CHANNEL_QUEUE_BYTES_MAX - stats->queued_bytes)
        return LUNAR_E_FULL;
    struct message *m = message_new(data, len);
    m->seq = channel->seq_next++;
    if (channel->tail)
        channel->tail->next = m;
    else
        channel->head = m;
    channel->tail = m;
    stats->queued++;
    stats->queued_bytes += len;
    return 0;
}

static void drop_head(struct channel *ch)
{
    struct message *m = ch->head;

    ch->head = m->next;
    if (!ch->head)
        ch->tail = NULL;
    ch->stats.queued--;
    ch->stats.queued_bytes -= m->len;
    if (m == ch->spill.flying)
        m->dropped = true; /* the disk still reads its bytes */
    else
        message_free(m);
}

void channel_send_reset(struct channel *ch)
{
    while (ch->head)
        drop_head(ch);
    ch->seq_next = 1;
    ch->seq_offered = 0;
    ch->seq_acked = 0;
    ch->spill.landed_seq = 0;
    ch->spill.again = false;
    ch->write.repeat = false;
    ch->timed.seq = 0;
}

void channel_send_acked(struct channel *ch, uint64_t ack_seq, uint64_t now_us)
{
    if (ack_seq <= ch->seq_acked)
        return;
    while (ch->head && ch->head->seq <= ack_seq)
        drop_head(ch);
    ch->seq_acked = ack_seq;
    ch->progress_us = now_us;
    if (ch->spill.landed_seq <= ack_seq) {
        ch->spill.landed_seq = 0;
        ch->spill.again = false;
    }
    channel_note_acked(ch);
}

static struct message *first_spilled(const struct channel *ch)
{
    struct message *m = ch->head;
    while (m && !m->spilled)
        m = m->next;
    return m;
}

/* Puts in as many as fit from the oldest on; a spilled one only if it is the one that lies in the
 * slot. */
static uint64_t fill(const struct channel *ch, struct page *page)
{
    uint64_t last = ch->seq_acked;

    for (const struct message *m = ch->head; m; m = m->next) {
        bool fits;
        if (m->spilled)
            fits = m->seq == ch->spill.landed_seq && page_append_spilled(page, m->len, m->crc);
        else
            fits = page_append(page, m->data, m->len);
        if (!fits)
            break;
        last = m->seq;
    }
    return last;
}

static void build_page(struct channel *ch, uint64_t now_us)
{
    struct page page = {
        .kind = ch->config.kind,
        .slot = ch->config.slot,
        .flags = ch->flags,
        .pool_id = ch->config.pool_id,
        .writer = ch->config.self,
        .peer = ch->stats.peer,
        .term = ch->config.kind == PAGE_UP ? ch->stats.term : ch->config.self.run_or_term,
        .page_seq = ++ch->write.seq,
        .ack_seq = ch->seq_received,
        .first_seq = ch->seq_acked + 1,
        .heartbeat_ms = now_us / 1000,
        .hint = ch->config.hint,
        .dead_generation = ch->config.kind == PAGE_DOWN ? ch->stats.dead_generation : 0,
    };
    memcpy(page.node_name, ch->node_name, PAGE_NAME_SIZE);
    uint64_t last = fill(ch, &page);
    if (last > ch->seq_offered) {
        channel_note_sent(ch, ch->seq_offered, last);
        ch->seq_offered = last;
    }
    page_out(&page, ch->write.buffer);
    ch->write.flying = (struct said){
        .peer = page.peer,
        .flags = page.flags,
        .dead_generation = page.dead_generation,
        .ack_seq = page.ack_seq,
        .last_seq = last,
    };
}

/* Is there a message that would fit now and was not in the last page? */
static bool unsent_fits(const struct channel *ch)
{
    if (ch->seq_next - 1 == ch->write.landed.last_seq)
        return false;
    struct page page;
    page.count = page.payload_len = 0;
    return fill(ch, &page) > ch->write.landed.last_seq;
}

static bool must_resend(const struct channel *ch, uint64_t now_us)
{
    bool lies_there = ch->write.ever &&
                      incarnation_equal(&ch->write.landed.peer, &ch->stats.peer) && ch->head &&
                      ch->head->seq <= ch->write.landed.last_seq;
    return lies_there && now_us >= ch->progress_us + CHANNEL_RESEND_US;
}

/* When the page is to be written, if the world stays as it is. */
static uint64_t page_due_us(const struct channel *ch)
{
    const struct said *landed = &ch->write.landed;
    uint64_t due = NEVER;

    bool mark_is_new =
        ch->config.kind == PAGE_DOWN && landed->dead_generation != ch->stats.dead_generation;
    if (!ch->write.ever || ch->write.again || landed->flags != ch->flags || mark_is_new ||
        !incarnation_equal(&landed->peer, &ch->stats.peer) || unsent_fits(ch))
        return ch->not_before_us;
    if (ch->seq_received > landed->ack_seq)
        due = ch->ack_due_us;
    if (ch->head && ch->head->seq <= landed->last_seq)
        due = min_u64(due, ch->progress_us + CHANNEL_RESEND_US);
    if (ch->write.repeat)
        due = min_u64(due, ch->write.done_us + CHANNEL_RESEND_US);
    if (ch->config.heartbeat_ms)
        due = min_u64(due, ch->write.done_us + ch->config.heartbeat_ms * 1000);
    return due < ch->not_before_us ? ch->not_before_us : due;
}

static uint64_t spill_due_us(const struct channel *ch)
{
    const struct message *m = first_spilled(ch);
    bool wanted = m && (m->seq != ch->spill.landed_seq || ch->spill.again);
    return wanted ? ch->not_before_us : NEVER;
}

static void write_spill(struct channel *ch, struct channel_update *ret)
{
    struct message *m = first_spilled(ch);

    ch->spill.flying = m;
    ret->write_spill = true;
    ret->spill = m->data;
    ret->spill_len = m->len;
}

static void write_page(struct channel *ch, uint64_t now_us, struct channel_update *ret)
{
    if (must_resend(ch, now_us)) {
        ch->stats.resends++;
        channel_note(ch, TRACE_RESEND, 0);
        ch->progress_us = now_us;
        ch->spill.again = ch->spill.landed_seq != 0;
    }
    build_page(ch, now_us);
    ch->write.out = true;
    ch->stats.pages_written++;
    ret->write_page = true;
    ret->page = ch->write.buffer;
}

void channel_send_step(struct channel *ch, uint64_t now_us, struct channel_update *ret)
{
    if (!ch->write.out) {
        uint64_t due = page_due_us(ch);
        if (due <= now_us)
            write_page(ch, now_us, ret);
        else
            ret->deadline_us = min_u64(ret->deadline_us, due);
    }
    if (!ch->spill.flying) {
        uint64_t due = spill_due_us(ch);
        if (due <= now_us)
            write_spill(ch, ret);
        else
            ret->deadline_us = min_u64(ret->deadline_us, due);
    }
}

/* Both kinds of write share the wait: they go to the same LUN. */
static void note_outcome(struct channel *ch, int status, uint64_t now_us)
{
    if (status == 0) {
        ch->backoff_us = 0;
        ch->not_before_us = 0;
        return;
    }
    ch->stats.write_errors++;
    channel_note(ch, TRACE_WRITE_ERROR, status);
    ch->backoff_us = ch->backoff_us ? ch->backoff_us * 2 : WRITE_BACKOFF_MIN_US;
    ch->backoff_us = min_u64(ch->backoff_us, WRITE_BACKOFF_MAX_US);
    ch->not_before_us = now_us + ch->backoff_us;
}

static void page_landed(struct channel *ch, uint64_t now_us, struct channel_update *ret)
{
    const struct said *said = &ch->write.flying;
    bool same_session = incarnation_equal(&said->peer, &ch->stats.peer);
    bool known = ch->write.ever && incarnation_equal(&said->peer, &ch->write.landed.peer);
    uint64_t before = known ? ch->write.landed.last_seq : 0;

    ch->write.ever = true;
    ch->write.landed = *said;
    if (!same_session || said->last_seq <= before)
        return;
    ret->wrote_news = true;
    ch->stats.messages_sent += said->last_seq - before;
    if (ch->head && ch->head->seq > before)
        ch->progress_us = now_us; /* the oldest message lies there for the first time */
    channel_time_landed(ch, said->last_seq);
    channel_poll_kick(ch, now_us);
}

void channel_page_written(struct channel *ch, const struct channel_event *event,
                          struct channel_update *ret)
{
    assert(ch->write.out);
    ch->write.out = false;
    ch->write.again = event->status != 0;
    ch->write.done_us = event->now_us;
    note_outcome(ch, event->status, event->now_us);
    if (event->status == 0) {
        ch->write.repeat = false;
        page_landed(ch, event->now_us, ret);
    }
}

void channel_spill_written(struct channel *ch, int status, uint64_t now_us)
{
    struct message *m = ch->spill.flying;

    assert(m);
    ch->spill.flying = NULL;
    note_outcome(ch, status, now_us);
    if (m->dropped) {
        message_free(m);
    } else if (status == 0) {
        ch->spill.landed_seq = m->seq;
        ch->spill.again = false;
    }
}
