/* SPDX-License-Identifier: Apache-2.0 */
/* The engine of the simulator does what its header says: time, fibers, death, and the LUN's faults.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alarm.h"
#include "base/le.h"
#include "base/uuid.h"
#include "base/worker.h"
#include "diskrpc/uv_disk.h"
#include "sim/test_engine.h"

#define PLACE (1u << 20)
#define PAGE  4096u

/* --- one seed, one trace --- */

static void io_life(void *data)
{
    uint8_t *page = io_alloc(PAGE);
    uint64_t slot = *(uint64_t *)data;
    for (uint64_t i = 0;; i++) {
        le64_put(page, i);
        io_write(SIM_LUN_FD, page, PAGE, PLACE + slot * PAGE, NULL);
        io_read(SIM_LUN_FD, page, PAGE, PLACE + sim_random(STREAM_WORLD, 4) * PAGE, NULL);
        fiber_sleep(sim_random(STREAM_WORLD, 10 * SIM_MS));
    }
}

static uint64_t hash_of(uint64_t seed)
{
    static uint64_t slots[4] = {0, 1, 2, 3};
    test_start(seed, ~0ull);
    for (int i = 0; i < 4; i++)
        test_process(machine_new(), PROCESS_COORDINATOR, io_life, &slots[i]);
    sim_run(5 * SIM_S);
    machine_pause(machine_at(1), true);
    machine_pause(machine_at(2), false);
    machine_off(machine_at(3));
    sim_run(8 * SIM_S);
    sim_end_faults();
    sim_run(10 * SIM_S);
    return sim_trace_hash();
}

static void a_seed_gives_one_trace_and_another_seed_another(void)
{
    uint64_t first = hash_of(7);
    uint64_t lines = sim_trace_lines();
    CHECK(lines > 1000);
    CHECK(hash_of(8) != first);
    CHECK(hash_of(7) == first);
    CHECK(sim_trace_lines() == lines);
}

static void a_fault_left_out_changes_no_draw_of_the_others(void)
{
    uint64_t with[20], weight[2];
    for (int round = 0; round < 2; round++) {
        test_start(3, round ? ~ONLY(EIO) : ~0ull);
        for (int i = 0; i < 20; i++) {
            sim_fault(FAULT_EIO, 1000);
            uint64_t draw = sim_fault_random(FAULT_TORN_WRITE, 1 << 30);
            if (round)
                CHECK(draw == with[i]);
            with[i] = draw;
        }
        weight[round] = (uint64_t)(sim_weight(FAULT_TORN_WRITE) * 1e6);
    }
    CHECK(weight[0] == weight[1]);
}

static void about_a_third_of_the_faults_is_off_in_a_seed(void)
{
    int off = 0;
    for (uint64_t seed = 1; seed <= 100; seed++) {
        test_start(seed, ~0ull);
        for (int kind = 0; kind < SIM_FAULT_KINDS; kind++)
            off += sim_weight((enum sim_fault)kind) == 0;
    }
    CHECK(off > 100 * SIM_FAULT_KINDS / 4 && off < 100 * SIM_FAULT_KINDS * 5 / 12);
}

/* --- time and fibers --- */

static char order[64];

static void note(const char *what)
{
    strncat(order, what, sizeof order - strlen(order) - 1);
}

static char name_a[] = "a", name_b[] = "b";

static void sleeper(void *data)
{
    for (int i = 0; i < 3; i++) {
        note(data);
        fiber_sleep(10 * SIM_MS);
    }
}

static void later_sleeper(void *data)
{
    fiber_sleep(5 * SIM_MS);
    sleeper(data);
}

static void fibers_interleave(void)
{
    test_start(1, 0);
    order[0] = '\0';
    struct process *p = test_process(machine_new(), PROCESS_AGENT, sleeper, name_a);
    fiber_start(p, "second", later_sleeper, NULL, name_b);
    sim_run(SIM_S);
    CHECK_STR(order, "ababab");
}

static void job_run(struct worker_job *job)
{
    note(job->data);
    fiber_sleep(SIM_MS);
}

static void job_done(struct worker_job *job)
{
    note("!");
    note(job->data);
}

static void a_worker_runs_one_job_at_a_time_in_order(void)
{
    test_start(1, 0);
    order[0] = '\0';
    struct process *p = process_start(PROCESS_AGENT, machine_new());
    struct worker *w = worker_open(&p->loop, "w");
    static struct worker_job jobs[3];
    static char names[3][2] = {"1", "2", "3"};
    for (int i = 0; i < 3; i++) {
        jobs[i] = (struct worker_job){.run = job_run, .done = job_done, .data = names[i]};
        worker_submit(w, &jobs[i]);
    }
    CHECK(!worker_is_idle(w));
    sim_run(SIM_S);
    CHECK(worker_is_idle(w));
    /* The next one begins before the last one's end is told, as in a thread. */
    CHECK_STR(order, "12!13!2!3");
}

static uint64_t rang_at;

static void on_alarm(struct alarm *alarm)
{
    struct alarms *alarms = alarm->data;
    rang_at = alarms_now_us(alarms);
}

static void on_uv_timer(uv_timer_t *timer)
{
    rang_at = uv_now(timer->loop);
}

static void timers_go_by_the_drifting_clock_of_their_machine(void)
{
    test_start(1, 0);
    struct machine *m = machine_new();
    m->drift_ppm = 200;
    struct process *p = process_start(PROCESS_AGENT, m);
    struct alarms *alarms = alarms_open(&p->loop);
    struct alarm alarm = {.ring = on_alarm, .data = alarms};
    uint64_t now = alarms_now_us(alarms);
    alarm_set(alarms, &alarm, now + 100 * SIM_S + 3);
    sim_run(200 * SIM_S);
    CHECK(rang_at >= now + 100 * SIM_S + 3 && rang_at <= now + 100 * SIM_S + 5);

    uv_timer_t timer;
    uv_timer_init(&p->loop, &timer);
    uint64_t due = uv_now(&p->loop) + 100000, start = sim_now_us();
    uv_timer_start(&timer, on_uv_timer, 100000, 0);
    sim_run(start + 99 * SIM_S + 979 * SIM_MS);
    CHECK(rang_at != due); /* a fast clock: 20 ms early in 100 s, and no more */
    sim_run(start + 99 * SIM_S + 981 * SIM_MS);
    CHECK_EQ(rang_at, due);
}

static void alarms_can_be_cleared_and_set_anew(void)
{
    test_start(1, 0);
    struct process *p = process_start(PROCESS_AGENT, machine_new());
    struct alarms *alarms = alarms_open(&p->loop);
    struct alarm a = {.ring = on_alarm, .data = alarms}, b = a;
    uint64_t now = alarms_now_us(alarms);
    rang_at = 0;
    alarm_set(alarms, &a, now + 10);
    alarm_set(alarms, &a, now + 20);
    alarm_set(alarms, &b, now + 30);
    alarm_clear(alarms, &b);
    sim_run(SIM_S);
    CHECK_EQ(rang_at, now + 20);
}

/* --- the network --- */

static int arrived;

static void on_buffer(uv_handle_t *handle, size_t suggested, uv_buf_t *ret)
{
    static char buffer[64];
    (void)handle;
    (void)suggested;
    *ret = uv_buf_init(buffer, sizeof buffer);
}

static void on_datagram(uv_udp_t *udp, ssize_t len, const uv_buf_t *buf,
                        const struct sockaddr *from, unsigned flags)
{
    (void)udp;
    (void)flags;
    arrived += len == 5 && from && memcmp(buf->base, "hello", 5) == 0;
}

/* A thousand datagrams from one machine to another. */
static void send_datagrams(void)
{
    static uv_udp_t a, b;
    struct process *p = process_start(PROCESS_AGENT, machine_new());
    struct process *q = process_start(PROCESS_AGENT, machine_new());
    struct sockaddr_in at = {.sin_family = AF_INET};
    int len = sizeof at;
    char hello[] = "hello";
    uv_buf_t buf = uv_buf_init(hello, 5);

    arrived = 0;
    uv_udp_init(&p->loop, &a);
    at.sin_addr.s_addr = htonl(0x0a000001);
    uv_udp_bind(&a, (struct sockaddr *)&at, 0);
    uv_udp_init(&q->loop, &b);
    at.sin_addr.s_addr = htonl(0x0a000002);
    uv_udp_bind(&b, (struct sockaddr *)&at, 0);
    uv_udp_getsockname(&b, (struct sockaddr *)&at, &len);
    uv_udp_recv_start(&b, on_buffer, on_datagram);
    for (int i = 0; i < 1000; i++) {
        uv_udp_try_send(&a, &buf, 1, (struct sockaddr *)&at);
        sim_run(sim_now_us() + SIM_MS);
    }
    sim_run(sim_now_us() + 10 * SIM_S);
}

static void datagrams_arrive_are_lost_and_are_forged(void)
{
    test_start(1, 0);
    send_datagrams();
    CHECK_EQ(arrived, 1000);
    test_start_with(FAULT_HINT_LOST);
    send_datagrams();
    CHECK(arrived > 300 && arrived < 950 && sim_fault_count(FAULT_HINT_LOST) > 100);
    test_start_with(FAULT_HINT_FORGED);
    send_datagrams();
    CHECK(arrived > 1100);
}

/* --- death --- */

static int ticks;

static void on_tick(uv_timer_t *timer)
{
    (void)timer;
    ticks++;
}

static void ticking_fiber(void *data)
{
    (void)data;
    for (;;) {
        ticks++;
        fiber_sleep(SIM_MS);
    }
}

static void no_code_of_a_killed_process_runs(void)
{
    test_start(1, 0);
    struct process *p = test_process(machine_new(), PROCESS_AGENT, ticking_fiber, NULL);
    uv_timer_t timer;
    uv_timer_init(&p->loop, &timer);
    uv_timer_start(&timer, on_tick, 1, 1);
    ticks = 0;
    sim_run(SIM_S);
    CHECK(ticks > 1000);
    process_kill(p);
    int then = ticks;
    sim_run(2 * SIM_S);
    CHECK_EQ(ticks, then);
    CHECK(p->gone);
}

static void on_tick_kill(uv_timer_t *timer)
{
    (void)timer;
    process_kill(process_current());
    ticks = 1000;
}

static void suicide(void *data)
{
    (void)data;
    process_kill(process_current());
    ticks = 1000;
}

static void a_process_that_kills_itself_does_not_return(void)
{
    test_start(1, 0);
    struct machine *m = machine_new();
    struct process *p = process_start(PROCESS_AGENT, m), *q;
    uv_timer_t timer;
    uv_timer_init(&p->loop, &timer);
    uv_timer_start(&timer, on_tick_kill, 1, 1);
    q = test_process(m, PROCESS_AGENT, suicide, NULL);
    ticks = 0;
    sim_run(SIM_S);
    CHECK_EQ(ticks, 0);
    CHECK(p->gone && q->gone);
}

static void write_once(void *data)
{
    uint8_t *page = io_alloc(PAGE);
    memset(page, *(int *)data, PAGE);
    io_write(SIM_LUN_FD, page, PAGE, PLACE, NULL);
    ticks++;
}

static uint8_t on_lun(void)
{
    uint8_t b;
    lun_peek(PLACE, &b, 1);
    return b;
}

static void a_killed_process_is_gone_when_its_write_has_ended(void)
{
    static int value = 0x11;
    test_start(1, 0);
    struct machine *m = machine_new();
    m->path_lost = true;
    struct process *p = test_process(m, PROCESS_AGENT, write_once, &value);
    ticks = 0;
    sim_run(SIM_S);
    process_kill(p);
    sim_run(20 * SIM_S);
    CHECK(!p->gone && on_lun() == 0);
    m->path_lost = false;
    sim_run(21 * SIM_S);
    CHECK(p->gone && on_lun() == 0x11);
    CHECK_EQ(ticks, 0);
}

/* --- pauses and paths --- */

static void a_paused_machine_computes_nothing_while_its_io_goes_on(void)
{
    static int value = 0x22;
    for (int goes_on = 0; goes_on < 2; goes_on++) {
        test_start(1, 0);
        struct machine *m = machine_new();
        test_process(m, PROCESS_AGENT, write_once, &value);
        ticks = 0;
        sim_run(60); /* submitted, not yet landed */
        CHECK(lun_writes_pending() == 1 && on_lun() == 0);
        machine_pause(m, goes_on);
        sim_run(SIM_S);
        CHECK_EQ(on_lun(), goes_on ? 0x22 : 0);
        CHECK_EQ(ticks, 0);
        machine_resume(m);
        sim_run(2 * SIM_S);
        CHECK_EQ(on_lun(), 0x22);
        CHECK_EQ(ticks, 1);
    }
}

static int result;

static void read_once(void *data)
{
    (void)data;
    result = io_read(SIM_LUN_FD, io_alloc(PAGE), PAGE, PLACE, NULL);
}

static void a_path_with_errors_fails_and_a_lost_one_waits(void)
{
    test_start(1, 0);
    struct machine *m = machine_new();
    m->path_lost = m->path_errors = true;
    result = 1;
    test_process(m, PROCESS_AGENT, read_once, NULL);
    sim_run(SIM_S);
    CHECK_EQ(result, -EIO);
    m->path_errors = false;
    result = 1;
    test_process(m, PROCESS_AGENT, read_once, NULL);
    sim_run(2 * SIM_S);
    CHECK_EQ(result, 1);
    m->path_lost = false;
    sim_run(3 * SIM_S);
    CHECK_EQ(result, 0);
}

/* --- what befalls writes --- */

#define COUNT 2000

static uint64_t ended[COUNT]; /* the status of write i, as unsigned */
static uint32_t small_pieces, late_pieces;
static uint64_t landed_last;
static bool went_back;

static void on_landed(const struct process *p, uint64_t offset, const uint8_t *bytes, uint32_t len,
                      bool late)
{
    (void)p;
    small_pieces += len < PAGE;
    late_pieces += late;
    if (late || offset != PLACE)
        return;
    went_back |= le64_get(bytes) < landed_last;
    landed_last = le64_get(bytes);
}

static void write_many(void *data)
{
    uint8_t *page = io_alloc(PAGE);
    (void)data;
    for (uint64_t i = 1; i < COUNT; i++) {
        for (uint32_t at = 0; at < PAGE; at += 8)
            le64_put(page + at, i);
        ended[i] = (uint64_t)io_write(SIM_LUN_FD, page, PAGE, PLACE, NULL);
        fiber_sleep(SIM_MS);
    }
}

static void run_writes(void)
{
    small_pieces = late_pieces = 0;
    landed_last = 0;
    went_back = false;
    sim_hooks.lun_landed = on_landed;
    test_process(machine_new(), PROCESS_AGENT, write_many, NULL);
    sim_run(600 * SIM_S);
}

static uint64_t last_ok(void)
{
    uint64_t i = COUNT - 1;
    while (i > 0 && ended[i] != 0)
        i--;
    return i;
}

static void torn_writes_land_in_sectors_and_are_whole_when_they_end(void)
{
    test_start_with(FAULT_TORN_WRITE);
    run_writes();
    CHECK(small_pieces > 20 && sim_fault_count(FAULT_TORN_WRITE) > 10);
    CHECK_EQ(last_ok(), COUNT - 1);
    uint8_t page[PAGE];
    lun_peek(PLACE, page, PAGE);
    for (uint32_t at = 0; at < PAGE; at += 8)
        CHECK_EQ(le64_get(page + at), COUNT - 1);
    CHECK(!went_back);
}

static void a_write_after_the_end_of_another_never_lands_before_it(void)
{
    test_start(5, ONLY(TORN_WRITE) | ONLY(LATENCY_TAIL) | ONLY(EIO));
    run_writes();
    CHECK(!went_back && landed_last == last_ok());
    CHECK_EQ(late_pieces, 0);
}

static void a_late_landing_was_told_to_have_failed(void)
{
    test_start_with(FAULT_LATE_LANDING);
    run_writes();
    uint64_t failed = 0;
    for (int i = 1; i < COUNT; i++)
        failed += ended[i] == (uint64_t)-EIO || ended[i] == (uint64_t)-ETIMEDOUT;
    CHECK(failed > 0 && late_pieces == failed);
    CHECK_EQ(sim_fault_count(FAULT_LATE_LANDING), failed);
}

static void a_duplicate_was_told_to_have_ended_well(void)
{
    test_start_with(FAULT_DUPLICATE);
    run_writes();
    CHECK_EQ(last_ok(), COUNT - 1);
    CHECK(late_pieces > 0);
    CHECK_EQ(late_pieces, sim_fault_count(FAULT_DUPLICATE));
    CHECK(on_lun() != (uint8_t)(COUNT - 1)); /* the last to land is an old one */
}

static void an_eio_has_no_late_effect(void)
{
    test_start_with(FAULT_EIO);
    run_writes();
    CHECK(sim_fault_count(FAULT_EIO) > 0);
    CHECK(late_pieces == 0 && landed_last == last_ok());
}

static void no_fault_is_drawn_after_the_end_of_faults(void)
{
    test_start_with(FAULT_EIO);
    sim_end_faults();
    run_writes();
    CHECK_EQ(sim_fault_count(FAULT_EIO), 0);
    CHECK_EQ(last_ok(), COUNT - 1);
}

static void read_halves(void *data)
{
    uint8_t *page = io_alloc(PAGE);
    uint32_t *mixed = data;
    for (;;) {
        io_read(SIM_LUN_FD, page, PAGE, PLACE, NULL);
        *mixed += memcmp(page, page + PAGE - 8, 8) != 0;
    }
}

static void a_torn_read_sees_half_of_a_write(void)
{
    static uint32_t mixed;
    for (int torn = 0; torn < 2; torn++) {
        if (torn)
            test_start_with(FAULT_TORN_READ);
        else
            test_start(1, 0);
        mixed = 0;
        struct machine *m = machine_new();
        test_process(m, PROCESS_AGENT, write_many, NULL);
        test_process(m, PROCESS_AGENT, read_halves, &mixed);
        sim_run(SIM_S);
        CHECK(torn ? mixed > 0 : mixed == 0);
    }
}

static void a_power_cut_lets_writes_land_wholly_in_part_or_never(void)
{
    int seen[3] = {0};
    static int value = 0x33;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        test_start(seed, ONLY(TORN_WRITE));
        struct machine *m = machine_new();
        struct process *p = test_process(m, PROCESS_AGENT, write_once, &value);
        while (p->io_in_flight == 0)
            sim_run(sim_now_us() + 1);
        sim_run(sim_now_us() + 20);
        machine_off(m);
        CHECK(p->gone);
        sim_run(60 * SIM_S);
        uint8_t page[PAGE];
        uint32_t n = 0;
        lun_peek(PLACE, page, PAGE);
        for (uint32_t i = 0; i < PAGE; i++)
            n += page[i] == 0x33;
        seen[n == 0 ? 0 : n == PAGE ? 1 : 2]++;
        CHECK_EQ(lun_writes_pending(), 0);
    }
    CHECK(seen[0] > 5 && seen[1] > 5 && seen[2] > 0);
}

static void a_writer_that_touches_its_buffer(void *data)
{
    uint8_t *page = io_alloc(PAGE);
    struct disk_op op = {.write = true, .buffer = page, .len = PAGE, .offset = PLACE};
    struct uv_disk *disk;
    op.done = (disk_done_fn)data;
    uv_disk_open(&process_current()->loop, "", 1, &disk, NULL);
    disk_submit(uv_disk_disk(disk), &op);
    page[17] ^= 1;
    fiber_sleep(SIM_S);
}

static void on_done(struct disk_op *op, int status)
{
    (void)op;
    (void)status;
}

static void a_buffer_touched_in_flight_is_a_violation(void)
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        if (!freopen("/dev/null", "w", stdout))
            _exit(9);
        test_start(1, 0);
        test_process(machine_new(), PROCESS_AGENT, a_writer_that_touches_its_buffer,
                     (void *)(uintptr_t)on_done);
        sim_run(2 * SIM_S);
        _exit(0);
    }
    int status;
    CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 1);
}

/* --- the stale, and the rotten --- */

static void a_stale_write_waits_for_a_new_term(void)
{
    test_start_with(FAULT_STALE_COORDINATOR);
    sim_hooks.lun_landed = on_landed;
    late_pieces = 0;
    test_process(machine_new(), PROCESS_COORDINATOR, write_many, NULL);
    sim_run(600 * SIM_S);
    uint64_t held = sim_fault_count(FAULT_STALE_COORDINATOR);
    CHECK(held > 0 && late_pieces == 0);
    lun_new_term();
    sim_run(610 * SIM_S);
    CHECK_EQ(late_pieces, held);
}

static uint32_t rotten(const uint8_t *good, uint64_t at)
{
    uint8_t page[PAGE];
    lun_peek(at, page, PAGE);
    return memcmp(page, good, PAGE) != 0;
}

static void of_a_group_one_region_rots_until_it_is_rewritten(void)
{
    uint8_t good[PAGE];
    uint32_t seen = 0;
    memset(good, 0x5a, sizeof good);
    test_start_with(FAULT_BIT_ROT);
    for (uint64_t at = PLACE; at <= PLACE + PAGE; at += PAGE) {
        lun_poke(at, good, PAGE);
        lun_rot_region(1, at, PAGE);
    }
    for (int i = 1; i < 200; i++) {
        sim_run((uint64_t)i * SIM_S);
        uint32_t a = rotten(good, PLACE), b = rotten(good, PLACE + PAGE);
        CHECK(a + b <= 1);
        seen += a + b;
        if (i % 20 == 0)
            lun_poke(a ? PLACE : PLACE + PAGE, good, PAGE);
    }
    CHECK(seen > 20 && sim_fault_count(FAULT_BIT_ROT) > 2);
}

static void uuids_come_from_the_seed(void)
{
    test_start(1, 0);
    struct uuid a = uuid_random(), b = uuid_random();
    CHECK(!uuid_equal(&a, &b));
    test_start(1, 0);
    b = uuid_random();
    CHECK(uuid_equal(&a, &b));
}

TEST_MAIN(TEST(a_seed_gives_one_trace_and_another_seed_another),
          TEST(a_fault_left_out_changes_no_draw_of_the_others),
          TEST(about_a_third_of_the_faults_is_off_in_a_seed), TEST(fibers_interleave),
          TEST(a_worker_runs_one_job_at_a_time_in_order),
          TEST(timers_go_by_the_drifting_clock_of_their_machine),
          TEST(alarms_can_be_cleared_and_set_anew), TEST(no_code_of_a_killed_process_runs),
          TEST(a_process_that_kills_itself_does_not_return),
          TEST(a_killed_process_is_gone_when_its_write_has_ended),
          TEST(a_paused_machine_computes_nothing_while_its_io_goes_on),
          TEST(a_path_with_errors_fails_and_a_lost_one_waits),
          TEST(torn_writes_land_in_sectors_and_are_whole_when_they_end),
          TEST(a_write_after_the_end_of_another_never_lands_before_it),
          TEST(a_late_landing_was_told_to_have_failed),
          TEST(a_duplicate_was_told_to_have_ended_well), TEST(an_eio_has_no_late_effect),
          TEST(no_fault_is_drawn_after_the_end_of_faults), TEST(a_torn_read_sees_half_of_a_write),
          TEST(a_power_cut_lets_writes_land_wholly_in_part_or_never),
          TEST(a_buffer_touched_in_flight_is_a_violation), TEST(a_stale_write_waits_for_a_new_term),
          TEST(of_a_group_one_region_rots_until_it_is_rewritten), TEST(uuids_come_from_the_seed),
          TEST(datagrams_arrive_are_lost_and_are_forged))
