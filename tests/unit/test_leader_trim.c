/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Trimming in the leader: what is given back and what is not, and what a lost leader leaves. The
 * world (leader_world.h) checks at each lvreduce that no grant names the layer and no node has it
 * (SAFETY 14).
 */
#include "support/leader_world.h"

static struct uuid id; /* of the volume */

static struct lvm_lv *lv_of(const struct uuid *volume, uint32_t index)
{
    char name[32];
    snprintf(name, sizeof name, "v%016llx.%u", (unsigned long long)uuid_short(volume), index);
    for (uint32_t i = 0; i < w.lvm.n_lvs; i++)
        if (strcmp(w.lvm.lvs[i].name, name) == 0)
            return &w.lvm.lvs[i];
    return NULL;
}

static bool has_tag(const struct lvm_lv *lv, const char *tag)
{
    for (uint32_t i = 0; i < lv->n_tags; i++)
        if (strcmp(lv->tags[i], tag) == 0)
            return true;
    return false;
}

/* Growth has made it so large; the next leader sees it. */
static void grow_to(const struct uuid *volume, uint32_t index, uint64_t size)
{
    struct error err = ERROR_INIT;
    char vg_lv[64], bytes[24];
    snprintf(vg_lv, sizeof vg_lv, "vg/%s", lv_of(volume, index)->name);
    snprintf(bytes, sizeof bytes, "%llub", (unsigned long long)size);
    const char *const argv[] = {"lvextend", "-L", bytes, vg_lv, NULL};
    CHECK_EQ(fake_lvm_run(&w.lvm, argv, &err), 0);
}

static void grown_volume(void)
{
    id = made("disk");
    grow_to(&id, 0, 1024 * MIB);
    w.end = 64 * MIB;
    elect();
    settle();
}

static void begin_world(void)
{
    world_reset();
    grown_volume();
}

static void ticks(int n)
{
    for (; n > 0; n--) {
        w.now += LEADER_RECONCILE_MS;
        for (uint32_t h = 1; h <= 3; h++)
            node_seen(h, w.generation[h] ? w.generation[h] : 1, 1, 0);
        leader_tick(w.leader, w.now);
        settle();
    }
}

static uint32_t n_grants(void)
{
    uint32_t n = 0;
    for (uint32_t h = 1; h <= MAX_NODES; h++)
        n += w.grants[h].n_entries;
    return n;
}

static void what_lies_behind_the_end_goes_back_to_the_pool(void)
{
    begin_world();
    uint64_t seqno = w.lvm.seqno, before = fake_lvm_free_bytes(&w.lvm);
    CHECK_EQ(asked(ask_trim, &id), 0);
    CHECK_EQ(w.answer->response->op_case, LUNAR__RESPONSE__OP_VOLUME);
    CHECK_EQ(w.answer->response->volume->allocated, 192 * MIB);
    CHECK_EQ(lv_of(&id, 0)->size, 192 * MIB); /* and room for the first growth */
    CHECK_EQ(fake_lvm_free_bytes(&w.lvm), before + 832 * MIB);
    CHECK(has_tag(lv_of(&id, 0), "lunar.g=2") && !has_tag(lv_of(&id, 0), "lunar.g=1"));
    CHECK_EQ(w.lvm.seqno, seqno + 2);
    CHECK_EQ(w.measures, 1);
    CHECK_EQ(n_grants(), 0);
    attached(&id, "node1");
    CHECK_EQ(w.code, 0);
    CHECK_EQ(w.grants[1].entries[0].layers[0].map_generation, 2);
    CHECK_EQ(asked(ask_detach, &id), 0);
    CHECK_EQ(asked(ask_trim, &id), 0); /* nothing more to be had */
    CHECK_EQ(w.lvm.seqno, seqno + 2);
}

static void what_is_open_stays_as_it_is(void)
{
    begin_world();
    attached(&id, "node2");
    uint64_t seqno = w.lvm.seqno;
    CHECK_EQ(asked(ask_trim, &id), LUNAR_E_IN_USE);
    CHECK(strstr(w.text, "node2"));
    CHECK_EQ(w.lvm.seqno, seqno);
    CHECK_EQ(w.measures, 0);
}

static void what_is_thick_or_unknown_is_refused(void)
{
    world_reset();
    struct waiter from = client();
    struct uuid nobody = uuid_random();
    ask_create(&from, "thick", 64 * MIB, true);
    settle();
    struct uuid thick = uuid_from_pb(w.answer->response->volume->volume_id);
    CHECK_EQ(asked(ask_trim, &thick), LUNAR_E_UNSUPPORTED);
    CHECK_EQ(asked(ask_trim, &nobody), LUNAR_E_NOT_FOUND);
    CHECK_EQ(w.measures, 0);
}

/* Steps until the node has been asked to measure: its answer is next. */
static void step_to_the_measurement(void)
{
    struct waiter from = client();
    ask_trim(&from, &id);
    while (!(w.queue[0].kind == P_COMMAND &&
             w.queue[0].envelope->command->op_case == LUNAR__COMMAND__OP_MEASURE))
        CHECK(outside_step());
}

static void an_attach_does_not_wait_for_a_measurement_and_makes_it_void(void)
{
    begin_world();
    step_to_the_measurement();
    uint64_t seqno = w.lvm.seqno;
    attached(&id, "node3"); /* its answer comes after the one of the trim */
    CHECK_EQ(w.n_held[3], 1);
    CHECK_EQ(w.measures, 1);
    CHECK_EQ(w.lvm.seqno, seqno);
    CHECK_EQ(lv_of(&id, 0)->size, 1024 * MIB);
}

/* It has written behind what was measured, and is gone again. */
static void who_has_come_and_gone_makes_it_void_too(void)
{
    begin_world();
    step_to_the_measurement();
    struct pending held_back = w.queue[0]; /* the node takes its time */
    memmove(w.queue, w.queue + 1, (size_t)--w.n_queue * sizeof *w.queue);
    attached(&id, "node3");
    CHECK_EQ(w.code, 0);
    CHECK_EQ(asked(ask_detach, &id), 0);
    CHECK_EQ(w.n_held[3], 0);
    uint64_t seqno = w.lvm.seqno;
    w.queue[w.n_queue++] = held_back;
    settle();
    CHECK_EQ(w.measures, 1);
    CHECK_EQ(w.code, LUNAR_E_BUSY);
    CHECK_EQ(w.lvm.seqno, seqno);
    CHECK_EQ(asked(ask_trim, &id), 0);
    CHECK_EQ(lv_of(&id, 0)->size, 192 * MIB);
}

static void a_deletion_waits_for_the_measurement(void)
{
    begin_world();
    step_to_the_measurement();
    struct pending held_back = w.queue[0];
    memmove(w.queue, w.queue + 1, (size_t)--w.n_queue * sizeof *w.queue);
    struct waiter from = client();
    int answers = w.n_answers;
    ask_delete(&from, &id);
    settle();
    ticks(1);
    CHECK_EQ(w.n_answers, answers);
    CHECK(lv_of(&id, 0) != NULL);
    w.queue[w.n_queue++] = held_back;
    settle();
    CHECK_EQ(w.code, 0); /* of the deletion, which came last */
    CHECK(lv_of(&id, 0) == NULL);
    CHECK_EQ(n_grants(), 0);
}

static void while_extents_are_freed_an_attach_waits(void)
{
    begin_world();
    struct waiter from = client(), other = client();
    ask_trim(&from, &id);
    while (w.queue[0].kind != P_COMMIT)
        CHECK(outside_step());
    for (int commits = 0; commits < 2; commits++) {
        ask_attach(&other, &id, "node1");
        CHECK_EQ(w.code, LUNAR_E_BUSY);
        CHECK_EQ(n_grants(), 0);
        outside_step();
    }
    CHECK_EQ(w.code, 0); /* the trim */
    ask_attach(&other, &id, "node1");
    settle();
    CHECK_EQ(w.code, 0);
    CHECK_EQ(w.n_held[1], 1);
}

static void an_end_that_cannot_be_is_not_believed(void)
{
    const uint64_t ends[] = {0, 65536, 64 * MIB + 512, 1024 * MIB + 65536, UINT64_MAX};
    begin_world();
    uint64_t seqno = w.lvm.seqno;
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        w.end = ends[i];
        CHECK_EQ(asked(ask_trim, &id), LUNAR_E_CORRUPT);
        CHECK_EQ(w.lvm.seqno, seqno);
        CHECK_EQ(n_grants(), 0);
    }
    w.end = 1024 * MIB; /* full to the last byte */
    CHECK_EQ(asked(ask_trim, &id), 0);
    CHECK_EQ(w.lvm.seqno, seqno);
}

static void a_node_that_cannot_measure_is_no_harm(void)
{
    begin_world();
    uint64_t seqno = w.lvm.seqno;
    w.measure_error = LUNAR_E_CORRUPT;
    CHECK_EQ(asked(ask_trim, &id), LUNAR_E_CORRUPT);
    CHECK_EQ(w.lvm.seqno, seqno);
    CHECK_EQ(n_grants(), 0);
    w.measure_error = 0;
    CHECK_EQ(asked(ask_trim, &id), 0);
}

static void every_layer_of_the_chain_is_trimmed_and_the_lower_ones_to_the_extent(void)
{
    begin_world();
    snapshot_of(&id, "a");
    grow_to(&id, 1, 512 * MIB);
    elect();
    settle();
    CHECK_EQ(asked(ask_trim, &id), 0);
    CHECK_EQ(w.measures, 2);
    CHECK_EQ(lv_of(&id, 1)->size, 192 * MIB);
    CHECK_EQ(lv_of(&id, 0)->size, 64 * MIB);
    CHECK_EQ(n_grants(), 0);
}

static void a_layer_that_another_volume_has_open_is_left_out(void)
{
    begin_world();
    struct uuid a = snapshot_of(&id, "a");
    struct waiter from = client();
    ask_clone(&from, "clone", 0, &a, NULL);
    settle();
    struct uuid clone = uuid_from_pb(w.answer->response->volume->volume_id);
    attached(&clone, "node2");
    CHECK_EQ(w.code, 0);
    grow_to(&id, 1, 512 * MIB);
    elect();
    settle();
    CHECK_EQ(asked(ask_trim, &id), 0);
    CHECK_EQ(w.measures, 1);
    CHECK_EQ(lv_of(&id, 1)->size, 192 * MIB);
    CHECK_EQ(lv_of(&id, 0)->size, 1024 * MIB);
}

/* Copy B alone, or a report: at the takeover it stands. */
static void what_any_entry_names_after_a_takeover_is_left_out(void)
{
    begin_world();
    struct table_entry *e = table_add(&w.grants[3]);
    *e = (struct table_entry){.volume_id = uuid_random(),
                              .attachment_id = uuid_random(),
                              .generation = 1,
                              .term = 1,
                              .mode = TABLE_MODE_ATTACH,
                              .state = TABLE_STATE_GRANTED,
                              .n_layers = 1};
    e->layers[0] = (struct table_layer){uuid_short(&id), 0, 1};
    w.nodes_silent = true;
    elect();
    CHECK_EQ(asked(ask_trim, &id), LUNAR_E_BUSY);
    CHECK_EQ(w.measures, 0);
}

static void a_commit_that_fails_leaves_what_was_there(void)
{
    for (int after = 0; after < 2; after++)
        for (int which = 0; which < 2; which++) {
            begin_world();
            struct waiter from = client();
            ask_trim(&from, &id);
            for (int commits = 0; commits < which || w.queue[0].kind != P_COMMIT;) {
                commits += w.queue[0].kind == P_COMMIT;
                CHECK(outside_step());
            }
            w.lvm.fail_with = LUNAR_E_INDETERMINATE;
            w.lvm.fail_after = after;
            settle();
            /* Whether it took effect the catalogue says. */
            CHECK_EQ(w.code, after ? 0 : LUNAR_E_INDETERMINATE);
            CHECK_EQ(lv_of(&id, 0)->size, after ? 192 * MIB : 1024 * MIB);
            attached(&id, "node1");
            CHECK_EQ(w.code, 0);
        }
}

/* --- by itself --- */

static void idle_world(void)
{
    world_reset();
    w.trim_rest_ms = 60 * 1000;
    grown_volume();
}

static void a_volume_at_rest_is_trimmed_once(void)
{
    idle_world();
    ticks(5);
    CHECK_EQ(w.measures, 0);
    ticks(5);
    CHECK_EQ(w.measures, 1);
    CHECK_EQ(lv_of(&id, 0)->size, 192 * MIB);
    uint64_t seqno = w.lvm.seqno;
    ticks(30);
    CHECK_EQ(w.measures, 1);
    CHECK_EQ(w.lvm.seqno, seqno);
}

static void safety_14_nobody_measures_what_is_being_freed(void)
{
    struct waiter from = client();

    idle_world();
    for (int n = 0; w.measures == 0 && n < 20; n++) {
        w.now += LEADER_RECONCILE_MS;
        for (uint32_t h = 1; h <= 3; h++)
            node_seen(h, w.generation[h] ? w.generation[h] : 1, 1, 0);
        leader_tick(w.leader, w.now);
        while (w.n_queue > 0 && w.queue[0].kind != P_COMMIT)
            CHECK(outside_step());
    }
    CHECK_EQ(w.measures, 1);
    for (int commits = 0; commits < 2; commits++) {
        CHECK_EQ(w.queue[0].kind, P_COMMIT);
        ask_trim(&from, &id);
        CHECK_EQ(w.code, LUNAR_E_BUSY);
        CHECK_EQ(n_grants(), 0);
        outside_step();
    }
    settle();
    CHECK_EQ(lv_of(&id, 0)->size, 192 * MIB);
    CHECK_EQ(asked(ask_trim, &id), 0);
}

static void one_that_is_in_use_again_and_again_is_not(void)
{
    idle_world();
    for (int i = 0; i < 5; i++) {
        ticks(4);
        attached(&id, "node1");
        CHECK_EQ(w.code, 0);
        ticks(9);
        CHECK_EQ(asked(ask_detach, &id), 0);
    }
    CHECK_EQ(w.measures, 0);
    ticks(9);
    CHECK_EQ(w.measures, 1);
}

static void what_is_hardly_worth_it_is_measured_once_until_it_was_used(void)
{
    idle_world();
    w.end = 864 * MIB; /* and 128 MiB in reserve: one extent is left over */
    ticks(30);
    CHECK_EQ(w.measures, 1);
    CHECK_EQ(lv_of(&id, 0)->size, 1024 * MIB);
    attached(&id, "node1");
    CHECK_EQ(asked(ask_detach, &id), 0);
    ticks(10);
    CHECK_EQ(w.measures, 2);
    CHECK_EQ(asked(ask_trim, &id), 0); /* who asks gets what there is */
    CHECK_EQ(lv_of(&id, 0)->size, 992 * MIB);
}

static void a_volume_that_cannot_get_smaller_is_not_looked_at(void)
{
    world_reset();
    w.trim_rest_ms = 60 * 1000;
    elect();
    id = made("disk");
    ticks(30);
    CHECK_EQ(w.measures, 0);
}

static void a_failure_is_followed_by_another_attempt(void)
{
    idle_world();
    w.measure_error = LUNAR_E_EXEC;
    ticks(10);
    CHECK_EQ(w.measures, 1);
    w.measure_error = 0;
    ticks(10);
    CHECK_EQ(w.measures, 2);
    CHECK_EQ(lv_of(&id, 0)->size, 192 * MIB);
}

static void a_node_that_dies_over_it_is_no_harm(void)
{
    begin_world();
    step_to_the_measurement();
    w.silent_node = w.queue[0].host;
    settle();
    ticks(2);
    CHECK_EQ(n_grants(), 1);
    CHECK_EQ(lv_of(&id, 0)->size, 1024 * MIB);
    attached(&id, w.silent_node == 3 ? "node1" : "node3");
    CHECK_EQ(w.code, 0);
}

/* --- a leader is lost --- */

static int trim_with_a_leader_lost(int steps)
{
    int done = 0;

    begin_world();
    struct waiter from = client();
    ask_trim(&from, &id);
    while (outside_step())
        if (++done == steps)
            elect();
    uint64_t size = lv_of(&id, 0)->size;
    bool good = size == 1024 * MIB || size == 192 * MIB;
    ticks(3); /* the job's grant is taken back */
    good = good && n_grants() == 0;
    ask_trim(&from, &id);
    settle();
    good = good && w.code == 0 && lv_of(&id, 0)->size == 192 * MIB && n_grants() == 0;
    attached(&id, "node1");
    good = good && w.code == 0;
    if (!good)
        printf("# %d steps: size %llu, code %d %s\n", steps,
               (unsigned long long)lv_of(&id, 0)->size, w.code, w.text);
    return good ? done : -1;
}

static void safety_14_a_leader_lost_after_any_step_leaves_one_size_or_the_other(void)
{
    int n = trim_with_a_leader_lost(0);
    CHECK(n >= 5);
    for (int steps = 1; steps <= n; steps++)
        CHECK(trim_with_a_leader_lost(steps) > 0);
    printf("# %d steps\n", n);
}

TEST_MAIN(TEST(what_lies_behind_the_end_goes_back_to_the_pool), TEST(what_is_open_stays_as_it_is),
          TEST(what_is_thick_or_unknown_is_refused),
          TEST(an_attach_does_not_wait_for_a_measurement_and_makes_it_void),
          TEST(who_has_come_and_gone_makes_it_void_too), TEST(a_deletion_waits_for_the_measurement),
          TEST(while_extents_are_freed_an_attach_waits),
          TEST(an_end_that_cannot_be_is_not_believed), TEST(a_node_that_cannot_measure_is_no_harm),
          TEST(every_layer_of_the_chain_is_trimmed_and_the_lower_ones_to_the_extent),
          TEST(a_layer_that_another_volume_has_open_is_left_out),
          TEST(what_any_entry_names_after_a_takeover_is_left_out),
          TEST(a_commit_that_fails_leaves_what_was_there), TEST(a_volume_at_rest_is_trimmed_once),
          TEST(safety_14_nobody_measures_what_is_being_freed),
          TEST(one_that_is_in_use_again_and_again_is_not),
          TEST(what_is_hardly_worth_it_is_measured_once_until_it_was_used),
          TEST(a_volume_that_cannot_get_smaller_is_not_looked_at),
          TEST(a_failure_is_followed_by_another_attempt), TEST(a_node_that_dies_over_it_is_no_harm),
          TEST(safety_14_a_leader_lost_after_any_step_leaves_one_size_or_the_other))
