/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Merging a snapshot's layer into the one below, which then is the snapshot: what may happen to it
 * between any two commits, and what a lost leader leaves. It is never gone, never there twice, and
 * never back after its deletion.
 */
#include "coordinator/leader_internal.h"
#include "support/leader_world.h"

static struct uuid id, a, b; /* a volume and its snapshots: b stands upon a, which is deleted */

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

/* The leaf 2 on the snapshot b, which is 1, on 0, which was one. Nothing has been merged. */
static void named_upon_plain(bool live)
{
    struct waiter from = client();

    world_reset();
    w.leader->merges = false;
    id = made("disk");
    if (live)
        ask_attach(&from, &id, "node2");
    settle();
    a = snapshot_of(&id, "a");
    b = snapshot_of(&id, "b");
    CHECK_EQ(asked(ask_unsnap, &a), 0);
    CHECK_EQ(layers_of(&id), 3);
    w.leader->merges = true;
}

/* The index of the layer that is the snapshot in what LVM says now; -1: there is none. */
static int index_of(const struct uuid *snapshot, bool *ret_merged)
{
    struct catalogue *c = fake_lvm_catalogue(&w.lvm);
    const struct catalogue_snapshot *s = catalogue_snapshot_by_id(c, snapshot);
    int index = -1;

    assert(c->n_foreign == 0);
    if (s) {
        assert(s->ready && uuid_equal(&s->volume_id, &id));
        assert(s->size == 1ull << 30 && strcmp(s->name, "b") == 0);
        assert(c->layers[s->layer].role == CATALOGUE_SNAPSHOT && !c->layers[s->layer].garbage);
        index = (int)c->layers[s->layer].index;
        *ret_merged = c->layers[s->layer].merged;
    }
    catalogue_free(c);
    free(c);
    return index;
}

/* Before the job has ended it is layer 1, afterwards either of both. */
static void check_is_there(void)
{
    bool merged = false;
    int index = index_of(&b, &merged);

    CHECK(index == 1 || (index == 0 && w.merges > 0));
    CHECK(!merged || w.merges > 0);
}

static void a_snapshots_layer_goes_into_the_one_below(void)
{
    for (int live = 0; live < 2; live++) {
        bool merged;
        named_upon_plain(live);
        w.now += LEADER_RECONCILE_MS;
        leader_tick(w.leader, w.now);
        do
            check_is_there();
        while (outside_step());
        CHECK_EQ(w.merges, 1);
        CHECK_EQ(index_of(&b, &merged), 0);
        ticks(live ? 3 : 1); /* the relink */
        CHECK_EQ(layers_of(&id), 2);
        CHECK_EQ(w.lvm.n_lvs, 2);
        CHECK_EQ(asked(ask_unsnap, &b), 0);
        CHECK_EQ(index_of(&b, &merged), -1);
        ticks(2);
        CHECK_EQ(w.merges, 1); /* into the leaf nothing goes */
        CHECK_EQ(w.lvm.n_lvs, 2);
    }
}

static int merge_with_a_leader_lost(int steps, bool live)
{
    int done = 0;
    bool merged;

    named_upon_plain(live);
    elect();
    do {
        check_is_there();
        if (done == steps)
            elect();
        check_is_there();
    } while (outside_step() && ++done);
    ticks(8);
    check_is_there();
    bool good =
        w.merges >= 1 && layers_of(&id) == 2 && w.lvm.n_lvs == 2 && index_of(&b, &merged) == 0;
    if (!good)
        printf("# %d steps: %d merges, %u layers, %u LVs\n", steps, w.merges, layers_of(&id),
               w.lvm.n_lvs);
    return good ? done : -1;
}

static void a_leader_lost_after_any_step_is_made_good_by_the_next(void)
{
    for (int live = 0; live < 2; live++) {
        int n = merge_with_a_leader_lost(-1, live);
        CHECK(n >= 8);
        for (int steps = 1; steps <= n; steps++)
            CHECK(merge_with_a_leader_lost(steps, live) > 0);
        printf("# %s: %d steps\n", live ? "live" : "detached", n);
    }
}

/* --- in between --- */

enum deed { DELETED, CLONED, ROLLED_BACK, VOLUME_DELETED, ATTACHED, SNAPSHOTTED, DEEDS };

static struct waiter from;
static struct uuid request;
static int waited; /* deletions that did, for a name to be moved */

static void ask_for(enum deed deed)
{
    from.request_id = request;
    switch (deed) {
    case DELETED:
        ask_unsnap(&from, &b);
        break;
    case CLONED:
        ask_clone(&from, "clone", 0, &b, NULL);
        break;
    case ROLLED_BACK:
        ask_rollback(&from, &id, &b);
        break;
    case VOLUME_DELETED:
        ask_delete(&from, &id);
        break;
    case ATTACHED:
        ask_attach(&from, &id, "node1");
        break;
    default:
        ask_snapshot(&from, &id, "c");
    }
}

/* After so many steps of the merge, and `lost` more until the leader is; as often as it is BUSY. */
static int merge_with(enum deed deed, int steps, int lost)
{
    bool merged, gone = false;
    int done = 0, asked_at = -1;

    named_upon_plain(false);
    from = client();
    request = uuid_random();
    elect();
    for (;;) {
        if (done >= steps && (asked_at < 0 || (w.code == LUNAR_E_BUSY && w.n_queue == 0))) {
            asked_at = asked_at < 0 ? done : asked_at;
            w.code = 1;
            ask_for(deed);
            assert(deed != DELETED || w.code != LUNAR_E_BUSY);
            const struct op *op = op_by_kind(w.leader, OP_UNSNAP);
            waited += op && op->state == OP_STATE_START;
        }
        if (asked_at >= 0 && done == asked_at + lost) {
            elect();
            if (w.code != 0) /* the client asks the next leader the same */
                ask_for(deed);
        }
        if (!outside_step())
            break;
        done++;
        int at = index_of(&b, &merged);
        assert(at >= 0 || deed == DELETED); /* never lost */
        assert(at < 0 || !gone);            /* never back */
        gone = at < 0;
    }
    if (asked_at < 0)
        return -1;
    ticks(2);
    while (w.code == LUNAR_E_BUSY || w.code == 1) {
        ask_for(deed);
        settle();
        ticks(1);
    }
    assert(w.code == 0);
    ticks(8);
    return done;
}

static void check_end(enum deed deed)
{
    bool merged;
    int at = index_of(&b, &merged);
    struct catalogue *c = fake_lvm_catalogue(&w.lvm);

    CHECK_EQ(at, deed == DELETED ? -1 : 0);
    CHECK(at < 0 || !merged);
    for (uint32_t i = 0; i < c->n_layers; i++)
        CHECK(!c->layers[i].merged && !c->layers[i].garbage); /* nothing is left over */
    CHECK_EQ(c->n_volumes, deed == CLONED ? 2 : deed == VOLUME_DELETED ? 0 : 1);
    for (uint32_t i = 0; i < c->n_volumes; i++) /* all stand on the bottom, and on nothing else */
        CHECK_EQ(c->volumes[i].n_layers, deed == SNAPSHOTTED ? 3 : 2);
    catalogue_free(c);
    free(c);
}

static void whatever_is_done_with_it_meanwhile_is_done_once_and_stays_done(void)
{
    for (enum deed deed = 0; deed < DEEDS; deed++) {
        int steps = 0, n;
        waited = 0;
        for (; (n = merge_with(deed, steps, 1000)) >= 0; steps++) {
            check_end(deed);
            for (int lost = 0; lost <= n - steps; lost++) {
                CHECK(merge_with(deed, steps, lost) >= 0);
                check_end(deed);
            }
        }
        CHECK(steps >= 8);
        CHECK(deed != DELETED || waited > 0);
    }
}

/* --- what it is of --- */

/* Of the clone's volume, though its layer was another's. */
static void a_snapshot_that_goes_into_another_volumes_layer_stays_its_own_volumes(void)
{
    bool merged;

    world_reset();
    struct uuid first = made("first");
    struct uuid s = snapshot_of(&first, "s");
    ask_clone((from = client(), &from), "clone", 0, &s, NULL);
    settle();
    id = uuid_from_pb(w.answer->response->volume->volume_id);
    b = snapshot_of(&id, "b");
    CHECK_EQ(asked(ask_delete, &first), 0);
    CHECK_EQ(w.merges, 0);
    CHECK_EQ(asked(ask_unsnap, &s), 0);
    ticks(2);
    CHECK_EQ(w.merges, 1);
    CHECK_EQ(w.lvm.n_lvs, 2);
    CHECK_EQ(index_of(&b, &merged), 0); /* its volume is looked at there */
    from = client();
    ask_rollback(&from, &id, &b);
    settle();
    CHECK_EQ(w.code, 0);
    CHECK_EQ(asked(ask_unsnap, &b), 0);
    ticks(1);
    CHECK_EQ(index_of(&b, &merged), -1);
    CHECK_EQ(layers_of(&id), 2);
}

/* What a clone of a volume froze has a tag of its size still, be it the snapshot's or another. */
static void a_layer_with_a_size_of_its_own_gets_the_snapshots(void)
{
    static const uint64_t sizes[] = {1ull << 30, 2ull << 30};
    for (int expanded = 0; expanded < 2; expanded++) {
        world_reset();
        id = made("disk");
        from = client();
        ask_clone(&from, "clone", 0, NULL, &id);
        settle();
        struct uuid clone = uuid_from_pb(w.answer->response->volume->volume_id);
        from = client();
        ask_expand(&from, &id, sizes[expanded]);
        settle();
        CHECK_EQ(w.code, 0);
        struct uuid s = snapshot_of(&id, "b");
        CHECK_EQ(asked(ask_delete, &clone), 0);
        ticks(2);
        CHECK_EQ(w.merges, 1);
        CHECK_EQ(w.lvm.n_lvs, 2);
        struct catalogue *c = fake_lvm_catalogue(&w.lvm);
        CHECK_EQ(c->n_foreign, 0);
        CHECK_EQ(c->n_snapshots, 1);
        CHECK_EQ(c->snapshots[0].size, sizes[expanded]);
        CHECK(uuid_equal(&c->snapshots[0].id, &s));
        catalogue_free(c);
        free(c);
    }
}

TEST_MAIN(TEST(a_snapshots_layer_goes_into_the_one_below),
          TEST(a_leader_lost_after_any_step_is_made_good_by_the_next),
          TEST(whatever_is_done_with_it_meanwhile_is_done_once_and_stays_done),
          TEST(a_snapshot_that_goes_into_another_volumes_layer_stays_its_own_volumes),
          TEST(a_layer_with_a_size_of_its_own_gets_the_snapshots))
