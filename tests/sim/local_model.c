/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Local sockets within a machine: diskrpc/local.h for agents, coordinators and relays, and the
 * workload's connections to them.
 *
 * Happy path: a frame arrives 30 us after it was sent, in order. Failure modes: the listener's
 * process is gone: both ends of every connection learn it; nobody listens: a connection is refused.
 */
#include "diskrpc/local.h"

#include <errno.h>
#include <stdlib.h>

#include "sim/world.h"

#define DELAY_US 30u /* constant, so that frames of one connection stay in order */

struct local_server {
    struct local_server *next;
    struct process *process;
    char path[128];
    struct local_callbacks callbacks;
    void *data;
    bool closed;
};

/* One connection; its client end is the world's (`conn_callbacks`) or a process's (`owner`). */
struct local_conn {
    struct local_conn *next;
    struct local_server *server;
    uint64_t client;
    const struct local_conn_callbacks *conn_callbacks;
    struct process *owner;
    struct local_peer_callbacks peer_callbacks;
    void *data;
    bool closed;
};

struct local_peer {
    struct local_conn conn;
};

struct frame {
    struct local_conn *conn;
    uint32_t len;
    uint8_t bytes[];
};

static struct local_server *servers;
static struct local_conn *conns; /* never freed: an event may still name one */
static uint64_t last_client;

static struct local_server *find_server(const struct machine *m, const char *path)
{
    for (struct local_server *s = servers; s; s = s->next)
        if (!s->closed && s->process->machine == m && strcmp(s->path, path) == 0)
            return s;
    return NULL;
}

static struct frame *frame_new(struct local_conn *c, const uint8_t *bytes, uint32_t len)
{
    struct frame *f = malloc(sizeof *f + len);
    f->conn = c;
    f->len = len;
    memcpy(f->bytes, bytes, len);
    return f;
}

/* --- the server's end --- */

int local_open(uv_loop_t *loop, const char *path, const struct local_callbacks *callbacks,
               void *data, struct local_server **ret, struct error *err)
{
    struct process *p = loop->data;
    if (find_server(p->machine, path))
        return error_set(err, LUNAR_E_IN_USE, "somebody listens on %s", path);
    struct local_server *s = calloc(1, sizeof *s);
    s->process = p;
    snprintf(s->path, sizeof s->path, "%s", path);
    s->callbacks = *callbacks;
    s->data = data;
    s->next = servers;
    servers = s;
    *ret = s;
    return 0;
}

static void deliver_to_client(void *data)
{
    struct frame *f = data;
    struct local_conn *c = f->conn;
    if (!c->closed && c->conn_callbacks)
        c->conn_callbacks->message(c->data, f->bytes, f->len);
    else if (!c->closed)
        c->peer_callbacks.message(c->data, f->bytes, f->len);
    free(f);
}

static void at_client(struct local_conn *c, void (*fn)(void *data), void *data)
{
    if (c->owner)
        process_at(c->owner, sim_now_us() + DELAY_US, fn, data);
    else
        sim_at(sim_now_us() + DELAY_US, fn, data);
}

void local_send(struct local_server *server, uint64_t client, const uint8_t *bytes, uint32_t len)
{
    for (struct local_conn *c = conns; c; c = c->next)
        if (!c->closed && c->server == server && c->client == client)
            at_client(c, deliver_to_client, frame_new(c, bytes, len));
}

void local_close(struct local_server *server, void (*closed)(void *data), void *data)
{
    server->closed = true;
    if (closed)
        process_at(server->process, sim_now_us(), closed, data);
}

/* --- the clients' ends --- */

static struct local_conn *open_conn(struct local_conn *c, struct local_server *s, void *data)
{
    c->server = s;
    c->client = ++last_client;
    c->data = data;
    c->next = conns;
    conns = c;
    return c;
}

struct local_conn *local_model_connect(struct machine *m, const char *path,
                                       const struct local_conn_callbacks *callbacks, void *data)
{
    struct local_server *s = find_server(m, path);
    if (!s)
        return NULL;
    struct local_conn *c = open_conn(calloc(1, sizeof *c), s, data);
    c->conn_callbacks = callbacks;
    return c;
}

static void deliver_to_server(void *data)
{
    struct frame *f = data;
    struct local_conn *c = f->conn;
    Lunar__Envelope *e;

    if (!c->closed && !c->server->closed && envelope_unpack(f->bytes, f->len, &e, NULL) == 0) {
        c->server->callbacks.message(c->server->data, c->client, e, f->bytes, f->len);
        envelope_free(e);
    }
    free(f);
}

void local_model_send(struct local_conn *c, const uint8_t *bytes, uint32_t len)
{
    if (!c->closed)
        process_at(c->server->process, sim_now_us() + DELAY_US, deliver_to_server,
                   frame_new(c, bytes, len));
}

static void tell_server_gone(void *data)
{
    struct local_conn *c = data;
    if (!c->server->closed)
        c->server->callbacks.gone(c->server->data, c->client);
}

void local_model_close(struct local_conn *c)
{
    if (c->closed)
        return;
    c->closed = true;
    process_at(c->server->process, sim_now_us() + DELAY_US, tell_server_gone, c);
}

static void tell_client_gone(void *data)
{
    struct local_conn *c = data;
    if (c->conn_callbacks)
        c->conn_callbacks->gone(c->data);
    else
        c->peer_callbacks.gone(c->data);
}

int local_connect(uv_loop_t *loop, const char *path, const struct local_peer_callbacks *callbacks,
                  void *data, struct local_peer **ret, struct error *err)
{
    struct process *p = loop->data;
    struct local_server *s = find_server(p->machine, path);
    if (!s)
        return error_set(err, -ECONNREFUSED, "cannot reach the agent at %s", path);
    struct local_peer *peer = calloc(1, sizeof *peer);
    open_conn(&peer->conn, s, data);
    peer->conn.owner = p;
    peer->conn.peer_callbacks = *callbacks;
    *ret = peer;
    return 0;
}

void local_peer_send(struct local_peer *peer, const uint8_t *bytes, uint32_t len)
{
    local_model_send(&peer->conn, bytes, len);
}

void local_peer_close(struct local_peer *peer)
{
    if (peer->conn.closed)
        return;
    local_model_close(&peer->conn);
    at_client(&peer->conn, tell_client_gone, &peer->conn);
}

/* Its descriptors are closed: the other ends learn it. */
void local_model_process_ended(struct process *p)
{
    for (struct local_server *s = servers; s; s = s->next)
        if (s->process == p)
            s->closed = true;
    for (struct local_conn *c = conns; c; c = c->next) {
        if (c->closed)
            continue;
        if (c->server->process == p) {
            c->closed = true;
            at_client(c, tell_client_gone, c);
        } else if (c->owner == p) {
            local_model_close(c);
        }
    }
}
