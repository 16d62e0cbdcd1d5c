/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When a channel reads the peer's page.
 *
 * Happy path: while something is pending or was heard lately the gap between two reads is a quarter
 * of the time since the last event (a write of ours that landed, a message, a new waiter), up to
 * CHANNEL_POLL_WAITING_MAX_US: an answer that takes t to compute is noticed about t/4 late at most.
 * The first reads follow each other without a gap. Otherwise an agent reads once a second, and the
 * coordinator's channels leave it to the table scan. A hint buys one read that begins after it.
 * Failure modes: a read that fails is not repeated before READ_BACKOFF_US, whoever asks; a silent
 * node gets no reads of its own.
 */
#include <assert.h>

#include "diskrpc/channel_private.h"

static bool pending(const struct channel *ch)
{
    return ch->waiting || ch->head || channel_receive_pending(ch);
}

static bool silent(const struct channel *ch, uint64_t now_us)
{
    return now_us / 1000 >= ch->stats.last_heard_ms + SILENT_MS;
}

static bool hot(const struct channel *ch, uint64_t now_us)
{
    if (ch->config.external_poll && silent(ch, now_us))
        return false;
    return pending(ch) || now_us < ch->poll.hot_until_us;
}

static uint64_t next_read_us(const struct channel *ch, uint64_t now_us)
{
    if (!hot(ch, now_us))
        return now_us + CHANNEL_POLL_IDLE_US;
    /* Each empty read counts for a microsecond: the gaps grow where reads cost no time, too. */
    uint64_t waited = now_us - ch->poll.since_us + ch->poll.empty;
    uint64_t gap = min_u64(waited / CHANNEL_POLL_WAITING_PART, CHANNEL_POLL_WAITING_MAX_US);
    uint64_t next = gap < CHANNEL_POLL_GAP_MIN_US ? now_us : now_us + gap;
    uint64_t first = ch->poll.since_us + CHANNEL_POLL_FIRST_US;
    return next < first ? first : next;
}

void channel_poll_kick(struct channel *ch, uint64_t now_us)
{
    ch->poll.since_us = now_us;
    ch->poll.empty = 0;
}

void channel_poll_done(struct channel *ch, int status, uint64_t now_us)
{
    ch->poll.out = false;
    ch->poll.empty++;
    ch->poll.next_us = NEVER; /* the step that follows chooses */
    ch->poll.not_before_us = status == 0 ? 0 : now_us + READ_BACKOFF_US;
}

/* True if a read is due; else *ret_us is when to ask again. */
static bool due(struct channel *ch, uint64_t now_us, uint64_t *ret_us)
{
    *ret_us = NEVER;
    if (ch->poll.look)
        ch->poll.next_us = now_us;
    else if (ch->config.external_poll && !hot(ch, now_us))
        return false;
    /* What became pending since the gap was chosen may be worth a shorter one, nothing a longer. */
    ch->poll.next_us = min_u64(ch->poll.next_us, next_read_us(ch, now_us));
    *ret_us = ch->poll.next_us;
    if (*ret_us < ch->poll.not_before_us)
        *ret_us = ch->poll.not_before_us;
    return *ret_us <= now_us;
}

void channel_poll_step(struct channel *ch, uint64_t now_us, struct channel_update *ret)
{
    uint64_t when;

    if (ch->poll.out)
        return;
    if (!due(ch, now_us, &when)) {
        ret->deadline_us = min_u64(ret->deadline_us, when);
        return;
    }
    ch->poll.look = false;
    ch->poll.out = true;
    ret->read_page = true;
}
