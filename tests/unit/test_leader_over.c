/* SPDX-License-Identifier: Apache-2.0 */
/* Lives that are over (SAFETY 7, 8): what proves it, what becomes of their grants and of the
 * operations that waited for them, and the operator's fence. */
#include "support/leader_world.h"

static struct waiter from;

/* A volume attached to node 2. */
static struct uuid new_attached(const char *name)
{
    struct uuid id = made(name);
    from = client();
    ask_attach(&from, &id, "node2");
    settle();
    assert(w.code == 0 && w.grants[2].n_entries > 0);
    return id;
}

static bool taken(void)
{
    settle();
    return w.grants[2].n_entries == 0 && w.grants[2].node_dead &&
           w.grants[2].dead_generation == 1 && w.declared_dead[2] == 1;
}

static int attach_elsewhere(const struct uuid *id)
{
    from = client();
    ask_attach(&from, id, "node1");
    settle();
    return w.code;
}

static void tick(uint64_t ms)
{
    w.now += ms;
    for (uint32_t h = 1; h <= 3; h++)
        if (h != 2)
            leader_heard(w.leader, h, w.now);
    leader_tick(w.leader, w.now);
}

/* --- proof --- */

static void safety_8_dead_takes_the_grants_and_another_node_gets_the_volume(void)
{
    world_reset();
    struct uuid id = new_attached("disk");
    CHECK_EQ(attach_elsewhere(&id), LUNAR_E_IN_USE);
    host_is(2, HOST_STATE_DEAD);
    CHECK(taken());
    CHECK_EQ(attach_elsewhere(&id), 0);
    CHECK_EQ(w.grants[1].n_entries, 1);
}

static void safety_8_nothing_less_than_dead_takes_anything(void)
{
    static const enum host_state states[] = {HOST_STATE_FAIL, HOST_STATE_UNKNOWN, HOST_STATE_LIVE};
    world_reset();
    struct uuid id = new_attached("disk");
    for (size_t i = 0; i < 3; i++) {
        host_status(2, 1, states[i], HOST_LOOK_UNMOVED);
        tick(60 * 1000);
        CHECK_EQ(attach_elsewhere(&id), LUNAR_E_IN_USE);
    }
    CHECK_EQ(w.declared_dead[2], 0);
}

static void while_the_holder_is_not_heard_the_refusal_says_what_to_wait_for(void)
{
    world_reset();
    struct uuid id = new_attached("disk");
    CHECK_EQ(attach_elsewhere(&id), LUNAR_E_IN_USE);
    CHECK(strstr(w.text, "node list") == NULL);
    tick(11 * 1000);
    CHECK_EQ(attach_elsewhere(&id), LUNAR_E_IN_USE);
    CHECK(strstr(w.text, "node list") != NULL);
}

static void safety_8_dead_is_believed_only_if_the_lease_stands_still_and_we_were_awake(void)
{
    world_reset();
    struct uuid id = new_attached("disk");
    host_status(2, 1, HOST_STATE_DEAD, HOST_LOOK_NONE);
    host_status(2, 1, HOST_STATE_DEAD, HOST_LOOK_MOVED);
    w.asleep = true;
    host_status(2, 1, HOST_STATE_DEAD, HOST_LOOK_UNMOVED);
    tick(1000);
    CHECK_EQ(attach_elsewhere(&id), LUNAR_E_IN_USE);
    w.asleep = false;
    host_status(2, 1, HOST_STATE_DEAD, HOST_LOOK_UNMOVED);
    CHECK(taken());
}

static void safety_8_a_late_renewal_revives_nobody(void)
{
    world_reset();
    struct uuid id = new_attached("disk");
    host_is(2, HOST_STATE_DEAD);
    settle();
    host_is(2, HOST_STATE_LIVE);
    leader_heard(w.leader, 2, w.now + 500);
    from = client();
    ask_attach(&from, &id, "node2");
    CHECK_EQ(w.code, LUNAR_E_NOT_JOINED);
    CHECK(strstr(w.text, "proved dead") != NULL);
    w.declared_dead[2] = 0;
    elect(); /* nor does a new coordinator: the mark stands on the LUN */
    ask_attach(&from, &id, "node2");
    CHECK_EQ(w.code, LUNAR_E_NOT_JOINED);
    CHECK_EQ(w.declared_dead[2], 1);
}

static void safety_7_a_newer_generation_ends_the_older_one_and_no_more(void)
{
    world_reset();
    struct uuid old = new_attached("old"), new = made("new");
    host_status(2, 2, HOST_STATE_LIVE, HOST_LOOK_NONE);
    node_seen(2, 2, 1, 0);
    from = client();
    ask_attach(&from, &new, "node2");
    settle();
    CHECK_EQ(w.code, 0);
    CHECK_EQ(w.grants[2].n_entries, 1); /* the old life's entry went, the new one's stands */
    CHECK(uuid_equal(&w.grants[2].entries[0].volume_id, &new));
    CHECK_EQ(w.grants[2].dead_generation, 1);
    CHECK_EQ(attach_elsewhere(&old), 0);
    CHECK_EQ(attach_elsewhere(&new), LUNAR_E_IN_USE);
}

static void safety_7_the_proof_of_an_older_life_says_nothing_of_the_next(void)
{
    world_reset();
    struct uuid id = made("disk");
    w.generation[2] = 3;
    elect();
    host_status(2, 3, HOST_STATE_LIVE, HOST_LOOK_NONE);
    from = client();
    ask_attach(&from, &id, "node2");
    settle();
    CHECK_EQ(w.grants[2].entries[0].generation, 3);
    host_status(2, 2, HOST_STATE_DEAD, HOST_LOOK_UNMOVED); /* a stale view */
    host_status(2, 2, HOST_STATE_FREE, HOST_LOOK_UNMOVED);
    CHECK_EQ(attach_elsewhere(&id), LUNAR_E_IN_USE);
}

static void a_clean_leave_is_proof(void)
{
    world_reset();
    struct uuid id = new_attached("disk");
    host_is(2, HOST_STATE_FREE);
    settle();
    CHECK_EQ(attach_elsewhere(&id), 0);
}

/* sanlock says FREE of every lease whose timestamp reads as 0: also of one that zeroes were written
 * over while its host lives. */
static void safety_8_a_lease_is_free_only_if_it_reads_so(void)
{
    world_reset();
    struct uuid id = new_attached("disk");
    host_status(2, 1, HOST_STATE_FREE, HOST_LOOK_NONE);
    host_status(2, 1, HOST_STATE_FREE, HOST_LOOK_DAMAGED);
    host_status(2, 1, HOST_STATE_FREE, HOST_LOOK_MOVED);
    settle();
    CHECK_EQ(attach_elsewhere(&id), LUNAR_E_IN_USE);
    host_status(2, 1, HOST_STATE_FREE, HOST_LOOK_UNMOVED);
    settle();
    CHECK_EQ(attach_elsewhere(&id), 0);
}

/* sanlock learns of the next life seconds later than its page tells. */
static void a_node_that_comes_back_gets_volumes_once_its_page_has_moved(void)
{
    world_reset();
    struct uuid id = new_attached("disk");
    CHECK(leader_has_grants(w.leader, 2));
    host_is(2, HOST_STATE_FREE);
    settle();
    CHECK(!leader_has_grants(w.leader, 2));
    node_seen(2, 2, 1, 0);
    from = client();
    ask_attach(&from, &id, "node2");
    CHECK_EQ(w.code, LUNAR_E_BUSY);
    CHECK(strstr(w.text, "has just joined") != NULL);
    leader_heard(w.leader, 2, w.now + 500);
    from = client();
    ask_attach(&from, &id, "node2");
    settle();
    CHECK_EQ(w.code, 0);
    CHECK_EQ(w.grants[2].entries[0].generation, 2);
}

/* --- the write --- */

static void safety_3_until_both_copies_say_so_the_entries_stand_in_the_way(void)
{
    world_reset();
    struct uuid id = new_attached("disk");
    w.grants_fail = -5;
    host_is(2, HOST_STATE_DEAD);
    from = client();
    ask_attach(&from, &id, "node1"); /* the write is out */
    CHECK_EQ(w.code, LUNAR_E_BUSY);
    CHECK(strstr(w.text, "being taken from the dead node 'node2'") != NULL);
    settle(); /* it fails */
    CHECK_EQ(attach_elsewhere(&id), LUNAR_E_BUSY);
    ask_delete(&from, &id);
    CHECK_EQ(w.code, LUNAR_E_BUSY);
    CHECK_EQ(w.grants[1].n_entries, 0);
    tick(1000); /* and is tried again */
    CHECK(taken());
    CHECK_EQ(attach_elsewhere(&id), 0);
}

static void safety_3_the_marks_of_both_copies_count_and_bury_what_any_source_says(void)
{
    struct table a, b, report, merged;
    world_reset();
    table_init(&a, TABLE_GRANTS, 2, &w.sb.pool_id);
    table_init(&b, TABLE_GRANTS, 2, &w.sb.pool_id);
    table_init(&report, TABLE_REPORTS, 2, &w.sb.pool_id);
    struct table *all[] = {&a, &b, &report};
    for (uint64_t g = 1; g <= 3; g++)
        for (int i = 0; i < 3; i++) {
            struct table_entry *e = table_add(all[i]);
            e->generation = g;
            e->attachment_id.b[0] = (uint8_t)g;
            e->attachment_id.b[1] = (uint8_t)i;
        }
    a.term = 7; /* the newer copy has the lower mark */
    a.node_dead = b.node_dead = true;
    a.dead_generation = 1;
    b.dead_generation = 2;
    CHECK_EQ(grants_merge(&a, &b, &report, 2, &w.sb.pool_id, &merged, NULL), 0);
    CHECK(merged.node_dead);
    CHECK_EQ(merged.dead_generation, 2);
    CHECK_EQ(merged.n_entries, 3); /* of generation 3, from each source */
    for (uint32_t i = 0; i < merged.n_entries; i++)
        CHECK_EQ(merged.entries[i].generation, 3);
    table_free(&merged);
    b.node_dead = false; /* without the flag the number is none */
    grants_merge(&a, &b, &report, 2, &w.sb.pool_id, &merged, NULL);
    CHECK_EQ(merged.dead_generation, 1);
    CHECK_EQ(merged.n_entries, 6);
    table_free(&merged);
    for (int i = 0; i < 3; i++)
        table_free(all[i]);
}

static void safety_8_every_later_write_of_the_table_keeps_the_mark(void)
{
    world_reset();
    struct uuid id = new_attached("disk");
    host_is(2, HOST_STATE_DEAD);
    settle();
    host_status(2, 2, HOST_STATE_LIVE, HOST_LOOK_NONE);
    node_seen(2, 2, 1, 0);
    from = client();
    ask_attach(&from, &id, "node2");
    settle();
    CHECK_EQ(w.code, 0);
    CHECK_EQ(w.grants[2].n_entries, 1);
    CHECK(w.grants[2].node_dead);
    CHECK_EQ(w.grants[2].dead_generation, 1);
    const struct table *mine = leader_grants(w.leader, 2); /* what the re-check compares with */
    CHECK_EQ(mine->dead_generation, 1);
    CHECK_EQ(mine->seq, w.grants[2].seq);
}

static void a_dead_node_without_grants_is_marked_too(void)
{
    world_reset();
    host_is(3, HOST_STATE_DEAD);
    settle();
    CHECK(w.grants[3].node_dead);
    CHECK_EQ(w.grants[3].dead_generation, 1);
    w.now += 1000;
    leader_tick(w.leader, w.now);
    CHECK_EQ(w.n_queue, 0); /* once */
}

/* --- operations under way --- */

static void an_attach_on_a_node_that_dies_fails_and_may_go_elsewhere(void)
{
    world_reset();
    struct uuid id = made("disk");
    w.nodes_silent = true;
    from = client();
    ask_attach(&from, &id, "node2");
    settle();
    int answers = w.n_answers;
    host_is(2, HOST_STATE_DEAD);
    CHECK_EQ(w.n_answers, answers + 1);
    CHECK_EQ(w.code, LUNAR_E_NOT_JOINED);
    CHECK(strstr(w.text, "proved dead") != NULL);
    w.nodes_silent = false;
    settle();
    CHECK_EQ(attach_elsewhere(&id), 0);
}

static void an_attach_whose_grant_is_being_written_when_its_node_dies_sends_no_command(void)
{
    world_reset();
    struct uuid id = made("disk");
    from = client();
    ask_attach(&from, &id, "node2");
    host_is(2, HOST_STATE_DEAD); /* the grant's write is out */
    settle();
    CHECK_EQ(w.code, LUNAR_E_NOT_JOINED);
    CHECK_EQ(w.n_held[2], 0);
    CHECK_EQ(w.grants[2].n_entries, 0);
    CHECK_EQ(attach_elsewhere(&id), 0);
}

static void a_detach_from_a_node_that_dies_is_done(void)
{
    world_reset();
    struct uuid id = new_attached("disk");
    w.nodes_silent = true;
    ask_detach(&from, &id);
    settle();
    int answers = w.n_answers;
    host_is(2, HOST_STATE_DEAD);
    CHECK_EQ(w.n_answers, answers); /* not before both copies say so */
    settle();
    CHECK_EQ(w.n_answers, answers + 1);
    CHECK_EQ(w.code, 0);
    CHECK(taken());
}

static void a_detach_from_a_dead_node_asks_nobody(void)
{
    world_reset();
    struct uuid id = new_attached("disk");
    w.grants_fail = -5;
    host_is(2, HOST_STATE_DEAD);
    settle();
    w.nodes_silent = true;
    ask_detach(&from, &id);
    settle();
    CHECK_EQ(w.code, 0);
    CHECK_EQ(w.grants[2].n_entries, 0);
}

static void a_create_whose_node_dies_is_formatted_elsewhere(void)
{
    world_reset();
    w.nodes_silent = true;
    from = client();
    ask_create(&from, "disk", 1ull << 30, false); /* on node 3, the requester's */
    settle();
    CHECK_EQ(w.grants[3].n_entries, 1);
    w.nodes_silent = false;
    host_is(3, HOST_STATE_DEAD);
    settle();
    CHECK_EQ(w.code, 0);
    CHECK_EQ(w.formats, 1);
    CHECK_EQ(w.grants[3].n_entries, 0);
    CHECK_EQ(w.grants[3].dead_generation, 1);
}

static void what_is_put_back_for_a_dead_life_is_taken_again(void)
{
    world_reset();
    struct uuid id = new_attached("disk");
    ask_detach(&from, &id);
    outside_step(); /* the node tears down: the erasure is queued */
    w.grants_fail = -5;
    host_is(2, HOST_STATE_DEAD); /* nothing is left in memory, but the mark goes out */
    settle();                    /* the erasure fails, the mark succeeds */
    CHECK_EQ(w.code, -5);
    tick(1000);
    CHECK(taken());
    CHECK_EQ(leader_grants(w.leader, 2)->n_entries, 0);
    CHECK_EQ(attach_elsewhere(&id), 0);
}

/* --- the operator's fence --- */

static void fence(uint32_t host, uint64_t generation, const char *name)
{
    Lunar__Request r = LUNAR__REQUEST__INIT;
    Lunar__NodeFence m = LUNAR__NODE_FENCE__INIT;
    m.host_id = host;
    m.generation = generation;
    m.name = (char *)(uintptr_t)name;
    r.op_case = LUNAR__REQUEST__OP_NODE_FENCE;
    r.node_fence = &m;
    from = client();
    ask(&from, &r);
}

static void stands_still_for(uint64_t ms)
{
    tick(ms);
    host_status(2, 1, HOST_STATE_LIVE, HOST_LOOK_UNMOVED);
}

static void safety_8_a_node_that_renews_cannot_be_fenced(void)
{
    world_reset();
    struct uuid id = new_attached("disk");
    w.timestamp[2] = 100;
    host_status(2, 1, HOST_STATE_LIVE, HOST_LOOK_NONE);
    stands_still_for(8000); /* 3N + 2 */
    fence(2, 1, "node2");
    CHECK_EQ(w.code, LUNAR_E_ALIVE);
    CHECK(strstr(w.text, "8 s ago") != NULL);
    CHECK(strstr(w.text, "host id 2, generation 1") != NULL);
    w.timestamp[2] = 104;
    stands_still_for(2000);
    fence(2, 1, "node2");
    CHECK_EQ(w.code, LUNAR_E_ALIVE);
    CHECK(strstr(w.text, "again in 8 s") != NULL);
    /* What sanlock has not seen yet, a look at the lease has. */
    tick(8001);
    host_status(2, 1, HOST_STATE_LIVE, HOST_LOOK_MOVED);
    fence(2, 1, "node2");
    CHECK_EQ(w.code, LUNAR_E_ALIVE);
    CHECK_EQ(attach_elsewhere(&id), LUNAR_E_IN_USE);
    CHECK_EQ(w.declared_dead[2], 0);
}

static void a_fence_wants_a_fresh_look_at_the_lease(void)
{
    world_reset();
    new_attached("disk");
    stands_still_for(1000);
    tick(8000);
    CHECK(leader_suspects(w.leader, 2, w.now));
    fence(2, 1, "node2");
    CHECK_EQ(w.code, LUNAR_E_BUSY);
    host_status(2, 1, HOST_STATE_FAIL, HOST_LOOK_UNMOVED);
    fence(2, 1, "node2");
    settle();
    CHECK_EQ(w.code, 0);
}

/* A look that hung, or was told to a coordinator that had slept, is as old as its beginning. */
static void safety_8_a_look_that_took_long_is_no_fresh_one(void)
{
    world_reset();
    new_attached("disk");
    stands_still_for(1000);
    tick(8001);
    w.slow_ms = 8000; /* it may have renewed twice meanwhile */
    host_status(2, 1, HOST_STATE_LIVE, HOST_LOOK_UNMOVED);
    fence(2, 1, "node2");
    CHECK_EQ(w.code, LUNAR_E_BUSY);
    CHECK_EQ(w.declared_dead[2], 0);
    w.slow_ms = 0;
    host_status(2, 1, HOST_STATE_FAIL, HOST_LOOK_UNMOVED);
    fence(2, 1, "node2");
    settle();
    CHECK_EQ(w.code, 0);
}

static void safety_8_a_fence_is_latched_and_answered_when_both_copies_say_so(void)
{
    world_reset();
    struct uuid id = new_attached("disk");
    stands_still_for(9000);
    int answers = w.n_answers;
    fence(2, 1, "node2");
    CHECK_EQ(w.n_answers, answers);
    CHECK(taken());
    CHECK_EQ(w.n_answers, answers + 1);
    CHECK_EQ(w.code, 0);
    fence(2, 1, "node2"); /* again: it is so already */
    CHECK_EQ(w.code, 0);
    host_is(2, HOST_STATE_LIVE);
    leader_heard(w.leader, 2, w.now);
    from = client();
    ask_attach(&from, &id, "node2");
    CHECK_EQ(w.code, LUNAR_E_NOT_JOINED);
    CHECK_EQ(attach_elsewhere(&id), 0);
}

static void a_fence_that_names_something_else_does_nothing(void)
{
    world_reset();
    new_attached("disk");
    stands_still_for(9000);
    fence(7, 1, "node7");
    CHECK_EQ(w.code, LUNAR_E_NOT_FOUND);
    fence(0, 1, "node2");
    CHECK_EQ(w.code, LUNAR_E_NOT_FOUND);
    fence(4000000, 1, "node2");
    CHECK_EQ(w.code, LUNAR_E_NOT_FOUND);
    fence(2, 1, "node1");
    CHECK_EQ(w.code, LUNAR_E_INVALID);
    fence(2, 2, "node2"); /* a life that is not there yet */
    CHECK_EQ(w.code, LUNAR_E_BUSY);
    settle();
    CHECK_EQ(w.grants[2].n_entries, 1);
    CHECK_EQ(w.declared_dead[2], 0);
}

/* --- reservations --- */

static void safety_13_nothing_moves_before_the_keys_are_preempted(void)
{
    struct error err = ERROR_INIT;
    world_reset();
    w.has_pr = true;
    elect();
    struct uuid id = new_attached("disk");
    host_is(2, HOST_STATE_DEAD);
    settle();
    CHECK_EQ(w.preempt_host, 2);
    CHECK_EQ(w.preempt_generation, 1);
    CHECK_EQ(attach_elsewhere(&id), LUNAR_E_IN_USE);
    w.preempt_host = 0;
    error_set(&err, -5, "a path is gone");
    leader_preempted(w.leader, 2, 1, -5, &err, w.now);
    CHECK_EQ(attach_elsewhere(&id), LUNAR_E_IN_USE);
    tick(1000);
    CHECK_EQ(w.preempt_host, 2); /* tried again */
    leader_preempted(w.leader, 2, 1, 0, NULL, w.now);
    CHECK(taken());
    CHECK_EQ(attach_elsewhere(&id), 0);
}

static void safety_13_a_superseded_life_is_preempted_before_anything_of_it_is_given_on(void)
{
    world_reset();
    w.has_pr = true;
    elect();
    struct uuid id = new_attached("disk");
    node_seen(2, 2, 1, 0);
    from = client();
    ask_attach(&from, &id, "node2"); /* the new life itself, before anybody has judged */
    settle();
    CHECK_EQ(w.code, LUNAR_E_BUSY);
    host_status(2, 2, HOST_STATE_LIVE, HOST_LOOK_NONE);
    settle();
    CHECK_EQ(w.preempt_host, 2);
    CHECK_EQ(w.preempt_generation, 1);
    CHECK_EQ(attach_elsewhere(&id), LUNAR_E_IN_USE);
    leader_preempted(w.leader, 2, 1, 0, NULL, w.now);
    CHECK(taken());
    CHECK_EQ(attach_elsewhere(&id), 0);
}

static void safety_13_with_reservations_a_living_node_can_be_fenced(void)
{
    struct error err = ERROR_INIT;
    world_reset();
    w.has_pr = true;
    elect();
    new_attached("disk");
    fence(2, 1, "node2");
    CHECK_EQ(w.preempt_host, 2);
    w.preempt_host = 0;
    error_set(&err, -5, "a path is gone");
    leader_preempted(w.leader, 2, 1, -5, &err, w.now);
    CHECK_EQ(w.code, -5);
    tick(1000);
    CHECK_EQ(w.preempt_host, 0); /* only on demand: the node lives */
    fence(2, 1, "node2");
    leader_preempted(w.leader, 2, 1, 0, NULL, w.now);
    CHECK(taken());
    CHECK_EQ(w.code, 0);
}

/* --- node list --- */

static const Lunar__Node *listed(uint32_t host)
{
    Lunar__Request r = LUNAR__REQUEST__INIT;
    Lunar__NodeList m = LUNAR__NODE_LIST__INIT;
    r.op_case = LUNAR__REQUEST__OP_NODE_LIST;
    r.node_list = &m;
    from = client();
    ask(&from, &r);
    const Lunar__Nodes *nodes = w.answer->response->nodes;
    for (size_t i = 0; i < nodes->n_nodes; i++)
        if (nodes->nodes[i]->host_id == host)
            return nodes->nodes[i];
    return NULL;
}

static void the_list_shows_the_age_of_the_renewal_and_when_the_node_is_dead(void)
{
    world_reset();
    w.timestamp[2] = 50;
    host_status(2, 1, HOST_STATE_LIVE, HOST_LOOK_NONE);
    stands_still_for(9000);
    CHECK_EQ(listed(2)->renewed_ms, 9000);
    CHECK_EQ(listed(2)->dead_in_ms, 17000); /* 8N + W is 26 s */
    w.timestamp[2] = 54;
    host_status(2, 1, HOST_STATE_LIVE, HOST_LOOK_NONE);
    CHECK_EQ(listed(2)->renewed_ms, 0);
    CHECK_EQ(listed(2)->dead_in_ms, 26000);
    tick(40000);
    CHECK_EQ(listed(2)->dead_in_ms, 0);
    host_is(2, HOST_STATE_DEAD);
    settle();
    host_is(2, HOST_STATE_LIVE);
    CHECK_STR(listed(2)->state, "DEAD"); /* latched */
    CHECK_EQ(listed(2)->over_generation, 1);
    host_status(2, 2, HOST_STATE_LIVE, HOST_LOOK_NONE);
    node_seen(2, 2, 1, 0);
    CHECK_STR(listed(2)->state, "LIVE");
}

static void the_status_counts_dead_nodes_that_still_hold_something(void)
{
    Lunar__Request r = LUNAR__REQUEST__INIT;
    Lunar__StatusGet m = LUNAR__STATUS_GET__INIT;
    r.op_case = LUNAR__REQUEST__OP_STATUS_GET;
    r.status_get = &m;
    world_reset();
    new_attached("disk");
    w.grants_fail = -5;
    host_is(2, HOST_STATE_DEAD);
    settle();
    from = client();
    ask(&from, &r);
    CHECK(strstr(w.answer->response->status->condition, "1 dead node still holds 1 volume") !=
          NULL);
    tick(1000);
    settle();
    ask(&from, &r);
    CHECK_STR(w.answer->response->status->condition, "");
}

TEST_MAIN(TEST(safety_8_dead_takes_the_grants_and_another_node_gets_the_volume),
          TEST(safety_8_nothing_less_than_dead_takes_anything),
          TEST(while_the_holder_is_not_heard_the_refusal_says_what_to_wait_for),
          TEST(safety_8_dead_is_believed_only_if_the_lease_stands_still_and_we_were_awake),
          TEST(safety_8_a_late_renewal_revives_nobody),
          TEST(safety_7_a_newer_generation_ends_the_older_one_and_no_more),
          TEST(safety_7_the_proof_of_an_older_life_says_nothing_of_the_next),
          TEST(a_clean_leave_is_proof), TEST(safety_8_a_lease_is_free_only_if_it_reads_so),
          TEST(a_node_that_comes_back_gets_volumes_once_its_page_has_moved),
          TEST(safety_3_until_both_copies_say_so_the_entries_stand_in_the_way),
          TEST(safety_3_the_marks_of_both_copies_count_and_bury_what_any_source_says),
          TEST(safety_8_every_later_write_of_the_table_keeps_the_mark),
          TEST(a_dead_node_without_grants_is_marked_too),
          TEST(an_attach_on_a_node_that_dies_fails_and_may_go_elsewhere),
          TEST(an_attach_whose_grant_is_being_written_when_its_node_dies_sends_no_command),
          TEST(a_detach_from_a_node_that_dies_is_done), TEST(a_detach_from_a_dead_node_asks_nobody),
          TEST(a_create_whose_node_dies_is_formatted_elsewhere),
          TEST(what_is_put_back_for_a_dead_life_is_taken_again),
          TEST(safety_8_a_node_that_renews_cannot_be_fenced),
          TEST(a_fence_wants_a_fresh_look_at_the_lease),
          TEST(safety_8_a_look_that_took_long_is_no_fresh_one),
          TEST(safety_8_a_fence_is_latched_and_answered_when_both_copies_say_so),
          TEST(a_fence_that_names_something_else_does_nothing),
          TEST(safety_13_nothing_moves_before_the_keys_are_preempted),
          TEST(safety_13_a_superseded_life_is_preempted_before_anything_of_it_is_given_on),
          TEST(safety_13_with_reservations_a_living_node_can_be_fenced),
          TEST(the_list_shows_the_age_of_the_renewal_and_when_the_node_is_dead),
          TEST(the_status_counts_dead_nodes_that_still_hold_something))
