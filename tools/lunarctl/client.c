/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client's side of the local socket.
 *
 * Happy path: connect, write one frame, read frames until the Response with our id comes. Failure
 * modes: nobody listens (said at once, nothing was sent); no answer in time (LUNAR_E_TIMEOUT:
 * outcome unknown); the agent restarts while we wait (connect again, send the same id again); a
 * frame that is too long or does not decode (the peer is not ours: LUNAR_E_INDETERMINATE, because
 * our request went out). Answers with another id are leftovers of a request we gave up on and are
 * skipped.
 */
#include "client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/le.h"
#include "diskrpc/message.h"

#define RECONNECT_MS 200 /* an agent's restart takes longer; quicker attempts gain nothing */

struct client {
    int fd; /* -1: not connected */
    uint64_t timeout_ms;
    struct sockaddr_un address;
};

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* 0, -ETIMEDOUT at the deadline, -errno. */
static int wait_for(int fd, short events, uint64_t deadline_ms)
{
    for (;;) {
        uint64_t now = now_ms();
        if (now >= deadline_ms)
            return -ETIMEDOUT;
        uint64_t left = deadline_ms - now;
        struct pollfd p = {.fd = fd, .events = events};
        int n = poll(&p, 1, left > 3600000 ? 3600000 : (int)left);
        if (n > 0)
            return 0;
        if (n < 0 && errno != EINTR)
            return -errno;
    }
}

static int write_all(int fd, const uint8_t *data, size_t len, uint64_t deadline_ms)
{
    while (len > 0) {
        ssize_t n = send(fd, data, len, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            int rc = wait_for(fd, POLLOUT, deadline_ms);
            if (rc < 0)
                return rc;
        } else if (n < 0 && errno != EINTR) {
            return -errno;
        } else if (n > 0) {
            data += n;
            len -= (size_t)n;
        }
    }
    return 0;
}

static int read_all(int fd, uint8_t *data, size_t len, uint64_t deadline_ms)
{
    while (len > 0) {
        ssize_t n = recv(fd, data, len, 0);
        if (n == 0)
            return -ECONNRESET;
        if (n < 0 && errno == EAGAIN) {
            int rc = wait_for(fd, POLLIN, deadline_ms);
            if (rc < 0)
                return rc;
        } else if (n < 0 && errno != EINTR) {
            return -errno;
        } else if (n > 0) {
            data += n;
            len -= (size_t)n;
        }
    }
    return 0;
}

static int connect_now(struct client *c, struct error *err)
{
    const char *path = c->address.sun_path;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return error_set(err, -errno, "cannot make a socket: %s", strerror(errno));
    if (connect(fd, (struct sockaddr *)&c->address, sizeof c->address) < 0) {
        int rc = -errno;
        close(fd);
        if (rc == -ENOENT || rc == -ECONNREFUSED)
            return error_set(err, rc,
                             "nobody listens on %s: start lunar-agent (or lunar-coordinator) on "
                             "this node, or name its socket "
                             "with --socket or --pool",
                             path);
        if (rc == -EACCES || rc == -EPERM)
            return error_set(err, rc, "%s may be used by root alone", path);
        return error_set(err, rc, "cannot connect to %s: %s", path, strerror(-rc));
    }
    if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0) {
        int rc = -errno;
        close(fd);
        return error_set(err, rc, "cannot set up the socket: %s", strerror(-rc));
    }
    c->fd = fd;
    return 0;
}

static void disconnect(struct client *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
}

int client_open(const char *path, uint64_t timeout_ms, struct client **ret, struct error *err)
{
    struct client *c = calloc(1, sizeof *c);
    if (!c)
        abort();
    c->fd = -1;
    c->timeout_ms = timeout_ms;
    c->address.sun_family = AF_UNIX;
    if (strlen(path) >= sizeof c->address.sun_path) {
        free(c);
        return error_set(err, LUNAR_E_INVALID, "the socket's path %s is longer than %zu bytes",
                         path, sizeof c->address.sun_path - 1);
    }
    memcpy(c->address.sun_path, path, strlen(path));
    int rc = connect_now(c, err);
    if (rc < 0) {
        free(c);
        return rc;
    }
    *ret = c;
    return 0;
}

void client_close(struct client *client)
{
    if (!client)
        return;
    disconnect(client);
    free(client);
}

/* 0; -errno: the connection is of no more use; LUNAR_E_CORRUPT: the peer does not speak our
 * language. */
static int read_envelope(int fd, uint64_t deadline_ms, Lunar__Envelope **ret, struct error *err)
{
    uint8_t head[4];
    int rc = read_all(fd, head, sizeof head, deadline_ms);
    if (rc < 0)
        return rc;
    uint32_t len = le32_get(head);
    if (len == 0 || len > FRAME_MAX)
        return error_set(err, LUNAR_E_CORRUPT,
                         "the answer's frame claims %u bytes, which no frame has", len);
    uint8_t *data = malloc(len);
    if (!data)
        abort();
    rc = read_all(fd, data, len, deadline_ms);
    if (rc == 0)
        rc = envelope_unpack(data, len, ret, err);
    free(data);
    return rc;
}

static bool is_answer(const Lunar__Envelope *e, const struct uuid *id)
{
    if (e->body_case != LUNAR__ENVELOPE__BODY_RESPONSE)
        return false;
    const ProtobufCBinaryData *got = &e->response->id;
    return !id || (got->len == sizeof id->b && memcmp(got->data, id->b, sizeof id->b) == 0);
}

static int exchange(int fd, const uint8_t *frame, size_t len, const struct uuid *id,
                    uint64_t deadline_ms, Lunar__Envelope **ret, struct error *err)
{
    int rc = write_all(fd, frame, len, deadline_ms);
    while (rc == 0) {
        Lunar__Envelope *e = NULL;
        rc = read_envelope(fd, deadline_ms, &e, err);
        if (rc < 0)
            break;
        if (is_answer(e, id)) {
            *ret = e;
            return 0;
        }
        envelope_free(e);
    }
    return rc;
}

/* Sleeps and connects again until the deadline; 0 or -ETIMEDOUT. */
static int reconnect(struct client *c, uint64_t deadline_ms)
{
    disconnect(c);
    while (now_ms() + RECONNECT_MS < deadline_ms) {
        struct timespec t = {.tv_nsec = RECONNECT_MS * 1000000L};
        nanosleep(&t, NULL);
        if (connect_now(c, NULL) == 0)
            return 0;
    }
    return -ETIMEDOUT;
}

static int call_frame(struct client *c, const uint8_t *frame, size_t len, const struct uuid *id,
                      Lunar__Envelope **ret, struct error *err)
{
    uint64_t deadline_ms = now_ms() + c->timeout_ms;
    int rc = c->fd >= 0 ? 0 : connect_now(c, err);
    if (rc < 0)
        return rc;
    for (;;) {
        rc = exchange(c->fd, frame, len, id, deadline_ms, ret, err);
        if (rc == 0)
            return 0;
        if (rc <= LUNAR_E_BASE || rc == -ETIMEDOUT || !id)
            break;
        rc = reconnect(c, deadline_ms);
        if (rc < 0)
            break;
    }
    disconnect(c); /* a late answer must not meet the next call */
    if (rc == -ETIMEDOUT)
        return error_set(
            err, LUNAR_E_TIMEOUT,
            "no answer within %llu s: the request may still take effect; look before you "
            "repeat it",
            (unsigned long long)(c->timeout_ms / 1000));
    if (rc <= LUNAR_E_BASE) {
        error_prefix(err, "outcome unknown, the answer on %s is not readable", c->address.sun_path);
        if (err)
            err->code = LUNAR_E_INDETERMINATE;
        return LUNAR_E_INDETERMINATE;
    }
    return error_set(err, LUNAR_E_INDETERMINATE,
                     "the connection to %s broke (%s): the request may have taken effect",
                     c->address.sun_path, strerror(-rc));
}

int client_call(struct client *client, const Lunar__Envelope *request, const struct uuid *id,
                Lunar__Envelope **ret, struct error *err)
{
    uint8_t *packed = NULL;
    uint32_t len = 0;

    int rc = envelope_pack(request, &packed, &len, err);
    if (rc < 0)
        return rc;
    uint8_t *frame = malloc(sizeof(uint32_t) + len);
    if (!frame)
        abort();
    le32_put(frame, len);
    memcpy(frame + sizeof(uint32_t), packed, len);
    free(packed);
    rc = call_frame(client, frame, sizeof(uint32_t) + len, id, ret, err);
    free(frame);
    return rc;
}
