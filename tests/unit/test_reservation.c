/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Persistent reservations (SAFETY 13): keys and answers, and the order of commands over all PVs and
 * paths against an array that keeps SPC's rules for keys (support/fake_array.h). The same calls on
 * a real kernel's target: tests/e2e/test_reservations.py.
 */
#include <errno.h>
#include <stdlib.h>

#include "support/fake_array.h"
#include "support/test.h"

static const struct uuid pool = {{1, 2, 3, 4, 5, 6, 7, 8}}, other_pool = {{9, 9, 9}};

static uint64_t key_of(uint32_t host_id, uint64_t generation)
{
    uint64_t key = 0;
    reservation_key_out(&pool, host_id, generation, &key, NULL);
    return key;
}

/* Node 'a', 'b', ... with the array's two LUNs as PVs. */
static struct reservation *node(char name)
{
    char first[] = {name, ':', '0', '\0'}, second[] = {name, ':', '1', '\0'};
    const char *const devices[] = {first, second};
    struct reservation *r = NULL;
    reservation_open_with(&fake_array_ops, devices, 2, &pool, &r, NULL);
    return r;
}

static struct reservation *member(char name, uint32_t host_id, uint64_t generation)
{
    struct reservation *r = node(name);
    if (r && reservation_register(r, host_id, generation, NULL) == 0)
        return r;
    abort();
}

static bool writes(char name)
{
    char path[] = {name, '0', '.', '0', '\0'}, second[] = {name, '1', '.', '0', '\0'};
    return fake_may_write(path) || fake_may_write(second);
}

/* --- keys and answers --- */

static void a_key_says_pool_host_and_generation(void)
{
    uint32_t host_id;
    uint64_t key, generation;

    CHECK_EQ(reservation_key_out(&pool, 2000, 123456, &key, NULL), 0);
    CHECK(key != 0 && reservation_key_is_lunar(key));
    CHECK(reservation_key_in(&pool, key, &host_id, &generation));
    CHECK_EQ(host_id, 2000);
    CHECK_EQ(generation, 123456);
    CHECK(!reservation_key_in(&other_pool, key, &host_id, &generation));
    CHECK(!reservation_key_in(&pool, 0x4142434445464748, &host_id, &generation));
}

static void numbers_that_do_not_fit_a_key_are_refused(void)
{
    uint64_t key;

    CHECK_EQ(
        reservation_key_out(&pool, RESERVATION_HOST_ID_MAX, RESERVATION_GENERATION_MAX, &key, NULL),
        0);
    CHECK_EQ(reservation_key_out(&pool, 0, 1, &key, NULL), LUNAR_E_TOO_BIG);
    CHECK_EQ(reservation_key_out(&pool, RESERVATION_HOST_ID_MAX + 1, 1, &key, NULL),
             LUNAR_E_TOO_BIG);
    CHECK_EQ(reservation_key_out(&pool, 1, (uint64_t)RESERVATION_GENERATION_MAX + 1, &key, NULL),
             LUNAR_E_TOO_BIG);
}

static struct reservation_keys keys;

static void an_answer_of_keys_is_read(void)
{
    const uint8_t answer[32] = {0, 0, 0, 9, 0, 0, 0, 16, 1, 2, 3, 4, 5, 6, 7, 8, [23] = 5};

    CHECK_EQ(reservation_keys_in(answer, sizeof answer, &keys, NULL), 0);
    CHECK_EQ(keys.n, 2);
    CHECK_EQ(keys.keys[0], 0x0102030405060708);
    CHECK_EQ(keys.keys[1], 5);
    CHECK(reservation_keys_have(&keys, 5) && !reservation_keys_have(&keys, 6));
}

static void safety_13_an_answer_that_was_cut_is_never_few_keys(void)
{
    uint8_t answer[24] = {0, 0, 0, 9, 0, 0, 0, 24};

    CHECK_EQ(reservation_keys_in(answer, sizeof answer, &keys, NULL), LUNAR_E_CORRUPT);
    CHECK_EQ(reservation_keys_in(answer, 7, &keys, NULL), LUNAR_E_CORRUPT);
    answer[7] = 12;
    CHECK_EQ(reservation_keys_in(answer, sizeof answer, &keys, NULL), LUNAR_E_CORRUPT);
    answer[5] = 1;
    answer[7] = 8; /* 65544 bytes: more than one command can give */
    CHECK_EQ(reservation_keys_in(answer, sizeof answer, &keys, NULL), LUNAR_E_TOO_BIG);
}

static void a_reservation_is_read(void)
{
    uint8_t answer[24] = {0, 0, 0, 9, 0, 0, 0, 16, [15] = 3, [21] = 7};
    struct reservation_holder holder;

    CHECK_EQ(reservation_holder_in(answer, sizeof answer, &holder, NULL), 0);
    CHECK(holder.held && holder.type == 7 && holder.key == 3);
    CHECK_EQ(reservation_holder_in(answer, 20, &holder, NULL), LUNAR_E_CORRUPT);
    answer[7] = 0;
    CHECK_EQ(reservation_holder_in(answer, 8, &holder, NULL), 0);
    CHECK(!holder.held);
    CHECK_EQ(reservation_holder_in(answer, 4, &holder, NULL), LUNAR_E_CORRUPT);
}

static void only_a_device_with_type_7_will_do(void)
{
    uint8_t answer[8] = {0, 8, 1, 0x80, 0x80, 0};
    struct reservation_capabilities can;

    CHECK_EQ(reservation_capabilities_in(answer, 8, &can, NULL), 0);
    CHECK(can.persists);
    answer[4] = 0x6a;
    CHECK_EQ(reservation_capabilities_in(answer, 8, &can, NULL), LUNAR_E_UNSUPPORTED);
    answer[4] = 0x80;
    answer[3] = 0; /* the mask of types does not count */
    CHECK_EQ(reservation_capabilities_in(answer, 8, &can, NULL), LUNAR_E_UNSUPPORTED);
    CHECK_EQ(reservation_capabilities_in(answer, 3, &can, NULL), LUNAR_E_UNSUPPORTED);
}

static void safety_13_victims_are_the_generations_up_to_the_dead_one(void)
{
    static uint64_t victims[RESERVATION_KEYS_MAX];
    uint64_t foreign;

    reservation_key_out(&other_pool, 3, 1, &foreign, NULL);
    keys.n = 6;
    keys.keys[0] = key_of(3, 5);
    keys.keys[1] = key_of(3, 4);
    keys.keys[2] = key_of(3, 5); /* its second path */
    keys.keys[3] = key_of(3, 6); /* it is back as this */
    keys.keys[4] = key_of(4, 1);
    keys.keys[5] = foreign;
    CHECK_EQ(reservation_victims(&keys, &pool, 3, 5, victims), 2);
    CHECK_EQ(victims[0], key_of(3, 5));
    CHECK_EQ(victims[1], key_of(3, 4));
    CHECK_EQ(reservation_victims(&keys, &pool, 5, 99, victims), 0);
}

/* --- joining --- */

static void safety_13_a_join_registers_every_path_and_reserves_every_pv(void)
{
    fake_array_reset(2);
    struct reservation *a = member('a', 1, 1), *b = member('b', 2, 1);

    for (int lun = 0; lun < 2; lun++) {
        CHECK_EQ(fake_registered(lun, key_of(1, 1)), 2);
        CHECK_EQ(fake_registered(lun, key_of(2, 1)), 2);
        CHECK(fake_array.luns[lun].held && fake_array.luns[lun].type == 7);
    }
    CHECK(writes('a') && writes('b') && !writes('c'));
    CHECK_EQ(reservation_check(a, NULL), 0);
    reservation_close(a);
    reservation_close(b);
}

static void a_device_without_type_7_is_told_at_open(void)
{
    const char *const devices[] = {"a:0", "a:1"};
    struct reservation *r = NULL;
    struct error err = ERROR_INIT;

    fake_array_reset(1);
    fake_array.luns[1].no_type_7 = true;
    CHECK_EQ(reservation_open_with(&fake_array_ops, devices, 2, &pool, &r, &err),
             LUNAR_E_UNSUPPORTED);
    CHECK(strstr(err.text, "a:1") && strstr(err.text, "type 7"));
}

static void what_somebody_else_reserved_is_left_alone(void)
{
    fake_array_reset(1);
    struct reservation *a = node('a');

    fake_array.luns[1].held = true;
    fake_array.luns[1].type = 5;
    CHECK_EQ(reservation_register(a, 1, 1, NULL), LUNAR_E_FOREIGN);
    fake_array.luns[1].held = false;
    fake_nexus("x1.0")->key = 0x1234;
    CHECK_EQ(reservation_register(a, 1, 1, NULL), LUNAR_E_FOREIGN);
    CHECK_EQ(fake_array.outs, 0);
    reservation_close(a);
}

static void a_join_that_fails_takes_its_keys_back(void)
{
    fake_array_reset(1);
    struct reservation *a = node('a');

    fake_nexus("a1.0")->broken = true;
    CHECK(reservation_register(a, 1, 1, NULL) < 0);
    CHECK_EQ(fake_registered(0, key_of(1, 1)), 0);
    reservation_close(a);
}

static void a_path_that_does_not_work_is_passed_over(void)
{
    fake_array_reset(2);
    struct reservation *a = node('a');

    fake_nexus("a0.0")->broken = true;
    CHECK_EQ(reservation_register(a, 1, 1, NULL), 0);
    CHECK_EQ(fake_registered(0, key_of(1, 1)), 1);
    CHECK_EQ(fake_registered(1, key_of(1, 1)), 2);
    CHECK_EQ(reservation_check(a, NULL), 0);
    reservation_close(a);
}

static void a_registration_that_nobody_heard_of_is_repeated(void)
{
    for (int next = FAKE_DONE_UNHEARD; next <= FAKE_LOST; next++) {
        fake_array_reset(1);
        struct reservation *a = node('a');
        fake_array.next = next;
        CHECK_EQ(reservation_register(a, 1, 1, NULL), 0);
        CHECK_EQ(fake_registered(0, key_of(1, 1)), 1);
        CHECK(fake_array.paused_ms > 0);
        CHECK(writes('a'));
        reservation_close(a);
    }
}

static void a_new_life_replaces_the_key_of_the_last(void)
{
    fake_array_reset(2);
    struct reservation *a = member('a', 1, 1);
    reservation_close(a); /* the machine lost power */

    a = member('a', 1, 2);
    CHECK_EQ(fake_registered(0, key_of(1, 1)), 0);
    CHECK_EQ(fake_registered(0, key_of(1, 2)), 2);
    reservation_close(a);
}

static void a_join_that_got_another_id_changes_its_key(void)
{
    fake_array_reset(2);
    struct reservation *a = member('a', 1, 1);

    CHECK_EQ(reservation_change(a, 7, 3, NULL), 0);
    CHECK_EQ(fake_registered(0, key_of(7, 3)), 2);
    CHECK_EQ(fake_registered(1, key_of(7, 3)), 2);
    CHECK_EQ(fake_registered(1, key_of(1, 1)), 0);
    int outs = fake_array.outs;
    CHECK_EQ(reservation_change(a, 7, 3, NULL), 0);
    CHECK_EQ(fake_array.outs, outs);
    reservation_close(a);
}

static void safety_13_a_key_that_was_preempted_cannot_be_changed(void)
{
    fake_array_reset(1);
    struct reservation *a = member('a', 1, 1), *b = member('b', 2, 1);

    CHECK_EQ(reservation_preempt(b, 1, 1, NULL), 0);
    CHECK_EQ(reservation_change(a, 1, 2, NULL), LUNAR_E_FENCED);
    CHECK(!writes('a'));
    reservation_close(a);
    reservation_close(b);
}

/* --- preempting --- */

static void safety_13_a_preempt_takes_every_key_of_the_dead_on_every_pv(void)
{
    fake_array_reset(2);
    struct reservation *a = member('a', 1, 4), *b = member('b', 2, 1), *c = member('c', 3, 1);

    fake_nexus("z1.0")->key = key_of(1, 2); /* left of an earlier life, on one PV */
    CHECK_EQ(reservation_preempt(b, 1, 4, NULL), 0);
    CHECK_EQ(fake_array.paused_ms, 0);
    CHECK(!writes('a') && writes('b') && writes('c'));
    CHECK_EQ(fake_registered(1, key_of(1, 2)), 0);
    for (int lun = 0; lun < 2; lun++)
        CHECK(fake_array.luns[lun].held);
    CHECK_EQ(fake_nexus("a0.0")->aborted + fake_nexus("a0.1")->aborted, 2);
    CHECK_EQ(fake_nexus("a1.0")->aborted + fake_nexus("a1.1")->aborted, 2);
    CHECK_EQ(fake_nexus("c0.0")->aborted + fake_nexus("b0.0")->aborted, 0);
    CHECK_EQ(reservation_check(a, NULL), LUNAR_E_FENCED);
    reservation_close(a);
    reservation_close(b);
    reservation_close(c);
}

static void safety_13_a_newer_life_is_not_preempted(void)
{
    fake_array_reset(1);
    struct reservation *a = member('a', 1, 5), *b = member('b', 2, 1);

    bool found = true;
    CHECK_EQ(reservation_find(b, 1, 4, &found, NULL), 0);
    CHECK(!found);
    CHECK_EQ(reservation_find(b, 1, 5, &found, NULL), 0);
    CHECK(found);
    CHECK_EQ(reservation_preempt(b, 1, 4, NULL), 0);
    CHECK(writes('a'));
    CHECK_EQ(reservation_check(a, NULL), 0);
    reservation_close(a);
    reservation_close(b);
}

static void safety_13_who_was_preempted_preempts_nobody(void)
{
    fake_array_reset(1);
    struct reservation *a = member('a', 1, 1), *b = member('b', 2, 1), *c = member('c', 3, 1);

    CHECK_EQ(reservation_preempt(b, 1, 1, NULL), 0);
    CHECK_EQ(reservation_preempt(a, 3, 1, NULL), LUNAR_E_FENCED);
    CHECK(writes('c'));
    CHECK_EQ(reservation_preempt(b, 2, 1, NULL), LUNAR_E_INVALID);
    CHECK(writes('b'));
    reservation_close(a);
    reservation_close(b);
    reservation_close(c);
}

static void safety_13_an_unheard_preempt_proves_nothing_until_it_was_repeated(void)
{
    fake_array_reset(1);
    struct reservation *a = member('a', 1, 1), *b = member('b', 2, 1);

    fake_array.next = FAKE_LOST;
    CHECK_EQ(reservation_preempt(b, 1, 1, NULL), LUNAR_E_INDETERMINATE);
    CHECK(writes('a'));
    CHECK_EQ(reservation_preempt(b, 1, 1, NULL), 0);
    CHECK(!writes('a'));
    CHECK_EQ(fake_array.paused_ms, 0);
    reservation_close(a);
    reservation_close(b);
}

static void safety_13_keys_that_were_gone_before_we_came_get_time_for_the_abort(void)
{
    fake_array_reset(1);
    struct reservation *a = member('a', 1, 1), *b = member('b', 2, 1);

    fake_array.next = FAKE_DONE_UNHEARD;
    CHECK_EQ(reservation_preempt(b, 1, 1, NULL), LUNAR_E_INDETERMINATE);
    CHECK_EQ(reservation_preempt(b, 1, 1, NULL), 0);
    CHECK_EQ(fake_array.paused_ms, RESERVATION_SETTLE_MS);
    CHECK(!writes('a'));
    reservation_close(a);
    reservation_close(b);
}

static void take_keys_of_node_a(const struct pr_out *command)
{
    if (command->action == PR_OUT_PREEMPT_AND_ABORT)
        fake_nexus("a0.0")->key = fake_nexus("a1.0")->key = 0;
}

static unsigned preempts_seen;

/* Another takes the first key, whose abort is then in doubt, and a second one is left to us. */
static void take_first_key(const struct pr_out *command)
{
    if (command->action != PR_OUT_PREEMPT_AND_ABORT || preempts_seen++ > 0)
        return;
    for (int i = 0; i < 2; i++) {
        struct fake_nexus *nexus = fake_nexus(i ? "a0.1" : "a0.0");
        if (nexus->key == command->action_key)
            nexus->key = 0;
    }
}

static void safety_13_an_abort_in_doubt_is_not_made_good_by_the_next_one(void)
{
    fake_array_reset(2);
    struct reservation *a = member('a', 1, 1), *b = member('b', 2, 1);

    /* Keys of two lives on one PV. */
    CHECK(reservation_key_out(&pool, 1, 2, &fake_nexus("a0.1")->key, NULL) == 0);
    preempts_seen = 0;
    fake_array.before_out = take_first_key;
    CHECK_EQ(reservation_preempt(b, 1, 2, NULL), 0);
    CHECK(preempts_seen >= 2);
    CHECK_EQ(fake_array.paused_ms, RESERVATION_SETTLE_MS);
    reservation_close(a);
    reservation_close(b);
}

static void two_that_preempt_the_same_node_both_succeed(void)
{
    fake_array_reset(1);
    struct reservation *a = member('a', 1, 1), *b = member('b', 2, 1);

    fake_array.before_out = take_keys_of_node_a;
    CHECK_EQ(reservation_preempt(b, 1, 1, NULL), 0);
    CHECK_EQ(fake_array.paused_ms, RESERVATION_SETTLE_MS);
    reservation_close(a);
    reservation_close(b);
}

static int returns; /* how often node a's key comes back */

static void register_node_a_again(const struct pr_out *command)
{
    if (command->action == PR_OUT_PREEMPT_AND_ABORT && returns-- > 0)
        fake_nexus("a0.0")->key = key_of(1, 1);
}

static void safety_13_a_key_that_comes_back_is_preempted_again(void)
{
    fake_array_reset(1);
    struct reservation *a = member('a', 1, 1), *b = member('b', 2, 1);

    fake_array.after_out = register_node_a_again;
    returns = 1;
    CHECK_EQ(reservation_preempt(b, 1, 1, NULL), 0);
    CHECK(!writes('a'));
    returns = 1000;
    fake_nexus("a0.0")->key = key_of(1, 1);
    CHECK_EQ(reservation_preempt(b, 1, 1, NULL), LUNAR_E_ALIVE);
    reservation_close(a);
    reservation_close(b);
}

static void a_reservation_that_was_lost_is_made_again(void)
{
    fake_array_reset(1);
    struct reservation *a = member('a', 1, 1), *b = member('b', 2, 1);

    fake_array.luns[0].held = fake_array.luns[1].held = false;
    CHECK_EQ(reservation_check(b, NULL), 0);
    CHECK(fake_array.luns[0].held && fake_array.luns[1].held);
    fake_array.luns[0].held = false;
    CHECK_EQ(reservation_preempt(b, 1, 1, NULL), 0);
    CHECK(!writes('a'));
    reservation_close(a);
    reservation_close(b);
}

static void another_process_of_the_node_preempts_with_its_key(void)
{
    fake_array_reset(2);
    struct reservation *a = member('a', 1, 1), *b = member('b', 2, 1), *leader = node('b');

    CHECK_EQ(reservation_adopt(leader, 2, 1, NULL), 0);
    CHECK_EQ(reservation_preempt(leader, 1, 1, NULL), 0);
    CHECK(!writes('a') && writes('b'));
    reservation_close(a);
    reservation_close(b);
    reservation_close(leader);
}

static void a_preempt_takes_another_path_if_one_is_broken(void)
{
    fake_array_reset(2);
    struct reservation *a = member('a', 1, 1), *b = member('b', 2, 1);

    fake_nexus("b0.0")->broken = true;
    CHECK_EQ(reservation_preempt(b, 1, 1, NULL), 0);
    CHECK(!writes('a'));
    fake_nexus("b0.1")->broken = true;
    CHECK(reservation_preempt(b, 1, 1, NULL) < 0);
    reservation_close(a);
    reservation_close(b);
}

/* --- paths that come and go --- */

static void a_path_that_comes_is_registered_while_the_key_stands(void)
{
    fake_array_reset(1);
    struct reservation *a = member('a', 1, 1);

    fake_array.paths_per_node = 2;
    CHECK_EQ(reservation_tend_paths(a, NULL), 0);
    CHECK_EQ(fake_registered(0, key_of(1, 1)), 2);
    CHECK_EQ(fake_registered(1, key_of(1, 1)), 2);
    CHECK_EQ(reservation_tend_paths(a, NULL), 0);
    reservation_close(a);
}

static void a_path_that_went_is_let_go_and_registered_again_when_its_name_is_back(void)
{
    fake_array_reset(2);
    struct reservation *a = member('a', 1, 1);

    fake_array.paths_per_node = 1;
    CHECK_EQ(reservation_tend_paths(a, NULL), 0);
    CHECK_EQ(fake_nexus("a0.0")->opened, 1);
    CHECK_EQ(fake_nexus("a0.1")->opened, 0); /* else its name could not come back */
    fake_nexus("a0.1")->key = 0;             /* another device, under the same name */
    fake_array.paths_per_node = 2;
    CHECK_EQ(reservation_tend_paths(a, NULL), 0);
    CHECK_EQ(fake_nexus("a0.1")->opened, 1);
    CHECK(fake_may_write("a0.1"));
    reservation_close(a);
    CHECK_EQ(fake_nexus("a0.1")->opened, 0);
}

static void a_pv_whose_paths_all_went_is_in_doubt_until_one_is_back(void)
{
    struct error err = ERROR_INIT;
    fake_array_reset(1);
    struct reservation *a = member('a', 1, 1);

    fake_array.paths_per_node = 0;
    CHECK_EQ(reservation_tend_paths(a, &err), -ENODEV);
    CHECK(strstr(err.text, "has no paths") != NULL);
    CHECK_EQ(reservation_check(a, NULL), -ENODEV);
    CHECK_EQ(fake_nexus("a0.0")->opened, 0);
    fake_array.paths_per_node = 1;
    CHECK_EQ(reservation_tend_paths(a, NULL), 0);
    CHECK_EQ(reservation_check(a, NULL), 0);
    CHECK_EQ(fake_registered(0, key_of(1, 1)), 1);
    reservation_close(a);
}

static void safety_13_a_path_that_comes_to_a_preempted_node_is_not_registered(void)
{
    fake_array_reset(1);
    struct reservation *a = member('a', 1, 1), *b = member('b', 2, 1);

    CHECK_EQ(reservation_preempt(b, 1, 1, NULL), 0);
    fake_array.paths_per_node = 2;
    CHECK_EQ(reservation_tend_paths(a, NULL), LUNAR_E_FENCED);
    CHECK_EQ(fake_registered(0, key_of(1, 1)), 0);
    reservation_close(a);
    reservation_close(b);
}

/* Between the look at the keys and the registration. */
static void preempt_before_the_registration(const struct pr_out *command)
{
    if (command->action == PR_OUT_REGISTER && command->key == 0)
        fake_nexus("a0.0")->key = 0;
}

static void safety_13_a_path_that_comes_during_a_preempt_gives_its_key_back(void)
{
    fake_array_reset(1);
    struct reservation *a = member('a', 1, 1), *b = member('b', 2, 1);

    fake_array.paths_per_node = 2;
    fake_array.before_out = preempt_before_the_registration;
    CHECK_EQ(reservation_tend_paths(a, NULL), LUNAR_E_FENCED);
    CHECK_EQ(fake_registered(0, key_of(1, 1)), 0);
    CHECK(!fake_may_write("a0.1"));
    reservation_close(a);
    reservation_close(b);
}

/* The registration of a path that is new: the second try, from no key. */
static int new_path_fate;

static void decide_new_path(const struct pr_out *command)
{
    if (command->action == PR_OUT_REGISTER && command->key == command->action_key)
        fake_array.next = new_path_fate;
}

static void safety_13_a_registration_during_a_preempt_is_given_back_unheard_too(void)
{
    fake_array_reset(1);
    struct reservation *a = member('a', 1, 1), *b = member('b', 2, 1);

    fake_array.paths_per_node = 2;
    fake_array.before_out = preempt_before_the_registration;
    new_path_fate = FAKE_DONE_UNHEARD;
    fake_array.after_out = decide_new_path;
    CHECK_EQ(reservation_tend_paths(a, NULL), LUNAR_E_FENCED);
    CHECK_EQ(fake_registered(0, key_of(1, 1)), 0);
    reservation_close(a);
    reservation_close(b);
}

static void a_path_whose_registration_is_lost_fences_nobody_and_is_tried_again(void)
{
    fake_array_reset(1);
    struct reservation *a = member('a', 1, 1);

    fake_array.paths_per_node = 2;
    new_path_fate = FAKE_LOST;
    fake_array.after_out = decide_new_path;
    CHECK_EQ(reservation_tend_paths(a, NULL), 0);
    CHECK_EQ(fake_registered(0, key_of(1, 1)), 1);
    fake_array.after_out = NULL;
    CHECK_EQ(reservation_tend_paths(a, NULL), 0);
    CHECK_EQ(fake_registered(0, key_of(1, 1)), 2);
    reservation_close(a);
}

/* --- leaving, formatting --- */

static void the_reservation_ends_with_the_last_who_leaves(void)
{
    fake_array_reset(2);
    struct reservation *a = member('a', 1, 1), *b = member('b', 2, 1);

    CHECK_EQ(reservation_unregister(a, NULL), 0);
    CHECK(fake_array.luns[0].held && !writes('a') && writes('b'));
    CHECK_EQ(reservation_unregister(a, NULL), 0);
    CHECK_EQ(reservation_unregister(b, NULL), 0);
    CHECK(!fake_array.luns[0].held && !fake_array.luns[1].held);
    reservation_close(a);
    reservation_close(b);
}

static void who_was_preempted_leaves_without_an_error(void)
{
    fake_array_reset(1);
    struct reservation *a = member('a', 1, 1), *b = member('b', 2, 1);

    CHECK_EQ(reservation_preempt(b, 1, 1, NULL), 0);
    CHECK_EQ(reservation_unregister(a, NULL), 0);
    reservation_close(a);
    reservation_close(b);
}

static void a_format_clears_what_pools_left_and_nothing_else(void)
{
    uint64_t old;

    fake_array_reset(2);
    struct reservation *a = node('a');
    CHECK_EQ(reservation_clear(a, false, NULL), 0);
    CHECK_EQ(fake_array.outs, 0);
    reservation_key_out(&other_pool, 9, 9, &old, NULL);
    fake_nexus("q1.0")->key = old;
    fake_array.luns[1].held = true;
    fake_array.luns[1].type = 7;
    CHECK_EQ(reservation_clear(a, false, NULL), 0);
    CHECK(!fake_array.luns[1].held && fake_registered(1, old) == 0);

    fake_nexus("q0.0")->key = 0xabcd;
    CHECK_EQ(reservation_clear(a, false, NULL), LUNAR_E_FOREIGN);
    CHECK_EQ(fake_registered(0, 0xabcd), 1);
    CHECK_EQ(reservation_clear(a, true, NULL), 0);
    CHECK_EQ(fake_registered(0, 0xabcd), 0);
    CHECK_EQ(fake_registered(0, 0), fake_array.n_nexuses / 2);
    reservation_close(a);
}

static void unhear_the_clear(const struct pr_out *command)
{
    if (command->action == PR_OUT_REGISTER_AND_IGNORE && returns-- > 0)
        fake_array.next = FAKE_DONE_UNHEARD; /* the next one: the CLEAR */
}

static void a_clear_that_nobody_heard_of_is_repeated(void)
{
    fake_array_reset(1);
    struct reservation *a = member('a', 1, 1);
    reservation_close(a);
    a = node('a');
    returns = 1;
    fake_array.after_out = unhear_the_clear;
    int outs = fake_array.outs;
    CHECK_EQ(reservation_clear(a, false, NULL), 0);
    CHECK(fake_array.outs >= outs + 4); /* twice on one LUN */
    CHECK_EQ(fake_registered(0, key_of(1, 1)), 0);
    CHECK(!fake_array.luns[0].held && !fake_array.luns[1].held);
    reservation_close(a);
}

static void a_conflict_is_told_from_other_errors(void)
{
    CHECK(reservation_is_conflict(-EBADE));
    CHECK(!reservation_is_conflict(-EIO) && !reservation_is_conflict(0));
}

static void a_file_has_no_reservations(void)
{
    const char *const devices[] = {"/dev/null"};
    struct reservation *r = NULL;

    CHECK_EQ(reservation_open(devices, 1, &pool, &r, NULL), LUNAR_E_UNSUPPORTED);
}

TEST_MAIN(
    TEST(a_key_says_pool_host_and_generation), TEST(numbers_that_do_not_fit_a_key_are_refused),
    TEST(an_answer_of_keys_is_read), TEST(safety_13_an_answer_that_was_cut_is_never_few_keys),
    TEST(a_reservation_is_read), TEST(only_a_device_with_type_7_will_do),
    TEST(safety_13_victims_are_the_generations_up_to_the_dead_one),
    TEST(safety_13_a_join_registers_every_path_and_reserves_every_pv),
    TEST(a_device_without_type_7_is_told_at_open), TEST(what_somebody_else_reserved_is_left_alone),
    TEST(a_join_that_fails_takes_its_keys_back), TEST(a_path_that_does_not_work_is_passed_over),
    TEST(a_registration_that_nobody_heard_of_is_repeated),
    TEST(a_new_life_replaces_the_key_of_the_last), TEST(a_join_that_got_another_id_changes_its_key),
    TEST(safety_13_a_key_that_was_preempted_cannot_be_changed),
    TEST(safety_13_a_preempt_takes_every_key_of_the_dead_on_every_pv),
    TEST(safety_13_a_newer_life_is_not_preempted),
    TEST(safety_13_who_was_preempted_preempts_nobody),
    TEST(safety_13_an_unheard_preempt_proves_nothing_until_it_was_repeated),
    TEST(safety_13_keys_that_were_gone_before_we_came_get_time_for_the_abort),
    TEST(safety_13_an_abort_in_doubt_is_not_made_good_by_the_next_one),
    TEST(two_that_preempt_the_same_node_both_succeed),
    TEST(safety_13_a_key_that_comes_back_is_preempted_again),
    TEST(a_reservation_that_was_lost_is_made_again),
    TEST(another_process_of_the_node_preempts_with_its_key),
    TEST(a_preempt_takes_another_path_if_one_is_broken),
    TEST(a_path_that_comes_is_registered_while_the_key_stands),
    TEST(a_path_that_went_is_let_go_and_registered_again_when_its_name_is_back),
    TEST(a_pv_whose_paths_all_went_is_in_doubt_until_one_is_back),
    TEST(safety_13_a_path_that_comes_to_a_preempted_node_is_not_registered),
    TEST(safety_13_a_registration_during_a_preempt_is_given_back_unheard_too),
    TEST(a_path_whose_registration_is_lost_fences_nobody_and_is_tried_again),
    TEST(safety_13_a_path_that_comes_during_a_preempt_gives_its_key_back),
    TEST(the_reservation_ends_with_the_last_who_leaves),
    TEST(who_was_preempted_leaves_without_an_error),
    TEST(a_format_clears_what_pools_left_and_nothing_else),
    TEST(a_clear_that_nobody_heard_of_is_repeated), TEST(a_conflict_is_told_from_other_errors),
    TEST(a_file_has_no_reservations))
