/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The message pages of `lun dump`: header, and every message decoded to the protobuf it is, also
 * from the spill. Each message that does not decode is "damaged" on its own. A page's messages are
 * those not yet acknowledged when it was written, so an old page with messages in it is a request
 * that was never answered, or an answer never heard.
 */
#include "dump.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/io.h"
#include "diskrpc/claim.h"
#include "diskrpc/message.h"
#include "output.h"

#define CHUNK_PAGES 256u /* of one read: 1 MiB */

static json_t *incarnation_json(const struct incarnation *i, const char *run_or_term)
{
    json_t *o = json_object();
    js_set(o, "host_id", js_u64(i->host_id));
    js_set(o, "generation", js_u64(i->generation));
    js_set(o, run_or_term, js_u64(i->run_or_term));
    return o;
}

/* "request volume_create", "response", ... */
static void kind_of(const Lunar__Envelope *e, char ret[ENVELOPE_KIND_SIZE])
{
    uint32_t op = 0;
    if (e->body_case == LUNAR__ENVELOPE__BODY_REQUEST)
        op = e->request->op_case;
    else if (e->body_case == LUNAR__ENVELOPE__BODY_COMMAND)
        op = e->command->op_case;
    else if (e->body_case == LUNAR__ENVELOPE__BODY_RESPONSE)
        op = e->response->op_case;
    envelope_kind(e->body_case, op, ret);
}

static json_t *message_json(const uint8_t *data, uint32_t len)
{
    struct error err = ERROR_INIT;
    Lunar__Envelope *e = NULL;
    char kind[ENVELOPE_KIND_SIZE];

    int rc = envelope_unpack(data, len, &e, &err);
    if (rc < 0)
        return dump_damaged(rc, &err);
    json_t *o = json_object();
    kind_of(e, kind);
    js_set(o, "kind", js_text(kind));
    js_set(o, "body", js_proto(&e->base));
    envelope_free(e);
    return o;
}

static json_t *spilled_json(int fd, const struct superblock *sb, const struct page *page,
                            const struct page_message *m)
{
    uint64_t offset = page->kind == PAGE_UP ? layout_up_spill(&sb->layout, page->slot)
                                            : layout_down_spill(&sb->layout, page->slot);
    struct error err = ERROR_INIT;
    if (m->len > LAYOUT_SPILL_SIZE)
        return dump_damaged(
            error_set(&err, LUNAR_E_CORRUPT, "a spilled message of %u bytes", m->len), &err);
    uint8_t *data = io_alloc(LAYOUT_SPILL_SIZE);
    json_t *o;
    int rc = io_read(fd, data, LAYOUT_SPILL_SIZE, offset, &err);
    if (rc == 0 && crc32c(data, m->len) != m->spill_crc)
        rc = error_set(&err, LUNAR_E_CORRUPT, "the spill slot holds another message by now");
    o = rc < 0 ? dump_damaged(rc, &err) : message_json(data, m->len);
    free(data);
    return o;
}

static json_t *messages_json(int fd, const struct superblock *sb, const struct page *page)
{
    json_t *list = json_array();
    struct page_message m;
    uint32_t at = 0;

    for (uint64_t seq = page->first_seq; page_next(page, &at, &m); seq++) {
        json_t *o = m.spilled ? spilled_json(fd, sb, page, &m) : message_json(m.data, m.len);
        js_set(o, "seq", js_u64(seq));
        js_set(o, "bytes", js_u64(m.len));
        js_set(o, "spilled", json_boolean(m.spilled));
        js_append(list, o);
    }
    return list;
}

static json_t *page_json(int fd, const struct superblock *sb, const struct page *p)
{
    char hint[HINT_ADDRESS_TEXT_SIZE];
    bool up = p->kind == PAGE_UP;
    json_t *o = json_object();
    js_set(o, "node", js_text(p->node_name));
    js_set(o, "writer", incarnation_json(&p->writer, up ? "run" : "term"));
    js_set(o, "peer", incarnation_json(&p->peer, up ? "term" : "run"));
    js_set(o, "leaving", json_boolean(p->flags & PAGE_FLAG_LEAVING));
    js_set(o, "flags", js_u64(p->flags));
    js_set(o, "term", js_u64(p->term));
    js_set(o, "page_seq", js_u64(p->page_seq));
    js_set(o, "ack_seq", js_u64(p->ack_seq));
    js_set(o, "first_seq", js_u64(p->first_seq));
    js_set(o, "heartbeat_ms", js_u64(p->heartbeat_ms));
    js_set(o, "hint", js_text(hint_address_format(&p->hint, hint)));
    if (p->dead_generation)
        js_set(o, "dead_generation", js_u64(p->dead_generation));
    js_set(o, "payload_bytes", js_u64(p->payload_len));
    js_set(o, "messages", messages_json(fd, sb, p));
    return o;
}

/* What page_in refused may be the claim of a node that is joining. */
static json_t *claim_json(const uint8_t *buffer, uint32_t id, const struct superblock *sb)
{
    struct claim claim;
    if (claim_in(buffer, id, &sb->pool_id, &claim, NULL) < 0)
        return NULL;
    json_t *o = json_object();
    js_set(o, "claimed_by", js_text(claim.node_name));
    js_set(o, "nonce", js_uuid(&claim.nonce));
    js_set(o, "lease_generation", js_u64(claim.lease_generation));
    return o;
}

/* Slots [first, first + n) of a page table; one by one where a sector is bad, so that it damages
 * one node's page, not the table. `ret_rc` has each slot's outcome. */
static void read_slots(int fd, const struct superblock *sb, enum page_kind kind, uint32_t first,
                       uint32_t n, uint8_t *buffer, int *ret_rc)
{
    uint64_t offset =
        kind == PAGE_UP ? layout_up_page(&sb->layout, first) : layout_down_page(&sb->layout, first);
    bool whole = io_read(fd, buffer, n * PAGE_SIZE_BYTES, offset, NULL) == 0;

    for (uint32_t i = 0; i < n; i++)
        ret_rc[i] = whole ? 0
                          : io_read(fd, buffer + i * PAGE_SIZE_BYTES, PAGE_SIZE_BYTES,
                                    offset + i * PAGE_SIZE_BYTES, NULL);
}

json_t *dump_pages(int fd, const struct superblock *sb, enum page_kind kind)
{
    uint8_t *buffer = io_alloc(CHUNK_PAGES * PAGE_SIZE_BYTES);
    struct page *page = malloc(sizeof *page);
    json_t *list = json_array();
    int rcs[CHUNK_PAGES];

    if (!page)
        abort();
    for (uint32_t id = 1; id <= sb->layout.max_nodes; id++) {
        struct error err = ERROR_INIT;
        uint32_t at = (id - 1) % CHUNK_PAGES, left = sb->layout.max_nodes - id + 1;
        if (at == 0)
            read_slots(fd, sb, kind, id, left < CHUNK_PAGES ? left : CHUNK_PAGES, buffer, rcs);
        int rc = rcs[at];
        if (rc == 0)
            rc = page_in(buffer + at * PAGE_SIZE_BYTES, kind, id, &sb->pool_id, page, &err);
        if (rc == LUNAR_E_NOT_FOUND)
            continue;
        json_t *o = rc == LUNAR_E_FOREIGN && kind == PAGE_UP
                        ? claim_json(buffer + at * PAGE_SIZE_BYTES, id, sb)
                        : NULL;
        if (!o)
            o = rc < 0 ? dump_damaged(rc, &err) : page_json(fd, sb, page);
        js_set(o, "host_id", js_u64(id));
        js_append(list, o);
    }
    free(page);
    free(buffer);
    return list;
}
