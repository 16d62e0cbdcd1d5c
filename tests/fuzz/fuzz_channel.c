/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole channel, driven by a hostile peer and a hostile disk: the input is a script of pages (of
 * any writer, with any acknowledgment, sequence and messages), spill bytes, outcomes of our own
 * writes, ticks, submits and receives. Pages come with a right checksum, or damaged.
 *
 * The target keeps a model of what may happen and checks it at every step: a page that the channel
 * writes is sound, ours, rises, carries the submitted messages in order and acknowledges what was
 * taken, and its buffer is not touched while the write is out; messages arrive in order, each once
 * in a session, with bytes that match their page or their checksum; queues keep their bounds; a
 * step never asks to be called again at once, which would spin.
 *
 * Every message's bytes are told by its sequence number (pattern), so the model needs no copies. A
 * page whose bytes were changed and sealed again may say anything: content is not compared then.
 */
#include "base/crc32c.h"
#include "diskrpc/channel.h"
#include "diskrpc/unit.h"
#include "fuzz/fuzz.h"

/* The unit of the channel's clock, in one place. */
#define EVENT_NOW        now_us
#define UPDATE_DEADLINE  deadline_us
#define TICKS_PER_SECOND 1000000u

#define SLOT 5u

struct harness {
    struct feed *f;
    struct channel *channel;
    struct channel_config config;
    struct channel_update update;
    uint64_t now;
    /* operations that are out */
    bool page_read, page_write, spill_read, spill_write;
    const uint8_t *page, *spill;
    uint32_t page_crc, spill_crc, spill_len, spill_read_len;
    /* the model of the session */
    uint64_t submitted, taken, page_seq_written;
    uint64_t peer_page_seq;
    bool lied;
    struct incarnation peer; /* the one that writes pages now */
};

static struct harness h;
static uint8_t slot_bytes[LAYOUT_SPILL_SIZE];

/* The bytes of message `seq`: a window into noise, of which a shorter one is a prefix. */
static const uint8_t *pattern(uint64_t seq)
{
    static uint8_t noise[LAYOUT_SPILL_SIZE + 4096 + 65536];
    static bool made;
    uint32_t state = 1;
    for (size_t i = 0; !made && i < sizeof noise; i++) {
        state = state * 1664525u + 1013904223u;
        noise[i] = (uint8_t)(state >> 24);
    }
    made = true;
    return noise + seq * 31 % 65536;
}

static void fill_pattern(uint8_t *to, uint64_t seq, uint32_t len)
{
    memcpy(to, pattern(seq), len);
}

static bool is_pattern(const uint8_t *bytes, uint64_t seq, uint32_t len)
{
    return memcmp(bytes, pattern(seq), len) == 0;
}

/* Lengths from a byte: small ones, around what fits a page, around what fits a spill slot. */
static uint32_t feed_len(struct feed *f)
{
    uint8_t which = feed_u8(f);
    if (which < 200)
        return which + 1u;
    if (which < 225)
        return PAGE_PAYLOAD_SIZE - PAGE_MESSAGE_OVERHEAD - 12 + (which - 200u);
    if (which < 250)
        return 4096u * (which - 224u) + 1;
    return LAYOUT_SPILL_SIZE - 2 + (which - 250u);
}

/* --- what the channel asks for --- */

static void check_written_messages(const struct page *page)
{
    struct page_message m;
    uint32_t at = 0;

    for (uint64_t seq = page->first_seq; page_next(page, &at, &m); seq++) {
        MUST(seq <= h.submitted, "only what was submitted is sent");
        if (m.spilled)
            MUST(m.len <= CHANNEL_MESSAGE_MAX, "a spill fits its slot");
        else
            MUST(is_pattern(m.data, seq, m.len), "the messages are those submitted, in order");
    }
}

static void check_written_page(void)
{
    static struct page page;
    struct error err = ERROR_INIT;
    const struct channel_stats *stats = channel_stats(h.channel);

    int rc = page_in(h.update.page, h.config.kind, SLOT, &fuzz_pool, &page, &err);
    MUST(rc == 0, "what it writes is a sound page");
    MUST(page.writer.host_id == h.config.self.host_id &&
             page.writer.generation == h.config.self.generation &&
             page.writer.run_or_term == h.config.self.run_or_term,
         "in its own name");
    MUST(page.peer.host_id == stats->peer.host_id && page.peer.generation == stats->peer.generation,
         "to the peer it knows");
    MUST(page.page_seq > h.page_seq_written, "page numbers rise");
    MUST(page.ack_seq == h.taken, "it acknowledges what was taken, no more");
    h.page_seq_written = page.page_seq;
    check_written_messages(&page);
}

static void take_update(void)
{
    struct channel_update *u = &h.update;
    const struct channel_stats *stats = channel_stats(h.channel);

    if (u->peer_changed) {
        h.submitted = h.taken = 0;
        h.lied = false;
    }
    if (u->write_page) {
        MUST(!h.page_write, "one page write at a time");
        check_written_page();
        h.page_write = true;
        h.page = u->page;
        h.page_crc = crc32c(u->page, PAGE_SIZE_BYTES);
    }
    if (u->write_spill) {
        MUST(!h.spill_write && u->spill_len <= CHANNEL_MESSAGE_MAX, "one spill write at a time");
        h.spill_write = true;
        h.spill = u->spill;
        h.spill_len = (u->spill_len + 4095) / 4096 * 4096; /* it is written in whole pages */
        h.spill_crc = crc32c(u->spill, h.spill_len);
    }
    if (u->read_page) {
        MUST(!h.page_read, "one page read at a time");
        h.page_read = true;
    }
    if (u->read_spill) {
        MUST(!h.spill_read && u->spill_read_len >= 1 && u->spill_read_len <= LAYOUT_SPILL_SIZE,
             "one spill read at a time, within the slot");
        h.spill_read = true;
        h.spill_read_len = u->spill_read_len;
    }
    MUST(u->UPDATE_DEADLINE > h.now, "it does not spin");
    MUST(stats->queued <= CHANNEL_QUEUE_MAX && stats->queued_bytes <= CHANNEL_QUEUE_BYTES_MAX,
         "queues keep their bounds");
    MUST(stats->queued <= h.submitted, "nothing is queued that was not submitted");
}

static void step(enum channel_event_type type, int status, const uint8_t *data, uint32_t len)
{
    const struct channel_event event = {
        .type = type, .EVENT_NOW = h.now, .status = status, .data = data, .len = len};
    channel_step(h.channel, &event, &h.update);
    take_update();
}

/* --- what the script does --- */

/* Writers around the one we talk to: mostly the same, or older, newer, another host. */
static struct incarnation feed_writer(void)
{
    struct incarnation w = h.peer;
    switch (feed_u8(h.f) % 16) {
    case 0:
        w.run_or_term++;
        break;
    case 1:
        w.run_or_term--;
        break;
    case 2:
        w.generation++;
        break;
    case 3:
        w.host_id ^= 3;
        break;
    case 4:
        w.run_or_term = feed_u64(h.f);
        break;
    default:
        break;
    }
    return w;
}

/* Those that fit; a message that does not ends the page, so that numbers have no gap. */
static void feed_messages(struct page *page)
{
    uint8_t bytes[PAGE_PAYLOAD_SIZE], n = feed_u8(h.f) % 8;
    bool fits = true, spilled = false;

    for (uint64_t seq = page->first_seq; n > 0 && fits; n--, seq++) {
        uint32_t len = feed_len(h.f);
        if (len <= PAGE_PAYLOAD_SIZE - PAGE_MESSAGE_OVERHEAD) {
            fill_pattern(bytes, seq, len);
            fits = page_append(page, bytes, len);
            continue;
        }
        len = len < LAYOUT_SPILL_SIZE ? len : LAYOUT_SPILL_SIZE;
        fill_pattern(slot_bytes, seq, len);
        uint32_t crc = crc32c(slot_bytes, len) ^ (feed_u8(h.f) == 1);
        fits = !spilled && page_append_spilled(page, len, crc);
        spilled = true;
    }
}

/* Small steps around a number that the other side is right to use, or any number. */
static uint64_t feed_near(uint64_t base)
{
    uint8_t which = feed_u8(h.f);
    return which == 255 ? feed_u64(h.f) : base + (which & 7) - (which >> 3 & 7);
}

static void feed_page(uint8_t buffer[PAGE_SIZE_BYTES])
{
    static struct page page;
    uint8_t options = feed_u8(h.f);

    memset(&page, 0, sizeof page);
    page.kind = h.config.kind == PAGE_UP ? PAGE_DOWN : PAGE_UP;
    page.slot = SLOT;
    page.pool_id = fuzz_pool;
    page.writer = options & 1 ? feed_writer() : h.peer;
    if (page.writer.host_id == 0)
        page.writer.host_id = 1;
    page.peer = h.config.self;
    page.peer.run_or_term += (options & 2) != 0; /* for somebody else */
    page.term = options & 4 ? feed_u64(h.f) : page.writer.run_or_term;
    page.page_seq = options & 8 ? feed_near(h.peer_page_seq) : h.peer_page_seq + 1;
    page.ack_seq = options & 16 ? feed_near(h.submitted) : 0;
    page.first_seq = options & 32 ? feed_near(h.taken + 1) : h.taken + 1;
    if (page.first_seq == 0 || page.first_seq > UINT64_MAX - PAGE_BATCH_MAX)
        page.first_seq = 1;
    page.flags = options & 64 ? 1 : 0;
    strcpy(page.node_name, "node5");
    feed_messages(&page);
    h.peer = page.writer;
    h.peer_page_seq = page.page_seq;
    page_out(&page, buffer);
}

static void page_arrives(void)
{
    uint8_t buffer[PAGE_SIZE_BYTES], how;
    bool lies = false;

    if (!h.page_read && !h.config.external_poll)
        return;
    feed_page(buffer);
    how = feed_u8(h.f);
    if (how >= 200) { /* some of its bytes change; with or without a checksum that knows */
        uint32_t at = feed_u16(h.f) % PAGE_SIZE_BYTES;
        const uint8_t *bytes;
        size_t n = feed_bytes(h.f, how % 16u + 1, &bytes);
        if (n > 0)
            memcpy(buffer + at, bytes, n < PAGE_SIZE_BYTES - at ? n : PAGE_SIZE_BYTES - at);
        if (how >= 230 && unit_claimed_len(buffer) == PAGE_SIZE_BYTES) {
            unit_seal(buffer);
            lies = true;
        }
    }
    h.page_read = false;
    step(CHANNEL_EVENT_PAGE_READ, 0, buffer, sizeof buffer);
    h.lied |= lies; /* of the session that may have begun with it, too */
}

static void page_read_fails(void)
{
    uint8_t zeroes[PAGE_SIZE_BYTES] = {0};
    if (!h.page_read)
        return;
    h.page_read = false;
    if (feed_u8(h.f) & 1)
        step(CHANNEL_EVENT_PAGE_READ, -5, NULL, 0);
    else
        step(CHANNEL_EVENT_PAGE_READ, 0, zeroes, sizeof zeroes); /* never written */
}

static void page_written(void)
{
    if (!h.page_write)
        return;
    MUST(crc32c(h.page, PAGE_SIZE_BYTES) == h.page_crc, "its buffer was not touched");
    h.page_write = false;
    step(CHANNEL_EVENT_PAGE_WRITTEN, feed_u8(h.f) == 1 ? -5 : 0, NULL, 0);
}

static void spill_written(void)
{
    if (!h.spill_write)
        return;
    MUST(crc32c(h.spill, h.spill_len) == h.spill_crc, "its buffer was not touched");
    h.spill_write = false;
    step(CHANNEL_EVENT_SPILL_WRITTEN, feed_u8(h.f) == 1 ? -5 : 0, NULL, 0);
}

/* The slot holds some message's bytes: the one asked for, a former one's, or half of it. */
static void spill_arrives(void)
{
    uint8_t how = feed_u8(h.f);
    uint32_t len = (h.spill_read_len + 4095) / 4096 * 4096;

    if (!h.spill_read)
        return;
    h.spill_read = false;
    fill_pattern(slot_bytes, how & 1 ? feed_near(h.taken + 1) : h.taken + 1 + (how >> 4), len);
    if (how & 2)
        slot_bytes[feed_u16(h.f) % len] ^= 0x40;
    if (how & 4)
        len = feed_u16(h.f) % len;
    /* Its own allocation: a read beyond what was read shows. */
    uint8_t *exact = malloc(len ? len : 1);
    if (!exact)
        abort();
    memcpy(exact, slot_bytes, len);
    step(CHANNEL_EVENT_SPILL_READ, how & 8 ? -5 : 0, exact, len);
    free(exact);
}

static void submit(void)
{
    static uint8_t bytes[LAYOUT_SPILL_SIZE + 8];
    const struct channel_stats *stats = channel_stats(h.channel);
    uint32_t len = feed_len(h.f), queued = stats->queued_bytes;

    fill_pattern(bytes, h.submitted + 1, len);
    int rc = channel_submit(h.channel, bytes, len);
    if (rc == 0)
        h.submitted++;
    MUST(rc == 0 || rc == LUNAR_E_TOO_BIG || rc == LUNAR_E_FULL || rc == LUNAR_E_NOT_JOINED,
         "taken, or refused for a known reason");
    MUST((rc == LUNAR_E_TOO_BIG) == (len > CHANNEL_MESSAGE_MAX), "too big is too big");
    MUST(stats->queued_bytes == queued + (rc == 0 ? len : 0), "bytes are counted");
}

static bool receive(void)
{
    const uint8_t *bytes;
    uint32_t len;

    if (!channel_receive(h.channel, &bytes, &len))
        return false;
    h.taken++;
    MUST(len > 0 && len <= CHANNEL_MESSAGE_MAX, "a message within bounds");
    (void)touch(bytes, len);
    MUST(h.lied || is_pattern(bytes, h.taken, len), "the next message, whole");
    return true;
}

static void outside(uint8_t what)
{
    switch (what) {
    case 0:
        h.now += feed_u8(h.f) * (TICKS_PER_SECOND / 10000);
        step(CHANNEL_EVENT_TICK, 0, NULL, 0);
        break;
    case 1:
        h.now += feed_u16(h.f) * (TICKS_PER_SECOND / 100);
        step(CHANNEL_EVENT_TICK, 0, NULL, 0);
        break;
    case 2:
        if (h.update.UPDATE_DEADLINE != UINT64_MAX)
            h.now = h.update.UPDATE_DEADLINE;
        step(CHANNEL_EVENT_TICK, 0, NULL, 0);
        break;
    case 3:
        step(CHANNEL_EVENT_HINT, 0, NULL, 0);
        break;
    case 4:
        channel_set_waiting(h.channel, feed_u8(h.f) & 1);
        break;
    default:
        channel_set_flags(h.channel, feed_u8(h.f) & 1);
        break;
    }
}

static void one(uint8_t what)
{
    switch (what % 16) {
    case 0:
    case 1:
    case 2:
        page_arrives();
        break;
    case 3:
        page_read_fails();
        break;
    case 4:
    case 5:
        page_written();
        break;
    case 6:
        spill_written();
        break;
    case 7:
        spill_arrives();
        break;
    case 8:
    case 9:
        submit();
        break;
    case 10:
        receive();
        break;
    case 11:
        while (receive())
            ;
        step(CHANNEL_EVENT_TICK, 0, NULL, 0);
        break;
    default:
        outside(what >> 4 & 7);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feed f = {data, size};
    uint8_t options = feed_u8(&f);

    memset(&h, 0, sizeof h);
    h.f = &f;
    h.now = 10 * TICKS_PER_SECOND;
    h.config = (struct channel_config){.kind = options & 1 ? PAGE_UP : PAGE_DOWN,
                                       .slot = SLOT,
                                       .pool_id = fuzz_pool,
                                       .node_name = options & 1 ? "node5" : NULL,
                                       .heartbeat_ms = options & 2 ? CHANNEL_HEARTBEAT_MS : 0,
                                       .external_poll = !(options & 1) && (options & 4),
                                       .term_min = options & 1 && (options & 8) ? 7 : 0,
                                       .page_seq_min = options >> 4};
    h.config.self = options & 1 ? (struct incarnation){SLOT, 2, 3} : (struct incarnation){1, 4, 9};
    h.peer = options & 1 ? (struct incarnation){1, 4, 9} : (struct incarnation){SLOT, 2, 3};
    h.page_seq_written = h.config.page_seq_min;
    h.channel = channel_new(&h.config);
    step(CHANNEL_EVENT_TICK, 0, NULL, 0);
    while (f.left > 0)
        one(feed_u8(&f));
    channel_free(h.channel);
    return 0;
}
