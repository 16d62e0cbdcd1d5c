/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The operator's fence: `lunarctl node fence NODE --i-have-powered-it-off`.
 *
 * Happy path: name, host id and generation fit, the lease has not moved for 3N + 2 s, and has just
 * been read from the LUN to be sure: that life is over from now on, and the answer goes out once
 * its grants are marked in both copies. The same request again finds it over and says so. Where
 * the pool has reservations, they end the node's writes whether it runs or not, and nothing is
 * waited for.
 *
 * Failure modes: the lease still moves: ALIVE, with its age and when to ask again; what was named
 * does not fit: NOT_FOUND or INVALID, and nothing happens; the preempt fails: its error. An
 * operator who swears falsely loses what that machine writes from then on, and perhaps the volume:
 * nothing here can know better.
 */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "coordinator/leader_internal.h"

/* A read of the lease no older than this counts as one made now: two looks. */
#define LOOK_FRESH_MS 2500u
/* Looks begin so long before they may be needed. */
#define LOOK_AHEAD_MS 2000u

static uint64_t age_ms(const struct leader *l, const struct node *n)
{
    return n->renewed_ms && l->now_ms > n->renewed_ms ? l->now_ms - n->renewed_ms : 0;
}

bool leader_suspects(const struct leader *leader, uint32_t host_id, uint64_t now_ms)
{
    const struct node *n = &leader->nodes[host_id];
    uint64_t limit_ms = (uint64_t)leader->times.fence_s * 1000 - LOOK_AHEAD_MS;
    bool can_be_over = n->sanlock_generation > n->over.generation;
    return can_be_over && n->renewed_ms && now_ms > n->renewed_ms + limit_ms;
}

static void refuse_alive(struct leader *l, const struct waiter *w, uint32_t host)
{
    const struct node *n = &l->nodes[host];
    uint64_t age_s = age_ms(l, n) / 1000, limit_s = (uint64_t)l->times.fence_s;
    char text[PAGE_NAME_SIZE + 256];

    snprintf(text, sizeof text,
             "node '%s' (host id %u, generation %llu) renewed its lease %llu s ago, so it was "
             "running then; switch it off, and ask again in %llu s",
             node_name(l, host), host, (unsigned long long)n->sanlock_generation,
             (unsigned long long)age_s, (unsigned long long)(limit_s - age_s));
    reply_error(l, w, LUNAR_E_ALIVE, text);
}

/* Does the request name a life that is there to be fenced? Answers if not. */
static bool names_it(struct leader *l, const struct waiter *w, const Lunar__NodeFence *m)
{
    char text[2 * PAGE_NAME_SIZE + 256] = "";
    int code = LUNAR_E_INVALID;
    bool known = m->host_id >= 1 && m->host_id <= l->sb->layout.max_nodes;
    const struct node *n = known ? &l->nodes[m->host_id] : NULL;

    if (!known || n->sanlock_generation == 0 || !n->seen || m->generation == 0) {
        code = LUNAR_E_NOT_FOUND;
        snprintf(text, sizeof text, "no node '%.200s' with host id %u is in this pool", m->name,
                 m->host_id);
    } else if (strcmp(m->name, n->name) != 0) {
        snprintf(text, sizeof text, "host id %u is node '%s', not '%.200s'; look again", m->host_id,
                 n->name, m->name);
    } else if (m->generation > n->sanlock_generation) {
        snprintf(text, sizeof text, "sanlock knows node '%s' as generation %llu, not %llu yet",
                 n->name, (unsigned long long)n->sanlock_generation,
                 (unsigned long long)m->generation);
        code = LUNAR_E_BUSY;
    } else {
        return true;
    }
    reply_error(l, w, code, text);
    return false;
}

/* May its lease be taken for given up? Answers if not. */
static bool is_still(struct leader *l, const struct waiter *w, uint32_t host)
{
    const struct node *n = &l->nodes[host];

    if (age_ms(l, n) <= (uint64_t)l->times.fence_s * 1000) {
        refuse_alive(l, w, host);
        return false;
    }
    if (n->looked_ms + LOOK_FRESH_MS < l->now_ms) {
        reply_error(l, w, LUNAR_E_BUSY,
                    "its lease is being read from the LUN first; ask again in a second");
        return false;
    }
    return true;
}

void fence_request(struct leader *l, const struct waiter *w, const Lunar__NodeFence *m)
{
    if (!names_it(l, w, m))
        return;
    struct node *n = &l->nodes[m->host_id];
    bool over = life_is_over(l, m->host_id, m->generation);
    if (n->over.fencing && !uuid_equal(&n->over.fencer.request_id, &w->request_id)) {
        reply_error(l, w, LUNAR_E_BUSY, "this node is being fenced; ask again");
        return;
    }
    if (!over && !l->io->preempt && !is_still(l, w, m->host_id))
        return;
    n->over.fencing = true;
    n->over.fencer = *w;
    n->over.fence = m->generation;
    if (!over) {
        log_warn("node_fenced node=%u name=%s generation=%llu entries=%u by_node=%u", m->host_id,
                 n->name, (unsigned long long)m->generation,
                 n->has_grants ? n->grants.n_entries : 0, w->host_id);
        over_fenced(l, m->host_id, m->generation);
    }
    fence_marked(l, m->host_id);
}

void fence_marked(struct leader *l, uint32_t host_id)
{
    struct death *over = &l->nodes[host_id].over;

    if (!over->fencing || over->generation < over->fence || !over_is_settled(l, host_id))
        return;
    over->fencing = false;
    reply_plain(l, &over->fencer);
}

void fence_failed(struct leader *l, uint32_t host_id, const struct error *err)
{
    struct death *over = &l->nodes[host_id].over;

    if (!over->fencing || over->generation >= over->fence)
        return;
    over->fencing = false;
    if (over->dead == over->fence && l->nodes[host_id].sanlock_state != HOST_STATE_DEAD)
        over->dead = over->generation; /* the operator may ask again: his word was for this time */
    reply_error(l, &over->fencer, err->code, err->text);
}
