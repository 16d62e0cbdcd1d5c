/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The operation machine: what create, delete, attach and detach have in common.
 *
 * Happy path: a request makes an op (one per volume at a time), the op walks through states that
 * each wait for one outside answer (a commit, a grant write, a node's result), and at the end every
 * waiter is answered once. Failure modes: the same request again joins the op; another request for
 * the volume is told BUSY; a step that fails is handled by the operation's own file; the leader's
 * death loses the op, and the next leader sees on the LUN how far it came.
 */
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "coordinator/leader_internal.h"

#define BIT(state) (1u << OP_STATE_##state)

/* What op_job.c needs, and `after`: where the operation goes on from there. */
#define JOB_MOVES(after)                                                                           \
    [OP_STATE_WAIT_NODE] = BIT(GRANT) | BIT(COMMAND) | BIT(UNGRANT) | BIT(DONE),                   \
    [OP_STATE_GRANT] = BIT(COMMAND) | BIT(UNGRANT) | BIT(DONE),                                    \
    [OP_STATE_COMMAND] = BIT(UNGRANT) | BIT(GRANT) | BIT(DONE),                                    \
    [OP_STATE_UNGRANT] = BIT(WAIT_NODE) | BIT(COMMIT_REMOVE) | BIT(DONE) | (after)

static const uint32_t allowed[OP_KINDS][OP_STATES] = {
    [OP_CREATE] =
        {
            [OP_STATE_START] = BIT(WAIT_SOURCE) | BIT(COMMIT_CREATE) | BIT(WAIT_NODE) | BIT(DONE),
            [OP_STATE_WAIT_SOURCE] = BIT(COMMIT_CREATE) | BIT(DONE),
            [OP_STATE_COMMIT_CREATE] = BIT(WAIT_NODE) | BIT(DONE),
            JOB_MOVES(BIT(COMMIT_MADE)),
            [OP_STATE_COMMIT_MADE] = BIT(DONE),
            [OP_STATE_COMMIT_REMOVE] = BIT(DONE),
        },
    [OP_DELETE] =
        {
            [OP_STATE_START] = BIT(COMMIT_DELETING) | BIT(COMMIT_REMOVE) | BIT(DONE),
            [OP_STATE_COMMIT_DELETING] = BIT(COMMIT_REMOVE) | BIT(DONE),
            [OP_STATE_COMMIT_REMOVE] = BIT(DONE),
        },
    [OP_ATTACH] =
        {
            [OP_STATE_START] = BIT(GRANT) | BIT(COMMAND) | BIT(DONE),
            [OP_STATE_GRANT] = BIT(COMMAND) | BIT(DONE),
            [OP_STATE_COMMAND] = BIT(UNGRANT) | BIT(DONE),
            [OP_STATE_UNGRANT] = BIT(DONE),
        },
    [OP_DETACH] =
        {
            [OP_STATE_START] = BIT(COMMAND) | BIT(UNGRANT) | BIT(DONE),
            [OP_STATE_COMMAND] = BIT(UNGRANT) | BIT(DONE),
            [OP_STATE_UNGRANT] = BIT(DONE),
        },
    [OP_SNAPSHOT] =
        {
            [OP_STATE_START] = BIT(COMMIT_CREATE) | BIT(WAIT_NODE) | BIT(CHAIN_GRANT) |
                               BIT(COMMIT_FROZEN) | BIT(DONE),
            [OP_STATE_COMMIT_CREATE] = BIT(WAIT_NODE) | BIT(DONE),
            JOB_MOVES(BIT(CHAIN_GRANT) | BIT(COMMIT_MADE) | BIT(GROUP)),
            [OP_STATE_CHAIN_GRANT] =
                BIT(COMMIT_MADE) | BIT(OVERLAY) | BIT(COMMIT_FROZEN) | BIT(DONE),
            [OP_STATE_COMMIT_MADE] =
                BIT(CHAIN_GRANT) | BIT(GROUP) | BIT(OVERLAY) | BIT(COMMIT_FROZEN) | BIT(DONE),
            [OP_STATE_GROUP] = BIT(CHAIN_GRANT) | BIT(COMMIT_MADE) | BIT(SUSPEND) | BIT(OVERLAY) |
                               BIT(COMMIT_FROZEN) | BIT(COMMIT_REMOVE) | BIT(DONE),
            [OP_STATE_SUSPEND] = BIT(GROUP) | BIT(OVERLAY) | BIT(COMMIT_FROZEN) | BIT(DONE),
            [OP_STATE_OVERLAY] = BIT(GROUP) | BIT(OVERLAY) | BIT(COMMIT_FROZEN) | BIT(DONE),
            [OP_STATE_COMMIT_FROZEN] = BIT(DONE),
            [OP_STATE_COMMIT_REMOVE] = BIT(DONE),
        },
    [OP_ROLLBACK] =
        {
            [OP_STATE_START] = BIT(COMMIT_CREATE) | BIT(WAIT_NODE) | BIT(COMMIT_FROZEN) | BIT(DONE),
            [OP_STATE_COMMIT_CREATE] = BIT(WAIT_NODE) | BIT(DONE),
            JOB_MOVES(BIT(COMMIT_MADE)),
            [OP_STATE_COMMIT_MADE] = BIT(COMMIT_FROZEN) | BIT(DONE),
            [OP_STATE_COMMIT_FROZEN] = BIT(DONE),
            [OP_STATE_COMMIT_REMOVE] = BIT(DONE),
        },
    [OP_UNSNAP] =
        {
            [OP_STATE_START] = BIT(COMMIT_FROZEN) | BIT(DONE),
            [OP_STATE_COMMIT_FROZEN] = BIT(COMMIT_FROZEN) | BIT(DONE),
        },
    [OP_GARBAGE] =
        {
            [OP_STATE_START] = BIT(COMMIT_REMOVE) | BIT(DONE),
            [OP_STATE_COMMIT_REMOVE] = BIT(DONE),
        },
    [OP_EXPAND] =
        {
            [OP_STATE_START] = BIT(COMMIT_EXPANDING) | BIT(COMMIT_EXTEND) | BIT(WAIT_NODE) |
                               BIT(COMMIT_SIZE) | BIT(RESIZE) | BIT(DONE),
            [OP_STATE_COMMIT_EXPANDING] =
                BIT(COMMIT_EXTEND) | BIT(WAIT_NODE) | BIT(RESIZE) | BIT(DONE),
            [OP_STATE_COMMIT_EXTEND] =
                BIT(COMMIT_EXPANDING) | BIT(WAIT_NODE) | BIT(RESIZE) | BIT(DONE),
            JOB_MOVES(BIT(COMMIT_SIZE)),
            [OP_STATE_COMMIT_SIZE] = BIT(RESIZE) | BIT(DONE),
            [OP_STATE_RESIZE] = BIT(COMMIT_SIZE) | BIT(DONE),
        },
    [OP_IMPORTED] =
        {
            [OP_STATE_START] = BIT(COMMIT_MADE) | BIT(DONE),
            [OP_STATE_COMMIT_MADE] = BIT(DONE),
        },
    [OP_MERGE] =
        {
            [OP_STATE_START] = BIT(COMMIT_EXTEND) | BIT(WAIT_NODE) |
                               BIT(COMMIT_NAME) | BIT(COMMIT_REPARENT) | BIT(DONE),
            [OP_STATE_COMMIT_EXTEND] = BIT(WAIT_NODE) | BIT(DONE),
            [OP_STATE_WAIT_NODE] = BIT(GRANT) | BIT(DONE),
            [OP_STATE_GRANT] = BIT(COMMAND) | BIT(UNGRANT) | BIT(DONE),
            [OP_STATE_COMMAND] = BIT(UNGRANT) | BIT(GRANT) | BIT(DONE),
            [OP_STATE_UNGRANT] = BIT(COMMIT_MERGED) | BIT(DONE),
            [OP_STATE_COMMIT_MERGED] = BIT(COMMIT_NAME) | BIT(COMMIT_REPARENT) | BIT(DONE),
            [OP_STATE_COMMIT_NAME] = BIT(COMMIT_NAME) | BIT(COMMIT_REPARENT) | BIT(DONE),
            [OP_STATE_COMMIT_REPARENT] = BIT(COMMIT_REPARENT) | BIT(DONE),
        },
    [OP_TRIM] =
        {
            [OP_STATE_START] = BIT(WAIT_NODE) | BIT(DONE),
            [OP_STATE_WAIT_NODE] = BIT(GRANT) | BIT(WAIT_NODE) | BIT(DONE),
            [OP_STATE_GRANT] = BIT(COMMAND) | BIT(UNGRANT) | BIT(DONE),
            [OP_STATE_COMMAND] = BIT(UNGRANT) | BIT(GRANT) | BIT(DONE),
            [OP_STATE_UNGRANT] = BIT(COMMIT_GENERATION) | BIT(WAIT_NODE) | BIT(DONE),
            [OP_STATE_COMMIT_GENERATION] = BIT(COMMIT_REDUCE) | BIT(DONE),
            [OP_STATE_COMMIT_REDUCE] = BIT(WAIT_NODE) | BIT(DONE),
        },
    [OP_RELINK] =
        {
            [OP_STATE_START] = BIT(RELINK) | BIT(DONE),
            [OP_STATE_RELINK] = BIT(CHAIN_GRANT) | BIT(DONE),
            [OP_STATE_CHAIN_GRANT] = BIT(DONE),
        },
};

static const char *const kind_names[OP_KINDS] = {
    "create",  "delete", "attach",   "detach", "snapshot", "rollback", "unsnap",
    "garbage", "expand", "imported", "merge",  "trim",     "relink"};

struct op *op_new(struct leader *l, enum op_kind kind, const struct uuid *volume_id)
{
    struct op *op = calloc(1, sizeof *op);
    if (!op)
        abort();
    op->kind = kind;
    op->volume_id = *volume_id;
    op->started_ms = l->now_ms;
    TAILQ_INSERT_TAIL(&l->ops, op, link);
    l->n_ops++;
    return op;
}

void op_move(struct op *op, enum op_state to)
{
    assert(allowed[op->kind][op->state] & 1u << to);
    op->state = to;
    op->token = 0;
}

void op_fail(struct op *op, int code, const char *format, ...)
{
    char text[sizeof op->error.text];
    va_list args;

    if (op->error.code != 0)
        return;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    error_set(&op->error, code, "%s", text);
}

static void answer(struct leader *l, const struct op *op, const struct waiter *w)
{
    const struct catalogue_volume *v =
        catalogue_by_id(l->catalogue, op->kind == OP_TRIM ? &op->source_id : &op->volume_id);
    const struct catalogue_snapshot *s = catalogue_snapshot_by_id(l->catalogue, &op->snapshot_id);

    if (op->error.code != 0)
        reply_error(l, w, op->error.code, op->error.text);
    else if (op->kind == OP_SNAPSHOT && s)
        reply_snapshot(l, w, s);
    else if (op->kind == OP_SNAPSHOT)
        reply_error(l, w, LUNAR_E_METADATA, "the snapshot is not in the metadata any more");
    else if (!v && (op->kind == OP_CREATE || op->kind == OP_ATTACH || op->kind == OP_EXPAND ||
                    op->kind == OP_TRIM || op->kind == OP_IMPORTED))
        reply_error(l, w, LUNAR_E_METADATA, "the volume is not in the metadata any more");
    else if (v && op->kind != OP_DETACH)
        reply_volume(l, w, v, op->device);
    else
        reply_plain(l, w);
}

void op_finish(struct leader *l, struct op *op)
{
    char id[UUID_TEXT_SIZE];

    op_move(op, OP_STATE_DONE);
    if (op->group)
        group_member_done(l, op);
    log_info("op_done kind=%s volume=%s node=%u code=%s ms=%llu%s%s%s", kind_names[op->kind],
             uuid_format(&op->volume_id, id), op->host_id,
             op->error.code ? error_name(op->error.code) : "OK",
             (unsigned long long)(l->now_ms - op->started_ms), op->error.code ? " text=\"" : "",
             op->error.text, op->error.code ? "\"" : "");
    for (uint32_t i = 0; i < op->n_waiters; i++)
        answer(l, op, &op->waiters[i]);
    TAILQ_REMOVE(&l->ops, op, link);
    l->n_ops--;
    if (op->kind == OP_SNAPSHOT)
        create_wake(l, op);
    if (op->kind == OP_TRIM)
        delete_wake(l);
    free(op->dropped);
    free(op);
}

struct op *op_by_volume(struct leader *l, const struct uuid *volume_id)
{
    struct op *op;
    TAILQ_FOREACH (op, &l->ops, link)
        if (uuid_equal(&op->volume_id, volume_id))
            return op;
    return NULL;
}

struct op *op_by_kind(const struct leader *l, enum op_kind kind)
{
    struct op *op;
    TAILQ_FOREACH (op, &l->ops, link)
        if (op->kind == kind)
            return op;
    return NULL;
}

struct op *op_by_name(struct leader *l, const char *name)
{
    struct op *op;
    TAILQ_FOREACH (op, &l->ops, link)
        if (op->kind == OP_CREATE && strcmp(op->name, name) == 0)
            return op;
    return NULL;
}

bool op_is_at_node(const struct op *op)
{
    return op->state == OP_STATE_COMMAND || op->state == OP_STATE_SUSPEND ||
           op->state == OP_STATE_OVERLAY || op->state == OP_STATE_RESIZE ||
           op->state == OP_STATE_RELINK;
}

void reply_busy(struct leader *l, const struct waiter *w, const struct op *op)
{
    static const char *const doing[OP_KINDS] = {
        "created",      "deleted",  "attached", "detached", "snapshotted", "rolled back", "deleted",
        "cleared away", "expanded", "imported", "merged",   "trimmed",     "relinked"};
    char text[PAGE_NAME_SIZE + 128];
    snprintf(text, sizeof text, "the volume is being %s%s%s%s (%llu s by now); try again",
             doing[op->kind], op->host_id ? " on node '" : "",
             op->host_id ? node_name(l, op->host_id) : "", op->host_id ? "'" : "",
             (unsigned long long)(l->now_ms - op->started_ms) / 1000);
    reply_error(l, w, LUNAR_E_BUSY, text);
}

void op_add_waiter(struct leader *l, struct op *op, const struct waiter *w)
{
    for (uint32_t i = 0; i < op->n_waiters; i++) {
        if (!uuid_equal(&op->waiters[i].request_id, &w->request_id))
            continue;
        op->waiters[i] = *w; /* the same request again: its newest road back */
        return;
    }
    if (op->n_waiters == LEADER_WAITERS_MAX)
        reply_error(l, w, LUNAR_E_BUSY, "too many requests wait for this volume; try again");
    else
        op->waiters[op->n_waiters++] = *w;
}

void op_commit(struct leader *l, struct op *op, enum op_state to, const struct catalogue_args *args)
{
    op_move(op, to);
    op->token = l->next_token++;
    l->io->commit(l->data, op->token, args);
}

void op_write_grants(struct leader *l, struct op *op, enum op_state to)
{
    op_move(op, to);
    op->token = l->next_token++;
    op->mark = l->nodes[op->host_id].over.generation;
    over_write_table(l, op->host_id, op->token);
}

void op_send_command(struct leader *l, struct op *op)
{
    const struct catalogue_volume *v = catalogue_by_id(l->catalogue, &op->volume_id);
    struct node *n = &l->nodes[op->host_id];

    if (op_life_is_over(l, op)) {
        op_life_ended(l, op);
        return;
    }
    if (!op_is_at_node(op))
        op_move(op, OP_STATE_COMMAND);
    /* A node that is not heard now is sent the command when its page shows up (leader_node). */
    if (n->seen && command_send(l, op, v) < 0) {
        op->resend = true; /* its queue is full: at the next tick */
        log_warn("command_not_sent kind=%s node=%u", kind_names[op->kind], op->host_id);
    }
}

bool node_usable(const struct leader *l, uint32_t host_id)
{
    const struct node *n = &l->nodes[host_id];
    if (!n->seen || n->leaving || n->sanlock_state == HOST_STATE_FAIL ||
        n->sanlock_state == HOST_STATE_DEAD || l->now_ms > n->last_heard_ms + NODE_SILENT_MS)
        return false;
    if (life_is_over(l, host_id, n->self.generation))
        return false; /* latched: whatever sanlock says of it since (SAFETY 8) */
    return n->sanlock_state == HOST_STATE_LIVE || node_moves(n);
}

bool node_moves(const struct node *n)
{
    return n->last_heard_ms > n->first_heard_ms;
}

const char *node_name(const struct leader *l, uint32_t host_id)
{
    return l->nodes[host_id].name[0] ? l->nodes[host_id].name : "(unknown)";
}

uint32_t node_by_name(const struct leader *l, const char *name)
{
    uint32_t left = 0;
    for (uint32_t h = 1; h <= l->sb->layout.max_nodes; h++) {
        if (strcmp(l->nodes[h].name, name) != 0)
            continue;
        if (node_usable(l, h))
            return h;
        left = h;
    }
    return left;
}

uint32_t node_for_job(const struct leader *l)
{
    uint32_t best = 0;

    for (uint32_t h = 1; h <= l->sb->layout.max_nodes; h++) {
        const struct node *n = &l->nodes[h];
        if (node_usable(l, h) &&
            (best == 0 || n->grants.n_entries < l->nodes[best].grants.n_entries))
            best = h;
    }
    return best;
}

struct table_entry *grant_find(struct leader *l, const struct uuid *volume_id, uint32_t *ret_host)
{
    struct table_entry *left_over = NULL;

    for (uint32_t h = 1; h <= l->sb->layout.max_nodes; h++) {
        struct node *n = &l->nodes[h];
        for (uint32_t i = 0; n->has_grants && i < n->grants.n_entries; i++) {
            struct table_entry *e = &n->grants.entries[i];
            bool old = e->term == TABLE_TERM_LEFT_OVER;
            if (!uuid_equal(&e->volume_id, volume_id) || (old && left_over))
                continue;
            *ret_host = h;
            if (!old)
                return e;
            left_over = e;
        }
    }
    return left_over;
}

bool grant_has_room(const struct leader *l, uint32_t host, uint32_t entries, uint32_t layers)
{
    const struct op *op;

    /* What operations have taken out they may have to put back. */
    TAILQ_FOREACH (op, &l->ops, link) {
        if (!op->dropped || op->host_id != host)
            continue;
        entries++;
        layers += op->dropped->n_layers;
    }
    return table_has_room(&l->nodes[host].grants, entries, layers);
}

static void name_layer(struct table_layer *named, const struct catalogue_layer *layer)
{
    *named = (struct table_layer){layer->volume_short, layer->index, layer->map_generation};
}

bool grant_add(struct leader *l, struct op *op, enum table_mode mode,
               const struct catalogue_layer *layers, uint32_t n_layers)
{
    struct node *n = &l->nodes[op->host_id];

    if (!n->has_grants)
        table_init(&n->grants, TABLE_GRANTS, op->host_id, &l->sb->pool_id);
    n->has_grants = true;
    if (!grant_has_room(l, op->host_id, 1, n_layers) || !trim_may_grant(l, op, layers, n_layers))
        return false;
    struct table_entry *e = table_add(&n->grants);
    if (!e)
        return false;
    e->volume_id = op->volume_id;
    e->attachment_id = op->attachment_id;
    e->generation = n->self.generation;
    e->term = l->self.run_or_term;
    e->mode = mode;
    e->state = TABLE_STATE_GRANTED;
    assert(n_layers <= TABLE_LAYERS_MAX);
    for (uint32_t i = 0; i < n_layers; i++)
        name_layer(&e->layers[e->n_layers++], &layers[i]);
    return true;
}

bool grant_names(const struct table_entry *e, const struct catalogue_layer *layer)
{
    for (uint32_t i = 0; i < e->n_layers; i++)
        if (e->layers[i].volume_short == layer->volume_short && e->layers[i].index == layer->index)
            return true;
    return false;
}

bool grant_prepend(struct leader *l, uint32_t host, struct table_entry *e,
                   const struct catalogue_layer *layer)
{
    if (grant_names(e, layer))
        return true;
    if (e->n_layers == TABLE_LAYERS_MAX || !grant_has_room(l, host, 0, 1) ||
        !trim_may_grant(l, NULL, layer, 1))
        return false;
    memmove(e->layers + 1, e->layers, e->n_layers * sizeof *e->layers);
    name_layer(&e->layers[0], layer);
    e->n_layers++;
    return true;
}

static struct table_entry *find_mode(struct leader *l, const struct uuid *volume_id,
                                     enum table_mode mode, uint32_t *ret_host)
{
    for (uint32_t h = 1; h <= l->sb->layout.max_nodes; h++) {
        struct node *n = &l->nodes[h];
        for (uint32_t i = 0; n->has_grants && i < n->grants.n_entries; i++) {
            struct table_entry *e = &n->grants.entries[i];
            bool left_over = mode == TABLE_MODE_ATTACH && e->term == TABLE_TERM_LEFT_OVER;
            if (e->mode != mode || left_over || !uuid_equal(&e->volume_id, volume_id))
                continue;
            *ret_host = h;
            return e;
        }
    }
    return NULL;
}

struct table_entry *grant_find_attach(struct leader *l, const struct uuid *volume_id,
                                      uint32_t *ret_host)
{
    return find_mode(l, volume_id, TABLE_MODE_ATTACH, ret_host);
}

bool grant_is_left_over(const struct leader *l, const struct uuid *volume_id)
{
    for (uint32_t h = 1; h <= l->sb->layout.max_nodes; h++) {
        const struct node *n = &l->nodes[h];
        for (uint32_t i = 0; n->has_grants && i < n->grants.n_entries; i++) {
            const struct table_entry *e = &n->grants.entries[i];
            if (e->mode == TABLE_MODE_ATTACH && e->term == TABLE_TERM_LEFT_OVER &&
                uuid_equal(&e->volume_id, volume_id))
                return true;
        }
    }
    return false;
}

struct table_entry *grant_find_job(struct leader *l, const struct uuid *volume_id,
                                   uint32_t *ret_host)
{
    return find_mode(l, volume_id, TABLE_MODE_JOB, ret_host);
}

void grant_drop(struct leader *l, struct op *op)
{
    struct table *t = &l->nodes[op->host_id].grants;
    for (uint32_t i = 0; i < t->n_entries; i++) {
        if (!uuid_equal(&t->entries[i].attachment_id, &op->attachment_id) ||
            !uuid_equal(&t->entries[i].volume_id, &op->volume_id))
            continue;
        free(op->dropped);
        op->dropped = malloc(sizeof *op->dropped);
        if (!op->dropped)
            abort();
        *op->dropped = t->entries[i];
        table_remove(t, i);
        return;
    }
}

void grant_restore(struct leader *l, struct op *op)
{
    struct table_entry *e = op->dropped ? table_add(&l->nodes[op->host_id].grants) : NULL;
    if (e)
        *e = *op->dropped;
    else if (op->dropped)
        abort(); /* grant_add keeps the room */
    free(op->dropped);
    op->dropped = NULL;
}

struct table_entry *grant_conflict(struct leader *l, const struct uuid *volume_id, uint32_t host,
                                   uint32_t *ret_host)
{
    bool own_seen = false;
    for (uint32_t h = 1; h <= l->sb->layout.max_nodes; h++) {
        struct node *n = &l->nodes[h];
        for (uint32_t i = 0; n->has_grants && i < n->grants.n_entries; i++) {
            struct table_entry *e = &n->grants.entries[i];
            if (!uuid_equal(&e->volume_id, volume_id))
                continue;
            if (h == host && e->mode == TABLE_MODE_ATTACH && !own_seen &&
                e->term != TABLE_TERM_LEFT_OVER) {
                own_seen = true;
                continue;
            }
            *ret_host = h;
            return e;
        }
    }
    return NULL;
}

struct table_entry *grant_by_attachment(struct leader *l, const struct uuid *volume_id,
                                        const struct uuid *attachment_id, uint32_t *ret_host)
{
    for (uint32_t h = 1; h <= l->sb->layout.max_nodes; h++) {
        struct node *n = &l->nodes[h];
        for (uint32_t i = 0; n->has_grants && i < n->grants.n_entries; i++) {
            struct table_entry *e = &n->grants.entries[i];
            if (!uuid_equal(&e->attachment_id, attachment_id) ||
                !uuid_equal(&e->volume_id, volume_id))
                continue;
            *ret_host = h;
            return e;
        }
    }
    return NULL;
}
