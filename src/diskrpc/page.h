/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The message page: 4096 bytes, one writer, the atomic unit of the disk RPC.
 *
 * A page carries a batch of consecutive messages [first_seq, first_seq + count) of one session, the
 * acknowledgment of the other side's, and who wrote it to whom. A session is the pair (writer
 * incarnation, peer incarnation); sequence numbers start at 1 in each. Readers never act on a page
 * that fails page_in or is not addressed to them. A message is at most a page's payload; a larger
 * one is a spill reference {length, crc} to the writer's spill slot.
 */
#ifndef LUNAR_DISKRPC_PAGE_H
#define LUNAR_DISKRPC_PAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/uuid.h"
#include "diskrpc/hint_address.h"
#include "diskrpc/layout.h"

#define PAGE_SIZE_BYTES  LAYOUT_PAGE_SIZE
#define PAGE_HEADER_SIZE 192u
#define PAGE_NAME_SIZE                                                                             \
    256u /* the node's Kubernetes name, NUL-padded, at the page's end (253 bytes at most) */
#define PAGE_NAME_MAX     253u /* of a name that is met, cut there: its field has room for more */
#define PAGE_PAYLOAD_SIZE (PAGE_SIZE_BYTES - PAGE_HEADER_SIZE - PAGE_NAME_SIZE)
/* Each message in the payload: u32 length | PAGE_MESSAGE_SPILLED, then the bytes, padded to 4. */
#define PAGE_MESSAGE_OVERHEAD 4u
#define PAGE_MESSAGE_SPILLED  0x80000000u
#define PAGE_BATCH_MAX        64u

enum page_kind { PAGE_UP = 1, PAGE_DOWN = 2 }; /* node -> coordinator, coordinator -> node */

/*
 * Who wrote: an agent is (host id, sanlock generation, run); run counts agent processes within a
 * generation (SAFETY 5). A coordinator is (host id, generation, term); its term alone orders it.
 * Zero means nobody yet.
 */
struct incarnation {
    uint32_t host_id;
    uint64_t generation;
    uint64_t run_or_term; /* up pages: run; down pages: term */
};

#define PAGE_FLAG_LEAVING 1u /* up page: the node left the pool cleanly; nothing is open on it */

struct page {
    enum page_kind kind;
    uint32_t slot; /* host id of the node whose page this is */
    uint32_t flags;
    struct uuid pool_id;
    struct incarnation writer;
    struct incarnation
        peer;      /* whom the messages and the acknowledgment are for; zero: nobody known yet */
    uint64_t term; /* the highest term the writer has seen; a coordinator's own */
    uint64_t page_seq;        /* rises with each write of one writer incarnation */
    uint64_t ack_seq;         /* highest sequence of the peer's that was delivered without a gap */
    uint64_t first_seq;       /* of the first message; next to be sent if count is 0 */
    uint64_t heartbeat_ms;    /* writer's monotonic clock at the write; for people and for hang
                                 detection alone */
    struct hint_address hint; /* where the writer wants hints; whatever it says is harmless */
    /* Down pages: generations of the node up to this one are proved over: one that still runs has
     * lost its grants and must fence itself (SAFETY 8). 0: none */
    uint64_t dead_generation;
    uint32_t count;
    uint32_t payload_len;
    char node_name[PAGE_NAME_SIZE];
    uint8_t payload[PAGE_PAYLOAD_SIZE];
};

/* One message inside a page: borrowed from the page's payload. */
struct page_message {
    const uint8_t *data; /* spilled: NULL */
    uint32_t len;        /* spilled: of the whole message in the spill slot */
    bool spilled;
    uint32_t spill_crc;
};

void page_out(const struct page *page, uint8_t buffer[PAGE_SIZE_BYTES]);
/*
 * LUNAR_E_NOT_FOUND: all zeroes (never written). LUNAR_E_FOREIGN: not a lunar page, another pool,
 * kind or slot. LUNAR_E_CORRUPT: torn or damaged. LUNAR_E_VERSION. Nothing of *ret may be used
 * after an error.
 */
int page_in(const uint8_t buffer[PAGE_SIZE_BYTES], enum page_kind kind, uint32_t slot,
            const struct uuid *pool_id, struct page *ret, struct error *err);

/* Appends a message; false if it does not fit (or PAGE_BATCH_MAX is reached). `len` > 0. */
bool page_append(struct page *page, const uint8_t *data, uint32_t len);
bool page_append_spilled(struct page *page, uint32_t len, uint32_t crc);
/* Walks: start with *at = 0; false at the end. page_in has checked that the walk is sound. */
bool page_next(const struct page *page, uint32_t *at, struct page_message *ret);

#endif
