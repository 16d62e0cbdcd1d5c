/* SPDX-License-Identifier: Apache-2.0 */
/* A pool's LUN has grown, or there is another one: every node must see it before LVM takes it, and
 * whoever asked gets one answer. */
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

/* --- another LUN --- */

static Lunar__Pv new_pv = LUNAR__PV__INIT;
static char new_uuid[PV_UUID_SIZE];

static Lunar__PoolExtend another(const char *wwid)
{
    Lunar__PoolExtend m = LUNAR__POOL_EXTEND__INIT;
    pv_uuid_make(wwid, new_uuid);
    new_pv.uuid = new_uuid;
    new_pv.wwid = (char *)(uintptr_t)wwid;
    new_pv.size = 5 * GIB;
    m.device = (char *)(uintptr_t) "/dev/sdz";
    m.pv = &new_pv;
    return m;
}

static void another_lun_is_added_when_all_nodes_find_it(void)
{
    world_reset();
    struct waiter from = client();
    Lunar__PoolExtend m = another("naa.6001405");
    uint64_t before = w.lvm.vg_size, seqno = w.lvm.seqno;
    w.lvm.new_lun_size = 4 * GIB;
    ask_extend(&from, &m);
    CHECK_EQ(w.n_queue, 3);
    CHECK_STR(w.queue[0].envelope->command->probe_pv->pvs[0]->uuid, new_uuid);
    CHECK_EQ(w.queue[0].envelope->command->probe_pv->pvs[0]->index, 1);
    CHECK_EQ(w.queue[0].envelope->command->probe_pv->pvs[0]->size, 5 * GIB);
    settle();
    CHECK_EQ(w.n_answers, 1);
    CHECK_EQ(w.code, 0);
    CHECK_EQ(w.lvm.seqno, seqno + 1);
    CHECK_EQ(w.lvm.vg_size, before + 4 * GIB);
    CHECK_EQ(w.answer->response->status->n_pvs, 2);
    CHECK_STR(w.answer->response->status->pvs[1]->uuid, new_uuid);
    from = client(); /* again, its answer was lost */
    ask_extend(&from, &m);
    settle();
    CHECK_EQ(w.n_answers, 2);
    CHECK_EQ(w.code, 0);
    CHECK_EQ(w.lvm.seqno, seqno + 1);
}

static void a_node_that_does_not_find_the_lun_is_named(void)
{
    world_reset();
    struct waiter from = client();
    Lunar__PoolExtend m = another("naa.6001405");
    uint64_t seqno = w.lvm.seqno;
    w.lvm.new_lun_size = 4 * GIB;
    w.blind_node = 1;
    ask_extend(&from, &m);
    settle();
    CHECK_EQ(w.code, LUNAR_E_NOT_FOUND);
    CHECK(strstr(w.text, "'node1'") && !strstr(w.text, "'node2'"));
    CHECK_EQ(w.lvm.seqno, seqno);
}

static void a_coordinator_that_does_not_find_the_lun_adds_nothing(void)
{
    world_reset();
    struct waiter from = client();
    Lunar__PoolExtend m = another("naa.6001405");
    ask_extend(&from, &m);
    settle();
    CHECK_EQ(w.n_answers, 1);
    CHECK_EQ(w.code, LUNAR_E_NOT_FOUND);
    CHECK_EQ(w.lvm.n_pvs, 1);
}

static void refused(Lunar__PoolExtend *m, int code)
{
    struct waiter from = client();
    int answers = w.n_answers;
    ask_extend(&from, m);
    CHECK_EQ(w.n_answers, answers + 1);
    CHECK_EQ(w.code, code);
    CHECK_EQ(w.n_queue, 0);
}

static void safety_22_a_lun_whose_uuid_is_of_another_wwid_is_refused(void)
{
    world_reset();
    Lunar__PoolExtend m = another("naa.6001405");
    new_pv.wwid = (char *)(uintptr_t) "naa.copy";
    refused(&m, LUNAR_E_INVALID);
    m.pv = NULL;
    refused(&m, LUNAR_E_INVALID);
}

static void a_lun_without_wwid_is_for_test_pools(void)
{
    world_reset();
    Lunar__PoolExtend m = another("");
    refused(&m, LUNAR_E_INVALID);
    w.sb.flags |= SUPERBLOCK_FLAG_TEST;
    w.lvm.new_lun_size = 4 * GIB;
    struct waiter from = client();
    ask_extend(&from, &m);
    settle();
    CHECK_EQ(w.code, 0);
}

static void safety_13_a_pool_with_reservations_gets_no_other_lun(void)
{
    world_reset();
    Lunar__PoolExtend m = another("naa.6001405");
    w.sb.flags |= SUPERBLOCK_FLAG_PR;
    refused(&m, LUNAR_E_UNSUPPORTED);
}

static void a_command_names_the_luns_that_its_segments_lie_on(void)
{
    world_reset();
    struct waiter from = client();
    Lunar__PoolExtend m = another("naa.6001405");
    w.lvm.new_lun_size = 4 * GIB;
    ask_extend(&from, &m);
    settle();
    struct uuid id = made("a");
    w.lvm.lvs[0].segments[0].pv = 1;
    elect();
    settle();
    ask_attach(&from, &id, "node2");
    outside_step(); /* the grant */
    CHECK_EQ(w.n_queue, 1);
    const Lunar__Attach *attach = w.queue[0].envelope->command->attach;
    CHECK_EQ(w.queue[0].envelope->command->op_case, LUNAR__COMMAND__OP_ATTACH);
    CHECK_EQ(attach->layers[0]->segments[0]->pv, 1);
    CHECK_EQ(attach->n_pvs, 1);
    CHECK_EQ(attach->pvs[0]->index, 1);
    CHECK_STR(attach->pvs[0]->uuid, new_uuid);
    settle();
}

static const char *condition(void)
{
    struct waiter from = client();
    Lunar__Request r = LUNAR__REQUEST__INIT;
    Lunar__StatusGet m = LUNAR__STATUS_GET__INIT;
    r.op_case = LUNAR__REQUEST__OP_STATUS_GET;
    r.status_get = &m;
    ask(&from, &r);
    return w.answer->response->status->condition;
}

static void a_node_that_comes_without_a_lun_is_in_the_condition_until_it_sees_it(void)
{
    world_reset();
    struct waiter from = client();
    Lunar__PoolExtend m = another("naa.6001405");
    w.lvm.new_lun_size = 4 * GIB;
    ask_extend(&from, &m);
    settle();
    w.blind_node = 2;
    node_seen(2, 1, 2, 0); /* a new run of its agent */
    settle();
    CHECK(strstr(condition(), "'node2' does not see"));
    w.blind_node = 0;
    for (int i = 0; i < 61; i++) {
        w.now += 1000;
        for (uint32_t h = 1; h <= 3; h++)
            leader_heard(w.leader, h, w.now);
        leader_tick(w.leader, w.now);
        settle();
    }
    CHECK(!strstr(condition(), "does not see"));
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
          TEST(a_leader_may_end_in_the_middle), TEST(another_lun_is_added_when_all_nodes_find_it),
          TEST(a_node_that_does_not_find_the_lun_is_named),
          TEST(a_coordinator_that_does_not_find_the_lun_adds_nothing),
          TEST(safety_22_a_lun_whose_uuid_is_of_another_wwid_is_refused),
          TEST(a_lun_without_wwid_is_for_test_pools),
          TEST(safety_13_a_pool_with_reservations_gets_no_other_lun),
          TEST(a_command_names_the_luns_that_its_segments_lie_on),
          TEST(a_node_that_comes_without_a_lun_is_in_the_condition_until_it_sees_it))
