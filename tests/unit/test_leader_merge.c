/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Merging in the leader: which layers become one, and what a lost leader leaves. The world
 * (leader_world.h) checks at each command that every grant that names the layer which is written
 * names the one above it, too (SAFETY 15).
 */
#include "coordinator/leader_internal.h"
#include "support/leader_world.h"

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

/* A volume with snapshots base, a, b; the last two are deleted. */
static struct uuid id; /* of the volume */
#define LOWER 1
#define UPPER 2

static void two_plain(bool live)
{
    struct uuid a, b, base;
    struct waiter from = client();
    id = made("disk");
    if (live)
        ask_attach(&from, &id, "node2");
    settle();
    base = snapshot_of(&id, "base");
    a = snapshot_of(&id, "a");
    b = snapshot_of(&id, "b");
    CHECK(!uuid_is_zero(&base));
    CHECK_EQ(layers_of(&id), 4);
    CHECK_EQ(asked(ask_unsnap, &a), 0);
    CHECK_EQ(asked(ask_unsnap, &b), 0);
}

static void two_plain_layers_become_one(void)
{
    world_reset();
    two_plain(false);
    CHECK_EQ(w.merges, 1);
    CHECK_EQ(layers_of(&id), 3);
    CHECK_EQ(w.lvm.n_lvs, 3); /* the upper one is gone */
    for (uint32_t h = 1; h <= MAX_NODES; h++)
        CHECK_EQ(w.grants[h].n_entries, 0);
    ticks(3);
    CHECK_EQ(w.merges, 1);
    struct waiter from = client();
    ask_attach(&from, &id, "node1");
    settle();
    CHECK_EQ(w.code, 0);
}

/* Until the next answer. */
static const Lunar__Tree *tree(void)
{
    struct waiter from = client();
    Lunar__Request r = LUNAR__REQUEST__INIT;
    Lunar__TreeGet m = LUNAR__TREE_GET__INIT;

    r.op_case = LUNAR__REQUEST__OP_TREE_GET;
    r.tree_get = &m;
    ask(&from, &r);
    return w.answer->response->tree;
}

/* What `lunarctl volume tree` says of the layer; "gone" if it is not there. */
static const char *state_of(uint32_t index)
{
    static char state[16];
    char name[32];
    const Lunar__Tree *t = tree();

    snprintf(name, sizeof name, "v%016llx.%u", (unsigned long long)uuid_short(&id), index);
    for (size_t i = 0; i < t->n_layers; i++) {
        const Lunar__TreeLayer *layer = t->layers[i];
        if (strcmp(layer->lv_name, name) != 0)
            continue;
        snprintf(state, sizeof state, "%s", layer->state);
        return state;
    }
    return "gone";
}

/* What it says of the progress of whichever layer is being merged; -1: nothing. */
static int percent(void)
{
    const Lunar__Tree *t = tree();

    for (size_t i = 0; i < t->n_layers; i++) {
        const Lunar__TreeLayer *layer = t->layers[i];
        if (layer->total > 0)
            return (int)(100 * layer->done / layer->total);
    }
    return -1;
}

static void tell_progress(uint32_t host_id, uint64_t done, uint64_t total)
{
    struct uuid command = op_by_kind(w.leader, OP_MERGE)->command_id;
    Lunar__Progress p = LUNAR__PROGRESS__INIT;

    p.id = uuid_to_pb(&command);
    p.done = done;
    p.total = total;
    leader_progress(w.leader, host_id, &p);
}

static void the_tree_tells_what_is_merged_and_what_was(void)
{
    world_reset();
    w.merge_error = LUNAR_E_EXEC;
    two_plain(true);
    CHECK_STR(state_of(UPPER), "");
    w.merge_error = 0;
    w.silent_node = 1;
    w.now += 40000;
    ticks(1);
    CHECK_STR(state_of(UPPER), "merging");
    CHECK_STR(state_of(LOWER), "");
    CHECK_EQ(percent(), -1);
    tell_progress(2, 9, 10); /* it is not at it */
    CHECK_EQ(percent(), -1);
    tell_progress(1, 43, 100);
    CHECK_EQ(percent(), 43);
    tell_progress(1, 7, 5); /* whatever it says */
    CHECK_EQ(percent(), 100);
    w.silent_node = 0;
    node_seen(1, 1, 2, 0); /* it is asked again */
    settle();
    CHECK_EQ(w.merges, 1);
    CHECK_STR(state_of(UPPER), "merged"); /* its grant names it still */
    struct waiter from = client();
    ask_detach(&from, &id);
    settle();
    ticks(1);
    CHECK_STR(state_of(UPPER), "gone");
}

/* It is no failure, and no other pair waits for it. */
static void what_is_deleted_while_it_is_merged_is_gone(void)
{
    world_reset();
    w.merge_error = LUNAR_E_EXEC;
    two_plain(false);
    const struct uuid c = snapshot_of(&id, "c");
    CHECK_EQ(asked(ask_delete, &id), 0);
    CHECK_EQ(w.lvm.n_lvs, 4);
    w.merge_error = 0;
    w.now += 40000;
    node_seen(1, 1, 1, 0);
    leader_tick(w.leader, w.now);
    while (!op_by_kind(w.leader, OP_MERGE) ||
           op_by_kind(w.leader, OP_MERGE)->state != OP_STATE_UNGRANT)
        CHECK(outside_step());
    struct waiter from = client();
    ask_unsnap(&from, &c);
    settle();
    CHECK_EQ(w.merges, 1);
    CHECK_EQ(w.lvm.n_lvs, 1);
    CHECK(!op_by_kind(w.leader, OP_MERGE));
    CHECK_EQ(w.leader->merge_failures, 0);
}

/* The node keeps the chain that it opened; what it has is not removed, and it goes on being told of
 * it. */
static void layers_of_an_attached_volume_are_merged_under_it(void)
{
    world_reset();
    two_plain(true);
    CHECK_EQ(w.merges, 1);
    CHECK_EQ(layers_of(&id), 3);
    CHECK_EQ(w.lvm.n_lvs, 4);
    CHECK_EQ(w.grants[2].entries[0].n_layers, 4);
    w.leader->merges = false;
    struct uuid d = snapshot_of(&id, "d"); /* the world compares the command with the grant */
    CHECK(!uuid_is_zero(&d));
    CHECK_EQ(layers_of(&id), 4);
    CHECK_EQ(w.grants[2].entries[0].n_layers, 5);
    struct waiter from = client();
    ask_detach(&from, &id);
    settle();
    ticks(1);
    CHECK_EQ(w.lvm.n_lvs, 4);
    ask_attach(&from, &id, "node1");
    settle();
    CHECK_EQ(w.grants[1].entries[0].n_layers, 4);
}

static void who_reads_the_lower_one_alone_keeps_it_as_it_is(void)
{
    world_reset();
    w.merge_error = LUNAR_E_EXEC;
    two_plain(false);
    struct table_entry *e = table_add(&w.grants[3]);
    *e = (struct table_entry){.volume_id = id,
                              .attachment_id = uuid_random(),
                              .generation = 1,
                              .term = 1,
                              .mode = TABLE_MODE_ATTACH,
                              .state = TABLE_STATE_GRANTED,
                              .n_layers = 1};
    e->layers[0] = (struct table_layer){uuid_short(&id), LOWER, 1};
    w.merge_error = 0;
    elect();
    ticks(10);
    CHECK_EQ(w.merges, 0);
    CHECK_EQ(layers_of(&id), 4);
}

static void what_has_a_name_or_another_user_is_left_alone(void)
{
    world_reset();
    id = made("disk");
    struct uuid a = snapshot_of(&id, "a"), b = snapshot_of(&id, "b");
    struct waiter from = client();
    ask_clone(&from, "clone", 0, &a, NULL);
    settle();
    struct uuid clone = uuid_from_pb(w.answer->response->volume->volume_id);
    CHECK_EQ(asked(ask_unsnap, &a), 0); /* b stands on it, and so does the clone */
    CHECK_EQ(asked(ask_unsnap, &b), 0);
    ticks(3);
    CHECK_EQ(w.merges, 0);
    CHECK_EQ(layers_of(&id), 3);
    CHECK_EQ(asked(ask_delete, &clone), 0); /* now b alone does */
    ticks(3);
    CHECK_EQ(w.merges, 1);
    CHECK_EQ(layers_of(&id), 2);
    ticks(3);
    CHECK_EQ(w.merges, 1); /* the leaf is not merged */
}

static void a_node_that_fails_is_asked_again_after_a_pause(void)
{
    world_reset();
    w.merge_error = LUNAR_E_EXEC;
    two_plain(false);
    CHECK_EQ(layers_of(&id), 4);
    uint64_t seqno = w.lvm.seqno;
    ticks(1);
    CHECK_EQ(w.lvm.seqno, seqno);
    w.merge_error = 0;
    ticks(4);
    CHECK_EQ(w.merges, 1);
    CHECK_EQ(layers_of(&id), 3);
}

/* Its sizes, say: the next pair is not held up by it, and this one is not tried again and again. */
static void a_pair_that_cannot_be_merged_is_left_alone(void)
{
    world_reset();
    w.merge_error = LUNAR_E_UNSUPPORTED;
    two_plain(false);
    uint64_t seqno = w.lvm.seqno;
    w.merge_error = 0;
    ticks(20);
    CHECK_EQ(w.merges, 0);
    CHECK_EQ(w.lvm.seqno, seqno);
    elect(); /* the next leader tries once more */
    ticks(1);
    CHECK_EQ(w.merges, 1);
}

/* The job may be there still, being taken away: its grant stands until the node says otherwise. */
static void a_node_that_is_busy_is_asked_again(void)
{
    world_reset();
    w.merge_error = LUNAR_E_BUSY;
    two_plain(false);
    CHECK_EQ(w.merges, 0);
    uint32_t entries = 0;
    for (uint32_t h = 1; h <= MAX_NODES; h++)
        entries += w.grants[h].n_entries;
    CHECK_EQ(entries, 1);
    w.now += 1000;
    leader_tick(w.leader, w.now); /* no pause: it is no failure */
    settle();
    w.merge_error = 0;
    w.now += 1000;
    leader_tick(w.leader, w.now);
    settle();
    CHECK_EQ(w.merges, 1);
    CHECK_EQ(layers_of(&id), 3);
}

/* It leaves the pool, say: the pauses stay short. */
static void a_node_that_has_no_time_is_no_failure_of_the_pair(void)
{
    world_reset();
    w.merge_error = LUNAR_E_NOT_JOINED;
    two_plain(false);
    ticks(40);
    w.merge_error = 0;
    ticks(4);
    CHECK_EQ(w.merges, 1);
}

static bool extends(const struct pending *p)
{
    return p->kind == P_COMMIT && p->args.argv[0] && strcmp(p->args.argv[0], "lvextend") == 0;
}

static void who_comes_while_the_layer_gets_room_is_seen(void)
{
    world_reset();
    id = made("disk");
    snapshot_of(&id, "base");
    struct uuid a = snapshot_of(&id, "a"), b = snapshot_of(&id, "b");
    CHECK_EQ(asked(ask_unsnap, &b), 0);
    struct waiter from = client();
    ask_unsnap(&from, &a);
    while (w.n_queue > 0 && !extends(&w.queue[0]))
        outside_step();
    CHECK(w.n_queue > 0);
    struct table *grants = &w.leader->nodes[3].grants;
    struct table_entry *e = table_add(grants);
    e->volume_id = e->attachment_id = uuid_random();
    e->generation = e->term = 1;
    e->mode = TABLE_MODE_ATTACH;
    e->state = TABLE_STATE_GRANTED;
    e->n_layers = 1;
    e->layers[0] = (struct table_layer){uuid_short(&id), LOWER, 1};
    while (w.n_queue > 0) { /* the entry may be taken for a left-over later: its detach waits */
        w.nodes_silent = true;
        outside_step();
    }
    CHECK_EQ(w.merges, 0);
    for (uint32_t h = 1; h <= MAX_NODES; h++)
        CHECK_EQ(w.grants[h].n_entries, 0);
    table_remove(grants, 0);
    w.nodes_silent = false;
    ticks(4);
    CHECK_EQ(w.merges, 1);
    CHECK_EQ(layers_of(&id), 3);
}

static uint64_t size_of(uint32_t index)
{
    struct catalogue *c = fake_lvm_catalogue(&w.lvm);
    const struct catalogue_layer *x = catalogue_layer_by_id(c, uuid_short(&id), index);
    uint64_t size = x ? x->size : 0;
    catalogue_free(c);
    free(c);
    return size;
}

static void attempts_that_fail_do_not_make_the_layer_ever_longer(void)
{
    world_reset();
    w.merge_error = LUNAR_E_EXEC;
    two_plain(false);
    uint64_t size = size_of(LOWER);
    CHECK_EQ(size, 2 * CATALOGUE_THIN_START);
    uint64_t seqno = w.lvm.seqno;
    ticks(100);
    CHECK_EQ(size_of(LOWER), size);
    CHECK_EQ(w.lvm.seqno, seqno); /* nor are there commits that change nothing */
    w.merge_error = 0;
    ticks(200);
    CHECK_EQ(w.merges, 1);
    CHECK_EQ(size_of(LOWER), size);
}

static void a_layer_that_was_full_gets_more_up_to_a_bound(void)
{
    world_reset();
    w.merge_error = LUNAR_E_NO_SPACE;
    two_plain(false);
    uint64_t most = catalogue_merged_max(1ull << 30, w.leader->catalogue->extent_size);
    ticks(2); /* the first pause is one of three */
    CHECK_EQ(size_of(LOWER), 2 * CATALOGUE_THIN_START);
    ticks(1);
    CHECK_EQ(size_of(LOWER), 3 * CATALOGUE_THIN_START);
    ticks(4000);
    CHECK_EQ(size_of(LOWER), most);
    w.merge_error = 0;
    ticks(400);
    CHECK_EQ(w.merges, 0); /* it is not the room that is missing */
}

/* The uppermost two are deleted. */
static void with_pair(const struct uuid *volume, int n_snapshots, char first)
{
    struct uuid s[8];

    for (int i = 0; i < n_snapshots; i++)
        s[i] = snapshot_of(volume, (char[]){(char)(first + i), 0});
    CHECK_EQ(asked(ask_unsnap, &s[n_snapshots - 2]), 0);
    CHECK_EQ(asked(ask_unsnap, &s[n_snapshots - 1]), 0);
}

static void the_longest_chain_is_first_and_what_failed_is_last(void)
{
    struct uuid one, two, longer, shorter;

    world_reset();
    w.leader->merges = false;
    one = made("one");
    two = made("two");
    longer = uuid_short(&one) > uuid_short(&two) ? one : two; /* not by its place in the list */
    shorter = uuid_short(&one) > uuid_short(&two) ? two : one;
    with_pair(&longer, 5, 'a');
    with_pair(&shorter, 3, 'k');
    w.merge_error = LUNAR_E_EXEC;
    elect();
    settle();
    id = longer;
    CHECK_EQ(size_of(3), 2 * CATALOGUE_THIN_START); /* it was tried */
    id = shorter;
    CHECK_EQ(size_of(1), CATALOGUE_THIN_START);
    w.merge_error = 0;
    for (int n = 0; w.merges == 0 && n < 100; n++) {
        w.now += 1000;
        for (uint32_t h = 1; h <= 3; h++)
            node_seen(h, 1, 1, 0);
        leader_tick(w.leader, w.now);
        while (w.merges == 0 && outside_step())
            ;
    }
    CHECK_STR(state_of(2), "merging");
    ticks(1);
    CHECK_EQ(layers_of(&longer), 5);
    CHECK_EQ(layers_of(&shorter), 3);
}

/* Another operation's grant write has failed, and the node has begun a new run. */
static void a_command_is_sent_again_behind_the_grants(void)
{
    world_reset();
    w.merge_error = LUNAR_E_EXEC;
    two_plain(false);
    w.merge_error = 0;
    elect();
    w.nodes_silent = true;
    ticks(1); /* the command is out */
    uint32_t host = 0;
    for (uint32_t h = 1; h <= MAX_NODES; h++)
        if (w.grants[h].n_entries > 0)
            host = h;
    CHECK(host > 0);
    struct waiter from = client();
    ask_create(&from, "other", 1ull << 30, false);
    w.grants_fail = LUNAR_E_INDETERMINATE;
    settle();
    w.grants_fail = 0;
    w.nodes_silent = false;
    node_seen(host, w.generation[host] ? w.generation[host] : 1, 3, 0);
    settle();
    ticks(4);
    CHECK_EQ(w.merges, 1);
    CHECK_EQ(layers_of(&id), 3);
}

static void it_is_as_fast_as_it_may_be(void)
{
    world_reset();
    two_plain(false);
    CHECK_EQ(w.merged_at, 64ull << 20);
    world_reset();
    w.merge_speed = 8;
    elect();
    two_plain(false);
    CHECK_EQ(w.merged_at, 8ull << 20);
}

static void a_chain_gets_no_longer_than_it_may_be(void)
{
    world_reset();
    w.leader->chain_max = 3;
    id = made("disk");
    struct uuid a = snapshot_of(&id, "a"), b = snapshot_of(&id, "b");
    struct waiter from = client();
    ask_snapshot(&from, &id, "c");
    settle();
    CHECK_EQ(w.code, LUNAR_E_FULL);
    from = client();
    ask_clone(&from, "clone", 0, NULL, &id);
    settle();
    CHECK_EQ(w.code, LUNAR_E_FULL);
    from = client();
    ask_clone(&from, "clone", 0, &b, NULL);
    settle();
    CHECK_EQ(w.code, 0);
    CHECK_EQ(asked(ask_unsnap, &a), 0); /* b goes into what is left of it */
    CHECK_EQ(layers_of(&id), 2);
    from = client();
    ask_snapshot(&from, &id, "c");
    settle();
    CHECK_EQ(w.code, 0);
}

static int merge_with_a_leader_lost(int steps, bool live)
{
    int done = 0;

    world_reset();
    w.merge_error = LUNAR_E_EXEC; /* not while it is set up */
    two_plain(live);
    w.merge_error = 0;
    elect();
    do
        while (outside_step())
            if (++done == steps)
                elect();
    while (w.merges == 0 && (ticks(1), done < 200));
    ticks(8);
    struct waiter from = client();
    if (live) {
        ask_detach(&from, &id);
        settle();
    }
    ticks(2);
    bool good = w.merges >= 1 && layers_of(&id) == 3 && w.lvm.n_lvs == 3;
    for (uint32_t h = 1; h <= MAX_NODES; h++)
        good = good && w.grants[h].n_entries == 0;
    if (!good)
        printf("# %d steps: %d merges, %u layers, %u LVs\n", steps, w.merges, layers_of(&id),
               w.lvm.n_lvs);
    return good ? done : -1;
}

static void a_leader_lost_after_any_step_is_made_good_by_the_next(void)
{
    for (int live = 0; live < 2; live++) {
        int n = merge_with_a_leader_lost(0, live);
        CHECK(n >= 6);
        for (int steps = 1; steps <= n; steps++)
            CHECK(merge_with_a_leader_lost(steps, live) > 0);
        printf("# %s: %d steps\n", live ? "live" : "detached", n);
    }
}

TEST_MAIN(TEST(two_plain_layers_become_one), TEST(the_tree_tells_what_is_merged_and_what_was),
          TEST(what_is_deleted_while_it_is_merged_is_gone),
          TEST(layers_of_an_attached_volume_are_merged_under_it),
          TEST(who_reads_the_lower_one_alone_keeps_it_as_it_is),
          TEST(what_has_a_name_or_another_user_is_left_alone),
          TEST(a_node_that_fails_is_asked_again_after_a_pause),
          TEST(a_pair_that_cannot_be_merged_is_left_alone),
          TEST(a_node_that_is_busy_is_asked_again),
          TEST(a_node_that_has_no_time_is_no_failure_of_the_pair),
          TEST(who_comes_while_the_layer_gets_room_is_seen),
          TEST(attempts_that_fail_do_not_make_the_layer_ever_longer),
          TEST(a_layer_that_was_full_gets_more_up_to_a_bound),
          TEST(the_longest_chain_is_first_and_what_failed_is_last),
          TEST(a_command_is_sent_again_behind_the_grants), TEST(it_is_as_fast_as_it_may_be),
          TEST(a_chain_gets_no_longer_than_it_may_be),
          TEST(a_leader_lost_after_any_step_is_made_good_by_the_next))
