/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An agent's local clients: requests go to the node, which relays them; status and leave are
 * answered here.
 *
 * Failure modes: a request before the node has joined is refused with the reason, so that nobody
 * waits for a join that cannot succeed.
 */
#include <stdlib.h>

#include "agent/agent_internal.h"
#include "diskrpc/rpc_view.h"

static const char *state_name(enum agent_state state)
{
    static const char *const names[] = {"joining", "joined", "leaving", "left", "fenced"};
    return names[state];
}

static void send_response(struct agent *a, uint64_t client, Lunar__Response *response)
{
    Lunar__Envelope e = LUNAR__ENVELOPE__INIT;
    struct uuid zero = {{0}}; /* local requests carry no id */
    uint8_t *bytes;
    uint32_t len;

    if (response->id.len == 0)
        response->id = uuid_to_pb(&zero);
    e.body_case = LUNAR__ENVELOPE__BODY_RESPONSE;
    e.response = response;
    if (envelope_pack(&e, &bytes, &len, NULL) < 0)
        return;
    local_send(a->local, client, bytes, len);
    free(bytes);
}

void agent_answer(struct agent *a, uint64_t client, int code, const char *words)
{
    Lunar__Response response = LUNAR__RESPONSE__INIT;
    Lunar__Error error = LUNAR__ERROR__INIT;
    error.code = code;
    error.text = (char *)(uintptr_t)words;
    response.error = &error;
    send_response(a, client, &response);
}

struct volume_list {
    Lunar__AgentVolume messages[TABLE_ENTRIES_MAX];
    Lunar__AgentVolume *list[TABLE_ENTRIES_MAX];
    struct uuid ids[TABLE_ENTRIES_MAX][2];
    size_t n;
};

static void add_volume(void *data, const struct node_volume *v)
{
    struct volume_list *l = data;
    if (l->n == TABLE_ENTRIES_MAX)
        return;
    Lunar__AgentVolume *m = &l->messages[l->n];
    lunar__agent_volume__init(m);
    l->ids[l->n][0] = v->volume_id;
    l->ids[l->n][1] = v->attachment_id;
    m->volume_id = uuid_to_pb(&l->ids[l->n][0]);
    m->attachment_id = uuid_to_pb(&l->ids[l->n][1]);
    m->name = (char *)(uintptr_t)v->name;
    m->state = (char *)(uintptr_t)v->state;
    m->device = (char *)(uintptr_t)v->device;
    m->qsd_pid = v->qsd_pid;
    m->qsd_restarts = v->qsd_restarts;
    m->space = v->space;
    m->space_asked = v->space_asked;
    l->list[l->n++] = m;
}

static void answer_status(struct agent *a, uint64_t client)
{
    Lunar__Response response = LUNAR__RESPONSE__INIT;
    Lunar__AgentStatus s = LUNAR__AGENT_STATUS__INIT;
    Lunar__Error error = LUNAR__ERROR__INIT;
    struct volume_list *volumes = calloc(1, sizeof *volumes);

    if (!volumes)
        abort();
    s.pool = a->sb.pool_name;
    s.pool_id = uuid_to_pb(&a->sb.pool_id);
    s.device = a->device;
    s.node = a->node_name;
    s.host_id = a->join.self.host_id;
    s.generation = a->join.self.generation;
    s.run = a->join.self.run_or_term;
    s.state = (char *)(uintptr_t)state_name(a->state);
    if (a->mailbox) {
        const struct channel_stats *stats = mailbox_stats(a->mailbox);
        s.term = stats->term;
        s.coordinator_host_id = stats->peer.host_id;
        uint64_t now_ms = uv_now(a->loop); /* of the loop's turn: it may have been heard since */
        bool ago = stats->last_heard_ms && now_ms > stats->last_heard_ms;
        s.last_heard_ms = ago ? now_ms - stats->last_heard_ms : 0;
        node_each(a->node, add_volume, volumes);
    }
    s.condition = a->trouble;
    s.volumes = volumes->list;
    s.n_volumes = volumes->n;
    error.text = a->trouble; /* code 0: the status itself is fine */
    response.error = &error;
    response.op_case = LUNAR__RESPONSE__OP_AGENT_STATUS;
    response.agent_status = &s;
    send_response(a, client, &response);
    free(volumes);
}

/* A client's request before there is a node to relay it. */
static void refuse_request(struct agent *a, uint64_t client, const Lunar__Request *request)
{
    Lunar__Response response = LUNAR__RESPONSE__INIT;
    Lunar__Error error = LUNAR__ERROR__INIT;
    char text[700];

    snprintf(text, sizeof text, "this node has not joined pool '%s'%s%s", a->sb.pool_name,
             a->trouble[0] ? ": " : " yet", a->trouble);
    error.code = a->fence.why[0] ? LUNAR_E_FENCED : LUNAR_E_NOT_JOINED;
    error.text = text;
    response.id = request->id;
    response.error = &error;
    send_response(a, client, &response);
}

static void on_local_message(void *data, uint64_t client, const Lunar__Envelope *e,
                             const uint8_t *bytes, uint32_t len)
{
    struct agent *a = data;
    (void)bytes;
    (void)len;

    if (e->body_case == LUNAR__ENVELOPE__BODY_REQUEST && a->state == AGENT_STATE_JOINED)
        node_request(a->node, client, e);
    else if (e->body_case == LUNAR__ENVELOPE__BODY_REQUEST)
        refuse_request(a, client, e->request);
    else if (e->body_case != LUNAR__ENVELOPE__BODY_LOCAL_REQUEST)
        agent_answer(a, client, LUNAR_E_INVALID, "neither a request nor a local request");
    else if (e->local_request->op_case == LUNAR__LOCAL_REQUEST__OP_AGENT_STATUS)
        answer_status(a, client);
    else if (e->local_request->op_case == LUNAR__LOCAL_REQUEST__OP_LEAVE)
        agent_leave(a, client, e->local_request->leave->with_volumes);
    else if (rpc_view_wants(e))
        agent_rpc_answer(a, client, e->local_request);
    else
        agent_answer(a, client, LUNAR_E_UNSUPPORTED, "this agent does not know the local request");
}

static void on_local_gone(void *data, uint64_t client)
{
    struct agent *a = data;
    if (a->node)
        node_client_gone(a->node, client);
}

const struct local_callbacks agent_local_callbacks = {.message = on_local_message,
                                                      .gone = on_local_gone};
