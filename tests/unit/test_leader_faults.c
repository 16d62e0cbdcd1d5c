/* SPDX-License-Identifier: Apache-2.0 */
/* The pure leader when something fails: grants that cannot be written or erased, nodes that refuse,
 * reboot, leave or fall silent. */
#include "support/leader_world.h"

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

static void safety_6_a_detach_does_not_end_with_another_attachments(void)
{
    world_reset();
    struct uuid id = made("disk");
    struct waiter from = client();
    ask_attach(&from, &id, "node2");
    settle();
    struct table_entry late = w.grants[2].entries[0]; /* a late write brings back older ones */
    late.term = TABLE_TERM_LEFT_OVER;
    for (uint32_t host = 1; host <= 2; host++) {
        late.attachment_id = uuid_random();
        *table_add(&w.grants[host]) = late;
    }
    elect();
    w.nodes_silent = true;
    ask_attach(&from, &id, "node2"); /* makes the leader ask a node to be rid of its left-over */
    CHECK_EQ(w.code, LUNAR_E_BUSY);
    struct uuid ours = w.grants[2].entries[0].attachment_id;
    int answers = w.n_answers;
    ask_detach_of(&from, &id, &ours);
    CHECK_EQ(w.n_answers, answers + 1);
    CHECK_EQ(w.code, LUNAR_E_BUSY);
    w.nodes_silent = false;
    settle();
    CHECK(granted(2, &ours));
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

static void a_create_waits_while_its_job_is_taken_back(void)
{
    world_reset();
    struct waiter from = client();
    w.grants_fail = -5;
    ask_create(&from, "disk", 1ull << 30, false);
    settle();
    CHECK_EQ(w.code, -5); /* the job's grant stands, for the LUN may say so */
    const struct table *grants = leader_grants(w.leader, from.host_id);
    CHECK_EQ(grants->n_entries, 1);
    struct uuid volume = grants->entries[0].volume_id;
    struct uuid job = grants->entries[0].attachment_id;
    Lunar__Request r = LUNAR__REQUEST__INIT;
    Lunar__VolumeDetach m = LUNAR__VOLUME_DETACH__INIT;
    m.volume_id = uuid_to_pb(&volume);
    m.attachment_id = uuid_to_pb(&job);
    r.op_case = LUNAR__REQUEST__OP_VOLUME_DETACH;
    r.volume_detach = &m;
    ask(&from, &r);
    struct waiter other = client();
    ask_create(&other, "disk", 1ull << 30, false);
    CHECK_EQ(w.code, LUNAR_E_BUSY);
    settle();
    CHECK_EQ(w.code, 0); /* the detach */
    ask_create(&other, "disk", 1ull << 30, false);
    settle();
    CHECK_EQ(w.code, 0);
    CHECK_EQ(w.formats, 1);
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

static void a_node_that_refuses_every_job_is_asked_once_a_tick(void)
{
    world_reset();
    struct waiter from = client();
    w.node_error = LUNAR_E_NOT_JOINED;
    ask_create(&from, "disk", 1ull << 30, false);
    int steps = 0;
    while (steps < 100 && outside_step())
        steps++;
    /* The commit, then grant, command and the grant's erasure at one node, and once at another. */
    CHECK_EQ(steps, 7);
    CHECK_EQ(w.n_answers, 0);
    w.node_error = 0;
    leader_tick(w.leader, w.now += 1000);
    settle();
    CHECK_EQ(w.code, 0);
    CHECK_EQ(w.formats, 1);
}

static void an_old_page_is_no_life_sign(void)
{
    world_reset();
    struct uuid id = made("disk");
    struct waiter from = client();
    host_is(2, HOST_STATE_FAIL);
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

static void a_silent_agent_gets_no_work(void)
{
    world_reset();
    struct uuid id = made("disk");
    struct waiter from = client();
    w.now += 11000;
    ask_attach(&from, &id, "node2"); /* its node lives, its agent was killed */
    CHECK_EQ(w.code, LUNAR_E_NOT_JOINED);
    CHECK(strstr(w.text, "agent") != NULL);
    leader_heard(w.leader, 2, w.now);
    ask_attach(&from, &id, "node2");
    settle();
    CHECK_EQ(w.code, 0);
}

static void a_clean_leave_is_proof_for_the_life_that_left(void)
{
    world_reset();
    struct uuid id = made("disk");
    struct waiter from = client();
    ask_attach(&from, &id, "node2");
    settle();
    w.grants[2].entries[0].generation =
        2; /* granted to a later life than the one that sanlock saw leave */
    elect();
    host_is(2, HOST_STATE_FREE);
    w.now += 11000;
    ask_detach(&from, &id);
    CHECK_EQ(w.code, LUNAR_E_NOT_JOINED);
    w.grants[2].entries[0].generation = 1;
    elect();
    host_is(2, HOST_STATE_FREE);
    w.now += 11000;
    ask_detach(&from, &id);
    settle();
    CHECK_EQ(w.code, 0);
    CHECK_EQ(w.grants[2].n_entries, 0);
}

static void a_job_moves_on_when_its_node_has_left(void)
{
    world_reset();
    struct waiter from = client();
    w.nodes_silent = true;
    ask_create(&from, "disk", 1ull << 30, false);
    settle();
    node_seen(3, 1, 1, PAGE_FLAG_LEAVING);
    host_is(3, HOST_STATE_FREE);
    w.nodes_silent = false;
    leader_tick(w.leader, w.now);
    settle();
    CHECK_EQ(w.code, 0);
    CHECK_EQ(w.formats, 1);
}

static void safety_17_a_volume_that_is_not_made_yet_is_never_attached(void)
{
    world_reset();
    struct waiter from = client();
    w.nodes_silent = true;
    ask_create(&from, "disk", 1ull << 30, false);
    settle();
    struct catalogue *c = fake_lvm_catalogue(&w.lvm);
    struct uuid id = c->volumes[0].id;
    catalogue_free(c);
    free(c);
    ask_attach(&from, &id, "node1");
    CHECK_EQ(w.code, LUNAR_E_BUSY);
    CHECK_EQ(w.n_held[1], 0);
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

/* A late report or grant copy brings back entries that stand for nothing. */
static void grants_that_stand_for_nothing_are_erased_without_a_request(void)
{
    world_reset();
    struct uuid id = made("disk"), gone = uuid_random();
    struct table_entry e = {.generation = 1, .mode = TABLE_MODE_JOB, .state = TABLE_STATE_GRANTED};
    e.volume_id = id; /* formatted long ago */
    e.attachment_id = uuid_random();
    *table_add(&w.grants[2]) = e;
    e.volume_id = gone;
    e.mode = TABLE_MODE_ATTACH;
    e.attachment_id = uuid_random();
    *table_add(&w.grants[2]) = e;
    elect();
    settle();
    CHECK_EQ(w.grants[2].n_entries, 2);
    w.now += LEADER_RECONCILE_MS;
    for (uint32_t h = 1; h <= 3; h++)
        leader_heard(w.leader, h, w.now);
    leader_tick(w.leader, w.now);
    settle();
    CHECK_EQ(w.grants[2].n_entries, 0);
    struct waiter from = client();
    ask_attach(&from, &id, "node1");
    settle();
    CHECK_EQ(w.code, 0);
    w.now += LEADER_RECONCILE_MS;
    leader_tick(w.leader, w.now);
    settle();
    CHECK_EQ(w.grants[1].n_entries, 1); /* this one is wanted */
}

/* The newer copy has an entry erased, the older one still names it. */
static void safety_6_an_erased_grant_that_comes_back_is_not_attached_under(void)
{
    struct table a = {0}, b = {0}, report, merged;
    world_reset();
    struct uuid id = made("disk");
    struct waiter from = client();
    ask_attach(&from, &id, "node2");
    settle();
    table_copy(&a, &w.grants[2]);
    struct uuid first = a.entries[0].attachment_id;
    ask_detach(&from, &id);
    settle();
    table_copy(&b, &w.grants[2]); /* a late write brings `a` back into the other copy */
    grants_merge(&a, &b, NULL, 2, &w.sb.pool_id, &merged, NULL);
    CHECK_EQ(merged.n_entries, 1);
    CHECK_EQ(merged.entries[0].term, TABLE_TERM_LEFT_OVER);
    table_init(&report, TABLE_REPORTS, 2, &w.sb.pool_id);
    *table_add(&report) = a.entries[0];
    report.entries[0].term = 0; /* an agent that adopted the stack has forgotten the term */
    struct table reported;
    grants_merge(&b, &a, &report, 2, &w.sb.pool_id, &reported, NULL);
    CHECK_EQ(reported.n_entries, 1);
    CHECK(reported.entries[0].term != TABLE_TERM_LEFT_OVER);
    table_free(&reported);
    table_free(&report);

    table_free(&w.grants[2]);
    w.grants[2] = merged;
    elect();
    ask_attach(&from, &id, "node2");
    CHECK_EQ(w.code, LUNAR_E_BUSY);
    settle(); /* the node confirms, the entry goes */
    ask_attach(&from, &id, "node2");
    settle();
    CHECK_EQ(w.code, 0);
    CHECK(!granted(2, &first));
    table_free(&a);
    table_free(&b);
}

static void safety_18_a_failed_job_frees_no_extents_under_anothers_job(void)
{
    world_reset();
    struct waiter from = client();
    w.nodes_silent = true;
    ask_create(&from, "disk", 1ull << 30, false);
    settle(); /* node 3 has the job, and is formatting: it has not answered */
    CHECK_EQ(w.grants[3].n_entries, 1);
    struct table_entry e = w.grants[3].entries[0];
    e.attachment_id = uuid_random();
    e.term =
        TABLE_TERM_LEFT_OVER; /* node 1 had a job of it before; a late write brought back copy B */
    *table_add(&w.grants[1]) = e;
    elect();
    w.nodes_silent = false;
    w.node_error = LUNAR_E_EXEC; /* node 1 cannot format; node 3 is never asked */
    settle();
    CHECK(w.lvm.n_lvs == 1 || w.grants[3].n_entries == 0);
}

static void an_orphan_that_is_refused_hides_no_other_of_its_node(void)
{
    world_reset();
    struct uuid a = made("a"), b = made("b");
    struct table_entry e = {.volume_id = a,
                            .attachment_id = uuid_random(),
                            .generation = 1,
                            .mode = TABLE_MODE_ATTACH,
                            .state = TABLE_STATE_GRANTED};
    struct uuid first = e.attachment_id;
    *table_add(&w.grants[1]) = e; /* left over; a consumer has it open */
    e.volume_id = b;
    e.attachment_id = uuid_random();
    struct uuid second = e.attachment_id;
    *table_add(&w.grants[1]) = e; /* left over; nobody has it open */
    elect();
    int asked[2] = {0, 0};
    for (int i = 0; i < 60; i++) {
        while (w.n_queue > 0) {
            if (w.queue[0].kind == P_COMMAND) {
                struct uuid id = uuid_from_pb(w.queue[0].envelope->command->detach->attachment_id);
                asked[0] += uuid_equal(&id, &first);
                asked[1] += uuid_equal(&id, &second);
                w.node_error = uuid_equal(&id, &first) ? LUNAR_E_IN_USE : 0;
            }
            outside_step();
        }
        w.now += LEADER_RECONCILE_MS;
        for (uint32_t h = 1; h <= 3; h++)
            leader_heard(w.leader, h, w.now);
        leader_tick(w.leader, w.now);
    }
    CHECK(asked[1] > 0);
}

/* A page that was written before the node's reboot lands late: the job of now goes on. */
static void an_older_page_of_a_node_takes_no_job_from_it(void)
{
    world_reset();
    for (uint32_t h = 1; h <= 3; h++) {
        w.generation[h] = 2;
        node_seen(h, 2, 1, 0);
    }
    w.nodes_silent = true;
    struct waiter from = client();
    ask_create(&from, "v", 1ull << 30, false);
    settle();
    uint32_t host = 0;
    for (uint32_t h = 1; h <= MAX_NODES; h++)
        if (w.grants[h].n_entries > 0)
            host = h;
    CHECK(host > 0);
    const struct uuid job = w.grants[host].entries[0].attachment_id;
    node_seen(host, 1, 1, 0);
    settle();
    CHECK_EQ(w.grants[host].n_entries, 1);
    CHECK(uuid_equal(&w.grants[host].entries[0].attachment_id, &job));
    CHECK_EQ(w.grants[host].entries[0].generation, 2);
    w.nodes_silent = false;
    node_seen(host, 2, 1, 0);
    settle();
    CHECK_EQ(w.code, 0);
    CHECK_EQ(w.grants[host].n_entries, 0);
}

TEST_MAIN(TEST(an_older_page_of_a_node_takes_no_job_from_it),
          TEST(safety_18_a_failed_job_frees_no_extents_under_anothers_job),
          TEST(an_orphan_that_is_refused_hides_no_other_of_its_node),
          TEST(an_older_grant_survives_a_refusal), TEST(safety_2_every_entry_of_a_volume_counts),
          TEST(safety_6_a_detach_does_not_end_with_another_attachments),
          TEST(a_grant_whose_erasure_failed_stands),
          TEST(safety_3_a_grant_that_failed_to_be_written_is_written_before_the_command),
          TEST(a_create_that_failed_half_way_is_made_by_the_next_one),
          TEST(a_create_waits_while_its_job_is_taken_back),
          TEST(what_is_half_made_is_taken_up_again_without_a_request),
          TEST(a_node_that_reboots_during_a_format_gets_a_job_of_its_new_life),
          TEST(a_job_moves_on_from_a_node_that_leaves),
          TEST(a_node_that_refuses_every_job_is_asked_once_a_tick),
          TEST(an_old_page_is_no_life_sign), TEST(a_silent_agent_gets_no_work),
          TEST(a_clean_leave_is_proof_for_the_life_that_left),
          TEST(a_job_moves_on_when_its_node_has_left),
          TEST(safety_17_a_volume_that_is_not_made_yet_is_never_attached),
          TEST(safety_6_a_detach_must_name_its_attachment),
          TEST(grants_that_stand_for_nothing_are_erased_without_a_request),
          TEST(safety_6_an_erased_grant_that_comes_back_is_not_attached_under))
