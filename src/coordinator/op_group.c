/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots of several volumes at one instant (SAFETY 21): all of them or none.
 *
 * Happy path. Each member is a snapshot of its own (op_snapshot.c) that waits in OP_STATE_GROUP
 * until all are as far: all formatted; all flipped in the catalogue, each saying that its layer
 * becomes a snapshot if the group is whole; all writers suspended, which the last answer tells; all
 * switched to their new layers, each node letting its writer go on at once; one commit that calls
 * the group whole (a tag of the VG); each layer gets its role; the tag goes.
 *
 * Why that is one instant. When the last Suspend was answered nothing was in flight anywhere, and
 * every writer stood still. No node was told to switch before, and each answers only if the very
 * suspension that it told of stood until it had switched. So all writers stood still at the moment
 * of that last answer, and each former leaf holds exactly what had been written by then. The long
 * steps, formatting and every commit, lie before or behind the time at which writers wait.
 *
 * The commit point is the VG's tag: one commit, however many members there are. Before it the
 * layers become plain frozen ones, or are removed if nothing was flipped yet; after it they become
 * snapshots, whichever leader does it. A layer has no role of its own before the leader knows.
 *
 * Failure modes: a member fails, a node is silent, restarts, or is over its deadline: all are let
 * go, all members end as nobody's snapshot, and the client is told which one it was. The leader is
 * lost: the agents' deadlines pass, and the next leader goes by the tag. A node resumed by its
 * deadline and suspended anew tells another id: an answer of before does not stand for it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "coordinator/leader_internal.h"

/* What is under way. */
enum stage { FORMATTING, FLIPPING, SUSPENDING, SWITCHING, DECIDING, FINISHING };

struct group {
    TAILQ_ENTRY(group) link;
    struct uuid id; /* the request's: the same request again finds what it has made */
    struct waiter waiter;
    bool freeze;
    enum stage stage;
    struct op *ops[LEADER_GROUP_MAX]; /* NULL: it has ended */
    uint32_t n, n_left, n_arrived;
    uint32_t walking; /* somebody goes through `ops`: it must not be freed */
    uint64_t suspended_ms;
    uint64_t token; /* of the commit that calls it whole; 0: none is out */
    bool failed;    /* it will never be whole */
    bool answered;
    struct error error; /* what the client is told; code 0: success so far */
};

const struct uuid *group_id(const struct group *g)
{
    return &g->id;
}

bool group_freezes(const struct group *g)
{
    return g->freeze;
}

bool group_has_failed(const struct group *g)
{
    return g->failed;
}

static struct group *find(struct leader *l, const struct uuid *id)
{
    struct group *g;
    TAILQ_FOREACH (g, &l->groups, link)
        if (uuid_equal(&g->id, id))
            return g;
    return NULL;
}

static void answer_failure(struct leader *l, struct group *g)
{
    if (!g->answered)
        reply_error(l, &g->waiter, g->error.code, g->error.text);
    g->answered = true;
}

void group_give_up(struct leader *l, struct op *op)
{
    answer_failure(l, op->group);
}

/* All members have ended. */
static void end_if_done(struct leader *l, struct group *g)
{
    if (g->n_left > 0 || g->walking > 0)
        return;
    TAILQ_REMOVE(&l->groups, g, link);
    log_info("group_done members=%u code=%s", g->n,
             g->error.code ? error_name(g->error.code) : "OK");
    if (g->error.code != 0)
        answer_failure(l, g);
    else
        reply_group(l, &g->waiter, &g->id);
    free(g);
    group_tidy(l);
}

static void walk(struct leader *l, struct group *g, void (*step)(struct leader *, struct op *),
                 const struct op *except)
{
    bool failed = g->failed;

    g->walking++;
    for (uint32_t i = 0; i < g->n && g->failed == failed; i++)
        if (g->ops[i] && g->ops[i] != except)
            step(l, g->ops[i]);
    g->walking--;
}

/* --- failure --- */

static void fail(struct leader *l, struct group *g, const struct op *except, int code,
                 const char *text)
{
    if (g->failed)
        return;
    g->failed = true;
    error_set(&g->error, code, "%s; none of the group's snapshots was made", text);
    log_warn("group_failed stage=%d code=%s text=\"%s\"", (int)g->stage, error_name(code), text);
    for (uint32_t i = 0; i < g->n; i++)
        if (g->ops[i])
            op_fail(g->ops[i], code, "%s", g->error.text);
    walk(l, g, snapshot_leave_group, except);
}

void group_fail(struct leader *l, struct op *op, int code, const char *text)
{
    char words[VOLUME_NAME_MAX + sizeof op->error.text + 40];

    snprintf(words, sizeof words, "snapshot '%s': %s", op->name, text);
    fail(l, op->group, op, code, words);
}

void group_member_done(struct leader *l, struct op *op)
{
    struct group *g = op->group;

    for (uint32_t i = 0; i < g->n; i++)
        if (g->ops[i] == op)
            g->ops[i] = NULL;
    g->n_left--;
    if (g->stage != FINISHING && !g->failed)
        group_fail(l, op, op->error.code ? op->error.code : LUNAR_E_INDETERMINATE,
                   op->error.code ? op->error.text : "it has ended before the others");
    else if (op->error.code != 0 && g->error.code == 0)
        g->error = op->error; /* the group is whole; this one is completed later */
    end_if_done(l, g);
}

/* --- the stages --- */

static void decide(struct leader *l, struct group *g)
{
    struct catalogue_args args;
    char vg[POOL_NAME_SIZE + 6];

    log_info("group_switched members=%u ms=%llu", g->n,
             (unsigned long long)(l->now_ms - g->suspended_ms));
    for (uint32_t i = 0; i < g->n; i++) {
        if (!snapshot_may_be_elsewhere(l, g->ops[i]))
            continue;
        fail(l, g, NULL, LUNAR_E_BUSY,
             "the grants of another node name one of the volumes, too: detach it there first "
             "(lunarctl verify)");
        return;
    }
    pool_vg_name(l->sb->pool_name, vg);
    catalogue_group_args(vg, &g->id, true, &args);
    g->token = l->next_token++;
    l->io->commit(l->data, g->token, &args);
}

static void advance(struct leader *l, struct group *g)
{
    static void (*const steps[])(struct leader *, struct op *) = {
        [FLIPPING] = snapshot_flip, [SUSPENDING] = snapshot_suspend, [SWITCHING] = snapshot_switch};

    /* Stages in which nobody has anything to do arrive at once. */
    while (!g->failed && g->stage < DECIDING && g->n_arrived == g->n) {
        g->stage++;
        g->n_arrived = 0;
        if (g->stage == SUSPENDING)
            g->suspended_ms = l->now_ms;
        if (g->stage == DECIDING)
            decide(l, g);
        else
            walk(l, g, steps[g->stage], NULL);
    }
}

void group_arrived(struct leader *l, struct op *op)
{
    struct group *g = op->group;

    g->n_arrived++;
    if (g->walking > 0)
        return; /* advance() looks when it is through */
    g->walking++;
    advance(l, g);
    g->walking--;
    end_if_done(l, g);
}

bool group_commit_done(struct leader *l, uint64_t token, int rc, const struct error *err)
{
    struct group *g;

    if (token == l->group_token) {
        l->group_token = 0;
        if (rc == 0)
            group_tidy(l);
        return true;
    }
    TAILQ_FOREACH (g, &l->groups, link)
        if (g->token == token)
            break;
    if (!g)
        return false;
    g->token = 0;
    g->walking++;
    if (catalogue_group_is_whole(l->catalogue, &g->id)) {
        g->stage = FINISHING;
        walk(l, g, snapshot_freeze, NULL);
    } else {
        fail(l, g, NULL, rc < 0 ? rc : LUNAR_E_INDETERMINATE,
             rc < 0 ? err->text : "the group is not in the metadata");
    }
    g->walking--;
    end_if_done(l, g);
    return true;
}

void group_tick(struct leader *l)
{
    struct group *g, *next;

    for (g = TAILQ_FIRST(&l->groups); g; g = next) {
        next = TAILQ_NEXT(g, link);
        if (g->n == 0 && !catalogue_group_is_needed(l->catalogue, &g->id)) {
            end_if_done(l, g); /* a predecessor's */
            continue;
        }
        bool holds = g->stage == SUSPENDING || g->stage == SWITCHING;
        if (!holds || g->failed || l->now_ms - g->suspended_ms <= LEADER_HOLD_MS)
            continue;
        g->walking++;
        fail(l, g, NULL, LUNAR_E_TIMEOUT, "not all nodes stood still in time");
        g->walking--;
        end_if_done(l, g);
    }
}

void group_tidy(struct leader *l)
{
    struct catalogue_args args;
    char vg[POOL_NAME_SIZE + 6];

    for (uint32_t i = 0; i < l->catalogue->n_groups && l->group_token == 0; i++) {
        const struct uuid *id = &l->catalogue->groups[i];
        if (catalogue_group_is_needed(l->catalogue, id) || find(l, id))
            continue;
        pool_vg_name(l->sb->pool_name, vg);
        catalogue_group_args(vg, id, false, &args);
        l->group_token = l->next_token++;
        l->io->commit(l->data, l->group_token, &args);
    }
}

void group_free_all(struct leader *l)
{
    struct group *g;

    while ((g = TAILQ_FIRST(&l->groups))) {
        TAILQ_REMOVE(&l->groups, g, link);
        free(g);
    }
}

/* --- requests --- */

static bool is_twice(const Lunar__SnapshotGroup *m, size_t i)
{
    struct uuid volume = uuid_from_pb(m->members[i]->volume_id);

    for (size_t k = 0; k < i; k++) {
        struct uuid other = uuid_from_pb(m->members[k]->volume_id);
        if (uuid_equal(&volume, &other) || strcmp(m->members[i]->name, m->members[k]->name) == 0)
            return true;
    }
    return false;
}

static int check_member(struct leader *l, const Lunar__SnapshotGroup *m, size_t i,
                        struct error *err)
{
    const char *name = m->members[i]->name;
    struct uuid id = uuid_from_pb(m->members[i]->volume_id);
    const struct catalogue_volume *v = catalogue_by_id(l->catalogue, &id);
    int rc = volume_name_check(name, err);

    if (rc < 0)
        return rc;
    if (is_twice(m, i))
        return error_set(err, LUNAR_E_INVALID, "a volume or a name is there twice");
    if (!v)
        return error_set(err, LUNAR_E_NOT_FOUND, "no such volume");
    if (catalogue_snapshot_by_name(l->catalogue, name))
        return error_set(err, LUNAR_E_EXISTS, "a snapshot of this name exists");
    if (snapshot_op_by_name(l, name))
        return error_set(err, LUNAR_E_BUSY, "a snapshot of this name is being made; try again");
    return snapshot_check(l, v, err);
}

static int check_request(struct leader *l, const Lunar__SnapshotGroup *m, struct error *err)
{
    int rc = 0;

    if (m->n_members == 0 || m->n_members > LEADER_GROUP_MAX)
        return error_set(err, LUNAR_E_INVALID, "a group has 1 to %u volumes", LEADER_GROUP_MAX);
    if (l->n_ops + m->n_members > LEADER_OPS_MAX)
        return error_set(err, LUNAR_E_BUSY, "the coordinator has too much to do; try again");
    for (size_t i = 0; rc == 0 && i < m->n_members; i++) {
        rc = check_member(l, m, i, err);
        if (rc < 0)
            error_prefix(err, "snapshot '%s'", m->members[i]->name);
    }
    return rc;
}

/* Of these very volumes, under these very names: the same was asked for before, by this request or
 * by one whose answer was lost. NULL: there is no such group. */
static const struct uuid *made_group(struct leader *l, const Lunar__SnapshotGroup *m)
{
    const struct uuid *group = NULL;
    size_t n = 0;

    for (size_t i = 0; i < m->n_members; i++) {
        const struct catalogue_snapshot *s =
            catalogue_snapshot_by_name(l->catalogue, m->members[i]->name);
        struct uuid volume = uuid_from_pb(m->members[i]->volume_id);
        if (!s || !s->ready || is_twice(m, i) || uuid_is_zero(&s->group) ||
            !uuid_equal(&s->volume_id, &volume) || (group && !uuid_equal(group, &s->group)))
            return NULL;
        group = &s->group;
    }
    for (uint32_t i = 0; group && i < l->catalogue->n_snapshots; i++)
        n += uuid_equal(&l->catalogue->snapshots[i].group, group);
    return n == m->n_members ? group : NULL;
}

void group_request(struct leader *l, const struct waiter *w, const Lunar__SnapshotGroup *m)
{
    struct error err = ERROR_INIT;
    struct group *g = find(l, &w->request_id);

    if (g) {
        g->waiter = *w; /* the same again: its newest road back */
        return;
    }
    const struct uuid *made = made_group(l, m);
    if (made) {
        reply_group(l, w, made);
        return;
    }
    /* A predecessor called it whole: this leader completes it (change_resume), and nothing is
     * begun, for which that note would count, too. */
    bool whole = catalogue_group_is_whole(l->catalogue, &w->request_id);
    if (!whole && check_request(l, m, &err) < 0) {
        reply_error(l, w, err.code, err.text);
        return;
    }
    g = calloc(1, sizeof *g);
    if (!g)
        abort();
    g->id = w->request_id;
    g->waiter = *w;
    g->freeze = m->freeze;
    g->stage = whole ? FINISHING : FORMATTING;
    TAILQ_INSERT_TAIL(&l->groups, g, link);
    for (size_t i = 0; !whole && i < m->n_members; i++) {
        struct uuid id = uuid_from_pb(m->members[i]->volume_id);
        g->ops[g->n++] = snapshot_start(l, catalogue_by_id(l->catalogue, &id), m->members[i]->name,
                                        w->host_id, g);
        g->n_left++;
    }
}
