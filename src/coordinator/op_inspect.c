/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inspections: what really stands on a node, asked of its agent for `lunarctl verify`. No
 * operation: nothing is changed, no volume is concerned, and a new leader has nothing to finish.
 *
 * Happy path: the request goes to the node as a command under the request's own id, the result goes
 * back as the answer. Failure modes: the node is not usable, or is another life when it answers:
 * the client is told at once; it does not answer: TIMEOUT after INSPECT_DEADLINE_MS; the leader is
 * lost: the request is sent to the next one, by the agent that relays it.
 */
#include <stdio.h>
#include <stdlib.h>

#include "coordinator/leader_internal.h"

#define INSPECTIONS_MAX     64u
#define INSPECT_DEADLINE_MS (20u * 1000)

struct inspection {
    TAILQ_ENTRY(inspection) link;
    struct waiter waiter;
    uint32_t host_id;
    uint64_t started_ms;
};

static void end(struct leader *l, struct inspection *in)
{
    TAILQ_REMOVE(&l->inspections, in, link);
    l->n_inspections--;
    free(in);
}

static void fail(struct leader *l, struct inspection *in, int code, const char *why)
{
    char text[PAGE_NAME_SIZE + 100];
    snprintf(text, sizeof text, "node '%s' %s", node_name(l, in->host_id), why);
    reply_error(l, &in->waiter, code, text);
    end(l, in);
}

static struct inspection *by_id(struct leader *l, const struct uuid *id)
{
    struct inspection *in;
    TAILQ_FOREACH (in, &l->inspections, link)
        if (uuid_equal(&in->waiter.request_id, id))
            return in;
    return NULL;
}

void inspect_request(struct leader *l, const struct waiter *w, const Lunar__NodeInspect *m)
{
    if (m->host_id < 1 || m->host_id > l->sb->layout.max_nodes || !node_usable(l, m->host_id)) {
        reply_error(l, w, LUNAR_E_NOT_JOINED, "the node is not in the pool, or does not answer");
        return;
    }
    struct inspection *in = by_id(l, &w->request_id);
    if (in) {
        in->waiter = *w; /* the same client, over another connection */
        return;
    }
    if (l->n_inspections >= INSPECTIONS_MAX) {
        reply_error(l, w, LUNAR_E_BUSY, "too many nodes are being inspected; try again");
        return;
    }
    in = calloc(1, sizeof *in);
    if (!in)
        abort();
    in->waiter = *w;
    in->host_id = m->host_id;
    in->started_ms = l->now_ms;
    TAILQ_INSERT_TAIL(&l->inspections, in, link);
    l->n_inspections++;
    if (command_inspect(l, in->host_id, &in->waiter.request_id) < 0)
        fail(l, in, LUNAR_E_NOT_JOINED, "cannot be asked now");
}

bool inspect_result(struct leader *l, uint32_t host_id, const Lunar__Result *result)
{
    struct uuid id = uuid_from_pb(result->id);
    struct inspection *in = by_id(l, &id);

    if (!in || in->host_id != host_id)
        return false;
    if (result->error && result->error->code < 0)
        reply_error(l, &in->waiter, result->error->code, result->error->text);
    else if (!result->inspection)
        reply_error(l, &in->waiter, LUNAR_E_UNSUPPORTED, "the node's agent cannot be inspected");
    else
        reply_inspection(l, &in->waiter, result->inspection);
    end(l, in);
    return true;
}

void inspect_node_changed(struct leader *l, uint32_t host_id)
{
    struct inspection *in, *next;
    for (in = TAILQ_FIRST(&l->inspections); in; in = next) {
        next = TAILQ_NEXT(in, link);
        if (in->host_id == host_id)
            fail(l, in, LUNAR_E_NOT_JOINED, "has restarted meanwhile; ask again");
    }
}

void inspect_tick(struct leader *l)
{
    struct inspection *in, *next;
    for (in = TAILQ_FIRST(&l->inspections); in; in = next) {
        next = TAILQ_NEXT(in, link);
        if (l->now_ms - in->started_ms > INSPECT_DEADLINE_MS)
            fail(l, in, LUNAR_E_TIMEOUT, "did not answer");
    }
}

void inspect_free_all(struct leader *l)
{
    while (!TAILQ_EMPTY(&l->inspections))
        end(l, TAILQ_FIRST(&l->inspections));
}
