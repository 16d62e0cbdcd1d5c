/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The workload: clients on the machines, each with one request at a time, over a few volume names
 * so that they get into each other's way.
 *
 * Happy path: a client connects to its machine's agent (or to the coordinator's socket there,
 * leader or standby), sends, and checks the answer against the ghost. Failure modes: no answer in
 * time, or the daemon is gone: the same request under the same id goes out again, perhaps through
 * another machine; after PATIENCE attempts during the faults it gives up, after them it does not.
 * What an error means for later requests is nothing: the next one asks again.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "sim/ghost.h"
#include "sim/workload.h"

#define PATIENCE 12u
/* Between two requests of a client, at most: from 50 ms to 3.2 s, one of these per seed. */
#define PAUSE_MIN_US    (50 * SIM_MS)
#define PAUSE_DOUBLINGS 7u
#define CLIENTS_MAX     16u

struct client {
    uint32_t index;
    struct machine *machine;
    struct local_conn *conn;
    struct request *request; /* NULL: between two */
    struct sim_event *timer; /* resend, or the next request */
};

struct volume_name workload_names[WORKLOAD_NAMES];
static struct client clients[CLIENTS_MAX];
static uint32_t n_clients, requests_left;
static uint64_t completed[CLIENT_OPS];
static bool finale;
static uint64_t pause_us;

static void start_next(void *data);
static void send_now(void *data);

const char *client_op_name(enum client_op op)
{
    static const char *const names[] = {"ping",     "get",       "list",     "create", "attach",
                                        "detach",   "delete",    "snapshot", "unsnap", "clone",
                                        "rollback", "snapshots", "trim"};
    return names[op];
}

uint64_t clients_completed(enum client_op op)
{
    return completed[op];
}

/* --- sending --- */

static void set_timer(struct client *c, uint64_t us, void (*fn)(void *data))
{
    if (c->timer)
        sim_cancel(c->timer);
    c->timer = sim_at(sim_now_us() + us, fn, c);
}

static void on_message(void *data, const uint8_t *bytes, uint32_t len);

static void on_gone(void *data)
{
    struct client *c = data;
    c->conn = NULL;
    if (c->request)
        set_timer(c, 300 * SIM_MS + sim_random(STREAM_CLIENTS, SIM_S), send_now);
}

/* An attach that names no node means the relaying one, so it must not move. */
static bool may_move(const struct request *r)
{
    return r->op != CLIENT_ATTACH || r->named_node;
}

static bool connect_somewhere(struct client *c)
{
    static const struct local_conn_callbacks callbacks = {on_message, on_gone};
    bool standby = may_move(c->request) && sim_random(STREAM_CLIENTS, 4) == 0;

    if (c->conn)
        return true;
    if (c->request->tries > 0 && may_move(c->request) && sim_random(STREAM_CLIENTS, 3) == 0)
        c->machine = machine_at(1 + (uint32_t)sim_random(STREAM_CLIENTS, world_machines()));
    if (c->machine->state == MACHINE_OFF)
        return false;
    c->conn = local_model_connect(
        c->machine, standby ? WORLD_COORDINATOR_SOCKET : WORLD_AGENT_SOCKET, &callbacks, c);
    return c->conn != NULL;
}

/* Gives up on it: what became of it nobody knows. */
static void abandon(struct client *c)
{
    sim_trace("client%u gives up on %u", c->index, c->request->number);
    c->request->over = true;
    c->request->over_us = UINT64_MAX;
    c->request = NULL;
    if (c->conn)
        local_model_close(c->conn);
    c->conn = NULL;
    set_timer(c, sim_random(STREAM_CLIENTS, pause_us), start_next);
}

static void send_now(void *data)
{
    struct client *c = data;
    struct request *r = c->request;
    uint8_t *bytes;
    uint32_t len;

    c->timer = NULL;
    if (r->tries >= PATIENCE && !sim_faults_ended()) {
        abandon(c);
        return;
    }
    /* A connection that did not answer for so long is given up. */
    if (r->tries > 0 && c->conn && sim_random(STREAM_CLIENTS, 2) == 0) {
        local_model_close(c->conn);
        c->conn = NULL;
    }
    set_timer(c, 5 * SIM_S + sim_random(STREAM_CLIENTS, 15 * SIM_S), send_now);
    bool connected = connect_somewhere(c);
    r->tries++;
    if (!connected)
        return;
    request_pack(r, &bytes, &len);
    request_sent(r);
    sim_trace("client%u sends %u %s %s try=%u via=%s", c->index, r->number, client_op_name(r->op),
              workload_names[r->name].text, r->tries, c->machine->name);
    local_model_send(c->conn, bytes, len);
    free(bytes);
}

/* --- answers --- */

static void finish(struct client *c, int code)
{
    struct request *r = c->request;
    r->over = true;
    r->over_us = sim_now_us();
    r->code = code;
    completed[r->op] += code == 0;
    c->request = NULL;
    if (sim_random(STREAM_CLIENTS, 4) == 0 && c->conn) {
        local_model_close(c->conn);
        c->conn = NULL;
    }
    set_timer(c, sim_random(STREAM_CLIENTS, finale ? 50 * SIM_MS : pause_us), start_next);
}

static void on_message(void *data, const uint8_t *bytes, uint32_t len)
{
    struct client *c = data;
    struct error err = ERROR_INIT;
    Lunar__Envelope *e;

    if (envelope_unpack(bytes, len, &e, &err) < 0)
        sim_violation("answers-match-requests", "client%u got no envelope: %s", c->index, err.text);
    if (e->body_case != LUNAR__ENVELOPE__BODY_RESPONSE)
        sim_violation("answers-match-requests", "client%u got no response", c->index);
    struct uuid id = uuid_from_pb(e->response->id);
    struct request *r = c->request;
    if (r && uuid_equal(&r->id, &id)) {
        int code = e->response->error ? e->response->error->code : 0;
        sim_trace("client%u got %u %s %s: %s", c->index, r->number, client_op_name(r->op),
                  workload_names[r->name].text, code ? e->response->error->text : "OK");
        request_check(r, e->response);
        finish(c, code);
    } else if (!request_by_id(&id)) {
        sim_violation("answers-match-requests", "client%u got an answer to nobody's request",
                      c->index);
    }
    envelope_free(e);
}

/* --- what to ask for --- */

static void start_next(void *data)
{
    struct client *c = data;
    c->timer = NULL;
    if (finale) {
        c->request = c->index == 0 ? request_finale() : NULL;
    } else if (requests_left > 0) {
        requests_left--;
        c->request = request_random();
    }
    if (!c->request)
        return;
    c->request->client = c->index;
    if (sim_random(STREAM_CLIENTS, 3) == 0 && c->conn) {
        local_model_close(c->conn);
        c->conn = NULL;
    }
    send_now(c);
}

void clients_start(uint32_t n, uint32_t n_requests)
{
    n_clients = n < CLIENTS_MAX ? n : CLIENTS_MAX;
    requests_left = n_requests;
    pause_us = PAUSE_MIN_US << sim_random(STREAM_CONFIG, PAUSE_DOUBLINGS);
    for (uint32_t i = 0; i < WORKLOAD_NAMES; i++)
        snprintf(workload_names[i].text, sizeof workload_names[i].text, "vol%u", i);
    for (uint32_t i = 0; i < n_clients; i++) {
        struct client *c = &clients[i];
        c->index = i;
        c->machine = machine_at(1 + (uint32_t)sim_random(STREAM_CLIENTS, world_machines()));
        set_timer(c, 2 * SIM_S + sim_random(STREAM_CLIENTS, 4 * SIM_S), start_next);
    }
}

bool clients_done(char *why, size_t size)
{
    for (uint32_t i = 0; i < n_clients; i++) {
        const struct request *r = clients[i].request;
        if (!r)
            continue;
        snprintf(why, size, "client%u waits for its request %u (%s %s, try %u, via %s)", i,
                 r->number, client_op_name(r->op), workload_names[r->name].text, r->tries,
                 clients[i].machine->name);
        return false;
    }
    if (requests_left > 0 && !finale) {
        snprintf(why, size, "%u requests were not begun yet", requests_left);
        return false;
    }
    if (finale && !request_finale_over()) {
        snprintf(why, size, "the finale goes on");
        return false;
    }
    return true;
}

void clients_begin_finale(void)
{
    finale = true;
    sim_trace("finale");
    for (uint32_t i = 1; i < n_clients; i++)
        if (clients[i].timer && !clients[i].request) {
            sim_cancel(clients[i].timer);
            clients[i].timer = NULL;
        }
    set_timer(&clients[0], SIM_MS, start_next);
}

void clients_stop_requesting(void)
{
    if (requests_left > n_clients)
        requests_left = n_clients; /* one each in peace */
}
