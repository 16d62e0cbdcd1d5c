/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots, clones, rollback, and what is left when they go. The world (leader_world.h) checks at
 * every step that nobody stands upon what a node writes (SAFETY 15, 16), that no layer goes under a
 * grant, and that a node hears of a layer when its grant names it.
 */
#include "support/leader_world.h"

static struct uuid clone_of(const char *name, const struct uuid *snapshot,
                            const struct uuid *volume)
{
    struct waiter from = client();
    static const struct uuid none;
    ask_clone(&from, name, 0, snapshot, volume);
    settle();
    if (w.code != 0)
        printf("# %s\n", w.text);
    return w.code == 0 ? uuid_from_pb(w.answer->response->volume->volume_id) : none;
}

static bool all_is_free(void)
{
    return fake_lvm_free_bytes(&w.lvm) == w.lvm.vg_size;
}

/* --- snapshots --- */

static void a_snapshot_of_a_detached_volume_asks_no_writer(void)
{
    world_reset();
    struct uuid id = made("disk"), s = snapshot_of(&id, "before");
    CHECK(!uuid_is_zero(&s));
    CHECK_EQ(w.overlays, 0);
    CHECK_EQ(w.formats, 2);
    CHECK_EQ(layers_of(&id), 2);
    CHECK_EQ(attached(&id, "node2"), 0); /* with both layers: the world compares */
}

static void a_snapshot_of_an_attached_volume_switches_the_writer(void)
{
    world_reset();
    struct uuid id = made("disk");
    CHECK_EQ(attached(&id, "node2"), 0);
    uint64_t before = w.lvm.seqno;
    struct uuid s = snapshot_of(&id, "before");
    CHECK(!uuid_is_zero(&s));
    CHECK_EQ(w.overlays, 1);
    CHECK_EQ(w.lvm.seqno, before + 3); /* the layer, the flip, the role */
    CHECK_EQ(w.writes[2][0].index, 1);
    CHECK_EQ(w.grants[2].n_entries, 1); /* the job's is erased */
    CHECK_EQ(w.grants[2].entries[0].n_layers, 2);
    for (int i = 0; i < 5; i++) {
        char name[8];
        snprintf(name, sizeof name, "s%d", i);
        s = snapshot_of(&id, name);
        CHECK(!uuid_is_zero(&s));
    }
    CHECK_EQ(layers_of(&id), 7);
    CHECK_EQ(w.grants[2].entries[0].n_layers, 7);
}

static void a_name_is_taken_once_and_the_same_request_again_is_answered(void)
{
    world_reset();
    struct uuid a = made("a"), b = made("b");
    struct waiter from = client(), other = client();
    ask_snapshot(&from, &a, "s");
    ask_snapshot(&from, &a, "s"); /* joined */
    ask_snapshot(&other, &b, "s");
    CHECK_EQ(w.code, LUNAR_E_EXISTS);
    settle();
    CHECK_EQ(w.code, 0);
    CHECK_EQ(layers_of(&a), 2);
    ask_snapshot(&other, &b, "s");
    CHECK_EQ(w.code, LUNAR_E_EXISTS);
    ask_snapshot(&other, &a, "s");
    CHECK_EQ(w.code, 0);
    CHECK_STR(w.answer->response->snapshot->volume, "a");
    CHECK_EQ(layers_of(&a), 2);
}

static void what_has_no_snapshots_says_so(void)
{
    world_reset();
    struct waiter from = client();
    struct uuid none = uuid_random(), id = made("disk");
    ask_create(&from, "thick", 64ull << 20, true);
    settle();
    struct uuid thick = uuid_from_pb(w.answer->response->volume->volume_id);
    ask_snapshot(&from, &thick, "s");
    CHECK_EQ(w.code, LUNAR_E_UNSUPPORTED);
    ask_snapshot(&from, &none, "s");
    CHECK_EQ(w.code, LUNAR_E_NOT_FOUND);
    ask_snapshot(&from, &id, "");
    CHECK_EQ(w.code, LUNAR_E_INVALID);
    CHECK_EQ(attached(&id, "node2"), 0);
    host_is(2, HOST_STATE_FAIL);
    ask_snapshot(&from, &id, "s");
    CHECK_EQ(w.code, LUNAR_E_NOT_JOINED);
}

static void a_format_that_fails_leaves_the_volume_as_it_was(void)
{
    world_reset();
    struct uuid id = made("disk");
    struct waiter from = client();
    CHECK_EQ(attached(&id, "node2"), 0);
    w.node_error = LUNAR_E_EXEC;
    ask_snapshot(&from, &id, "s");
    settle();
    CHECK_EQ(w.code, LUNAR_E_EXEC);
    CHECK_EQ(w.lvm.n_lvs, 1);
    CHECK_EQ(w.grants[2].n_entries, 1);
    CHECK_EQ(w.grants[2].entries[0].n_layers, 1);
    w.node_error = 0;
    struct uuid s = snapshot_of(&id, "s");
    CHECK(!uuid_is_zero(&s));
}

/* The catalogue has flipped: what is refused then is tried again, and a detach ends it, too. */
static void an_overlay_that_is_refused_is_tried_again_or_ends_with_the_attachment(void)
{
    for (int detach = 0; detach < 2; detach++) {
        world_reset();
        struct uuid id = made("disk");
        struct waiter from = client();
        CHECK_EQ(attached(&id, "node2"), 0);
        w.overlay_error = LUNAR_E_QMP;
        ask_snapshot(&from, &id, "s");
        settle();
        CHECK_EQ(w.code, LUNAR_E_QMP);
        CHECK_EQ(w.writes[2][0].index, 0);
        ask_clone(&from, "clone", 0, NULL, &id);
        CHECK_EQ(w.code, LUNAR_E_BUSY); /* nobody builds upon it */
        settle();
        if (detach) {
            ask_detach(&from, &id);
            settle();
            CHECK_EQ(w.code, 0);
        } else {
            w.overlay_error = 0;
        }
        w.now += LEADER_RECONCILE_MS;
        leader_tick(w.leader, w.now);
        settle();
        struct uuid s = snapshot_of(&id, "s");
        CHECK(!uuid_is_zero(&s));
        CHECK_EQ(w.overlays, detach ? 0 : 1);
    }
}

/* A half-failed detach, for example, must be done again before anything else goes. */
static void a_detach_goes_before_an_overlay_for_which_the_node_is_busy(void)
{
    world_reset();
    struct uuid id = made("disk");
    struct waiter from = client(), other = client();
    CHECK_EQ(attached(&id, "node2"), 0);
    w.overlay_error = LUNAR_E_BUSY;
    ask_snapshot(&from, &id, "s");
    ask_detach(&other, &id);
    CHECK_EQ(w.code, LUNAR_E_BUSY); /* the node was not asked yet */
    settle();
    ask_detach(&other, &id);
    CHECK_EQ(w.code, LUNAR_E_BUSY); /* the snapshot's answer */
    settle();
    CHECK_EQ(w.code, 0);
    CHECK_EQ(w.grants[2].n_entries, 0);
    struct uuid s = snapshot_of(&id, "s");
    CHECK(!uuid_is_zero(&s));
    CHECK_EQ(w.overlays, 0);
}

/* Its erasure had failed half-way before the takeover. */
static void a_job_that_is_left_over_is_done_once_more(void)
{
    world_reset();
    struct uuid id = made("disk");
    struct waiter from = client();
    ask_snapshot(&from, &id, "s");
    while (w.n_queue > 0 && w.queue[0].kind != P_COMMAND)
        outside_step();
    for (uint32_t h = 1; h <= 3; h++)
        for (uint32_t i = 0; i < w.grants[h].n_entries; i++)
            w.grants[h].entries[i].term = TABLE_TERM_LEFT_OVER;
    elect();
    settle();
    struct uuid s = snapshot_of(&id, "s");
    CHECK(!uuid_is_zero(&s));
    CHECK_EQ(w.formats, 2);
}

static void a_writer_that_is_proved_dead_or_knows_nothing_writes_nothing(void)
{
    for (int dies = 0; dies < 2; dies++) {
        world_reset();
        struct uuid id = made("disk");
        struct waiter from = client();
        CHECK_EQ(attached(&id, "node2"), 0);
        w.forgets = !dies;
        ask_snapshot(&from, &id, "s");
        while (w.n_queue > 0 &&
               (w.queue[0].kind != P_COMMAND ||
                w.queue[0].envelope->command->op_case != LUNAR__COMMAND__OP_OVERLAY))
            outside_step();
        CHECK_EQ(w.n_queue, 1);
        w.n_held[2] = 0; /* either way nothing is open there */
        if (dies)
            host_is(2, HOST_STATE_DEAD);
        settle();
        CHECK_EQ(w.code, 0);
        CHECK_STR(w.answer->response->snapshot->state, "ready");
        w.forgets = false;
        CHECK_EQ(attached(&id, dies ? "node1" : "node2"), 0);
    }
}

/* An entry that a report or a late write brought back: its node knows nothing of it, which says
 * nothing of who really writes. */
static void what_one_of_two_nodes_says_makes_no_snapshot_ready(void)
{
    for (int late = 0; late < 2; late++) {
        world_reset();
        struct uuid id = made("disk");
        struct waiter from = client();
        CHECK_EQ(attached(&id, "node2"), 0);
        if (late) { /* it comes back in the middle */
            ask_snapshot(&from, &id, "s");
            while (w.n_queue > 0 &&
                   (w.queue[0].kind != P_COMMAND ||
                    w.queue[0].envelope->command->op_case != LUNAR__COMMAND__OP_OVERLAY))
                outside_step();
        }
        struct table_entry *e = table_add(&w.grants[1]);
        *e = w.grants[2].entries[0];
        e->attachment_id = uuid_random();
        elect();
        ask_snapshot(&from, &id, "s");
        settle();
        CHECK_EQ(w.code, LUNAR_E_BUSY);
        w.now += LEADER_RECONCILE_MS;
        leader_tick(w.leader, w.now);
        settle(); /* the world checks that what node 2 writes is no snapshot */
        struct uuid stray = w.grants[1].entries[0].attachment_id;
        ask_detach_of(&from, &id, &stray);
        settle();
        struct uuid s = snapshot_of(&id, "s");
        CHECK(!uuid_is_zero(&s));
        CHECK_EQ(w.overlays, 1);
    }
}

static void a_volume_that_is_being_snapshotted_is_busy(void)
{
    world_reset();
    struct uuid id = made("disk");
    struct waiter from = client(), other = client();
    ask_snapshot(&from, &id, "s");
    ask_attach(&other, &id, "node1");
    CHECK_EQ(w.code, LUNAR_E_BUSY);
    ask_delete(&other, &id);
    CHECK_EQ(w.code, LUNAR_E_BUSY);
    ask_snapshot(&other, &id, "t");
    CHECK_EQ(w.code, LUNAR_E_BUSY);
    ask_rollback(&other, &id, &id);
    CHECK_EQ(w.code, LUNAR_E_BUSY);
    settle();
    CHECK_EQ(w.code, 0);
}

/* --- clones --- */

static void a_clone_stands_on_the_snapshot_and_outlives_everything(void)
{
    world_reset();
    struct uuid id = made("disk"), s = snapshot_of(&id, "s");
    struct uuid clone = clone_of("clone", &s, NULL);
    CHECK_EQ(layers_of(&clone), 2);
    CHECK_EQ(attached(&id, "node1"), 0);
    CHECK_EQ(attached(&clone, "node2"), 0);
    struct waiter from = client();
    ask_detach(&from, &id);
    settle();
    CHECK_EQ(asked(ask_delete, &id), 0);
    CHECK_EQ(asked(ask_unsnap, &s), 0);
    CHECK_EQ(layers_of(&clone), 2);
    CHECK_EQ(w.lvm.n_lvs, 2);
    ask_detach(&from, &clone);
    settle();
    CHECK_EQ(asked(ask_delete, &clone), 0);
    CHECK(all_is_free());
}

static void a_clone_of_a_volume_freezes_what_it_is_now(void)
{
    world_reset();
    struct uuid id = made("disk");
    CHECK_EQ(attached(&id, "node1"), 0);
    struct uuid clone = clone_of("clone", NULL, &id);
    CHECK_EQ(w.overlays, 1);
    CHECK_EQ(layers_of(&id), 2);
    CHECK_EQ(layers_of(&clone), 2);
    struct catalogue *c = fake_lvm_catalogue(&w.lvm);
    CHECK_EQ(c->n_snapshots, 0); /* nobody's */
    catalogue_free(c);
    free(c);
    struct uuid again = clone_of("clone", NULL, &id); /* the same request later */
    CHECK(uuid_equal(&again, &clone));
    struct waiter from = client();
    ask_clone(&from, "clone", 0, NULL, &clone);
    CHECK_EQ(w.code, LUNAR_E_EXISTS);
}

static void a_clone_may_be_larger_and_not_smaller(void)
{
    world_reset();
    struct uuid id = made("disk"), s = snapshot_of(&id, "s"), none = uuid_random();
    struct waiter from = client();
    ask_clone(&from, "c", 1ull << 29, &s, NULL);
    CHECK_EQ(w.code, LUNAR_E_INVALID);
    ask_clone(&from, "c", 1ull << 29, &none, NULL);
    CHECK_EQ(w.code, LUNAR_E_NOT_FOUND);
    ask_clone(&from, "c", 2ull << 30, &s, NULL);
    settle();
    CHECK_EQ(w.code, 0);
    CHECK_EQ(w.answer->response->volume->size, 2ull << 30);
    struct uuid source = uuid_from_pb(w.answer->response->volume->source_snapshot_id);
    CHECK(uuid_equal(&source, &s));
    ask_clone(&from, "d", 0, NULL, &id);
    w.node_error = LUNAR_E_EXEC;
    settle();
    leader_tick(w.leader, w.now);
    CHECK_EQ(w.code, LUNAR_E_EXEC);
    CHECK_EQ(layers_of(&id), 2);
}

/* The snapshot goes while a clone of it is being made: its layer stays. */
static void what_a_clone_is_about_to_stand_on_is_no_garbage(void)
{
    world_reset();
    struct uuid id = made("disk"), s = snapshot_of(&id, "s");
    CHECK_EQ(asked(ask_delete, &id), 0);
    struct waiter from = client(), other = client();
    ask_unsnap(&other, &s);
    ask_clone(&from, "clone", 0, &s, NULL);
    CHECK_EQ(w.code, LUNAR_E_BUSY);
    settle();
    CHECK(all_is_free());

    world_reset();
    id = made("disk"), s = snapshot_of(&id, "s");
    CHECK_EQ(asked(ask_delete, &id), 0);
    ask_clone(&from, "clone", 0, &s, NULL);
    ask_unsnap(&other, &s);
    settle();
    CHECK_EQ(w.code, 0);
    struct uuid clone = clone_of("clone", &s, NULL);
    CHECK_EQ(layers_of(&clone), 2);
    CHECK_EQ(asked(ask_delete, &clone), 0);
    CHECK(all_is_free());
}

/* --- rollback --- */

static void a_rollback_takes_the_snapshots_state_and_keeps_all_snapshots(void)
{
    world_reset();
    struct uuid id = made("disk"), s = snapshot_of(&id, "s"), t = snapshot_of(&id, "t");
    struct waiter from = client();
    uint64_t free_before = fake_lvm_free_bytes(&w.lvm);
    ask_rollback(&from, &id, &s);
    settle();
    CHECK_EQ(w.code, 0);
    CHECK_EQ(layers_of(&id), 2);
    CHECK_EQ(fake_lvm_free_bytes(&w.lvm), free_before); /* the old leaf is gone */
    uint64_t seqno = w.lvm.seqno;
    ask_rollback(&from, &id, &s); /* that very request again: done once */
    CHECK_EQ(w.code, 0);
    CHECK_EQ(w.lvm.seqno, seqno);
    ask_rollback(&(struct waiter){.host_id = 3, .request_id = uuid_random()}, &id, &t);
    settle();
    CHECK_EQ(w.code, 0);
    CHECK_EQ(layers_of(&id), 3);
    struct uuid u = snapshot_of(&id, "u");
    CHECK(!uuid_is_zero(&u));
    CHECK_EQ(attached(&id, "node1"), 0);
    ask_rollback(&(struct waiter){.host_id = 3, .request_id = uuid_random()}, &id, &s);
    CHECK_EQ(w.code, LUNAR_E_IN_USE);
    struct uuid other = made("other");
    ask_rollback(&(struct waiter){.host_id = 3, .request_id = uuid_random()}, &other, &s);
    CHECK_EQ(w.code, LUNAR_E_NOT_FOUND);
}

/* --- the end --- */

static void snapshots_go_in_any_order_and_space_returns_exactly(void)
{
    static const int orders[][4] = {{0, 1, 2, 3}, {3, 2, 1, 0}, {2, 0, 3, 1}, {1, 3, 0, 2}};
    for (size_t o = 0; o < sizeof orders / sizeof *orders; o++) {
        world_reset();
        struct uuid id = made("disk"), ids[4];
        CHECK_EQ(attached(&id, "node2"), 0);
        for (int i = 0; i < 3; i++)
            ids[i] = snapshot_of(&id, (char[]){(char)('a' + i), 0});
        struct waiter from = client();
        ask_detach(&from, &id);
        settle();
        ids[3] = id;
        for (int i = 0; i < 4; i++) {
            int which = orders[o][i];
            CHECK_EQ(asked(which == 3 ? ask_delete : ask_unsnap, &ids[which]), 0);
            CHECK_EQ(asked(which == 3 ? ask_delete : ask_unsnap, &ids[which]), 0); /* again */
        }
        CHECK(all_is_free());
    }
}

static void many_layers_go_in_several_commits(void)
{
    world_reset();
    w.lvm.vg_size = 512 * FAKE_EXTENT;
    w.merge_error = LUNAR_E_EXEC;
    elect();
    struct uuid id = made("disk"), ids[60];
    for (int i = 0; i < 60; i++) {
        char name[16];
        snprintf(name, sizeof name, "s%d", i);
        ids[i] = snapshot_of(&id, name);
    }
    for (int i = 0; i < 60; i++)
        CHECK_EQ(asked(ask_unsnap, &ids[i]), 0);
    CHECK_EQ(w.lvm.n_lvs, 61);
    uint64_t seqno = w.lvm.seqno;
    CHECK_EQ(asked(ask_delete, &id), 0);
    CHECK(all_is_free());
    CHECK_EQ(w.lvm.seqno, seqno + 2 + 3); /* 60 layers, 24 at a time */
}

/* SAFETY 14: by an entry that came from a report, say. */
static void safety_14_garbage_that_a_grant_names_stays(void)
{
    world_reset();
    struct uuid id = made("disk"), s = snapshot_of(&id, "s");
    CHECK_EQ(asked(ask_delete, &id), 0);
    struct table_entry *e = table_add(&w.grants[2]);
    *e = (struct table_entry){.volume_id = uuid_random(),
                              .attachment_id = uuid_random(),
                              .generation = 1,
                              .term = 1,
                              .mode = TABLE_MODE_ATTACH,
                              .state = TABLE_STATE_GRANTED,
                              .n_layers = 1};
    e->layers[0] = (struct table_layer){uuid_short(&id), 0, 1};
    elect();
    w.nodes_silent = true; /* it does not confirm that it is rid of it */
    CHECK_EQ(asked(ask_unsnap, &s), 0);
    CHECK_EQ(w.lvm.n_lvs, 1);
    w.nodes_silent = false;
    for (int i = 0; i < 2; i++) { /* the node is asked; then the layer goes */
        w.now += LEADER_RECONCILE_MS;
        node_seen(2, 1, 2, 0);
        leader_tick(w.leader, w.now);
        settle();
    }
    CHECK(all_is_free());
}

static void a_removal_that_fails_is_tried_again_later(void)
{
    world_reset();
    struct uuid id = made("disk"), s = snapshot_of(&id, "s");
    CHECK_EQ(asked(ask_delete, &id), 0);
    struct waiter from = client();
    ask_unsnap(&from, &s);
    outside_step();
    w.lvm.fail_with = LUNAR_E_EXEC;
    settle();
    CHECK_EQ(w.lvm.n_lvs, 1);
    w.now += LEADER_RECONCILE_MS;
    leader_tick(w.leader, w.now);
    settle();
    CHECK(all_is_free());
}

/* --- a leader lost after each single step --- */

/* A volume, attached or not, is snapshotted, cloned both ways, rolled back, and all is deleted. */
enum { REQUESTS = 11 };
struct life {
    struct uuid id, s, clone, copy;
    bool live;
};

static void ask_number(struct life *f, const struct waiter *from, int request)
{
    switch (request) {
    case 0:
        ask_create(from, "disk", 1ull << 30, false);
        return;
    case 1:
    case 5:
        if (f->live && request == 1)
            ask_attach(from, &f->id, "node2");
        else
            ask_detach(from, &f->id);
        return;
    case 2:
        ask_snapshot(from, &f->id, "s");
        return;
    case 3:
        ask_clone(from, "clone", 0, &f->s, NULL);
        return;
    case 4:
        ask_clone(from, "copy", 0, NULL, &f->id);
        return;
    case 6:
        ask_rollback(from, &f->id, &f->s);
        return;
    case 7:
        ask_unsnap(from, &f->s);
        return;
    default:
        ask_delete(from, request == 8 ? &f->id : request == 9 ? &f->clone : &f->copy);
    }
}

static void take_answer(struct life *f, int request)
{
    const Lunar__Response *r = w.answer->response;
    if (request == 2)
        f->s = uuid_from_pb(r->snapshot->snapshot_id);
    else if (request == 0 || request == 3 || request == 4)
        *(request == 0   ? &f->id
          : request == 3 ? &f->clone
                         : &f->copy) = uuid_from_pb(r->volume->volume_id);
}

static bool is_clean(void)
{
    bool clean = w.lvm.n_lvs == 0;
    for (uint32_t h = 1; h <= MAX_NODES; h++)
        clean = clean && w.grants[h].n_entries == 0 && w.n_held[h] == 0;
    return clean;
}

static int whole_life(int steps, bool live)
{
    struct life f = {.live = live};
    int done = 0;

    world_reset();
    for (int request = 0; request < REQUESTS; request++) {
        int before = w.n_answers;
        struct waiter from = client();
        while (w.n_answers == before || w.code == LUNAR_E_BUSY) {
            before = w.n_answers;
            ask_number(&f, &from, request);
            while (w.n_answers == before && outside_step())
                if (++done == steps)
                    elect();
        }
        if (w.code != 0)
            return printf("# request %d after %d steps: %s\n", request, steps, w.text), -1;
        take_answer(&f, request);
    }
    settle();
    /* A merge that a lost leader began is taken back first. */
    for (int ticks = 0; ticks < 3; ticks++) {
        w.now += LEADER_RECONCILE_MS;
        for (uint32_t h = 1; h <= 3; h++)
            node_seen(h, w.generation[h] ? w.generation[h] : 1, 1, 0);
        leader_tick(w.leader, w.now);
        settle();
    }
    return is_clean() ? done : (printf("# %d steps: %u LVs left\n", steps, w.lvm.n_lvs), -1);
}

static void a_leader_lost_after_any_step_is_made_good_by_the_next(void)
{
    for (int live = 0; live < 2; live++) {
        int n = whole_life(0, live);
        CHECK(n > 40);
        for (int steps = 1; steps <= n; steps++)
            CHECK(whole_life(steps, live) > 0);
        printf("# %s: %d steps\n", live ? "live" : "detached", n);
    }
}

/* Each commit of it once fails before it takes effect, and once after. */
static void a_commit_that_fails_anywhere_is_made_good(void)
{
    for (int live = 0; live < 2; live++)
        for (int after = 0; after < 2; after++)
            for (int at = 1; at <= 12; at++) {
                world_reset();
                struct uuid id = made("disk");
                struct waiter from = client();
                int commits = 0;
                if (live)
                    CHECK_EQ(attached(&id, "node2"), 0);
                ask_snapshot(&from, &id, "s");
                while (w.n_queue > 0) {
                    if (w.queue[0].kind == P_COMMIT && ++commits == at) {
                        w.lvm.fail_with = LUNAR_E_INDETERMINATE;
                        w.lvm.fail_after = after;
                    }
                    outside_step();
                }
                for (int i = 0; i < 2; i++) {
                    w.now += LEADER_RECONCILE_MS;
                    leader_tick(w.leader, w.now);
                    for (uint32_t h = 1; h <= 3; h++)
                        leader_heard(w.leader, h, w.now);
                    settle();
                }
                struct uuid s = snapshot_of(&id, "s");
                CHECK(!uuid_is_zero(&s));
                CHECK_EQ(layers_of(&id), 2);
            }
}

/* --- listings --- */

static void snapshots_are_listed_in_pages_and_by_what_is_asked(void)
{
    world_reset();
    struct uuid a = made("a"), b = made("b");
    snapshot_of(&a, "x"), snapshot_of(&b, "y");
    struct uuid z = snapshot_of(&a, "z");
    struct waiter from = client();
    Lunar__Request r = LUNAR__REQUEST__INIT;
    Lunar__SnapshotList m = LUNAR__SNAPSHOT_LIST__INIT;
    r.op_case = LUNAR__REQUEST__OP_SNAPSHOT_LIST;
    r.snapshot_list = &m;
    m.limit = 2;
    ask(&from, &r);
    CHECK_EQ(w.answer->response->snapshots->n_snapshots, 2);
    CHECK(w.answer->response->snapshots->more);
    m.after = (char *)(uintptr_t) "y";
    ask(&from, &r);
    CHECK_EQ(w.answer->response->snapshots->n_snapshots, 1);
    CHECK(!w.answer->response->snapshots->more);
    CHECK_STR(w.answer->response->snapshots->snapshots[0]->name, "z");
    m.after = (char *)(uintptr_t) "";
    m.volume_id = uuid_to_pb(&b);
    ask(&from, &r);
    CHECK_EQ(w.answer->response->snapshots->n_snapshots, 1);
    m.volume_id = (ProtobufCBinaryData){0, NULL};
    m.snapshot_id = uuid_to_pb(&z);
    ask(&from, &r);
    CHECK_EQ(w.answer->response->snapshots->n_snapshots, 1);
    CHECK_STR(w.answer->response->snapshots->snapshots[0]->volume, "a");
}

static void the_tree_names_every_layer_its_parent_and_who_has_it(void)
{
    world_reset();
    struct uuid id = made("disk"), s = snapshot_of(&id, "s");
    clone_of("clone", &s, NULL);
    CHECK_EQ(attached(&id, "node2"), 0);
    struct waiter from = client();
    Lunar__Request r = LUNAR__REQUEST__INIT;
    Lunar__TreeGet m = LUNAR__TREE_GET__INIT;
    r.op_case = LUNAR__REQUEST__OP_TREE_GET;
    r.tree_get = &m;
    ask(&from, &r);
    const Lunar__Tree *tree = w.answer->response->tree;
    CHECK_EQ(tree->n_layers, 3);
    int leaves = 0;
    for (size_t i = 0; i < tree->n_layers; i++) {
        const Lunar__TreeLayer *t = tree->layers[i];
        bool leaf = strcmp(t->role, "leaf") == 0;
        leaves += leaf;
        CHECK_EQ(t->parent[0] != 0, leaf);
        CHECK_STR(leaf ? "s" : t->snapshot, "s");
        CHECK_EQ(t->n_attachments, strcmp(t->volume, "disk") == 0);
    }
    CHECK_EQ(leaves, 2);
    m.after = tree->layers[0]->lv_name;
    char after[40];
    snprintf(after, sizeof after, "%s", m.after);
    m.after = after;
    ask(&from, &r);
    CHECK_EQ(w.answer->response->tree->n_layers, 2);
}

TEST_MAIN(TEST(a_snapshot_of_a_detached_volume_asks_no_writer),
          TEST(a_snapshot_of_an_attached_volume_switches_the_writer),
          TEST(a_name_is_taken_once_and_the_same_request_again_is_answered),
          TEST(what_has_no_snapshots_says_so),
          TEST(a_format_that_fails_leaves_the_volume_as_it_was),
          TEST(an_overlay_that_is_refused_is_tried_again_or_ends_with_the_attachment),
          TEST(a_detach_goes_before_an_overlay_for_which_the_node_is_busy),
          TEST(a_job_that_is_left_over_is_done_once_more),
          TEST(a_writer_that_is_proved_dead_or_knows_nothing_writes_nothing),
          TEST(what_one_of_two_nodes_says_makes_no_snapshot_ready),
          TEST(a_volume_that_is_being_snapshotted_is_busy),
          TEST(a_clone_stands_on_the_snapshot_and_outlives_everything),
          TEST(a_clone_of_a_volume_freezes_what_it_is_now),
          TEST(a_clone_may_be_larger_and_not_smaller),
          TEST(what_a_clone_is_about_to_stand_on_is_no_garbage),
          TEST(a_rollback_takes_the_snapshots_state_and_keeps_all_snapshots),
          TEST(snapshots_go_in_any_order_and_space_returns_exactly),
          TEST(many_layers_go_in_several_commits), TEST(safety_14_garbage_that_a_grant_names_stays),
          TEST(a_removal_that_fails_is_tried_again_later),
          TEST(a_leader_lost_after_any_step_is_made_good_by_the_next),
          TEST(a_commit_that_fails_anywhere_is_made_good),
          TEST(snapshots_are_listed_in_pages_and_by_what_is_asked),
          TEST(the_tree_names_every_layer_its_parent_and_who_has_it))
