/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hints: the datagram, the address out of a page, and the option. The first byte says which; a
 * datagram goes over the loopback to a real hint (bit 1: with magic, version and pool put right),
 * an address is the next 18 bytes, an option is text.
 *
 * What must hold beyond "no crash": only the 28 bytes that say "look", for our pool and a slot of
 * ours, lead to a look, and to one at that slot; every datagram that is taken from the kernel is
 * counted once; an address that may be sent to is neither unspecified nor multicast; an option that
 * is accepted can be shown, and what is shown is accepted as the same address. How many looks there
 * are depends on the clock (rates), so nothing here does.
 */
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/le.h"
#include "diskrpc/hint.h"
#include "fuzz/fuzz.h"

#define SLOT_MIN 3u
#define SLOT_MAX 6u

static struct {
    uv_loop_t loop;
    struct hint *hint;
    int sender;
    uint32_t looks, slot; /* of the datagram under way */
} h;

static void on_looked(void *data, uint32_t slot)
{
    (void)data;
    h.looks++;
    h.slot = slot;
}

static void open_once(void)
{
    struct hint_config config = {.loop = &h.loop,
                                 .pool_id = fuzz_pool,
                                 .slot_min = SLOT_MIN,
                                 .slot_max = SLOT_MAX,
                                 .looked = on_looked};
    struct hint_option option;
    struct error err = ERROR_INIT;

    if (h.hint)
        return;
    MUST(hint_option_parse("127.0.0.1", &option, &err) == 0, "the loopback is an address");
    config.bind = option.bind;
    MUST(uv_loop_init(&h.loop) == 0, "a loop");
    MUST(hint_open(&config, &h.hint, &err) == 0, "a hint on the loopback");
    h.sender = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct hint_address to = hint_address(h.hint);
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(to.port)};
    memcpy(&addr.sin_addr, to.ip + 12, 4);
    MUST(connect(h.sender, (struct sockaddr *)&addr, sizeof addr) == 0, "a sender");
}

static bool is_hint(const uint8_t *p, size_t len)
{
    static const uint8_t head[8] = {'L', 'H', 'N', 'T', 1, 0, 0, 0};
    return len == HINT_DATAGRAM_SIZE && memcmp(p, head, 8) == 0 &&
           memcmp(p + 8, fuzz_pool.b, 16) == 0 && le32_get(p + 24) >= SLOT_MIN &&
           le32_get(p + 24) <= SLOT_MAX;
}

static void try_datagram(struct feed *f, bool fixed)
{
    uint8_t bytes[128] = {0};
    const uint8_t *from;
    size_t len = feed_bytes(f, sizeof bytes, &from);

    open_once();
    if (len > 0)
        memcpy(bytes, from, len);
    if (fixed) {
        memcpy(bytes, "LHNT\1\0\0\0", 8);
        memcpy(bytes + 8, fuzz_pool.b, 16);
    }
    const struct hint_stats before = *hint_stats(h.hint), *after = hint_stats(h.hint);
    h.looks = 0;
    MUST(send(h.sender, bytes, len, 0) == (ssize_t)len, "it is sent");
    for (int i = 0; i < 2; i++)
        uv_run(&h.loop, UV_RUN_NOWAIT);
    uint64_t counted = after->received - before.received + after->dropped_bad - before.dropped_bad +
                       after->dropped_rate - before.dropped_rate;
    /* More than one: those that had waited in the kernel while the hint paused. */
    MUST(h.looks == after->received - before.received && h.looks <= counted, "looks are counted");
    if (counted == 1 && after->pauses == 0) {
        MUST(h.looks == 0 || is_hint(bytes, len), "nothing but a hint makes us look");
        MUST(h.looks == 0 || h.slot == le32_get(bytes + 24), "and at its slot");
    }
    MUST(h.looks == 0 || (h.slot >= SLOT_MIN && h.slot <= SLOT_MAX), "at a slot of ours");
}

static void try_address(struct feed *f)
{
    struct hint_address address = {{0}, 0};
    char text[HINT_ADDRESS_TEXT_SIZE];
    const uint8_t *from;
    size_t len = feed_bytes(f, 16, &from);

    if (len > 0)
        memcpy(address.ip, from, len);
    address.port = feed_u16(f);
    MUST(strlen(hint_address_format(&address, text)) < sizeof text, "any address can be shown");
    if (!hint_address_sendable(&address))
        return;
    bool v4 = hint_address_is_ipv4(&address);
    MUST(!hint_address_is_none(&address) && address.port != 0, "somewhere");
    MUST(v4 ? address.ip[12] < 224 && address.ip[12] > 0 : address.ip[0] != 0xff,
         "not to many at once");
}

static void try_option(struct feed *f)
{
    char *text = strndup((const char *)f->at, f->left), shown[HINT_ADDRESS_TEXT_SIZE];
    struct hint_option option = {.on = true}, again;
    struct error err = ERROR_INIT;

    if (!text)
        abort();
    int rc = hint_option_parse(text, &option, &err);
    MUST(rc == 0 || (rc == LUNAR_E_INVALID && err.text[0]), "a refusal says why");
    if (rc == 0 && hint_address_sendable(&option.bind)) {
        hint_address_format(&option.bind, shown);
        MUST(hint_option_parse(shown, &again, &err) == 0, "what is shown is accepted");
        MUST(again.on && again.bind.port == option.bind.port &&
                 memcmp(again.bind.ip, option.bind.ip, 16) == 0,
             "and means the same");
    }
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feed f = {data, size};
    uint8_t how = feed_u8(&f);

    if (how % 3 == 0)
        try_datagram(&f, (how & 64) != 0);
    else if (how % 3 == 1)
        try_address(&f);
    else
        try_option(&f);
    return 0;
}
