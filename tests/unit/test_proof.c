/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SAFETY 8: the coordinator's own look at the leases of those whom sanlock calls dead, on a real
 * O_DIRECT file with a record that sanlock wrote (generation 1, timestamp 637).
 */
#include <stdlib.h>

#include "base/io.h"
#include "coordinator/coordinator_internal.h"
#include "coordinator/still.h"
#include "support/temp_lun.h"
#include "support/test.h"

#define NODES      200
#define GENERATION 1u
#define TIMESTAMP  637u
#define READS_MAX  64 /* PROOF_READS_MAX */

static struct {
    char path[TEMP_LUN_PATH_SIZE];
    struct coordinator c;
    struct host_status hosts[NODES];
} w;

static bool put_leases(void)
{
    uint8_t *block = io_alloc(LAYOUT_PAGE_SIZE);
    FILE *f = fopen("tests/golden/sanlock-delta-live.bin", "re");
    bool ok = f && fread(block, 1, 512, f) == 512;

    for (size_t at = 512; at < LAYOUT_PAGE_SIZE; at += 512)
        memcpy(block + at, block, 512);
    for (uint64_t at = 0; ok && at < NODES * 512; at += LAYOUT_PAGE_SIZE)
        ok = io_write(w.c.fd, block, LAYOUT_PAGE_SIZE, w.c.sb.layout.lockspace + at, NULL) == 0;
    if (f)
        fclose(f);
    free(block);
    return ok;
}

static bool start(void)
{
    memset(&w, 0, sizeof w);
    w.c.sb.pool_id = (struct uuid){{0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77}};
    w.c.sb.io_timeout_s = 2;
    w.c.sb.watchdog_fire_timeout_s = 10;
    if (layout_compute(NODES, 512, &w.c.sb.layout, NULL) < 0)
        abort();
    w.c.fd = temp_lun_open(w.c.sb.layout.area_start + w.c.sb.layout.area_size, w.path);
    if (w.c.fd < 0)
        return false;
    proof_open(&w.c);
    for (uint32_t i = 0; i < NODES; i++)
        w.hosts[i] = (struct host_status){.host_id = i + 1,
                                          .generation = GENERATION,
                                          .state = HOST_STATE_LIVE,
                                          .timestamp = TIMESTAMP};
    return put_leases();
}

static void stop(void)
{
    free(w.c.doubts);
    still_free(w.c.still);
    temp_lun_close(w.c.fd, w.path);
}

static int looked_at(void)
{
    int n = 0;
    for (int i = 0; i < NODES; i++)
        n += w.hosts[i].look != HOST_LOOK_NONE;
    return n;
}

static void safety_8_the_lease_of_the_dead_is_compared_with_what_sanlock_judged_by(void)
{
    if (!start())
        SKIP("no O_DIRECT here");
    w.hosts[4].state = w.hosts[5].state = w.hosts[6].state = HOST_STATE_DEAD;
    w.hosts[5].timestamp = TIMESTAMP - 4; /* it has renewed since sanlock looked */
    w.hosts[6].generation = GENERATION + 1;
    proof_look(&w.c, w.hosts, NODES);
    enum host_look same = w.hosts[4].look, renewed = w.hosts[5].look, newer = w.hosts[6].look;
    int n = looked_at();
    stop();
    CHECK_EQ(same, HOST_LOOK_UNMOVED);
    CHECK_EQ(renewed, HOST_LOOK_MOVED);
    CHECK_EQ(newer, HOST_LOOK_MOVED);
    CHECK_EQ(n, 3); /* nobody else's was read */
}

static void safety_8_a_lease_that_cannot_be_read_proves_nothing(void)
{
    if (!start())
        SKIP("no O_DIRECT here");
    uint8_t *block = io_alloc(LAYOUT_PAGE_SIZE);
    memset(block, 0x5a, LAYOUT_PAGE_SIZE);
    if (io_write(w.c.fd, block, LAYOUT_PAGE_SIZE, w.c.sb.layout.lockspace, NULL) < 0)
        abort();
    free(block);
    w.hosts[2].state = HOST_STATE_DEAD;
    w.hosts[20].state = HOST_STATE_DEAD;
    w.hosts[20].host_id = NODES + 1; /* a host that the pool has no room for */
    proof_look(&w.c, w.hosts, NODES);
    enum host_look damaged = w.hosts[2].look, stranger = w.hosts[20].look;
    proof_look(&w.c, NULL, -5); /* sanlock did not answer */
    stop();
    CHECK_EQ(damaged, HOST_LOOK_DAMAGED);
    CHECK_EQ(stranger, HOST_LOOK_NONE);
}

static void safety_8_a_lease_that_is_said_to_be_free_is_read_too(void)
{
    if (!start())
        SKIP("no O_DIRECT here");
    w.hosts[4].state = w.hosts[5].state = HOST_STATE_FREE;
    w.hosts[4].timestamp = 0; /* which the record does not have */
    proof_look(&w.c, w.hosts, NODES);
    enum host_look belied = w.hosts[4].look, same = w.hosts[5].look;
    int n = looked_at();
    stop();
    CHECK_EQ(belied, HOST_LOOK_MOVED);
    CHECK_EQ(same, HOST_LOOK_UNMOVED);
    CHECK_EQ(n, 2);
}

static void of_many_dead_all_have_their_turn(void)
{
    bool seen[NODES] = {false};
    int rounds = 0, left = NODES, most = 0;

    if (!start())
        SKIP("no O_DIRECT here");
    while (left > 0 && rounds < 10) {
        for (int i = 0; i < NODES; i++) {
            w.hosts[i].state = HOST_STATE_DEAD;
            w.hosts[i].look = HOST_LOOK_NONE;
        }
        proof_look(&w.c, w.hosts, NODES);
        most = looked_at() > most ? looked_at() : most;
        for (int i = 0; i < NODES; i++)
            if (w.hosts[i].look == HOST_LOOK_UNMOVED && !seen[i])
                seen[i] = true, left--;
        rounds++;
    }
    stop();
    CHECK_EQ(left, 0);
    CHECK_EQ(most, READS_MAX);
    CHECK_EQ(rounds, (NODES + READS_MAX - 1) / READS_MAX);
}

TEST_MAIN(TEST(safety_8_the_lease_of_the_dead_is_compared_with_what_sanlock_judged_by),
          TEST(safety_8_a_lease_that_cannot_be_read_proves_nothing),
          TEST(safety_8_a_lease_that_is_said_to_be_free_is_read_too),
          TEST(of_many_dead_all_have_their_turn))
