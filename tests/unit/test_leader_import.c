/* SPDX-License-Identifier: Apache-2.0 */
/* Imports as the leader sees them: whose a volume is until all of it is there. */
#include "support/leader_world.h"

#define SIZE (64ull << 20)

static int wish(const struct waiter *from, const char *name, bool importing)
{
    Lunar__Request r = LUNAR__REQUEST__INIT;
    Lunar__VolumeCreate m = LUNAR__VOLUME_CREATE__INIT;
    m.name = (char *)(uintptr_t)name;
    m.size = SIZE;
    m.importing = importing;
    r.op_case = LUNAR__REQUEST__OP_VOLUME_CREATE;
    r.volume_create = &m;
    ask(from, &r);
    settle();
    return w.code;
}

static int attached_as(const struct uuid *volume, bool importing)
{
    struct waiter from = client();
    Lunar__Request r = LUNAR__REQUEST__INIT;
    Lunar__VolumeAttach m = LUNAR__VOLUME_ATTACH__INIT;
    m.volume_id = uuid_to_pb(volume);
    m.node = (char *)(uintptr_t) "node2";
    m.importing = importing;
    r.op_case = LUNAR__REQUEST__OP_VOLUME_ATTACH;
    r.volume_attach = &m;
    ask(&from, &r);
    settle();
    return w.code;
}

static void ask_imported(const struct waiter *from, const struct uuid *volume)
{
    Lunar__Request r = LUNAR__REQUEST__INIT;
    Lunar__VolumeImported m = LUNAR__VOLUME_IMPORTED__INIT;
    m.volume_id = uuid_to_pb(volume);
    r.op_case = LUNAR__REQUEST__OP_VOLUME_IMPORTED;
    r.volume_imported = &m;
    ask(from, &r);
}

static int imported(const struct uuid *volume)
{
    struct waiter from = client();
    ask_imported(&from, volume);
    settle();
    return w.code;
}

static struct uuid begun(void)
{
    struct waiter from = client();
    world_reset();
    wish(&from, "disk", true);
    assert(w.code == 0);
    return uuid_from_pb(w.answer->response->volume->volume_id);
}

static void detached(const struct uuid *volume)
{
    struct waiter from = client();
    ask_detach(&from, volume);
    settle();
}

static bool says(const char *state)
{
    return strcmp(w.answer->response->volume->state, state) == 0;
}

static void only_its_import_attaches_it_until_all_of_it_is_there(void)
{
    struct uuid id = begun();
    CHECK(says("importing"));
    CHECK_EQ(attached_as(&id, false), LUNAR_E_BUSY);
    CHECK_EQ(attached_as(&id, true), 0);
    CHECK_EQ(attached_as(&id, false), LUNAR_E_BUSY);
    CHECK_EQ(imported(&id), LUNAR_E_IN_USE); /* not while it is written */
    detached(&id);
    CHECK_EQ(attached_as(&id, false), LUNAR_E_BUSY);
    CHECK_EQ(imported(&id), 0);
    CHECK(says("ready"));
    CHECK_EQ(imported(&id), 0); /* the answer was lost */
    CHECK_EQ(attached_as(&id, true), LUNAR_E_INVALID);
    CHECK_EQ(attached_as(&id, false), 0);
}

static void nobody_takes_half_a_volume_for_his(void)
{
    struct waiter first = client(), other = client();
    world_reset();
    CHECK_EQ(wish(&first, "disk", true), 0);
    struct uuid id = uuid_from_pb(w.answer->response->volume->volume_id);
    CHECK_EQ(wish(&first, "disk", true), 0); /* the very request */
    CHECK_EQ(wish(&other, "disk", true), LUNAR_E_EXISTS);
    CHECK_EQ(wish(&other, "disk", false), LUNAR_E_EXISTS);
    CHECK_EQ(imported(&id), 0);
    CHECK_EQ(wish(&other, "disk", true), LUNAR_E_EXISTS);
    CHECK_EQ(wish(&other, "disk", false), 0);
    ask_create(&first, "plain", SIZE, false);
    settle();
    CHECK_EQ(wish(&other, "plain", true), LUNAR_E_EXISTS); /* it has bytes already */
}

static void half_a_volume_has_no_snapshots_and_is_deleted(void)
{
    struct uuid id = begun();
    struct waiter from = client();
    ask_snapshot(&from, &id, "s");
    settle();
    CHECK_EQ(w.code, LUNAR_E_BUSY);
    ask_delete(&from, &id);
    settle();
    CHECK_EQ(w.code, 0);
    CHECK_EQ(w.lvm.n_lvs, 0);
    CHECK_EQ(imported(&id), LUNAR_E_NOT_FOUND);
}

static void a_leader_lost_after_any_step_does_not_take_half_for_whole(void)
{
    for (int lost_after = 0; lost_after < 6; lost_after++) {
        struct waiter from = client();
        Lunar__Request r = LUNAR__REQUEST__INIT;
        Lunar__VolumeCreate m = LUNAR__VOLUME_CREATE__INIT;
        world_reset();
        m.name = (char *)(uintptr_t) "disk";
        m.size = SIZE;
        m.importing = true;
        r.op_case = LUNAR__REQUEST__OP_VOLUME_CREATE;
        r.volume_create = &m;
        ask(&from, &r);
        for (int i = 0; i < lost_after; i++)
            outside_step();
        elect();
        CHECK_EQ(wish(&from, "disk", true), 0); /* its agent sends it to each new leader */
        CHECK(says("importing"));
        struct uuid id = uuid_from_pb(w.answer->response->volume->volume_id);
        ask_imported(&from, &id);
        if (lost_after % 2)
            outside_step();
        elect();
        CHECK_EQ(attached_as(&id, false), lost_after % 2 ? 0 : LUNAR_E_BUSY);
        detached(&id);
        CHECK_EQ(imported(&id), 0);
        CHECK(says("ready"));
    }
}

TEST_MAIN(TEST(only_its_import_attaches_it_until_all_of_it_is_there),
          TEST(nobody_takes_half_a_volume_for_his),
          TEST(half_a_volume_has_no_snapshots_and_is_deleted),
          TEST(a_leader_lost_after_any_step_does_not_take_half_for_whole))
