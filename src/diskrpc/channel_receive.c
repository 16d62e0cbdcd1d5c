/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a channel reads: the peer's page, who is the peer, its messages, its spill slot.
 *
 * Happy path: a page with a higher page_seq of the incarnation we talk to, addressed to ours: its
 * acknowledgment frees our queue, its messages wait in `in` until the owner takes them, in order,
 * each once; only what was taken is acknowledged. Failure modes: damaged, foreign or lying pages
 * are counted and ignored; older incarnations and pages seen already are ignored; a newer
 * incarnation starts a new session. A spill that cannot be read or does not match its checksum is
 * read again later, never delivered.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "diskrpc/channel_private.h"

static int compare(uint64_t a, uint64_t b)
{
    return a < b ? -1 : a > b;
}

/* Order of the page's writer against the peer we know: a coordinator by its term alone, a node by
 * its incarnation. */
static int writer_order(const struct channel *ch, const struct page *page)
{
    const struct incarnation *peer = &ch->stats.peer, *writer = &page->writer;

    if (ch->config.kind == PAGE_UP) {
        if (writer->run_or_term < ch->stats.term)
            return -1;
        return peer->host_id == 0 ? 1 : compare(writer->run_or_term, peer->run_or_term);
    }
    if (peer->host_id == 0)
        return 1;
    int order = compare(writer->generation, peer->generation);
    return order ? order : compare(writer->run_or_term, peer->run_or_term);
}

/* Does the page claim something that its writer cannot be or know? `order` is 0 or 1. */
static bool lies(const struct channel *ch, const struct page *page, int order)
{
    const struct incarnation *writer = &page->writer;
    bool ours = incarnation_equal(&page->peer, &ch->config.self);

    if (ch->config.kind == PAGE_UP && page->term != writer->run_or_term)
        return true; /* a coordinator's term is what it writes under */
    if (ch->config.kind == PAGE_DOWN && writer->host_id != ch->config.slot)
        return true;
    if (order == 0 && !incarnation_equal(writer, &ch->stats.peer))
        return true; /* two coordinators of one term, or two hosts in one slot: one of them cannot
                        be */
    if (!ours)
        return false;
    uint64_t sent = order == 0 ? ch->seq_offered : 0;
    uint64_t received = order == 0 ? ch->seq_received : 0;
    return page->ack_seq > sent || page->first_seq > received + 1;
}

static void session_start(struct channel *ch, const struct page *page, struct channel_update *ret)
{
    channel_send_reset(ch);
    ch->stats.peer = page->writer;
    ch->stats.sessions++;
    ch->stats.peer_flags = 0;
    ch->seq_received = 0;
    ch->in_left = 0;
    free(ch->spill_in.data);
    ch->spill_in.data = NULL;
    ch->spill_in.not_before_us = 0;
    ret->peer_changed = true;
    channel_note_page(ch, TRACE_SESSION, page);
}

static void note_term(struct channel *ch, const struct page *page, struct channel_update *ret)
{
    if (page->term <= ch->stats.term)
        return;
    ch->stats.term = page->term;
    ret->term_raised = ch->config.kind == PAGE_UP;
}

static void note_peer(struct channel *ch, const struct page *page, uint64_t now_us)
{
    ch->peer_page_seq = page->page_seq;
    ch->stats.last_heard_ms = now_us / 1000;
    ch->stats.peer_flags = page->flags;
    ch->stats.peer_hint = page->hint;
    ch->stats.peer_heartbeat_ms = page->heartbeat_ms;
    ch->stats.peer_term = page->term;
    /* Cut: one byte more, and no message could carry it, no view of any node either. */
    memcpy(ch->stats.peer_name, page->node_name, PAGE_NAME_SIZE);
    ch->stats.peer_name[PAGE_NAME_MAX] = '\0';
}

/* Of whichever coordinator the page is: each says it only of a life that is over for good. */
static void note_dead(struct channel *ch, const struct page *page, struct channel_update *ret)
{
    uint64_t own = ch->config.self.generation, before = ch->stats.dead_generation;

    if (ch->config.kind == PAGE_DOWN || page->dead_generation <= before)
        return;
    ch->stats.dead_generation = page->dead_generation;
    ret->declared_dead = before < own && page->dead_generation >= own;
}

static void take_messages(struct channel *ch, const struct page *page, uint64_t now_us)
{
    uint64_t last = page->first_seq + page->count - 1;

    ch->in = *page;
    ch->in_at = 0;
    ch->in_seq = page->first_seq;
    ch->in_left = page->count;
    if (page->count == 0)
        return;
    if (last <= ch->seq_received) {
        /* It repeats what we have: perhaps our acknowledgment was overwritten. */
        ch->write.repeat = true;
        return;
    }
    if (ch->write.landed.ack_seq >= ch->seq_received || ch->ack_due_us < now_us)
        ch->ack_due_us = now_us + ACK_DELAY_US;
    ch->poll.hot_until_us = now_us + CHANNEL_HOT_US;
    channel_poll_kick(ch, now_us);
}

static void note_unreadable(struct channel *ch, int rc)
{
    ch->stats.bad_pages++;
    channel_note(ch, TRACE_BAD_PAGE, rc);
}

/* Is the page news? What is wrong with it is counted and noted; `rc` is page_in's. */
static bool is_news(struct channel *ch, const struct page *page, int rc, int order)
{
    if (rc < 0) {
        note_unreadable(ch, rc);
    } else if (order >= 0 && lies(ch, page, order)) {
        ch->stats.bad_pages++;
        channel_note_page(ch, TRACE_BAD_PAGE, page);
    } else if (order < 0 || (order == 0 && page->page_seq < ch->peer_page_seq)) {
        ch->stats.stale_pages++;
        channel_note_page(ch, TRACE_STALE_PAGE, page);
    } else {
        return order > 0 || page->page_seq > ch->peer_page_seq;
    }
    return false;
}

static void look_at(struct channel *ch, const uint8_t *data, uint64_t now_us,
                    struct channel_update *ret)
{
    struct page *page = &ch->scratch;
    enum page_kind kind = ch->config.kind == PAGE_UP ? PAGE_DOWN : PAGE_UP;

    ch->stats.pages_read++;
    int rc = page_in(data, kind, ch->config.slot, &ch->config.pool_id, page, NULL);
    if (rc == LUNAR_E_NOT_FOUND)
        return;
    int order = rc < 0 ? 0 : writer_order(ch, page);
    if (!is_news(ch, page, rc, order))
        return;
    if (order > 0)
        session_start(ch, page, ret);
    note_term(ch, page, ret);
    note_peer(ch, page, now_us);
    note_dead(ch, page, ret);
    if (incarnation_equal(&page->peer, &ch->config.self)) {
        channel_send_acked(ch, page->ack_seq, now_us);
        take_messages(ch, page, now_us);
    } else {
        ch->write.repeat = true; /* it does not know us yet, or our page was overwritten */
    }
}

static void note_read_error(struct channel *ch, int status)
{
    ch->stats.read_errors++;
    channel_note(ch, TRACE_READ_ERROR, status);
}

void channel_page_read(struct channel *ch, const struct channel_event *event,
                       struct channel_update *ret)
{
    if (event->status == 0)
        look_at(ch, event->data, event->now_us, ret);
    else
        note_read_error(ch, event->status);
    channel_poll_done(ch, event->status, event->now_us);
}

/* Moves to the next message that was not taken yet; false if there is none. `in_at` stays in front
 * of it. */
static bool peek(struct channel *ch, struct page_message *ret, uint32_t *ret_after)
{
    while (ch->in_left > 0) {
        uint32_t at = ch->in_at;
        bool more = page_next(&ch->in, &at, ret);
        assert(more);
        (void)more;
        *ret_after = at;
        if (ch->in_seq > ch->seq_received)
            return true;
        ch->in_at = at;
        ch->in_seq++;
        ch->in_left--;
    }
    return false;
}

/* The very bytes that the page means now: a lying peer may change its mind between two pages. */
static bool spill_at_hand(const struct channel *ch, uint64_t seq, const struct page_message *m)
{
    return ch->spill_in.data && ch->spill_in.seq == seq && ch->spill_in.len == m->len &&
           ch->spill_in.crc == m->spill_crc;
}

bool channel_receive(struct channel *channel, const uint8_t **ret_data, uint32_t *ret_len)
{
    assert(channel->magic == CHANNEL_MAGIC);
    struct page_message m;
    uint32_t after;

    if (!peek(channel, &m, &after))
        return false;
    if (m.spilled && !spill_at_hand(channel, channel->in_seq, &m))
        return false;
    *ret_data = m.spilled ? channel->spill_in.data : m.data;
    *ret_len = m.len;
    channel->seq_received = channel->in_seq++;
    channel->in_at = after;
    channel->in_left--;
    channel->stats.messages_received++;
    channel_note_received(channel, m.spilled, *ret_data, *ret_len);
    return true;
}

bool channel_receive_pending(const struct channel *ch)
{
    return ch->in_left > 0 && ch->in_seq + ch->in_left - 1 > ch->seq_received;
}

/* Looks ahead: the spill is fetched while the messages before it are still being taken. */
static bool wanted_spill(const struct channel *ch, uint64_t *ret_seq, struct page_message *ret)
{
    uint64_t seq = ch->in_seq;
    uint32_t at = ch->in_at;

    for (uint32_t i = 0; i < ch->in_left && page_next(&ch->in, &at, ret); i++, seq++)
        if (ret->spilled && seq > ch->seq_received) {
            *ret_seq = seq;
            return !spill_at_hand(ch, seq, ret);
        }
    return false;
}

void channel_spill_read(struct channel *ch, const struct channel_event *event)
{
    assert(ch->spill_in.out);
    ch->spill_in.out = false;
    if (ch->spill_in.session != ch->stats.sessions)
        return;
    bool good = event->status == 0 && event->len >= ch->spill_in.len &&
                crc32c(event->data, ch->spill_in.len) == ch->spill_in.crc;
    if (!good) {
        if (event->status != 0)
            note_read_error(ch, event->status);
        else
            note_unreadable(ch, LUNAR_E_CORRUPT);
        ch->spill_in.not_before_us = event->now_us + READ_BACKOFF_US;
        return;
    }
    free(ch->spill_in.data);
    ch->spill_in.data = malloc(ch->spill_in.len);
    if (!ch->spill_in.data)
        abort();
    memcpy(ch->spill_in.data, event->data, ch->spill_in.len);
    ch->ack_due_us = event->now_us + ACK_DELAY_SPILL_US; /* the owner takes it now */
}

void channel_receive_step(struct channel *ch, uint64_t now_us, struct channel_update *ret)
{
    struct page_message m;
    uint64_t seq;

    if (ch->spill_in.data && ch->spill_in.seq <= ch->seq_received) {
        free(ch->spill_in.data); /* the owner's borrow ended with this step */
        ch->spill_in.data = NULL;
    }
    /* What the owner takes after this step is to be acknowledged in time. */
    if (channel_receive_pending(ch) && ch->ack_due_us > now_us)
        ret->deadline_us = min_u64(ret->deadline_us, ch->ack_due_us);
    if (ch->spill_in.out || !wanted_spill(ch, &seq, &m))
        return;
    if (now_us < ch->spill_in.not_before_us) {
        ret->deadline_us = min_u64(ret->deadline_us, ch->spill_in.not_before_us);
        return;
    }
    free(ch->spill_in.data); /* of another message: seq, len and crc are the new one's from here */
    ch->spill_in.data = NULL;
    ch->spill_in.out = true;
    ch->spill_in.session = ch->stats.sessions;
    ch->spill_in.seq = seq;
    ch->spill_in.len = m.len;
    ch->spill_in.crc = m.spill_crc;
    ret->read_spill = true;
    ret->spill_read_len = m.len;
}

void channel_receive_free(struct channel *ch)
{
    free(ch->spill_in.data);
}
