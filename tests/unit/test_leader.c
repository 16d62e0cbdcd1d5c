/* SPDX-License-Identifier: Apache-2.0 */
/* The pure leader: every request's happy path, every refusal, and a successor that takes over after
 * each single step of a volume's whole life. */
#include "support/leader_world.h"

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
    for (uint32_t h = 1; h <= 3; h++)
        leader_heard(w.leader, h, w.now);
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
    grants_merge(&a, &b, &report, 1, &pool, &merged, NULL);
    CHECK_EQ(merged.n_entries, 3);
    table_free(&merged);
    grants_merge(NULL, NULL, &report, 1, &pool, &merged, NULL);
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
          TEST(a_leaving_or_unknown_node_gets_nothing),
          TEST(a_leader_lost_after_any_step_is_made_good_by_the_next),
          TEST(safety_2_what_any_of_the_three_sources_says_stands))
