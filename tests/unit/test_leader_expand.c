/* SPDX-License-Identifier: Apache-2.0 */
/* Expansion: detached, attached, under a leader that is lost, refused. */
#include "support/leader_world.h"

#define MIB_OF(n) ((uint64_t)(n) << 20)

static int attached(const struct uuid *volume, const char *node)
{
    struct waiter from = client();
    ask_attach(&from, volume, node);
    settle();
    return w.code;
}

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
    struct waiter from = client();
    CHECK_EQ(expanded(&id, size - 4096), LUNAR_E_INVALID);
    CHECK_EQ(expanded(&id, size + 512), LUNAR_E_INVALID);
    CHECK_EQ(expanded(&id, VOLUME_SIZE_MAX + MIB_OF(1)), LUNAR_E_INVALID);
    CHECK_EQ(expanded(&none, size), LUNAR_E_NOT_FOUND);
    ask_create(&from, "thick", MIB_OF(8), true);
    settle();
    struct uuid thick = uuid_from_pb(w.answer->response->volume->volume_id);
    CHECK_EQ(expanded(&thick, MIB_OF(16)), LUNAR_E_UNSUPPORTED);
    CHECK_EQ(expanded(&thick, MIB_OF(8)), 0);
    CHECK_EQ(w.lvm.seqno, seqno + 2); /* those of the create */
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
          TEST(an_operation_on_the_volume_keeps_it_waiting))
