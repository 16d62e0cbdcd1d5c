/* SPDX-License-Identifier: Apache-2.0 */
/* The pool's space: settings, the limit of overcommit, and what is said when space gets less. */
#include "support/leader_world.h"

#define GIB (1024 * MIB)

static void ask_set(const struct waiter *from, int overcommit, int warn)
{
    Lunar__Request r = LUNAR__REQUEST__INIT;
    Lunar__PoolSet m = LUNAR__POOL_SET__INIT;
    m.change_overcommit = overcommit >= 0;
    m.overcommit_limit = overcommit >= 0 ? (uint64_t)overcommit : 0;
    m.change_warn = warn >= 0;
    m.warn_percent = warn >= 0 ? (uint32_t)warn : 0;
    r.op_case = LUNAR__REQUEST__OP_POOL_SET;
    r.pool_set = &m;
    w.n_answers = 0;
    ask(from, &r);
}

static const Lunar__Status *status(void)
{
    struct waiter from = client();
    Lunar__Request r = LUNAR__REQUEST__INIT;
    Lunar__StatusGet m = LUNAR__STATUS_GET__INIT;
    r.op_case = LUNAR__REQUEST__OP_STATUS_GET;
    r.status_get = &m;
    ask(&from, &r);
    return w.answer->response->status;
}

static int create(const char *name, uint64_t size, bool thick)
{
    struct waiter from = client();
    ask_create(&from, name, size, thick);
    settle();
    return w.code;
}

/* A thin volume on node 1 that asks for more; returns who asked. */
static struct uuid new_attached(const char *name)
{
    struct waiter from = client();
    struct uuid volume = made(name);
    ask_attach(&from, &volume, "node1");
    settle();
    return volume;
}

static void grow(const struct uuid *volume)
{
    struct waiter agent = {.host_id = 1, .request_id = uuid_random()};
    Lunar__Request r = LUNAR__REQUEST__INIT;
    Lunar__LayerGrow m = LUNAR__LAYER_GROW__INIT;
    m.volume_id = uuid_to_pb(volume);
    m.attachment_id = uuid_to_pb(&table_find_volume(&w.grants[1], volume)->attachment_id);
    m.volume_short = uuid_short(volume);
    m.size = GIB;
    r.op_case = LUNAR__REQUEST__OP_LAYER_GROW;
    r.layer_grow = &m;
    ask(&agent, &r);
}

/* --- settings --- */

static void settings_are_one_commit_and_outlive_the_leader(void)
{
    world_reset();
    struct waiter from = client();
    uint64_t seqno = w.lvm.seqno;
    ask_set(&from, 400, 85);
    CHECK_EQ(w.n_answers, 0);
    settle();
    CHECK_EQ(w.lvm.seqno, seqno + 1);
    CHECK_EQ(w.answer->response->status->overcommit_limit, 400);
    elect();
    CHECK_EQ(status()->overcommit_limit, 400);
    CHECK_EQ(status()->warn_percent, 85);
    ask_set(&from, -1, 90); /* the other one stays */
    settle();
    CHECK_EQ(status()->overcommit_limit, 400);
    CHECK_EQ(status()->warn_percent, 90);
    ask_set(&from, 0, -1);
    settle();
    CHECK_EQ(status()->overcommit_limit, 0);
}

static void what_stands_already_is_no_commit(void)
{
    world_reset();
    struct waiter from = client();
    ask_set(&from, 0, 80); /* the defaults */
    CHECK_EQ(w.n_answers, 1);
    CHECK_EQ(w.code, 0);
    CHECK_EQ(w.n_queue, 0);
}

static void senseless_settings_are_refused(void)
{
    world_reset();
    struct waiter from = client();
    ask_set(&from, 1000001, -1);
    CHECK_EQ(w.code, LUNAR_E_INVALID);
    ask_set(&from, -1, 101);
    CHECK_EQ(w.code, LUNAR_E_INVALID);
    ask_set(&from, -1, 0);
    CHECK_EQ(w.code, LUNAR_E_INVALID);
    CHECK_EQ(w.n_queue, 0);
}

static void one_change_at_a_time(void)
{
    world_reset();
    struct waiter from = client(), other = client();
    ask_set(&from, 400, -1);
    ask_set(&from, 400, -1); /* again: joins */
    CHECK_EQ(w.n_answers, 0);
    ask_set(&other, 500, -1);
    CHECK_EQ(w.code, LUNAR_E_BUSY);
    CHECK_EQ(w.n_queue, 1);
    settle();
    CHECK_EQ(status()->overcommit_limit, 400);
}

static void a_failed_change_is_told_and_one_that_landed_is_success(void)
{
    world_reset();
    struct waiter from = client();
    w.lvm.fail_with = LUNAR_E_EXEC;
    ask_set(&from, 400, -1);
    settle();
    CHECK_EQ(w.code, LUNAR_E_EXEC);
    w.lvm.fail_with = LUNAR_E_INDETERMINATE;
    w.lvm.fail_after = true;
    ask_set(&from, 400, -1);
    settle();
    CHECK_EQ(w.code, 0);
    CHECK_EQ(status()->overcommit_limit, 400);
}

/* --- overcommit --- */

static void beyond_the_limit_nothing_is_created_and_the_numbers_are_told(void)
{
    world_reset(); /* 4 GiB */
    struct waiter from = client();
    CHECK_EQ(create("a", 7 * GIB, false), 0);
    ask_set(&from, 200, -1);
    settle();
    CHECK_EQ(create("b", 2 * GIB, false), LUNAR_E_NO_SPACE);
    CHECK(strstr(w.text, "200%") && strstr(w.text, "8 GiB of volumes") &&
          strstr(w.text, "4 GiB of") && strstr(w.text, "7 GiB are there") &&
          strstr(w.text, "2 GiB asked for") && strstr(w.text, "pool set"));
    CHECK_EQ(w.lvm.n_lvs, 1);
    CHECK_EQ(create("a", 7 * GIB, false), 0); /* what exists is found again */
    CHECK_EQ(create("b", GIB, false), 0);     /* up to the limit */
    CHECK_EQ(create("c", MIB, false), LUNAR_E_NO_SPACE);
    ask_set(&from, 0, -1);
    settle();
    CHECK_EQ(create("c", 100 * GIB, false), 0);
}

static void volumes_that_are_being_made_count(void)
{
    world_reset();
    struct waiter from = client(), other = client();
    ask_set(&from, 100, -1);
    settle();
    ask_create(&from, "a", 3 * GIB, false); /* its commit is out */
    ask_create(&other, "b", 2 * GIB, false);
    CHECK_EQ(w.code, LUNAR_E_NO_SPACE);
    settle();
    CHECK_EQ(w.lvm.n_lvs, 1);
}

/* --- what is said --- */

static void the_warning_comes_at_the_level_and_goes_with_space(void)
{
    world_reset();                                     /* 128 extents */
    CHECK_EQ(create("a", 102 * FAKE_EXTENT, true), 0); /* 79.7 % */
    CHECK_STR(status()->condition, "");
    CHECK_EQ(create("b", FAKE_EXTENT, true), 0); /* 80.5 % */
    CHECK(strstr(status()->condition, "80.5% of the pool are used (warning from 80% on)"));
    CHECK_STR(status()->condition, w.answer->response->status->space);
    struct waiter from = client();
    ask_set(&from, -1, 81);
    settle();
    CHECK_STR(status()->condition, "");
    CHECK_EQ(create("c", 25 * FAKE_EXTENT, true), 0);
    CHECK(strstr(status()->condition, "the pool is full"));
}

static void writers_that_wait_are_the_first_thing_said(void)
{
    world_reset();
    struct uuid volume = new_attached("db");
    CHECK_EQ(create("filler", 124 * FAKE_EXTENT, true), 0);
    grow(&volume);
    w.now += 12000;
    const Lunar__Status *s = status();
    CHECK_EQ(s->waiting, 1);
    CHECK(strstr(s->condition, "1 writer waits for space, the first for 12 s (volume 'db' on node "
                               "'node1'): the pool is full") == s->condition);
    struct waiter from = client();
    Lunar__Request r = LUNAR__REQUEST__INIT;
    Lunar__VolumeGet m = LUNAR__VOLUME_GET__INIT;
    m.name = (char *)(uintptr_t) "db";
    r.op_case = LUNAR__REQUEST__OP_VOLUME_GET;
    r.volume_get = &m;
    ask(&from, &r);
    CHECK_STR(w.answer->response->volume->condition,
              "its writers wait for space since 12 s: the pool is full");
    m.name = (char *)(uintptr_t) "filler";
    ask(&from, &r);
    CHECK_STR(w.answer->response->volume->condition, "");
}

static void a_delete_works_in_a_full_pool_and_ends_the_condition(void)
{
    world_reset();
    struct uuid volume = new_attached("db");
    CHECK_EQ(create("filler", 124 * FAKE_EXTENT, true), 0);
    struct uuid filler = uuid_from_pb(w.answer->response->volume->volume_id);
    grow(&volume);
    struct waiter from = client();
    ask_delete(&from, &filler);
    settle();
    CHECK_EQ(w.lvm.n_lvs, 1);
    CHECK_EQ(w.lvm.lvs[0].size, (4 + 124 / 16) * FAKE_EXTENT); /* its share */
    CHECK_STR(status()->condition, "");
    CHECK_EQ(status()->waiting, 0);
}

TEST_MAIN(TEST(settings_are_one_commit_and_outlive_the_leader),
          TEST(what_stands_already_is_no_commit), TEST(senseless_settings_are_refused),
          TEST(one_change_at_a_time), TEST(a_failed_change_is_told_and_one_that_landed_is_success),
          TEST(beyond_the_limit_nothing_is_created_and_the_numbers_are_told),
          TEST(volumes_that_are_being_made_count),
          TEST(the_warning_comes_at_the_level_and_goes_with_space),
          TEST(writers_that_wait_are_the_first_thing_said),
          TEST(a_delete_works_in_a_full_pool_and_ends_the_condition))
