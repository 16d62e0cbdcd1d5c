/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The monitor of events; see qsd_events.h.
 *
 * Happy path: connect, greeting, qmp_capabilities, block-set-write-threshold under a number of its
 * own; its answer is ARMED, the event BLOCK_WRITE_THRESHOLD of that node and threshold is PASSED,
 * and so is a higher wr_highest_offset in query-blockstats.
 *
 * Failure modes: nobody listens, the daemon hangs up, a line is too long or no JSON: LOST, if it
 * was connected, and another attempt after a pause that doubles. The daemon refuses the threshold
 * (it does not know the node yet): given again after RETRY_MS. It does not answer: SILENT every
 * QSD_EVENTS_PATIENCE_MS, and the connection is kept, because each new one would stand in the queue
 * of a daemon that cannot take any. An event of another threshold is of one that was replaced, and
 * says nothing.
 */
#include "agent/qsd_events.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/qsd.h"
#include "base/log.h"

/* Between attempts to connect. A daemon's socket listens before the daemon runs: a refused connect
 * means that it is gone, and its successor is some 100 ms away. */
#define CONNECT_MIN_MS 50u
#define CONNECT_MAX_MS 2000u
#define RETRY_MS       500u
/* After a threshold came into force: 1, 3, 7, 15 s. */
#define LOOK_FIRST_MS 1000u
#define LOOKS_MAX     4u
/* What is read at first, which all but the statistics fit into: 700 KB with 256 layers. */
#define BUFFER_MIN 4096u

enum state { CONNECTING, GREETING, NEGOTIATING, READY };

struct connection {
    uv_pipe_t pipe;
    uv_connect_t request;
    struct qsd_events *owner; /* NULL: it has let go */
    enum state state;
    uint64_t id;              /* of the last command */
    uint64_t arm_id, look_id; /* of those that are unanswered; 0: none */
    size_t used, size;
    char *buffer;
};

struct qsd_events {
    uv_loop_t *loop;
    char path[108], node[QSD_NODE_SIZE];
    uint64_t threshold;
    void (*event)(void *data, enum qsd_events_what what);
    void *data;
    struct connection *connection; /* NULL: between two */
    uint32_t pause_ms;
    bool in_force;
    uint32_t looks; /* at the statistics, since it is */
    uv_timer_t retry, patience, look;
    uint32_t handles; /* that have not told their end */
};

static void connect_now(struct qsd_events *e);
static void give_threshold(struct qsd_events *e);

static void not_in_force(struct qsd_events *e)
{
    e->in_force = false;
    uv_timer_stop(&e->look);
}

/* ---- the connection's end ---- */

static void on_pipe_closed(uv_handle_t *handle)
{
    struct connection *c = handle->data;
    free(c->buffer);
    free(c);
}

static void let_go(struct qsd_events *e)
{
    struct connection *c = e->connection;

    e->connection = NULL;
    not_in_force(e);
    c->owner = NULL;
    uv_close((uv_handle_t *)&c->pipe, on_pipe_closed);
}

static void on_retry(uv_timer_t *timer)
{
    struct qsd_events *e = timer->data;

    if (e->connection)
        give_threshold(e);
    else
        connect_now(e);
}

static void on_silent(uv_timer_t *timer)
{
    struct qsd_events *e = timer->data;
    e->event(e->data, QSD_EVENTS_SILENT);
}

/* A threshold is awaited from now on, if it was not before. */
static void be_patient(struct qsd_events *e)
{
    if (e->threshold && !uv_is_active((uv_handle_t *)&e->patience))
        uv_timer_start(&e->patience, on_silent, QSD_EVENTS_PATIENCE_MS, QSD_EVENTS_PATIENCE_MS);
}

static void lose(struct qsd_events *e)
{
    bool had = e->connection->state != CONNECTING;

    let_go(e);
    uv_timer_start(&e->retry, on_retry, e->pause_ms, 0);
    e->pause_ms = e->pause_ms * 2 < CONNECT_MAX_MS ? e->pause_ms * 2 : CONNECT_MAX_MS;
    be_patient(e);
    if (had)
        e->event(e->data, QSD_EVENTS_LOST);
}

/* ---- lines out ---- */

struct line {
    uv_write_t request;
    char text[];
};

static void on_written(uv_write_t *request, int status)
{
    struct connection *c = request->handle->data;

    if (status < 0 && status != UV_ECANCELED && c->owner)
        lose(c->owner);
    free(request->data);
}

/* False: it could not be sent, and the connection is lost. */
static bool send_command(struct connection *c, const char *command, json_t *arguments)
{
    json_t *object = json_pack("{s:s, s:I, s:o*}", "execute", command, "id", (json_int_t)++c->id,
                               "arguments", arguments);
    char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
    size_t len = text ? strlen(text) : 0;
    struct line *line = malloc(sizeof *line + len + 1);

    json_decref(object);
    if (!text || !line)
        abort();
    memcpy(line->text, text, len);
    line->text[len] = '\n';
    free(text);
    line->request.data = line;
    uv_buf_t buf = uv_buf_init(line->text, (unsigned)len + 1);
    if (uv_write(&line->request, (uv_stream_t *)&c->pipe, &buf, 1, on_written) == 0)
        return true;
    free(line);
    lose(c->owner);
    return false;
}

static void give_threshold(struct qsd_events *e)
{
    struct connection *c = e->connection;

    not_in_force(e);
    if (!c || c->state != READY || e->threshold == 0)
        return;
    c->arm_id = c->id + 1;
    send_command(
        c, "block-set-write-threshold",
        json_pack("{s:s, s:I}", "node-name", e->node, "write-threshold", (json_int_t)e->threshold));
}

static void on_look(uv_timer_t *timer)
{
    struct qsd_events *e = timer->data;
    struct connection *c = e->connection;

    if (++e->looks < LOOKS_MAX)
        uv_timer_start(timer, on_look, LOOK_FIRST_MS << e->looks, 0);
    c->look_id = c->id + 1;
    send_command(c, "query-blockstats", json_pack("{s:b}", "query-nodes", 1));
}

/* ---- lines in ---- */

static void passed(struct qsd_events *e)
{
    e->threshold = 0;
    not_in_force(e);
    uv_timer_stop(&e->patience);
    e->event(e->data, QSD_EVENTS_PASSED);
}

static void take_event(struct qsd_events *e, const json_t *line)
{
    const char *name = json_string_value(json_object_get(line, "event"));
    const json_t *data = json_object_get(line, "data");
    const char *node = json_string_value(json_object_get(data, "node-name"));
    json_int_t threshold = json_integer_value(json_object_get(data, "write-threshold"));

    if (!name || strcmp(name, "BLOCK_WRITE_THRESHOLD") != 0 || !node ||
        strcmp(node, e->node) != 0 || threshold != (json_int_t)e->threshold || threshold == 0)
        return;
    passed(e);
}

static void take_arm_answer(struct qsd_events *e, const json_t *line)
{
    const json_t *refused = json_object_get(line, "error");
    const char *why = json_string_value(json_object_get(refused, "desc"));

    e->connection->arm_id = 0;
    if (refused) {
        log_debug("qsd_threshold_refused node=%s text=\"%s\"", e->node, why ? why : "");
        uv_timer_start(&e->retry, on_retry, RETRY_MS, 0);
        return;
    }
    if (e->threshold == 0)
        return; /* its event was faster */
    e->in_force = true;
    e->looks = 0;
    uv_timer_start(&e->look, on_look, LOOK_FIRST_MS, 0);
    uv_timer_stop(&e->patience);
    e->event(e->data, QSD_EVENTS_ARMED);
}

static void take_statistics(struct qsd_events *e, const json_t *line)
{
    const json_t *nodes = json_object_get(line, "return"), *node;
    json_int_t highest = 0;
    size_t i;

    e->connection->look_id = 0;
    json_array_foreach(nodes, i, node)
    {
        const char *name = json_string_value(json_object_get(node, "node-name"));
        if (name && strcmp(name, e->node) == 0)
            highest = json_integer_value(
                json_object_get(json_object_get(node, "stats"), "wr_highest_offset"));
    }
    if (e->in_force && highest > (json_int_t)e->threshold)
        passed(e);
}

static void take_answer(struct qsd_events *e, const json_t *line)
{
    struct connection *c = e->connection;
    json_int_t id = json_integer_value(json_object_get(line, "id"));

    if (c->state == NEGOTIATING) {
        if (json_object_get(line, "error")) {
            lose(e);
            return;
        }
        c->state = READY;
        e->pause_ms = CONNECT_MIN_MS;
        give_threshold(e);
    } else if (id > 0 && id == (json_int_t)c->arm_id) {
        take_arm_answer(e, line);
    } else if (id > 0 && id == (json_int_t)c->look_id) {
        take_statistics(e, line);
    } /* else of a threshold that was replaced */
}

/* May end the connection. */
static void take_line(struct qsd_events *e, const json_t *line)
{
    struct connection *c = e->connection;

    if (c->state == GREETING) {
        if (!json_is_object(json_object_get(line, "QMP"))) {
            lose(e);
            return;
        }
        c->state = NEGOTIATING;
        send_command(c, "qmp_capabilities", NULL);
    } else if (json_object_get(line, "event")) {
        take_event(e, line);
    } else {
        take_answer(e, line);
    }
}

/* The whole lines in the buffer; the callback may have closed it, or lost it. */
static void take_lines(struct connection *c)
{
    char *from = c->buffer, *end;

    while (c->owner && (end = memchr(from, '\n', c->used - (size_t)(from - c->buffer)))) {
        struct error err = ERROR_INIT;
        json_t *line;
        if (qmp_parse_line(from, (size_t)(end - from), &line, &err) < 0) {
            log_warn("qsd_events_damaged path=%s text=\"%s\"", c->owner->path, err.text);
            lose(c->owner);
            return;
        }
        take_line(c->owner, line);
        json_decref(line);
        from = end + 1;
    }
    if (!c->owner)
        return;
    c->used -= (size_t)(from - c->buffer);
    memmove(c->buffer, from, c->used);
    if (c->used > QMP_LINE_MAX) {
        log_warn("qsd_events_damaged path=%s text=\"a line longer than %u bytes\"", c->owner->path,
                 QMP_LINE_MAX);
        lose(c->owner);
    }
}

static void on_room(uv_handle_t *handle, size_t wanted, uv_buf_t *ret)
{
    struct connection *c = handle->data;
    (void)wanted;

    if (c->used == c->size) { /* at most QMP_LINE_MAX so far */
        c->size = c->size ? 2 * c->size : BUFFER_MIN;
        c->buffer = realloc(c->buffer, c->size);
        if (!c->buffer)
            abort();
    }
    *ret = uv_buf_init(c->buffer + c->used, (unsigned)(c->size - c->used));
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct connection *c = stream->data;
    (void)buf;

    if (!c->owner || n == 0)
        return;
    if (n < 0) {
        lose(c->owner);
        return;
    }
    c->used += (size_t)n;
    take_lines(c);
}

/* ---- the beginning ---- */

static void on_connected(uv_connect_t *request, int status)
{
    struct connection *c = request->data;

    if (!c->owner)
        return;
    if (status < 0 || uv_read_start((uv_stream_t *)&c->pipe, on_room, on_read) < 0) {
        lose(c->owner);
        return;
    }
    c->state = GREETING;
}

static void connect_now(struct qsd_events *e)
{
    struct connection *c = malloc(sizeof *c);

    if (!c)
        abort();
    *c = (struct connection){.owner = e};
    if (uv_pipe_init(e->loop, &c->pipe, 0) != 0)
        abort();
    c->pipe.data = c->request.data = c;
    e->connection = c;
    uv_pipe_connect(&c->request, &c->pipe, e->path, on_connected);
}

void qsd_events_arm(struct qsd_events *events, const char *node, uint64_t threshold)
{
    assert(strlen(node) < sizeof events->node);
    strcpy(events->node, node);
    events->threshold = threshold;
    uv_timer_stop(&events->patience);
    be_patient(events);
    give_threshold(events);
}

bool qsd_events_connected(const struct qsd_events *events)
{
    return events->connection && events->connection->state != CONNECTING;
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct qsd_events *e = handle->data;
    if (--e->handles == 0)
        free(e);
}

struct qsd_events *qsd_events_open(uv_loop_t *loop, const char *path,
                                   void (*event)(void *data, enum qsd_events_what what), void *data)
{
    struct qsd_events *e = calloc(1, sizeof *e);

    if (!e)
        abort();
    assert(strlen(path) < sizeof e->path); /* the daemon listens there */
    e->loop = loop;
    strcpy(e->path, path);
    e->event = event;
    e->data = data;
    e->pause_ms = CONNECT_MIN_MS;
    uv_timer_init(loop, &e->retry);
    uv_timer_init(loop, &e->patience);
    uv_timer_init(loop, &e->look);
    e->retry.data = e->patience.data = e->look.data = e;
    e->handles = 3;
    uv_timer_start(&e->retry, on_retry, 0, 0);
    return e;
}

void qsd_events_close(struct qsd_events *events)
{
    if (events->connection)
        let_go(events);
    uv_close((uv_handle_t *)&events->retry, on_timer_closed);
    uv_close((uv_handle_t *)&events->patience, on_timer_closed);
    uv_close((uv_handle_t *)&events->look, on_timer_closed);
}
