/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Alarms on a real loop: who rings, in which order, not too early, once. Waiting is done by running
 * the loop until it has happened; the handle of the alarms keeps the loop alive for it.
 */
#include <stdbool.h>
#include <stdlib.h>

#include "base/alarm.h"
#include "support/test.h"

#define N 500

struct bell {
    struct alarm alarm;
    struct world *world;
    uint64_t rung_us;
    int rung;
    int again; /* sets itself so many times more, in the past */
    struct bell *clears;
};

struct world {
    uv_loop_t loop;
    struct alarms *alarms;
    struct bell bells[N];
    struct bell *rang[4 * N];
    int n_rang;
    bool closed;
};

static void on_ring(struct alarm *alarm)
{
    struct bell *bell = alarm->data;
    struct world *w = bell->world;

    bell->rung++;
    bell->rung_us = alarms_now_us(w->alarms);
    w->rang[w->n_rang++] = bell;
    if (bell->again-- > 0)
        alarm_set(w->alarms, alarm, 0);
    if (bell->clears)
        alarm_clear(w->alarms, &bell->clears->alarm);
}

static void on_closed(void *data)
{
    ((struct world *)data)->closed = true;
}

static struct world *world_open(void)
{
    struct world *w = calloc(1, sizeof *w);

    if (!w)
        abort();
    uv_loop_init(&w->loop);
    w->alarms = alarms_open(&w->loop);
    for (int i = 0; i < N; i++)
        w->bells[i] = (struct bell){.alarm = {.ring = on_ring, .data = &w->bells[i]}, .world = w};
    return w;
}

static bool world_close(struct world *w)
{
    alarms_close(w->alarms, on_closed, w);
    bool inline_call = w->closed;
    uv_run(&w->loop, UV_RUN_DEFAULT);
    bool ok = uv_loop_close(&w->loop) == 0 && w->closed && !inline_call;
    free(w);
    return ok;
}

static void run_until_rung(struct world *w, int n)
{
    while (w->n_rang < n)
        uv_run(&w->loop, UV_RUN_ONCE);
}

static void an_alarm_rings_once_and_not_before_its_time(void)
{
    struct world *w = world_open();
    uint64_t at_us = alarms_now_us(w->alarms) + 700;
    alarm_set(w->alarms, &w->bells[0].alarm, at_us);
    CHECK_EQ(w->bells[0].rung, 0);
    run_until_rung(w, 1);
    CHECK(w->bells[0].rung_us >= at_us);
    CHECK_EQ(w->bells[0].alarm.place, 0);
    alarm_set(w->alarms, &w->bells[1].alarm, at_us + 2000);
    run_until_rung(w, 2);
    CHECK_EQ(w->bells[0].rung, 1);
    CHECK(world_close(w));
}

static void many_ring_in_the_order_of_their_times_and_of_setting(void)
{
    struct world *w = world_open();
    uint64_t start_us = alarms_now_us(w->alarms);
    for (uint32_t i = 0; i < N; i++) /* 53 times, scattered, each shared by nine or ten */
        alarm_set(w->alarms, &w->bells[i].alarm, start_us + 20 * (i * 37 % 53));
    run_until_rung(w, N);
    for (int i = 1; i < N; i++) {
        const struct bell *a = w->rang[i - 1], *b = w->rang[i];
        CHECK(a->alarm.at_us < b->alarm.at_us || (a->alarm.at_us == b->alarm.at_us && a < b));
        CHECK(b->rung_us >= b->alarm.at_us);
    }
    CHECK(world_close(w));
}

static void what_is_cleared_or_set_anew_does_not_ring_for_its_old_time(void)
{
    struct world *w = world_open();
    uint64_t now_us = alarms_now_us(w->alarms);
    for (uint32_t i = 0; i < N; i++)
        alarm_set(w->alarms, &w->bells[i].alarm, now_us + 100 + i * 7 % 100);
    for (uint32_t i = 0; i < N; i += 2)
        alarm_clear(w->alarms, &w->bells[i].alarm);
    for (uint32_t i = 1; i < N; i += 4)
        alarm_set(w->alarms, &w->bells[i].alarm, now_us + 3000);
    alarm_clear(w->alarms, &w->bells[0].alarm); /* twice is no harm */
    run_until_rung(w, N / 2);
    for (uint32_t i = 0; i < N; i++) {
        CHECK_EQ(w->bells[i].rung, i % 2);
        CHECK(i % 4 != 1 || w->bells[i].rung_us >= now_us + 3000);
    }
    CHECK(world_close(w));
}

static void an_earlier_alarm_overtakes_the_one_that_is_waited_for(void)
{
    struct world *w = world_open();
    uint64_t now_us = alarms_now_us(w->alarms);
    alarm_set(w->alarms, &w->bells[0].alarm, now_us + 3600u * 1000000u);
    alarm_set(w->alarms, &w->bells[1].alarm, now_us + 500);
    run_until_rung(w, 1);
    CHECK(w->rang[0] == &w->bells[1]);
    alarm_clear(w->alarms, &w->bells[0].alarm);
    CHECK(world_close(w));
}

static void one_that_always_sets_itself_in_the_past_starves_nobody(void)
{
    struct world *w = world_open();
    w->bells[0].again = 100;
    alarm_set(w->alarms, &w->bells[0].alarm, 0);
    alarm_set(w->alarms, &w->bells[1].alarm, alarms_now_us(w->alarms));
    run_until_rung(w, 2);
    CHECK_EQ(w->bells[0].rung, 1);
    CHECK_EQ(w->bells[1].rung, 1);
    run_until_rung(w, 102);
    CHECK_EQ(w->bells[0].rung, 101);
    CHECK(world_close(w));
}

static void a_ring_may_clear_one_that_is_due_too(void)
{
    struct world *w = world_open();
    uint64_t now_us = alarms_now_us(w->alarms);
    w->bells[0].clears = &w->bells[1];
    for (int i = 0; i < 3; i++)
        alarm_set(w->alarms, &w->bells[i].alarm, now_us);
    run_until_rung(w, 2);
    CHECK_EQ(w->bells[1].rung, 0);
    CHECK_EQ(w->bells[2].rung, 1);
    CHECK(world_close(w));
}

TEST_MAIN(TEST(an_alarm_rings_once_and_not_before_its_time),
          TEST(many_ring_in_the_order_of_their_times_and_of_setting),
          TEST(what_is_cleared_or_set_anew_does_not_ring_for_its_old_time),
          TEST(an_earlier_alarm_overtakes_the_one_that_is_waited_for),
          TEST(one_that_always_sets_itself_in_the_past_starves_nobody),
          TEST(a_ring_may_clear_one_that_is_due_too))
