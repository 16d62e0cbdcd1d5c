/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clients' requests on their way over the LUN: kept until answered, sent again to each new
 * coordinator.
 *
 * The request's id is the client's and goes along unchanged, so that the same request is the same
 * one to every coordinator. Failure modes: no coordinator yet: it waits; the queue is full: the
 * client is told BUSY; the client hangs up: the request is forgotten here, whatever the coordinator
 * makes of it stands.
 */
#include <stdlib.h>
#include <string.h>

#include "agent/node_internal.h"
#include "base/log.h"

static void drop(struct node *n, struct pending *p)
{
    TAILQ_REMOVE(&n->pending, p, link);
    free(p->bytes);
    free(p);
    n->n_pending--;
    relay_set_waiting(n);
}

void relay_set_waiting(struct node *n)
{
    bool waiting = n->n_pending > 0 || space_asks(n);
    if (waiting == n->waiting)
        return;
    n->waiting = waiting;
    n->io->waiting(n->data, waiting);
}

/* In order, as far as the mailbox takes them; the rest goes with the next answer that makes room.
 */
static void send_unsent(struct node *n)
{
    struct pending *p;
    space_send(n, false); /* a writer may wait for it */
    TAILQ_FOREACH (p, &n->pending, link) {
        if (!p->sent && n->io->send(n->data, p->bytes, p->len) < 0)
            return;
        p->sent = true;
    }
}

static void answer_error(struct node *n, uint64_t client, const struct uuid *id, int code,
                         const char *words)
{
    Lunar__Envelope e = LUNAR__ENVELOPE__INIT;
    Lunar__Response response = LUNAR__RESPONSE__INIT;
    Lunar__Error error = LUNAR__ERROR__INIT;
    uint8_t *bytes;
    uint32_t len;

    error.code = code;
    error.text = (char *)(uintptr_t)words;
    response.id = uuid_to_pb(id);
    response.error = &error;
    e.body_case = LUNAR__ENVELOPE__BODY_RESPONSE;
    e.response = &response;
    if (envelope_pack(&e, &bytes, &len, NULL) < 0)
        return;
    n->io->respond(n->data, client, bytes, len);
    free(bytes);
}

/* An attach that names no node means this one. The envelope is the caller's: changed and put back.
 */
static int pack_for_coordinator(const struct node *n, const Lunar__Envelope *envelope,
                                uint8_t **ret, uint32_t *ret_len, struct error *err)
{
    Lunar__Request *r = envelope->request;
    if (r->op_case == LUNAR__REQUEST__OP_VOLUME_ATTACH && r->volume_attach->node[0] == '\0')
        r->volume_attach->host_id = n->self.host_id;
    int rc = envelope_pack(envelope, ret, ret_len, err);
    if (rc == 0 && *ret_len > MESSAGE_MAX) {
        free(*ret);
        rc = error_set(err, LUNAR_E_TOO_BIG, "a request of %u bytes; the bound is %u", *ret_len,
                       MESSAGE_MAX);
    }
    return rc;
}

void node_request(struct node *node, uint64_t client, const Lunar__Envelope *envelope)
{
    struct uuid id = uuid_from_pb(envelope->request->id);
    struct error err = ERROR_INIT;

    if (node->fenced) {
        answer_error(node, client, &id, LUNAR_E_FENCED, "this node is being fenced off; try again");
        return;
    }
    if (node->n_pending >= NODE_PENDING_MAX) {
        answer_error(node, client, &id, LUNAR_E_BUSY, "too many requests wait here; try again");
        return;
    }
    struct pending *p = calloc(1, sizeof *p);
    if (!p)
        abort();
    p->id = id;
    p->client = client;
    if (pack_for_coordinator(node, envelope, &p->bytes, &p->len, &err) < 0) {
        answer_error(node, client, &id, err.code, err.text);
        free(p);
        return;
    }
    TAILQ_INSERT_TAIL(&node->pending, p, link);
    node->n_pending++;
    relay_set_waiting(node);
    send_unsent(node);
}

void node_coordinator_changed(struct node *node)
{
    struct pending *p;
    space_send(node, true);
    TAILQ_FOREACH (p, &node->pending, link)
        p->sent = false;
    send_unsent(node);
}

void relay_refuse_all(struct node *n, int code, const char *words)
{
    struct pending *p;
    while ((p = TAILQ_FIRST(&n->pending))) {
        answer_error(n, p->client, &p->id, code, words);
        drop(n, p);
    }
}

void node_client_gone(struct node *node, uint64_t client)
{
    struct pending *p, *next;
    for (p = TAILQ_FIRST(&node->pending); p; p = next) {
        next = TAILQ_NEXT(p, link);
        if (p->client == client)
            drop(node, p);
    }
}

void relay_answer(struct node *n, const Lunar__Envelope *envelope)
{
    struct uuid id = uuid_from_pb(envelope->response->id);
    struct pending *p;
    uint8_t *bytes;
    uint32_t len;

    if (space_answer(n, &id, envelope->response)) {
        send_unsent(n);
        return;
    }
    TAILQ_FOREACH (p, &n->pending, link)
        if (uuid_equal(&p->id, &id))
            break;
    if (!p)
        return; /* its client has gone */
    if (envelope_pack(envelope, &bytes, &len, NULL) == 0) {
        n->io->respond(n->data, p->client, bytes, len);
        free(bytes);
    }
    drop(n, p);
    send_unsent(n);
}
