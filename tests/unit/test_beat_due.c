/* SPDX-License-Identifier: Apache-2.0 */
/* What a leader writes as its beat, and when it stops to: a thread that works for it is stuck. */
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/io.h"
#include "coordinator/coordinator_internal.h"
#include "support/temp_lun.h"
#include "support/test.h"

static struct {
    char path[TEMP_LUN_PATH_SIZE];
    uv_loop_t loop;
    struct coordinator c;
    pthread_mutex_t gate; /* jobs end when they get it */
    int done;
} w;

static bool start(void)
{
    memset(&w, 0, sizeof w);
    w.c.sb.pool_id = uuid_random();
    if (layout_compute(16, 512, &w.c.sb.layout, NULL) < 0)
        abort();
    w.c.fd = temp_lun_open(w.c.sb.layout.area_start + w.c.sb.layout.area_size, w.path);
    if (w.c.fd < 0)
        return false;
    uv_loop_init(&w.loop);
    w.c.loop = &w.loop;
    w.c.lease_self = (struct incarnation){.host_id = 5, .generation = 2, .run_or_term = 7};
    w.c.lvm_worker = worker_open(&w.loop, "lvm");
    w.c.grants_worker = worker_open(&w.loop, "grants");
    pthread_mutex_init(&w.gate, NULL);
    return true;
}

static void stop(void)
{
    worker_close(w.c.lvm_worker);
    worker_close(w.c.grants_worker);
    uv_run(&w.loop, UV_RUN_DEFAULT);
    uv_loop_close(&w.loop);
    temp_lun_close(w.c.fd, w.path);
}

static void wait_for_gate(struct worker_job *job)
{
    (void)job;
    pthread_mutex_lock(&w.gate);
    pthread_mutex_unlock(&w.gate);
}

static void count(struct worker_job *job)
{
    (void)job;
    w.done++;
}

/* As if so much time had passed since the threads were last seen to get on. */
static void time_passes(uint64_t ms)
{
    w.c.lvm_watch.since_ms -= ms;
    w.c.grants_watch.since_ms -= ms;
}

static void run_until_done(int n)
{
    while (w.done < n)
        uv_run(&w.loop, UV_RUN_ONCE);
}

static void the_beat_rises_and_names_the_node_of_the_agents_page(void)
{
    struct beat beat;
    uint8_t *bytes = io_alloc(PAGE_SIZE_BYTES);
    struct page *page = calloc(1, sizeof *page);
    if (!start())
        SKIP("no O_DIRECT file");
    *page = (struct page){.kind = PAGE_UP,
                          .slot = 5,
                          .pool_id = w.c.sb.pool_id,
                          .writer = {5, 2, 1},
                          .first_seq = 1,
                          .node_name = "node-five"};
    page_out(page, bytes);
    CHECK_EQ(io_write(w.c.fd, bytes, PAGE_SIZE_BYTES, layout_up_page(&w.c.sb.layout, 5), NULL), 0);
    beat_write_next(&w.c, BEAT_PHASE_TAKEOVER);
    beat_write_next(&w.c, BEAT_PHASE_LEADING);
    CHECK_EQ(beat_read(w.c.fd, &w.c.sb.layout, &w.c.sb.pool_id, &beat, NULL), 0);
    CHECK_EQ(beat.count, 2);
    CHECK_EQ(beat.writer.run_or_term, 7);
    CHECK_EQ(beat.phase, BEAT_PHASE_LEADING);
    CHECK_STR(beat.node_name, "node-five");
    free(page);
    free(bytes);
    stop();
}

static void a_leader_at_rest_beats_however_long(void)
{
    if (!start())
        SKIP("no O_DIRECT file");
    CHECK(beat_is_due(&w.c));
    time_passes(10 * COORDINATOR_STUCK_MS);
    CHECK(beat_is_due(&w.c));
    stop();
}

static void a_thread_that_ends_no_job_stops_the_beats_until_it_does(void)
{
    struct worker_job jobs[2] = {{.run = wait_for_gate, .done = count},
                                 {.run = wait_for_gate, .done = count}};
    struct worker **workers[] = {&w.c.lvm_worker, &w.c.grants_worker};
    for (int i = 0; i < 2; i++) {
        if (!start())
            SKIP("no O_DIRECT file");
        CHECK(beat_is_due(&w.c));
        pthread_mutex_lock(&w.gate);
        worker_submit(*workers[i], &jobs[0]);
        worker_submit(*workers[i], &jobs[1]);
        CHECK(beat_is_due(&w.c)); /* at work is not stuck */
        time_passes(COORDINATOR_STUCK_MS + 1000);
        CHECK(!beat_is_due(&w.c));
        CHECK(!beat_is_due(&w.c));
        pthread_mutex_unlock(&w.gate);
        run_until_done(2);
        CHECK(beat_is_due(&w.c));
        stop();
    }
}

static void a_thread_that_is_always_busy_and_gets_on_is_not_stuck(void)
{
    struct worker_job jobs[20];
    if (!start())
        SKIP("no O_DIRECT file");
    CHECK(beat_is_due(&w.c));
    for (int i = 0; i < 20; i++) {
        jobs[i] = (struct worker_job){.run = wait_for_gate, .done = count};
        worker_submit(w.c.lvm_worker, &jobs[i]);
        if (i > 0)
            run_until_done(i); /* the next one is there already */
        time_passes(COORDINATOR_STUCK_MS - 1000);
        CHECK(beat_is_due(&w.c));
    }
    run_until_done(20);
    stop();
}

TEST_MAIN(TEST(the_beat_rises_and_names_the_node_of_the_agents_page),
          TEST(a_leader_at_rest_beats_however_long),
          TEST(a_thread_that_ends_no_job_stops_the_beats_until_it_does),
          TEST(a_thread_that_is_always_busy_and_gets_on_is_not_stuck))
