/* SPDX-License-Identifier: Apache-2.0 */
/* The simulator's sanlock behaves as the real one was measured (docs and FENCING of the design):
 * its bytes, terms, releases, times of death and watchdog. */
#include <stdlib.h>

#include "sim/sanlock_model.h"
#include "sim/test_engine.h"

#define N 2u
#define W 10u

static struct superblock sb;

static void start(uint64_t seed, uint32_t machines)
{
    test_start(seed, 0);
    memset(&sb, 0, sizeof sb);
    sb.io_timeout_s = N;
    sb.watchdog_fire_timeout_s = W;
    sb.pool_id.b[0] = 7;
    snprintf(sb.pool_name, sizeof sb.pool_name, "test");
    if (layout_compute(8, LUN_SECTOR, &sb.layout, NULL) < 0)
        abort();
    sanlock_start(&sb);
    for (uint32_t i = 0; i < machines; i++)
        machine_new();
}

/* --- an agent that joins and stays, a candidate that tries --- */

static int join_rc;
static bool guarded; /* it sets USED and holds the member lease, as a guard does */

static void member_life(void *data)
{
    struct membership_config config = {.device = "/dev/lun", .superblock = &sb, .node_name = "n"};
    struct membership *m;
    (void)data;
    join_rc = membership_join(&config, &m, NULL);
    if (join_rc == 0 && guarded) {
        model_set_used(process_current()->machine, true);
        while (!model_guard_acquire(process_current()))
            fiber_sleep(100 * SIM_MS);
    }
    for (;;)
        fiber_sleep(SIM_S);
}

static struct process *join(uint32_t machine)
{
    join_rc = 1;
    struct process *p = test_process(machine_at(machine), PROCESS_AGENT, member_life, NULL);
    sim_run(sim_now_us() + 15 * SIM_S);
    return p;
}

struct candidate {
    struct process *process;
    struct leadership *l;
    uint64_t term; /* 0: not elected */
    bool once;     /* leaves off after an election */
    uint64_t elected_us;
};

static void candidate_life(void *data)
{
    struct candidate *c = data;
    leadership_open("/dev/lun", &sb, &c->l, NULL);
    while (leadership_try(c->l, &c->term, NULL) != 1)
        fiber_sleep(500 * SIM_MS);
    c->elected_us = sim_now_us();
    for (;;)
        fiber_sleep(SIM_S);
}

static void run_candidate(struct candidate *c, uint32_t machine)
{
    memset(c, 0, sizeof *c);
    c->process = test_process(machine_at(machine), PROCESS_COORDINATOR, candidate_life, c);
}

static void forward(uint64_t us)
{
    sim_run(sim_now_us() + us);
}

/* --- bytes --- */

static bool same_as_golden(const char *name, const uint8_t *sector)
{
    uint8_t want[LUN_SECTOR];
    char path[128];
    snprintf(path, sizeof path, "tests/golden/%s.bin", name);
    FILE *f = fopen(path, "rb");
    bool ok = f && fread(want, sizeof want, 1, f) == 1 && memcmp(want, sector, sizeof want) == 0;
    if (f)
        fclose(f);
    return ok;
}

static void records_are_those_of_a_real_sanlock(void)
{
    static const char space[] = "lunar-0011223344556677";
    uint8_t sector[LUN_SECTOR];
    struct model_host live = {
        .generation = 1, .timestamp = 0x27d, .owner_id = 7, .name = "lunar-0123456789abcdef"};
    struct model_host left = {.generation = 6, .owner_id = 5, .name = "lunar-aaaa"};
    struct model_host never = {0};
    struct model_lease held = {.lver = 1, .owner_id = 7, .owner_generation = 1, .timestamp = 0x27d};
    struct model_lease released = held;
    released.timestamp = 0;

    delta_lease_out(sector, space, &live, 2);
    CHECK(same_as_golden("sanlock-delta-live", sector));
    delta_lease_out(sector, space, &left, 2);
    CHECK(same_as_golden("sanlock-delta-left", sector));
    delta_lease_out(sector, space, &never, 2);
    CHECK(same_as_golden("sanlock-delta-never", sector));
    leader_record_out(sector, space, "coordinator", &held, 0x27e);
    CHECK(same_as_golden("sanlock-leader-held", sector));
    leader_record_out(sector, space, "coordinator", &released, 0x280);
    CHECK(same_as_golden("sanlock-leader-released", sector));
}

/* --- hosts --- */

static void a_machine_keeps_its_host_id_and_gets_a_new_generation_per_boot(void)
{
    start(1, 2);
    join(1);
    CHECK_EQ(join_rc, 0);
    uint32_t id = sanlock_host_id(machine_at(1));
    CHECK(id != 0);
    CHECK_EQ(sanlock_generation(machine_at(1)), 1);
    join(2);
    CHECK(sanlock_host_id(machine_at(2)) != id);
    machine_off(machine_at(1));
    CHECK_EQ(sanlock_host_id(machine_at(1)), 0);
    machine_on(machine_at(1));
    join(1);
    CHECK_EQ(join_rc, 0);
    CHECK_EQ(sanlock_host_id(machine_at(1)), id);
    CHECK_EQ(sanlock_generation(machine_at(1)), 2);
    CHECK(sanlock_proved_dead(id, 1) && !sanlock_proved_dead(id, 2));
}

static void an_agent_restarted_in_one_boot_keeps_its_generation(void)
{
    start(1, 1);
    struct process *p = join(1);
    process_kill(p);
    forward(SIM_S);
    join(1);
    CHECK_EQ(join_rc, 0);
    CHECK_EQ(sanlock_generation(machine_at(1)), 1);
}

struct observer {
    uint64_t fail_us, dead_us;
};

static void observe(void *data)
{
    struct observer *o = data;
    for (;;) {
        struct host_status *list;
        int n = membership_hosts(&sb.pool_id, NULL, 0, &list, NULL);
        for (int i = 0; i < n; i++) {
            if (list[i].state == HOST_STATE_FAIL && !o->fail_us)
                o->fail_us = sim_now_us();
            if (list[i].state == HOST_STATE_DEAD && !o->dead_us)
                o->dead_us = sim_now_us();
        }
        if (n > 0)
            free(list);
        fiber_sleep(100 * SIM_MS);
    }
}

static void others_see_fail_after_8n_and_dead_after_8n_and_w(void)
{
    for (uint64_t seed = 1; seed <= 10; seed++) {
        struct observer o = {0, 0};
        start(seed, 2);
        join(1);
        join(2);
        uint32_t id = sanlock_host_id(machine_at(1));
        test_process(machine_at(2), PROCESS_CLIENT, observe, &o);
        forward(60 * SIM_S);
        CHECK(o.fail_us == 0 && o.dead_us == 0);
        uint64_t off = sim_now_us();
        machine_off(machine_at(1));
        /* The last renewal was up to 2N before the cut, and was seen up to 2N after it was made. */
        forward((8 * N + W - 2 * N) * SIM_S);
        CHECK(!sanlock_proved_dead(id, 1));
        forward(60 * SIM_S);
        CHECK(o.fail_us >= off + (8 - 2) * N * SIM_S);
        CHECK(o.dead_us >= off + ((8 - 2) * N + W) * SIM_S);
        CHECK(o.dead_us <= off + ((8 + 2) * N + W) * SIM_S);
        CHECK(sanlock_proved_dead(id, 1));
    }
}

/* --- the watchdog --- */

static uint64_t reset_at[SIM_NODES_MAX + 1], killpath_at[SIM_NODES_MAX + 1];
static uint32_t killpaths;

static void on_killpath(struct machine *m)
{
    killpath_at[m->index] = sim_now_us();
    killpaths++;
}

static void on_watchdog(struct machine *m)
{
    reset_at[m->index] = sim_now_us();
    machine_off(m);
}

static void watched_start(uint64_t seed)
{
    start(seed, 2);
    memset(reset_at, 0, sizeof reset_at);
    memset(killpath_at, 0, sizeof killpath_at);
    killpaths = 0;
    guarded = true;
    sim_hooks.watchdog = on_watchdog;
    sim_hooks.killpath = on_killpath;
}

static void a_node_without_the_lun_is_reset_before_others_see_it_dead(void)
{
    for (uint64_t seed = 1; seed <= 10; seed++) {
        watched_start(seed);
        struct process *guard = join(1);
        join(2);
        forward(60 * SIM_S);
        machine_at(1)->path_lost = true;
        uint64_t lost = sim_now_us();
        forward((8 - 2) * N * SIM_S - SIM_MS);
        CHECK_EQ(killpaths, 0);
        forward(2 * N * SIM_S + SIM_S);
        CHECK_EQ(killpaths, 1); /* 8N; and once */
        CHECK(killpath_at[1] > 0 && process_alive(guard));
        CHECK(reset_at[1] == 0);
        forward(60 * SIM_S);
        CHECK(reset_at[1] >= lost + ((8 - 2) * N + W - 2) * SIM_S);
        CHECK(reset_at[1] <= lost + (8 * N + W) * SIM_S);
        CHECK(reset_at[2] == 0);
    }
}

/* Loses the LUN of machine 1 and waits until it has been told. */
static struct process *tell_to_fence(void)
{
    watched_start(1);
    struct process *guard = join(1);
    join(2);
    machine_at(1)->path_lost = true;
    forward((8 * N + 1) * SIM_S);
    return guard;
}

static void a_node_whose_guard_lets_go_lives_on(void)
{
    struct process *guard = tell_to_fence();
    CHECK_EQ(killpaths, 1);
    uint32_t host = 1;
    while (model_hosts[host].generation == 0 || sanlock_host_id(machine_at(1)) != host)
        host++;
    model_set_used(machine_at(1), false);
    model_guard_release(guard);
    CHECK_EQ(sanlock_host_id(machine_at(1)), 0);
    forward(100 * SIM_S);
    CHECK(reset_at[1] == 0);
    CHECK(sanlock_proved_dead(host, 1)); /* its survival gains others no time */
}

static void neither_used_nor_the_lease_alone_is_enough(void)
{
    struct process *guard = tell_to_fence();
    model_guard_release(guard);
    forward(100 * SIM_S);
    CHECK(reset_at[1] > 0);
    tell_to_fence();
    model_set_used(machine_at(1), false);
    forward(100 * SIM_S);
    CHECK(reset_at[1] > 0);
}

/* The hole that USED is for: the guard is killed, nobody else holds a lease, and sanlock takes a
 * node for clear whose maps nobody has wiped. */
static void without_used_a_killed_guard_is_taken_for_a_clear_node(void)
{
    watched_start(1);
    struct process *guard = join(1);
    join(2);
    model_set_used(machine_at(1), false);
    process_kill(guard);
    machine_at(1)->path_lost = true;
    forward(100 * SIM_S);
    CHECK(reset_at[1] == 0);
    CHECK_EQ(sanlock_host_id(machine_at(1)), 0);
}

static void a_node_that_slept_too_long_is_reset_when_it_wakes(void)
{
    watched_start(1);
    join(1);
    struct machine *m = machine_at(1);
    machine_pause(m, true);
    forward((8 * N + W + 1) * SIM_S);
    CHECK(reset_at[1] == 0);
    uint64_t woke = sim_now_us();
    machine_resume(m);
    forward(SIM_S);
    CHECK(reset_at[1] >= woke && reset_at[1] <= woke + 300 * SIM_MS);
}

static void a_node_that_slept_a_little_lives_on(void)
{
    watched_start(1);
    struct process *agent = join(1);
    machine_pause(machine_at(1), true);
    forward(6 * N * SIM_S);
    machine_resume(machine_at(1));
    forward(100 * SIM_S);
    CHECK(reset_at[1] == 0 && process_alive(agent));
}

/* --- the coordinator's lease --- */

static void each_acquire_raises_the_term_by_one(void)
{
    struct candidate c;
    start(1, 2);
    join(1);
    join(2);
    for (uint64_t term = 1; term <= 20; term++) {
        run_candidate(&c, 1 + (uint32_t)(term % 2));
        forward(3 * SIM_S);
        CHECK_EQ(c.term, term);
        CHECK_EQ(sanlock_term(), term);
        CHECK(sanlock_leader() == c.process);
        process_kill(c.process);
        forward(SIM_S);
        CHECK(sanlock_leader() == NULL);
    }
}

static void there_is_one_leader_at_a_time(void)
{
    struct candidate a, b;
    start(1, 2);
    join(1);
    join(2);
    run_candidate(&a, 1);
    run_candidate(&b, 2);
    forward(60 * SIM_S);
    CHECK((a.term == 1) != (b.term == 1));
    CHECK(a.term + b.term == 1);
}

static void a_machine_that_has_not_joined_cannot_lead(void)
{
    struct candidate c;
    start(1, 1);
    run_candidate(&c, 1);
    forward(10 * SIM_S);
    CHECK_EQ(c.term, 0);
}

static void write_page(void *data)
{
    uint8_t *page = io_alloc(LUN_UNIT);
    (void)data;
    io_write(SIM_LUN_FD, page, LUN_UNIT, 1 << 20, NULL);
}

static void a_killed_leader_keeps_its_lease_until_its_write_has_landed(void)
{
    struct candidate a, b;
    start(1, 2);
    join(1);
    join(2);
    run_candidate(&a, 1);
    forward(3 * SIM_S);
    CHECK_EQ(a.term, 1);
    run_candidate(&b, 2);
    machine_at(1)->path_lost = true;
    fiber_start(a.process, "write", write_page, NULL, NULL);
    forward(SIM_S);
    process_kill(a.process);
    forward(10 * SIM_S);
    CHECK(b.term == 0 && !a.process->gone);
    machine_at(1)->path_lost = false;
    forward(3 * SIM_S);
    CHECK(a.process->gone && b.term == 2);
}

static void the_lease_of_a_lost_machine_is_free_after_8n_and_w(void)
{
    struct candidate a, b;
    start(1, 2);
    join(1);
    join(2);
    run_candidate(&a, 1);
    forward(3 * SIM_S);
    run_candidate(&b, 2);
    forward(10 * SIM_S);
    machine_off(machine_at(1));
    uint64_t off = sim_now_us();
    forward(60 * SIM_S);
    CHECK_EQ(b.term, 2);
    CHECK(b.elected_us >= off + ((8 - 2) * N + W) * SIM_S);
}

struct check {
    struct candidate *candidate;
    int rc;
};

static void check_life(void *data)
{
    struct check *c = data;
    c->rc = leadership_check(c->candidate->l, c->candidate->term, NULL);
}

static int check_now(struct candidate *candidate)
{
    struct check c = {candidate, 1};
    fiber_start(candidate->process, "check", check_life, NULL, &c);
    forward(50 * SIM_MS);
    return c.rc;
}

static void a_leader_that_slept_through_its_death_is_told_by_the_lun(void)
{
    struct candidate a, b;
    start(4, 2);
    sim_hooks.watchdog = on_watchdog;
    join(1);
    join(2);
    run_candidate(&a, 1);
    forward(3 * SIM_S);
    CHECK_EQ(check_now(&a), 0);
    run_candidate(&b, 2);
    machine_pause(machine_at(1), true);
    forward(60 * SIM_S);
    CHECK_EQ(b.term, 2);
    machine_resume(machine_at(1)); /* it has up to 0.3 s before the watchdog */
    CHECK_EQ(check_now(&a), LUNAR_E_STALE);
}

static void resign(void *data)
{
    struct candidate *c = data;
    leadership_release(c->l, NULL);
}

static void a_released_lease_is_free_at_once(void)
{
    struct candidate a, b;
    start(1, 2);
    join(1);
    join(2);
    run_candidate(&a, 1);
    forward(3 * SIM_S);
    run_candidate(&b, 2);
    forward(SIM_S);
    fiber_start(a.process, "resign", resign, NULL, &a);
    forward(2 * SIM_S);
    CHECK_EQ(b.term, 2);
}

struct leaver {
    struct membership *m;
    int rc;
};

static void leaver_life(void *data)
{
    struct leaver *l = data;
    struct membership_config config = {.device = "/dev/lun", .superblock = &sb, .node_name = "n"};
    if (membership_join(&config, &l->m, NULL) < 0)
        return;
    fiber_sleep(5 * SIM_S);
    l->rc = membership_leave(l->m, NULL);
    for (;;)
        fiber_sleep(SIM_S);
}

static void a_node_whose_candidate_leads_does_not_leave(void)
{
    for (int leads = 0; leads < 2; leads++) {
        struct leaver l = {NULL, 1};
        struct candidate c;
        start(1, 1);
        test_process(machine_at(1), PROCESS_AGENT, leaver_life, &l);
        if (leads)
            run_candidate(&c, 1);
        forward(20 * SIM_S);
        CHECK_EQ(l.rc, leads ? LUNAR_E_IN_USE : 0);
        CHECK_EQ(sanlock_host_id(machine_at(1)) != 0, leads);
        forward(100 * SIM_S);
        CHECK_EQ(sanlock_host_id(machine_at(1)) != 0, leads);
    }
}

TEST_MAIN(TEST(records_are_those_of_a_real_sanlock),
          TEST(a_machine_keeps_its_host_id_and_gets_a_new_generation_per_boot),
          TEST(an_agent_restarted_in_one_boot_keeps_its_generation),
          TEST(others_see_fail_after_8n_and_dead_after_8n_and_w),
          TEST(a_node_without_the_lun_is_reset_before_others_see_it_dead),
          TEST(a_node_whose_guard_lets_go_lives_on),
          TEST(neither_used_nor_the_lease_alone_is_enough),
          TEST(without_used_a_killed_guard_is_taken_for_a_clear_node),
          TEST(a_node_that_slept_too_long_is_reset_when_it_wakes),
          TEST(a_node_that_slept_a_little_lives_on), TEST(each_acquire_raises_the_term_by_one),
          TEST(there_is_one_leader_at_a_time), TEST(a_machine_that_has_not_joined_cannot_lead),
          TEST(a_killed_leader_keeps_its_lease_until_its_write_has_landed),
          TEST(the_lease_of_a_lost_machine_is_free_after_8n_and_w),
          TEST(a_leader_that_slept_through_its_death_is_told_by_the_lun),
          TEST(a_released_lease_is_free_at_once), TEST(a_node_whose_candidate_leads_does_not_leave))
