/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Relinking in the leader: merged layers leave attached chains, and what a lost leader leaves. The
 * world (leader_world.h) checks at each step that a layer which a node has mapped is named by its
 * grant and has its LV (SAFETY 14), and at each command that what is dropped was merged and that
 * the others have their segments of now.
 */
#include "coordinator/leader_internal.h"
#include "support/leader_world.h"

static struct uuid id; /* of the volume */

static void unsnap(const struct uuid *snapshot)
{
    struct waiter from = client();
    ask_unsnap(&from, snapshot);
    settle();
    CHECK_EQ(w.code, 0);
}

static void see_nodes(void)
{
    for (uint32_t h = 1; h <= 3; h++)
        if (h != w.silent_node)
            node_seen(h, w.generation[h] ? w.generation[h] : 1, 1, 0);
}

static void ticks(int n)
{
    for (; n > 0; n--) {
        w.now += LEADER_RECONCILE_MS;
        see_nodes();
        leader_tick(w.leader, w.now);
        settle();
    }
}

/* A volume that is attached on node 2, with n + 1 snapshots of which the upper n are deleted. */
static void plain_layers(int n)
{
    struct uuid snapshots[8];
    struct waiter from = client();
    char name[8] = "a";

    id = made("disk");
    ask_attach(&from, &id, "node2");
    settle();
    for (int i = 0; i <= n; i++, name[0]++)
        snapshots[i] = snapshot_of(&id, name);
    for (int i = 1; i <= n; i++)
        unsnap(&snapshots[i]);
}

static uint32_t layers_granted(void)
{
    return w.grants[2].n_entries ? w.grants[2].entries[0].n_layers : 0;
}

static uint32_t layers_mapped(void)
{
    return w.n_held[2] ? w.open[2][0].n_layers : 0;
}

static void a_merged_layer_leaves_the_chain_and_is_freed(void)
{
    world_reset();
    plain_layers(2);
    CHECK_EQ(w.merges, 1);
    CHECK_EQ(w.lvm.n_lvs, 4);
    CHECK_EQ(layers_granted(), 4);
    ticks(1);
    CHECK_EQ(w.relinks, 1);
    CHECK_EQ(layers_mapped(), 3);
    CHECK_EQ(layers_granted(), 3);
    CHECK_EQ(w.lvm.n_lvs, 3);
    ticks(3);
    CHECK_EQ(w.relinks, 1);
    struct uuid z = snapshot_of(&id, "z"); /* the chain goes on from there */
    CHECK(!uuid_is_zero(&z));
    CHECK_EQ(layers_mapped(), 4);
}

static void several_leave_it_at_once(void)
{
    world_reset();
    w.relink_error = LUNAR_E_BUSY;
    plain_layers(5);
    ticks(40);
    CHECK_EQ(w.merges, 2); /* a layer that a dropped one still stands on is merged no further */
    CHECK_EQ(layers_mapped(), 7);
    CHECK_EQ(w.lvm.n_lvs, 7);
    w.relink_error = 0;
    for (int n = 0; n < 5 && w.relinks == 0; n++)
        ticks(1);
    CHECK_EQ(layers_mapped(), 5);
    CHECK_EQ(layers_granted(), 5);
    ticks(12);
    CHECK_EQ(w.merges, 4);
    CHECK_EQ(layers_mapped(), 3);
    CHECK_EQ(layers_granted(), 3);
    CHECK_EQ(w.lvm.n_lvs, 3);
}

/* One that refuses is asked again after a pause, and nothing of it is given away. */
static void a_node_that_refuses_keeps_its_layers(void)
{
    world_reset();
    w.relink_error = LUNAR_E_QMP;
    plain_layers(2);
    ticks(2);
    CHECK_EQ(w.relinks, 0);
    CHECK_EQ(layers_granted(), 4);
    CHECK_EQ(w.lvm.n_lvs, 4);
    w.relink_error = 0;
    ticks(4);
    CHECK_EQ(w.relinks, 1);
    CHECK_EQ(w.lvm.n_lvs, 3);
}

static void safety_14_a_grant_that_cannot_be_shortened_names_the_layer_still(void)
{
    world_reset();
    plain_layers(2);
    w.now += LEADER_RECONCILE_MS;
    see_nodes();
    leader_tick(w.leader, w.now);
    w.grants_fail = LUNAR_E_INDETERMINATE;
    settle();
    CHECK_EQ(w.relinks, 1);
    CHECK_EQ(layers_granted(), 4);
    CHECK_EQ(w.lvm.n_lvs, 4);
    w.grants_fail = 0;
    ticks(4);
    CHECK_EQ(layers_granted(), 3);
    CHECK_EQ(w.lvm.n_lvs, 3);
}

static bool relink_is_out(void)
{
    return w.n_queue > 0 && w.queue[0].kind == P_COMMAND &&
           w.queue[0].envelope->command->op_case == LUNAR__COMMAND__OP_RELINK;
}

static void begin_relink(void)
{
    w.now += LEADER_RECONCILE_MS;
    see_nodes();
    leader_tick(w.leader, w.now);
    while (!relink_is_out() && outside_step())
        ;
    CHECK(relink_is_out());
}

/* It is not for a relink that a client waits. */
static void what_a_client_wants_goes_first(void)
{
    for (int what = 0; what < 4; what++) {
        struct waiter from = client();
        world_reset();
        plain_layers(2);
        begin_relink();
        w.leader->merges = false;
        if (what == 0)
            ask_detach(&from, &id);
        else if (what == 1)
            ask_snapshot(&from, &id, "now");
        else if (what == 2)
            ask_expand(&from, &id, 2ull << 30);
        else
            ask_delete(&from, &id);
        settle();
        CHECK_EQ(w.code, what == 3 ? LUNAR_E_IN_USE : 0);
        CHECK_EQ(layers_granted(), what == 0 ? 0 : what == 1 ? 5 : 4);
        ticks(2);
        CHECK_EQ(layers_granted(), what == 0 ? 0 : what == 1 ? 4 : 3);
        CHECK_EQ(w.lvm.n_lvs, what == 1 ? 4 : 3);
    }
}

static void a_silent_node_is_not_asked_and_holds_nobody_up(void)
{
    struct waiter from = client();

    world_reset();
    struct uuid a, b, other = made("other");
    ask_attach(&from, &other, "node3");
    settle();
    a = snapshot_of(&other, "oa");
    b = snapshot_of(&other, "ob");
    struct uuid c = snapshot_of(&other, "oc");
    CHECK(!uuid_is_zero(&a));
    unsnap(&b);
    unsnap(&c);
    CHECK_EQ(w.merges, 1);
    w.silent_node = 3;
    ticks(3);
    plain_layers(2);
    ticks(12);
    CHECK_EQ(layers_granted(), 3);
    CHECK_EQ(w.grants[3].entries[0].n_layers, 4);
    w.silent_node = 0;
    ticks(4);
    CHECK_EQ(w.grants[3].entries[0].n_layers, 3);
    CHECK_EQ(w.lvm.n_lvs, 6);
}

/* As a report that was not written since leaves it behind. */
static void a_layer_that_is_gone_is_dropped_from_a_grant_that_names_it(void)
{
    world_reset();
    plain_layers(2);
    struct table_entry before = w.grants[2].entries[0];
    ticks(1);
    CHECK_EQ(w.lvm.n_lvs, 3);
    w.grants[2].entries[0] = before;
    elect();
    ticks(2);
    CHECK_EQ(layers_granted(), 3);
}

/* Its stack was torn down since, and nobody asked for that. */
static void a_node_that_knows_nothing_of_it_maps_nothing(void)
{
    world_reset();
    plain_layers(2);
    w.forgets = true;
    w.n_held[2] = 0;
    ticks(2);
    CHECK_EQ(layers_granted(), 3);
    CHECK_EQ(w.lvm.n_lvs, 3);
}

static void name_chain(struct table *t, const struct uuid *attachment, const char *chain)
{
    struct uuid pool = {{7}};
    table_init(t, TABLE_GRANTS, 1, &pool);
    struct table_entry *e = table_add(t);
    *e = (struct table_entry){.volume_id = {{9}},
                              .attachment_id = *attachment,
                              .generation = 1,
                              .term = 3,
                              .mode = TABLE_MODE_ATTACH,
                              .state = TABLE_STATE_GRANTED};
    for (; *chain; chain++)
        e->layers[e->n_layers++] = (struct table_layer){1, (uint32_t)*chain, 1};
    t->term = 3;
}

/* Chains get shorter, too, so that the longest is not what holds all. */
static void safety_14_a_takeover_unites_the_layers_of_all_sources(void)
{
    static const char *const cases[][4] = {/* newer, report, older copy, united */
                                           {"nzxw", "nzxw", "zyvxw", "nzyvxw"},
                                           {"nzxw", "zyxw", "nzxw", "nzyxw"},
                                           {"zxw", "nzxw", "zyxw", "nzyxw"},
                                           {"zyxw", "zxw", "zyxw", "zyxw"},
                                           {"n", "z", "", "nz"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct uuid attachment = {{5}}, pool = {{7}};
        struct table newer, report, older, merged;
        char text[32] = "";
        name_chain(&newer, &attachment, cases[i][0]);
        name_chain(&report, &attachment, cases[i][1]);
        name_chain(&older, &attachment, cases[i][2]);
        newer.seq = 2;
        older.seq = 1;
        CHECK_EQ(grants_merge(&newer, &older, &report, 1, &pool, &merged, NULL), 0);
        CHECK_EQ(merged.n_entries, 1);
        for (uint32_t k = 0; k < merged.entries[0].n_layers; k++)
            text[k] = (char)merged.entries[0].layers[k].index;
        CHECK_STR(text, cases[i][3]);
        table_free(&newer);
        table_free(&report);
        table_free(&older);
        table_free(&merged);
    }
}

static void a_node_that_is_proved_dead_has_nothing_to_drop(void)
{
    world_reset();
    plain_layers(2);
    begin_relink();
    w.silent_node = 2;
    host_is(2, HOST_STATE_DEAD);
    settle();
    ticks(3);
    CHECK_EQ(w.relinks, 0);
    CHECK_EQ(w.grants[2].n_entries, 0);
    CHECK_EQ(w.lvm.n_lvs, 3);
}

static int relink_with_a_leader_lost(int steps)
{
    int done = 0;

    world_reset();
    w.relink_error = LUNAR_E_EXEC; /* not while it is set up */
    plain_layers(3);
    ticks(12);
    w.relink_error = 0;
    elect();
    for (int n = 0; n < 12; n++) {
        w.now += LEADER_RECONCILE_MS;
        see_nodes();
        leader_tick(w.leader, w.now);
        while (outside_step())
            if (++done == steps)
                elect();
    }
    bool good = w.relinks >= 1 && layers_mapped() == 3 && layers_granted() == 3 && w.lvm.n_lvs == 3;
    if (!good)
        printf("# %d steps: %d relinks, %u layers mapped, %u granted, %u LVs\n", steps, w.relinks,
               layers_mapped(), layers_granted(), w.lvm.n_lvs);
    return good ? done : -1;
}

static void a_leader_lost_after_any_step_is_made_good_by_the_next(void)
{
    int n = relink_with_a_leader_lost(0);
    CHECK(n >= 3);
    for (int steps = 1; steps <= n; steps++)
        CHECK(relink_with_a_leader_lost(steps) > 0);
    printf("# %d steps\n", n);
}

TEST_MAIN(TEST(a_merged_layer_leaves_the_chain_and_is_freed), TEST(several_leave_it_at_once),
          TEST(a_node_that_refuses_keeps_its_layers),
          TEST(safety_14_a_grant_that_cannot_be_shortened_names_the_layer_still),
          TEST(what_a_client_wants_goes_first),
          TEST(a_silent_node_is_not_asked_and_holds_nobody_up),
          TEST(a_layer_that_is_gone_is_dropped_from_a_grant_that_names_it),
          TEST(a_node_that_knows_nothing_of_it_maps_nothing),
          TEST(safety_14_a_takeover_unites_the_layers_of_all_sources),
          TEST(a_node_that_is_proved_dead_has_nothing_to_drop),
          TEST(a_leader_lost_after_any_step_is_made_good_by_the_next))
