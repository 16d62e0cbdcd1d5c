/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent's mailbox: one endpoint that writes the node's up page and reads its down page.
 *
 * Happy path and failure modes are the channel's and the endpoint's. What this file adds is who is
 * who: the peer is whichever coordinator has the highest term, met in the down page.
 */
#include "diskrpc/mailbox.h"

#include <assert.h>
#include <stdlib.h>

#include "diskrpc/endpoint.h"

struct mailbox {
    struct endpoint endpoint;
    struct alarms *alarms;
    struct mailbox_callbacks callbacks;
    void *data;
    void (*closed)(void *data);
    void *closed_data;
};

static void on_message(struct endpoint *ep, const uint8_t *bytes, uint32_t len)
{
    struct mailbox *mailbox = ep->data;
    mailbox->callbacks.message(mailbox->data, bytes, len);
}

static void on_stepped(struct endpoint *ep, const struct channel_update *update)
{
    struct mailbox *mailbox = ep->data;
    if (update->declared_dead && mailbox->callbacks.dead)
        mailbox->callbacks.dead(mailbox->data, channel_stats(ep->channel)->dead_generation);
    if (update->peer_changed && mailbox->callbacks.peer_changed)
        mailbox->callbacks.peer_changed(mailbox->data, &channel_stats(ep->channel)->peer);
}

static void on_wrote(struct endpoint *ep)
{
    struct mailbox *mailbox = ep->data;
    if (mailbox->callbacks.wrote)
        mailbox->callbacks.wrote(mailbox->data);
}

static void on_alarms_closed(void *mailbox_data)
{
    struct mailbox *mailbox = mailbox_data;
    void (*closed)(void *data) = mailbox->closed;
    void *data = mailbox->closed_data;

    free(mailbox);
    if (closed)
        closed(data);
}

static void on_closed(struct endpoint *ep)
{
    struct mailbox *mailbox = ep->data;
    alarms_close(mailbox->alarms, on_alarms_closed, mailbox);
}

struct mailbox *mailbox_open(const struct mailbox_config *config)
{
    static const struct endpoint_callbacks callbacks = {on_message, on_stepped, on_wrote,
                                                        on_closed};
    uint32_t slot = config->self.host_id;
    const struct channel_config channel = {
        .kind = PAGE_UP,
        .slot = slot,
        .pool_id = config->pool_id,
        .self = config->self,
        .node_name = config->node_name,
        .heartbeat_ms = CHANNEL_HEARTBEAT_MS,
        .term_min = config->term_min,
        .page_seq_min = config->page_seq_min,
        .hint = config->hint,
        .trace = config->trace,
    };
    const struct endpoint_places places = {
        .own_page = layout_up_page(config->layout, slot),
        .own_spill = layout_up_spill(config->layout, slot),
        .peer_page = layout_down_page(config->layout, slot),
        .peer_spill = layout_down_spill(config->layout, slot),
    };
    struct mailbox *mailbox = calloc(1, sizeof *mailbox);
    if (!mailbox)
        abort();
    assert(config->callbacks.message);
    mailbox->callbacks = config->callbacks;
    mailbox->data = config->data;
    mailbox->alarms = alarms_open(config->loop);
    endpoint_open(&mailbox->endpoint, mailbox->alarms, config->disk, &channel, &places, &callbacks,
                  mailbox);
    return mailbox;
}

int mailbox_send(struct mailbox *mailbox, const uint8_t *bytes, uint32_t len)
{
    return endpoint_send(&mailbox->endpoint, bytes, len);
}

void mailbox_hint(struct mailbox *mailbox)
{
    endpoint_hint(&mailbox->endpoint);
}

void mailbox_set_waiting(struct mailbox *mailbox, bool waiting)
{
    channel_set_waiting(mailbox->endpoint.channel, waiting);
    endpoint_kick(&mailbox->endpoint);
}

void mailbox_set_leaving(struct mailbox *mailbox)
{
    channel_set_flags(mailbox->endpoint.channel, PAGE_FLAG_LEAVING);
    endpoint_kick(&mailbox->endpoint);
}

const struct channel_stats *mailbox_stats(const struct mailbox *mailbox)
{
    return channel_stats(mailbox->endpoint.channel);
}

bool mailbox_idle(const struct mailbox *mailbox)
{
    return channel_idle(mailbox->endpoint.channel);
}

bool mailbox_refused(const struct mailbox *mailbox)
{
    return mailbox->endpoint.refused;
}

void mailbox_close(struct mailbox *mailbox, void (*closed)(void *data), void *data)
{
    mailbox->closed = closed;
    mailbox->closed_data = data;
    endpoint_close(&mailbox->endpoint);
}
