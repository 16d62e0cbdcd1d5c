/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attaching and detaching.
 *
 * Attach: the grant is written to both copies and read back before the node hears of it; the node
 * builds its stack and answers with the device. Detach: the node tears down and says so; only then
 * is the grant erased. So at every moment the grant table names every node that may have the volume
 * open, and a second attach elsewhere is refused by it.
 *
 * Failure modes: the leader dies after the grant: the entry stands, a repeated attach to the same
 * node takes it up again, a detach asks the node and erases it. The node refuses (no such device,
 * QSD failed): it has torn down, the grant is erased. The node does not answer: the client gets a
 * time-out, the grant stands, for the node may have it open. The outcome of the grant write is
 * unknown: the grant stands and the client is told to repeat. A node that is gone keeps its grants
 * until its life is proved over (over.c); then an attach that it was at fails, a detach is done.
 */
#include <stdio.h>
#include <string.h>

#include "coordinator/leader_internal.h"

static bool check_volume(struct leader *l, const struct waiter *w, const struct catalogue_volume *v,
                         bool importing)
{
    if (!v)
        reply_error(l, w, LUNAR_E_NOT_FOUND, "no such volume");
    else if (catalogue_volume_is_new(v))
        reply_error(l, w, LUNAR_E_BUSY, "the volume is still being created; try again");
    else if (catalogue_volume_is_deleting(v))
        reply_error(l, w, LUNAR_E_NOT_FOUND, "the volume is being deleted");
    else if (v->importing && !importing)
        reply_error(l, w, LUNAR_E_BUSY,
                    "the volume is being imported, and not all of it is there; if its import has "
                    "died, delete it");
    else if (importing && !v->importing)
        reply_error(l, w, LUNAR_E_INVALID, "the volume is not being imported");
    else
        return true;
    return false;
}

/* Its page is there, of a life that sanlock does not know yet, and has not moved under our eyes. */
static bool has_just_joined(const struct leader *l, const struct node *n)
{
    return !n->leaving && n->self.generation > n->sanlock_generation && !node_moves(n) &&
           l->now_ms <= n->last_heard_ms + NODE_SILENT_MS;
}

static const char *why_unusable(const struct leader *l, uint32_t host)
{
    const struct node *n = &l->nodes[host];

    if (life_is_over(l, host, n->self.generation))
        return "proved dead in this life: it has to join again, as a reboot makes it";
    if (n->leaving)
        return "leaving the pool";
    if (n->sanlock_state == HOST_STATE_LIVE)
        return "silent: is its lunar-agent running?";
    return host_state_name(n->sanlock_state);
}

static void refuse_node(struct leader *l, const struct waiter *w, uint32_t host)
{
    const struct node *n = &l->nodes[host];
    char text[512];

    if (!life_is_over(l, host, n->self.generation) && has_just_joined(l, n)) {
        snprintf(text, sizeof text, "node '%s' has just joined; ask again in a few seconds",
                 node_name(l, host));
        reply_error(l, w, LUNAR_E_BUSY, text);
        return;
    }
    snprintf(text, sizeof text, "node '%s' is %s", node_name(l, host), why_unusable(l, host));
    reply_error(l, w, LUNAR_E_NOT_JOINED, text);
}

/* The node by name or id; answers the client and returns 0 if there is none that could attach. */
static uint32_t check_node(struct leader *l, const struct waiter *w, const Lunar__VolumeAttach *m)
{
    char text[512];
    uint32_t host = m->host_id;

    if (m->node[0])
        host = node_by_name(l, m->node);
    if (host == 0 || host > l->sb->layout.max_nodes || !l->nodes[host].seen) {
        snprintf(text, sizeof text, "no node '%s' has joined this pool (lunarctl node list)",
                 m->node);
        reply_error(l, w, LUNAR_E_NOT_FOUND, text);
        return 0;
    }
    if (!node_usable(l, host)) {
        refuse_node(l, w, host);
        return 0;
    }
    return host;
}

static void refuse_held(struct leader *l, const struct waiter *w, const struct catalogue_volume *v,
                        uint32_t host, const struct table_entry *e)
{
    char text[1024], id[UUID_TEXT_SIZE];
    snprintf(text, sizeof text,
             "volume '%s' is attached to node '%s' (host id %u, attachment %s); detach it there "
             "first%s",
             v->name, node_name(l, host), host, uuid_format(&e->attachment_id, id),
             node_usable(l, host) ? ""
                                  : ", or, if that node is off, ask again when its death is proved "
                                    "(lunarctl node list says when)");
    reply_error(l, w, LUNAR_E_IN_USE, text);
}

/* Does an entry stand in the way of an attach to `host`? Then that is answered. */
static bool is_held(struct leader *l, const struct waiter *w, const struct catalogue_volume *v,
                    uint32_t host)
{
    uint32_t by = 0;
    const struct table_entry *held = grant_conflict(l, &v->id, host, &by);

    if (!held)
        return false;
    if (life_is_over(l, by, held->generation))
        reply_taking(l, w, by, held);
    else if (held->term == TABLE_TERM_LEFT_OVER && detach_resume(l, by, held))
        reply_busy(l, w, op_by_volume(l, &v->id));
    else
        refuse_held(l, w, v, by, held);
    return true;
}

/* A former life of the same node has it, and the LUN does not refuse that life yet (over.c,
 * supersede). Then that is answered. */
static bool is_held_by_former(struct leader *l, const struct waiter *w,
                              const struct uuid *volume_id, uint32_t host)
{
    uint32_t by = 0;
    const struct table_entry *held = l->io->preempt ? grant_find(l, volume_id, &by) : NULL;

    if (!held || by != host || held->generation >= l->nodes[host].self.generation ||
        life_is_over(l, by, held->generation))
        return false;
    reply_taking(l, w, by, held);
    return true;
}

/* Grants the volume to the op's node, or finds the grant that stands, and goes on. */
static void grant_and_go(struct leader *l, struct op *op, const struct catalogue_volume *v)
{
    struct node *n = &l->nodes[op->host_id];
    uint32_t host = 0;
    const struct table_entry *held = grant_find(l, &op->volume_id, &host);

    op->attachment_id = held ? held->attachment_id : uuid_random();
    if (held && held->generation == n->self.generation) {
        if (n->grants_unsure) /* SAFETY 3: both copies before the command */
            op_write_grants(l, op, OP_STATE_GRANT);
        else
            op_send_command(l, op);
        return;
    }
    if (held) {
        /* Granted to a former life of the same node: the new life gets a grant of its own. */
        grant_drop(l, op);
        op->attachment_id = uuid_random();
    }
    op->fresh_grant = true;
    if (grant_add(l, op, TABLE_MODE_ATTACH, v->layers, v->n_layers)) {
        op_write_grants(l, op, OP_STATE_GRANT);
        return;
    }
    grant_restore(l, op);
    op_fail(op, LUNAR_E_FULL, "node '%s' has as many volumes as its grant table holds",
            node_name(l, op->host_id));
    op_finish(l, op);
}

void attach_request(struct leader *l, const struct waiter *w, const Lunar__VolumeAttach *m)
{
    struct uuid volume_id = uuid_from_pb(m->volume_id);
    const struct catalogue_volume *v = catalogue_by_id(l->catalogue, &volume_id);
    uint32_t host;

    if (!check_volume(l, w, v, m->importing) || (host = check_node(l, w, m)) == 0)
        return;
    relink_gives_way(l, &volume_id);
    struct op *op = op_by_volume(l, &volume_id);
    if (op && op->kind == OP_ATTACH && op->host_id == host) {
        op_add_waiter(l, op, w);
        return;
    }
    if (op) {
        reply_busy(l, w, op);
        return;
    }
    if (is_held(l, w, v, host) || is_held_by_former(l, w, &volume_id, host))
        return;
    if (v->overlay) { /* half-made, of an attempt that failed: first what it is to be */
        change_resume(l, v);
        reply_error(l, w, LUNAR_E_BUSY,
                    "a snapshot or rollback of the volume is being completed; try again");
        return;
    }
    if (trim_frees(l, v)) {
        reply_error(l, w, LUNAR_E_BUSY,
                    "space behind the end of one of its layers is being given back; try again");
        return;
    }
    op = op_new(l, OP_ATTACH, &volume_id);
    op->host_id = host;
    op->command_id = uuid_random();
    op_add_waiter(l, op, w);
    grant_and_go(l, op, v);
}

/* A refusal erases the grant only if this operation made it: under an older grant the node may have
 * the volume open, whatever it says about this command. */
static void after_attach(struct leader *l, struct op *op, int rc, const struct error *err)
{
    if (rc < 0)
        op_fail(op, rc, "node '%s': %s", node_name(l, op->host_id), err->text);
    if (rc == 0 || rc == LUNAR_E_INDETERMINATE || !op->fresh_grant) {
        op_finish(l, op);
        return;
    }
    grant_drop(l, op);
    op_write_grants(l, op, OP_STATE_UNGRANT);
}

void attach_step(struct leader *l, struct op *op, int rc, const struct error *err)
{
    switch (op->state) {
    case OP_STATE_GRANT:
        if (rc == 0) {
            op_send_command(l, op);
            return;
        }
        op_fail(op, rc, "the grant could not be written: %s", err->text);
        op_finish(l, op);
        return;
    case OP_STATE_COMMAND:
        after_attach(l, op, rc, err);
        return;
    default:
        if (rc < 0)
            grant_restore(l, op); /* the LUN may still say so */
        op_finish(l, op);
    }
}

/* Which entry a detach means; answers the client and returns NULL where there is nothing to do or
 * to choose. */
static struct table_entry *detach_target(struct leader *l, const struct waiter *w,
                                         const struct uuid *volume_id,
                                         const struct uuid *attachment_id, uint32_t *ret_host)
{
    struct table_entry *e;

    if (uuid_is_zero(attachment_id) && grant_find(l, volume_id, ret_host)) {
        reply_error(
            l, w, LUNAR_E_INVALID,
            "the volume is attached: name the attachment, so that a repeated detach cannot hit "
            "a later one");
        return NULL;
    }
    e = grant_by_attachment(l, volume_id, attachment_id, ret_host);
    if (!e) {
        reply_plain(l, w); /* not attached (any more): that is what was asked for */
        return NULL;
    }
    return e;
}

/* The node is asked, unless that life of it is over. Nothing is answered inline. */
static struct op *detach_new(struct leader *l, uint32_t host, const struct table_entry *e)
{
    struct op *op = op_new(l, OP_DETACH, &e->volume_id);

    op->host_id = host;
    op->attachment_id = e->attachment_id;
    op->command_id = uuid_random();
    op_send_command(l, op);
    return op;
}

void detach_request(struct leader *l, const struct waiter *w, const Lunar__VolumeDetach *m)
{
    struct uuid volume_id = uuid_from_pb(m->volume_id);
    struct uuid attachment_id = uuid_from_pb(m->attachment_id);
    relink_gives_way(l, &volume_id);
    struct op *op = op_by_volume(l, &volume_id);
    uint32_t host = 0;

    /* Of this attachment: an entry that is left over may be detached meanwhile, and its end says
     * nothing about ours (SAFETY 6). */
    if (op && op->kind == OP_DETACH && uuid_equal(&op->attachment_id, &attachment_id)) {
        op_add_waiter(l, op, w);
        return;
    }
    if (op && !snapshot_gives_way(l, op)) {
        reply_busy(l, w, op);
        return;
    }
    const struct table_entry *e = detach_target(l, w, &volume_id, &attachment_id, &host);
    if (!e)
        return;
    if (!life_is_over(l, host, e->generation) && !node_usable(l, host)) {
        char text[512];
        snprintf(
            text, sizeof text,
            "node '%s' has it and does not answer; it stays attached until that node is back or "
            "proved dead",
            node_name(l, host));
        reply_error(l, w, LUNAR_E_NOT_JOINED, text);
        return;
    }
    op_add_waiter(l, detach_new(l, host, e), w);
}

bool detach_resume(struct leader *l, uint32_t host, const struct table_entry *e)
{
    bool may = life_is_over(l, host, e->generation) || node_usable(l, host);
    if (may)
        detach_new(l, host, e);
    return may;
}

void detach_step(struct leader *l, struct op *op, int rc, const struct error *err)
{
    if (rc < 0 && op->state == OP_STATE_UNGRANT) {
        grant_restore(l, op);
        op_fail(op, rc, "torn down, but the grant could not be erased (detach again): %s",
                err->text);
    } else if (rc < 0) {
        op_fail(op, rc, "node '%s': %s", node_name(l, op->host_id), err->text);
    }
    if (rc < 0 || op->state == OP_STATE_UNGRANT) {
        op_finish(l, op);
        return;
    }
    grant_drop(l, op);
    op_write_grants(l, op, OP_STATE_UNGRANT);
}
