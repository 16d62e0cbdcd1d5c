/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hints between mailboxes and a hub, over loopback, a real loop and a real O_DIRECT file, wired as
 * the daemons wire them: what they save, and that nothing depends on them.
 */
#include <arpa/inet.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/le.h"
#include "diskrpc/hint.h"
#include "diskrpc/mailbox.h"
#include "diskrpc/uv_disk.h"
#include "support/temp_lun.h"
#include "support/test.h"

#define NODES      3
#define MAX_NODES  8
#define SPILLED    (20u * 1024)
#define PATIENCE_S 60

enum mode { HINTED, LOST, OFF };

/* A numbered echo: the node sends 1, 2, 3, ..., the hub sends each back. */
struct node {
    struct world *world;
    struct mailbox *mailbox;
    struct hint *hint;
    uint32_t host_id;
    int peers;
    uint32_t sent, at_hub, echoed;
    uint32_t out_of_order; /* lost, doubled or swapped, at either end */
    uint64_t sent_ns, echo_ns;
};

struct world {
    char path[TEMP_LUN_PATH_SIZE];
    int fd;
    uv_loop_t loop;
    uv_timer_t timer, patience;
    bool rung, patience_lost;
    enum mode mode;
    struct uv_disk *disk;
    struct layout layout;
    struct uuid pool;
    struct hub *hub;
    struct hint *hint;
    int black_hole; /* a port where nobody listens to what arrives */
    struct hint_address nowhere;
    int closed;
    uint32_t goal; /* echoes that each node goes on for */
    struct node nodes[NODES + 1];
};

static void on_timer(uv_timer_t *timer)
{
    *(bool *)timer->data = true;
}

/* Runs the loop until the condition holds; false when patience is lost. */
#define RUN_UNTIL(w, condition)                                                                    \
    ({                                                                                             \
        uv_timer_start(&(w)->patience, on_timer, PATIENCE_S * 1000, 0);                            \
        while (!(condition) && !(w)->patience_lost)                                                \
            uv_run(&(w)->loop, UV_RUN_ONCE);                                                       \
        uv_timer_stop(&(w)->patience);                                                             \
        !(w)->patience_lost;                                                                       \
    })

static bool run_for(struct world *w, uint64_t ms)
{
    w->rung = false;
    uv_timer_start(&w->timer, on_timer, ms, 0);
    return RUN_UNTIL(w, w->rung);
}

static void send_next(struct node *node)
{
    static uint8_t bytes[SPILLED];
    uint32_t len = node->sent % 50 == 49 ? SPILLED : 4;

    le32_put(bytes, ++node->sent);
    node->sent_ns = uv_hrtime();
    if (mailbox_send(node->mailbox, bytes, len) < 0)
        abort();
}

static void node_message(void *data, const uint8_t *bytes, uint32_t len)
{
    struct node *node = data;

    if (len < 4 || le32_get(bytes) == 0) {
        node->echo_ns = uv_hrtime(); /* the hub's own word, not an echo */
        return;
    }
    node->out_of_order += le32_get(bytes) != ++node->echoed;
    node->echo_ns = uv_hrtime();
    if (node->echoed < node->world->goal)
        send_next(node);
}

static void node_peer_changed(void *data, const struct incarnation *peer)
{
    (void)peer;
    ((struct node *)data)->peers++;
}

static void node_wrote(void *data)
{
    struct node *node = data;
    hint_send(node->hint, &mailbox_stats(node->mailbox)->peer_hint, node->host_id);
}

static void node_looked(void *data, uint32_t slot)
{
    struct node *node = data;
    (void)slot;
    mailbox_hint(node->mailbox);
}

static void hub_message(void *data, uint32_t host_id, const uint8_t *bytes, uint32_t len)
{
    struct world *w = data;
    struct node *node = &w->nodes[host_id];
    node->out_of_order += le32_get(bytes) != ++node->at_hub;
    if (hub_send(w->hub, host_id, bytes, len) < 0)
        abort();
}

static void hub_node_changed(void *data, uint32_t host_id, const struct channel_stats *stats)
{
    (void)data;
    (void)host_id;
    (void)stats;
}

static void hub_deposed(void *data, uint64_t term)
{
    (void)data;
    (void)term;
    abort();
}

static void hub_wrote(void *data, uint32_t host_id)
{
    struct world *w = data;
    hint_send(w->hint, &hub_stats(w->hub, host_id)->peer_hint, host_id);
}

static void hub_looked(void *data, uint32_t slot)
{
    hub_hint(((struct world *)data)->hub, slot);
}

static void count_closed(void *data)
{
    ((struct world *)data)->closed++;
}

/* --- the world --- */

static struct hint *open_hint(struct world *w, uint32_t slot_min, uint32_t slot_max,
                              void (*looked)(void *data, uint32_t slot), void *data)
{
    const struct hint_config config = {.loop = &w->loop,
                                       .pool_id = w->pool,
                                       .bind = {.ip = {[10] = 0xff, [11] = 0xff, 127, 0, 0, 1}},
                                       .slot_min = slot_min,
                                       .slot_max = slot_max,
                                       .looked = looked,
                                       .data = data};
    struct hint *hint = NULL;
    if (w->mode != OFF && hint_open(&config, &hint, NULL) < 0)
        abort();
    return hint;
}

/* What is published. */
static struct hint_address published(const struct world *w, const struct hint *hint)
{
    return w->mode == LOST ? w->nowhere : hint_address(hint);
}

static void open_hub(struct world *w)
{
    w->hint = open_hint(w, 1, MAX_NODES, hub_looked, w);
    const struct hub_config config = {
        .loop = &w->loop,
        .disk = uv_disk_disk(w->disk),
        .layout = &w->layout,
        .pool_id = w->pool,
        .self = {.host_id = 1, .generation = 1, .run_or_term = 1},
        .hint = published(w, w->hint),
        .callbacks = {.message = hub_message,
                      .node_changed = hub_node_changed,
                      .deposed = hub_deposed,
                      .wrote = hub_wrote},
        .data = w,
    };
    w->hub = hub_open(&config);
}

static void open_node(struct world *w, uint32_t host_id)
{
    struct node *node = &w->nodes[host_id];
    *node = (struct node){.world = w, .host_id = host_id};
    node->hint = open_hint(w, host_id, host_id, node_looked, node);
    const struct mailbox_config config = {
        .loop = &w->loop,
        .disk = uv_disk_disk(w->disk),
        .layout = &w->layout,
        .pool_id = w->pool,
        .self = {.host_id = host_id, .generation = 1, .run_or_term = 1},
        .node_name = "node",
        .hint = published(w, node->hint),
        .callbacks = {.message = node_message,
                      .peer_changed = node_peer_changed,
                      .wrote = node_wrote},
        .data = node,
    };
    node->mailbox = mailbox_open(&config);
}

static void open_black_hole(struct world *w)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof in;

    w->black_hole = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (bind(w->black_hole, (struct sockaddr *)&in, len) < 0 ||
        getsockname(w->black_hole, (struct sockaddr *)&in, &len) < 0)
        abort();
    w->nowhere = (struct hint_address){.ip = {[10] = 0xff, [11] = 0xff, 127, 0, 0, 1},
                                       .port = ntohs(in.sin_port)};
}

static bool all_joined(const struct world *w)
{
    for (int i = 1; i <= NODES; i++)
        if (w->nodes[i].peers == 0)
            return false;
    return true;
}

static bool all_echoed(const struct world *w, uint32_t n)
{
    for (int i = 1; i <= NODES; i++)
        if (w->nodes[i].echoed < n)
            return false;
    return true;
}

/* False: this file system refuses O_DIRECT. */
static bool world_open(struct world *w, enum mode mode)
{
    *w = (struct world){.mode = mode, .pool = uuid_random()};
    layout_compute(MAX_NODES, 512, &w->layout, NULL);
    uv_loop_init(&w->loop);
    uv_timer_init(&w->loop, &w->timer);
    uv_timer_init(&w->loop, &w->patience);
    w->timer.data = &w->rung;
    w->patience.data = &w->patience_lost;
    open_black_hole(w);
    w->fd = temp_lun_open(w->layout.area_start + w->layout.area_size, w->path);
    if (w->fd < 0 || uv_disk_open(&w->loop, w->path, 4, &w->disk, NULL) < 0)
        return false;
    open_hub(w);
    for (uint32_t i = 1; i <= NODES; i++)
        open_node(w, i);
    return true;
}

static bool world_close(struct world *w)
{
    int wanted = 1 + NODES;
    if (w->hint)
        hint_close(w->hint, NULL, NULL);
    hub_close(w->hub, count_closed, w);
    for (int i = 1; i <= NODES; i++) {
        if (w->nodes[i].hint)
            hint_close(w->nodes[i].hint, NULL, NULL);
        mailbox_close(w->nodes[i].mailbox, count_closed, w);
    }
    bool ok = RUN_UNTIL(w, w->closed == wanted);
    uv_disk_close(w->disk, count_closed, w);
    ok = ok && RUN_UNTIL(w, w->closed == wanted + 1);
    uv_close((uv_handle_t *)&w->timer, NULL);
    uv_close((uv_handle_t *)&w->patience, NULL);
    uv_run(&w->loop, UV_RUN_DEFAULT);
    ok = ok && uv_loop_close(&w->loop) == 0;
    close(w->black_hole);
    temp_lun_close(w->fd, w->path);
    return ok;
}

static uint64_t pages_read(const struct world *w)
{
    uint64_t n = 0;
    for (uint32_t i = 1; i <= NODES; i++)
        n += mailbox_stats(w->nodes[i].mailbox)->pages_read + hub_stats(w->hub, i)->pages_read;
    return n;
}

/* Until nobody polls fast any more: then a node reads once a second by itself, and so does the
 * hub's scan; while hot a node reads every 50 ms at least. */
static bool settle(struct world *w)
{
    for (;;) {
        uint64_t before = pages_read(w);
        if (!run_for(w, 600))
            return false;
        if (pages_read(w) - before <= 2 * 2 * NODES)
            return true;
    }
}

/* --- what they save --- */

static double echo_ms(const struct node *node)
{
    return (double)(node->echo_ns - node->sent_ns) / 1e6;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* All nodes say something from idle; returns the median of the round trips. */
static double idle_round_trip_ms(struct world *w)
{
    double samples[NODES];
    for (uint32_t i = 1; i <= NODES; i++)
        send_next(&w->nodes[i]);
    if (!RUN_UNTIL(w, all_echoed(w, 1)))
        return 1e9;
    for (uint32_t i = 1; i <= NODES; i++) {
        samples[i - 1] = echo_ms(&w->nodes[i]);
        printf("# from idle: %.2f ms\n", samples[i - 1]);
    }
    qsort(samples, NODES, sizeof *samples, by_value);
    return samples[NODES / 2];
}

static void an_idle_node_is_answered_at_once(void)
{
    struct world w;
    if (!world_open(&w, HINTED))
        SKIP("no O_DIRECT here");
    CHECK(RUN_UNTIL(&w, all_joined(&w)));
    CHECK(settle(&w));
    CHECK(idle_round_trip_ms(&w) < 100);
    CHECK(hint_stats(w.hint)->received >= NODES);
    CHECK(world_close(&w));
}

static void an_idle_node_hears_a_command_at_once(void)
{
    struct world w;
    const uint8_t command[4] = {0};
    double samples[NODES];
    if (!world_open(&w, HINTED))
        SKIP("no O_DIRECT here");
    CHECK(RUN_UNTIL(&w, all_joined(&w)));
    CHECK(settle(&w));
    for (uint32_t i = 1; i <= NODES; i++) {
        struct node *node = &w.nodes[i];
        node->echo_ns = 0;
        node->sent_ns = uv_hrtime();
        CHECK_EQ(hub_send(w.hub, i, command, sizeof command), 0);
        CHECK(RUN_UNTIL(&w, node->echo_ns != 0));
        CHECK_EQ(hint_stats(node->hint)->received, 1);
        samples[i - 1] = echo_ms(node);
        printf("# command to an idle node: %.2f ms\n", samples[i - 1]);
    }
    qsort(samples, NODES, sizeof *samples, by_value);
    CHECK(samples[NODES / 2] < 100);
    CHECK(world_close(&w));
}

/* --- and that nothing depends on them --- */

static void polling_answers(enum mode mode)
{
    struct world w;
    if (!world_open(&w, mode))
        SKIP("no O_DIRECT here");
    CHECK(RUN_UNTIL(&w, all_joined(&w)));
    CHECK(settle(&w));
    CHECK(idle_round_trip_ms(&w) < 3000); /* a scan, a read, and a busy machine's delays */
    for (uint32_t i = 1; i <= NODES; i++) {
        CHECK_EQ(w.nodes[i].out_of_order, 0);
        CHECK(mode == OFF ? w.nodes[i].hint == NULL : hint_stats(w.nodes[i].hint)->sent > 0);
        CHECK(mode == OFF || hint_stats(w.nodes[i].hint)->received == 0);
    }
    CHECK(mode == OFF ? w.hint == NULL : hint_stats(w.hint)->received == 0);
    CHECK(world_close(&w));
}

static void lost_hints_leave_it_to_polling(void)
{
    polling_answers(LOST);
}

static void without_hints_polling_answers(void)
{
    polling_answers(OFF);
}

struct forger {
    struct uuid pool;
    uint16_t ports[NODES + 1];
    atomic_bool stop;
    uint64_t thrown;
};

/* Every slot and some that are none, to everybody, about 100,000 datagrams a second. */
static void *forge(void *data)
{
    struct forger *f = data;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    uint8_t bytes[HINT_DATAGRAM_SIZE] = "LHNT\1";
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    memcpy(bytes + 8, f->pool.b, 16);
    while (!atomic_load(&f->stop)) {
        uint64_t n = f->thrown++;
        le32_put(bytes + 24, (uint32_t)(n / (NODES + 1) % (MAX_NODES + 4)));
        to.sin_port = htons(f->ports[n % (NODES + 1)]);
        (void)!sendto(fd, bytes, sizeof bytes, 0, (struct sockaddr *)&to, sizeof to);
        if (n % 200 == 0)
            usleep(1500);
    }
    close(fd);
    return NULL;
}

static void forged_hints_lose_and_double_nothing(void)
{
    struct world w;
    pthread_t thread;
    struct forger f = {.thrown = 0};
    if (!world_open(&w, HINTED))
        SKIP("no O_DIRECT here");
    f.pool = w.pool;
    f.ports[0] = hint_address(w.hint).port;
    for (int i = 1; i <= NODES; i++)
        f.ports[i] = hint_address(w.nodes[i].hint).port;
    CHECK_EQ(pthread_create(&thread, NULL, forge, &f), 0); /* also while they join */
    bool joined = RUN_UNTIL(&w, all_joined(&w));
    w.goal = 300;
    for (int i = 1; joined && i <= NODES; i++)
        send_next(&w.nodes[i]);
    bool done = joined && RUN_UNTIL(&w, all_echoed(&w, w.goal)) && run_for(&w, 200);
    atomic_store(&f.stop, true);
    pthread_join(thread, NULL);
    CHECK(done);
    for (int i = 1; i <= NODES; i++) {
        CHECK_EQ(w.nodes[i].out_of_order, 0);
        CHECK_EQ(w.nodes[i].at_hub, w.goal);
        CHECK_EQ(w.nodes[i].echoed, w.goal);
        CHECK(hint_stats(w.nodes[i].hint)->dropped_bad > 0);
    }
    const struct hint_stats *s = hint_stats(w.hint);
    printf("# %llu forged; the hub looked %llu times, dropped %llu for their rate, %llu as bad\n",
           (unsigned long long)f.thrown, (unsigned long long)s->received,
           (unsigned long long)s->dropped_rate, (unsigned long long)s->dropped_bad);
    CHECK(f.thrown > 1000 && s->received > 100);
    CHECK(world_close(&w));
}

TEST_MAIN(TEST(an_idle_node_is_answered_at_once), TEST(an_idle_node_hears_a_command_at_once),
          TEST(lost_hints_leave_it_to_polling), TEST(without_hints_polling_answers),
          TEST(forged_hints_lose_and_double_nothing))
