/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The world around a pure leader, for its tests: LVM, grants on the LUN, nodes that obey, clients.
 * All of it survives a leader; elect() makes the next one from it. Included by each test file, so
 * everything is static inline.
 */
#ifndef LUNAR_TESTS_SUPPORT_LEADER_WORLD_H
#define LUNAR_TESTS_SUPPORT_LEADER_WORLD_H

#include <assert.h>
#include <stdlib.h>

#include "coordinator/leader.h"
#include "support/fake_lvm.h"
#include "support/mapped_chain.h"
#include "support/test.h"

#define MAX_NODES  8u
#define LUN_COPIES 2
/* tests/fuzz has more under way at a time than the unit tests. */
#ifndef WORLD_QUEUE_MAX
#define WORLD_QUEUE_MAX 16
#define WORLD_HELD_MAX  4
#endif

/* What survives a leader: LVM, the grants on the LUN, the nodes. */
struct world {
    struct superblock sb;
    struct fake_lvm lvm;
    struct table grants[MAX_NODES + 1];              /* as they stand on the LUN */
    struct uuid held[MAX_NODES + 1][WORLD_HELD_MAX]; /* attachments that the node has open */
    struct table_layer writes[MAX_NODES + 1][WORLD_HELD_MAX]; /* the leaf that each writes */
    struct uuid holds[MAX_NODES + 1][WORLD_HELD_MAX]; /* of those whose consumers stand still */
    int n_held[MAX_NODES + 1];
    uint64_t sizes[MAX_NODES + 1][WORLD_HELD_MAX];          /* that each has */
    struct table_entry open[MAX_NODES + 1][WORLD_HELD_MAX]; /* what of each is mapped */
    uint64_t zeroed; /* of the thick volume, from its beginning on: nobody's former bytes there */
    int formats, probes, overlays, resizes, merges, relinks, zeroes, measures;
    int suspends, resumes, together; /* `together`: so many stand still whenever one switches */
    uint64_t resized;                /* the size of the last one */
    bool forgets;                    /* nodes have nothing open that they are asked to switch */
    bool hostile;                    /* nodes lie: what they write is not known */
    uint64_t end;                    /* what they measure */
    int measure_error;
    uint64_t trim_rest_ms;
    uint64_t merge_speed, merged_at; /* as configured; of the last merge that a node was told */

    struct leader *leader;
    uint64_t term, now;
    /* the outside's queue: one thing at a time, in order */
    struct pending {
        enum { P_COMMIT, P_GRANTS, P_COMMAND } kind;
        uint64_t token;
        struct catalogue_args args;
        struct table table;
        uint32_t host;
        Lunar__Envelope *envelope;
    } queue[WORLD_QUEUE_MAX];
    int n_queue;
    uint64_t generation[MAX_NODES + 1];
    int grants_fail; /* code of the next grant write, which then changes nothing */
    bool nodes_silent;
    uint32_t silent_node, blind_node; /* one; the second sees no LUN that it is asked about */
    int node_error;                   /* what nodes answer */
    int overlay_error, merge_error, suspend_error, relink_error; /* the same, to these alone */
    int send_fail;                                               /* what sending to a node gives */
    bool asleep;                                                 /* the coordinator was, of late */
    uint64_t slow_ms; /* so long it takes from the question to sanlock until the leader is told */
    bool has_pr;
    uint64_t timestamp[MAX_NODES + 1];     /* of the delta leases */
    uint64_t declared_dead[MAX_NODES + 1]; /* what the down pages say */
    uint32_t preempt_host;                 /* being preempted; 0: nobody */
    uint64_t preempt_generation;

    /* answers to the client */
    int n_answers;
    int code;
    char text[512], device[64];
    Lunar__Envelope *answer;
};

static struct world w;

static inline struct pending *push(int kind, uint64_t token)
{
    assert(w.n_queue < WORLD_QUEUE_MAX);
    struct pending *p = &w.queue[w.n_queue++];
    memset(p, 0, sizeof *p);
    p->kind = kind;
    p->token = token;
    return p;
}

static inline void io_commit(void *data, uint64_t token, const struct catalogue_args *args)
{
    (void)data;
    struct pending *p = push(P_COMMIT, token);
    p->args = *args;
    for (int i = 0; args->argv[i]; i++)
        p->args.argv[i] = p->args.text + (args->argv[i] - args->text);
}

static inline void io_write_grants(void *data, uint64_t token, const struct table *table)
{
    (void)data;
    struct pending *p = push(P_GRANTS, token);
    table_copy(&p->table, table);
}

static inline int io_send(void *data, uint32_t host_id, const uint8_t *bytes, uint32_t len)
{
    (void)data;
    if (w.send_fail < 0)
        return w.send_fail;
    struct pending *p = push(P_COMMAND, 0);
    p->host = host_id;
    int rc = envelope_unpack(bytes, len, &p->envelope, NULL);
    assert(rc == 0);
    return 0;
}

static inline void io_respond(void *data, const struct waiter *to, const uint8_t *bytes,
                              uint32_t len)
{
    (void)data;
    (void)to;
    envelope_free(w.answer);
    w.answer = NULL;
    int rc = envelope_unpack(bytes, len, &w.answer, NULL);
    assert(rc == 0);
    const Lunar__Response *r = w.answer->response;
    w.n_answers++;
    w.code = r->error ? r->error->code : 0;
    snprintf(w.text, sizeof w.text, "%s", r->error ? r->error->text : "");
    snprintf(w.device, sizeof w.device, "%s",
             r->op_case == LUNAR__RESPONSE__OP_VOLUME ? r->volume->device : "");
}

static inline void io_declare_dead(void *data, uint32_t host_id, uint64_t generation)
{
    (void)data;
    w.declared_dead[host_id] = generation;
}

static inline void io_preempt(void *data, uint32_t host_id, uint64_t generation)
{
    (void)data;
    assert(w.preempt_host == 0);
    w.preempt_host = host_id;
    w.preempt_generation = generation;
}

static const struct leader_io fake_io = {.commit = io_commit,
                                         .write_grants = io_write_grants,
                                         .send = io_send,
                                         .respond = io_respond,
                                         .declare_dead = io_declare_dead};
/* Of a pool with reservations. */
static const struct leader_io fake_io_pr = {.commit = io_commit,
                                            .write_grants = io_write_grants,
                                            .send = io_send,
                                            .respond = io_respond,
                                            .declare_dead = io_declare_dead,
                                            .preempt = io_preempt};

/* What sanlock says of one host, and what a look at its lease has shown. */
static inline void host_status(uint32_t host, uint64_t generation, enum host_state state,
                               enum host_look look)
{
    struct host_status status = {.host_id = host,
                                 .generation = generation,
                                 .state = state,
                                 .timestamp = w.timestamp[host],
                                 .look = look};
    leader_hosts(w.leader, &status, 1, !w.asleep, w.now - w.slow_ms, w.now);
}

/* DEAD and FREE with all that makes them believed. */
static inline void host_is(uint32_t host, enum host_state state)
{
    bool ended = state == HOST_STATE_DEAD || state == HOST_STATE_FREE;
    host_status(host, 1, state, ended ? HOST_LOOK_UNMOVED : HOST_LOOK_NONE);
}

static inline void node_seen(uint32_t host, uint64_t generation, uint64_t run, uint32_t flags)
{
    struct channel_stats s = {
        .peer = {host, generation, run}, .peer_flags = flags, .last_heard_ms = w.now};
    snprintf(s.peer_name, sizeof s.peer_name, "node%u", host);
    leader_node(w.leader, host, &s, w.now);
}

/* What nobody has carried out yet is lost. */
static inline void drop_queue(void)
{
    for (int i = 0; i < w.n_queue; i++) {
        if (w.queue[i].kind == P_GRANTS)
            table_free(&w.queue[i].table);
        envelope_free(w.queue[i].envelope);
    }
    w.n_queue = 0;
}

/* A new leader of the next term, as takeover.c makes one. */
static inline void elect(void)
{
    struct leader_config config = {.superblock = &w.sb,
                                   .merges = true,
                                   .merge_speed = w.merge_speed,
                                   .self = {1, 1, ++w.term},
                                   .io = w.has_pr ? &fake_io_pr : &fake_io,
                                   .trim_rest_ms = w.trim_rest_ms,
                                   .catalogue = fake_lvm_catalogue(&w.lvm)};
    drop_queue();
    if (w.leader)
        leader_free(w.leader);
    w.leader = leader_new(&config);
    for (uint32_t h = 1; h <= MAX_NODES; h++) {
        struct table merged;
        grants_merge(&w.grants[h], NULL, NULL, h, &w.sb.pool_id, &merged, NULL);
        leader_set_grants(w.leader, h, &merged);
    }
    for (uint32_t h = 1; h <= 3; h++)
        host_is(h, HOST_STATE_LIVE);
    leader_start(w.leader, w.now);
    for (uint32_t h = 1; h <= 3; h++)
        node_seen(h, w.generation[h] ? w.generation[h] : 1, 1, 0);
}

static inline void world_reset(void)
{
    if (w.leader)
        leader_free(w.leader);
    w.leader = NULL;
    drop_queue();
    for (uint32_t h = 1; h <= MAX_NODES; h++)
        table_free(&w.grants[h]);
    fake_lvm_free(&w.lvm);
    envelope_free(w.answer);
    memset(&w, 0, sizeof w);
    w.now = 1000;
    w.sb.pool_id = uuid_random();
    strcpy(w.sb.pool_name, "test");
    w.sb.layout.max_nodes = MAX_NODES;
    w.sb.io_timeout_s = 2;
    w.sb.watchdog_fire_timeout_s = 10;
    fake_lvm_init(&w.lvm);
    for (uint32_t h = 1; h <= MAX_NODES; h++)
        table_init(&w.grants[h], TABLE_GRANTS, h, &w.sb.pool_id);
    elect();
}

/* --- the node's side: what test_node.c tests for real --- */

static inline int held_index(uint32_t host, const struct uuid *id)
{
    for (int i = 0; i < w.n_held[host]; i++)
        if (uuid_equal(&w.held[host][i], id))
            return i;
    return -1;
}

static inline bool granted(uint32_t host, const struct uuid *id)
{
    return table_find_attachment(&w.grants[host], id) != NULL;
}

/* SAFETY 15, 16: what a node writes nobody else stands upon, and no snapshot is made of. Called
 * after each change of catalogue or node. */
static inline void check_writers(void)
{
    if (w.hostile)
        return;
    struct catalogue *c = fake_lvm_catalogue(&w.lvm);
    for (uint32_t h = 1; h <= MAX_NODES; h++)
        for (int i = 0; i < w.n_held[h]; i++) {
            char name[32];
            snprintf(name, sizeof name, "v%016llx.%u",
                     (unsigned long long)w.writes[h][i].volume_short, w.writes[h][i].index);
            const struct catalogue_layer *layer = catalogue_layer_by_name(c, name);
            assert(layer); /* it is not removed under its writer (SAFETY 14) */
            assert(layer->role == CATALOGUE_LEAF || layer->role == CATALOGUE_FREEZING);
            assert(layer->users <= 1 && !layer->garbage);
            check_mapped(c, &w.open[h][i], table_find_attachment(&w.grants[h], &w.held[h][i]));
        }
    catalogue_free(c);
    free(c);
}

/* The grant on the LUN names all that the command does, leaf first. */
static inline void check_grant(uint32_t host, const struct uuid *id, Lunar__Layer **layers,
                               size_t n)
{
    const struct table_entry *e = table_find_attachment(&w.grants[host], id);
    if (w.hostile)
        return;
    assert(e && e->n_layers >= n);
    for (size_t i = 0, k = 0; i < n; i++, k++) { /* more, if some were merged since */
        while (k < e->n_layers && (e->layers[k].volume_short != layers[i]->volume_short ||
                                   e->layers[k].index != layers[i]->index))
            k++;
        assert(k < e->n_layers && (i > 0 || k == 0));
    }
}

static inline struct table_layer leaf_of(Lunar__Layer **layers)
{
    return (struct table_layer){layers[0]->volume_short, layers[0]->index, 1};
}

/* SAFETY 17: only what is new is formatted. */
static inline void check_new(const Lunar__Layer *m)
{
    struct catalogue *c = fake_lvm_catalogue(&w.lvm);
    char name[32];
    snprintf(name, sizeof name, "v%016llx.%u", (unsigned long long)m->volume_short, m->index);
    const struct catalogue_layer *layer = catalogue_layer_by_name(c, name);
    assert(w.hostile || (layer && layer->is_new));
    catalogue_free(c);
    free(c);
}

/* So many consumers stand still. */
static inline int world_holds(void)
{
    int n = 0;
    for (uint32_t h = 1; h <= MAX_NODES; h++)
        for (int i = 0; i < w.n_held[h]; i++)
            n += !uuid_is_zero(&w.holds[h][i]);
    return n;
}

/* Their deadlines pass, or the agents are others. */
static inline void holds_end(void)
{
    memset(w.holds, 0, sizeof w.holds);
}

static inline int node_suspends(uint32_t host, const Lunar__Suspend *m, struct uuid *ret)
{
    struct uuid id = uuid_from_pb(m->attachment_id);
    int i = held_index(host, &id);
    assert(m->deadline_ms == LEADER_HOLD_MS); /* SAFETY 21 */
    if (i < 0 || w.forgets)
        return LUNAR_E_NOT_FOUND;
    *ret = w.holds[host][i] = uuid_random();
    w.suspends++;
    return 0;
}

static inline int node_resumes(uint32_t host, const Lunar__Resume *m)
{
    struct uuid id = uuid_from_pb(m->attachment_id);
    int i = held_index(host, &id);
    if (i >= 0)
        memset(&w.holds[host][i], 0, sizeof w.holds[host][i]);
    w.resumes++;
    return 0;
}

static inline int node_overlays(uint32_t host, const Lunar__Overlay *m)
{
    static const struct uuid none;
    struct uuid id = uuid_from_pb(m->attachment_id), hold = uuid_from_pb(m->hold);
    int i = held_index(host, &id);
    if (i < 0 || w.forgets)
        return LUNAR_E_NOT_FOUND;
    if (!uuid_is_zero(&hold) && !uuid_equal(&hold, &w.holds[host][i]))
        return LUNAR_E_STALE;
    if (!uuid_is_zero(&hold)) {
        assert(world_holds() == w.together); /* nobody goes on before all stood still */
        w.together--;
        w.holds[host][i] = none;
    }
    check_grant(host, &id, m->layers, m->n_layers);
    w.writes[host][i] = leaf_of(m->layers);
    struct table_entry *mapped = &w.open[host][i];
    if (mapped->layers[0].index != m->layers[0]->index) { /* below it the node keeps its chain */
        memmove(mapped->layers + 1, mapped->layers, mapped->n_layers++ * sizeof *mapped->layers);
        mapped->layers[0] = leaf_of(m->layers);
    }
    w.overlays++;
    return 0;
}

static inline uint64_t bytes_of(const Lunar__Layer *m)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < m->n_segments; i++)
        bytes += m->segments[i]->length;
    return bytes;
}

/* SAFETY 17, 18: behind the size that the volume has, and of no volume that a node has open. */
static inline void node_zeroes(const Lunar__ZeroJob *m)
{
    struct uuid id = uuid_from_pb(m->volume_id);
    struct catalogue *c = fake_lvm_catalogue(&w.lvm);
    const struct catalogue_volume *v = catalogue_by_id(c, &id);
    assert(w.hostile || (v && v->thick && v->size == m->from));
    for (uint32_t h = 1; h <= MAX_NODES; h++)
        for (uint32_t i = 0; !w.hostile && i < w.grants[h].n_entries; i++)
            assert(w.grants[h].entries[i].mode == TABLE_MODE_JOB ||
                   !uuid_equal(&w.grants[h].entries[i].volume_id, &id));
    catalogue_free(c);
    free(c);
    if (m->from <= w.zeroed)
        w.zeroed = bytes_of(m->layer);
    w.zeroes++;
}

static inline int node_relinks(uint32_t host, const Lunar__Relink *m)
{
    struct uuid id = uuid_from_pb(m->attachment_id);
    int i = held_index(host, &id);
    if (i < 0 || w.forgets)
        return LUNAR_E_NOT_FOUND;
    check_grant(host, &id, m->layers, m->n_layers);
    struct catalogue *c = fake_lvm_catalogue(&w.lvm);
    if (!w.hostile)
        check_dropped(c, &w.open[host][i], m);
    catalogue_free(c);
    free(c);
    if (w.relink_error < 0)
        return w.relink_error;
    map_chain(&w.open[host][i], m->layers, m->n_layers);
    w.relinks++;
    return 0;
}

static inline int node_resizes(uint32_t host, const Lunar__Resize *m)
{
    struct uuid id = uuid_from_pb(m->attachment_id);
    if (held_index(host, &id) < 0 || w.forgets)
        return LUNAR_E_NOT_FOUND;
    check_grant(host, &id, m->layers, m->n_layers);
    uint64_t *size = &w.sizes[host][held_index(host, &id)];
    if (m->size == *size && *size <= w.zeroed)
        w.zeroed = bytes_of(m->layers[0]);
    assert(m->size >= *size);
    *size = m->size;
    w.resized = m->size;
    w.resizes++;
    return 0;
}

/* SAFETY 15: whoever may have the layer that is written reads it through the one above. */
static inline int node_merges(uint32_t host, const Lunar__Merge *m)
{
    struct uuid id = uuid_from_pb(m->attachment_id);
    assert(w.hostile || (granted(host, &id) && m->n_layers >= 2));
    check_grant(host, &id, m->layers, m->n_layers);
    for (uint32_t h = 1; h <= MAX_NODES && !w.hostile; h++)
        for (uint32_t i = 0; i < w.grants[h].n_entries; i++) {
            const struct table_entry *e = &w.grants[h].entries[i];
            bool above = false;
            for (uint32_t k = 0; k < e->n_layers; k++) {
                bool lower = e->layers[k].volume_short == m->layers[1]->volume_short &&
                             e->layers[k].index == m->layers[1]->index;
                above = above || (e->layers[k].volume_short == m->layers[0]->volume_short &&
                                  e->layers[k].index == m->layers[0]->index);
                assert(!lower || above);
            }
        }
    w.merged_at = m->speed;
    w.merges += w.merge_error == 0;
    return w.merge_error;
}

static inline bool is_named(const struct table_layer *x, const char *lv_name)
{
    char name[32];
    snprintf(name, sizeof name, "v%016llx.%u", (unsigned long long)x->volume_short, x->index);
    return strcmp(name, lv_name) == 0;
}

/* SAFETY 14: whose extents are freed nobody has, and nobody is granted. */
static inline void check_freed(const char *lv)
{
    for (uint32_t h = 1; h <= MAX_NODES && !w.hostile; h++) {
        for (int i = 0; i < w.n_held[h]; i++)
            assert(!is_named(&w.writes[h][i], lv));
        for (uint32_t i = 0; i < w.grants[h].n_entries; i++)
            for (uint32_t k = 0; k < w.grants[h].entries[i].n_layers; k++)
                assert(!is_named(&w.grants[h].entries[i].layers[k], lv));
    }
}

static inline int node_acts(uint32_t host, const Lunar__Command *c, char *device,
                            struct uuid *ret_hold)
{
    struct uuid id = {{0}};
    int i;
    switch (c->op_case) {
    case LUNAR__COMMAND__OP_ATTACH:
        id = uuid_from_pb(c->attach->attachment_id);
        assert(granted(host, &id)); /* the grant stands before the node hears of it */
        if (held_index(host, &id) < 0) {
            assert(w.n_held[host] < WORLD_HELD_MAX);
            check_grant(host, &id, c->attach->layers, c->attach->n_layers);
            w.writes[host][w.n_held[host]] = leaf_of(c->attach->layers);
            w.sizes[host][w.n_held[host]] = c->attach->size;
            memset(&w.holds[host][w.n_held[host]], 0, sizeof(struct uuid));
            map_chain(&w.open[host][w.n_held[host]], c->attach->layers, c->attach->n_layers);
            w.held[host][w.n_held[host]++] = id;
        }
        strcpy(device, "/dev/x");
        break;
    case LUNAR__COMMAND__OP_DETACH:
        id = uuid_from_pb(c->detach->attachment_id);
        i = held_index(host, &id);
        if (i >= 0)
            w.n_held[host]--, w.held[host][i] = w.held[host][w.n_held[host]],
                              w.writes[host][i] = w.writes[host][w.n_held[host]],
                              w.sizes[host][i] = w.sizes[host][w.n_held[host]],
                              w.holds[host][i] = w.holds[host][w.n_held[host]],
                              w.open[host][i] = w.open[host][w.n_held[host]];
        break;
    case LUNAR__COMMAND__OP_INSPECT:
        break;
    case LUNAR__COMMAND__OP_PROBE_PV:
        w.probes++;
        break;
    case LUNAR__COMMAND__OP_OVERLAY:
        return w.overlay_error ? w.overlay_error : node_overlays(host, c->overlay);
    case LUNAR__COMMAND__OP_SUSPEND:
        return w.suspend_error ? w.suspend_error : node_suspends(host, c->suspend, ret_hold);
    case LUNAR__COMMAND__OP_RESUME:
        return node_resumes(host, c->resume);
    case LUNAR__COMMAND__OP_RELINK:
        return node_relinks(host, c->relink);
    case LUNAR__COMMAND__OP_MERGE:
        return node_merges(host, c->merge);
    case LUNAR__COMMAND__OP_MEASURE:
        id = uuid_from_pb(c->measure->attachment_id);
        assert(w.hostile || granted(host, &id));
        check_grant(host, &id, &((Lunar__Measure *)c->measure)->layer, 1);
        w.measures++;
        return w.measure_error;
    case LUNAR__COMMAND__OP_RESIZE:
        return node_resizes(host, c->resize);
    case LUNAR__COMMAND__OP_ZERO_JOB:
        id = uuid_from_pb(c->zero_job->attachment_id);
        assert(granted(host, &id));
        node_zeroes(c->zero_job);
        break;
    default:
        id = uuid_from_pb(c->format_job->attachment_id);
        assert(granted(host, &id));
        check_new(c->format_job->layer);
        if (c->format_job->thick)
            w.zeroed = bytes_of(c->format_job->layer);
        w.formats++;
    }
    return 0;
}

static inline void node_answers(const struct pending *p)
{
    const Lunar__Command *c = p->envelope->command;
    Lunar__Result result = LUNAR__RESULT__INIT;
    Lunar__Error error = LUNAR__ERROR__INIT;
    Lunar__Inspection inspection = LUNAR__INSPECTION__INIT;
    char device[64] = "";
    struct uuid hold = {{0}};

    if (w.nodes_silent || p->host == w.silent_node)
        return;
    if (p->host == w.blind_node && c->op_case == LUNAR__COMMAND__OP_PROBE_PV)
        error.code = LUNAR_E_NOT_FOUND;
    else
        error.code = w.node_error ? w.node_error : node_acts(p->host, c, device, &hold);
    check_writers();
    error.text = (char *)(uintptr_t) "the node says no";
    result.id = c->id;
    result.error = &error;
    result.device = device;
    if (!uuid_is_zero(&hold))
        result.hold = uuid_to_pb(&hold);
    if (c->op_case == LUNAR__COMMAND__OP_INSPECT)
        result.inspection = &inspection;
    if (c->op_case == LUNAR__COMMAND__OP_MEASURE)
        result.end = w.end;
    leader_result(w.leader, p->host, &result, w.now);
}

/* Carries out the oldest thing of the queue; false if there is none. */
static inline bool outside_step(void)
{
    struct error err = ERROR_INIT;
    if (w.n_queue == 0)
        return false;
    struct pending p = w.queue[0];
    for (int i = 0; p.kind == P_COMMIT && p.args.argv[i]; i++)
        p.args.argv[i] = p.args.text + (w.queue[0].args.argv[i] - w.queue[0].args.text);
    memmove(w.queue, w.queue + 1, (size_t)--w.n_queue * sizeof *w.queue);
    for (int k = 0; k < w.n_queue; k++) /* argv points into its own struct, which has moved */
        for (int i = 0; w.queue[k].kind == P_COMMIT && w.queue[k].args.argv[i]; i++)
            w.queue[k].args.argv[i] -= sizeof *w.queue;
    if (p.kind == P_COMMIT) {
        bool frees = p.args.argv[0] && (strcmp(p.args.argv[0], "lvreduce") == 0 ||
                                        strcmp(p.args.argv[0], "lvremove") == 0);
        for (int i = 1; frees && p.args.argv[i]; i++)
            if (strchr(p.args.argv[i], '/'))
                check_freed(strchr(p.args.argv[i], '/') + 1);
        int rc = p.args.argv[0] ? fake_lvm_run(&w.lvm, p.args.argv, &err) : 0;
        check_writers();
        leader_commit_done(w.leader, p.token, rc, &err, fake_lvm_catalogue(&w.lvm), w.now);
    } else if (p.kind == P_GRANTS) {
        int rc = w.grants_fail;
        w.grants_fail = 0;
        if (rc == 0) {
            table_free(&w.grants[p.table.slot]);
            table_copy(&w.grants[p.table.slot], &p.table);
        }
        error_set(&err, rc, "made to fail");
        table_free(&p.table);
        leader_grants_done(w.leader, p.token, rc, &err, w.now);
    } else {
        node_answers(&p);
        envelope_free(p.envelope);
    }
    return true;
}

static inline void settle(void)
{
    while (outside_step())
        ;
}

/* --- requests --- */

static inline struct waiter client(void)
{
    struct waiter from = {.host_id = 3, .request_id = uuid_random()};
    return from;
}

static inline void ask(const struct waiter *from, Lunar__Request *r)
{
    r->id = uuid_to_pb(&from->request_id);
    leader_request(w.leader, from, r, w.now);
}

static inline void ask_create(const struct waiter *from, const char *name, uint64_t size,
                              bool thick)
{
    Lunar__Request r = LUNAR__REQUEST__INIT;
    Lunar__VolumeCreate m = LUNAR__VOLUME_CREATE__INIT;
    m.name = (char *)(uintptr_t)name;
    m.size = size;
    m.thick = thick;
    r.op_case = LUNAR__REQUEST__OP_VOLUME_CREATE;
    r.volume_create = &m;
    ask(from, &r);
}

static inline void ask_attach(const struct waiter *from, const struct uuid *volume,
                              const char *node)
{
    Lunar__Request r = LUNAR__REQUEST__INIT;
    Lunar__VolumeAttach m = LUNAR__VOLUME_ATTACH__INIT;
    m.volume_id = uuid_to_pb(volume);
    m.node = (char *)(uintptr_t)node;
    r.op_case = LUNAR__REQUEST__OP_VOLUME_ATTACH;
    r.volume_attach = &m;
    ask(from, &r);
}

static inline void ask_detach_of(const struct waiter *from, const struct uuid *volume,
                                 const struct uuid *attachment)
{
    Lunar__Request r = LUNAR__REQUEST__INIT;
    Lunar__VolumeDetach m = LUNAR__VOLUME_DETACH__INIT;
    m.volume_id = uuid_to_pb(volume);
    m.attachment_id = uuid_to_pb(attachment);
    r.op_case = LUNAR__REQUEST__OP_VOLUME_DETACH;
    r.volume_detach = &m;
    ask(from, &r);
}

static inline void ask_detach(const struct waiter *from, const struct uuid *volume)
{
    struct uuid attachment = {{0}};
    for (uint32_t h = 1; h <= MAX_NODES; h++) { /* as lunarctl learns it from the volume */
        const struct table_entry *e = table_find_volume(&w.grants[h], volume);
        if (e)
            attachment = e->attachment_id;
    }
    ask_detach_of(from, volume, &attachment);
}

static inline void ask_delete(const struct waiter *from, const struct uuid *volume)
{
    Lunar__Request r = LUNAR__REQUEST__INIT;
    Lunar__VolumeDelete m = LUNAR__VOLUME_DELETE__INIT;
    m.volume_id = uuid_to_pb(volume);
    r.op_case = LUNAR__REQUEST__OP_VOLUME_DELETE;
    r.volume_delete = &m;
    ask(from, &r);
}

static inline void ask_snapshot(const struct waiter *from, const struct uuid *volume,
                                const char *name)
{
    Lunar__Request r = LUNAR__REQUEST__INIT;
    Lunar__SnapshotCreate m = LUNAR__SNAPSHOT_CREATE__INIT;
    m.volume_id = uuid_to_pb(volume);
    m.name = (char *)(uintptr_t)name;
    r.op_case = LUNAR__REQUEST__OP_SNAPSHOT_CREATE;
    r.snapshot_create = &m;
    ask(from, &r);
}

/* The names are "s" and the volume's place among these. */
static inline void ask_group(const struct waiter *from, const struct uuid *volumes, size_t n)
{
    Lunar__Request r = LUNAR__REQUEST__INIT;
    Lunar__SnapshotGroup m = LUNAR__SNAPSHOT_GROUP__INIT;
    Lunar__SnapshotCreate members[8], *list[8];
    static char names[8][4];
    assert(n <= 8);
    for (size_t i = 0; i < n; i++) {
        lunar__snapshot_create__init(&members[i]);
        snprintf(names[i], sizeof names[i], "s%zu", i);
        members[i].volume_id = uuid_to_pb(&volumes[i]);
        members[i].name = names[i];
        list[i] = &members[i];
    }
    m.n_members = n;
    m.members = list;
    r.op_case = LUNAR__REQUEST__OP_SNAPSHOT_GROUP;
    r.snapshot_group = &m;
    ask(from, &r);
}

static inline void ask_expand(const struct waiter *from, const struct uuid *volume, uint64_t size)
{
    Lunar__Request r = LUNAR__REQUEST__INIT;
    Lunar__VolumeExpand m = LUNAR__VOLUME_EXPAND__INIT;
    m.volume_id = uuid_to_pb(volume);
    m.size = size;
    r.op_case = LUNAR__REQUEST__OP_VOLUME_EXPAND;
    r.volume_expand = &m;
    ask(from, &r);
}

static inline void ask_trim(const struct waiter *from, const struct uuid *volume)
{
    Lunar__Request r = LUNAR__REQUEST__INIT;
    Lunar__VolumeTrim m = LUNAR__VOLUME_TRIM__INIT;
    m.volume_id = uuid_to_pb(volume);
    r.op_case = LUNAR__REQUEST__OP_VOLUME_TRIM;
    r.volume_trim = &m;
    ask(from, &r);
}

static inline void ask_unsnap(const struct waiter *from, const struct uuid *snapshot)
{
    Lunar__Request r = LUNAR__REQUEST__INIT;
    Lunar__SnapshotDelete m = LUNAR__SNAPSHOT_DELETE__INIT;
    m.snapshot_id = uuid_to_pb(snapshot);
    r.op_case = LUNAR__REQUEST__OP_SNAPSHOT_DELETE;
    r.snapshot_delete = &m;
    ask(from, &r);
}

/* A clone of that snapshot, or of that volume; one of the two is NULL. */
static inline void ask_clone(const struct waiter *from, const char *name, uint64_t size,
                             const struct uuid *snapshot, const struct uuid *volume)
{
    Lunar__Request r = LUNAR__REQUEST__INIT;
    Lunar__VolumeCreate m = LUNAR__VOLUME_CREATE__INIT;
    m.name = (char *)(uintptr_t)name;
    m.size = size;
    if (snapshot)
        m.source_snapshot_id = uuid_to_pb(snapshot);
    if (volume)
        m.source_volume_id = uuid_to_pb(volume);
    r.op_case = LUNAR__REQUEST__OP_VOLUME_CREATE;
    r.volume_create = &m;
    ask(from, &r);
}

#include "support/leader_asks.h"

static inline struct uuid made(const char *name)
{
    struct waiter from = client();
    ask_create(&from, name, 1ull << 30, false);
    settle();
    assert(w.code == 0 && w.answer->response->op_case == LUNAR__RESPONSE__OP_VOLUME);
    return uuid_from_pb(w.answer->response->volume->volume_id);
}

#endif
