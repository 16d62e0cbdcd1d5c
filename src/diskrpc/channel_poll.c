/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When a channel reads the peer's page.
 *
 * Happy path: while something is pending or was heard lately the gap between two reads begins at
 * CHANNEL_POLL_HOT_MS and grows by a quarter with every empty read, up to
 * CHANNEL_POLL_WAITING_MAX_MS: an answer that takes t to compute is noticed about t/4 late at most.
 * Otherwise an agent reads once a second, and the coordinator's channels leave it to the table
 * scan. Failure modes: a read that fails is not repeated at once; a silent node gets no reads of
 * its own.
 */
#include <assert.h>

#include "diskrpc/channel_private.h"

static bool pending(const struct channel *ch)
{
    return ch->waiting || ch->head || channel_receive_pending(ch);
}

static bool silent(const struct channel *ch, uint64_t now_ms)
{
    return now_ms >= ch->stats.last_heard_ms + SILENT_MS;
}

static bool hot(const struct channel *ch, uint64_t now_ms)
{
    if (ch->config.external_poll && silent(ch, now_ms))
        return false;
    return pending(ch) || now_ms < ch->poll.hot_until_ms;
}

static uint64_t gap_ms(const struct channel *ch, uint64_t now_ms)
{
    if (!hot(ch, now_ms))
        return CHANNEL_POLL_IDLE_MS;
    uint64_t gap = ch->poll.gap_quarter_ms / 4;
    return min_u64(gap < CHANNEL_POLL_HOT_MS ? CHANNEL_POLL_HOT_MS : gap,
                   CHANNEL_POLL_WAITING_MAX_MS);
}

void channel_poll_kick(struct channel *ch, uint64_t now_ms)
{
    ch->poll.kick = false;
    ch->poll.gap_quarter_ms = 4 * CHANNEL_POLL_HOT_MS;
    ch->poll.next_ms = min_u64(ch->poll.next_ms, now_ms + CHANNEL_POLL_HOT_MS);
}

void channel_poll_done(struct channel *ch, bool news, int status, uint64_t now_ms)
{
    if (ch->poll.out && !news && ch->poll.gap_quarter_ms < 4 * CHANNEL_POLL_WAITING_MAX_MS) {
        uint32_t growth = ch->poll.gap_quarter_ms * CHANNEL_POLL_GROWTH_PERCENT / 100;
        ch->poll.gap_quarter_ms += growth ? growth : 1;
    }
    ch->poll.out = false;
    ch->poll.next_ms = now_ms + gap_ms(ch, now_ms);
    if (status != 0 && ch->poll.next_ms < now_ms + READ_BACKOFF_MS)
        ch->poll.next_ms = now_ms + READ_BACKOFF_MS;
}

void channel_poll_step(struct channel *ch, uint64_t now_ms, struct channel_update *ret)
{
    if (ch->poll.kick)
        channel_poll_kick(ch, now_ms);
    if (ch->poll.out)
        return;
    if (ch->poll.look) {
        ch->poll.look = false;
        ch->poll.out = true;
        ret->read_page = true;
        return;
    }
    if (ch->config.external_poll && !hot(ch, now_ms))
        return;
    /* Something became pending since the gap was chosen: an idle gap is too long for it. */
    ch->poll.next_ms = min_u64(ch->poll.next_ms, now_ms + gap_ms(ch, now_ms));
    if (ch->poll.next_ms > now_ms) {
        ret->deadline_ms = min_u64(ret->deadline_ms, ch->poll.next_ms);
        return;
    }
    ch->poll.out = true;
    ret->read_page = true;
}
