/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots of several volumes at one instant: all or none, whoever fails and whichever leader
 * ends it. The world (leader_world.h) checks that nobody is switched before all stand still.
 */
#include "support/leader_world.h"

#define N      3u
#define DRIVES 2 /* of them are attached, on a node each; the third is attached nowhere */

static struct uuid volumes[N];

static void attach_to(const struct uuid *volume, const char *node)
{
    struct waiter from = client();
    ask_attach(&from, volume, node);
    settle();
    assert(w.code == 0);
}

static void begin(void)
{
    static const char *const names[N] = {"a", "b", "c"};
    world_reset();
    for (uint32_t i = 0; i < N; i++)
        volumes[i] = made(names[i]);
    attach_to(&volumes[0], "node1");
    attach_to(&volumes[1], "node2");
    w.together = DRIVES;
}

/* So many snapshots are there; -1: one of them is not ready, or a volume is in the middle of one.
 */
static int snapshots(void)
{
    struct catalogue *c = fake_lvm_catalogue(&w.lvm);
    int n = (int)c->n_snapshots;
    for (uint32_t i = 0; i < c->n_snapshots; i++)
        n = c->snapshots[i].ready ? n : -1;
    for (uint32_t i = 0; i < c->n_volumes; i++)
        n = catalogue_volume_is_changing(&c->volumes[i]) ? -1 : n;
    catalogue_free(c);
    free(c);
    return n;
}

static void time_passes(uint64_t ms)
{
    w.now += ms;
    for (uint32_t h = 1; h <= 3; h++)
        if (h != w.silent_node)
            leader_heard(w.leader, h, w.now);
    leader_tick(w.leader, w.now);
    settle();
}

/* All is at rest: nobody stands still, nothing is noted, and the volumes are as usable as ever. */
static void check_rest(int want)
{
    struct waiter from = client();
    time_passes(LEADER_RECONCILE_MS);
    time_passes(LEADER_RECONCILE_MS);
    CHECK_EQ(snapshots(), want);
    CHECK_EQ(world_holds(), 0);
    CHECK_EQ(w.lvm.n_vg_tags, 0);
    for (uint32_t i = 0; i < N; i++) {
        char name[8];
        snprintf(name, sizeof name, "t%u", i);
        ask_snapshot(&from, &volumes[i], name);
        settle();
        CHECK_EQ(w.code, 0);
        from = client();
    }
}

static bool next_is(int op_case)
{
    return w.n_queue > 0 && w.queue[0].kind == P_COMMAND &&
           (int)w.queue[0].envelope->command->op_case == op_case;
}

static void until(int op_case)
{
    while (w.n_queue > 0 && !next_is(op_case))
        outside_step();
    assert(w.n_queue > 0);
}

static bool next_is_the_decision(void)
{
    return w.n_queue > 0 && w.queue[0].kind == P_COMMIT &&
           strcmp(w.queue[0].args.argv[0], "vgchange") == 0;
}

/* --- all goes well --- */

static void all_are_of_one_instant(void)
{
    begin();
    struct waiter from = client();
    ask_group(&from, volumes, N);
    settle();
    CHECK_EQ(w.code, 0);
    const Lunar__Response *r = w.answer->response;
    CHECK_EQ(r->op_case, LUNAR__RESPONSE__OP_SNAPSHOTS);
    CHECK_EQ(r->snapshots->n_snapshots, N);
    for (uint32_t i = 0; i < N; i++) {
        struct uuid group = uuid_from_pb(r->snapshots->snapshots[i]->group);
        CHECK(uuid_equal(&group, &from.request_id));
        CHECK_STR(r->snapshots->snapshots[i]->state, "ready");
    }
    CHECK_EQ(w.suspends, DRIVES);
    CHECK_EQ(w.overlays, DRIVES);
    CHECK_EQ(w.resumes, 0); /* each goes on when it has switched */
    ask_group(&from, volumes, N);
    CHECK_EQ(w.code, 0);
    CHECK_EQ(w.answer->response->snapshots->n_snapshots, N);
    CHECK_EQ(w.suspends, DRIVES);
    check_rest(N);
}

/* What a deleted one leaves behind holds nothing of the group. */
static void each_is_a_snapshot_like_any_other_afterwards(void)
{
    begin();
    struct waiter from = client(), other = client();
    ask_group(&from, volumes, N);
    settle();
    struct uuid s = uuid_from_pb(w.answer->response->snapshots->snapshots[0]->snapshot_id);
    ask_clone(&other, "clone", 0, &s, NULL);
    settle();
    CHECK_EQ(w.code, 0);
    other = client();
    ask_unsnap(&other, &s);
    settle();
    CHECK_EQ(w.code, 0);
    ask_group(&from, volumes, N); /* not the same any more: other volumes' snapshots have names */
    CHECK_EQ(w.code, LUNAR_E_EXISTS);
    check_rest(N - 1);
}

/* The answer was lost, and somebody asks for the same, by a request of his own. */
static void the_same_group_again_is_the_one_that_is_there(void)
{
    begin();
    struct waiter from = client(), other = client();
    ask_group(&from, volumes, N);
    settle();
    struct uuid first = uuid_from_pb(w.answer->response->snapshots->snapshots[0]->snapshot_id);
    uint64_t seqno = w.lvm.seqno;
    ask_group(&other, volumes, N);
    CHECK_EQ(w.code, 0);
    CHECK_EQ(w.answer->response->snapshots->n_snapshots, N);
    struct uuid again = uuid_from_pb(w.answer->response->snapshots->snapshots[0]->snapshot_id);
    CHECK(uuid_equal(&first, &again));
    CHECK_EQ(w.lvm.seqno, seqno);
    other = client();
    ask_group(&other, volumes, N - 1); /* a part of it is another one */
    CHECK_EQ(w.code, LUNAR_E_EXISTS);
    struct uuid mixed[N] = {volumes[1], volumes[0], volumes[2]};
    ask_group(&other, mixed, N);
    CHECK_EQ(w.code, LUNAR_E_EXISTS);
    CHECK_EQ(w.suspends, DRIVES);
    check_rest(N);
}

static void what_cannot_be_a_group_is_refused(void)
{
    begin();
    struct waiter from = client();
    struct uuid twice[2] = {volumes[0], volumes[0]}, none[2] = {volumes[0], uuid_random()};
    ask_group(&from, volumes, 0);
    CHECK_EQ(w.code, LUNAR_E_INVALID);
    ask_group(&from, twice, 2);
    CHECK_EQ(w.code, LUNAR_E_INVALID);
    ask_group(&from, none, 2);
    CHECK_EQ(w.code, LUNAR_E_NOT_FOUND);
    ask_snapshot(&from, &volumes[2], "s1");
    settle();
    from = client();
    ask_group(&from, volumes, 2);
    CHECK_EQ(w.code, LUNAR_E_EXISTS);
    CHECK_EQ(w.suspends, 0);
    CHECK_EQ(w.n_queue, 0);
    check_rest(1);
}

/* --- one of them fails --- */

static void a_format_that_fails_leaves_nothing(void)
{
    begin();
    struct waiter from = client();
    ask_group(&from, volumes, N);
    until(LUNAR__COMMAND__OP_FORMAT_JOB);
    w.node_error = LUNAR_E_EXEC;
    outside_step();
    w.node_error = 0;
    settle();
    CHECK_EQ(w.code, LUNAR_E_EXEC);
    CHECK_EQ(w.suspends, 0);
    CHECK_EQ(w.lvm.n_lvs, N);
    check_rest(0);
}

static void one_that_cannot_be_suspended_fails_all(void)
{
    begin();
    struct waiter from = client();
    w.suspend_error = LUNAR_E_TIMEOUT;
    ask_group(&from, volumes, N);
    settle();
    CHECK_EQ(w.code, LUNAR_E_TIMEOUT);
    CHECK_EQ(snapshots(), 0);
    CHECK_EQ(world_holds(), 0);
    w.suspend_error = 0;
    check_rest(0);
}

/* The other stands still: it is let go at once. */
static void the_last_one_fails_and_the_first_is_let_go(void)
{
    begin();
    struct waiter from = client();
    ask_group(&from, volumes, N);
    until(LUNAR__COMMAND__OP_SUSPEND);
    outside_step();
    CHECK_EQ(world_holds(), 1);
    w.suspend_error = LUNAR_E_TIMEOUT;
    outside_step();
    w.suspend_error = 0;
    settle();
    CHECK_EQ(w.code, LUNAR_E_TIMEOUT);
    CHECK(w.resumes >= 1);
    check_rest(0);
}

/* SAFETY 21: it went on before it was switched, and was even suspended anew. */
static void safety_21_a_deadline_that_passed_before_the_switch_fails_all(void)
{
    for (int anew = 0; anew < 2; anew++)
        for (uint32_t late = 1; late <= DRIVES; late++) {
            begin();
            struct waiter from = client();
            ask_group(&from, volumes, N);
            until(LUNAR__COMMAND__OP_OVERLAY);
            w.holds[late][0] = anew ? uuid_random() : (struct uuid){{0}};
            if (!anew)
                w.together--; /* as the world counts */
            if (late == 2 || anew) {
                settle();
            } else {
                outside_step(); /* refused */
                settle();
            }
            CHECK_EQ(w.code, LUNAR_E_STALE);
            CHECK_EQ(snapshots(), 0);
            holds_end();
            check_rest(0);
        }
}

static void a_silent_node_fails_all_within_the_deadline(void)
{
    begin();
    struct waiter from = client();
    ask_group(&from, volumes, N);
    until(LUNAR__COMMAND__OP_SUSPEND);
    w.silent_node = 2;
    settle();
    CHECK_EQ(world_holds(), 1);
    int answers = w.n_answers;
    time_passes(LEADER_HOLD_MS);
    CHECK_EQ(world_holds(), 1);
    time_passes(1000);
    CHECK_EQ(world_holds(), 0);
    CHECK_EQ(w.n_answers, answers); /* its layer is still in the middle */
    w.silent_node = 0;
    node_seen(2, 1, 2, 0); /* another agent */
    settle();
    CHECK_EQ(w.code, LUNAR_E_TIMEOUT);
    check_rest(0);
}

static void a_node_that_dies_fails_all(void)
{
    for (int switching = 0; switching < 2; switching++) {
        begin();
        struct waiter from = client();
        ask_group(&from, volumes, N);
        until(switching ? LUNAR__COMMAND__OP_OVERLAY : LUNAR__COMMAND__OP_SUSPEND);
        w.silent_node = 2;
        w.n_held[2] = 0;
        w.together -= switching;
        settle();
        host_is(2, HOST_STATE_DEAD);
        settle();
        CHECK_EQ(w.code, LUNAR_E_NOT_JOINED);
        CHECK_EQ(world_holds(), 0);
        CHECK_EQ(snapshots(), 0);
    }
}

/* Asked again, it suspends anew, under another id; of the command before it knows nothing. */
static void an_agent_that_is_another_one_fails_all_or_begins_anew(void)
{
    for (int switching = 0; switching < 2; switching++) {
        begin();
        struct waiter from = client();
        ask_group(&from, volumes, N);
        until(switching ? LUNAR__COMMAND__OP_OVERLAY : LUNAR__COMMAND__OP_SUSPEND);
        memset(w.holds[2], 0, sizeof w.holds[2]);
        w.together -= switching;
        w.silent_node = switching ? 0 : 2; /* what it was told is lost with it */
        while (w.silent_node && outside_step())
            ;
        w.silent_node = 0;
        node_seen(2, 1, 2, 0);
        settle();
        CHECK_EQ(w.code, switching ? LUNAR_E_STALE : 0);
        check_rest(switching ? 0 : N);
    }
}

static void a_decision_that_cannot_be_committed_is_none(void)
{
    begin();
    struct waiter from = client();
    ask_group(&from, volumes, N);
    while (w.n_queue > 0 && !next_is_the_decision())
        outside_step();
    CHECK(w.n_queue == 1);
    CHECK_EQ(world_holds(), 0); /* everybody goes on already */
    w.lvm.fail_with = LUNAR_E_EXEC;
    settle();
    CHECK_EQ(w.code, LUNAR_E_EXEC);
    check_rest(0);
}

static void members_are_busy_meanwhile_and_one_of_them_can_be_waited_for(void)
{
    begin();
    struct waiter from = client(), other = client(), third = client();
    ask_group(&from, volumes, N);
    ask_detach(&other, &volumes[0]);
    CHECK_EQ(w.code, LUNAR_E_BUSY);
    ask_snapshot(&other, &volumes[1], "t");
    CHECK_EQ(w.code, LUNAR_E_BUSY);
    ask_group(&other, volumes, 2);
    CHECK_EQ(w.code, LUNAR_E_BUSY);
    until(LUNAR__COMMAND__OP_SUSPEND);
    int answers = w.n_answers;
    ask_snapshot(&third, &volumes[0], "s0"); /* joins that one */
    settle();
    CHECK_EQ(w.code, 0);
    CHECK_EQ(w.n_answers, answers + 2);
    check_rest(N);
}

/* --- the leader is lost --- */

/* After its k-th step; true: there was one. The agents' deadlines pass. */
static bool lost_after(int k, bool asks_again)
{
    begin();
    struct waiter from = client();
    ask_group(&from, volumes, N);
    for (int i = 0; i < k; i++)
        if (!outside_step())
            return false;
    elect();
    holds_end();
    w.together = DRIVES;
    settle();
    if (!asks_again)
        return true;
    for (int i = 0; i < 10; i++) { /* as the client's agent does, and the client then */
        w.code = LUNAR_E_BUSY;
        ask_group(&from, volumes, N);
        settle();
        if (w.code != LUNAR_E_BUSY)
            break;
        time_passes(LEADER_RECONCILE_MS);
    }
    assert(w.code == 0);
    return true;
}

static void a_leader_lost_after_any_step_leaves_all_or_none(void)
{
    int outcomes[2] = {0, 0}, k;
    for (k = 0; lost_after(k, false); k++) {
        time_passes(LEADER_RECONCILE_MS);
        time_passes(LEADER_RECONCILE_MS);
        int n = snapshots();
        CHECK(n == 0 || n == (int)N);
        outcomes[n == (int)N]++;
        check_rest(n);
    }
    CHECK(k > 20 && outcomes[0] > 10 && outcomes[1] > 2);
}

/* The client is not told that it failed. */
static void a_group_that_is_whole_is_completed_by_the_next_leader(void)
{
    begin();
    struct waiter from = client();
    ask_group(&from, volumes, N);
    while (w.n_queue > 0 && !next_is_the_decision())
        outside_step();
    outside_step();
    elect();
    int answers = w.n_answers;
    ask_group(&from, volumes, N);
    CHECK_EQ(w.n_answers, answers);
    settle();
    time_passes(1000);
    CHECK_EQ(w.n_answers, answers + 1);
    CHECK_EQ(w.code, 0);
    CHECK_EQ(w.answer->response->snapshots->n_snapshots, N);
    CHECK_EQ(w.suspends, DRIVES);
    check_rest(N);
}

static void a_failure_whose_end_is_not_in_sight_is_told(void)
{
    begin();
    struct waiter from = client();
    ask_group(&from, volumes, N);
    until(LUNAR__COMMAND__OP_FORMAT_JOB);
    w.silent_node = 2;
    settle();
    time_passes(LEADER_OP_DEADLINE_MS + 1); /* fails */
    int answers = w.n_answers;
    time_passes(LEADER_OP_DEADLINE_MS + 1);
    CHECK_EQ(w.n_answers, answers + 1);
    CHECK_EQ(w.code, LUNAR_E_TIMEOUT);
    w.silent_node = 0;
    node_seen(2, 1, 2, 0);
    settle();
    CHECK_EQ(w.n_answers, answers + 1);
    check_rest(0);
}

static void the_same_request_again_goes_on_after_any_loss(void)
{
    int k;
    for (k = 0; lost_after(k, true); k++)
        check_rest(N);
    CHECK(k > 20);
}

TEST_MAIN(TEST(all_are_of_one_instant), TEST(each_is_a_snapshot_like_any_other_afterwards),
          TEST(the_same_group_again_is_the_one_that_is_there),
          TEST(what_cannot_be_a_group_is_refused), TEST(a_format_that_fails_leaves_nothing),
          TEST(one_that_cannot_be_suspended_fails_all),
          TEST(the_last_one_fails_and_the_first_is_let_go),
          TEST(safety_21_a_deadline_that_passed_before_the_switch_fails_all),
          TEST(a_silent_node_fails_all_within_the_deadline), TEST(a_node_that_dies_fails_all),
          TEST(an_agent_that_is_another_one_fails_all_or_begins_anew),
          TEST(a_decision_that_cannot_be_committed_is_none),
          TEST(members_are_busy_meanwhile_and_one_of_them_can_be_waited_for),
          TEST(a_leader_lost_after_any_step_leaves_all_or_none),
          TEST(a_group_that_is_whole_is_completed_by_the_next_leader),
          TEST(a_failure_whose_end_is_not_in_sight_is_told),
          TEST(the_same_request_again_goes_on_after_any_loss))
