/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Extending the pool (`lunarctl pool extend`): its LUNs have grown, or it gets another one.
 *
 * Happy path of a LUN that has grown: the catalogue is read anew, with the size of each LUN as this
 * node sees it now. A LUN that has grown is asked about on every usable node (ProbePv), and when
 * all see its new size, one commit (pvresize) makes the new space LVM's. Then the next LUN.
 *
 * Happy path of another LUN: lunarctl has made an empty PV of it, whose uuid fits the LUN's WWID
 * (diskrpc/pv.h). Every usable node is asked whether it finds that, and when all do, one commit
 * (vgextend) makes it the VG's: there is no half of it.
 *
 * Why it is enough to ask who is usable now. What an extent behind the old end needs is a table on
 * the node that maps it, and a node that does not see the new size cannot load such a table: the
 * kernel refuses a target beyond the device's end, and the agent says before that what to do. So
 * nothing is ever written in a wrong place, whoever was silent or joins later; it is only that
 * volumes with such extents cannot be attached there, and growing ones wait, until somebody has the
 * node look again. The same holds of a LUN that a node does not find: its uuid with another WWID, a
 * copy, is not taken for it. To ask beforehand spares that where it can be spared. A standby
 * coordinator that does not see the new size cannot read the second metadata area, which moves to
 * the new end, so it does not lead (SAFETY 4).
 *
 * The place where that area was is given to volumes from then on. A write of a dead leader that
 * comes as late as that would hit them, as its late writes to volumes would, and is kept off by the
 * same things: children that die with their coordinator (SAFETY 1), proof of death, reservations
 * (SAFETY 13). In a pool with reservations every member would have to register on the other LUN
 * before it is used, and a takeover to preempt there: that is not done yet, so it is refused.
 *
 * Failure modes: a node does not see it, or does not answer: refused, with all such nodes and their
 * words. This node sees less than LVM has: refused, since pvresize would shrink the PV. The leader
 * dies: nothing is half-done that the same request to the next leader does not finish; a pvresize
 * that was killed in the middle is the committer's to mend.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/size.h"
#include "coordinator/leader_internal.h"

#define PROBE_DEADLINE_MS (30u * 1000)

enum extend_state {
    EXTEND_LOOK,   /* the catalogue is being read anew */
    EXTEND_PROBE,  /* nodes are asked */
    EXTEND_COMMIT, /* the PV is being resized or added */
};

/* One node's answer. */
struct probe {
    uint32_t host_id;
    bool answered;
};

struct extension {
    enum extend_state state;
    struct waiter waiter;
    uint64_t token; /* of the commit that is awaited */
    uint64_t asked_ms;
    struct uuid command_id;
    bool adds;        /* another LUN; else what has grown */
    struct lvm_pv pv; /* that is being asked about */
    struct probe *probes;
    uint32_t n_probes, n_answered;
    uint64_t grown;     /* bytes that the pool has more by now */
    char refusals[700]; /* the nodes that do not see it, and their words; "": none */
};

static void end(struct leader *l)
{
    free(l->extension->probes);
    free(l->extension);
    l->extension = NULL;
}

static void fail(struct leader *l, int code, const char *words)
{
    log_warn("pool_not_extended code=%s text=\"%s\"", error_name(code), words);
    reply_error(l, &l->extension->waiter, code, words);
    end(l);
}

/* Bytes of extents that a PV would have on its device as it is now. The first one has a metadata
 * area at the device's end, as `lun format` has made it. */
static uint64_t size_on_device(const struct catalogue *c, const struct lvm_pv *pv)
{
    uint64_t not_extents = pv->pe_start + (pv->index == 0 ? LAYOUT_LVM_METADATA_SIZE : 0);
    if (pv->device_size < not_extents)
        return 0;
    return (pv->device_size - not_extents) / c->extent_size * c->extent_size;
}

static void look(struct leader *l)
{
    static const struct catalogue_args nothing; /* only to be read anew */
    struct extension *x = l->extension;
    x->state = EXTEND_LOOK;
    x->token = l->next_token++;
    l->io->commit(l->data, x->token, &nothing);
}

static void refuse_smaller(struct leader *l, const struct lvm_pv *pv)
{
    char text[512], have[SIZE_TEXT_SIZE], want[SIZE_TEXT_SIZE];
    snprintf(text, sizeof text,
             "node '%s', where the coordinator runs, sees LUN %u with %s, but %s of it are in use: "
             "have it look again (docs/OPERATIONS.md, A LUN grows)",
             node_name(l, l->self.host_id), pv->index, size_format(pv->device_size, have),
             size_format(pv->pe_start + pv->size, want));
    fail(l, LUNAR_E_NOT_FOUND, text);
}

static bool send_probe(struct leader *l, uint32_t host)
{
    const struct extension *x = l->extension;
    return command_probe(l, host, &x->command_id, &x->pv) == 0;
}

static void add_refusal(struct leader *l, uint32_t host, const char *words)
{
    struct extension *x = l->extension;
    size_t used = strlen(x->refusals);
    snprintf(x->refusals + used, sizeof x->refusals - used, "%snode '%s': %s", used ? "; " : "",
             node_name(l, host), words);
}

static void commit(struct leader *l)
{
    struct catalogue_args args;
    struct extension *x = l->extension;
    x->state = EXTEND_COMMIT;
    x->token = l->next_token++;
    if (x->adds) {
        char vg[POOL_NAME_SIZE + 6];
        pool_vg_name(l->sb->pool_name, vg);
        catalogue_add_pv_args(vg, x->pv.uuid, &args);
    } else {
        catalogue_resize_pv_args(&x->pv, &args);
    }
    l->io->commit(l->data, x->token, &args);
}

/* All nodes have said what they see, or will not. */
static void judge(struct leader *l)
{
    struct extension *x = l->extension;
    char text[1000];

    if (!x->refusals[0]) {
        commit(l);
        return;
    }
    snprintf(text, sizeof text, "not every node sees it, so nothing was changed: %s", x->refusals);
    fail(l, LUNAR_E_NOT_FOUND, text);
}

static void probe(struct leader *l, const struct lvm_pv *pv)
{
    struct extension *x = l->extension;

    x->state = EXTEND_PROBE;
    x->asked_ms = l->now_ms;
    x->command_id = uuid_random();
    x->pv = *pv;
    x->n_probes = x->n_answered = 0;
    for (uint32_t h = 1; h <= l->sb->layout.max_nodes; h++) {
        if (!node_usable(l, h))
            continue;
        struct probe *p = &x->probes[x->n_probes++];
        *p = (struct probe){.host_id = h};
        if (send_probe(l, h))
            continue;
        add_refusal(l, h, "it cannot be asked now; try again");
        p->answered = true;
        x->n_answered++;
    }
    if (x->n_answered == x->n_probes)
        judge(l);
}

/* The next LUN that has grown; else all is done. */
static void next(struct leader *l)
{
    struct extension *x = l->extension;

    for (uint32_t i = 0; i < l->catalogue->n_pvs; i++) {
        const struct lvm_pv *pv = &l->catalogue->pvs[i];
        uint64_t size = size_on_device(l->catalogue, pv);
        if (size < pv->size) {
            refuse_smaller(l, pv);
            return;
        }
        if (size > pv->size) {
            probe(l, pv);
            return;
        }
    }
    log_info("pool_extended bytes=%" PRIu64, x->grown);
    reply_status(l, &x->waiter);
    end(l);
}

static const struct lvm_pv *find_pv(const struct leader *l, const char *uuid)
{
    for (uint32_t i = 0; i < l->catalogue->n_pvs; i++)
        if (strcmp(l->catalogue->pvs[i].uuid, uuid) == 0)
            return &l->catalogue->pvs[i];
    return NULL;
}

static void added(struct leader *l)
{
    log_info("pool_extended pv=%s", l->extension->pv.uuid);
    reply_status(l, &l->extension->waiter);
    end(l);
}

/* What the metadata says counts, not the status. */
static void after_commit(struct leader *l, int rc, const struct error *err)
{
    struct extension *x = l->extension;
    const struct lvm_pv *now = find_pv(l, x->pv.uuid);
    bool done = now && (x->adds || now->size > x->pv.size);

    if (!done) {
        fail(l, rc < 0 ? rc : LUNAR_E_METADATA,
             rc < 0 ? err->text : "lvm changed nothing, though it says so");
    } else if (x->adds) {
        added(l);
    } else {
        x->grown += now->size - x->pv.size;
        next(l);
    }
}

/* What lunarctl has made of the device, as the coordinator needs it. 0, or what to answer. */
static int check_pv(const struct leader *l, const Lunar__PoolExtend *m, struct error *err)
{
    const Lunar__Pv *pv = m->pv;

    if (!pv || !pv_uuid_fits(pv->uuid, pv->wwid))
        return error_set(err, LUNAR_E_INVALID, "%s has not been prepared", m->device);
    if (l->sb->flags & SUPERBLOCK_FLAG_PR)
        return error_set(err, LUNAR_E_UNSUPPORTED,
                         "this pool fences with persistent reservations, which lunar makes on one "
                         "LUN alone as yet: have the array make that one larger");
    if (!pv->wwid[0] && !(l->sb->flags & SUPERBLOCK_FLAG_TEST))
        return error_set(err, LUNAR_E_INVALID,
                         "%s has no WWID, so that a copy of it could not be told from it: only a "
                         "test pool takes it",
                         m->device);
    if (l->catalogue->n_pvs >= LVM_PVS_MAX)
        return error_set(err, LUNAR_E_FULL, "a pool has %u LUNs at most", LVM_PVS_MAX);
    return 0;
}

static void start(struct leader *l, const Lunar__PoolExtend *m)
{
    struct extension *x = l->extension;
    struct error err = ERROR_INIT;

    if (!m->device[0]) {
        look(l);
        return;
    }
    int rc = check_pv(l, m, &err);
    if (rc < 0) {
        fail(l, rc, err.text);
        return;
    }
    struct lvm_pv pv = {.index = l->catalogue->n_pvs, .device_size = m->pv->size};
    snprintf(pv.uuid, sizeof pv.uuid, "%s", m->pv->uuid);
    x->adds = true;
    x->pv = pv;
    if (find_pv(l, pv.uuid))
        added(l); /* by the same request, whose answer was lost */
    else
        probe(l, &pv);
}

void extend_request(struct leader *l, const struct waiter *w, const Lunar__PoolExtend *m)
{
    if (l->extension && uuid_equal(&l->extension->waiter.request_id, &w->request_id)) {
        l->extension->waiter = *w; /* the same request over another road */
        return;
    }
    if (l->extension) {
        reply_error(l, w, LUNAR_E_BUSY, "the pool is being extended; try again");
        return;
    }
    struct extension *x = calloc(1, sizeof *x);
    struct probe *probes = calloc(l->sb->layout.max_nodes, sizeof *probes);
    if (!x || !probes)
        abort();
    x->waiter = *w;
    x->probes = probes;
    l->extension = x;
    start(l, m);
}

bool extend_commit_done(struct leader *l, uint64_t token, int rc, const struct error *err)
{
    struct extension *x = l->extension;

    if (!x || x->token != token)
        return false;
    x->token = 0;
    if (x->state == EXTEND_COMMIT)
        after_commit(l, rc, err);
    else if (rc < 0)
        fail(l, rc, err->text);
    else
        next(l);
    return true;
}

static struct probe *open_probe(struct leader *l, uint32_t host_id)
{
    struct extension *x = l->extension;
    for (uint32_t i = 0; x && x->state == EXTEND_PROBE && i < x->n_probes; i++)
        if (x->probes[i].host_id == host_id && !x->probes[i].answered)
            return &x->probes[i];
    return NULL;
}

bool extend_result(struct leader *l, uint32_t host_id, const Lunar__Result *result)
{
    struct extension *x = l->extension;
    struct uuid id = uuid_from_pb(result->id);

    if (!x || !uuid_equal(&id, &x->command_id))
        return false;
    struct probe *p = open_probe(l, host_id);
    if (!p)
        return true; /* it has answered before */
    if (result->error && result->error->code < 0)
        add_refusal(l, host_id, result->error->text);
    p->answered = true;
    if (++x->n_answered == x->n_probes)
        judge(l);
    return true;
}

/* Another run of its agent has not heard the question. */
void extend_node_changed(struct leader *l, uint32_t host_id)
{
    if (open_probe(l, host_id))
        send_probe(l, host_id); /* where that fails, the deadline tells */
}

void extend_tick(struct leader *l)
{
    struct extension *x = l->extension;

    if (!x || x->state != EXTEND_PROBE || l->now_ms - x->asked_ms <= PROBE_DEADLINE_MS)
        return;
    for (uint32_t i = 0; i < x->n_probes; i++)
        if (!x->probes[i].answered)
            add_refusal(l, x->probes[i].host_id, "it did not answer");
    judge(l);
}

void extend_free(struct leader *l)
{
    if (l->extension)
        end(l);
}
