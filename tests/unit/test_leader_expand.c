/* SPDX-License-Identifier: Apache-2.0 */
/* Expansion: detached, attached, under a leader that is lost, refused; thin and thick. */
#include <errno.h>

#include "support/leader_world.h"

#define MIB_OF(n) ((uint64_t)(n) << 20)

static int expanded(const struct uuid *volume, uint64_t size)
{
    struct waiter from = client();
    ask_expand(&from, volume, size);
    settle();
    return w.code;
}

static uint64_t size_of(const struct uuid *volume)
{
    struct catalogue *c = fake_lvm_catalogue(&w.lvm);
    const struct catalogue_volume *v = catalogue_by_id(c, volume);
    uint64_t size = v ? v->size : 0;
    catalogue_free(c);
    free(c);
    return size;
}

static void a_detached_volume_is_expanded_by_one_commit(void)
{
    world_reset();
    struct uuid id = made("disk");
    uint64_t seqno = w.lvm.seqno, size = size_of(&id) + MIB_OF(8);
    CHECK_EQ(expanded(&id, size), 0);
    CHECK_EQ(w.answer->response->volume->size, size);
    CHECK_EQ(size_of(&id), size);
    CHECK_EQ(w.lvm.seqno, seqno + 1);
    CHECK_EQ(w.resizes, 0);
    CHECK_EQ(expanded(&id, size), 0); /* the same again */
    CHECK_EQ(w.lvm.seqno, seqno + 1);
}

static void an_attached_volumes_node_is_told_after_the_commit(void)
{
    world_reset();
    struct uuid id = made("disk");
    uint64_t size = size_of(&id) + MIB_OF(8);
    struct waiter from = client();
    CHECK_EQ(attached(&id, "node2"), 0);
    int answers = w.n_answers;
    ask_expand(&from, &id, size);
    CHECK_EQ(w.queue[0].kind, P_COMMIT);
    outside_step();
    CHECK_EQ(size_of(&id), size);
    CHECK_EQ(w.queue[0].kind, P_COMMAND);
    CHECK_EQ(w.n_answers, answers);
    ask_expand(&from, &id, size); /* joined */
    settle();
    CHECK_EQ(w.n_answers, answers + 1);
    CHECK_EQ(w.resizes, 1);
    CHECK_EQ(w.resized, size);
    CHECK_EQ(expanded(&id, size), 0); /* the answer was lost: the node is told again */
    CHECK_EQ(w.resizes, 2);
}

static void a_size_is_never_smaller_and_never_senseless(void)
{
    world_reset();
    struct uuid id = made("disk"), none = uuid_random();
    uint64_t size = size_of(&id), seqno = w.lvm.seqno;
    CHECK_EQ(expanded(&id, size - 4096), LUNAR_E_INVALID);
    CHECK_EQ(expanded(&id, size + 512), LUNAR_E_INVALID);
    CHECK_EQ(expanded(&id, VOLUME_SIZE_MAX + MIB_OF(1)), LUNAR_E_INVALID);
    CHECK_EQ(expanded(&none, size), LUNAR_E_NOT_FOUND);
    CHECK_EQ(w.lvm.seqno, seqno);
}

/* --- thick --- */

static struct uuid made_thick(uint64_t size)
{
    struct waiter from = client();
    ask_create(&from, "thick", size, true);
    settle();
    return uuid_from_pb(w.answer->response->volume->volume_id);
}

/* No byte is the volume's that was not zeroed before, and no two tags tell of one thing. */
static void check_zeroed(const struct uuid *volume)
{
    struct catalogue *c = fake_lvm_catalogue(&w.lvm);
    const struct catalogue_volume *v = catalogue_by_id(c, volume);
    CHECK(v && v->size <= w.zeroed);
    CHECK_EQ(c->n_foreign, 0);
    catalogue_free(c);
    free(c);
}

static void settle_zeroed(const struct uuid *volume)
{
    do
        check_zeroed(volume);
    while (outside_step());
}

/* All is done, and nothing tells of it any more. */
static void check_expanded(const struct uuid *volume, uint64_t size)
{
    struct catalogue *c = fake_lvm_catalogue(&w.lvm);
    const struct catalogue_volume *v = catalogue_by_id(c, volume);
    CHECK(v && v->size == size && v->expands_to == 0);
    CHECK_EQ(v->layers[0].size, catalogue_initial_size(size, true, c->extent_size));
    for (uint32_t h = 1; h <= MAX_NODES; h++)
        for (uint32_t i = 0; i < w.grants[h].n_entries; i++)
            CHECK(w.grants[h].entries[i].mode == TABLE_MODE_ATTACH);
    catalogue_free(c);
    free(c);
}

static void a_thick_volume_is_zeroed_before_it_is_larger(void)
{
    for (int held = 0; held < 2; held++) {
        world_reset();
        struct uuid id = made_thick(MIB_OF(8));
        struct waiter from = client();
        if (held)
            CHECK_EQ(attached(&id, "node2"), 0);
        uint64_t seqno = w.lvm.seqno;
        ask_expand(&from, &id, MIB_OF(40));
        settle_zeroed(&id);
        CHECK_EQ(w.code, 0);
        CHECK_EQ(w.answer->response->volume->size, MIB_OF(40));
        check_expanded(&id, MIB_OF(40));
        CHECK_EQ(w.zeroes, !held);
        CHECK_EQ(w.resizes, held ? 2 : 0);
        CHECK_EQ(w.lvm.seqno, seqno + 3);
        CHECK_EQ(expanded(&id, MIB_OF(64)), 0); /* its LV has that already */
        check_expanded(&id, MIB_OF(64));
        CHECK_EQ(w.lvm.seqno, seqno + 5);
    }
}

static void tick_later(void)
{
    w.now += LEADER_RECONCILE_MS;
    for (uint32_t h = 1; h <= 3; h++)
        node_seen(h, 1, 1, 0);
    leader_tick(w.leader, w.now);
}

static void a_thick_expansion_is_finished_by_whoever_leads_asked_again_or_not(void)
{
    for (int held = 0; held < 2; held++)
        for (int lost_after = 0; lost_after < 9; lost_after++) {
            world_reset();
            struct uuid id = made_thick(MIB_OF(8));
            struct waiter from = client();
            if (held)
                CHECK_EQ(attached(&id, "node2"), 0);
            ask_expand(&from, &id, MIB_OF(40));
            for (int i = 0; i < lost_after; i++)
                outside_step();
            elect();
            settle_zeroed(&id);
            tick_later();
            settle_zeroed(&id);
            if (lost_after == 0) { /* nothing had happened */
                CHECK_EQ(size_of(&id), MIB_OF(8));
                continue;
            }
            check_expanded(&id, MIB_OF(40));
            ask_expand(&from, &id, MIB_OF(40));
            settle_zeroed(&id);
            CHECK_EQ(w.code, 0);
            if (held)
                CHECK_EQ(w.resized, MIB_OF(40));
        }
}

static void a_thick_expansion_without_space_leaves_nothing(void)
{
    world_reset();
    struct uuid id = made_thick(MIB_OF(8));
    CHECK_EQ(expanded(&id, 4 * w.lvm.vg_size), LUNAR_E_NO_SPACE);
    check_expanded(&id, MIB_OF(8));
}

static void a_node_that_cannot_zero_leaves_it_to_the_next_try(void)
{
    for (int held = 0; held < 2; held++) {
        world_reset();
        struct uuid id = made_thick(MIB_OF(8));
        struct waiter from = client();
        if (held)
            CHECK_EQ(attached(&id, "node2"), 0);
        w.node_error = -EIO;
        ask_expand(&from, &id, MIB_OF(40));
        settle_zeroed(&id);
        CHECK_EQ(w.code, -EIO);
        CHECK_EQ(size_of(&id), MIB_OF(8));
        w.node_error = 0;
        if (!held) {
            CHECK_EQ(attached(&id, "node1"), 0); /* it is used meanwhile */
            ask_detach(&from, &id);
            settle();
        }
        ask_expand(&from, &id, MIB_OF(80)); /* the wish has changed */
        settle_zeroed(&id);
        CHECK_EQ(w.code, 0);
        check_expanded(&id, MIB_OF(80));
    }
}

static void a_node_that_dies_while_it_zeroes_leaves_it_to_another(void)
{
    for (int held = 0; held < 2; held++) {
        world_reset();
        struct uuid id = made_thick(MIB_OF(8));
        struct waiter from = client();
        if (held)
            CHECK_EQ(attached(&id, "node2"), 0);
        w.nodes_silent = true;
        ask_expand(&from, &id, MIB_OF(40));
        settle_zeroed(&id);
        w.nodes_silent = false;
        uint32_t host = 1;
        while (w.grants[host].n_entries == 0)
            host++;
        w.n_held[host] = 0;
        host_is(host, HOST_STATE_DEAD);
        settle_zeroed(&id);
        for (int i = 0; i < 2; i++) {
            tick_later();
            settle_zeroed(&id);
        }
        check_expanded(&id, MIB_OF(40));
        CHECK_EQ(w.zeroes, 1);
        CHECK_EQ(w.code, held ? LUNAR_E_NOT_JOINED : 0);
    }
}

static void a_leader_lost_after_any_step_leaves_it_to_the_same_request(void)
{
    for (int lost_after = 0; lost_after < 4; lost_after++) {
        world_reset();
        struct uuid id = made("disk");
        uint64_t size = size_of(&id) + MIB_OF(8);
        struct waiter from = client();
        CHECK_EQ(attached(&id, "node2"), 0);
        ask_expand(&from, &id, size);
        for (int i = 0; i < lost_after; i++)
            outside_step();
        elect();
        settle();
        ask_expand(&from, &id, size); /* the agent sends it to each new leader */
        settle();
        CHECK_EQ(w.code, 0);
        CHECK_EQ(size_of(&id), size);
        CHECK_EQ(w.resized, size);
    }
}

static void a_node_that_dies_or_forgets_ends_it_well(void)
{
    for (int dies = 0; dies < 2; dies++) {
        world_reset();
        struct uuid id = made("disk");
        uint64_t size = size_of(&id) + MIB_OF(8);
        struct waiter from = client();
        CHECK_EQ(attached(&id, "node2"), 0);
        ask_expand(&from, &id, size);
        outside_step();
        w.forgets = !dies;
        if (dies)
            w.n_held[2] = 0;
        if (dies)
            host_is(2, HOST_STATE_DEAD);
        settle();
        CHECK_EQ(w.code, 0);
        CHECK_EQ(size_of(&id), size);
        CHECK_EQ(w.resizes, 0);
    }
}

static void a_node_that_refuses_is_named_and_asked_again_by_the_same_request(void)
{
    world_reset();
    struct uuid id = made("disk");
    uint64_t size = size_of(&id) + MIB_OF(8);
    CHECK_EQ(attached(&id, "node2"), 0);
    w.node_error = LUNAR_E_QMP;
    CHECK_EQ(expanded(&id, size), LUNAR_E_QMP);
    CHECK(strstr(w.text, "node2"));
    w.node_error = 0;
    CHECK_EQ(expanded(&id, size), 0);
    CHECK_EQ(w.resizes, 1);
    w.silent_node = 2;
    struct waiter from = client();
    ask_expand(&from, &id, size + MIB_OF(8));
    settle();
    w.now += LEADER_OP_DEADLINE_MS + 1;
    node_seen(2, 1, 1, 0);
    leader_tick(w.leader, w.now);
    CHECK_EQ(w.code, LUNAR_E_TIMEOUT);
    w.silent_node = 0;
    ask_detach(&from, &id); /* it does not stand in the way */
    settle();
    CHECK_EQ(w.code, 0);
}

static void an_operation_on_the_volume_keeps_it_waiting(void)
{
    world_reset();
    struct uuid id = made("disk");
    struct waiter from = client(), other = client();
    ask_snapshot(&from, &id, "s");
    ask_expand(&other, &id, size_of(&id) + MIB_OF(8));
    CHECK_EQ(w.code, LUNAR_E_BUSY);
    settle();
    CHECK_EQ(expanded(&id, size_of(&id) + MIB_OF(8)), 0);
    ask_expand(&from, &id, size_of(&id) + MIB_OF(8));
    ask_snapshot(&other, &id, "t");
    CHECK_EQ(w.code, LUNAR_E_BUSY);
    settle();
    CHECK_EQ(w.code, 0);
}

TEST_MAIN(TEST(a_detached_volume_is_expanded_by_one_commit),
          TEST(an_attached_volumes_node_is_told_after_the_commit),
          TEST(a_size_is_never_smaller_and_never_senseless),
          TEST(a_leader_lost_after_any_step_leaves_it_to_the_same_request),
          TEST(a_node_that_dies_or_forgets_ends_it_well),
          TEST(a_node_that_refuses_is_named_and_asked_again_by_the_same_request),
          TEST(a_thick_volume_is_zeroed_before_it_is_larger),
          TEST(a_thick_expansion_is_finished_by_whoever_leads_asked_again_or_not),
          TEST(a_thick_expansion_without_space_leaves_nothing),
          TEST(a_node_that_cannot_zero_leaves_it_to_the_next_try),
          TEST(a_node_that_dies_while_it_zeroes_leaves_it_to_another),
          TEST(an_operation_on_the_volume_keeps_it_waiting))
