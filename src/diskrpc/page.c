/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The message page's codec; docs/DISK-FORMAT.md has the bytes.
 *
 * Happy path: fill a struct page, append messages, page_out; page_in, walk with page_next. Failure
 * modes: all come from page_in, which checks not only the checksum but everything a peer may get
 * wrong or lie about (counts, lengths, terminators), so that whoever walks an accepted page needs
 * no checks of its own.
 */
#include "diskrpc/page.h"

#include <assert.h>
#include <string.h>

#include "base/le.h"
#include "diskrpc/unit.h"

enum {
    AT_WRITER_HOST = 48,
    AT_PEER_HOST = 52,
    AT_WRITER_GENERATION = 56,
    AT_WRITER_RUN = 64,
    AT_PEER_GENERATION = 72,
    AT_PEER_RUN = 80,
    AT_TERM = 88,
    AT_PAGE_SEQ = 96,
    AT_ACK_SEQ = 104,
    AT_FIRST_SEQ = 112,
    AT_HEARTBEAT = 120,
    AT_COUNT = 128,
    AT_PAYLOAD_LEN = 132,
    AT_HINT_IP = 136,
    AT_HINT_PORT = 152,
    AT_DEAD_GENERATION = 160,
    AT_PAYLOAD = PAGE_HEADER_SIZE,
    AT_NAME = PAGE_HEADER_SIZE + PAGE_PAYLOAD_SIZE,
};

static enum unit_kind unit_kind_of(enum page_kind kind)
{
    return kind == PAGE_UP ? UNIT_UP_PAGE : UNIT_DOWN_PAGE;
}

void page_out(const struct page *page, uint8_t buffer[PAGE_SIZE_BYTES])
{
    assert(page->payload_len <= PAGE_PAYLOAD_SIZE && page->count <= PAGE_BATCH_MAX);
    assert(page->slot >= 1 && page->writer.host_id >= 1 && page->first_seq >= 1);
    const struct unit unit = {
        .kind = unit_kind_of(page->kind),
        .header_len = PAGE_HEADER_SIZE,
        .len = PAGE_SIZE_BYTES,
        .slot = page->slot,
        .flags = page->flags,
        .pool_id = page->pool_id,
    };
    memset(buffer, 0, PAGE_SIZE_BYTES);
    unit_out(&unit, buffer);
    le32_put(buffer + AT_WRITER_HOST, page->writer.host_id);
    le64_put(buffer + AT_WRITER_GENERATION, page->writer.generation);
    le64_put(buffer + AT_WRITER_RUN, page->writer.run_or_term);
    le32_put(buffer + AT_PEER_HOST, page->peer.host_id);
    le64_put(buffer + AT_PEER_GENERATION, page->peer.generation);
    le64_put(buffer + AT_PEER_RUN, page->peer.run_or_term);
    le64_put(buffer + AT_TERM, page->term);
    le64_put(buffer + AT_PAGE_SEQ, page->page_seq);
    le64_put(buffer + AT_ACK_SEQ, page->ack_seq);
    le64_put(buffer + AT_FIRST_SEQ, page->first_seq);
    le64_put(buffer + AT_HEARTBEAT, page->heartbeat_ms);
    le32_put(buffer + AT_COUNT, page->count);
    le32_put(buffer + AT_PAYLOAD_LEN, page->payload_len);
    memcpy(buffer + AT_HINT_IP, page->hint.ip, sizeof page->hint.ip);
    le16_put(buffer + AT_HINT_PORT, page->hint.port);
    le64_put(buffer + AT_DEAD_GENERATION, page->dead_generation);
    memcpy(buffer + AT_PAYLOAD, page->payload, page->payload_len);
    unit_text_put(buffer + AT_NAME, page->node_name, PAGE_NAME_SIZE - 1);
    unit_seal(buffer);
}

static void fields_in(const uint8_t *buffer, struct page *page)
{
    page->writer.host_id = le32_get(buffer + AT_WRITER_HOST);
    page->writer.generation = le64_get(buffer + AT_WRITER_GENERATION);
    page->writer.run_or_term = le64_get(buffer + AT_WRITER_RUN);
    page->peer.host_id = le32_get(buffer + AT_PEER_HOST);
    page->peer.generation = le64_get(buffer + AT_PEER_GENERATION);
    page->peer.run_or_term = le64_get(buffer + AT_PEER_RUN);
    page->term = le64_get(buffer + AT_TERM);
    page->page_seq = le64_get(buffer + AT_PAGE_SEQ);
    page->ack_seq = le64_get(buffer + AT_ACK_SEQ);
    page->first_seq = le64_get(buffer + AT_FIRST_SEQ);
    page->heartbeat_ms = le64_get(buffer + AT_HEARTBEAT);
    page->count = le32_get(buffer + AT_COUNT);
    page->payload_len = le32_get(buffer + AT_PAYLOAD_LEN);
    memcpy(page->hint.ip, buffer + AT_HINT_IP, sizeof page->hint.ip);
    page->hint.port = le16_get(buffer + AT_HINT_PORT);
    page->dead_generation = le64_get(buffer + AT_DEAD_GENERATION);
    memcpy(page->payload, buffer + AT_PAYLOAD, PAGE_PAYLOAD_SIZE);
    memcpy(page->node_name, buffer + AT_NAME, PAGE_NAME_SIZE);
}

/* Bytes that the message at `at` takes, 0 if it is unsound. */
static uint32_t message_span(const struct page *page, uint32_t at)
{
    uint32_t room = page->payload_len - at;
    if (room < PAGE_MESSAGE_OVERHEAD)
        return 0;
    uint32_t word = le32_get(page->payload + at);
    uint32_t len = word & ~PAGE_MESSAGE_SPILLED;
    if (word & PAGE_MESSAGE_SPILLED)
        return len >= 1 && len <= LAYOUT_SPILL_SIZE && room >= 8 ? 8 : 0;
    if (len < 1 || len > room - PAGE_MESSAGE_OVERHEAD)
        return 0;
    uint32_t span = PAGE_MESSAGE_OVERHEAD + (len + 3) / 4 * 4;
    return span <= room ? span : 0;
}

static int check_payload(const struct page *page, struct error *err)
{
    uint32_t at = 0, spills = 0;

    for (uint32_t i = 0; i < page->count; i++) {
        uint32_t span = message_span(page, at);
        if (span == 0)
            return error_set(err, LUNAR_E_CORRUPT, "message %u of %u is unsound", i, page->count);
        spills += (le32_get(page->payload + at) & PAGE_MESSAGE_SPILLED) != 0;
        at += span;
    }
    if (at != page->payload_len)
        return error_set(err, LUNAR_E_CORRUPT, "%u messages end at byte %u, not at %u", page->count,
                         at, page->payload_len);
    if (spills > 1)
        return error_set(err, LUNAR_E_CORRUPT, "%u messages claim the one spill slot", spills);
    return 0;
}

static int check_fields(const struct page *page, struct error *err)
{
    if (page->writer.host_id == 0)
        return error_set(err, LUNAR_E_CORRUPT, "nobody wrote it");
    if (page->first_seq == 0 || page->first_seq > UINT64_MAX - PAGE_BATCH_MAX)
        return error_set(err, LUNAR_E_CORRUPT, "first sequence number %llu",
                         (unsigned long long)page->first_seq);
    if (page->count > PAGE_BATCH_MAX || page->payload_len > PAGE_PAYLOAD_SIZE)
        return error_set(err, LUNAR_E_CORRUPT, "%u messages in %u bytes", page->count,
                         page->payload_len);
    if (page->count > 0 && page->peer.host_id == 0)
        return error_set(err, LUNAR_E_CORRUPT, "%u messages for nobody", page->count);
    if (page->node_name[PAGE_NAME_SIZE - 1] != '\0')
        return error_set(err, LUNAR_E_CORRUPT, "the node's name does not end");
    return 0;
}

int page_in(const uint8_t buffer[PAGE_SIZE_BYTES], enum page_kind kind, uint32_t slot,
            const struct uuid *pool_id, struct page *ret, struct error *err)
{
    struct unit unit;

    int rc = unit_in(buffer, PAGE_SIZE_BYTES, unit_kind_of(kind), slot, pool_id, &unit, err);
    if (rc < 0)
        return rc;
    if (unit.header_len != PAGE_HEADER_SIZE || unit.len != PAGE_SIZE_BYTES)
        return error_set(err, LUNAR_E_CORRUPT, "header %u, length %u", unit.header_len, unit.len);
    ret->kind = kind;
    ret->slot = slot;
    ret->flags = unit.flags;
    ret->pool_id = unit.pool_id;
    fields_in(buffer, ret);
    rc = check_fields(ret, err);
    return rc < 0 ? rc : check_payload(ret, err);
}

bool page_append(struct page *page, const uint8_t *data, uint32_t len)
{
    assert(len > 0);
    uint32_t room = PAGE_PAYLOAD_SIZE - page->payload_len;
    if (page->count == PAGE_BATCH_MAX || len > PAGE_PAYLOAD_SIZE - PAGE_MESSAGE_OVERHEAD)
        return false;
    uint32_t padded = (len + 3) / 4 * 4;
    if (PAGE_MESSAGE_OVERHEAD + padded > room)
        return false;
    uint8_t *p = page->payload + page->payload_len;
    le32_put(p, len);
    memcpy(p + PAGE_MESSAGE_OVERHEAD, data, len);
    memset(p + PAGE_MESSAGE_OVERHEAD + len, 0, padded - len);
    page->payload_len += PAGE_MESSAGE_OVERHEAD + padded;
    page->count++;
    return true;
}

bool page_append_spilled(struct page *page, uint32_t len, uint32_t crc)
{
    assert(len > 0 && len <= LAYOUT_SPILL_SIZE);
    if (page->count == PAGE_BATCH_MAX || PAGE_PAYLOAD_SIZE - page->payload_len < 8)
        return false;
    le32_put(page->payload + page->payload_len, len | PAGE_MESSAGE_SPILLED);
    le32_put(page->payload + page->payload_len + 4, crc);
    page->payload_len += 8;
    page->count++;
    return true;
}

bool page_next(const struct page *page, uint32_t *at, struct page_message *ret)
{
    if (*at >= page->payload_len)
        return false;
    uint32_t span = message_span(page, *at);
    assert(span > 0);
    const uint8_t *p = page->payload + *at;
    uint32_t word = le32_get(p);
    *ret = (struct page_message){.len = word & ~PAGE_MESSAGE_SPILLED,
                                 .spilled = (word & PAGE_MESSAGE_SPILLED) != 0};
    if (ret->spilled)
        ret->spill_crc = le32_get(p + 4);
    else
        ret->data = p + PAGE_MESSAGE_OVERHEAD;
    *at += span;
    return true;
}
