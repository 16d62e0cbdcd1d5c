/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Binds a pure channel to a disk and an alarm: carries out what the channel asks for, feeds back
 * what became of it.
 *
 * Happy path: an event steps the channel, the update's operations are submitted, delivered messages
 * go to the owner, a TICK follows if the owner took or sent something, the alarm is set to the
 * channel's deadline. What is sent from outside a step is stepped at once, so that its write is on
 * the way before the caller goes on. Failure modes are the channel's; the one of this file is being
 * closed in the middle of a callback: from then on operations that end are only counted, and the
 * memory stays until the last one has ended, because the kernel may still write into it.
 */
#include "diskrpc/endpoint.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"

#define ENDPOINT_MAGIC 0x4c45504eu

static void step(struct endpoint *ep, enum channel_event_type type, int status, const uint8_t *data,
                 uint32_t len);

static void finish_close(struct endpoint *ep)
{
    if (!ep->closing || !ep->alarm_done || ep->outstanding > 0)
        return;
    channel_free(ep->channel);
    free(ep->page_buffer);
    free(ep->spill_buffer);
    ep->magic = 0;
    ep->callbacks->closed(ep);
}

/* True if the channel still wants to know. */
static bool op_ended(struct endpoint *ep)
{
    assert(ep->magic == ENDPOINT_MAGIC && ep->outstanding > 0);
    ep->outstanding--;
    if (!ep->closing)
        return true;
    finish_close(ep); /* may free it */
    return false;
}

static void on_page_read(struct disk_op *op, int status)
{
    struct endpoint *ep = op->data;

    ep->reading = false;
    if (op_ended(ep))
        step(ep, CHANNEL_EVENT_PAGE_READ, status, ep->page_buffer, PAGE_SIZE_BYTES);
}

static void on_page_written(struct disk_op *op, int status)
{
    struct endpoint *ep = op->data;

    ep->refused = status == -EBADE; /* the kernel's word for a reservation conflict */
    if (op_ended(ep))
        step(ep, CHANNEL_EVENT_PAGE_WRITTEN, status, NULL, 0);
}

static void on_spill_read(struct disk_op *op, int status)
{
    struct endpoint *ep = op->data;

    if (op_ended(ep))
        step(ep, CHANNEL_EVENT_SPILL_READ, status, ep->spill_buffer, op->len);
}

static void on_spill_written(struct disk_op *op, int status)
{
    struct endpoint *ep = op->data;

    if (op_ended(ep))
        step(ep, CHANNEL_EVENT_SPILL_WRITTEN, status, NULL, 0);
}

static void submit(struct endpoint *ep, struct disk_op *op, void *buffer, uint32_t len,
                   uint64_t offset)
{
    op->buffer = buffer;
    op->len = (len + IO_ALIGN - 1) / IO_ALIGN * IO_ALIGN;
    op->offset = offset;
    ep->outstanding++;
    disk_submit(ep->disk, op);
}

static void read_page(struct endpoint *ep)
{
    ep->wants = ep->held;
    if (ep->held)
        return;
    ep->reading = true;
    submit(ep, &ep->page_read, ep->page_buffer, PAGE_SIZE_BYTES, ep->places.peer_page);
}

static void carry_out(struct endpoint *ep, const struct channel_update *update)
{
    if (update->write_page)
        submit(ep, &ep->page_write, (void *)update->page, PAGE_SIZE_BYTES, ep->places.own_page);
    if (update->write_spill)
        submit(ep, &ep->spill_write, (void *)update->spill, update->spill_len,
               ep->places.own_spill);
    if (update->read_page)
        read_page(ep);
    if (update->read_spill) {
        if (!ep->spill_buffer)
            ep->spill_buffer = io_alloc(LAYOUT_SPILL_SIZE);
        submit(ep, &ep->spill_read, ep->spill_buffer, update->spill_read_len,
               ep->places.peer_spill);
    }
}

/* Returns true if the channel should be asked once more what to do. */
static bool deliver(struct endpoint *ep)
{
    const uint8_t *data;
    uint32_t len;
    bool any = false;

    while (!ep->closing && channel_receive(ep->channel, &data, &len)) {
        ep->callbacks->message(ep, data, len);
        any = true;
    }
    return any;
}

static enum channel_event_type next_event(struct endpoint *ep)
{
    bool hinted = ep->hinted;

    ep->hinted = false;
    return hinted ? CHANNEL_EVENT_HINT : CHANNEL_EVENT_TICK;
}

static void on_alarm(struct alarm *alarm)
{
    struct endpoint *ep = alarm->data;

    assert(ep->magic == ENDPOINT_MAGIC);
    if (!ep->closing) {
        step(ep, next_event(ep), 0, NULL, 0);
        return;
    }
    ep->alarm_done = true;
    finish_close(ep);
}

static void set_alarm(struct endpoint *ep, uint64_t deadline_us)
{
    if (deadline_us == UINT64_MAX)
        alarm_clear(ep->alarms, &ep->alarm);
    else
        alarm_set(ep->alarms, &ep->alarm, deadline_us);
}

static void step(struct endpoint *ep, enum channel_event_type type, int status, const uint8_t *data,
                 uint32_t len)
{
    assert(ep->magic == ENDPOINT_MAGIC && !ep->stepping && !ep->closing);
    struct channel_event event = {.type = type, .status = status, .data = data, .len = len};
    struct channel_update update;

    ep->stepping = true;
    do {
        event.now_us = alarms_now_us(ep->alarms);
        ep->again = false;
        channel_step(ep->channel, &event, &update);
        carry_out(ep, &update);
        if (event.type == CHANNEL_EVENT_PAGE_READ)
            ep->callbacks->stepped(ep, &update);
        if (update.wrote_news)
            ep->callbacks->wrote(ep);
        if (deliver(ep))
            ep->again = true;
        event = (struct channel_event){.type = next_event(ep)};
    } while (ep->again && !ep->closing);
    ep->stepping = false;
    if (!ep->closing)
        set_alarm(ep, update.deadline_us);
}

static void op_init(struct endpoint *ep, struct disk_op *op, bool write, disk_done_fn done)
{
    op->write = write;
    op->done = done;
    op->data = ep;
}

void endpoint_open(struct endpoint *ep, struct alarms *alarms, struct disk *disk,
                   const struct channel_config *config, const struct endpoint_places *places,
                   const struct endpoint_callbacks *callbacks, void *data)
{
    *ep = (struct endpoint){
        .magic = ENDPOINT_MAGIC,
        .alarms = alarms,
        .disk = disk,
        .channel = channel_new(config),
        .places = *places,
        .callbacks = callbacks,
        .data = data,
        .page_buffer = io_alloc(PAGE_SIZE_BYTES),
        .alarm = {.ring = on_alarm, .data = ep},
    };
    op_init(ep, &ep->page_read, false, on_page_read);
    op_init(ep, &ep->page_write, true, on_page_written);
    op_init(ep, &ep->spill_read, false, on_spill_read);
    op_init(ep, &ep->spill_write, true, on_spill_written);
    alarm_set(alarms, &ep->alarm, 0);
}

void endpoint_kick(struct endpoint *ep)
{
    assert(ep->magic == ENDPOINT_MAGIC);
    if (ep->closing)
        return;
    if (ep->stepping)
        ep->again = true;
    else
        step(ep, next_event(ep), 0, NULL, 0);
}

int endpoint_send(struct endpoint *ep, const uint8_t *bytes, uint32_t len)
{
    int rc = ep->closing ? LUNAR_E_NOT_JOINED : channel_submit(ep->channel, bytes, len);
    if (rc == 0)
        endpoint_kick(ep);
    return rc;
}

void endpoint_hint(struct endpoint *ep)
{
    assert(ep->magic == ENDPOINT_MAGIC);
    ep->hinted = true;
    endpoint_kick(ep);
}

void endpoint_feed_page(struct endpoint *ep, const uint8_t page[PAGE_SIZE_BYTES])
{
    if (ep->closing || ep->reading)
        return;
    ep->wants = false;
    step(ep, CHANNEL_EVENT_PAGE_READ, 0, page, PAGE_SIZE_BYTES);
}

void endpoint_hold(struct endpoint *ep, bool held)
{
    assert(ep->magic == ENDPOINT_MAGIC && !ep->stepping);
    ep->held = held;
    if (!held && ep->wants && !ep->closing)
        read_page(ep);
}

void endpoint_close(struct endpoint *ep)
{
    assert(ep->magic == ENDPOINT_MAGIC && !ep->closing);
    ep->closing = true;
    alarm_set(ep->alarms, &ep->alarm, 0); /* `closed` is never called inline */
}
