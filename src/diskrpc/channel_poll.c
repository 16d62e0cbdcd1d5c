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

bool channel_hot(const struct channel *ch, uint64_t now_us)
{
    if (ch->config.external_poll && silent(ch, now_us))
        return false;
    return pending(ch) || now_us < ch->poll.hot_until_us;
}

static uint64_t next_read_us(const struct channel *ch, uint64_t now_us)
{
    if (!channel_hot(ch, now_us))
        return now_us + CHANNEL_POLL_IDLE_US;
    /* Each empty read counts for a microsecond: the gaps grow where reads cost no time, too. */
    uint64_t waited = now_us - ch->poll.since_us + ch->poll.empty;
    uint64_t gap = min_u64(waited / CHANNEL_POLL_WAITING_PART, CHANNEL_POLL_WAITING_MAX_US);
    return gap < CHANNEL_POLL_GAP_MIN_US ? now_us : now_us + gap;
}

/*
 * A read that is due waits for our page's write and for the time that an answer to it takes; not
 * for longer than CHANNEL_POLL_HELD_US in all, however many writes follow each other.
 */
static uint64_t held_us(const struct channel *ch)
{
    uint64_t until = ch->write.out ? NEVER : ch->poll.since_us + CHANNEL_POLL_FIRST_US;
    uint64_t next = ch->poll.next_us;

    until =
        min_u64(until, next > NEVER - CHANNEL_POLL_HELD_US ? NEVER : next + CHANNEL_POLL_HELD_US);
    return next < until ? until : next;
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

/* When to read, as things are. */
static uint64_t due_us(struct channel *ch, uint64_t now_us)
{
    uint64_t due = NEVER;

    if (ch->poll.look) {
        due = now_us;
    } else if (!ch->config.external_poll || channel_hot(ch, now_us)) {
        /* What became pending since the gap was chosen may be worth a shorter one, nothing a
         * longer. */
        ch->poll.next_us = min_u64(ch->poll.next_us, next_read_us(ch, now_us));
        due = held_us(ch);
    }
    return due < ch->poll.not_before_us ? ch->poll.not_before_us : due;
}

void channel_poll_step(struct channel *ch, uint64_t now_us, struct channel_update *ret)
{
    if (ch->poll.out)
        return;
    uint64_t due = due_us(ch, now_us);
    if (due > now_us) {
        ret->deadline_us = min_u64(ret->deadline_us, due);
        return;
    }
    ch->poll.look = false;
    ch->poll.out = true;
    ret->read_page = true;
}
