/* SPDX-License-Identifier: Apache-2.0 */
/* A pool's LUN has grown: every node must see it before LVM takes it, and whoever asked gets one
 * answer. */
#include "support/leader_world.h"

#define GIB (1ull << 30)

static Lunar__PoolExtend grown(void)
{
    Lunar__PoolExtend m = LUNAR__POOL_EXTEND__INIT;
    return m;
}

static void what_a_lun_has_grown_by_is_taken_when_all_nodes_see_it(void)
{
    world_reset();
    struct waiter from = client();
    Lunar__PoolExtend m = grown();
    uint64_t before = w.lvm.vg_size;
    w.lvm.pvs[0].device_size += GIB;
    ask_extend(&from, &m);
    settle();
    CHECK_EQ(w.n_answers, 1);
    CHECK_EQ(w.code, 0);
    CHECK_EQ(w.probes, 3);
    CHECK_EQ(w.lvm.vg_size, before + GIB);
    const Lunar__Status *s = w.answer->response->status;
    CHECK_EQ(w.answer->response->op_case, LUNAR__RESPONSE__OP_STATUS);
    CHECK_EQ(s->vg_size, before + GIB);
    CHECK_EQ(s->n_pvs, 1);
    CHECK_EQ(s->pvs[0]->size, before + GIB);
}

static void nodes_are_asked_about_the_size_that_the_device_has_here(void)
{
    world_reset();
    struct waiter from = client();
    Lunar__PoolExtend m = grown();
    w.lvm.pvs[0].device_size += GIB;
    ask_extend(&from, &m);
    outside_step(); /* the look */
    CHECK_EQ(w.n_queue, 3);
    const Lunar__ProbePv *p = w.queue[0].envelope->command->probe_pv;
    CHECK_EQ(w.queue[0].envelope->command->op_case, LUNAR__COMMAND__OP_PROBE_PV);
    CHECK_EQ(p->n_pvs, 1);
    CHECK_EQ(p->pvs[0]->index, 0);
    CHECK_EQ(p->pvs[0]->size, w.lvm.pvs[0].device_size);
    CHECK_STR(p->pvs[0]->uuid, w.lvm.pvs[0].uuid);
    settle();
}

static void where_nothing_has_grown_nothing_is_asked_or_changed(void)
{
    world_reset();
    struct waiter from = client();
    Lunar__PoolExtend m = grown();
    uint64_t seqno = w.lvm.seqno;
    w.lvm.pvs[0].device_size += FAKE_EXTENT - 1; /* not one extent more */
    ask_extend(&from, &m);
    settle();
    CHECK_EQ(w.n_answers, 1);
    CHECK_EQ(w.code, 0);
    CHECK_EQ(w.probes, 0);
    CHECK_EQ(w.lvm.seqno, seqno);
}

static void a_node_that_does_not_see_it_is_named_and_nothing_is_changed(void)
{
    world_reset();
    struct waiter from = client();
    Lunar__PoolExtend m = grown();
    uint64_t seqno = w.lvm.seqno;
    w.lvm.pvs[0].device_size += GIB;
    w.blind_node = 2;
    ask_extend(&from, &m);
    settle();
    CHECK_EQ(w.n_answers, 1);
    CHECK_EQ(w.code, LUNAR_E_NOT_FOUND);
    CHECK(strstr(w.text, "'node2'") && !strstr(w.text, "'node1'") && !strstr(w.text, "'node3'"));
    CHECK_EQ(w.lvm.seqno, seqno);
    w.blind_node = 0; /* it has looked again */
    from = client();
    ask_extend(&from, &m);
    settle();
    CHECK_EQ(w.code, 0);
    CHECK_EQ(w.lvm.seqno, seqno + 1);
}

static void a_node_that_does_not_answer_is_named_after_a_while(void)
{
    world_reset();
    struct waiter from = client();
    Lunar__PoolExtend m = grown();
    uint64_t seqno = w.lvm.seqno;
    w.lvm.pvs[0].device_size += GIB;
    w.silent_node = 3;
    ask_extend(&from, &m);
    settle();
    CHECK_EQ(w.n_answers, 0);
    w.now += 31000;
    leader_tick(w.leader, w.now);
    settle();
    CHECK_EQ(w.n_answers, 1);
    CHECK_EQ(w.code, LUNAR_E_NOT_FOUND);
    CHECK(strstr(w.text, "'node3'") && !strstr(w.text, "'node1'"));
    CHECK_EQ(w.lvm.seqno, seqno);
}

static void another_run_of_an_agent_is_asked_again(void)
{
    world_reset();
    struct waiter from = client();
    Lunar__PoolExtend m = grown();
    w.lvm.pvs[0].device_size += GIB;
    w.silent_node = 3;
    ask_extend(&from, &m);
    settle();
    w.silent_node = 0;
    node_seen(3, 1, 2, 0);
    settle();
    CHECK_EQ(w.n_answers, 1);
    CHECK_EQ(w.code, 0);
}

static void a_lun_that_is_smaller_here_than_its_pv_is_left_alone(void)
{
    world_reset();
    struct waiter from = client();
    Lunar__PoolExtend m = grown();
    uint64_t seqno = w.lvm.seqno;
    w.lvm.pvs[0].device_size -= FAKE_EXTENT;
    ask_extend(&from, &m);
    settle();
    CHECK_EQ(w.code, LUNAR_E_NOT_FOUND);
    CHECK_EQ(w.probes, 0);
    CHECK_EQ(w.lvm.seqno, seqno);
}

static void a_second_request_is_busy_and_the_same_one_joins(void)
{
    world_reset();
    struct waiter one = client(), two = client();
    Lunar__PoolExtend m = grown();
    w.lvm.pvs[0].device_size += GIB;
    ask_extend(&one, &m);
    ask_extend(&two, &m);
    CHECK_EQ(w.n_answers, 1);
    CHECK_EQ(w.code, LUNAR_E_BUSY);
    ask_extend(&one, &m);
    settle();
    CHECK_EQ(w.n_answers, 2);
    CHECK_EQ(w.code, 0);
}

static void a_commit_that_failed_is_the_answer_unless_it_has_landed(void)
{
    for (int landed = 0; landed < 2; landed++) {
        world_reset();
        struct waiter from = client();
        Lunar__PoolExtend m = grown();
        w.lvm.pvs[0].device_size += GIB;
        ask_extend(&from, &m);
        outside_step();
        w.lvm.fail_with = LUNAR_E_INDETERMINATE;
        w.lvm.fail_after = landed;
        settle();
        CHECK_EQ(w.n_answers, 1);
        CHECK_EQ(w.code, landed ? 0 : LUNAR_E_INDETERMINATE);
    }
}

static void a_leader_may_end_in_the_middle(void)
{
    world_reset();
    struct waiter from = client();
    Lunar__PoolExtend m = grown();
    w.lvm.pvs[0].device_size += GIB;
    ask_extend(&from, &m);
    outside_step();
    elect();
    ask_extend(&from, &m);
    settle();
    CHECK_EQ(w.n_answers, 1);
    CHECK_EQ(w.code, 0);
}

TEST_MAIN(TEST(what_a_lun_has_grown_by_is_taken_when_all_nodes_see_it),
          TEST(nodes_are_asked_about_the_size_that_the_device_has_here),
          TEST(where_nothing_has_grown_nothing_is_asked_or_changed),
          TEST(a_node_that_does_not_see_it_is_named_and_nothing_is_changed),
          TEST(a_node_that_does_not_answer_is_named_after_a_while),
          TEST(another_run_of_an_agent_is_asked_again),
          TEST(a_lun_that_is_smaller_here_than_its_pv_is_left_alone),
          TEST(a_second_request_is_busy_and_the_same_one_joins),
          TEST(a_commit_that_failed_is_the_answer_unless_it_has_landed),
          TEST(a_leader_may_end_in_the_middle))
