/* SPDX-License-Identifier: Apache-2.0 */
/* Changes of an open volume: a new leaf, a new size; their order, what they wait for, and what
 * waits for them. */
#include "support/change_world.h"

static void safety_2_an_overlay_is_reported_before_anything_is_mapped(void)
{
    begin();
    overlay(2);
    CHECK_EQ(w.n_reports, 1);
    CHECK_EQ(w.n_tasks, 0);
    CHECK_EQ(w.entry.state, TABLE_STATE_OPEN);
    CHECK_EQ(w.entry.n_layers, 2);
    CHECK_EQ(w.entry.layers[0].index, 1);
    report_ends(0);
    CHECK_EQ(w.n_tasks, 1);
    CHECK_EQ(w.tasks[0]->kind, NODE_TASK_OVERLAY);
    CHECK_EQ(w.tasks[0]->term, TERM);
    CHECK_EQ(w.tasks[0]->spec->n_layers, 2);
    CHECK_EQ(w.n_results, 0);
    task_ends(0);
    CHECK_EQ(w.n_results, 1);
    CHECK_EQ(w.code, 0);
    overlay(3); /* on what stands now */
    report_ends(0);
    CHECK_EQ(w.tasks[0]->spec->n_layers, 3);
}

static void the_same_overlay_again_joins_or_is_done_again(void)
{
    begin();
    overlay(2);
    overlay(2);
    report_ends(0);
    overlay(2);
    CHECK_EQ(w.n_reports, 1);
    task_ends(0);
    CHECK_EQ(w.n_results, 1); /* the newest command's */
    overlay(2);               /* the answer was lost: what stands is proved once more */
    report_ends(0);
    CHECK_EQ(w.n_tasks, 1);
    task_ends(0);
    CHECK_EQ(w.n_results, 2);
    CHECK_EQ(w.code, 0);
}

static void safety_16_only_one_new_leaf_on_what_stands_is_taken(void)
{
    struct chain chain;
    begin();
    overlay(3);
    CHECK_EQ(w.code, LUNAR_E_STALE);
    make_chain(&chain, 2);
    chain.layers[1].volume_short++; /* another layer below */
    overlay_with(&chain, 2);
    CHECK_EQ(w.code, LUNAR_E_STALE);
    make_chain(&chain, 2);
    chain.layers[0].index = 0; /* the leaf twice */
    overlay_with(&chain, 2);
    CHECK_EQ(w.code, LUNAR_E_STALE);
    make_chain(&chain, 2);
    chain.layers[0].n_segments = 0;
    overlay_with(&chain, 2);
    CHECK_EQ(w.code, LUNAR_E_INVALID);
    overlay(0);
    CHECK_EQ(w.code, LUNAR_E_INVALID);
    w.attachment = uuid_random();
    overlay(2);
    CHECK_EQ(w.code, LUNAR_E_NOT_FOUND);
    CHECK_EQ(w.n_results, 6);
    CHECK_EQ(w.n_reports, 0);
}

/* Layers below were merged since: the command does not tell of them, the chain stays as it is. */
static void what_was_merged_below_stays_in_the_chain_that_is_open(void)
{
    struct chain chain;
    begin();
    overlay(2);
    report_ends(0);
    task_ends(0);
    overlay(3);
    report_ends(0);
    task_ends(0);
    CHECK_EQ(w.code, 0);
    make_chain(&chain, 4); /* 3, 2, 1, 0 */
    chain.layers[2] = chain.layers[3];
    overlay_with(&chain, 3); /* 3, 2, 0 */
    report_ends(0);
    CHECK_EQ(w.tasks[0]->spec->n_layers, 4);
    CHECK_EQ(w.tasks[0]->spec->layers[2].index, 1);
    task_ends(0);
    CHECK_EQ(w.code, 0);
}

static void safety_14_an_older_map_of_a_layer_below_is_refused(void)
{
    struct chain chain;
    begin();
    make_chain(&chain, 2);
    chain.layers[1].map_generation = 0;
    overlay_with(&chain, 2);
    CHECK_EQ(w.code, LUNAR_E_STALE);
    CHECK_EQ(w.n_reports, 0);
}

static void an_overlay_that_failed_is_reported_on_and_goes_on(void)
{
    begin();
    overlay(2);
    report_ends(0);
    task_ends(LUNAR_E_INDETERMINATE);
    CHECK_EQ(w.code, LUNAR_E_INDETERMINATE);
    node_tend(w.node, true);
    CHECK_EQ(w.entry.n_layers, 2); /* it may stand */
    report_ends(0);
    overlay(2);
    report_ends(0);
    task_ends(0);
    CHECK_EQ(w.code, 0);
}

static void a_report_that_fails_stops_the_overlay(void)
{
    begin();
    overlay(2);
    report_ends(-5);
    CHECK_EQ(w.n_tasks, 0);
    CHECK_EQ(w.code, -5);
    overlay(2);
    report_ends(0);
    CHECK_EQ(w.n_tasks, 1);
}

/* The fake's stack is found by the task that has it. */
static void a_qsd_that_exits_meanwhile_is_started_again_afterwards(void)
{
    begin();
    overlay(2);
    report_ends(0);
    node_qsd_exited(w.node, w.tasks[0]->stack);
    CHECK_EQ(w.n_tasks, 1);
    overlay(2); /* joins */
    task_ends(LUNAR_E_BUSY);
    CHECK_EQ(w.code, LUNAR_E_BUSY);
    CHECK_EQ(w.n_tasks, 1);
    CHECK_EQ(w.tasks[0]->kind, NODE_TASK_RESTART);
    overlay(2);
    CHECK_EQ(w.code, LUNAR_E_BUSY);
    CHECK_EQ(w.n_tasks, 1);
    task_ends(0);
    overlay(2);
    report_ends(0);
    task_ends(0);
    CHECK_EQ(w.code, 0);
}

static void a_qsd_that_exits_before_the_report_is_written_stops_the_overlay(void)
{
    struct stack *stack;
    begin();
    overlay(2);
    report_ends(0);
    stack = w.tasks[0]->stack;
    task_ends(0);
    overlay(3);
    node_qsd_exited(w.node, stack);
    CHECK_EQ(w.tasks[0]->kind, NODE_TASK_RESTART);
    report_ends(0);
    CHECK_EQ(w.n_tasks, 1);
    CHECK_EQ(w.code, LUNAR_E_BUSY);
}

static void a_detach_waits_for_the_overlay(void)
{
    begin();
    overlay(2);
    report_ends(0);
    detach();
    overlay(2);
    CHECK_EQ(w.code, LUNAR_E_BUSY); /* it is on its way out */
    CHECK_EQ(w.n_results, 1);
    CHECK_EQ(w.n_tasks, 1);
    task_ends(0);
    CHECK_EQ(w.n_results, 2); /* the overlay's */
    CHECK_EQ(w.entry.state, TABLE_STATE_CLOSING);
    CHECK_EQ(w.entry.n_layers, 2);
    report_ends(0);
    CHECK_EQ(w.tasks[0]->kind, NODE_TASK_DETACH);
    task_ends(0);
    report_ends(0);
    CHECK_EQ(w.n_results, 3);
    CHECK_EQ(w.code, 0);
}

static void a_detach_before_the_report_is_written_stops_the_overlay(void)
{
    begin();
    overlay(2);
    uint64_t first = w.report_token;
    detach();
    node_report_done(w.node, first, 0, NULL);
    CHECK_EQ(w.n_tasks, 0);
    CHECK_EQ(w.code, LUNAR_E_BUSY);
    report_ends(0);
    CHECK_EQ(w.tasks[0]->kind, NODE_TASK_DETACH);
    task_ends(0);
    report_ends(0);
    CHECK_EQ(w.code, 0);
}

static void a_size_only_grows(void)
{
    begin();
    resize(MIB - 512);
    CHECK_EQ(w.code, LUNAR_E_INVALID);
    resize(2 * MIB + 1);
    CHECK_EQ(w.code, LUNAR_E_INVALID);
    CHECK_EQ(w.n_reports, 0);
    resize(2 * MIB);
    report_ends(0);
    CHECK_EQ(w.tasks[0]->kind, NODE_TASK_RESIZE);
    CHECK_EQ(w.tasks[0]->spec->size, 2 * MIB);
    overlay(2);
    CHECK_EQ(w.code, LUNAR_E_BUSY); /* one at a time */
    task_ends(0);
    CHECK_EQ(w.code, 0);
    resize(MIB);
    CHECK_EQ(w.code, LUNAR_E_INVALID);
    overlay(2);
    report_ends(0);
    CHECK_EQ(w.tasks[0]->spec->size, 2 * MIB);
}

/* The second one's layer reaches farther than what is being zeroed. */
static void safety_17_the_end_of_one_zeroing_is_not_told_as_that_of_a_longer_one(void)
{
    thick = true;
    begin();
    thick = false;
    resize_with(MIB, 2 * MIB);
    report_ends(0);
    resize_with(MIB, 2 * MIB); /* the same again joins */
    CHECK_EQ(w.n_results, 0);
    resize_with(MIB, 3 * MIB);
    CHECK_EQ(w.n_results, 1);
    CHECK_EQ(w.code, LUNAR_E_BUSY);
    task_ends(0);
    CHECK_EQ(w.n_results, 2);
    resize_with(MIB, 3 * MIB);
    report_ends(0);
    CHECK_EQ(w.n_tasks, 1);
    CHECK_EQ(stack_layer_bytes(&w.tasks[0]->spec->layers[0]), 3 * MIB);
}

static void a_change_of_a_fenced_node_ends_without_a_next_step(void)
{
    begin();
    overlay(2);
    report_ends(0);
    node_qsd_exited(w.node, w.tasks[0]->stack);
    node_fence(w.node, "fenced");
    task_ends(0);
    CHECK_EQ(w.n_tasks, 0);
    CHECK_EQ(w.n_results, 0);
    CHECK_EQ(node_tasks(w.node), 0);
}

/* ---- suspensions ---- */

/* The device is suspended. */
static void held(void)
{
    begin();
    time_passes(100000);
    suspend();
    assert(w.n_tasks == 1 && w.tasks[0]->kind == NODE_TASK_HOLD && w.tasks[0]->freeze);
    assert(w.tasks[0]->deadline_ms == 5000 && w.n_results == 0);
    task_ends(0);
    assert(w.n_results == 1 && w.code == 0 && !uuid_is_zero(&w.hold));
}

static void a_switch_under_its_suspension_ends_it(void)
{
    held();
    overlay_under(&w.hold);
    report_ends(0);
    CHECK_EQ(w.tasks[0]->kind, NODE_TASK_OVERLAY);
    task_ends(0);
    CHECK_EQ(w.code, 0);
    CHECK_EQ(w.n_results, 2);
    CHECK_EQ(w.tasks[0]->kind, NODE_TASK_UNHOLD);
    task_ends(0);
    CHECK_EQ(w.n_tasks, 0);
    suspend();
    CHECK_EQ(w.tasks[0]->kind, NODE_TASK_HOLD);
}

static void safety_21_the_deadline_ends_a_suspension_and_no_switch_counts_after_it(void)
{
    for (int under_way = 0; under_way < 2; under_way++) {
        held();
        if (under_way) {
            overlay_under(&w.hold);
            report_ends(0);
        }
        time_passes(4999);
        CHECK_EQ(w.n_tasks, under_way);
        time_passes(1);
        CHECK_EQ(w.n_tasks, under_way + 1);
        CHECK_EQ(w.tasks[under_way]->kind, NODE_TASK_UNHOLD);
        if (!under_way)
            overlay_under(&w.hold);
        else
            task_ends(0); /* it was done, but when is not known */
        CHECK_EQ(w.code, LUNAR_E_STALE);
        task_ends(0);
        CHECK_EQ(w.n_tasks, 0);
        overlay(2); /* by itself it may be done, or be proved */
        report_ends(0);
        task_ends(0);
        CHECK_EQ(w.code, 0);
    }
}

static void another_suspension_is_another_one(void)
{
    held();
    struct uuid first = w.hold;
    resume();
    CHECK_EQ(w.code, 0);
    task_ends(0);
    suspend();
    task_ends(0);
    CHECK_EQ(w.code, 0);
    CHECK(!uuid_equal(&first, &w.hold));
    overlay_under(&first);
    CHECK_EQ(w.code, LUNAR_E_STALE);
    CHECK_EQ(w.n_reports, 0);
}

static void the_same_suspend_again_is_the_same_suspension(void)
{
    begin();
    struct uuid id = suspend();
    suspend_with_id(id);
    CHECK_EQ(w.n_tasks, 1);
    suspend();
    CHECK_EQ(w.code, LUNAR_E_BUSY);
    task_ends(0);
    CHECK_EQ(w.n_results, 2);
    struct uuid hold = w.hold;
    suspend_with_id(id);
    CHECK_EQ(w.n_results, 3);
    CHECK(uuid_equal(&hold, &w.hold));
    resume();
    suspend_with_id(id);
    CHECK_EQ(w.code, LUNAR_E_STALE);
}

static void what_is_suspended_too_late_is_no_suspension(void)
{
    for (int resumed = 0; resumed < 2; resumed++) {
        begin();
        suspend();
        if (resumed)
            resume();
        else
            time_passes(100000);
        task_ends(0);
        CHECK_EQ(w.code, LUNAR_E_STALE);
        CHECK_EQ(w.n_tasks, 1);
        CHECK_EQ(w.tasks[0]->kind, NODE_TASK_UNHOLD);
        task_ends(LUNAR_E_TIMEOUT); /* tried until it can be */
        CHECK_EQ(w.n_tasks, 1);
        CHECK_EQ(w.tasks[0]->kind, NODE_TASK_UNHOLD);
    }
    begin();
    suspend();
    task_ends(LUNAR_E_TIMEOUT);
    CHECK_EQ(w.code, LUNAR_E_TIMEOUT);
    CHECK_EQ(w.n_tasks, 0);
}

static void a_detach_a_restart_and_a_size_wait_for_its_end(void)
{
    begin();
    suspend();
    struct stack *stack = w.tasks[0]->stack;
    task_ends(0);
    resize(2 * MIB);
    CHECK_EQ(w.code, LUNAR_E_BUSY);
    node_qsd_exited(w.node, stack);
    CHECK_EQ(w.n_tasks, 0);
    detach();
    CHECK_EQ(w.n_tasks, 0);
    time_passes(5000);
    CHECK_EQ(w.tasks[0]->kind, NODE_TASK_UNHOLD);
    task_ends(0);
    report_ends(0);
    CHECK_EQ(w.tasks[0]->kind, NODE_TASK_DETACH);
    task_ends(0);
    report_ends(0);
    begin();
    resize(2 * MIB);
    suspend();
    CHECK_EQ(w.code, LUNAR_E_BUSY);
    w.attachment = uuid_random();
    suspend();
    CHECK_EQ(w.code, LUNAR_E_NOT_FOUND);
    resume();
    CHECK_EQ(w.code, 0);
}

/* It writes out what the file system has. */
static void a_freeze_that_has_begun_may_need_another_daemon(void)
{
    begin();
    suspend();
    struct stack *stack = w.tasks[0]->stack;
    CHECK_EQ(node_freezes(w.node), 1);
    node_qsd_exited(w.node, stack);
    CHECK_EQ(w.n_tasks, 2);
    CHECK_EQ(w.tasks[1]->kind, NODE_TASK_RESTART);
    task_ends(0); /* the freeze, first */
    CHECK_EQ(node_freezes(w.node), 0);
    time_passes(5000);
    CHECK_EQ(w.n_tasks, 2);
    CHECK_EQ(w.tasks[1]->kind, NODE_TASK_UNHOLD);
    task_ends(0);
    task_ends(0);
    detach();
    report_ends(0);
    CHECK_EQ(w.tasks[0]->kind, NODE_TASK_DETACH);
    task_ends(0);
    report_ends(0);
}

static void a_fence_ends_with_it(void)
{
    begin();
    suspend();
    node_fence(w.node, "fenced");
    task_ends(0);
    CHECK_EQ(w.n_tasks, 0);
    CHECK_EQ(node_tasks(w.node), 0);
}

TEST_MAIN(TEST(safety_2_an_overlay_is_reported_before_anything_is_mapped),
          TEST(the_same_overlay_again_joins_or_is_done_again),
          TEST(safety_16_only_one_new_leaf_on_what_stands_is_taken),
          TEST(safety_14_an_older_map_of_a_layer_below_is_refused),
          TEST(what_was_merged_below_stays_in_the_chain_that_is_open),
          TEST(an_overlay_that_failed_is_reported_on_and_goes_on),
          TEST(a_report_that_fails_stops_the_overlay),
          TEST(a_qsd_that_exits_meanwhile_is_started_again_afterwards),
          TEST(a_qsd_that_exits_before_the_report_is_written_stops_the_overlay),
          TEST(a_detach_waits_for_the_overlay),
          TEST(a_detach_before_the_report_is_written_stops_the_overlay), TEST(a_size_only_grows),
          TEST(a_switch_under_its_suspension_ends_it),
          TEST(safety_21_the_deadline_ends_a_suspension_and_no_switch_counts_after_it),
          TEST(another_suspension_is_another_one),
          TEST(the_same_suspend_again_is_the_same_suspension),
          TEST(what_is_suspended_too_late_is_no_suspension),
          TEST(a_detach_a_restart_and_a_size_wait_for_its_end),
          TEST(a_freeze_that_has_begun_may_need_another_daemon), TEST(a_fence_ends_with_it),
          TEST(safety_17_the_end_of_one_zeroing_is_not_told_as_that_of_a_longer_one),
          TEST(a_change_of_a_fenced_node_ends_without_a_next_step))
