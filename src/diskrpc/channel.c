/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A channel's life and its step; channel_private.h says which file does what.
 *
 * Happy path of one step: the event changes the state, then three questions are asked in a fixed
 * order: is a write due, is a spill to be fetched, is a read of the peer's page due? Each answers
 * with an action or with the time at which to ask again; the earliest of those times is the
 * deadline. Nothing else sets timers, so none can be forgotten. Failure modes are those of
 * channel.h; the event handlers carry them.
 */
#include "diskrpc/channel.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "diskrpc/channel_private.h"

struct channel *channel_new(const struct channel_config *config)
{
    assert(config->kind == PAGE_UP || config->kind == PAGE_DOWN);
    assert(config->slot >= 1 && config->self.host_id >= 1);
    struct channel *ch = calloc(1, sizeof *ch);
    if (!ch)
        abort();
    ch->magic = CHANNEL_MAGIC;
    ch->config = *config;
    if (config->node_name)
        strncpy(ch->node_name, config->node_name, PAGE_NAME_SIZE - 1);
    ch->config.node_name = NULL; /* ours is the copy */
    ch->stats.term = config->kind == PAGE_UP ? config->term_min : config->self.run_or_term;
    ch->write.seq = config->page_seq_min;
    ch->write.buffer = io_alloc(PAGE_SIZE_BYTES);
    ch->seq_next = 1;
    return ch;
}

void channel_free(struct channel *channel)
{
    if (!channel)
        return;
    assert(channel->magic == CHANNEL_MAGIC);
    channel_send_reset(channel);
    if (channel->spill.flying) {
        free(channel->spill.flying->data);
        free(channel->spill.flying);
    }
    channel_receive_free(channel);
    free(channel->write.buffer);
    channel->magic = 0;
    free(channel);
}

static void handle(struct channel *ch, const struct channel_event *event,
                   struct channel_update *ret)
{
    switch (event->type) {
    case CHANNEL_EVENT_TICK:
        break;
    case CHANNEL_EVENT_PAGE_READ:
        channel_page_read(ch, event, ret);
        break;
    case CHANNEL_EVENT_PAGE_WRITTEN:
        channel_page_written(ch, event, ret);
        break;
    case CHANNEL_EVENT_SPILL_READ:
        channel_spill_read(ch, event);
        break;
    case CHANNEL_EVENT_SPILL_WRITTEN:
        channel_spill_written(ch, event->status, event->now_us);
        break;
    case CHANNEL_EVENT_HINT:
        ch->poll.look = true;
        channel_note(ch, TRACE_HINT, 0);
        break;
    }
}

void channel_step(struct channel *channel, const struct channel_event *event,
                  struct channel_update *ret)
{
    assert(channel->magic == CHANNEL_MAGIC);
    *ret = (struct channel_update){.deadline_us = NEVER};
    channel->now_us = event->now_us;
    if (!channel->poll.started) {
        /* A newcomer looks around quickly: the other side is about to answer its first page. */
        channel->poll.started = true;
        channel->poll.next_us = NEVER;
        channel->poll.since_us = event->now_us;
        channel->poll.hot_until_us = event->now_us + CHANNEL_HOT_US;
    }
    if (channel->poll.fresh) {
        channel->poll.fresh = false;
        channel_poll_kick(channel, event->now_us);
    }
    handle(channel, event, ret);
    channel_send_step(channel, event->now_us, ret);
    channel_receive_step(channel, event->now_us, ret);
    channel_poll_step(channel, event->now_us, ret);
}

void channel_set_flags(struct channel *channel, uint32_t flags)
{
    channel->flags = flags;
}

void channel_set_dead(struct channel *channel, uint64_t generation)
{
    assert(channel->config.kind == PAGE_DOWN);
    if (generation > channel->stats.dead_generation)
        channel->stats.dead_generation = generation;
}

void channel_set_waiting(struct channel *channel, bool waiting)
{
    if (waiting && !channel->waiting)
        channel->poll.fresh = true;
    channel->waiting = waiting;
}

const struct channel_stats *channel_stats(const struct channel *channel)
{
    assert(channel->magic == CHANNEL_MAGIC);
    return &channel->stats;
}

bool channel_idle(const struct channel *channel)
{
    return !channel->head && !channel->write.out && !channel->spill.flying && channel->write.ever &&
           channel->write.landed.flags == channel->flags;
}
