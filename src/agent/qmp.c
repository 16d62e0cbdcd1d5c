/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A QMP client that blocks, with a deadline on every call. Happy path: connect, greeting,
 * qmp_capabilities; then each command carries a number of its own and its answer is the line with
 * that number; events met on the way wait in a bounded queue.
 *
 * Failure modes: silence until the deadline, or a hang-up after the command was sent, is
 * LUNAR_E_INDETERMINATE, since the daemon may still do it; the late answer of such a command is
 * recognised by its number and dropped. A line that is not an object or does not end is
 * LUNAR_E_CORRUPT and closes the stream for good: after it nothing can be matched. A command that
 * could be sent only in part closes it too.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/helper.h"
#include "agent/qsd.h"
#include "base/log.h"

/* More events than commands ever wait for; a flood drops the oldest and says so once. */
#define EVENTS_MAX 256

struct qmp {
    int fd;
    bool broken; /* hung up, damaged, or a command half sent */
    bool dropped;
    uint64_t id;
    json_t *events;
    size_t len;
    char buffer[QMP_LINE_MAX + 1];
};

static int qmp_break(struct qmp *qmp, int code)
{
    qmp->broken = true;
    return code;
}

static int qmp_poll(struct qmp *qmp, short events, int64_t deadline)
{
    struct pollfd p = {.fd = qmp->fd, .events = events};
    int n;

    do
        n = poll(&p, 1, clock_left(deadline));
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

/* ---- lines in ---- */

/* Cuts the first line off the buffer: 1, 0 when there is no whole one yet, or LUNAR_E_CORRUPT. */
static int qmp_take_line(struct qmp *qmp, json_t **ret, struct error *err)
{
    char *end = memchr(qmp->buffer, '\n', qmp->len);

    if (!end && qmp->len > QMP_LINE_MAX)
        return qmp_break(
            qmp, error_set(err, LUNAR_E_CORRUPT, "QMP: a line longer than %u bytes", QMP_LINE_MAX));
    if (!end)
        return 0;
    size_t len = (size_t)(end - qmp->buffer);
    int rc = qmp_parse_line(qmp->buffer, len, ret, err);
    qmp->len -= len + 1;
    memmove(qmp->buffer, end + 1, qmp->len);
    return rc < 0 ? qmp_break(qmp, rc) : 1;
}

/* The next line: 1, 0 at the deadline, or an error (hang-up: -EPIPE). */
static int qmp_read(struct qmp *qmp, int64_t deadline, json_t **ret, struct error *err)
{
    for (;;) {
        int rc = qmp_take_line(qmp, ret, err);
        if (rc != 0)
            return rc;
        rc = qmp_poll(qmp, POLLIN, deadline);
        if (rc <= 0)
            return rc;
        ssize_t n = recv(qmp->fd, qmp->buffer + qmp->len, sizeof qmp->buffer - qmp->len, 0);
        if (n > 0)
            qmp->len += (size_t)n;
        else if (n == 0 || (errno != EINTR && errno != EAGAIN))
            return qmp_break(qmp, error_set(err, -EPIPE, "QMP: the daemon hung up"));
    }
}

static void qmp_queue_event(struct qmp *qmp, json_t *event)
{
    if (json_array_size(qmp->events) >= EVENTS_MAX) {
        json_array_remove(qmp->events, 0);
        if (!qmp->dropped)
            log_warn("qmp_events_dropped max=%d", EVENTS_MAX);
        qmp->dropped = true;
    }
    json_array_append_new(qmp->events, event);
}

/* ---- commands ---- */

static int qmp_send(struct qmp *qmp, const char *text, size_t len, int64_t deadline,
                    struct error *err)
{
    size_t done = 0;

    while (done < len) {
        ssize_t n = send(qmp->fd, text + done, len - done, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0) {
            done += (size_t)n;
            continue;
        }
        if (errno == EINTR)
            continue;
        if (errno != EAGAIN)
            return qmp_break(qmp, error_set(err, -EPIPE, "QMP: the daemon hung up"));
        if (qmp_poll(qmp, POLLOUT, deadline) == 0) {
            qmp->broken = true; /* half a line: nothing may follow it, and it is never executed */
            return error_set(err, LUNAR_E_TIMEOUT, "QMP: the daemon takes no commands");
        }
    }
    return 0;
}

static char *qmp_command_text(struct qmp *qmp, const char *command, json_t *arguments)
{
    json_t *object = json_pack("{s:s, s:I}", "execute", command, "id", (json_int_t)++qmp->id);

    if (!object) {
        json_decref(arguments);
        return NULL;
    }
    if (arguments)
        json_object_set_new(object, "arguments", arguments);
    char *text = json_dumps(object, JSON_COMPACT);
    json_decref(object);
    return text;
}

/* Is this line the answer to command `id`? QMP answers without an id when it could not read the
 * command at all. */
static bool qmp_is_answer(const json_t *line, uint64_t id)
{
    const json_t *answer_id = json_object_get(line, "id");

    if (!json_object_get(line, "return") && !json_object_get(line, "error"))
        return false;
    return answer_id ? json_integer_value(answer_id) == (json_int_t)id
                     : json_object_get(line, "error") != NULL;
}

static int qmp_take_answer(json_t *line, const char *command, json_t **ret, struct error *err)
{
    json_t *refused = json_object_get(line, "error");
    int rc = 0;

    if (refused) {
        const char *words = json_string_value(json_object_get(refused, "desc"));
        rc = error_set(err, LUNAR_E_QMP, "%s: %s", command, words ? words : "no reason given");
    } else if (ret) {
        *ret = json_incref(json_object_get(line, "return"));
    }
    json_decref(line);
    return rc;
}

static int qmp_await(struct qmp *qmp, const char *command, json_t **ret, int64_t deadline,
                     struct error *err)
{
    for (;;) {
        json_t *line = NULL;
        int rc = qmp_read(qmp, deadline, &line, err);
        if (rc == 0)
            return error_set(err, LUNAR_E_INDETERMINATE, "%s: no answer in time", command);
        if (rc == -EPIPE)
            return error_set(err, LUNAR_E_INDETERMINATE, "%s: the daemon hung up", command);
        if (rc < 0)
            return error_prefix(err, "%s", command), rc;
        if (json_object_get(line, "event"))
            qmp_queue_event(qmp, line);
        else if (qmp_is_answer(line, qmp->id))
            return qmp_take_answer(line, command, ret, err);
        else
            json_decref(line); /* the late answer of a command that was given up */
    }
}

int qmp_execute(struct qmp *qmp, const char *command, json_t *arguments, json_t **ret,
                int deadline_ms, struct error *err)
{
    int64_t deadline = clock_ms() + deadline_ms;

    if (ret)
        *ret = NULL;
    if (qmp->broken) {
        json_decref(arguments);
        return error_set(err, -EPIPE, "%s: the QMP connection is closed", command);
    }
    char *text = qmp_command_text(qmp, command, arguments);
    if (!text)
        return error_set(err, -ENOMEM, "%s: out of memory or not UTF-8", command);
    size_t len = strlen(text);
    text[len] = '\n'; /* in place of the NUL: one send, and the length is known */
    int rc = qmp_send(qmp, text, len + 1, deadline, err);
    free(text);
    return rc < 0 ? rc : qmp_await(qmp, command, ret, deadline, err);
}

int qmp_event(struct qmp *qmp, int deadline_ms, json_t **ret, struct error *err)
{
    int64_t deadline = clock_ms() + deadline_ms;

    *ret = NULL;
    while (json_array_size(qmp->events) == 0) {
        json_t *line = NULL;
        if (qmp->broken)
            return error_set(err, -EPIPE, "the QMP connection is closed");
        int rc = qmp_read(qmp, deadline, &line, err);
        if (rc <= 0)
            return rc;
        if (json_object_get(line, "event"))
            qmp_queue_event(qmp, line);
        else
            json_decref(line);
    }
    *ret = json_incref(json_array_get(qmp->events, 0));
    json_array_remove(qmp->events, 0);
    return 1;
}

/* ---- opening ---- */

static int qmp_connect(const char *path, struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof address.sun_path)
        return error_set(err, LUNAR_E_INVALID, "the socket path %s is longer than %zu bytes", path,
                         sizeof address.sun_path - 1);
    memcpy(address.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return error_set(err, -errno, "cannot make a socket: %s", strerror(errno));
    if (connect(fd, (const struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    int code = errno;
    close(fd);
    return error_set(err, -code, "cannot connect to %s: %s", path, strerror(code));
}

static int qmp_greet(struct qmp *qmp, int64_t deadline, struct error *err)
{
    json_t *line = NULL;
    int rc = qmp_read(qmp, deadline, &line, err);

    if (rc == 0)
        return error_set(err, LUNAR_E_TIMEOUT,
                         "no QMP greeting: the daemon hangs or serves another client");
    if (rc < 0)
        return rc;
    bool greeting = json_is_object(json_object_get(line, "QMP"));
    json_decref(line);
    if (!greeting)
        return error_set(err, LUNAR_E_CORRUPT, "QMP: the first line is no greeting");
    return qmp_execute(qmp, "qmp_capabilities", NULL, NULL, clock_left(deadline), err);
}

int qmp_open(const char *socket_path, int deadline_ms, struct qmp **ret, struct error *err)
{
    int64_t deadline = clock_ms() + deadline_ms;

    *ret = NULL;
    int fd = qmp_connect(socket_path, err);
    if (fd < 0)
        return fd;
    struct qmp *qmp = malloc(sizeof *qmp);
    if (!qmp)
        abort();
    qmp->fd = fd;
    qmp->broken = qmp->dropped = false;
    qmp->id = 0;
    qmp->len = 0;
    qmp->events = json_array();
    int rc = qmp_greet(qmp, deadline, err);
    if (rc < 0) {
        qmp_close(qmp);
        return rc;
    }
    *ret = qmp;
    return 0;
}

void qmp_close(struct qmp *qmp)
{
    if (!qmp)
        return;
    close(qmp->fd);
    json_decref(qmp->events);
    free(qmp);
}
