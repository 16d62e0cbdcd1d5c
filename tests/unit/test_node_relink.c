/* SPDX-License-Identifier: Apache-2.0 */
/* Merged layers leave the chain of an open volume: what is reported, and what is refused. */
#include "support/change_world.h"

/* Of the chain of n layers those at the places that are named. */
static void relink_with(struct chain *chain, const char *places)
{
    Lunar__Command c = LUNAR__COMMAND__INIT;
    Lunar__Relink m = LUNAR__RELINK__INIT;
    Lunar__Layer *layers[8];
    for (m.n_layers = 0; places[m.n_layers]; m.n_layers++)
        layers[m.n_layers] = &chain->layers[places[m.n_layers] - '0'];
    m.volume_id = uuid_to_pb(&w.volume);
    m.attachment_id = uuid_to_pb(&w.attachment);
    m.layers = layers;
    c.op_case = LUNAR__COMMAND__OP_RELINK;
    c.relink = &m;
    command(&c);
}

static void relink(uint32_t n, const char *places)
{
    struct chain chain;
    make_chain(&chain, n);
    relink_with(&chain, places);
}

static void change_ends(void)
{
    report_ends(0);
    task_ends(0);
    CHECK_EQ(w.code, 0);
}

/* Four layers are open. */
static void begin_chain(void)
{
    begin();
    for (uint32_t n = 2; n <= 4; n++) {
        overlay(n);
        change_ends();
    }
}

static void safety_14_a_dropped_layer_is_reported_until_nothing_maps_it(void)
{
    begin_chain();
    relink(4, "013");
    CHECK_EQ(w.entry.n_layers, 4);
    CHECK_EQ(w.n_tasks, 0);
    report_ends(0);
    CHECK_EQ(w.tasks[0]->kind, NODE_TASK_RELINK);
    CHECK_EQ(w.tasks[0]->spec->n_layers, 3);
    task_ends(LUNAR_E_NOT_FOUND); /* a map, say: not the same as an attachment that is unknown */
    CHECK_EQ(w.code, LUNAR_E_INDETERMINATE);
    node_tend(w.node, true);
    CHECK_EQ(w.entry.n_layers, 4); /* it may stand */
    report_ends(0);
    relink(4, "013");
    report_ends(0);
    CHECK_EQ(w.entry.n_layers, 4);
    task_ends(0);
    CHECK_EQ(w.code, 0);
    CHECK_EQ(w.entry.n_layers, 3);
    report_ends(0);
}

static void a_relink_that_stands_is_proved_and_the_chain_goes_on_from_it(void)
{
    begin_chain();
    relink(4, "03");
    change_ends();
    report_ends(0);
    relink(4, "03"); /* the answer was lost */
    CHECK_EQ(w.entry.n_layers, 2);
    report_ends(0);
    CHECK_EQ(w.tasks[0]->kind, NODE_TASK_RELINK);
    task_ends(0);
    CHECK_EQ(w.code, 0);
    overlay(5);
    CHECK_EQ(w.entry.n_layers, 3); /* 4, 3 and 0, of what the command tells */
    report_ends(0);
    CHECK_EQ(w.tasks[0]->spec->n_layers, 3);
    task_ends(0);
    CHECK_EQ(w.code, 0);
}

static void only_what_is_between_leaf_and_bottom_is_dropped(void)
{
    static const char *const wrong[] = {"123", "012", "1", "021", "0113", "0013", "0123456"};
    struct chain chain;

    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        begin_chain();
        w.n_reports = 0;
        relink(strlen(wrong[i]) > 4 ? 7 : 4, wrong[i]);
        CHECK_EQ(w.code, LUNAR_E_STALE);
        CHECK_EQ(w.n_reports, 0);
    }
    begin_chain();
    make_chain(&chain, 4);
    chain.layers[3].map_generation = 0;
    relink_with(&chain, "03");
    CHECK_EQ(w.code, LUNAR_E_STALE);
    relink_with(&chain, "");
    CHECK_EQ(w.code, LUNAR_E_INVALID);
}

TEST_MAIN(TEST(safety_14_a_dropped_layer_is_reported_until_nothing_maps_it),
          TEST(a_relink_that_stands_is_proved_and_the_chain_goes_on_from_it),
          TEST(only_what_is_between_leaf_and_bottom_is_dropped))
