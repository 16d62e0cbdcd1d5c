/* SPDX-License-Identifier: Apache-2.0 */
/* Inspections: a node is asked what stands there, and whoever asked gets one answer, whatever
 * happens. */
#include "support/leader_world.h"

static void an_inspection_goes_to_the_node_and_back(void)
{
    world_reset();
    struct waiter from = client();
    ask_inspect(&from, 2);
    CHECK_EQ(w.n_queue, 1);
    CHECK_EQ(w.queue[0].host, 2);
    settle();
    CHECK_EQ(w.n_answers, 1);
    CHECK_EQ(w.code, 0);
    CHECK_EQ(w.answer->response->op_case, LUNAR__RESPONSE__OP_INSPECTION);
}

static void a_node_that_is_not_usable_is_not_asked(void)
{
    world_reset();
    struct waiter from = client();
    ask_inspect(&from, 7); /* never seen */
    CHECK_EQ(w.code, LUNAR_E_NOT_JOINED);
    ask_inspect(&from, 0);
    CHECK_EQ(w.code, LUNAR_E_NOT_JOINED);
    ask_inspect(&from, MAX_NODES + 1);
    CHECK_EQ(w.code, LUNAR_E_NOT_JOINED);
    w.send_fail = LUNAR_E_FULL;
    ask_inspect(&from, 2);
    CHECK_EQ(w.code, LUNAR_E_NOT_JOINED);
    CHECK_EQ(w.n_answers, 4);
    CHECK_EQ(w.n_queue, 0);
}

static void what_the_node_cannot_do_is_told(void)
{
    world_reset();
    struct waiter from = client();
    w.node_error = LUNAR_E_UNSUPPORTED;
    ask_inspect(&from, 2);
    settle();
    CHECK_EQ(w.code, LUNAR_E_UNSUPPORTED);
    CHECK_EQ(w.n_answers, 1);
}

static void a_silent_node_is_a_time_out(void)
{
    world_reset();
    struct waiter from = client();
    w.nodes_silent = true;
    ask_inspect(&from, 2);
    settle();
    leader_tick(w.leader, w.now);
    CHECK_EQ(w.n_answers, 0);
    w.now += 21000;
    leader_tick(w.leader, w.now);
    CHECK_EQ(w.n_answers, 1);
    CHECK_EQ(w.code, LUNAR_E_TIMEOUT);
    CHECK(strstr(w.text, "node2") != NULL);
}

static void a_node_that_restarts_meanwhile_is_told_at_once(void)
{
    world_reset();
    struct waiter from = client();
    w.nodes_silent = true;
    ask_inspect(&from, 2);
    settle();
    node_seen(3, 1, 2, 0); /* another one */
    CHECK_EQ(w.n_answers, 0);
    node_seen(2, 1, 2, 0);
    CHECK_EQ(w.n_answers, 1);
    CHECK_EQ(w.code, LUNAR_E_NOT_JOINED);
}

static void the_same_request_again_is_one_inspection(void)
{
    world_reset();
    struct waiter from = client();
    ask_inspect(&from, 2);
    ask_inspect(&from, 2);
    CHECK_EQ(w.n_queue, 1);
    settle();
    CHECK_EQ(w.n_answers, 1);
}

static void more_than_64_at_a_time_are_refused(void)
{
    world_reset();
    for (int i = 0; i < 64; i++) {
        struct waiter from = client();
        ask_inspect(&from, 2);
        drop_queue();
    }
    CHECK_EQ(w.n_answers, 0);
    struct waiter from = client();
    ask_inspect(&from, 2);
    CHECK_EQ(w.code, LUNAR_E_BUSY);
}

TEST_MAIN(TEST(an_inspection_goes_to_the_node_and_back),
          TEST(a_node_that_is_not_usable_is_not_asked), TEST(what_the_node_cannot_do_is_told),
          TEST(a_silent_node_is_a_time_out), TEST(a_node_that_restarts_meanwhile_is_told_at_once),
          TEST(the_same_request_again_is_one_inspection), TEST(more_than_64_at_a_time_are_refused))
