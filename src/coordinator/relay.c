/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A standby's clients: each is connected to the node's agent, which carries its frames over the LUN
 * to the leader.
 *
 * Happy path: frame in, frame out, both ways, unread. Failure modes: no agent: the client is told
 * so; either end hangs up: the other is dropped (a client that was relayed stays relayed when this
 * candidate starts to lead; the agent reaches us as well).
 */
#include <stdlib.h>

#include "coordinator/coordinator_internal.h"

struct relay {
    LIST_ENTRY(relay) link;
    struct coordinator *coordinator;
    uint64_t client;
    struct local_peer *peer;
};

static void on_message(void *data, const uint8_t *bytes, uint32_t len)
{
    struct relay *r = data;
    local_send(r->coordinator->local, r->client, bytes, len);
}

static void on_gone(void *data)
{
    struct relay *r = data;
    LIST_REMOVE(r, link);
    free(r);
}

static struct relay *find(struct coordinator *c, uint64_t client)
{
    struct relay *r;
    LIST_FOREACH(r, &c->relays, link)
    if (r->client == client)
        return r;
    return NULL;
}

/* Answers a request that cannot be relayed. */
static void refuse(struct coordinator *c, uint64_t client, const uint8_t *bytes, uint32_t len,
                   const struct error *err)
{
    Lunar__Envelope *e, out = LUNAR__ENVELOPE__INIT;
    Lunar__Response response = LUNAR__RESPONSE__INIT;
    Lunar__Error error = LUNAR__ERROR__INIT;
    uint8_t *packed;
    uint32_t packed_len;

    if (envelope_unpack(bytes, len, &e, NULL) < 0)
        return;
    if (e->body_case == LUNAR__ENVELOPE__BODY_REQUEST) {
        error.code = LUNAR_E_NOT_LEADER;
        error.text = (char *)(uintptr_t)err->text;
        response.id = e->request->id;
        response.error = &error;
        out.body_case = LUNAR__ENVELOPE__BODY_RESPONSE;
        out.response = &response;
        if (envelope_pack(&out, &packed, &packed_len, NULL) == 0) {
            local_send(c->local, client, packed, packed_len);
            free(packed);
        }
    }
    envelope_free(e);
}

void relay_message(struct coordinator *c, uint64_t client, const uint8_t *bytes, uint32_t len)
{
    static const struct local_peer_callbacks callbacks = {.message = on_message, .gone = on_gone};
    struct error err = ERROR_INIT;
    struct relay *r = find(c, client);

    if (!r) {
        r = calloc(1, sizeof *r);
        if (!r)
            abort();
        r->coordinator = c;
        r->client = client;
        if (local_connect(c->loop, c->agent_socket, &callbacks, r, &r->peer, &err) < 0) {
            error_prefix(&err, "this candidate does not lead and cannot relay");
            refuse(c, client, bytes, len, &err);
            free(r);
            return;
        }
        LIST_INSERT_HEAD(&c->relays, r, link);
    }
    local_peer_send(r->peer, bytes, len);
}

void relay_gone(struct coordinator *c, uint64_t client)
{
    struct relay *r = find(c, client);
    if (r)
        local_peer_close(r->peer);
}
