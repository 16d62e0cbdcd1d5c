/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hints over loopback: what arrives, what is dropped, what a flood costs. Every test closes its
 * sockets and lets the loop run dry, so that a leaked handle hangs it.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/le.h"
#include "base/log.h"
#include "diskrpc/hint.h"
#include "diskrpc/layout.h"
#include "support/test.h"

#define SLOTS       LAYOUT_NODES_MAX
#define PATIENCE_MS 10000u
#define SETTLE_MS   30u /* what loopback brings at all is there by then: it is synchronous */

static const struct uuid pool = {{0xa0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}};

struct world {
    uv_loop_t loop;
    uv_timer_t timer;
    bool rung;
    struct hint *hint;
    uint32_t looks, slot;
    bool close_in_look;
    int raw; /* a socket that is not ours: an attacker, or a listener */
};

static void on_timer(uv_timer_t *timer)
{
    ((struct world *)timer->data)->rung = true;
}

static void on_looked(void *data, uint32_t slot)
{
    struct world *w = data;
    w->looks++;
    w->slot = slot;
    if (w->close_in_look) {
        hint_close(w->hint, NULL, NULL);
        w->hint = NULL;
    }
}

static struct hint_config config_of(struct world *w, const char *where)
{
    struct hint_option option;
    if (hint_option_parse(where, &option, NULL) < 0)
        abort();
    return (struct hint_config){.loop = &w->loop,
                                .pool_id = pool,
                                .bind = option.bind,
                                .slot_min = 1,
                                .slot_max = SLOTS,
                                .looked = on_looked,
                                .data = w};
}

/* False: no such address here. */
static bool world_open(struct world *w, const char *where)
{
    *w = (struct world){.raw = -1};
    uv_loop_init(&w->loop);
    uv_timer_init(&w->loop, &w->timer);
    w->timer.data = w;
    struct hint_config config = config_of(w, where);
    if (hint_open(&config, &w->hint, NULL) < 0)
        return false;
    w->raw = socket(strchr(where, '[') ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    return w->raw >= 0;
}

static bool world_close(struct world *w)
{
    if (w->raw >= 0)
        close(w->raw);
    if (w->hint)
        hint_close(w->hint, NULL, NULL);
    uv_close((uv_handle_t *)&w->timer, NULL);
    uv_run(&w->loop, UV_RUN_DEFAULT);
    return uv_loop_close(&w->loop) == 0;
}

static void run_for(struct world *w, uint64_t ms)
{
    w->rung = false;
    uv_timer_start(&w->timer, on_timer, ms, 0);
    while (!w->rung)
        uv_run(&w->loop, UV_RUN_ONCE);
}

static bool run_until_looks(struct world *w, uint32_t looks)
{
    w->rung = false;
    uv_timer_start(&w->timer, on_timer, PATIENCE_MS, 0);
    while (!w->rung && w->looks < looks)
        uv_run(&w->loop, UV_RUN_ONCE);
    uv_timer_stop(&w->timer);
    return w->looks >= looks;
}

static socklen_t sockaddr_of(const struct hint_address *a, struct sockaddr_storage *ret)
{
    memset(ret, 0, sizeof *ret);
    if (hint_address_is_ipv4(a)) {
        struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(a->port)};
        memcpy(&in.sin_addr, a->ip + 12, 4);
        memcpy(ret, &in, sizeof in);
        return sizeof in;
    }
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(a->port)};
    memcpy(&in6.sin6_addr, a->ip, 16);
    memcpy(ret, &in6, sizeof in6);
    return sizeof in6;
}

/* The datagram as docs/PROTOCOL.md has it, made by other code than the one under test. */
static void forge(uint8_t p[HINT_DATAGRAM_SIZE], uint32_t slot)
{
    memcpy(p, "LHNT\1\0\0\0", 8);
    memcpy(p + 8, pool.b, 16);
    le32_put(p + 24, slot);
}

static void throw_at(const struct world *w, const void *bytes, size_t len)
{
    struct hint_address to = hint_address(w->hint);
    struct sockaddr_storage storage;
    socklen_t n = sockaddr_of(&to, &storage);
    if (sendto(w->raw, bytes, len, 0, (struct sockaddr *)&storage, n) < 0)
        abort();
}

/* Two sockets of ours, as a node and a coordinator have them. */
static void round_trip(const char *where)
{
    struct world a, b;
    if (!world_open(&a, where) || !world_open(&b, where)) {
        if (strchr(where, '['))
            SKIP("no IPv6 on the loopback interface here");
        CHECK(!"no IPv4");
    }
    struct hint_address to_a = hint_address(a.hint), to_b = hint_address(b.hint);
    CHECK(hint_address_sendable(&to_a) && hint_address_sendable(&to_b));
    CHECK(to_a.port != to_b.port);
    hint_send(a.hint, &to_b, 7);
    CHECK(run_until_looks(&b, 1));
    CHECK_EQ(b.slot, 7);
    hint_send(b.hint, &to_a, SLOTS);
    CHECK(run_until_looks(&a, 1));
    CHECK_EQ(a.slot, SLOTS);
    CHECK_EQ(hint_stats(a.hint)->sent, 1);
    CHECK_EQ(hint_stats(b.hint)->sent, 1);
    CHECK_EQ(hint_stats(b.hint)->received, 1);
    CHECK_EQ(a.looks + b.looks, 2); /* nothing is answered */
    CHECK(world_close(&a) && world_close(&b));
}

static void a_hint_arrives_over_ipv4(void)
{
    round_trip("127.0.0.1");
}

static void a_hint_arrives_over_ipv6(void)
{
    round_trip("[::1]");
}

static void the_datagram_is_the_documented_bytes(void)
{
    struct world w;
    uint8_t got[64], want[HINT_DATAGRAM_SIZE];
    CHECK(world_open(&w, "127.0.0.1"));
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof in;
    CHECK_EQ(bind(w.raw, (struct sockaddr *)&in, sizeof in), 0);
    CHECK_EQ(getsockname(w.raw, (struct sockaddr *)&in, &len), 0);
    struct hint_address to = hint_address(w.hint);
    to.port = ntohs(in.sin_port);
    hint_send(w.hint, &to, 0x123);
    CHECK_EQ(recv(w.raw, got, sizeof got, MSG_DONTWAIT), HINT_DATAGRAM_SIZE);
    forge(want, 0x123);
    CHECK(memcmp(got, want, sizeof want) == 0);
    CHECK(world_close(&w));
}

static void sends_to_one_slot_are_a_millisecond_apart(void)
{
    struct world w, other;
    CHECK(world_open(&w, "127.0.0.1") && world_open(&other, "127.0.0.1"));
    struct hint_address to = hint_address(other.hint);
    uint64_t began = uv_hrtime();
    for (int i = 0; i < 10000; i++)
        hint_send(w.hint, &to, 3);
    uint64_t spent_ms = (uv_hrtime() - began) / 1000000;
    const struct hint_stats *stats = hint_stats(w.hint);
    CHECK(stats->sent >= 1 && stats->sent <= spent_ms + 1);
    CHECK_EQ(stats->sent + stats->send_left_out, 10000);
    uint64_t before = stats->sent;
    hint_send(w.hint, &to, 4); /* another slot is another peer */
    CHECK_EQ(stats->sent, before + 1);
    run_for(&w, 5);
    hint_send(w.hint, &to, 3);
    CHECK_EQ(stats->sent, before + 2);
    CHECK(world_close(&w) && world_close(&other));
}

static void what_is_no_hint_for_us_is_dropped_and_counted(void)
{
    struct world w;
    uint8_t p[HINT_DATAGRAM_SIZE + 1] = {0};
    static uint8_t huge[9000];
    uint32_t bad = 0;
    CHECK(world_open(&w, "127.0.0.1"));
    for (uint32_t bit = 0; bit < 24 * 8; bit++) { /* magic, version, zero, pool: any bit of them */
        forge(p, 1);
        p[bit / 8] ^= (uint8_t)(1 << bit % 8);
        throw_at(&w, p, HINT_DATAGRAM_SIZE);
        bad++;
        if (bit % 32 == 31)
            run_for(&w, SETTLE_MS);
    }
    forge(p, 1);
    memcpy(huge, p, HINT_DATAGRAM_SIZE);
    const size_t lengths[] = {0, 1, 24, HINT_DATAGRAM_SIZE - 1, HINT_DATAGRAM_SIZE + 1};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++, bad++)
        throw_at(&w, p, lengths[i]);
    throw_at(&w, huge, sizeof huge);
    bad++;
    const uint32_t slots[] = {0, SLOTS + 1, UINT32_MAX, 1u << 31};
    for (size_t i = 0; i < sizeof slots / sizeof *slots; i++, bad++) {
        forge(p, slots[i]);
        throw_at(&w, p, HINT_DATAGRAM_SIZE);
    }
    run_for(&w, SETTLE_MS);
    CHECK_EQ(hint_stats(w.hint)->dropped_bad, bad);
    CHECK_EQ(w.looks, 0);
    forge(p, 1); /* and the same bytes unbroken are one */
    throw_at(&w, p, HINT_DATAGRAM_SIZE);
    CHECK(run_until_looks(&w, 1));
    CHECK(world_close(&w));
}

static void every_node_of_the_largest_pool_may_say_look_at_once(void)
{
    struct world w;
    uint8_t p[HINT_DATAGRAM_SIZE];
    CHECK(world_open(&w, "127.0.0.1"));
    for (uint32_t slot = 1; slot <= SLOTS; slot++) {
        forge(p, slot);
        throw_at(&w, p, sizeof p);
        if (slot % 50 == 0) /* the socket's buffer holds a few hundred */
            CHECK(run_until_looks(&w, slot));
    }
    CHECK_EQ(w.looks, SLOTS);
    CHECK_EQ(hint_stats(w.hint)->dropped_rate, 0);
    CHECK(world_close(&w));
}

static void looks_at_one_slot_are_a_millisecond_apart(void)
{
    struct world w;
    uint8_t p[HINT_DATAGRAM_SIZE];
    CHECK(world_open(&w, "127.0.0.1"));
    forge(p, 5);
    uint64_t began = uv_hrtime();
    for (int i = 0; i < 2000; i++) {
        throw_at(&w, p, sizeof p);
        uv_run(&w.loop, UV_RUN_NOWAIT);
    }
    run_for(&w, SETTLE_MS);
    uint64_t spent_ms = (uv_hrtime() - began) / 1000000;
    CHECK(w.looks >= 1 && w.looks <= spent_ms + 1);
    CHECK_EQ(w.looks + hint_stats(w.hint)->dropped_rate, 2000);
    CHECK(world_close(&w));
}

/* --- floods --- */

#define FLOOD 200000u

struct flood {
    const struct world *w;
    bool garbage;
    uint64_t ns; /* how long it took to send */
    uv_async_t over;
    bool ended;
};

static void *flood_run(void *data)
{
    struct flood *f = data;
    uint8_t p[HINT_DATAGRAM_SIZE];
    uint64_t began = uv_hrtime();
    for (uint32_t i = 0; i < FLOOD; i++) {
        forge(p, i % SLOTS + 1);
        if (f->garbage)
            p[i % 24] ^= 0x55;
        throw_at(f->w, p, sizeof p);
    }
    f->ns = uv_hrtime() - began;
    uv_async_send(&f->over);
    return NULL;
}

static void on_flood_over(uv_async_t *over)
{
    ((struct flood *)over->data)->ended = true;
}

struct pulse {
    uint64_t last_ns, worst_ns;
};

static void on_pulse(uv_timer_t *timer)
{
    struct pulse *pulse = timer->data;
    uint64_t now = uv_hrtime(), gap = now - pulse->last_ns;
    pulse->worst_ns = gap > pulse->worst_ns ? gap : pulse->worst_ns;
    pulse->last_ns = now;
}

static double thread_cpu_s(void)
{
    struct rusage u;
    getrusage(RUSAGE_THREAD, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* Floods from another thread while the loop runs a timer of 5 ms; returns the loop's CPU time. */
static double endure(struct world *w, struct flood *f, struct pulse *pulse, double *ret_wall_s)
{
    pthread_t thread;
    uv_timer_t timer;
    double cpu = thread_cpu_s();
    uint64_t began = uv_hrtime();

    uv_async_init(&w->loop, &f->over, on_flood_over);
    uv_timer_init(&w->loop, &timer);
    f->over.data = f;
    timer.data = pulse;
    pulse->last_ns = began;
    uv_timer_start(&timer, on_pulse, 5, 5);
    if (pthread_create(&thread, NULL, flood_run, f) != 0)
        abort();
    while (!f->ended)
        uv_run(&w->loop, UV_RUN_ONCE);
    pthread_join(thread, NULL);
    *ret_wall_s = (double)(uv_hrtime() - began) / 1e9;
    cpu = thread_cpu_s() - cpu;
    uv_close((uv_handle_t *)&timer, NULL);
    uv_close((uv_handle_t *)&f->over, NULL);
    uv_run(&w->loop, UV_RUN_NOWAIT);
    return cpu;
}

static void flood(bool garbage)
{
    struct world w;
    struct pulse pulse = {0};
    double wall;
    uint8_t p[HINT_DATAGRAM_SIZE];
    CHECK(world_open(&w, "127.0.0.1"));
    struct flood f = {.w = &w, .garbage = garbage};
    double cpu = endure(&w, &f, &pulse, &wall);
    const struct hint_stats s = *hint_stats(w.hint);
    uint64_t taken = s.received + s.dropped_bad + s.dropped_rate;
    printf("# %u datagrams in %.2f s: %llu taken, %llu looks, %llu pauses; loop: %.1f %% of a core,"
           " timer late by %.1f ms\n",
           FLOOD, wall, (unsigned long long)taken, (unsigned long long)s.received,
           (unsigned long long)s.pauses, 100 * cpu / wall, (double)pulse.worst_ns / 1e6 - 5);
    CHECK((double)taken <= HINT_DATAGRAMS_AT_ONCE + wall * HINT_DATAGRAMS_PER_S + (double)s.pauses);
    CHECK((double)s.received <= HINT_LOOKS_AT_ONCE + wall * HINT_LOOKS_PER_S);
    CHECK_EQ(w.looks, s.received);
    CHECK(garbage ? s.received == 0 : s.received >= 100);
    CHECK(s.pauses >= 1);
    CHECK(cpu < 0.1 + 0.4 * wall);
    CHECK(pulse.worst_ns < 500000000);
    /* And when it is over a hint is a hint again. */
    uint32_t before = w.looks;
    run_for(&w, HINT_PAUSE_MS * 10);
    before = w.looks;
    forge(p, 9);
    throw_at(&w, p, sizeof p);
    CHECK(run_until_looks(&w, before + 1));
    CHECK_EQ(w.slot, 9);
    CHECK(world_close(&w));
}

static void a_flood_of_forged_hints_costs_bounded_looks_and_cpu(void)
{
    flood(false);
}

static void a_flood_of_garbage_costs_bounded_cpu(void)
{
    flood(true);
}

/* --- addresses and options --- */

static void nothing_is_sent_where_nobody_should_be_sent_anything(void)
{
    static const struct hint_address bad[] = {
        {.ip = {[10] = 0xff, [11] = 0xff, 0, 0, 0, 0}, .port = 9},
        {.ip = {[10] = 0xff, [11] = 0xff, 0, 1, 2, 3}, .port = 9},
        {.ip = {[10] = 0xff, [11] = 0xff, 224, 0, 0, 1}, .port = 9},
        {.ip = {[10] = 0xff, [11] = 0xff, 239, 255, 255, 250}, .port = 9},
        {.ip = {[10] = 0xff, [11] = 0xff, 240, 0, 0, 1}, .port = 9},
        {.ip = {[10] = 0xff, [11] = 0xff, 255, 255, 255, 255}, .port = 9},
        {.ip = {[10] = 0xff, [11] = 0xff, 127, 0, 0, 1}, .port = 0},
        {.ip = {0}, .port = 9},
        {.ip = {0xff, 0x02, [15] = 1}, .port = 9},
        {.ip = {0xfe, 0x80, [15] = 1}, .port = 9},
        {.ip = {0x20, 0x01, 0x0d, 0xb8, [15] = 1}, .port = 0},
        /* Fine in itself, but not from an IPv4 socket. */
        {.ip = {[15] = 1}, .port = 9},
    };
    const uint32_t n = sizeof bad / sizeof *bad;
    struct world w;
    CHECK(world_open(&w, "127.0.0.1"));
    for (uint32_t i = 0; i < n; i++) {
        CHECK_EQ(hint_address_sendable(&bad[i]), i == n - 1);
        hint_send(w.hint, &bad[i], i + 1);
    }
    CHECK_EQ(hint_stats(w.hint)->sent, 0);
    CHECK_EQ(hint_stats(w.hint)->send_errors, n);
    hint_send(w.hint, &(struct hint_address){.port = 0}, 1); /* none */
    CHECK_EQ(hint_stats(w.hint)->send_errors, n);
    hint_send(NULL, &bad[0], 1); /* no socket */
    CHECK(world_close(&w));
}

static void a_network_that_cannot_be_reached_is_only_counted(void)
{
    struct world w;
    CHECK(world_open(&w, "127.0.0.1"));
    /* From a socket that is bound to loopback the kernel sends nothing out of the machine, unless
     * route_localnet is set; either way nobody waits for it. */
    const struct hint_address far = {.ip = {[10] = 0xff, [11] = 0xff, 192, 0, 2, 99}, .port = 9};
    hint_send(w.hint, &far, 1);
    CHECK_EQ(hint_stats(w.hint)->sent + hint_stats(w.hint)->send_errors, 1);
    struct hint_address closed_port = hint_address(w.hint);
    closed_port.port = 1; /* nobody listens: what ICMP says about it must not hurt the socket */
    for (uint32_t slot = 2; slot < 20; slot++)
        hint_send(w.hint, &closed_port, slot);
    run_for(&w, SETTLE_MS);
    struct hint_address self = hint_address(w.hint);
    hint_send(w.hint, &self, 20);
    CHECK(run_until_looks(&w, 1));
    CHECK_EQ(hint_stats(w.hint)->pauses, 0);
    CHECK(world_close(&w));
}

static void the_option_says_off_auto_or_an_address(void)
{
    struct hint_option o;
    char text[HINT_ADDRESS_TEXT_SIZE];
    CHECK(hint_option_parse("off", &o, NULL) == 0 && !o.on);
    CHECK(hint_option_parse("auto", &o, NULL) == 0 && o.on && hint_address_is_none(&o.bind));
    CHECK(hint_option_parse(":7400", &o, NULL) == 0 && o.on && o.bind.port == 7400);
    static const char *const good[][2] = {
        {"192.0.2.7", "192.0.2.7:0"},         {"192.0.2.7:4000", "192.0.2.7:4000"},
        {"2001:db8::7", "[2001:db8::7]:0"},   {"[2001:db8::7]", "[2001:db8::7]:0"},
        {"[::1]:65535", "[::1]:65535"},       {"::1", "[::1]:0"},
        {"[::ffff:10.0.0.1]:1", "10.0.0.1:1"}};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        CHECK_EQ(hint_option_parse(good[i][0], &o, NULL), 0);
        CHECK_STR(hint_address_format(&o.bind, text), good[i][1]);
    }
    static const char *const bad[] = {
        "",           "on",       ":",           ":0",         ":65536",        "host:1",
        "1.2.3",      "1.2.3.4:", "1.2.3.4:0",   "1.2.3.4:-1", "1.2.3.4:70000", "1.2.3.4:1x",
        "1.2.3.4: 1", "[::1",     "[::1]x",      "[::1]:",     "[1.2.3.4]:1",   "::1]:5",
        "0.0.0.0",    "[::]:5",   "224.0.0.1:5", "[ff02::1]",  "fe80::1",       "255.255.255.255",
        "[]",         "[]:5",     "offf",        "auto:1"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (hint_option_parse(bad[i], &o, NULL) != LUNAR_E_INVALID) {
            printf("# '%s' was taken\n", bad[i]);
            CHECK(!"refused");
        }
    CHECK_STR(hint_address_format(&(struct hint_address){.port = 0}, text), "none");
}

static int descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int n = 0;
    while (dir && readdir(dir))
        n++;
    closedir(dir);
    return n;
}

static void off_opens_nothing_and_a_taken_port_is_done_without(void)
{
    struct world w;
    CHECK(world_open(&w, "127.0.0.1"));
    struct hint_config config = config_of(&w, "auto");
    int before = descriptors();
    struct hint *off = hint_start(&(struct hint_option){.on = false}, &config);
    CHECK(off == NULL);
    CHECK_EQ(descriptors(), before);
    struct hint_address none = hint_address(off);
    CHECK(hint_address_is_none(&none));
    log_set_level(LOG_LEVEL_ERROR);
    CHECK(hint_start(&(struct hint_option){.on = true, .bind = hint_address(w.hint)}, &config) ==
          NULL);
    log_set_level(LOG_LEVEL_INFO);
    run_for(&w, 1);
    CHECK_EQ(descriptors(), before);
    CHECK(world_close(&w));
}

static void a_chosen_address_is_one_that_others_can_send_to(void)
{
    struct world w;
    char text[HINT_ADDRESS_TEXT_SIZE];
    CHECK(world_open(&w, "auto"));
    struct hint_address self = hint_address(w.hint);
    printf("# chosen: %s\n", hint_address_format(&self, text));
    CHECK(hint_address_sendable(&self));
    hint_send(w.hint, &self, 1);
    CHECK(run_until_looks(&w, 1));
    CHECK(world_close(&w));
}

static void it_may_be_closed_from_the_look(void)
{
    struct world w;
    uint8_t p[HINT_DATAGRAM_SIZE];
    CHECK(world_open(&w, "127.0.0.1"));
    w.close_in_look = true;
    for (uint32_t slot = 1; slot <= 3; slot++) {
        forge(p, slot);
        throw_at(&w, p, sizeof p);
    }
    CHECK(run_until_looks(&w, 1));
    run_for(&w, SETTLE_MS);
    CHECK_EQ(w.looks, 1);
    CHECK(world_close(&w));
}

TEST_MAIN(TEST(a_hint_arrives_over_ipv4), TEST(a_hint_arrives_over_ipv6),
          TEST(the_datagram_is_the_documented_bytes),
          TEST(sends_to_one_slot_are_a_millisecond_apart),
          TEST(what_is_no_hint_for_us_is_dropped_and_counted),
          TEST(every_node_of_the_largest_pool_may_say_look_at_once),
          TEST(looks_at_one_slot_are_a_millisecond_apart),
          TEST(a_flood_of_forged_hints_costs_bounded_looks_and_cpu),
          TEST(a_flood_of_garbage_costs_bounded_cpu),
          TEST(nothing_is_sent_where_nobody_should_be_sent_anything),
          TEST(a_network_that_cannot_be_reached_is_only_counted),
          TEST(the_option_says_off_auto_or_an_address),
          TEST(off_opens_nothing_and_a_taken_port_is_done_without),
          TEST(a_chosen_address_is_one_that_others_can_send_to),
          TEST(it_may_be_closed_from_the_look))
