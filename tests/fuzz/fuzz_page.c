/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The decoders of pages and of claims, which lie in the same places. The input is one shape byte
 * (fuzz_unit) and a page's bytes; slot and kind are fixed, so the third shape gets everything but
 * the page's own fields right.
 *
 * What must hold beyond "no crash": a page that is accepted can be walked to its end by page_next
 * with exactly `count` messages whose bytes lie in the page; encoding it again gives a page that
 * decodes to the same; a refused one names a reason.
 */
#include "diskrpc/claim.h"
#include "diskrpc/page.h"
#include "diskrpc/unit.h"
#include "fuzz/fuzz.h"

#define SLOT 3u

static void walk(const struct page *page)
{
    struct page_message m;
    uint32_t at = 0, n = 0, sum = 0;

    for (; page_next(page, &at, &m); n++) {
        MUST(m.len > 0 && m.len <= LAYOUT_SPILL_SIZE, "a message has a length within bounds");
        MUST(m.spilled == (m.data == NULL), "a spilled message has no bytes in the page");
        if (!m.spilled) {
            MUST(m.data + m.len <= page->payload + page->payload_len, "it lies in the payload");
            sum += touch(m.data, m.len);
        }
    }
    MUST(n == page->count && at == page->payload_len, "the walk ends where the page says");
    (void)sum;
}

static bool same_incarnation(const struct incarnation *a, const struct incarnation *b)
{
    return a->host_id == b->host_id && a->generation == b->generation &&
           a->run_or_term == b->run_or_term;
}

static void check_equal(const struct page *a, const struct page *b)
{
    MUST(a->flags == b->flags && a->term == b->term && a->page_seq == b->page_seq &&
             a->ack_seq == b->ack_seq && a->first_seq == b->first_seq &&
             a->heartbeat_ms == b->heartbeat_ms && a->count == b->count &&
             a->payload_len == b->payload_len,
         "every number survives");
    MUST(same_incarnation(&a->writer, &b->writer) && same_incarnation(&a->peer, &b->peer),
         "writer and peer survive");
    MUST(memcmp(a->hint.ip, b->hint.ip, sizeof a->hint.ip) == 0 && a->hint.port == b->hint.port,
         "the address for hints survives");
    MUST(a->dead_generation == b->dead_generation, "the mark of the dead survives");
    MUST(strcmp(a->node_name, b->node_name) == 0, "the node's name survives");
    MUST(memcmp(a->payload, b->payload, a->payload_len) == 0, "the messages survive");
}

static void check_claim(const uint8_t *data, size_t size)
{
    struct claim claim, again;
    uint8_t buffer[PAGE_SIZE_BYTES], out[PAGE_SIZE_BYTES];
    struct error err = ERROR_INIT;

    fuzz_unit(data, size, UNIT_CLAIM, CLAIM_HEADER_SIZE, SLOT, buffer, sizeof buffer);
    int rc = claim_in(buffer, SLOT, &fuzz_pool, &claim, &err);
    if (rc < 0) {
        MUST(err.code == rc && err.text[0], "a refusal says why");
        return;
    }
    claim_out(&claim, out);
    MUST(claim_in(out, SLOT, &fuzz_pool, &again, &err) == 0, "what was decoded encodes");
    MUST(uuid_equal(&claim.nonce, &again.nonce) &&
             claim.lease_generation == again.lease_generation &&
             strcmp(claim.node_name, again.node_name) == 0,
         "every field survives");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct page page, again;
    uint8_t buffer[PAGE_SIZE_BYTES], out[PAGE_SIZE_BYTES];
    struct error err = ERROR_INIT;

    check_claim(data, size);
    fuzz_unit(data, size, UNIT_UP_PAGE, PAGE_HEADER_SIZE, SLOT, buffer, sizeof buffer);
    int rc = page_in(buffer, PAGE_UP, SLOT, &fuzz_pool, &page, &err);
    if (rc < 0) {
        MUST(err.code == rc && err.text[0], "a refusal says why");
        return 0;
    }
    walk(&page);
    page_out(&page, out);
    MUST(page_in(out, PAGE_UP, SLOT, &fuzz_pool, &again, &err) == 0, "what was decoded encodes");
    check_equal(&page, &again);
    return 0;
}
