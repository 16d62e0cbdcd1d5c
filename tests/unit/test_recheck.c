/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SAFETY 3: grant tables that a late write hits are written again, whichever node's and whichever
 * copy. The coordinator's re-check runs against a real O_DIRECT file, with a leader that does
 * nothing else.
 */
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "coordinator/coordinator_internal.h"
#include "support/temp_lun.h"
#include "support/test.h"

#define NODES   20u
#define TERM    7u
#define USED_UP 5u /* hosts 1 to this have entries, the others empty tables */

static struct {
    char path[TEMP_LUN_PATH_SIZE];
    uv_loop_t loop;
    struct coordinator c;
} w;

static void fill(struct table *t, uint32_t host, uint64_t term)
{
    table_init(t, TABLE_GRANTS, host, &w.c.sb.pool_id);
    t->writer = (struct incarnation){.host_id = 1, .generation = 1, .run_or_term = term};
    t->term = term;
    t->seq = 1;
    if (host > USED_UP)
        return;
    struct table_entry *e = table_add(t);
    e->volume_id = e->attachment_id = (struct uuid){{(uint8_t)host, 1}};
    e->generation = 1;
    e->term = term;
    e->mode = TABLE_MODE_ATTACH;
    e->state = TABLE_STATE_GRANTED;
}

static void put(uint32_t host, int copy, uint64_t term)
{
    struct table t;
    fill(&t, host, term);
    if (table_write(w.c.fd, &w.c.sb.layout, &t, copy, NULL) < 0)
        abort();
    table_free(&t);
}

static bool start(void)
{
    struct leader_config config = {.superblock = &w.c.sb, .self = {1, 1, TERM}};

    memset(&w, 0, sizeof w);
    w.c.sb.pool_id = uuid_random();
    if (layout_compute(NODES, 512, &w.c.sb.layout, NULL) < 0)
        abort();
    w.c.fd = temp_lun_open(w.c.sb.layout.area_start + w.c.sb.layout.area_size, w.path);
    if (w.c.fd < 0)
        return false;
    uv_loop_init(&w.loop);
    w.c.loop = &w.loop;
    w.c.self = config.self;
    w.c.grants_worker = worker_open(&w.loop, "grants");
    config.catalogue = calloc(1, sizeof *config.catalogue);
    w.c.leader = leader_new(&config);
    for (uint32_t h = 1; h <= NODES; h++) {
        struct table t;
        fill(&t, h, TERM);
        leader_set_grants(w.c.leader, h, &t);
        put(h, 0, TERM);
        put(h, 1, TERM);
    }
    return true;
}

static void stop(void)
{
    leader_free(w.c.leader);
    worker_close(w.c.grants_worker);
    uv_run(&w.loop, UV_RUN_DEFAULT);
    uv_loop_close(&w.loop);
    temp_lun_close(w.c.fd, w.path);
}

static void heartbeats(int n)
{
    while (n-- > 0) {
        recheck_start(&w.c);
        while (w.c.recheck_busy)
            uv_run(&w.loop, UV_RUN_ONCE);
    }
}

/* The term of a copy on the LUN; 0: not readable. */
static uint64_t term_of(uint32_t host, int copy)
{
    struct table t = {0};
    if (table_read(w.c.fd, &w.c.sb.layout, TABLE_GRANTS, host, copy, &w.c.sb.pool_id, &t, NULL) < 0)
        return 0;
    uint64_t term = t.term;
    table_free(&t);
    return term;
}

static void damage(uint32_t host, int copy)
{
    uint8_t *bytes = io_alloc(LAYOUT_PAGE_SIZE);
    memset(bytes, 0x5a, LAYOUT_PAGE_SIZE);
    if (io_write(w.c.fd, bytes, LAYOUT_PAGE_SIZE, layout_grants(&w.c.sb.layout, host, copy), NULL) <
        0)
        abort();
    free(bytes);
}

static void safety_3_an_older_table_that_lands_late_is_written_over(void)
{
    if (!start())
        SKIP("no O_DIRECT here");
    put(3, 0, TERM - 1);
    put(4, 1, TERM - 2);
    heartbeats(2); /* three nodes with entries in each: all five */
    uint64_t a = term_of(3, 0), b = term_of(4, 1);
    stop();
    CHECK_EQ(a, TERM);
    CHECK_EQ(b, TERM);
}

static void safety_3_a_damaged_copy_is_written_again(void)
{
    if (!start())
        SKIP("no O_DIRECT here");
    damage(1, 0);
    damage(5, 1);
    heartbeats(2);
    uint64_t a = term_of(1, 0), b = term_of(5, 1);
    stop();
    CHECK_EQ(a, TERM);
    CHECK_EQ(b, TERM);
}

static void safety_3_tables_without_entries_get_their_turn(void)
{
    if (!start())
        SKIP("no O_DIRECT here");
    put(NODES, 1, TERM - 1);
    heartbeats(1);
    uint64_t early = term_of(NODES, 1);
    heartbeats((int)NODES - 1); /* one of any kind in each */
    uint64_t late = term_of(NODES, 1);
    stop();
    CHECK_EQ(early, TERM - 1);
    CHECK_EQ(late, TERM);
}

static void a_table_of_a_later_term_ends_the_process(void)
{
    int status = 0;
    pid_t pid = fork(); /* before there are threads */

    if (pid == 0) {
        if (!start())
            _exit(77);
        put(2, 0, TERM + 1);
        unlink(w.path); /* it will not come back to clean up */
        heartbeats(2);
        _exit(1);
    }
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
    if (WEXITSTATUS(status) == 77)
        SKIP("no O_DIRECT here");
    CHECK_EQ(WEXITSTATUS(status), COORDINATOR_EXIT_DEPOSED);
}

TEST_MAIN(TEST(safety_3_an_older_table_that_lands_late_is_written_over),
          TEST(safety_3_a_damaged_copy_is_written_again),
          TEST(safety_3_tables_without_entries_get_their_turn),
          TEST(a_table_of_a_later_term_ends_the_process))
