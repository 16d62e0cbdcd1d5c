/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pure leader against a fake outside: every request's happy path, every refusal, and a
 * successor that takes over after each single step of a volume's whole life.
 */
#include <assert.h>
#include <stdlib.h>

#include "coordinator/leader.h"
#include "support/fake_lvm.h"
#include "support/test.h"

#define MAX_NODES  8u
#define LUN_COPIES 2

/* What survives a leader: LVM, the grants on the LUN, the nodes. */
struct world {
    struct superblock sb;
    struct fake_lvm lvm;
    struct table grants[MAX_NODES + 1]; /* as they stand on the LUN */
    struct uuid held[MAX_NODES + 1][4]; /* attachments that the node has open */
    int n_held[MAX_NODES + 1];
    int formats;

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
    } queue[16];
    int n_queue;
    uint64_t generation[MAX_NODES + 1];
    int grants_fail; /* code of the next grant write, which then changes nothing */
    bool nodes_silent;
    int node_error; /* what nodes answer */

    /* answers to the client */
    int n_answers;
    int code;
    char text[512], device[64];
    Lunar__Envelope *answer;
};

static struct world w;

static struct pending *push(int kind, uint64_t token)
{
    assert(w.n_queue < 16);
    struct pending *p = &w.queue[w.n_queue++];
    memset(p, 0, sizeof *p);
    p->kind = kind;
    p->token = token;
    return p;
}

static void io_commit(void *data, uint64_t token, const struct catalogue_args *args)
{
    (void)data;
    struct pending *p = push(P_COMMIT, token);
    p->args = *args;
    for (int i = 0; args->argv[i]; i++)
        p->args.argv[i] = p->args.text + (args->argv[i] - args->text);
}

static void io_write_grants(void *data, uint64_t token, const struct table *table)
{
    (void)data;
    struct pending *p = push(P_GRANTS, token);
    table_copy(&p->table, table);
}

static int io_send(void *data, uint32_t host_id, const uint8_t *bytes, uint32_t len)
{
    (void)data;
    struct pending *p = push(P_COMMAND, 0);
    p->host = host_id;
    int rc = envelope_unpack(bytes, len, &p->envelope, NULL);
    assert(rc == 0);
    return 0;
}

static void io_respond(void *data, const struct waiter *to, const uint8_t *bytes, uint32_t len)
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

static const struct leader_io fake_io = {io_commit, io_write_grants, io_send, io_respond};

static void host_is(uint32_t host, enum host_state state)
{
    struct host_status status = {.host_id = host, .generation = 1, .state = state};
    leader_hosts(w.leader, &status, 1, w.now);
}

static void node_seen(uint32_t host, uint64_t generation, uint64_t run, uint32_t flags)
{
    struct channel_stats s = {
        .peer = {host, generation, run}, .peer_flags = flags, .last_heard_ms = w.now};
    snprintf(s.peer_name, sizeof s.peer_name, "node%u", host);
    leader_node(w.leader, host, &s, w.now);
}

/* A new leader of the next term, as takeover.c makes one. */
static void elect(void)
{
    struct leader_config config = {.superblock = &w.sb,
                                   .self = {1, 1, ++w.term},
                                   .io = &fake_io,
                                   .catalogue = fake_lvm_catalogue(&w.lvm)};
    for (int i = 0; i < w.n_queue; i++) {
        if (w.queue[i].kind == P_GRANTS)
            table_free(&w.queue[i].table);
        envelope_free(w.queue[i].envelope);
    }
    w.n_queue = 0;
    if (w.leader)
        leader_free(w.leader);
    w.leader = leader_new(&config);
    for (uint32_t h = 1; h <= MAX_NODES; h++) {
        struct table merged;
        grants_merge(&w.grants[h], NULL, NULL, h, &w.sb.pool_id, &merged);
        leader_set_grants(w.leader, h, &merged);
    }
    for (uint32_t h = 1; h <= 3; h++)
        host_is(h, HOST_STATE_LIVE);
    leader_start(w.leader, w.now);
    for (uint32_t h = 1; h <= 3; h++)
        node_seen(h, w.generation[h] ? w.generation[h] : 1, 1, 0);
}

static void world_reset(void)
{
    if (w.leader)
        leader_free(w.leader);
    w.leader = NULL;
    for (uint32_t h = 1; h <= MAX_NODES; h++)
        table_free(&w.grants[h]);
    fake_lvm_free(&w.lvm);
    envelope_free(w.answer);
    memset(&w, 0, sizeof w);
    w.now = 1000;
    w.sb.pool_id = uuid_random();
    strcpy(w.sb.pool_name, "test");
    w.sb.layout.max_nodes = MAX_NODES;
    fake_lvm_init(&w.lvm);
    for (uint32_t h = 1; h <= MAX_NODES; h++)
        table_init(&w.grants[h], TABLE_GRANTS, h, &w.sb.pool_id);
    elect();
}

/* --- the node's side: what test_node.c tests for real --- */

static int held_index(uint32_t host, const struct uuid *id)
{
    for (int i = 0; i < w.n_held[host]; i++)
        if (uuid_equal(&w.held[host][i], id))
            return i;
    return -1;
}

static bool granted(uint32_t host, const struct uuid *id)
{
    return table_find_attachment(&w.grants[host], id) != NULL;
}

static void node_acts(uint32_t host, const Lunar__Command *c, char *device)
{
    struct uuid id = {{0}};
    int i;
    switch (c->op_case) {
    case LUNAR__COMMAND__OP_ATTACH:
        id = uuid_from_pb(c->attach->attachment_id);
        assert(granted(host, &id)); /* the grant stands before the node hears of it */
        if (held_index(host, &id) < 0)
            w.held[host][w.n_held[host]++] = id;
        strcpy(device, "/dev/x");
        break;
    case LUNAR__COMMAND__OP_DETACH:
        id = uuid_from_pb(c->detach->attachment_id);
        i = held_index(host, &id);
        if (i >= 0)
            w.held[host][i] = w.held[host][--w.n_held[host]];
        break;
    default:
        id = uuid_from_pb(c->format_job->attachment_id);
        assert(granted(host, &id));
        w.formats++;
    }
}

static void node_answers(const struct pending *p)
{
    const Lunar__Command *c = p->envelope->command;
    Lunar__Result result = LUNAR__RESULT__INIT;
    Lunar__Error error = LUNAR__ERROR__INIT;
    char device[64] = "";

    if (w.nodes_silent)
        return;
    if (w.node_error == 0)
        node_acts(p->host, c, device);
    error.code = w.node_error;
    error.text = (char *)(uintptr_t) "the node says no";
    result.id = c->id;
    result.error = &error;
    result.device = device;
    leader_result(w.leader, p->host, &result, w.now);
}

/* Carries out the oldest thing of the queue; false if there is none. */
static bool outside_step(void)
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
        int rc = fake_lvm_run(&w.lvm, p.args.argv, &err);
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

static void settle(void)
{
    while (outside_step())
        ;
}

/* --- requests --- */

static struct waiter client(void)
{
    struct waiter from = {.host_id = 3, .request_id = uuid_random()};
    return from;
}

static void ask(const struct waiter *from, Lunar__Request *r)
{
    r->id = uuid_to_pb(&from->request_id);
    leader_request(w.leader, from, r, w.now);
}

static void ask_create(const struct waiter *from, const char *name, uint64_t size, bool thick)
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

static void ask_attach(const struct waiter *from, const struct uuid *volume, const char *node)
{
    Lunar__Request r = LUNAR__REQUEST__INIT;
    Lunar__VolumeAttach m = LUNAR__VOLUME_ATTACH__INIT;
    m.volume_id = uuid_to_pb(volume);
    m.node = (char *)(uintptr_t)node;
    r.op_case = LUNAR__REQUEST__OP_VOLUME_ATTACH;
    r.volume_attach = &m;
    ask(from, &r);
}

static void ask_detach(const struct waiter *from, const struct uuid *volume)
{
    Lunar__Request r = LUNAR__REQUEST__INIT;
    Lunar__VolumeDetach m = LUNAR__VOLUME_DETACH__INIT;
    struct uuid attachment = {{0}};
    for (uint32_t h = 1; h <= MAX_NODES; h++) { /* as lunarctl learns it from the volume */
        const struct table_entry *e = table_find_volume(&w.grants[h], volume);
        if (e)
            attachment = e->attachment_id;
    }
    m.volume_id = uuid_to_pb(volume);
    m.attachment_id = uuid_to_pb(&attachment);
    r.op_case = LUNAR__REQUEST__OP_VOLUME_DETACH;
    r.volume_detach = &m;
    ask(from, &r);
}

static void ask_delete(const struct waiter *from, const struct uuid *volume)
{
    Lunar__Request r = LUNAR__REQUEST__INIT;
    Lunar__VolumeDelete m = LUNAR__VOLUME_DELETE__INIT;
    m.volume_id = uuid_to_pb(volume);
    r.op_case = LUNAR__REQUEST__OP_VOLUME_DELETE;
    r.volume_delete = &m;
    ask(from, &r);
}

static struct uuid made(const char *name)
{
    struct waiter from = client();
    ask_create(&from, name, 1ull << 30, false);
    settle();
    assert(w.code == 0 && w.answer->response->op_case == LUNAR__RESPONSE__OP_VOLUME);
    return uuid_from_pb(w.answer->response->volume->volume_id);
}

/* --- tests --- */

static void a_volume_lives_its_whole_life(void)
{
    world_reset();
    struct uuid id = made("disk");
    struct waiter from = client();
    CHECK_STR(w.answer->response->volume->state, "ready");
    CHECK_EQ(w.formats, 1);
    CHECK_EQ(w.grants[3].n_entries, 0); /* the job's grant is erased */
    ask_attach(&from, &id, "node2");
    settle();
    CHECK_EQ(w.code, 0);
    CHECK_STR(w.device, "/dev/x");
    CHECK_EQ(w.grants[2].n_entries, 1);
    ask_detach(&from, &id);
    settle();
    CHECK_EQ(w.code, 0);
    CHECK_EQ(w.grants[2].n_entries, 0);
    ask_delete(&from, &id);
    settle();
    CHECK_EQ(w.code, 0);
    CHECK_EQ(fake_lvm_free_bytes(&w.lvm), w.lvm.vg_size);
}

static void a_second_attach_elsewhere_is_refused_and_names_the_holder(void)
{
    world_reset();
    struct uuid id = made("disk");
    struct waiter from = client();
    ask_attach(&from, &id, "node2");
    settle();
    ask_attach(&from, &id, "node1");
    settle();
    CHECK_EQ(w.code, LUNAR_E_IN_USE);
    CHECK(strstr(w.text, "node2") != NULL);
    CHECK_EQ(w.n_held[1], 0);
}

static void a_grant_is_erased_when_the_node_refuses_and_stands_when_it_is_silent(void)
{
    world_reset();
    struct uuid id = made("disk");
    struct waiter from = client();
    w.node_error = LUNAR_E_UNSUPPORTED;
    ask_attach(&from, &id, "node2");
    settle();
    CHECK_EQ(w.code, LUNAR_E_UNSUPPORTED);
    CHECK_EQ(w.grants[2].n_entries, 0);
    w.node_error = 0;
    w.nodes_silent = true;
    ask_attach(&from, &id, "node2");
    settle();
    w.now += LEADER_OP_DEADLINE_MS + 1;
    leader_tick(w.leader, w.now);
    CHECK_EQ(w.code, LUNAR_E_TIMEOUT);
    CHECK_EQ(w.grants[2].n_entries, 1);
    w.nodes_silent = false;
    ask_attach(&from, &id, "node1");
    CHECK_EQ(w.code, LUNAR_E_IN_USE);
}

static void an_unknown_outcome_on_the_node_keeps_the_grant(void)
{
    world_reset();
    struct uuid id = made("disk");
    struct waiter from = client();
    w.node_error = LUNAR_E_INDETERMINATE;
    ask_attach(&from, &id, "node2");
    settle();
    CHECK_EQ(w.code, LUNAR_E_INDETERMINATE);
    CHECK_EQ(w.grants[2].n_entries, 1);
}

static void a_failed_format_leaves_nothing(void)
{
    world_reset();
    struct waiter from = client();
    w.node_error = LUNAR_E_EXEC;
    ask_create(&from, "disk", 1ull << 30, false);
    settle();
    CHECK_EQ(w.code, LUNAR_E_EXEC);
    CHECK_EQ(fake_lvm_free_bytes(&w.lvm), w.lvm.vg_size);
    CHECK_EQ(w.grants[3].n_entries, 0);
}

static void a_full_pool_is_said_and_leaves_nothing(void)
{
    world_reset();
    struct waiter from = client();
    ask_create(&from, "disk", 1ull << 40, true);
    settle();
    CHECK_EQ(w.code, LUNAR_E_NO_SPACE);
    CHECK_EQ(w.lvm.n_lvs, 0);
}

static void a_commit_that_landed_although_its_outcome_was_unknown_is_gone_on_with(void)
{
    world_reset();
    struct waiter from = client();
    w.lvm.fail_with = LUNAR_E_INDETERMINATE;
    w.lvm.fail_after = true;
    ask_create(&from, "disk", 1ull << 30, false);
    settle();
    CHECK_EQ(w.code, 0);
    CHECK_STR(w.answer->response->volume->state, "ready");
}

static void the_same_request_again_joins_and_another_size_is_refused(void)
{
    world_reset();
    struct waiter from = client(), other = client();
    ask_create(&from, "disk", 1ull << 30, false);
    ask_create(&from, "disk", 1ull << 30, false);
    ask_create(&other, "disk", 2ull << 30, false);
    CHECK_EQ(w.code, LUNAR_E_EXISTS);
    settle();
    CHECK_EQ(w.lvm.n_lvs, 1);
    CHECK_EQ(w.n_answers, 2); /* one for each request id */
}

static void delete_is_refused_while_attached_and_is_success_when_gone(void)
{
    world_reset();
    struct uuid id = made("disk");
    struct waiter from = client();
    ask_attach(&from, &id, "node1");
    settle();
    ask_delete(&from, &id);
    CHECK_EQ(w.code, LUNAR_E_IN_USE);
    ask_detach(&from, &id);
    settle();
    ask_delete(&from, &id);
    settle();
    ask_delete(&from, &id);
    CHECK_EQ(w.code, 0);
}

static void commands_are_sent_again_to_a_restarted_agent(void)
{
    world_reset();
    struct uuid id = made("disk");
    struct waiter from = client();
    w.nodes_silent = true;
    ask_attach(&from, &id, "node2");
    settle();
    w.nodes_silent = false;
    node_seen(2, 1, 2, 0);
    settle();
    CHECK_EQ(w.code, 0);
    CHECK_EQ(w.n_held[2], 1);
}

static void a_former_life_of_a_node_gets_a_grant_of_its_own(void)
{
    world_reset();
    struct uuid id = made("disk");
    struct waiter from = client();
    ask_attach(&from, &id, "node2");
    settle();
    struct uuid old = w.grants[2].entries[0].attachment_id;
    w.n_held[2] = 0;
    node_seen(2, 2, 1, 0);
    ask_attach(&from, &id, "node2");
    settle();
    CHECK_EQ(w.code, 0);
    CHECK_EQ(w.grants[2].n_entries, 1);
    CHECK_EQ(w.grants[2].entries[0].generation, 2);
    CHECK(!uuid_equal(&old, &w.grants[2].entries[0].attachment_id));
}

static void a_leaving_or_unknown_node_gets_nothing(void)
{
    world_reset();
    struct uuid id = made("disk");
    struct waiter from = client();
    ask_attach(&from, &id, "nobody");
    CHECK_EQ(w.code, LUNAR_E_NOT_FOUND);
    node_seen(2, 1, 1, PAGE_FLAG_LEAVING);
    ask_attach(&from, &id, "node2");
    CHECK_EQ(w.code, LUNAR_E_NOT_JOINED);
}

static void an_older_grant_survives_a_refusal(void)
{
    world_reset();
    struct uuid id = made("disk");
    struct waiter from = client();
    ask_attach(&from, &id, "node2");
    settle();
    w.node_error = LUNAR_E_BUSY; /* it is being detached there, or half-built */
    ask_attach(&from, &id, "node2");
    settle();
    CHECK_EQ(w.code, LUNAR_E_BUSY);
    CHECK_EQ(w.grants[2].n_entries, 1);
    w.node_error = 0;
    ask_attach(&from, &id, "node1");
    CHECK_EQ(w.code, LUNAR_E_IN_USE);
}

static void safety_2_every_entry_of_a_volume_counts(void)
{
    world_reset();
    struct uuid id = made("disk");
    struct waiter from = client();
    ask_attach(&from, &id, "node2");
    settle();
    /* A late grant write of a former leader brings back an entry on node 1, and a new leader unites
     * them. */
    struct table_entry *e = table_add(&w.grants[1]);
    *e = w.grants[2].entries[0];
    e->attachment_id = uuid_random();
    elect();
    ask_attach(&from, &id, "node1");
    CHECK_EQ(w.code, LUNAR_E_IN_USE);
    ask_attach(&from, &id, "node2");
    CHECK_EQ(w.code, LUNAR_E_IN_USE);
    ask_detach(&from, &id); /* names node 2's attachment */
    settle();
    CHECK_EQ(w.code, 0);
    CHECK_EQ(w.grants[2].n_entries, 0);
    CHECK_EQ(w.grants[1].n_entries, 1);
}

static void a_grant_whose_erasure_failed_stands(void)
{
    world_reset();
    struct uuid id = made("disk");
    struct waiter from = client();
    ask_attach(&from, &id, "node2");
    settle();
    ask_detach(&from, &id);
    outside_step(); /* the node tears down */
    w.grants_fail = -5;
    settle();
    CHECK_EQ(w.code, -5);
    ask_attach(&from, &id, "node1");
    CHECK_EQ(w.code, LUNAR_E_IN_USE);
    ask_detach(&from, &id);
    settle();
    CHECK_EQ(w.code, 0);
    ask_attach(&from, &id, "node1");
    settle();
    CHECK_EQ(w.code, 0);
}

static void safety_3_a_grant_that_failed_to_be_written_is_written_before_the_command(void)
{
    world_reset();
    struct uuid id = made("disk");
    struct waiter from = client();
    w.grants_fail = -5;
    ask_attach(&from, &id, "node2");
    settle();
    CHECK_EQ(w.code, -5);
    CHECK_EQ(w.grants[2].n_entries, 0);
    ask_attach(&from, &id, "node2"); /* node_acts asserts that the grant stands on the LUN */
    settle();
    CHECK_EQ(w.code, 0);
}

static void a_create_that_failed_half_way_is_made_by_the_next_one(void)
{
    world_reset();
    struct waiter from = client();
    w.grants_fail = -5;
    ask_create(&from, "disk", 1ull << 30, false);
    settle();
    CHECK_EQ(w.code, -5);
    from = client();
    ask_create(&from, "disk", 1ull << 30, false);
    settle();
    CHECK_EQ(w.code, 0);
    CHECK_STR(w.answer->response->volume->state, "ready");
    CHECK_EQ(w.lvm.n_lvs, 1);
}

static void what_is_half_made_is_taken_up_again_without_a_request(void)
{
    world_reset();
    struct waiter from = client();
    w.grants_fail = -5;
    ask_create(&from, "disk", 1ull << 30, false);
    settle();
    w.now += LEADER_RECONCILE_MS;
    leader_tick(w.leader, w.now);
    settle();
    CHECK_EQ(w.formats, 1);
    CHECK_EQ(w.lvm.lvs[0].n_tags, 8); /* "new" is gone */
}

static void a_node_that_reboots_during_a_format_gets_a_job_of_its_new_life(void)
{
    world_reset();
    struct waiter from = client();
    w.nodes_silent = true;
    ask_create(&from, "disk", 1ull << 30, false);
    settle();
    CHECK_EQ(w.grants[3].entries[0].generation, 1);
    w.nodes_silent = false;
    node_seen(3, 2, 1, 0);
    settle();
    CHECK_EQ(w.code, 0);
    CHECK_STR(w.answer->response->volume->state, "ready");
}

static void a_job_moves_on_from_a_node_that_leaves(void)
{
    world_reset();
    struct waiter from = client();
    w.node_error = LUNAR_E_NOT_JOINED;
    ask_create(&from, "disk", 1ull << 30, false);
    outside_step(); /* commit */
    outside_step(); /* grant */
    outside_step(); /* the node says that it is leaving */
    node_seen(3, 1, 1, PAGE_FLAG_LEAVING);
    w.node_error = 0;
    settle();
    CHECK_EQ(w.code, 0);
    CHECK_EQ(w.formats, 1);
}

static void an_old_page_is_no_life_sign(void)
{
    world_reset();
    struct uuid id = made("disk");
    struct waiter from = client();
    host_is(2, HOST_STATE_DEAD);
    ask_attach(&from, &id, "node2");
    CHECK_EQ(w.code, LUNAR_E_NOT_JOINED);
    host_is(2, HOST_STATE_UNKNOWN);
    ask_attach(&from, &id, "node2");
    CHECK_EQ(w.code, LUNAR_E_NOT_JOINED);
    leader_heard(w.leader, 2, w.now + 500); /* its page moved */
    ask_attach(&from, &id, "node2");
    settle();
    CHECK_EQ(w.code, 0);
}

static void safety_6_a_detach_must_name_its_attachment(void)
{
    world_reset();
    struct uuid id = made("disk"), zero = {{0}};
    struct waiter from = client();
    Lunar__Request r = LUNAR__REQUEST__INIT;
    Lunar__VolumeDetach m = LUNAR__VOLUME_DETACH__INIT;
    ask_attach(&from, &id, "node2");
    settle();
    m.volume_id = uuid_to_pb(&id);
    m.attachment_id = uuid_to_pb(&zero);
    r.op_case = LUNAR__REQUEST__OP_VOLUME_DETACH;
    r.volume_detach = &m;
    ask(&from, &r);
    settle();
    CHECK_EQ(w.code, LUNAR_E_INVALID);
    CHECK_EQ(w.n_held[2], 1);
}

/* The whole life, one request at a time, the leader replaced after `steps` outside steps; the
 * client asks again, as its agent does for it. Returns the number of outside steps of an
 * undisturbed life, or -1 where something is wrong. */
static int life(int steps)
{
    struct waiter from;
    struct uuid id = {{0}};
    int done = 0;

    world_reset();
    for (int request = 0; request < 4; request++) {
        int before = w.n_answers;
        from = client();
        while (w.n_answers == before || w.code == LUNAR_E_BUSY) {
            before = w.n_answers;
            if (request == 0)
                ask_create(&from, "disk", 1ull << 30, false);
            else if (request == 1)
                ask_attach(&from, &id, "node2");
            else if (request == 2)
                ask_detach(&from, &id);
            else
                ask_delete(&from, &id);
            while (w.n_answers == before && outside_step())
                if (++done == steps)
                    elect();
        }
        if (w.code != 0)
            return printf("# request %d after %d steps: %s\n", request, steps, w.text), -1;
        if (request == 0)
            id = uuid_from_pb(w.answer->response->volume->volume_id);
    }
    settle();
    bool clean = w.lvm.n_lvs == 0;
    for (uint32_t h = 1; h <= MAX_NODES; h++)
        clean = clean && w.grants[h].n_entries == 0 && w.n_held[h] == 0;
    return clean ? done : -1;
}

static void a_leader_lost_after_any_step_is_made_good_by_the_next(void)
{
    int n = life(0);
    CHECK(n > 8);
    for (int steps = 1; steps <= n; steps++)
        CHECK(life(steps) > 0);
    printf("# %d steps\n", n);
}

static void safety_2_what_any_of_the_three_sources_says_stands(void)
{
    struct uuid pool = uuid_random();
    struct table a, b, report, merged;
    table_init(&a, TABLE_GRANTS, 1, &pool);
    table_init(&b, TABLE_GRANTS, 1, &pool);
    table_init(&report, TABLE_REPORTS, 1, &pool);
    table_add(&a)->attachment_id = uuid_random();
    table_add(&b)->attachment_id = uuid_random();
    table_add(&report)->attachment_id = uuid_random();
    table_add(&report)->attachment_id = a.entries[0].attachment_id;
    grants_merge(&a, &b, &report, 1, &pool, &merged);
    CHECK_EQ(merged.n_entries, 3);
    table_free(&merged);
    grants_merge(NULL, NULL, &report, 1, &pool, &merged);
    CHECK_EQ(merged.n_entries, 2);
    CHECK_EQ(merged.entries[0].state, TABLE_STATE_GRANTED);
    table_free(&merged);
    table_free(&a);
    table_free(&b);
    table_free(&report);
}

TEST_MAIN(TEST(a_volume_lives_its_whole_life),
          TEST(a_second_attach_elsewhere_is_refused_and_names_the_holder),
          TEST(a_grant_is_erased_when_the_node_refuses_and_stands_when_it_is_silent),
          TEST(an_unknown_outcome_on_the_node_keeps_the_grant),
          TEST(a_failed_format_leaves_nothing), TEST(a_full_pool_is_said_and_leaves_nothing),
          TEST(a_commit_that_landed_although_its_outcome_was_unknown_is_gone_on_with),
          TEST(the_same_request_again_joins_and_another_size_is_refused),
          TEST(delete_is_refused_while_attached_and_is_success_when_gone),
          TEST(commands_are_sent_again_to_a_restarted_agent),
          TEST(a_former_life_of_a_node_gets_a_grant_of_its_own),
          TEST(a_leaving_or_unknown_node_gets_nothing), TEST(an_older_grant_survives_a_refusal),
          TEST(safety_2_every_entry_of_a_volume_counts), TEST(a_grant_whose_erasure_failed_stands),
          TEST(safety_3_a_grant_that_failed_to_be_written_is_written_before_the_command),
          TEST(a_create_that_failed_half_way_is_made_by_the_next_one),
          TEST(what_is_half_made_is_taken_up_again_without_a_request),
          TEST(a_node_that_reboots_during_a_format_gets_a_job_of_its_new_life),
          TEST(a_job_moves_on_from_a_node_that_leaves), TEST(an_old_page_is_no_life_sign),
          TEST(safety_6_a_detach_must_name_its_attachment),
          TEST(a_leader_lost_after_any_step_is_made_good_by_the_next),
          TEST(safety_2_what_any_of_the_three_sources_says_stands))
