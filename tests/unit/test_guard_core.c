/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the guard decides, step by step: no clock, no I/O. The times are those of N = 2, W = 10:
 * timer 19 s after the last renewal seen, release by 22 s, reset 16 s after the begin of a fence.
 */
#include "fencing/guard_core.h"

#include "support/test.h"

#define HOST       7
#define GENERATION 3
#define T0         100000 /* when the guard starts, ms */
#define RESET_MS   16000

#define BEGIN_FENCE (GUARD_DO_LOCK_PERMITS | GUARD_DO_STOP | GUARD_DO_TELL)

static struct guard_core core;
static int64_t now;

static unsigned send(struct guard_event event)
{
    event.now_ms = now;
    return guard_core_step(&core, &event);
}

static unsigned send_type(enum guard_event_type type)
{
    return send((struct guard_event){.type = type});
}

static unsigned tick_at(int64_t at)
{
    now = at;
    return send_type(GUARD_EVENT_TICK);
}

static void begin(enum guard_permit_byte resumed)
{
    struct guard_core_config config = {.host_id = HOST, .generation = GENERATION};
    timeouts_compute(2, 10, &config.timeouts, NULL);
    now = T0;
    guard_core_init(&core, &config);
    send((struct guard_event){.type = GUARD_EVENT_STARTED, .resumed = resumed});
}

static void begin_guarding(void)
{
    begin(GUARD_PERMIT_NONE);
    send_type(GUARD_EVENT_AGENT_CONNECTED);
    send_type(GUARD_EVENT_ACQUIRED);
}

/* From guarding to the proof. */
static void begin_proven(void)
{
    begin_guarding();
    send_type(GUARD_EVENT_SIGTERM);
    send_type(GUARD_EVENT_PERMITS_FREE);
    send_type(GUARD_EVENT_PROVEN);
}

static void permits_open_only_with_the_lease(void)
{
    begin(GUARD_PERMIT_NONE);
    CHECK_EQ(core.state, GUARD_STATE_STARTING);
    CHECK_EQ(send_type(GUARD_EVENT_AGENT_CONNECTED), GUARD_DO_TELL);
    CHECK_EQ(send_type(GUARD_EVENT_ACQUIRED), GUARD_DO_OPEN_PERMITS | GUARD_DO_TELL);
    CHECK_EQ(core.state, GUARD_STATE_GUARDING);
}

static void safety_11_each_trigger_fences(void)
{
    const struct guard_event triggers[] = {
        {.type = GUARD_EVENT_KILLPATH, .host_id = HOST, .generation = GENERATION},
        {.type = GUARD_EVENT_SIGTERM},
        {.type = GUARD_EVENT_AGENT_FENCE, .reason = "the grant page marks us dead"},
        {.type = GUARD_EVENT_SANLOCK_GONE},
    };
    for (size_t i = 0; i < sizeof triggers / sizeof *triggers; i++) {
        begin_guarding();
        CHECK_EQ(send(triggers[i]), BEGIN_FENCE);
        CHECK_EQ(core.state, GUARD_STATE_FENCING);
        CHECK(core.reason[0] != '\0');
    }
}

static void killpath_of_another_life_is_ignored(void)
{
    begin_guarding();
    CHECK_EQ(send((struct guard_event){
                 .type = GUARD_EVENT_KILLPATH, .host_id = HOST, .generation = GENERATION - 1}),
             0);
    CHECK_EQ(send((struct guard_event){
                 .type = GUARD_EVENT_KILLPATH, .host_id = HOST + 1, .generation = GENERATION}),
             0);
    CHECK_EQ(core.state, GUARD_STATE_GUARDING);
}

static void the_timer_fences_from_the_last_renewal_seen(void)
{
    begin_guarding();
    send((struct guard_event){.type = GUARD_EVENT_RENEWED, .renewed_ms = T0 + 4000});
    CHECK_EQ(guard_core_deadline(&core), T0 + 4000 + 19000);
    CHECK_EQ(tick_at(T0 + 4000 + 18999), 0);
    CHECK_EQ(tick_at(T0 + 4000 + 19000), BEGIN_FENCE);
    CHECK_STR(core.reason, "sanlock has not renewed this node's lease for 19 s");
}

static void the_first_renewal_seen_counts_although_it_is_older_than_the_guard(void)
{
    begin_guarding();
    send((struct guard_event){.type = GUARD_EVENT_RENEWED, .renewed_ms = T0 - 5000});
    CHECK_EQ(guard_core_deadline(&core), T0 - 5000 + 19000);
    /* No later one takes it back. */
    send((struct guard_event){.type = GUARD_EVENT_RENEWED, .renewed_ms = T0 - 9000});
    CHECK_EQ(guard_core_deadline(&core), T0 - 5000 + 19000);
}

static void news_of_a_renewal_long_ago_fences_at_once(void)
{
    begin_guarding();
    now = T0 + 10000;
    CHECK_EQ(send((struct guard_event){.type = GUARD_EVENT_RENEWED, .renewed_ms = T0 - 9000}),
             BEGIN_FENCE);
}

static void a_fence_runs_to_its_end_in_order(void)
{
    begin_guarding();
    send_type(GUARD_EVENT_SIGTERM);
    CHECK_EQ(send_type(GUARD_EVENT_PERMITS_FREE), GUARD_DO_WIPE);
    CHECK_EQ(core.state, GUARD_STATE_FENCING);
    CHECK_EQ(send_type(GUARD_EVENT_PROVEN), GUARD_DO_TELL);
    CHECK_EQ(core.state, GUARD_STATE_PROVEN);
    CHECK_EQ(send_type(GUARD_EVENT_DRAINED), GUARD_DO_RELEASE);
    CHECK_EQ(core.state, GUARD_STATE_PROVEN);
    CHECK_EQ(send_type(GUARD_EVENT_RELEASED), GUARD_DO_TELL | GUARD_DO_EXIT);
    CHECK_EQ(core.state, GUARD_STATE_OVER);
}

static void safety_11_nothing_takes_a_fence_back(void)
{
    begin_guarding();
    send_type(GUARD_EVENT_SIGTERM);
    char reason[GUARD_REASON_SIZE];
    strcpy(reason, core.reason);
    /* The LUN is back, sanlock renews, the lease is ours, the agent is new, somebody asks to
     * leave. */
    send((struct guard_event){.type = GUARD_EVENT_RENEWED, .renewed_ms = now});
    CHECK_EQ(send_type(GUARD_EVENT_ACQUIRED), 0);
    CHECK_EQ(send_type(GUARD_EVENT_AGENT_CONNECTED), GUARD_DO_TELL);
    CHECK_EQ(send_type(GUARD_EVENT_LEAVE), GUARD_DO_TELL);
    CHECK_EQ(send_type(GUARD_EVENT_NOT_EMPTY), 0);
    CHECK_EQ(send_type(GUARD_EVENT_EMPTY), 0);
    CHECK_EQ(send((struct guard_event){.type = GUARD_EVENT_START_FAILED, .flag = true}), 0);
    CHECK_EQ(core.state, GUARD_STATE_FENCING);
    CHECK_STR(core.reason, reason);
}

static void safety_10_without_the_proof_nothing_is_released(void)
{
    begin_guarding();
    send_type(GUARD_EVENT_SIGTERM);
    send_type(GUARD_EVENT_PERMITS_FREE);
    for (int i = 0; i < 100; i++) {
        CHECK_EQ(send_type(GUARD_EVENT_NOT_PROVEN), 0);
        CHECK_EQ(send_type(GUARD_EVENT_DRAINED), 0);
        CHECK_EQ(send_type(GUARD_EVENT_RELEASED), 0);
        CHECK_EQ(tick_at(now + 49), 0);
        CHECK_EQ(tick_at(now + 1), GUARD_DO_WIPE);
        /* The round is under way: not a second one beside it. */
        CHECK_EQ(tick_at(now + 60000) & ~(unsigned)GUARD_DO_RESET, 0);
    }
    CHECK_EQ(core.state, GUARD_STATE_FENCING);
}

static void safety_10_the_stop_at_the_begin_is_no_proof(void)
{
    begin_guarding();
    CHECK_EQ(send_type(GUARD_EVENT_SIGTERM),
             BEGIN_FENCE); /* at once, before the permits are free */
    /* Somebody may load a table still: no answer of a round counts before PERMITS_FREE. */
    CHECK_EQ(send_type(GUARD_EVENT_PROVEN), 0);
    CHECK_EQ(send_type(GUARD_EVENT_NOT_PROVEN), 0);
    CHECK_EQ(core.state, GUARD_STATE_FENCING);
    CHECK_EQ(tick_at(now + 10), GUARD_DO_LOCK_PERMITS); /* and none is asked for */
    CHECK_EQ(send_type(GUARD_EVENT_PERMITS_FREE), GUARD_DO_WIPE);
    CHECK_EQ(send_type(GUARD_EVENT_PERMITS_FREE), 0); /* once */
    CHECK_EQ(send_type(GUARD_EVENT_PROVEN), GUARD_DO_TELL);
    CHECK_EQ(core.state, GUARD_STATE_PROVEN);
}

/* I/O stuck in flight beside a lease that is renewed all the time. */
static void safety_11_a_fence_without_a_proof_ends_in_a_reset(void)
{
    begin_guarding();
    now = T0 + 5000;
    send_type(GUARD_EVENT_SIGTERM);
    CHECK_EQ(send_type(GUARD_EVENT_PERMITS_FREE), GUARD_DO_WIPE); /* which does not end */
    CHECK_EQ(guard_core_deadline(&core), T0 + 5000 + RESET_MS);
    for (int s = 1; s < 16; s++) {
        now = T0 + 5000 + s * 1000;
        CHECK_EQ(send((struct guard_event){.type = GUARD_EVENT_RENEWED, .renewed_ms = now}), 0);
        CHECK_EQ(send_type(GUARD_EVENT_TICK), 0);
    }
    CHECK_EQ(tick_at(T0 + 5000 + RESET_MS - 1), 0);
    CHECK_EQ(tick_at(T0 + 5000 + RESET_MS), GUARD_DO_RESET);
    /* It did not work: again, and nothing else changes. */
    CHECK_EQ(guard_core_deadline(&core), T0 + 5000 + RESET_MS + 1000);
    CHECK_EQ(tick_at(T0 + 5000 + RESET_MS + 999), 0);
    CHECK_EQ(tick_at(T0 + 5000 + RESET_MS + 1000), GUARD_DO_RESET);
    CHECK_EQ(core.state, GUARD_STATE_FENCING);
    CHECK_EQ(send_type(GUARD_EVENT_PROVEN), GUARD_DO_TELL); /* a late one is true all the same */
    CHECK_EQ(tick_at(T0 + 100000), GUARD_DO_RELEASE);
}

static void safety_11_permits_that_never_come_back_end_in_a_reset_too(void)
{
    unsigned done = 0;
    begin_guarding();
    send_type(GUARD_EVENT_SIGTERM);
    for (int ms = 10; ms < RESET_MS; ms += 10)
        done |= tick_at(T0 + ms);
    CHECK_EQ(done, GUARD_DO_LOCK_PERMITS | GUARD_DO_KILL_AGENT | GUARD_DO_STOP);
    CHECK_EQ(tick_at(T0 + RESET_MS) & GUARD_DO_RESET, GUARD_DO_RESET);
}

static void rounds_that_prove_nothing_do_not_put_the_reset_off(void)
{
    unsigned done = 0;
    begin_guarding();
    send_type(GUARD_EVENT_SIGTERM);
    send_type(GUARD_EVENT_PERMITS_FREE);
    while (guard_core_deadline(&core) < T0 + RESET_MS) {
        now += 20;
        send_type(GUARD_EVENT_NOT_PROVEN);
        done |= tick_at(guard_core_deadline(&core));
    }
    CHECK_EQ(done & GUARD_DO_RESET, 0);
    CHECK_EQ(tick_at(T0 + RESET_MS) & GUARD_DO_RESET, GUARD_DO_RESET);
}

/* Stopped, or paused with the machine, across the time: the wipe has not had a chance. */
static void a_guard_that_stood_still_gives_the_wipe_a_moment_once(void)
{
    begin_guarding();
    send_type(GUARD_EVENT_SIGTERM);
    send_type(GUARD_EVENT_PERMITS_FREE);
    CHECK_EQ(tick_at(T0 + RESET_MS + 5000), 0);
    CHECK_EQ(guard_core_deadline(&core), T0 + RESET_MS + 7000);
    CHECK_EQ(tick_at(T0 + RESET_MS + 9000), GUARD_DO_RESET); /* late again, and no more put off */
}

static void safety_11_with_the_proof_nothing_is_reset(void)
{
    begin_proven();
    CHECK_EQ(tick_at(T0 + RESET_MS + 60000), GUARD_DO_RELEASE);
    for (int i = 0; i < 100; i++) { /* the daemon does not take USED back: the node is clean */
        send_type(GUARD_EVENT_RELEASE_FAILED);
        CHECK_EQ(tick_at(now + 1000), GUARD_DO_RELEASE);
    }
}

static void without_a_fence_nothing_is_reset(void)
{
    begin_guarding();
    for (int i = 1; i < 100; i++) {
        now = T0 + i * 4000;
        CHECK_EQ(send((struct guard_event){.type = GUARD_EVENT_RENEWED, .renewed_ms = now}), 0);
        CHECK_EQ(send_type(GUARD_EVENT_TICK), 0);
    }
    send_type(GUARD_EVENT_LEAVE);
    CHECK_EQ(tick_at(now + 15000), 0);
    send_type(GUARD_EVENT_EMPTY);
    CHECK_EQ(tick_at(now + RESET_MS + 60000), 0);
}

static void an_agent_that_keeps_its_permits_is_killed_and_waited_for(void)
{
    begin_guarding();
    send_type(GUARD_EVENT_SIGTERM);
    CHECK_EQ(tick_at(T0 + 10), GUARD_DO_LOCK_PERMITS);
    CHECK_EQ(tick_at(T0 + 999), GUARD_DO_LOCK_PERMITS);
    CHECK(!core.agent_killed);
    CHECK_EQ(tick_at(T0 + 1009), GUARD_DO_LOCK_PERMITS | GUARD_DO_KILL_AGENT | GUARD_DO_STOP);
    CHECK(core.agent_killed);
    CHECK_EQ(tick_at(T0 + 1019), GUARD_DO_LOCK_PERMITS);
    CHECK_EQ(send_type(GUARD_EVENT_PROVEN), 0);
    CHECK_EQ(core.state, GUARD_STATE_FENCING);
    CHECK_EQ(send_type(GUARD_EVENT_PERMITS_FREE), GUARD_DO_WIPE);
}

static void the_agents_time_to_drain_is_three_seconds(void)
{
    begin_proven();
    CHECK_EQ(guard_core_deadline(&core), T0 + 3000);
    CHECK_EQ(tick_at(T0 + 2999), 0);
    CHECK_EQ(tick_at(T0 + 3000), GUARD_DO_RELEASE);
    CHECK_EQ(send_type(GUARD_EVENT_DRAINED), 0); /* once is enough */
}

static void the_drain_ends_before_the_watchdog_would_fire(void)
{
    begin_guarding();
    send((struct guard_event){.type = GUARD_EVENT_RENEWED, .renewed_ms = T0});
    now = T0 + 19000;
    send_type(GUARD_EVENT_TICK);
    send_type(GUARD_EVENT_PERMITS_FREE);
    now = T0 + 20500; /* the drain of the maps took its time */
    CHECK_EQ(send_type(GUARD_EVENT_PROVEN), GUARD_DO_TELL);
    CHECK_EQ(guard_core_deadline(&core), T0 + core.config.timeouts.guard_release_s * 1000);
    CHECK_EQ(core.config.timeouts.guard_release_s, 22);
}

static void a_late_proof_releases_at_once(void)
{
    begin_guarding();
    send((struct guard_event){.type = GUARD_EVENT_RENEWED, .renewed_ms = T0});
    send_type(GUARD_EVENT_SIGTERM);
    send_type(GUARD_EVENT_PERMITS_FREE);
    now = T0 + 22500;
    CHECK_EQ(send_type(GUARD_EVENT_PROVEN), GUARD_DO_TELL | GUARD_DO_RELEASE);
}

static void an_absent_agent_is_not_waited_for(void)
{
    begin_guarding();
    CHECK_EQ(send_type(GUARD_EVENT_AGENT_GONE), 0);
    CHECK_EQ(core.state, GUARD_STATE_GUARDING);
    send_type(GUARD_EVENT_SIGTERM);
    send_type(GUARD_EVENT_PERMITS_FREE);
    CHECK_EQ(send_type(GUARD_EVENT_PROVEN), GUARD_DO_TELL | GUARD_DO_RELEASE);

    begin_proven();
    CHECK_EQ(send_type(GUARD_EVENT_AGENT_GONE), GUARD_DO_RELEASE);
}

static void a_release_that_fails_is_tried_again(void)
{
    begin_proven();
    send_type(GUARD_EVENT_DRAINED);
    CHECK_EQ(send_type(GUARD_EVENT_RELEASE_FAILED), 0);
    CHECK_EQ(core.state, GUARD_STATE_PROVEN);
    CHECK_EQ(tick_at(now + 99), 0);
    CHECK_EQ(tick_at(now + 1), GUARD_DO_RELEASE);
    CHECK_EQ(send_type(GUARD_EVENT_RELEASED), GUARD_DO_TELL | GUARD_DO_EXIT);
}

static void safety_11_a_guard_killed_while_it_fenced_goes_on_fencing(void)
{
    struct guard_core_config config = {.host_id = HOST, .generation = GENERATION};
    timeouts_compute(2, 10, &config.timeouts, NULL);
    guard_core_init(&core, &config);
    CHECK_EQ(guard_core_step(&core, &(struct guard_event){.type = GUARD_EVENT_STARTED,
                                                          .now_ms = T0,
                                                          .resumed = GUARD_PERMIT_FENCED}),
             BEGIN_FENCE);
    CHECK_EQ(core.state, GUARD_STATE_FENCING);
    /* It has its own time for the proof, from its own begin. */
    CHECK_EQ(tick_at(T0 + RESET_MS - 1) & GUARD_DO_RESET, 0);
    CHECK_EQ(tick_at(T0 + RESET_MS) & GUARD_DO_RESET, GUARD_DO_RESET);
}

static void a_guard_killed_while_it_guarded_is_succeeded_quietly(void)
{
    begin(GUARD_PERMIT_OPEN);
    CHECK_EQ(core.state, GUARD_STATE_STARTING);
    CHECK_EQ(send_type(GUARD_EVENT_ACQUIRED), GUARD_DO_OPEN_PERMITS | GUARD_DO_TELL);
}

static void a_successor_that_finds_the_lockspace_lost_fences(void)
{
    struct guard_event failed = {
        .type = GUARD_EVENT_START_FAILED, .flag = true, .reason = "no lockspace"};
    begin(GUARD_PERMIT_OPEN);
    CHECK_EQ(send(failed), BEGIN_FENCE);
    CHECK_STR(core.reason, "no lockspace");

    begin(GUARD_PERMIT_OPEN);
    failed.flag = false; /* for the moment only: whoever started it tries again */
    CHECK_EQ(send(failed), GUARD_DO_EXIT);
}

static void a_first_guard_that_gets_no_lease_exits(void)
{
    begin(GUARD_PERMIT_NONE);
    CHECK_EQ(send((struct guard_event){
                 .type = GUARD_EVENT_START_FAILED, .flag = true, .reason = "no lockspace"}),
             GUARD_DO_EXIT);
    CHECK_EQ(core.state, GUARD_STATE_STARTING);
}

static void a_trigger_while_it_starts_fences(void)
{
    begin(GUARD_PERMIT_OPEN);
    CHECK_EQ(send_type(GUARD_EVENT_SIGTERM), BEGIN_FENCE);
    CHECK_EQ(send_type(GUARD_EVENT_ACQUIRED), 0); /* too late: no permit is opened */
    CHECK_EQ(core.state, GUARD_STATE_FENCING);
}

static void a_clean_leave_releases_only_when_nothing_is_mapped(void)
{
    begin_guarding();
    CHECK_EQ(send_type(GUARD_EVENT_LEAVE), GUARD_DO_CHECK_EMPTY);
    CHECK_EQ(send_type(GUARD_EVENT_EMPTY), GUARD_DO_RELEASE);
    /* Nothing is mapped and nothing can be: killpath has come too late to matter. */
    CHECK_EQ(send((struct guard_event){
                 .type = GUARD_EVENT_KILLPATH, .host_id = HOST, .generation = GENERATION}),
             0);
    CHECK_EQ(send_type(GUARD_EVENT_RELEASED), GUARD_DO_TELL | GUARD_DO_EXIT);
    CHECK_EQ(core.state, GUARD_STATE_OVER);
}

static void a_leave_with_maps_is_refused_and_it_goes_on_guarding(void)
{
    begin_guarding();
    send_type(GUARD_EVENT_LEAVE);
    CHECK_EQ(send_type(GUARD_EVENT_NOT_EMPTY), GUARD_DO_OPEN_PERMITS | GUARD_DO_REFUSE_LEAVE);
    CHECK_EQ(core.state, GUARD_STATE_GUARDING);
    CHECK_EQ(send_type(GUARD_EVENT_LEAVE), GUARD_DO_CHECK_EMPTY);
}

static void a_trigger_during_the_look_of_a_leave_fences(void)
{
    begin_guarding();
    send_type(GUARD_EVENT_LEAVE);
    CHECK_EQ(send_type(GUARD_EVENT_SIGTERM), BEGIN_FENCE);
    CHECK_EQ(send_type(GUARD_EVENT_EMPTY), 0); /* the look's late answer: no release by it */
    CHECK_EQ(core.state, GUARD_STATE_FENCING);
}

static void the_times_fit_every_allowed_pair_of_timeouts(void)
{
    int pairs = 0;
    for (int n = 1; n <= 60; n++)
        for (int w = 10; w <= 300; w++) {
            struct timeouts t;
            if (timeouts_compute(n, w, &t, NULL) < 0)
                continue;
            pairs++;
            CHECK(t.guard_fence_s > t.fail_s);
            CHECK(t.guard_fence_s < t.guard_release_s);
            CHECK(t.guard_release_s < t.dead_s);
        }
    CHECK(pairs > 10000);
}

TEST_MAIN(TEST(permits_open_only_with_the_lease), TEST(safety_11_each_trigger_fences),
          TEST(killpath_of_another_life_is_ignored),
          TEST(the_timer_fences_from_the_last_renewal_seen),
          TEST(the_first_renewal_seen_counts_although_it_is_older_than_the_guard),
          TEST(news_of_a_renewal_long_ago_fences_at_once), TEST(a_fence_runs_to_its_end_in_order),
          TEST(safety_11_nothing_takes_a_fence_back),
          TEST(safety_10_without_the_proof_nothing_is_released),
          TEST(safety_10_the_stop_at_the_begin_is_no_proof),
          TEST(safety_11_a_fence_without_a_proof_ends_in_a_reset),
          TEST(safety_11_permits_that_never_come_back_end_in_a_reset_too),
          TEST(rounds_that_prove_nothing_do_not_put_the_reset_off),
          TEST(a_guard_that_stood_still_gives_the_wipe_a_moment_once),
          TEST(safety_11_with_the_proof_nothing_is_reset), TEST(without_a_fence_nothing_is_reset),
          TEST(an_agent_that_keeps_its_permits_is_killed_and_waited_for),
          TEST(the_agents_time_to_drain_is_three_seconds),
          TEST(the_drain_ends_before_the_watchdog_would_fire), TEST(a_late_proof_releases_at_once),
          TEST(an_absent_agent_is_not_waited_for), TEST(a_release_that_fails_is_tried_again),
          TEST(safety_11_a_guard_killed_while_it_fenced_goes_on_fencing),
          TEST(a_guard_killed_while_it_guarded_is_succeeded_quietly),
          TEST(a_successor_that_finds_the_lockspace_lost_fences),
          TEST(a_first_guard_that_gets_no_lease_exits), TEST(a_trigger_while_it_starts_fences),
          TEST(a_clean_leave_releases_only_when_nothing_is_mapped),
          TEST(a_leave_with_maps_is_refused_and_it_goes_on_guarding),
          TEST(a_trigger_during_the_look_of_a_leave_fences),
          TEST(the_times_fit_every_allowed_pair_of_timeouts))
