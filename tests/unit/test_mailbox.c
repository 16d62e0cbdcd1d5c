/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mailboxes and the hub over a real loop and a real O_DIRECT file: one coordinator and three nodes
 * in one process. Every test ends by closing everything and letting the loop run dry, so that a
 * leaked handle hangs it.
 */
#include <errno.h>
#include <stdlib.h>

#include "diskrpc/mailbox.h"
#include "diskrpc/uv_disk.h"
#include "support/temp_lun.h"
#include "support/test.h"

#define NODES      3
#define BIG        (200u * 1024)
#define PATIENCE_S 60

struct node {
    struct world *world;
    struct mailbox *mailbox;
    uint32_t received;
    uint32_t bytes_last;
    bool intact;
    int peers;
    uint64_t term;
    uint64_t dead; /* generation that it was told of */
    uint64_t sent_ns;
};

struct world {
    char path[TEMP_LUN_PATH_SIZE];
    int fd;
    uv_loop_t loop;
    uv_timer_t patience;
    bool patience_lost;
    struct uv_disk *disk;
    struct layout layout;
    struct uuid pool;
    struct hub *hub;
    uint32_t hub_received;
    uint64_t deposed;
    int changes, leaving;
    bool hinting; /* both sides, by calling each other */
    uint32_t hub_wrote, nodes_wrote;
    int closed;
    struct node nodes[NODES + 1];
    uint64_t *samples_ns;
    uint32_t n_samples, n_wanted;
};

static uint8_t big_byte(uint32_t i, uint32_t salt)
{
    return (uint8_t)(i * 31 + i / 251 + salt);
}

static uint8_t *big_message(uint32_t salt)
{
    uint8_t *bytes = malloc(BIG);
    for (uint32_t i = 0; i < BIG; i++)
        bytes[i] = big_byte(i, salt);
    return bytes;
}

static bool big_intact(const uint8_t *bytes, uint32_t len, uint32_t salt)
{
    for (uint32_t i = 0; i < len; i++)
        if (bytes[i] != big_byte(i, salt))
            return false;
    return len == BIG;
}

static void on_patience(uv_timer_t *timer)
{
    struct world *w = timer->data;
    w->patience_lost = true;
}

/* Runs the loop until the condition holds; false when patience is lost. */
#define RUN_UNTIL(w, condition)                                                                    \
    ({                                                                                             \
        uv_timer_start(&(w)->patience, on_patience, PATIENCE_S * 1000, 0);                         \
        while (!(condition) && !(w)->patience_lost)                                                \
            uv_run(&(w)->loop, UV_RUN_ONCE);                                                       \
        uv_timer_stop(&(w)->patience);                                                             \
        !(w)->patience_lost;                                                                       \
    })

static void hub_message(void *data, uint32_t host_id, const uint8_t *bytes, uint32_t len)
{
    struct world *w = data;
    w->hub_received++;
    if (hub_send(w->hub, host_id, bytes, len) < 0) /* an echo */
        abort();
}

static void hub_node_changed(void *data, uint32_t host_id, const struct channel_stats *stats)
{
    struct world *w = data;
    (void)host_id;
    w->changes++;
    w->leaving += (stats->peer_flags & PAGE_FLAG_LEAVING) != 0;
}

static void hub_wrote(void *data, uint32_t host_id)
{
    struct world *w = data;
    w->hub_wrote++;
    if (w->hinting)
        mailbox_hint(w->nodes[host_id].mailbox);
}

static void hub_deposed(void *data, uint64_t term)
{
    ((struct world *)data)->deposed = term;
}

static void node_message(void *data, const uint8_t *bytes, uint32_t len)
{
    struct node *node = data;
    struct world *w = node->world;

    node->received++;
    node->bytes_last = len;
    node->intact = len < BIG || big_intact(bytes, len, (uint32_t)(node - w->nodes));
    if (w->samples_ns && w->n_samples < w->n_wanted) {
        w->samples_ns[w->n_samples++] = uv_hrtime() - node->sent_ns;
        node->sent_ns = uv_hrtime();
        if (mailbox_send(node->mailbox, (const uint8_t *)"ping", 4) < 0)
            abort();
    }
}

static void node_peer_changed(void *data, const struct incarnation *peer)
{
    struct node *node = data;
    node->peers++;
    node->term = peer->run_or_term;
}

static void node_dead(void *data, uint64_t generation)
{
    ((struct node *)data)->dead = generation;
}

static void node_wrote(void *data)
{
    struct node *node = data;
    struct world *w = node->world;
    w->nodes_wrote++;
    if (w->hinting)
        hub_hint(w->hub, (uint32_t)(node - w->nodes));
}

static void count_closed(void *data)
{
    ((struct world *)data)->closed++;
}

static void open_hub_on(struct world *w, struct disk *disk, uint64_t term)
{
    const struct hub_config config = {
        .loop = &w->loop,
        .disk = disk,
        .layout = &w->layout,
        .pool_id = w->pool,
        .self = {.host_id = 1, .generation = 1, .run_or_term = term},
        .callbacks = {.message = hub_message,
                      .node_changed = hub_node_changed,
                      .deposed = hub_deposed,
                      .wrote = hub_wrote},
        .data = w,
    };
    w->hub = hub_open(&config);
}

static void open_hub(struct world *w, uint64_t term)
{
    open_hub_on(w, uv_disk_disk(w->disk), term);
}

static void open_node_on(struct world *w, struct disk *disk, struct node *node, uint32_t host_id,
                         uint64_t run)
{
    const struct mailbox_config config = {
        .loop = &w->loop,
        .disk = disk,
        .layout = &w->layout,
        .pool_id = w->pool,
        .self = {.host_id = host_id, .generation = 1, .run_or_term = run},
        .node_name = "node",
        .callbacks = {.message = node_message,
                      .peer_changed = node_peer_changed,
                      .wrote = node_wrote,
                      .dead = node_dead},
        .data = node,
    };
    *node = (struct node){.world = w, .mailbox = mailbox_open(&config)};
}

static void open_node_as(struct world *w, struct node *node, uint32_t host_id, uint64_t run)
{
    open_node_on(w, uv_disk_disk(w->disk), node, host_id, run);
}

static void open_node(struct world *w, uint32_t host_id, uint64_t run)
{
    open_node_as(w, &w->nodes[host_id], host_id, run);
}

/* False: this file system refuses O_DIRECT. */
static bool world_open_for(struct world *w, uint32_t max_nodes)
{
    *w = (struct world){.pool = uuid_random()};
    layout_compute(max_nodes, 512, &w->layout, NULL);
    uv_loop_init(&w->loop);
    uv_timer_init(&w->loop, &w->patience);
    w->patience.data = w;
    w->fd = temp_lun_open(w->layout.area_start + w->layout.area_size, w->path);
    return w->fd >= 0 && uv_disk_open(&w->loop, w->path, 4, &w->disk, NULL) == 0;
}

static bool world_open(struct world *w)
{
    return world_open_for(w, 8);
}

static bool world_close(struct world *w)
{
    int wanted = w->hub != NULL;
    if (w->hub)
        hub_close(w->hub, count_closed, w);
    for (int i = 1; i <= NODES; i++)
        if (w->nodes[i].mailbox) {
            mailbox_close(w->nodes[i].mailbox, count_closed, w);
            wanted++;
        }
    w->closed = 0;
    bool ok = RUN_UNTIL(w, w->closed == wanted);
    uv_disk_close(w->disk, count_closed, w);
    ok = ok && RUN_UNTIL(w, w->closed == wanted + 1);
    uv_close((uv_handle_t *)&w->patience, NULL);
    uv_run(&w->loop, UV_RUN_DEFAULT);
    ok = ok && uv_loop_close(&w->loop) == 0;
    temp_lun_close(w->fd, w->path);
    free(w->samples_ns);
    return ok;
}

static bool all_joined(const struct world *w)
{
    for (int i = 1; i <= NODES; i++)
        if (w->nodes[i].peers == 0)
            return false;
    return true;
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void safety_8_the_hub_tells_a_node_that_it_is_held_for_dead(void)
{
    struct world w;
    if (!world_open(&w))
        SKIP("no O_DIRECT here");
    open_hub(&w, 1);
    for (uint32_t i = 1; i <= NODES; i++) {
        hub_set_dead(w.hub, 3, 1); /* before its page was ever seen, and again */
        open_node(&w, i, 1);
    }
    CHECK(RUN_UNTIL(&w, all_joined(&w) && w.nodes[3].dead == 1));
    hub_set_dead(w.hub, 2, 1);
    CHECK(RUN_UNTIL(&w, w.nodes[2].dead == 1));
    CHECK_EQ(w.nodes[1].dead, 0);
    CHECK(world_close(&w));
}

static void a_thousand_pings_come_back(void)
{
    struct world w;
    if (!world_open(&w))
        SKIP("no O_DIRECT here");
    open_hub(&w, 1);
    for (uint32_t i = 1; i <= NODES; i++)
        open_node(&w, i, 1);
    CHECK(RUN_UNTIL(&w, all_joined(&w)));
    w.n_wanted = 1000;
    w.samples_ns = calloc(w.n_wanted, sizeof *w.samples_ns);
    w.nodes[2].sent_ns = uv_hrtime();
    CHECK_EQ(mailbox_send(w.nodes[2].mailbox, (const uint8_t *)"ping", 4), 0);
    CHECK(RUN_UNTIL(&w, w.n_samples == w.n_wanted));
    qsort(w.samples_ns, w.n_samples, sizeof *w.samples_ns, by_value);
    const struct channel_stats *up = mailbox_stats(w.nodes[2].mailbox), *down = hub_stats(w.hub, 2);
    printf("# ping: median %.2f ms, p99 %.2f ms; pages written up %.2f, down %.2f per ping\n",
           (double)w.samples_ns[500] / 1e6, (double)w.samples_ns[990] / 1e6,
           (double)up->pages_written / 1000, (double)down->pages_written / 1000);
    CHECK(up->pages_written < 1200 && down->pages_written < 1200);
    CHECK_EQ(up->bad_pages + down->bad_pages, 0);
    CHECK(world_close(&w));
}

static void messages_of_200_kib_go_both_ways_between_all_nodes(void)
{
    struct world w;
    if (!world_open(&w))
        SKIP("no O_DIRECT here");
    open_hub(&w, 1);
    for (uint32_t i = 1; i <= NODES; i++)
        open_node(&w, i, 1);
    CHECK(RUN_UNTIL(&w, all_joined(&w)));
    for (uint32_t i = 1; i <= NODES; i++) {
        uint8_t *bytes = big_message(i);
        for (int n = 0; n < 4; n++) {
            CHECK_EQ(mailbox_send(w.nodes[i].mailbox, bytes, BIG), 0);
            CHECK_EQ(mailbox_send(w.nodes[i].mailbox, (const uint8_t *)"small", 5), 0);
        }
        free(bytes);
    }
    for (int i = 1; i <= NODES; i++) {
        CHECK(RUN_UNTIL(&w, w.nodes[i].received == 8));
        CHECK(w.nodes[i].intact);
        CHECK_EQ(w.nodes[i].bytes_last, 5);
    }
    CHECK(world_close(&w));
}

static void a_second_coordinator_deposes_the_first_and_is_followed(void)
{
    struct world w;
    if (!world_open(&w))
        SKIP("no O_DIRECT here");
    open_hub(&w, 7);
    for (uint32_t i = 1; i <= NODES; i++)
        open_node(&w, i, 1);
    CHECK(RUN_UNTIL(&w, all_joined(&w)));
    struct hub *old = w.hub;
    open_hub(&w, 8);
    CHECK(RUN_UNTIL(&w, w.deposed == 8));
    hub_close(old, count_closed, &w);
    CHECK(RUN_UNTIL(&w, w.closed == 1));
    for (int i = 1; i <= NODES; i++)
        CHECK(RUN_UNTIL(&w, w.nodes[i].term == 8));
    CHECK_EQ(mailbox_send(w.nodes[1].mailbox, (const uint8_t *)"ping", 4), 0);
    CHECK(RUN_UNTIL(&w, w.nodes[1].received == 1));
    CHECK(world_close(&w));
}

static void a_restarted_agent_is_a_new_peer_and_a_leaving_one_is_told(void)
{
    struct world w;
    if (!world_open(&w))
        SKIP("no O_DIRECT here");
    open_hub(&w, 1);
    open_node(&w, 1, 1);
    CHECK(RUN_UNTIL(&w, w.nodes[1].peers == 1));
    mailbox_close(w.nodes[1].mailbox, count_closed, &w);
    CHECK(RUN_UNTIL(&w, w.closed == 1));
    int changes = w.changes;
    open_node(&w, 1, 2);
    CHECK(RUN_UNTIL(&w, w.changes == changes + 1 && w.nodes[1].peers == 1));
    CHECK_EQ(mailbox_send(w.nodes[1].mailbox, (const uint8_t *)"ping", 4), 0);
    CHECK(RUN_UNTIL(&w, w.nodes[1].received == 1));
    mailbox_set_leaving(w.nodes[1].mailbox);
    CHECK(RUN_UNTIL(&w, w.leaving == 1));
    CHECK(RUN_UNTIL(&w, mailbox_idle(w.nodes[1].mailbox)));
    CHECK(world_close(&w));
}

/* Runs the loop for so long. */
static void run_for(struct world *w, uint64_t ms)
{
    uint64_t end = uv_hrtime() + ms * 1000000;
    RUN_UNTIL(w, uv_hrtime() >= end);
}

/* Until the side that polls a node's page has just done so, a second before it does so again. */
static bool run_until_looked(struct world *w, const struct channel_stats *stats)
{
    uint64_t before = stats->pages_read;
    return RUN_UNTIL(w, stats->pages_read > before);
}

static void a_hint_saves_an_idle_node_and_its_coordinator_the_wait(void)
{
    struct world w;
    if (!world_open(&w))
        SKIP("no O_DIRECT here");
    open_hub(&w, 1);
    open_node(&w, 2, 1);
    CHECK(RUN_UNTIL(&w, w.nodes[2].peers > 0));
    w.hinting = true;
    run_for(&w, CHANNEL_HOT_US / 1000 + 300);
    CHECK(run_until_looked(&w, hub_stats(w.hub, 2)));
    uint64_t start = uv_hrtime();
    CHECK_EQ(mailbox_send(w.nodes[2].mailbox, (const uint8_t *)"ping", 4), 0);
    CHECK(RUN_UNTIL(&w, w.hub_received == 1));
    CHECK(uv_hrtime() - start < 500000000);
    CHECK_EQ(w.nodes_wrote, 1);
    CHECK(RUN_UNTIL(&w, w.nodes[2].received == 1));

    run_for(&w, CHANNEL_HOT_US / 1000 + 300);
    CHECK(run_until_looked(&w, mailbox_stats(w.nodes[2].mailbox)));
    start = uv_hrtime();
    CHECK_EQ(hub_send(w.hub, 2, (const uint8_t *)"order", 5), 0);
    CHECK(RUN_UNTIL(&w, w.nodes[2].received == 2));
    CHECK(uv_hrtime() - start < 500000000);
    CHECK_EQ(w.hub_wrote, 2);
    hub_hint(w.hub, 1); /* never seen: nothing happens */
    hub_hint(w.hub, 4000000000u);
    CHECK(world_close(&w));
}

static void an_idle_node_reads_about_once_a_second(void)
{
    struct world w;
    if (!world_open(&w))
        SKIP("no O_DIRECT here");
    open_hub(&w, 1);
    open_node(&w, 2, 1);
    CHECK(RUN_UNTIL(&w, w.nodes[2].peers > 0));
    run_for(&w, CHANNEL_HOT_US / 1000 + 500);
    const struct channel_stats *agent = mailbox_stats(w.nodes[2].mailbox);
    const struct channel_stats *hub = hub_stats(w.hub, 2);
    uint64_t agent_before = agent->pages_read, hub_before = hub->pages_read;
    uint64_t written_before = agent->pages_written;
    run_for(&w, 5000);
    CHECK(agent->pages_read - agent_before >= 3 && agent->pages_read - agent_before <= 6);
    CHECK(hub->pages_read - hub_before >= 3 && hub->pages_read - hub_before <= 6); /* the scan's */
    CHECK(agent->pages_written - written_before <= 6);
    CHECK(world_close(&w));
}

static void nothing_can_be_sent_to_a_node_that_was_never_seen(void)
{
    struct world w;
    if (!world_open(&w))
        SKIP("no O_DIRECT here");
    open_hub(&w, 1);
    open_node(&w, 1, 1);
    CHECK_EQ(hub_send(w.hub, 2, (const uint8_t *)"x", 1), LUNAR_E_NOT_JOINED);
    CHECK(hub_stats(w.hub, 2) == NULL);
    CHECK_EQ(mailbox_send(w.nodes[1].mailbox, (const uint8_t *)"x", 1), LUNAR_E_NOT_JOINED);
    CHECK(world_close(&w));
}

/* --- a crowd --- */

#define CROWD 100u

/* A disk that counts the reads of single up pages on their way to another one. */
struct counting_disk {
    struct disk disk;
    struct disk *real;
    const struct layout *layout;
    uint32_t page_reads;
};

static void count_and_submit(struct disk *base, struct disk_op *op)
{
    struct counting_disk *d = (struct counting_disk *)base;
    d->page_reads += !op->write && op->len == LAYOUT_PAGE_SIZE &&
                     op->offset >= d->layout->up_pages && op->offset < d->layout->down_pages;
    disk_submit(d->real, op);
}

struct crowd {
    struct world world;
    struct counting_disk counter;
    struct node nodes[CROWD + 1];
};

static uint32_t crowd_received(const struct crowd *c)
{
    uint32_t n = 0;
    for (uint32_t i = 1; i <= CROWD; i++)
        n += c->nodes[i].received;
    return n;
}

static bool crowd_joined(const struct crowd *c)
{
    for (uint32_t i = 1; i <= CROWD; i++)
        if (c->nodes[i].peers == 0)
            return false;
    return true;
}

static bool crowd_send(struct crowd *c)
{
    for (uint32_t i = 1; i <= CROWD; i++)
        if (mailbox_send(c->nodes[i].mailbox, (const uint8_t *)"ping", 4) < 0)
            return false;
    return true;
}

static bool crowd_open(struct crowd *c)
{
    static const struct disk_ops ops = {.submit = count_and_submit};
    struct world *w = &c->world;

    memset(c, 0, sizeof *c);
    if (!world_open_for(w, CROWD))
        return false;
    c->counter = (struct counting_disk){{&ops}, uv_disk_disk(w->disk), &w->layout, 0};
    open_hub_on(w, &c->counter.disk, 1);
    for (uint32_t i = 1; i <= CROWD; i++)
        open_node_as(w, &c->nodes[i], i, 1);
    return true;
}

static bool crowd_close(struct crowd *c)
{
    struct world *w = &c->world;
    for (uint32_t i = 1; i <= CROWD; i++)
        mailbox_close(c->nodes[i].mailbox, count_closed, w);
    w->closed = 0;
    return RUN_UNTIL(w, w->closed == (int)CROWD) && world_close(w);
}

static void a_crowd_is_read_with_the_table_and_a_few_page_by_page(void)
{
    static struct crowd c;
    if (!crowd_open(&c))
        SKIP("no O_DIRECT here");
    CHECK(RUN_UNTIL(&c.world, crowd_joined(&c)));
    CHECK(crowd_send(&c)); /* the scan that meets these finds everybody hot */
    CHECK(RUN_UNTIL(&c.world, crowd_received(&c) == CROWD));
    uint32_t before = c.counter.page_reads;
    for (uint32_t round = 2; round <= 6; round++) {
        CHECK(crowd_send(&c));
        CHECK(RUN_UNTIL(&c.world, crowd_received(&c) == round * CROWD));
    }
    CHECK_EQ(c.counter.page_reads - before, 0);

    /* All but one fall silent; its pings find the hub as fast as ever once the crowd is over. */
    struct node *one = &c.nodes[7];
    uint64_t end = uv_now(&c.world.loop) + 4 * CHANNEL_HOT_US / 1000;
    while (c.counter.page_reads == before && uv_now(&c.world.loop) < end) {
        uint32_t received = one->received;
        CHECK_EQ(mailbox_send(one->mailbox, (const uint8_t *)"ping", 4), 0);
        CHECK(RUN_UNTIL(&c.world, one->received == received + 1));
    }
    CHECK(c.counter.page_reads > before);
    for (uint32_t i = 1; i <= CROWD; i++) {
        const struct channel_stats *s = mailbox_stats(c.nodes[i].mailbox);
        CHECK_EQ(s->bad_pages + s->resends, 0);
    }
    CHECK(crowd_close(&c));
}

/* --- a bad block --- */

/* A disk that fails every read that covers one node's up page. */
struct scarred_disk {
    struct disk disk;
    struct disk *real;
    uint64_t scar;
    uint32_t failures;
};

static void fail_or_submit(struct disk *base, struct disk_op *op)
{
    struct scarred_disk *d = (struct scarred_disk *)base;
    if (!op->write && op->offset <= d->scar && d->scar < op->offset + op->len) {
        d->failures++;
        op->offset = (uint64_t)INT64_MAX / LAYOUT_PAGE_SIZE * LAYOUT_PAGE_SIZE -
                     LAYOUT_SPILL_SIZE; /* behind the end: fails in the kernel */
    }
    disk_submit(d->real, op);
}

static void an_unreadable_page_in_the_table_silences_its_own_node_alone(void)
{
    static const struct disk_ops ops = {.submit = fail_or_submit};
    struct world w;
    if (!world_open(&w))
        SKIP("no O_DIRECT here");
    struct scarred_disk scarred = {{&ops}, uv_disk_disk(w.disk), layout_up_page(&w.layout, 2), 0};
    open_hub_on(&w, &scarred.disk, 1);
    for (uint32_t i = 1; i <= NODES; i++)
        open_node(&w, i, 1);
    CHECK(RUN_UNTIL(&w, w.nodes[1].peers > 0 && w.nodes[3].peers > 0));
    CHECK(hub_stats(w.hub, 2) == NULL);
    CHECK(scarred.failures >= 2); /* the chunk's and the page's */
    CHECK_EQ(mailbox_send(w.nodes[1].mailbox, (const uint8_t *)"ping", 4), 0);
    CHECK(RUN_UNTIL(&w, w.nodes[1].received == 1));

    /* The idle one next to it is read with each scan as ever. */
    uint64_t pages = hub_stats(w.hub, 3)->pages_read;
    CHECK(RUN_UNTIL(&w, hub_stats(w.hub, 3)->pages_read >= pages + 3));
    scarred.scar = UINT64_MAX;
    CHECK(RUN_UNTIL(&w, all_joined(&w)));
    CHECK(world_close(&w));
}

/* --- a preempted reservation --- */

/* A disk that ends every write as the kernel does when another's reservation forbids it. */
struct reserved_disk {
    struct disk disk;
    struct disk *real;
    disk_done_fn done;
    bool reserved;
};

static struct reserved_disk reserved;

static void write_refused(struct disk_op *op, int status)
{
    (void)status;
    op->done = reserved.done;
    op->done(op, -EBADE);
}

static void refuse_or_submit(struct disk *base, struct disk_op *op)
{
    (void)base;
    if (op->write && reserved.reserved) {
        reserved.done = op->done;
        op->done = write_refused;
    }
    disk_submit(reserved.real, op);
}

static void safety_13_a_page_that_a_reservation_refuses_is_told(void)
{
    static const struct disk_ops ops = {.submit = refuse_or_submit};
    struct world w;
    if (!world_open(&w))
        SKIP("no O_DIRECT here");
    reserved = (struct reserved_disk){.disk = {&ops}, .real = uv_disk_disk(w.disk)};
    open_hub(&w, 1);
    open_node_on(&w, &reserved.disk, &w.nodes[1], 1, 1);
    CHECK(RUN_UNTIL(&w, w.nodes[1].peers > 0));
    CHECK(!mailbox_refused(w.nodes[1].mailbox));
    reserved.reserved = true;
    CHECK(RUN_UNTIL(&w, mailbox_refused(w.nodes[1].mailbox)));
    reserved.reserved = false;
    CHECK(RUN_UNTIL(&w, !mailbox_refused(w.nodes[1].mailbox)));
    CHECK(world_close(&w));
}

TEST_MAIN(TEST(safety_8_the_hub_tells_a_node_that_it_is_held_for_dead),
          TEST(a_thousand_pings_come_back),
          TEST(messages_of_200_kib_go_both_ways_between_all_nodes),
          TEST(a_second_coordinator_deposes_the_first_and_is_followed),
          TEST(a_restarted_agent_is_a_new_peer_and_a_leaving_one_is_told),
          TEST(a_hint_saves_an_idle_node_and_its_coordinator_the_wait),
          TEST(an_idle_node_reads_about_once_a_second),
          TEST(nothing_can_be_sent_to_a_node_that_was_never_seen),
          TEST(a_crowd_is_read_with_the_table_and_a_few_page_by_page),
          TEST(an_unreadable_page_in_the_table_silences_its_own_node_alone),
          TEST(safety_13_a_page_that_a_reservation_refuses_is_told))
