/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Local sockets: a Unix stream socket, mode 0600, whose clients (root or our own user) exchange
 * framed envelopes: u32 little-endian length, then the protobuf. One loop thread; callbacks never
 * inline.
 *
 * A client is known by a number that is never reused, so an answer that comes after its client has
 * gone finds nobody and is dropped.
 */
#ifndef LUNAR_DISKRPC_LOCAL_H
#define LUNAR_DISKRPC_LOCAL_H

#include <uv.h>

#include "base/error.h"
#include "diskrpc/message.h"

#define LOCAL_CLIENTS_MAX 1024u
#define LOCAL_QUEUE_MAX   (8u * 1024 * 1024) /* unsent bytes of one client; beyond it is cut off */

struct local_server;
struct local_callbacks {
    /* A checked envelope; borrowed until it returns. */
    void (*message)(void *data, uint64_t client, const Lunar__Envelope *envelope,
                    const uint8_t *bytes, uint32_t len);
    void (*gone)(void *data, uint64_t client); /* hung up; also after local_close */
};

/* Listens; a stale socket file that nobody listens on is replaced. LUNAR_E_IN_USE: somebody does.
 */
int local_open(uv_loop_t *loop, const char *path, const struct local_callbacks *callbacks,
               void *data, struct local_server **ret, struct error *err);
/* Copies the bytes. A client that is gone is no error. */
void local_send(struct local_server *server, uint64_t client, const uint8_t *bytes, uint32_t len);
void local_close(struct local_server *server, void (*closed)(void *data), void *data);

/* --- the other end: one connection that sends frames and gets frames, for relays --- */
struct local_peer;
struct local_peer_callbacks {
    void (*message)(void *data, const uint8_t *bytes, uint32_t len);
    void (*gone)(void *data); /* once; the peer is freed afterwards */
};
int local_connect(uv_loop_t *loop, const char *path, const struct local_peer_callbacks *callbacks,
                  void *data, struct local_peer **ret, struct error *err);
void local_peer_send(struct local_peer *peer, const uint8_t *bytes, uint32_t len);
void local_peer_close(struct local_peer *peer);

#endif
