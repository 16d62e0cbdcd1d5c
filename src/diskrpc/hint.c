/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The UDP socket of the hints.
 *
 * Happy path: a datagram of exactly the right bytes, for our pool and one of our slots, calls
 * `looked`; one goes out by a single non-blocking call from the same socket, so that a firewall
 * that knows connections sees both directions as one. Failure modes: whatever is not a hint is
 * counted and forgotten; what comes too fast is counted and forgotten; a flood makes us stop
 * receiving for HINT_PAUSE_MS at a time, so that the loop and the CPU belong to the disk; a send
 * that fails is counted (a cut network, a peer of the other address family, a full buffer). None
 * of it is worth a line in the log: anybody on the network could fill the log with it.
 */
#include "diskrpc/hint.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/le.h"
#include "base/log.h"

#define HINT_MAGIC    0x4c48494eu
#define WIRE_MAGIC    0x544e484cu /* "LHNT" */
#define WIRE_VERSION  1u
#define NS_PER_SECOND 1000000000u

enum {
    AT_MAGIC = 0,
    AT_VERSION = 4,
    AT_ZERO = 6,
    AT_POOL = 8,
    AT_SLOT = 24,
};

/* Tokens as time: each one taken moves `at_ns` on by `interval_ns`, up to now and no further. */
struct bucket {
    uint64_t at_ns, interval_ns, depth_ns;
};

struct slot {
    uint64_t sent_ns, looked_ns; /* 0: never */
};

struct hint {
    uint32_t magic;
    struct hint_config config;
    struct hint_address address;
    struct hint_stats stats;
    uv_udp_t udp;
    uv_timer_t pause;
    uint8_t buffer[2 * HINT_DATAGRAM_SIZE]; /* room enough to see that one is too long */
    struct bucket looks, datagrams;
    struct slot *slots; /* [slot - slot_min] */
    bool closing;
    int open_handles;
    void (*closed)(void *data);
    void *closed_data;
};

static void listen_again(struct hint *hint);

/* --- bounds --- */

static struct bucket bucket_of(uint32_t per_second, uint32_t at_once)
{
    uint64_t interval = NS_PER_SECOND / per_second;
    return (struct bucket){.interval_ns = interval, .depth_ns = interval * at_once};
}

static bool bucket_take(struct bucket *b, uint64_t now_ns)
{
    if (now_ns > b->depth_ns && b->at_ns < now_ns - b->depth_ns)
        b->at_ns = now_ns - b->depth_ns; /* full */
    if (b->at_ns + b->interval_ns > now_ns)
        return false;
    b->at_ns += b->interval_ns;
    return true;
}

static bool too_soon(uint64_t last_ns, uint64_t now_ns, uint32_t gap_us)
{
    return last_ns != 0 && now_ns < last_ns + gap_us * 1000ull;
}

/* NULL: not one of ours. */
static struct slot *slot_find(const struct hint *hint, uint32_t slot)
{
    bool ours = slot >= hint->config.slot_min && slot <= hint->config.slot_max;
    return ours ? &hint->slots[slot - hint->config.slot_min] : NULL;
}

/* --- the datagram --- */

static void datagram_out(const struct hint *hint, uint32_t slot, uint8_t *p)
{
    le32_put(p + AT_MAGIC, WIRE_MAGIC);
    le16_put(p + AT_VERSION, WIRE_VERSION);
    le16_put(p + AT_ZERO, 0);
    memcpy(p + AT_POOL, hint->config.pool_id.b, sizeof hint->config.pool_id.b);
    le32_put(p + AT_SLOT, slot);
}

/* The slot that it is for, 0 if it is no hint for us. */
static uint32_t datagram_in(const struct hint *hint, const uint8_t *p, size_t len)
{
    if (len != HINT_DATAGRAM_SIZE || le32_get(p + AT_MAGIC) != WIRE_MAGIC ||
        le16_get(p + AT_VERSION) != WIRE_VERSION || le16_get(p + AT_ZERO) != 0 ||
        memcmp(p + AT_POOL, hint->config.pool_id.b, sizeof hint->config.pool_id.b) != 0)
        return 0;
    uint32_t slot = le32_get(p + AT_SLOT);
    return slot_find(hint, slot) ? slot : 0;
}

/* --- receiving --- */

static void take_datagram(struct hint *hint, const uint8_t *bytes, size_t len, uint64_t now_ns)
{
    uint32_t number = datagram_in(hint, bytes, len);

    if (number == 0) {
        hint->stats.dropped_bad++;
        return;
    }
    struct slot *slot = slot_find(hint, number);
    if (too_soon(slot->looked_ns, now_ns, HINT_SLOT_GAP_US) || !bucket_take(&hint->looks, now_ns)) {
        hint->stats.dropped_rate++;
        return;
    }
    slot->looked_ns = now_ns;
    hint->stats.received++;
    hint->config.looked(hint->config.data, number); /* may close us */
}

static void on_pause_over(uv_timer_t *timer)
{
    listen_again(timer->data);
}

static void pause_listening(struct hint *hint)
{
    hint->stats.pauses++;
    uv_udp_recv_stop(&hint->udp);
    uv_timer_start(&hint->pause, on_pause_over, HINT_PAUSE_MS, 0);
}

static void on_buffer(uv_handle_t *handle, size_t suggested, uv_buf_t *ret)
{
    struct hint *hint = handle->data;
    (void)suggested;
    *ret = uv_buf_init((char *)hint->buffer, sizeof hint->buffer);
}

static void on_datagram(uv_udp_t *udp, ssize_t len, const uv_buf_t *buffer,
                        const struct sockaddr *from, unsigned flags)
{
    struct hint *hint = udp->data;
    uint64_t now_ns = uv_hrtime();
    (void)flags;

    assert(hint->magic == HINT_MAGIC);
    if (len == 0 && !from)
        return; /* the kernel has no more */
    /* A socket that only returns errors is readable for ever: it is a flood, too. */
    if (len < 0 || !bucket_take(&hint->datagrams, now_ns)) {
        hint->stats.dropped_rate += len >= 0;
        pause_listening(hint);
        return;
    }
    take_datagram(hint, (const uint8_t *)buffer->base, (size_t)len, now_ns);
}

static void listen_again(struct hint *hint)
{
    if (!hint->closing && uv_udp_recv_start(&hint->udp, on_buffer, on_datagram) != 0)
        uv_timer_start(&hint->pause, on_pause_over, HINT_PAUSE_MS, 0);
}

/* --- sending --- */

static const struct sockaddr *to_sockaddr(const struct hint_address *address,
                                          struct sockaddr_storage *storage)
{
    memset(storage, 0, sizeof *storage);
    if (hint_address_is_ipv4(address)) {
        struct sockaddr_in *in = (struct sockaddr_in *)storage;
        in->sin_family = AF_INET;
        in->sin_port = htons(address->port);
        memcpy(&in->sin_addr, address->ip + 12, 4);
    } else {
        struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)storage;
        in6->sin6_family = AF_INET6;
        in6->sin6_port = htons(address->port);
        memcpy(&in6->sin6_addr, address->ip, 16);
    }
    return (const struct sockaddr *)storage;
}

void hint_send(struct hint *hint, const struct hint_address *to, uint32_t slot)
{
    if (!hint || hint_address_is_none(to))
        return;
    assert(hint->magic == HINT_MAGIC && !hint->closing);
    struct slot *s = slot_find(hint, slot);
    assert(s);
    uint64_t now_ns = uv_hrtime();
    if (too_soon(s->sent_ns, now_ns, HINT_SEND_GAP_US)) {
        hint->stats.send_left_out++;
        return;
    }
    s->sent_ns = now_ns;
    /* A peer of the other family cannot be reached from this socket; it looks by itself. */
    bool reachable = hint_address_sendable(to) &&
                     hint_address_is_ipv4(to) == hint_address_is_ipv4(&hint->address);
    uint8_t bytes[HINT_DATAGRAM_SIZE];
    struct sockaddr_storage storage;
    uv_buf_t buf = uv_buf_init((char *)bytes, sizeof bytes);
    datagram_out(hint, slot, bytes);
    if (reachable && uv_udp_try_send(&hint->udp, &buf, 1, to_sockaddr(to, &storage)) >= 0)
        hint->stats.sent++;
    else
        hint->stats.send_errors++;
}

/* --- life --- */

static void from_sockaddr(const struct sockaddr_storage *storage, struct hint_address *ret)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

    if (storage->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)storage;
        memcpy(ret->ip, mapped, sizeof mapped);
        memcpy(ret->ip + 12, &in->sin_addr, 4);
        ret->port = ntohs(in->sin_port);
    } else {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)storage;
        memcpy(ret->ip, &in6->sin6_addr, 16);
        ret->port = ntohs(in6->sin6_port);
    }
}

/* 2: IPv4, 1: IPv6, 0: not at all. */
static int liking(const uv_interface_address_t *interface, struct hint_address *ret)
{
    struct sockaddr_storage storage = {0};

    memcpy(&storage, &interface->address, sizeof interface->address);
    from_sockaddr(&storage, ret);
    bool v4 = hint_address_is_ipv4(ret);
    bool link_local = v4 && ret->ip[12] == 169 && ret->ip[13] == 254;
    ret->port = 1; /* any */
    if (interface->is_internal || link_local || !hint_address_sendable(ret))
        return 0;
    return v4 ? 2 : 1;
}

/*
 * The first address of a running interface that others may know: IPv4 first, since all nodes of one
 * network have it, and an IPv6 address may be a temporary one that is gone tomorrow. Loopback if
 * there is none: candidate and agent of one node hint each other with the network down.
 */
static void choose_ip(uint8_t ip[16])
{
    static const uint8_t loopback[16] = {[10] = 0xff, [11] = 0xff, 127, 0, 0, 1};
    uv_interface_address_t *list;
    int n, best = 0;

    memcpy(ip, loopback, sizeof loopback);
    if (uv_interface_addresses(&list, &n) != 0)
        return;
    for (int i = 0; i < n; i++) {
        struct hint_address address;
        int like = liking(&list[i], &address);
        if (like > best) {
            best = like;
            memcpy(ip, address.ip, sizeof address.ip);
        }
    }
    uv_free_interface_addresses(list, n);
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct hint *hint = handle->data;
    void (*closed)(void *data) = hint->closed;
    void *data = hint->closed_data;

    if (--hint->open_handles > 0)
        return;
    free(hint->slots);
    hint->magic = 0;
    free(hint);
    if (closed)
        closed(data);
}

void hint_close(struct hint *hint, void (*closed)(void *data), void *data)
{
    assert(hint->magic == HINT_MAGIC && !hint->closing);
    hint->closing = true;
    hint->closed = closed;
    hint->closed_data = data;
    uv_close((uv_handle_t *)&hint->udp, on_handle_closed);
    uv_close((uv_handle_t *)&hint->pause, on_handle_closed);
}

static int bind_and_listen(struct hint *hint)
{
    static const struct hint_address any;
    struct hint_address want = hint->config.bind;
    struct sockaddr_storage storage;
    int len = sizeof storage;

    if (memcmp(want.ip, any.ip, sizeof any.ip) == 0)
        choose_ip(want.ip);
    hint->address = want;
    unsigned flags = hint_address_is_ipv4(&want) ? 0 : UV_UDP_IPV6ONLY;
    int rc = uv_udp_bind(&hint->udp, to_sockaddr(&want, &storage), flags);
    if (rc == 0)
        rc = uv_udp_getsockname(&hint->udp, (struct sockaddr *)&storage, &len);
    if (rc == 0)
        rc = uv_udp_recv_start(&hint->udp, on_buffer, on_datagram);
    if (rc == 0)
        from_sockaddr(&storage, &hint->address);
    return rc;
}

int hint_open(const struct hint_config *config, struct hint **ret, struct error *err)
{
    char text[HINT_ADDRESS_TEXT_SIZE];
    struct hint *hint = calloc(1, sizeof *hint);

    assert(config->slot_min >= 1 && config->slot_max >= config->slot_min && config->looked);
    if (!hint)
        abort();
    hint->magic = HINT_MAGIC;
    hint->config = *config;
    hint->looks = bucket_of(HINT_LOOKS_PER_S, HINT_LOOKS_AT_ONCE);
    hint->datagrams = bucket_of(HINT_DATAGRAMS_PER_S, HINT_DATAGRAMS_AT_ONCE);
    hint->slots = calloc(config->slot_max - config->slot_min + 1, sizeof *hint->slots);
    if (!hint->slots || uv_udp_init(config->loop, &hint->udp) != 0 ||
        uv_timer_init(config->loop, &hint->pause) != 0)
        abort();
    hint->udp.data = hint->pause.data = hint;
    hint->open_handles = 2;
    int rc = bind_and_listen(hint);
    if (rc < 0) {
        error_set(err, rc, "cannot listen for hints at %s: %s",
                  hint_address_format(&hint->address, text), uv_strerror(rc));
        hint_close(hint, NULL, NULL);
        return rc;
    }
    *ret = hint;
    return 0;
}

struct hint *hint_start(const struct hint_option *option, const struct hint_config *config)
{
    char text[HINT_ADDRESS_TEXT_SIZE];
    struct hint_config with = *config;
    struct error err = ERROR_INIT;
    struct hint *hint;

    if (!option->on)
        return NULL;
    with.bind = option->bind;
    if (hint_open(&with, &hint, &err) < 0) {
        log_warn("no_hints text=\"%s; messages wait for the next poll\"", err.text);
        return NULL;
    }
    log_info("hints address=%s", hint_address_format(&hint->address, text));
    return hint;
}

struct hint_address hint_address(const struct hint *hint)
{
    static const struct hint_address none;
    return hint ? hint->address : none;
}

const struct hint_stats *hint_stats(const struct hint *hint)
{
    assert(hint->magic == HINT_MAGIC);
    return &hint->stats;
}
