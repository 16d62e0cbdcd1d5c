/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A network for hints: libuv's UDP calls over a table of sockets. Machine i has the one address
 * 10.0.0.i.
 *
 * Happy path: a datagram arrives some 100 us after it was sent. Failure modes: none is told, as
 * with UDP: HINT_LOST drops it or brings it seconds late; HINT_FORGED brings what nobody sent: the
 * same once more, many times, changed, or to somebody else. A socket that is not read keeps
 * nothing.
 */
#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "sim/internal.h"

#define DATAGRAM_MAX   1500u
#define FLIGHT_MIN_US  50u
#define FLIGHT_SPAN_US 150u
#define LATE_US        (5 * SIM_S)
#define FLOOD          64u
#define AT_SLOT        24u /* PROTOCOL.md, the hint */
#define PORT_FIRST     40000u
#define NETWORK        0x0a000000u /* 10.0.0.0 */

struct socket {
    SLIST_ENTRY(socket) link;
    struct process *process;
    uv_udp_t *udp; /* NULL: closed */
    struct sockaddr_in address;
};
SLIST_HEAD(sockets, socket);

struct datagram {
    struct socket *to;
    struct sockaddr_in from;
    size_t len;
    uint8_t bytes[];
};

/* Never freed within a run: a datagram under way may name it. */
static struct sockets sockets;
static uint32_t n_sockets;
static uint16_t next_port;

uv_buf_t uv_buf_init(char *base, unsigned int len)
{
    return (uv_buf_t){.base = base, .len = len};
}

static struct socket *socket_of(const uv_udp_t *udp)
{
    struct socket *s;
    SLIST_FOREACH(s, &sockets, link)
    if (s->udp == udp && process_alive(s->process))
        return s;
    return NULL;
}

int uv_udp_init(uv_loop_t *loop, uv_udp_t *udp)
{
    fake_uv_handle_init(loop, (uv_handle_t *)udp, UV_UDP);
    udp->recv_cb = NULL;
    udp->alloc_cb = NULL;
    struct socket *s = calloc(1, sizeof *s);
    if (!s)
        abort();
    s->process = process_of_loop(loop);
    s->udp = udp;
    s->address.sin_family = AF_INET;
    SLIST_INSERT_HEAD(&sockets, s, link);
    n_sockets++;
    return 0;
}

void fake_udp_closed(uv_handle_t *handle)
{
    struct socket *s = socket_of((uv_udp_t *)handle);
    if (s)
        s->udp = NULL;
}

static struct socket *find(const struct sockaddr_in *address)
{
    struct socket *s;
    SLIST_FOREACH(s, &sockets, link)
    if (s->udp && process_alive(s->process) && s->address.sin_port == address->sin_port &&
        s->address.sin_addr.s_addr == address->sin_addr.s_addr)
        return s;
    return NULL;
}

int uv_udp_bind(uv_udp_t *udp, const struct sockaddr *address, unsigned int flags)
{
    struct socket *s = socket_of(udp);
    struct sockaddr_in want;
    (void)flags;
    if (address->sa_family != AF_INET)
        return UV_EADDRNOTAVAIL;
    memcpy(&want, address, sizeof want);
    if (want.sin_addr.s_addr != htonl(NETWORK + s->process->machine->index))
        return UV_EADDRNOTAVAIL;
    if (want.sin_port == 0)
        want.sin_port = htons(next_port++);
    if (find(&want))
        return UV_EADDRINUSE;
    s->address = want;
    return 0;
}

int uv_udp_getsockname(const uv_udp_t *udp, struct sockaddr *name, int *namelen)
{
    const struct socket *s = socket_of(udp);
    assert(*namelen >= (int)sizeof s->address);
    memcpy(name, &s->address, sizeof s->address);
    *namelen = (int)sizeof s->address;
    return 0;
}

int uv_udp_recv_start(uv_udp_t *udp, uv_alloc_cb alloc, uv_udp_recv_cb recv)
{
    udp->alloc_cb = alloc;
    udp->recv_cb = recv;
    return 0;
}

int uv_udp_recv_stop(uv_udp_t *udp)
{
    udp->recv_cb = NULL;
    return 0;
}

static void on_arrival(void *data)
{
    struct datagram *d = data;
    uv_udp_t *udp = d->to->udp;
    uv_buf_t buf = {NULL, 0};

    if (udp && udp->recv_cb) {
        udp->alloc_cb((uv_handle_t *)udp, DATAGRAM_MAX, &buf);
        size_t len = d->len < buf.len ? d->len : buf.len;
        memcpy(buf.base, d->bytes, len);
        udp->recv_cb(udp, (ssize_t)len, &buf, (const struct sockaddr *)&d->from, 0);
    }
    free(d);
}

static struct datagram *bring(struct socket *to, const struct sockaddr_in *from,
                              const uint8_t *bytes, size_t len, uint64_t after_us)
{
    struct datagram *d = malloc(sizeof *d + len);
    if (!d)
        abort();
    d->to = to;
    d->from = *from;
    d->len = len;
    memcpy(d->bytes, bytes, len);
    process_at(to->process, sim_now_us() + after_us, on_arrival, d);
    return d;
}

static struct socket *any_socket(void)
{
    struct socket *s = SLIST_FIRST(&sockets);
    for (uint64_t skip = sim_fault_random(FAULT_HINT_FORGED, n_sockets); skip > 0; skip--)
        s = SLIST_NEXT(s, link);
    return s->udp && process_alive(s->process) ? s : NULL;
}

/* What an enemy who sees one datagram makes of it: the same, one for another slot, or rubbish. */
static void spoil(uint8_t *bytes, size_t len)
{
    uint64_t at = sim_fault_random(FAULT_HINT_FORGED, len * 8);
    if (sim_fault_random(FAULT_HINT_FORGED, 2))
        bytes[at / 8] ^= (uint8_t)(1u << at % 8);
    else if (len > AT_SLOT)
        bytes[AT_SLOT] = (uint8_t)(1 + at % SIM_NODES_MAX);
}

static void forge(const struct sockaddr_in *from, const uint8_t *bytes, size_t len)
{
    uint64_t n = sim_fault_random(FAULT_HINT_FORGED, 4) ? 1 : FLOOD;
    bool changed = sim_fault_random(FAULT_HINT_FORGED, 2);
    for (uint64_t i = 0; i < n; i++) {
        struct socket *to = any_socket();
        if (!to)
            continue;
        struct datagram *d =
            bring(to, from, bytes, len, sim_fault_random(FAULT_HINT_FORGED, 10 * SIM_MS));
        if (changed)
            spoil(d->bytes, len);
    }
}

int uv_udp_try_send(uv_udp_t *udp, const uv_buf_t bufs[], unsigned int nbufs,
                    const struct sockaddr *address)
{
    const struct socket *from = socket_of(udp);
    const uint8_t *bytes = (const uint8_t *)bufs[0].base;
    uint64_t flight_us = FLIGHT_MIN_US + sim_random(STREAM_SCHEDULE, FLIGHT_SPAN_US);
    struct sockaddr_in want;

    assert(nbufs == 1 && bufs[0].len > 0 && bufs[0].len <= DATAGRAM_MAX);
    if (address->sa_family != AF_INET)
        return UV_EAFNOSUPPORT;
    memcpy(&want, address, sizeof want);
    struct socket *to = find(&want);
    bool lost = sim_fault(FAULT_HINT_LOST, 500);
    if (lost)
        flight_us += sim_fault_random(FAULT_HINT_LOST, LATE_US);
    if (to && !(lost && sim_fault_random(FAULT_HINT_LOST, 2)))
        bring(to, &from->address, bytes, bufs[0].len, flight_us);
    if (sim_fault(FAULT_HINT_FORGED, 200))
        forge(&from->address, bytes, bufs[0].len);
    return (int)bufs[0].len;
}

int uv_interface_addresses(uv_interface_address_t **addresses, int *count)
{
    uv_interface_address_t *one = calloc(1, sizeof *one);
    if (!one)
        abort();
    one->address.address4.sin_family = AF_INET;
    one->address.address4.sin_addr.s_addr = htonl(NETWORK + process_current()->machine->index);
    *addresses = one;
    *count = 1;
    return 0;
}

void uv_free_interface_addresses(uv_interface_address_t *addresses, int count)
{
    (void)count;
    free(addresses);
}

void fake_udp_reset(void)
{
    struct socket *s;
    while ((s = SLIST_FIRST(&sockets)) != NULL) {
        SLIST_REMOVE_HEAD(&sockets, link);
        free(s);
    }
    n_sockets = 0;
    next_port = PORT_FIRST;
}
