/* SPDX-License-Identifier: Apache-2.0 */
/* The pure node's growth: what is asked for, what is taken for an answer, and what waits for what.
 */
#include "support/node_world.h"

static struct ids growing(void)
{
    struct ids ids = new_ids();
    reset();
    max_size = TAIL;
    attach_with_map(&ids, 3, 128 * MIB);
    report_ok();
    task_ends(0);
    report_ok();
    return ids;
}

static void answer_ask_with(uint32_t index, uint32_t map_generation, uint64_t size, int code)
{
    Lunar__Envelope e = LUNAR__ENVELOPE__INIT;
    Lunar__Response r = LUNAR__RESPONSE__INIT;
    Lunar__Error error = LUNAR__ERROR__INIT;
    Lunar__GrownLayer grown = LUNAR__GROWN_LAYER__INIT;
    Lunar__Layer layer = LUNAR__LAYER__INIT;
    Lunar__Segment a = LUNAR__SEGMENT__INIT, b = LUNAR__SEGMENT__INIT, *segments[] = {&a, &b};

    a.start = MIB;
    a.length = 64 * MIB;
    b.start = 1024 * MIB;
    b.length = size - 64 * MIB;
    layer.index = index;
    layer.map_generation = map_generation;
    layer.max_size = TAIL;
    layer.n_segments = 2;
    layer.segments = segments;
    grown.layer = &layer;
    error.code = code;
    error.text = (char *)(uintptr_t) "no";
    r.id = uuid_to_pb(&w.ask_id);
    r.term = 5;
    r.error = &error;
    if (code == 0)
        r.op_case = LUNAR__RESPONSE__OP_GROWN_LAYER;
    if (code == 0)
        r.grown_layer = &grown;
    e.body_case = LUNAR__ENVELOPE__BODY_RESPONSE;
    e.response = &r;
    node_message(w.node, 5, &e);
}

static void answer_ask(uint64_t size)
{
    answer_ask_with(0, 3, size, 0);
}

static void grow_ends(int rc)
{
    struct node_task *task = w.grow;
    struct error err = ERROR_INIT;
    error_set(&err, rc, "the task fails");
    w.grow = NULL;
    node_task_done(w.node, task, rc, &err);
}

static void a_thin_leaf_that_nears_its_end_is_given_more(void)
{
    growing();
    CHECK_EQ(w.threshold, 64 * MIB);
    node_space_needed(w.node, w.stack, 100000);
    CHECK_EQ(w.n_asks, 1);
    CHECK_EQ(w.asked, 256 * MIB);
    CHECK(w.waiting);
    node_space_needed(w.node, w.stack, 100001); /* one is under way */
    CHECK_EQ(w.n_asks, 1);
    answer_ask(256 * MIB);
    CHECK(!w.waiting);
    CHECK_EQ(w.n_grows, 1);
    CHECK(w.grow->stack == w.stack);
    CHECK_EQ(w.grow->term, 5);
    CHECK_EQ(w.grow->layer->n_segments, 2);
    CHECK_EQ(w.grow->threshold, 192 * MIB);
    answer_ask(512 * MIB); /* the answer once more */
    grow_ends(0);
    CHECK_EQ(w.n_asks, 1);
    CHECK_EQ(w.n_grows, 1);
    node_space_needed(w.node, w.stack, 130000);
    CHECK_EQ(w.asked, 384 * MIB);
}

static void writes_that_pass_the_next_threshold_while_it_grows_make_it_ask_again_at_once(void)
{
    growing();
    node_space_needed(w.node, w.stack, 100000);
    answer_ask(256 * MIB);
    node_space_needed(w.node, w.stack, 100300);
    CHECK_EQ(w.n_asks, 1);
    grow_ends(0);
    CHECK_EQ(w.n_asks, 2);
    CHECK(w.asked > 256 * MIB);
}

static void safety_2_what_a_former_coordinator_gave_is_asked_for_again(void)
{
    growing();
    node_space_needed(w.node, w.stack, 100000);
    answer_ask(256 * MIB);
    CHECK_EQ(w.n_grows, 1);
    grow_ends(LUNAR_E_STALE); /* the task's look at the lease */
    node_tick(w.node, 110000);
    CHECK_EQ(w.n_grows, 1);
    CHECK_EQ(w.n_asks, 2);
    CHECK_EQ(w.asked, 256 * MIB);
}

static void an_ask_goes_to_each_new_coordinator_until_it_is_answered(void)
{
    struct ids ids = growing();
    w.send_rc = LUNAR_E_NOT_JOINED;
    node_space_needed(w.node, w.stack, 100000);
    CHECK_EQ(w.n_asks, 0);
    w.send_rc = 0;
    node_tick(w.node, 101000);
    CHECK_EQ(w.n_asks, 1);
    struct uuid first = w.ask_id;
    node_coordinator_changed(w.node);
    CHECK_EQ(w.n_asks, 2);
    CHECK(uuid_equal(&first, &w.ask_id));
    node_tick(w.node, 112000);
    CHECK(!w.waiting); /* it is parked: no hurry any more */
    answer_ask(256 * MIB);
    node_coordinator_changed(w.node);
    CHECK_EQ(w.n_asks, 2);
    CHECK_EQ(w.n_grows, 1);
    grow_ends(0);
    detach(&ids);
    report_ok();
    node_coordinator_changed(w.node);
    CHECK_EQ(w.n_asks, 2);
    task_ends(0);
    report_ok();
}

static void safety_14_an_answer_that_cannot_be_right_is_refused_and_asked_for_again(void)
{
    growing();
    node_space_needed(w.node, w.stack, 100000);
    answer_ask_with(7, 3, 256 * MIB, 0);
    node_tick(w.node, 103000);
    CHECK_EQ(w.n_asks, 2);
    answer_ask_with(0, 2, 256 * MIB, 0);
    node_tick(w.node, 110000);
    CHECK_EQ(w.n_asks, 3);
    answer_ask_with(0, 3, 128 * MIB, 0);
    node_tick(w.node, 120000);
    CHECK_EQ(w.n_asks, 4);
    answer_ask_with(0, 3, 256 * MIB, LUNAR_E_BUSY);
    node_tick(w.node, 120500);
    CHECK_EQ(w.n_asks, 4); /* not at once */
    node_tick(w.node, 160000);
    CHECK_EQ(w.n_asks, 5);
    CHECK_EQ(w.n_grows, 0);
    answer_ask(256 * MIB);
    CHECK_EQ(w.n_grows, 1);
    grow_ends(0);
}

static void a_growth_that_fails_is_tried_again_with_the_map_that_was_given(void)
{
    growing();
    node_space_needed(w.node, w.stack, 100000);
    answer_ask(256 * MIB);
    grow_ends(-5);
    CHECK_EQ(w.n_grows, 1);
    node_tick(w.node, 103000);
    CHECK_EQ(w.n_grows, 2);
    CHECK_EQ(w.n_asks, 1);
    grow_ends(LUNAR_E_STALE); /* the kernel knows better: asked anew */
    node_tick(w.node, 110000);
    CHECK_EQ(w.n_asks, 2);
    CHECK_EQ(w.n_grows, 2);
}

static void a_detach_and_a_restart_wait_for_a_growth_and_a_growth_for_a_restart(void)
{
    struct ids ids = growing();
    node_space_needed(w.node, w.stack, 100000);
    answer_ask(256 * MIB);
    node_qsd_exited(w.node, w.stack);
    CHECK(w.task == NULL);
    grow_ends(0);
    CHECK_EQ(w.task->kind, NODE_TASK_RESTART);
    node_space_needed(w.node, w.stack, 100001);
    CHECK_EQ(w.n_asks, 2); /* asked meanwhile */
    answer_ask(512 * MIB);
    CHECK(w.grow == NULL);
    task_ends(0);
    CHECK(w.grow != NULL);
    w.n_results = 0;
    detach(&ids);
    attach_with_map(&ids, 3, 128 * MIB);
    CHECK_EQ(w.code, LUNAR_E_BUSY);
    CHECK_EQ(w.report_state, TABLE_STATE_OPEN);
    grow_ends(-5);
    CHECK_EQ(w.report_state, TABLE_STATE_CLOSING);
    CHECK_EQ(w.threshold, 0);
    report_ok();
    CHECK_EQ(w.task->kind, NODE_TASK_DETACH);
    node_tick(w.node, 200000);
    CHECK(w.grow == NULL); /* forgotten */
    task_ends(LUNAR_E_IN_USE);
    report_ok();
    CHECK_EQ(w.threshold, 192 * MIB); /* of what stands: 256 MiB */
    node_space_needed(w.node, w.stack, 300000);
    CHECK(w.asked > 256 * MIB);
}

/* A snapshot: layer 1 over layer 0. */
static void overlay(const struct ids *ids)
{
    Lunar__Command c = LUNAR__COMMAND__INIT;
    Lunar__Overlay m = LUNAR__OVERLAY__INIT;
    Lunar__Layer leaf = LUNAR__LAYER__INIT, below = LUNAR__LAYER__INIT, *layers[] = {&leaf, &below};
    Lunar__Segment s = LUNAR__SEGMENT__INIT, *segments = &s;

    s.start = 4096 * MIB;
    s.length = 512 * MIB;
    leaf.index = 1;
    leaf.map_generation = 1;
    leaf.max_size = TAIL;
    below.map_generation = 3;
    leaf.n_segments = below.n_segments = 1;
    leaf.segments = below.segments = &segments;
    m.volume_id = uuid_to_pb(&ids->volume);
    m.attachment_id = uuid_to_pb(&ids->attachment);
    m.n_layers = 2;
    m.layers = layers;
    c.op_case = LUNAR__COMMAND__OP_OVERLAY;
    c.overlay = &m;
    command(&c);
}

static void a_leaf_may_grow_while_another_is_put_over_it_which_is_watched_from_then_on(void)
{
    struct ids ids = growing();
    node_space_needed(w.node, w.stack, 100000);
    overlay(&ids);
    report_ok();
    CHECK_EQ(w.task->kind, NODE_TASK_OVERLAY);
    answer_ask(256 * MIB);
    CHECK_EQ(w.n_grows, 1);
    task_ends(0); /* the snapshot was faster */
    CHECK_EQ(w.threshold, 64 * MIB);
    grow_ends(0);
    CHECK_EQ(w.threshold, 448 * MIB);
    node_space_needed(w.node, w.stack, 200000);
    CHECK_EQ(w.asked_index, 1);
    CHECK_EQ(w.asked, 640 * MIB);
}

static void a_volume_without_a_tail_never_asks(void)
{
    struct ids ids = new_ids();
    reset();
    attached(&ids);
    CHECK_EQ(w.threshold, 0);
    node_space_needed(w.node, w.stack, 100000);
    node_space_needed(w.node, NULL, 100000);
    CHECK_EQ(w.n_asks, 0);
}

static void a_growth_of_a_fenced_node_ends_without_a_next_step(void)
{
    growing();
    node_space_needed(w.node, w.stack, 100000);
    node_fence(w.node, "");
    CHECK(!w.waiting);
    answer_ask(256 * MIB);
    CHECK_EQ(w.n_grows, 0);
    growing();
    node_space_needed(w.node, w.stack, 100000);
    answer_ask(256 * MIB);
    node_space_needed(w.node, w.stack, 100000);
    node_fence(w.node, "");
    CHECK_EQ(node_tasks(w.node), 1);
    grow_ends(0);
    node_tick(w.node, 200000);
    CHECK_EQ(node_tasks(w.node), 0);
    CHECK_EQ(w.n_asks, 1);
}

TEST_MAIN(TEST(a_thin_leaf_that_nears_its_end_is_given_more),
          TEST(writes_that_pass_the_next_threshold_while_it_grows_make_it_ask_again_at_once),
          TEST(safety_2_what_a_former_coordinator_gave_is_asked_for_again),
          TEST(an_ask_goes_to_each_new_coordinator_until_it_is_answered),
          TEST(safety_14_an_answer_that_cannot_be_right_is_refused_and_asked_for_again),
          TEST(a_growth_that_fails_is_tried_again_with_the_map_that_was_given),
          TEST(a_detach_and_a_restart_wait_for_a_growth_and_a_growth_for_a_restart),
          TEST(a_leaf_may_grow_while_another_is_put_over_it_which_is_watched_from_then_on),
          TEST(a_volume_without_a_tail_never_asks),
          TEST(a_growth_of_a_fenced_node_ends_without_a_next_step))
