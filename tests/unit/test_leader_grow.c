/* SPDX-License-Identifier: Apache-2.0 */
/* Growth of layers: who may ask, what is given, and what waits while the pool is full. */
#include "support/leader_world.h"

#define START (128 * MIB)
#define GIB   (1024 * MIB)

/* A volume of 1 GiB, attached to node 1. */
struct held {
    struct uuid volume, attachment;
    struct waiter agent; /* who asks for it */
};

static const struct table_entry *grant_of(const struct uuid *volume)
{
    return table_find_volume(&w.grants[1], volume);
}

static struct held held(const char *name)
{
    struct held h = {.volume = made(name)};
    struct waiter from = client();
    ask_attach(&from, &h.volume, "node1");
    settle();
    h.attachment = grant_of(&h.volume)->attachment_id;
    h.agent = client();
    h.agent.host_id = 1;
    return h;
}

static void ask_grow_of(const struct waiter *from, const struct uuid *volume,
                        const struct uuid *attachment, uint32_t index, uint64_t size)
{
    Lunar__Request r = LUNAR__REQUEST__INIT;
    Lunar__LayerGrow m = LUNAR__LAYER_GROW__INIT;
    m.volume_id = uuid_to_pb(volume);
    m.attachment_id = uuid_to_pb(attachment);
    m.volume_short = uuid_short(volume);
    m.index = index;
    m.size = size;
    r.op_case = LUNAR__REQUEST__OP_LAYER_GROW;
    r.layer_grow = &m;
    w.n_answers = 0;
    ask(from, &r);
}

static void ask_grow(const struct held *h, uint64_t size)
{
    ask_grow_of(&h->agent, &h->volume, &h->attachment, 0, size);
}

/* The bytes that the answered map gives; 0: no answer, or an error. */
static uint64_t grown(void)
{
    uint64_t bytes = 0;
    if (w.n_answers != 1 || w.code != 0 ||
        w.answer->response->op_case != LUNAR__RESPONSE__OP_GROWN_LAYER)
        return 0;
    const Lunar__Layer *l = w.answer->response->grown_layer->layer;
    for (size_t i = 0; i < l->n_segments; i++)
        bytes += l->segments[i]->length;
    return bytes;
}

/* Takes so much of the pool that `left` bytes are free, in thick volumes. */
static struct uuid fill(uint64_t left)
{
    struct waiter from = client();
    ask_create(&from, "filler", fake_lvm_free_bytes(&w.lvm) - left, true);
    settle();
    assert(w.code == 0 && fake_lvm_free_bytes(&w.lvm) == left);
    return uuid_from_pb(w.answer->response->volume->volume_id);
}

static void delete (const struct uuid *volume)
{
    struct waiter from = client();
    ask_delete(&from, volume);
}

/* --- growing --- */

static void a_layer_grows_by_one_commit_and_the_answer_is_its_whole_map(void)
{
    world_reset();
    struct held h = held("a");
    made("b"); /* lies behind it: the growth is a second segment */
    uint64_t seqno = w.lvm.seqno;
    ask_grow(&h, 250 * MIB);
    CHECK_EQ(w.n_answers, 0);
    settle();
    CHECK_EQ(w.lvm.seqno, seqno + 1);
    CHECK_EQ(grown(), 256 * MIB); /* in whole extents */
    const Lunar__Layer *l = w.answer->response->grown_layer->layer;
    CHECK_EQ(l->n_segments, 2);
    CHECK_EQ(l->segments[0]->length, START);
    CHECK_EQ(l->volume_short, uuid_short(&h.volume));
    CHECK_EQ(l->index, 0);
    CHECK_EQ(l->map_generation, grant_of(&h.volume)->layers[0].map_generation);
    CHECK_EQ(l->max_size, CATALOGUE_THIN_MAP_SIZE);
}

static void a_size_that_is_there_is_answered_at_once(void)
{
    world_reset();
    struct held h = held("a");
    ask_grow(&h, 256 * MIB);
    settle();
    uint64_t seqno = w.lvm.seqno;
    ask_grow(&h, 256 * MIB); /* its answer was lost */
    CHECK_EQ(grown(), 256 * MIB);
    ask_grow(&h, 1);
    CHECK_EQ(grown(), 256 * MIB);
    settle();
    CHECK_EQ(w.lvm.seqno, seqno);
}

static void nothing_is_answered_before_the_commit(void)
{
    world_reset();
    struct held h = held("a");
    ask_grow(&h, 256 * MIB);
    ask_grow(&h, 256 * MIB); /* again: one growth */
    leader_tick(w.leader, ++w.now);
    CHECK_EQ(w.n_answers, 0);
    CHECK_EQ(w.n_queue, 1);
    settle();
    CHECK_EQ(grown(), 256 * MIB);
}

static void it_does_not_wait_for_an_operation_on_the_volume(void)
{
    world_reset();
    struct held h = held("a");
    struct waiter from = client();
    w.nodes_silent = true;
    ask_detach(&from, &h.volume);
    settle();
    ask_grow(&h, 256 * MIB);
    settle();
    CHECK_EQ(grown(), 256 * MIB);
}

static bool overlay_is_next(void)
{
    return w.n_queue > 0 && w.queue[0].kind == P_COMMAND &&
           w.queue[0].envelope->command->op_case == LUNAR__COMMAND__OP_OVERLAY;
}

/* The snapshot waits for the node, and the node's writer may wait for space. */
static void while_a_snapshot_is_made_the_former_leaf_and_the_new_one_grow(void)
{
    world_reset();
    struct held h = held("a");
    struct waiter from = client();
    ask_snapshot(&from, &h.volume, "s");
    while (!overlay_is_next() && outside_step())
        ;
    CHECK(overlay_is_next());
    w.nodes_silent = true;
    settle();
    for (uint32_t index = 0; index < 2; index++) {
        ask_grow_of(&h.agent, &h.volume, &h.attachment, index, 256 * MIB);
        settle();
        CHECK_EQ(grown(), 256 * MIB);
        CHECK_EQ(w.answer->response->grown_layer->layer->index, index);
    }
}

static void a_new_leader_goes_on_when_it_is_asked_again(void)
{
    world_reset();
    struct held h = held("a");
    ask_grow(&h, 256 * MIB);
    elect(); /* before the commit */
    ask_grow(&h, 256 * MIB);
    settle();
    CHECK_EQ(grown(), 256 * MIB);
    uint64_t seqno = w.lvm.seqno;
    elect();
    ask_grow(&h, 256 * MIB); /* after it */
    CHECK_EQ(grown(), 256 * MIB);
    CHECK_EQ(w.lvm.seqno, seqno);
}

static void an_attach_tells_the_thin_leafs_full_size(void)
{
    world_reset();
    struct uuid thin = made("a"), thick;
    struct waiter from = client();
    ask_create(&from, "b", 256 * MIB, true);
    settle();
    thick = uuid_from_pb(w.answer->response->volume->volume_id);
    for (int i = 0; i < 2; i++) {
        ask_attach(&from, i ? &thick : &thin, "node1");
        outside_step(); /* the grant */
        CHECK_EQ(w.queue[0].kind, P_COMMAND);
        const Lunar__Attach *m = w.queue[0].envelope->command->attach;
        CHECK_EQ(m->layers[0]->max_size, i ? 0 : CATALOGUE_THIN_MAP_SIZE);
        settle();
    }
}

/* --- who may --- */

static void only_the_life_that_has_the_grant_may_ask(void)
{
    world_reset();
    struct held h = held("a");
    struct uuid other = uuid_random();
    struct waiter elsewhere = h.agent;
    elsewhere.host_id = 2;
    ask_grow_of(&elsewhere, &h.volume, &h.attachment, 0, GIB);
    CHECK_EQ(w.code, LUNAR_E_NOT_FOUND);
    elsewhere.host_id = 0; /* a client of the coordinator's own socket */
    ask_grow_of(&elsewhere, &h.volume, &h.attachment, 0, GIB);
    CHECK_EQ(w.code, LUNAR_E_NOT_FOUND);
    ask_grow_of(&h.agent, &h.volume, &other, 0, GIB);
    CHECK_EQ(w.code, LUNAR_E_NOT_FOUND);
    ask_grow_of(&h.agent, &other, &h.attachment, 0, GIB);
    CHECK_EQ(w.code, LUNAR_E_NOT_FOUND);
    ask_grow_of(&h.agent, &h.volume, &h.attachment, 1, GIB); /* no such layer in the grant */
    CHECK_EQ(w.code, LUNAR_E_NOT_FOUND);
    node_seen(1, 2, 1, 0); /* rebooted: the grant is of its former life */
    ask_grow(&h, GIB);
    CHECK_EQ(w.code, LUNAR_E_NOT_FOUND);
    CHECK_EQ(w.n_queue, 0);
}

static void a_dead_life_is_given_nothing(void)
{
    world_reset();
    struct held h = held("a");
    w.grants_fail = LUNAR_E_INDETERMINATE; /* so that the entry stands in memory */
    host_is(1, HOST_STATE_DEAD);
    settle();
    ask_grow(&h, GIB);
    CHECK_EQ(w.code, LUNAR_E_NOT_FOUND);
}

static void thick_volumes_and_more_than_twice_the_need_are_refused(void)
{
    world_reset();
    struct waiter from = client();
    struct held h = held("a");
    w.lvm.vg_size = 1200 * FAKE_EXTENT;
    elect(); /* and reads it */
    uint64_t max = catalogue_growth_max(GIB, FAKE_EXTENT);
    ask_grow(&h, 3 * GIB);
    settle();
    CHECK_EQ(grown(), max);
    ask_grow(&h, 3 * GIB);
    CHECK_EQ(w.code, LUNAR_E_INVALID);
    CHECK_EQ(w.n_queue, 0);

    ask_create(&from, "t", 64 * MIB, true);
    settle();
    h.volume = uuid_from_pb(w.answer->response->volume->volume_id);
    ask_attach(&from, &h.volume, "node1");
    settle();
    h.attachment = grant_of(&h.volume)->attachment_id;
    ask_grow(&h, GIB);
    CHECK_EQ(w.code, LUNAR_E_NOT_FOUND);
    CHECK(strstr(w.text, "thick"));
}

/* --- a full pool --- */

static void one_growth_takes_a_share_of_what_is_free_at_most(void)
{
    world_reset();
    w.lvm.vg_size = 1200 * FAKE_EXTENT;
    elect(); /* and reads it */
    struct held h = held("a");
    fill(160 * FAKE_EXTENT);
    ask_grow(&h, GIB);
    settle();
    CHECK_EQ(grown(), START + 10 * FAKE_EXTENT); /* a sixteenth */
}

static void the_least_that_is_asked_for_is_given_while_there_is_twice_as_much(void)
{
    world_reset();
    struct held h = held("a");
    fill(10 * FAKE_EXTENT);
    ask_grow(&h, GIB);
    settle();
    CHECK_EQ(grown(), START + 4 * FAKE_EXTENT);
    ask_grow(&h, GIB);
    settle();
    CHECK_EQ(grown(), START + 7 * FAKE_EXTENT); /* half of 6 */
}

static void the_last_extent_is_given_whole(void)
{
    world_reset();
    struct held h = held("a");
    fill(FAKE_EXTENT);
    ask_grow(&h, GIB);
    settle();
    CHECK_EQ(grown(), START + FAKE_EXTENT);
    CHECK_EQ(fake_lvm_free_bytes(&w.lvm), 0);
}

static void what_is_promised_to_one_is_not_given_to_another(void)
{
    world_reset();
    struct held a = held("a"), b = held("b");
    fill(2 * FAKE_EXTENT);
    uint64_t seqno = w.lvm.seqno;
    ask_grow(&a, GIB);
    ask_grow(&b, GIB);
    CHECK_EQ(w.n_queue, 2);
    settle();
    CHECK_EQ(w.lvm.seqno, seqno + 2); /* no commit failed */
    CHECK_EQ(w.n_answers, 2);
    CHECK_EQ(fake_lvm_free_bytes(&w.lvm), 0);
    CHECK_EQ(w.lvm.lvs[0].size, START + FAKE_EXTENT);
    CHECK_EQ(w.lvm.lvs[1].size, START + FAKE_EXTENT);
}

static void a_full_pool_parks_and_a_delete_lets_the_oldest_go_on_first(void)
{
    world_reset();
    struct held a = held("a"), b = held("b");
    struct uuid filler = fill(0);
    ask_grow(&a, START + FAKE_EXTENT);
    w.now += 1000;
    ask_grow(&b, START + FAKE_EXTENT);
    CHECK_EQ(w.n_queue, 0);
    for (int i = 0; i < 3; i++) {
        leader_tick(w.leader, w.now += 1000);
        CHECK_EQ(w.n_queue, 0); /* and nothing is tried meanwhile */
    }
    CHECK_EQ(w.n_answers, 0);
    delete (&filler);
    settle();
    CHECK_EQ(w.n_answers, 3); /* the delete's, and one each */
    CHECK_EQ(w.lvm.lvs[0].size, START + FAKE_EXTENT);
    CHECK_EQ(w.lvm.lvs[1].size, START + FAKE_EXTENT);
    /* a's extents come first. */
    const struct lvm_segment *x = w.lvm.lvs[0].segments, *y = w.lvm.lvs[1].segments;
    CHECK(x[w.lvm.lvs[0].n_segments - 1].lun_offset < y[w.lvm.lvs[1].n_segments - 1].lun_offset);
}

static void lvm_that_finds_no_space_parks_until_something_changes(void)
{
    world_reset();
    struct held h = held("a");
    w.lvm.fail_with = LUNAR_E_NO_SPACE; /* though the numbers say otherwise */
    ask_grow(&h, 256 * MIB);
    settle();
    leader_tick(w.leader, w.now += 60000);
    CHECK_EQ(w.n_queue, 0);
    CHECK_EQ(w.n_answers, 0);
    struct waiter from = client();
    ask_create(&from, "b", GIB, false);
    settle();
    CHECK_EQ(w.lvm.lvs[0].size, 256 * MIB);
}

static void space_that_went_to_somebody_else_is_shared_anew(void)
{
    world_reset();
    struct held h = held("a");
    struct waiter from = client();
    fill(4 * FAKE_EXTENT);
    ask_create(&from, "late", 96 * MIB, true); /* 3 extents, of which the leader knows not yet */
    ask_grow(&h, GIB);                         /* wants 2 of 4, and finds 1 */
    for (int i = 0; i < 2; i++)
        outside_step();
    w.n_answers = 0;
    settle();
    CHECK_EQ(fake_lvm_free_bytes(&w.lvm), 0);
    CHECK_EQ(w.lvm.lvs[0].size, START + FAKE_EXTENT);
}

static void a_parked_growth_goes_with_its_grant(void)
{
    world_reset();
    struct held h = held("a");
    struct waiter from = client();
    fill(0);
    ask_grow(&h, GIB);
    ask_detach(&from, &h.volume);
    settle();
    w.n_answers = 0;
    leader_tick(w.leader, w.now += 1000);
    CHECK_EQ(w.n_answers, 1);
    CHECK_EQ(w.code, LUNAR_E_NOT_FOUND);
    leader_tick(w.leader, w.now += 1000);
    CHECK_EQ(w.n_answers, 1);
}

static void a_parked_growth_of_a_dead_node_is_dropped(void)
{
    world_reset();
    struct held h = held("a");
    fill(0);
    ask_grow(&h, GIB);
    host_is(1, HOST_STATE_DEAD);
    settle();
    leader_tick(w.leader, w.now += 1000);
    CHECK_EQ(w.code, LUNAR_E_NOT_FOUND);
    CHECK_EQ(w.n_answers, 1);
}

/* --- commits that fail --- */

static void a_failed_commit_is_tried_again_after_a_second(void)
{
    world_reset();
    struct held h = held("a");
    w.lvm.fail_with = LUNAR_E_EXEC;
    ask_grow(&h, 256 * MIB);
    settle();
    leader_tick(w.leader, w.now += 999);
    CHECK_EQ(w.n_queue, 0);
    CHECK_EQ(w.n_answers, 0);
    leader_tick(w.leader, w.now += 1);
    settle();
    CHECK_EQ(grown(), 256 * MIB);
}

static void a_commit_that_failed_and_took_effect_is_answered(void)
{
    world_reset();
    struct held h = held("a");
    w.lvm.fail_with = LUNAR_E_INDETERMINATE;
    w.lvm.fail_after = true;
    ask_grow(&h, 256 * MIB);
    settle();
    leader_tick(w.leader, w.now += 1000);
    CHECK_EQ(grown(), 256 * MIB);
    CHECK_EQ(w.n_queue, 0);
}

TEST_MAIN(TEST(a_layer_grows_by_one_commit_and_the_answer_is_its_whole_map),
          TEST(a_size_that_is_there_is_answered_at_once),
          TEST(nothing_is_answered_before_the_commit),
          TEST(it_does_not_wait_for_an_operation_on_the_volume),
          TEST(while_a_snapshot_is_made_the_former_leaf_and_the_new_one_grow),
          TEST(a_new_leader_goes_on_when_it_is_asked_again),
          TEST(an_attach_tells_the_thin_leafs_full_size),
          TEST(only_the_life_that_has_the_grant_may_ask), TEST(a_dead_life_is_given_nothing),
          TEST(thick_volumes_and_more_than_twice_the_need_are_refused),
          TEST(one_growth_takes_a_share_of_what_is_free_at_most),
          TEST(the_least_that_is_asked_for_is_given_while_there_is_twice_as_much),
          TEST(the_last_extent_is_given_whole),
          TEST(what_is_promised_to_one_is_not_given_to_another),
          TEST(a_full_pool_parks_and_a_delete_lets_the_oldest_go_on_first),
          TEST(lvm_that_finds_no_space_parks_until_something_changes),
          TEST(space_that_went_to_somebody_else_is_shared_anew),
          TEST(a_parked_growth_goes_with_its_grant),
          TEST(a_parked_growth_of_a_dead_node_is_dropped),
          TEST(a_failed_commit_is_tried_again_after_a_second),
          TEST(a_commit_that_failed_and_took_effect_is_answered))
