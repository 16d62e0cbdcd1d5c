/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Local sockets on libuv; see local.h.
 *
 * Server and relay peer share one connection object: a pipe, a receive buffer, frames in and out.
 * Happy path: bytes come in, each whole frame is checked and handed on. Failure modes: a frame
 * longer than FRAME_MAX or one that is not a valid envelope ends the connection (a client that
 * speaks nonsense gets a log line and no answer); a client of another user is closed at accept; one
 * that does not read its answers is cut off at LOCAL_QUEUE_MAX.
 */
#include "diskrpc/local.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/queue.h>
#include <unistd.h>

#include "base/le.h"
#include "base/log.h"

struct connection {
    uv_pipe_t pipe;
    TAILQ_ENTRY(connection) link;
    struct local_server *server; /* NULL: a relay peer */
    uint64_t id;
    struct local_peer_callbacks peer_callbacks;
    void *peer_data;
    uint8_t *buffer;
    uint32_t used, size;
    bool closing;
};

struct local_peer {
    struct connection connection;
};

TAILQ_HEAD(connection_list, connection);

struct local_server {
    uv_pipe_t listener;
    struct connection_list connections;
    uint32_t n_connections;
    uint64_t next_id;
    struct local_callbacks callbacks;
    void *data;
    bool closing, listener_closed;
    void (*closed)(void *data);
    void *closed_data;
    char path[108];
};

struct write_request {
    uv_write_t request;
    uint8_t bytes[];
};

static void maybe_closed(struct local_server *s)
{
    if (!s->closing || !s->listener_closed || s->n_connections > 0)
        return;
    void (*closed)(void *) = s->closed;
    void *data = s->closed_data;
    free(s);
    if (closed)
        closed(data);
}

static void on_connection_closed(uv_handle_t *handle)
{
    struct connection *c = handle->data;
    struct local_server *s = c->server;

    if (s) {
        TAILQ_REMOVE(&s->connections, c, link);
        s->n_connections--;
        s->callbacks.gone(s->data, c->id);
    } else {
        c->peer_callbacks.gone(c->peer_data);
    }
    free(c->buffer);
    free(c);
    if (s)
        maybe_closed(s);
}

static void connection_close(struct connection *c)
{
    if (c->closing)
        return;
    c->closing = true;
    uv_close((uv_handle_t *)&c->pipe, on_connection_closed);
}

static void on_written(uv_write_t *request, int status)
{
    struct connection *c = request->handle->data;
    if (status < 0 && status != UV_ECANCELED)
        connection_close(c);
    free(request->data);
}

static void connection_send(struct connection *c, const uint8_t *bytes, uint32_t len)
{
    if (c->closing)
        return;
    if (uv_stream_get_write_queue_size((uv_stream_t *)&c->pipe) > LOCAL_QUEUE_MAX) {
        log_warn("local_client_cut reason=\"it does not read its answers\"");
        connection_close(c);
        return;
    }
    struct write_request *w = malloc(sizeof *w + 4 + len);
    if (!w)
        abort();
    le32_put(w->bytes, len);
    memcpy(w->bytes + 4, bytes, len);
    w->request.data = w;
    uv_buf_t buf = uv_buf_init((char *)w->bytes, 4 + len);
    if (uv_write(&w->request, (uv_stream_t *)&c->pipe, &buf, 1, on_written) < 0) {
        free(w);
        connection_close(c);
    }
}

static void deliver(struct connection *c, const uint8_t *bytes, uint32_t len)
{
    Lunar__Envelope *envelope;
    struct error err = ERROR_INIT;

    if (!c->server) {
        c->peer_callbacks.message(c->peer_data, bytes, len);
        return;
    }
    if (envelope_unpack(bytes, len, &envelope, &err) < 0) {
        log_warn("local_client_refused text=\"%s\"", err.text);
        connection_close(c);
        return;
    }
    c->server->callbacks.message(c->server->data, c->id, envelope, bytes, len);
    envelope_free(envelope);
}

/* Hands on every whole frame in the buffer. */
static void drain(struct connection *c)
{
    uint32_t at = 0;
    while (!c->closing && c->used - at >= 4) {
        uint32_t len = le32_get(c->buffer + at);
        if (len == 0 || len > FRAME_MAX) {
            log_warn("local_client_refused text=\"a frame of %u bytes\"", len);
            connection_close(c);
            return;
        }
        if (c->used - at - 4 < len)
            break;
        deliver(c, c->buffer + at + 4, len);
        at += 4 + len;
    }
    memmove(c->buffer, c->buffer + at, c->used - at);
    c->used -= at;
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct connection *c = handle->data;
    (void)suggested;
    if (c->size - c->used < 65536) {
        /* Bounded: drain leaves at most one unfinished frame, which is at most FRAME_MAX + 4 bytes.
         */
        c->size = c->size + 65536 < 131072 ? 131072 : c->size + 131072;
        c->buffer = realloc(c->buffer, c->size);
        if (!c->buffer)
            abort();
    }
    *buf = uv_buf_init((char *)c->buffer + c->used, c->size - c->used);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct connection *c = stream->data;
    (void)buf;
    if (n < 0) {
        connection_close(c);
        return;
    }
    c->used += (uint32_t)n;
    drain(c);
}

static struct connection *connection_new(uv_loop_t *loop)
{
    struct connection *c = calloc(1, sizeof *c);
    if (!c || uv_pipe_init(loop, &c->pipe, 0) < 0)
        abort();
    c->pipe.data = c;
    return c;
}

/* Root and our own user alone: the socket's mode says so too, but modes get changed. */
static bool peer_allowed(uv_pipe_t *pipe)
{
    struct ucred cred;
    socklen_t len = sizeof cred;
    uv_os_fd_t fd;
    if (uv_fileno((uv_handle_t *)pipe, &fd) < 0 ||
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
        return false;
    return cred.uid == 0 || cred.uid == geteuid();
}

static void on_connection(uv_stream_t *listener, int status)
{
    struct local_server *s = listener->data;
    if (status < 0)
        return;
    struct connection *c = connection_new(listener->loop);
    c->server = s;
    c->id = s->next_id++;
    TAILQ_INSERT_TAIL(&s->connections, c, link);
    s->n_connections++;
    if (uv_accept(listener, (uv_stream_t *)&c->pipe) < 0 || s->n_connections > LOCAL_CLIENTS_MAX ||
        !peer_allowed(&c->pipe)) {
        log_warn("local_client_refused text=\"another user's, or too many clients\"");
        connection_close(c);
        return;
    }
    uv_read_start((uv_stream_t *)&c->pipe, on_alloc, on_read);
}

/* True if somebody listens there: then it is not ours to remove. */
static bool socket_is_live(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    strncpy(addr.sun_path, path, sizeof addr.sun_path - 1);
    bool live = fd >= 0 && connect(fd, (struct sockaddr *)&addr, sizeof addr) == 0;
    if (fd >= 0)
        close(fd);
    return live;
}

static void on_listener_closed(uv_handle_t *handle)
{
    struct local_server *s = handle->data;
    s->listener_closed = true;
    maybe_closed(s);
}

int local_open(uv_loop_t *loop, const char *path, const struct local_callbacks *callbacks,
               void *data, struct local_server **ret, struct error *err)
{
    if (strlen(path) >= sizeof((struct sockaddr_un *)0)->sun_path)
        return error_set(err, LUNAR_E_INVALID, "socket path '%s' is too long", path);
    if (socket_is_live(path))
        return error_set(err, LUNAR_E_IN_USE, "somebody listens on %s already", path);
    unlink(path);
    struct local_server *s = calloc(1, sizeof *s);
    if (!s || uv_pipe_init(loop, &s->listener, 0) < 0)
        abort();
    s->listener.data = s;
    s->callbacks = *callbacks;
    s->data = data;
    s->next_id = 1;
    strcpy(s->path, path);
    TAILQ_INIT(&s->connections);
    mode_t old = umask(0177);
    int rc = uv_pipe_bind(&s->listener, path);
    umask(old);
    if (rc == 0)
        rc = uv_listen((uv_stream_t *)&s->listener, 64, on_connection);
    if (rc < 0) {
        local_close(s, NULL, NULL);
        return error_set(err, rc, "cannot listen on %s: %s", path, uv_strerror(rc));
    }
    *ret = s;
    return 0;
}

static struct connection *find(struct local_server *s, uint64_t id)
{
    struct connection *c;
    TAILQ_FOREACH (c, &s->connections, link)
        if (c->id == id)
            return c;
    return NULL;
}

void local_send(struct local_server *server, uint64_t client, const uint8_t *bytes, uint32_t len)
{
    struct connection *c = find(server, client);
    if (c)
        connection_send(c, bytes, len);
}

void local_close(struct local_server *server, void (*closed)(void *data), void *data)
{
    struct connection *c;
    assert(!server->closing);
    server->closing = true;
    server->closed = closed;
    server->closed_data = data;
    TAILQ_FOREACH (c, &server->connections, link)
        connection_close(c);
    uv_close((uv_handle_t *)&server->listener, on_listener_closed);
}

int local_connect(uv_loop_t *loop, const char *path, const struct local_peer_callbacks *callbacks,
                  void *data, struct local_peer **ret, struct error *err)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof addr.sun_path)
        return error_set(err, LUNAR_E_INVALID, "socket path '%s' is too long", path);
    strcpy(addr.sun_path, path);
    /* Non-blocking: a stopped agent with a full backlog must not stop this loop (EAGAIN then). */
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof addr) < 0) {
        int rc = -errno;
        if (fd >= 0)
            close(fd);
        return error_set(err, rc, "cannot reach the agent at %s: %s", path, strerror(-rc));
    }
    struct connection *c = connection_new(loop);
    c->peer_callbacks = *callbacks;
    c->peer_data = data;
    uv_pipe_open(&c->pipe, fd);
    uv_read_start((uv_stream_t *)&c->pipe, on_alloc, on_read);
    *ret = (struct local_peer *)c;
    return 0;
}

void local_peer_send(struct local_peer *peer, const uint8_t *bytes, uint32_t len)
{
    connection_send(&peer->connection, bytes, len);
}

void local_peer_close(struct local_peer *peer)
{
    connection_close(&peer->connection);
}
