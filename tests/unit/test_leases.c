/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sanlock's records, decoded from sectors that sanlock 3.9.5 wrote (tests/golden/sanlock-*.bin),
 * the choice of a host id, and a node's name.
 */
#include "fencing/leases.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/io.h"
#include "base/le.h"
#include "fencing/sanlock_daemon.h"
#include "support/test.h"

#define SPACE  "lunar-0011223344556677"
#define SECTOR 512

static int golden(const char *name, uint8_t sector[SECTOR])
{
    char path[128];
    snprintf(path, sizeof path, "tests/golden/sanlock-%s.bin", name);
    FILE *f = fopen(path, "re");
    if (!f)
        return 0;
    size_t n = fread(sector, 1, SECTOR, f);
    fclose(f);
    return n == SECTOR;
}

static void a_live_delta_lease_is_read(void)
{
    uint8_t sector[SECTOR];
    struct delta_lease lease;
    CHECK(golden("delta-live", sector));
    CHECK_EQ(delta_lease_in(sector, 7, SPACE, &lease, NULL), 0);
    CHECK_EQ(lease.host_id, 7);
    CHECK_EQ(lease.owner_id, 7);
    CHECK_EQ(lease.generation, 1);
    CHECK_EQ(lease.timestamp, 637);
    CHECK_EQ(lease.io_timeout_s, 2);
    CHECK_STR(lease.space, SPACE);
    CHECK_STR(lease.owner_name, "lunar-0123456789abcdef");
}

static void a_lease_that_was_left_keeps_its_owner_and_generation(void)
{
    uint8_t sector[SECTOR];
    struct delta_lease lease;
    CHECK(golden("delta-left", sector));
    CHECK_EQ(delta_lease_in(sector, 5, SPACE, &lease, NULL), 0);
    CHECK_EQ(lease.timestamp, 0);
    CHECK_EQ(lease.generation, 6);
    CHECK_STR(lease.owner_name, "lunar-aaaa");
}

static void a_lease_never_used_is_free_and_nameless(void)
{
    uint8_t sector[SECTOR];
    struct delta_lease lease;
    CHECK(golden("delta-never", sector));
    CHECK_EQ(delta_lease_in(sector, 2, NULL, &lease, NULL), 0);
    CHECK_EQ(lease.timestamp, 0);
    CHECK_EQ(lease.owner_id, 0);
    CHECK_EQ(lease.generation, 0);
    CHECK_STR(lease.owner_name, "");
}

static void leader_records_tell_held_from_released(void)
{
    uint8_t sector[SECTOR];
    struct leader_record leader;
    CHECK(golden("leader-held", sector));
    CHECK_EQ(leader_record_in(sector, SPACE, &leader, NULL), 0);
    CHECK_EQ(leader.owner_id, 7);
    CHECK_EQ(leader.owner_generation, 1);
    CHECK_EQ(leader.lver, 1);
    CHECK_EQ(leader.timestamp, 637);
    CHECK_STR(leader.resource, "coordinator");
    CHECK_STR(leader.space, SPACE);

    CHECK(golden("leader-released", sector));
    CHECK_EQ(leader_record_in(sector, SPACE, &leader, NULL), 0);
    CHECK_EQ(leader.owner_id, 7);
    CHECK_EQ(leader.lver, 1);
    CHECK_EQ(leader.timestamp, 0);

    CHECK(golden("leader-member", sector));
    CHECK_EQ(leader_record_in(sector, SPACE, &leader, NULL), 0);
    CHECK_STR(leader.resource, "member");
}

static void every_flipped_bit_of_a_record_is_seen(void)
{
    uint8_t sector[SECTOR];
    struct delta_lease lease;
    struct leader_record leader;
    CHECK(golden("delta-live", sector));
    for (unsigned bit = 0; bit < 172 * 8; bit++) {
        sector[bit / 8] ^= (uint8_t)(1u << bit % 8);
        CHECK_EQ(delta_lease_in(sector, 7, NULL, &lease, NULL), LUNAR_E_CORRUPT);
        sector[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    CHECK(golden("leader-held", sector));
    for (unsigned bit = 0; bit < 172 * 8; bit++) {
        sector[bit / 8] ^= (uint8_t)(1u << bit % 8);
        CHECK_EQ(leader_record_in(sector, NULL, &leader, NULL), LUNAR_E_CORRUPT);
        sector[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

static void a_record_of_the_other_kind_or_another_lockspace_is_refused(void)
{
    uint8_t delta[SECTOR], held[SECTOR];
    struct delta_lease lease;
    struct leader_record leader;
    struct error err = ERROR_INIT;
    CHECK(golden("delta-live", delta));
    CHECK(golden("leader-held", held));
    CHECK_EQ(delta_lease_in(held, 7, NULL, &lease, NULL), LUNAR_E_CORRUPT);
    CHECK_EQ(leader_record_in(delta, NULL, &leader, NULL), LUNAR_E_CORRUPT);
    CHECK_EQ(delta_lease_in(delta, 7, "lunar-ffff", &lease, &err), LUNAR_E_CORRUPT);
    CHECK(strstr(err.text, "host 7") != NULL);
    CHECK_EQ(leader_record_in(held, "lunar-ffff", &leader, NULL), LUNAR_E_CORRUPT);
}

/* Writes `sector` with a valid checksum again, after a change. */
static void seal(uint8_t *sector)
{
    le32_put(sector + 168, ~crc32c_more(1, sector, 168));
}

static void a_name_of_48_bytes_without_a_nul_is_read(void)
{
    uint8_t sector[SECTOR];
    struct delta_lease lease;
    CHECK(golden("delta-live", sector));
    memset(sector + 104, 'x', 48);
    seal(sector);
    CHECK_EQ(delta_lease_in(sector, 7, SPACE, &lease, NULL), 0);
    CHECK_EQ(strlen(lease.owner_name), 48);
}

static void every_sector_of_a_lockspace_on_a_device_is_read(void)
{
    char path[] = "/tmp/lunar-test-leases-XXXXXX";
    uint8_t *buffer = io_alloc(4096), live[SECTOR], held[SECTOR];
    struct layout layout = {.max_nodes = 8, .sector_size = SECTOR, .align_size = 4096};
    struct delta_lease leases[8];
    struct leader_record leader;
    layout.lockspace = 4096;
    layout.resources = 8192;
    int made =
        golden("delta-never", buffer) && golden("delta-live", live) && golden("leader-held", held);
    for (int i = 1; i < 8; i++)
        memcpy(buffer + i * SECTOR, buffer, SECTOR);
    memcpy(buffer + 6 * SECTOR, live, SECTOR);
    int fd = mkstemp(path);
    made = made && pwrite(fd, buffer, 4096, 4096) == 4096 && ftruncate(fd, 65536) == 0 &&
           pwrite(fd, held, SECTOR, 8192 + 4096) == SECTOR;
    close(fd);
    fd = io_open(path, 0, NULL);
    int rv = leases_read(fd, &layout, SPACE, leases, NULL);
    int other = leases_read(fd, &layout, "lunar-other", leases + 0, NULL);
    int led = leader_read(fd, &layout, 1, SPACE, &leader, NULL);
    int nothing = leader_read(fd, &layout, 2, SPACE, &leader, NULL);
    rv = rv < 0 ? rv : leases_read(fd, &layout, SPACE, leases, NULL);
    close(fd);
    unlink(path);
    free(buffer);
    CHECK(made);
    CHECK_EQ(rv, 0);
    CHECK_EQ(leases[6].timestamp, 637);
    CHECK_EQ(leases[7].timestamp, 0);
    CHECK_EQ(leases[7].host_id, 8);
    CHECK_EQ(other, LUNAR_E_CORRUPT);
    CHECK_EQ(led, 0);
    CHECK_EQ(nothing, LUNAR_E_CORRUPT);
}

/* A lockspace of `n` ids, none ever used. */
static void fresh(struct delta_lease *leases, uint32_t n)
{
    memset(leases, 0, n * sizeof *leases);
    for (uint32_t i = 0; i < n; i++)
        leases[i].host_id = i + 1;
}

static void own(struct delta_lease *leases, uint32_t host_id, const char *name, uint64_t timestamp)
{
    struct delta_lease *l = &leases[host_id - 1];
    l->owner_id = host_id;
    l->generation++;
    l->timestamp = timestamp;
    snprintf(l->owner_name, sizeof l->owner_name, "%s", name);
}

static void the_id_that_carries_our_name_is_kept(void)
{
    struct delta_lease leases[8];
    uint32_t id = 0;
    bool same = true;
    fresh(leases, 8);
    own(leases, 3, "us", 0);
    CHECK_EQ(leases_choose(leases, 8, "us", NULL, &id, &same, NULL), 0);
    CHECK_EQ(id, 3);
    CHECK(!same);
}

static void a_running_lease_under_our_name_goes_first_and_is_told(void)
{
    struct delta_lease leases[8];
    uint32_t id = 0;
    bool same = false;
    fresh(leases, 8);
    own(leases, 3, "us", 0);
    own(leases, 6, "us", 100);
    CHECK_EQ(leases_choose(leases, 8, "us", NULL, &id, &same, NULL), 0);
    CHECK_EQ(id, 6);
    CHECK(same);
}

static void different_names_start_at_different_ids(void)
{
    struct delta_lease leases[100];
    bool seen[101] = {false}, same;
    int distinct = 0;
    fresh(leases, 100);
    for (int i = 0; i < 20; i++) {
        char name[LEASES_NAME_SIZE], machine[16];
        uint32_t id = 0;
        snprintf(machine, sizeof machine, "machine-%d", i);
        leases_host_name("node", machine, name);
        CHECK_EQ(leases_choose(leases, 100, name, NULL, &id, &same, NULL), 0);
        CHECK(id >= 1 && id <= 100);
        distinct += !seen[id];
        seen[id] = true;
    }
    CHECK(distinct >= 15);
}

static void taken_and_avoided_ids_are_passed_over_and_the_search_wraps(void)
{
    struct delta_lease leases[4];
    bool avoid[4] = {false}, same;
    uint32_t id = 0, first = 0;
    fresh(leases, 4);
    CHECK_EQ(leases_choose(leases, 4, "us", NULL, &first, &same, NULL), 0);
    for (uint32_t i = 1; i <= 4; i++)
        if (i != first % 4 + 1)
            own(leases, i, "other", 50);
    /* Only the id behind `first` is free. */
    CHECK_EQ(leases_choose(leases, 4, "us", avoid, &id, &same, NULL), 0);
    CHECK_EQ(id, first % 4 + 1);
    avoid[id - 1] = true;
    CHECK_EQ(leases_choose(leases, 4, "us", avoid, &id, &same, NULL), LUNAR_E_FULL);
}

static void an_avoided_id_is_not_kept_for_its_name(void)
{
    struct delta_lease leases[4];
    bool avoid[4] = {false, true, false, false}, same;
    uint32_t id = 0;
    fresh(leases, 4);
    own(leases, 2, "us", 0);
    CHECK_EQ(leases_choose(leases, 4, "us", avoid, &id, &same, NULL), 0);
    CHECK(id != 2);
}

static void an_id_that_another_host_left_may_be_used(void)
{
    struct delta_lease leases[2];
    bool same;
    uint32_t id = 0;
    fresh(leases, 2);
    own(leases, 1, "gone", 0);
    own(leases, 2, "alive", 7);
    CHECK_EQ(leases_choose(leases, 2, "us", NULL, &id, &same, NULL), 0);
    CHECK_EQ(id, 1);
}

static void host_names_differ_by_node_and_by_machine_and_stay_as_they_are(void)
{
    char a[LEASES_NAME_SIZE], b[LEASES_NAME_SIZE], c[LEASES_NAME_SIZE], d[LEASES_NAME_SIZE];
    leases_host_name("node1", "4c4c4544-0042-3510-8052-b4c04f4d3632", a);
    leases_host_name("node2", "4c4c4544-0042-3510-8052-b4c04f4d3632", b);
    leases_host_name("node1", "4c4c4544-0042-3510-8052-b4c04f4d3633", c);
    CHECK(strcmp(a, b) != 0);
    CHECK(strcmp(a, c) != 0);
    leases_host_name("ab", "c", c);
    leases_host_name("a", "bc", d);
    CHECK(strcmp(c, d) != 0);
    /* The name is on the LUN: a new version of lunar must find its old lease. */
    CHECK_STR(a, "lunar-f4a5b5947c96f13c");
}

static void this_machine_has_one_identity(void)
{
    char a[128] = "", b[128] = "";
    struct error err = ERROR_INIT;
    int rv = leases_machine_id(a, sizeof a, &err);
    if (rv < 0) {
        CHECK(err.text[0] != '\0');
        SKIP("this machine has neither a DMI product UUID nor /etc/machine-id");
    }
    CHECK_EQ(leases_machine_id(b, sizeof b, NULL), 0);
    CHECK_STR(a, b);
    CHECK(strlen(a) >= 32);
}

static const char status_395[] = "daemon lunar-aaaa\n"
                                 "    our_host_name=lunar-aaaa\n"
                                 "    use_watchdog=1\n"
                                 "    io_timeout=10\n"
                                 "    watchdog_fire_timeout=10\n"
                                 "    kill_grace_seconds=5\n"
                                 "    version_str=3.9.5\n"
                                 "p -1 helper\n"
                                 "    use_watchdog=0\n"
                                 "    watchdog_fire_timeout=99\n";

static void the_daemons_settings_are_read_from_its_own_section(void)
{
    struct sanlock_daemon daemon;
    CHECK_EQ(sanlock_daemon_parse(status_395, &daemon, NULL), 0);
    CHECK_STR(daemon.host_name, "lunar-aaaa");
    CHECK(daemon.use_watchdog);
    CHECK_EQ(daemon.watchdog_fire_timeout_s, 10);
    CHECK_EQ(daemon.kill_grace_s, 5);
    CHECK_STR(daemon.version, "3.9.5");
}

static void an_old_daemon_has_a_fixed_watchdog_timeout(void)
{
    struct sanlock_daemon daemon;
    CHECK_EQ(
        sanlock_daemon_parse("daemon n\n    our_host_name=n\n    use_watchdog=0\n", &daemon, NULL),
        0);
    CHECK(!daemon.use_watchdog);
    CHECK_EQ(daemon.watchdog_fire_timeout_s, 60);
    CHECK_EQ(daemon.kill_grace_s, -1);
}

static void a_status_without_the_needed_lines_is_refused(void)
{
    struct sanlock_daemon daemon;
    CHECK_EQ(sanlock_daemon_parse("", &daemon, NULL), LUNAR_E_EXEC);
    CHECK_EQ(sanlock_daemon_parse("daemon n\n", &daemon, NULL), LUNAR_E_EXEC);
    CHECK_EQ(sanlock_daemon_parse("daemon n\np x\n    our_host_name=n\n    use_watchdog=1\n",
                                  &daemon, NULL),
             LUNAR_E_EXEC);
}

TEST_MAIN(TEST(a_live_delta_lease_is_read),
          TEST(a_lease_that_was_left_keeps_its_owner_and_generation),
          TEST(a_lease_never_used_is_free_and_nameless),
          TEST(leader_records_tell_held_from_released), TEST(every_flipped_bit_of_a_record_is_seen),
          TEST(a_record_of_the_other_kind_or_another_lockspace_is_refused),
          TEST(a_name_of_48_bytes_without_a_nul_is_read),
          TEST(every_sector_of_a_lockspace_on_a_device_is_read),
          TEST(the_id_that_carries_our_name_is_kept),
          TEST(a_running_lease_under_our_name_goes_first_and_is_told),
          TEST(different_names_start_at_different_ids),
          TEST(taken_and_avoided_ids_are_passed_over_and_the_search_wraps),
          TEST(an_avoided_id_is_not_kept_for_its_name),
          TEST(an_id_that_another_host_left_may_be_used),
          TEST(host_names_differ_by_node_and_by_machine_and_stay_as_they_are),
          TEST(this_machine_has_one_identity),
          TEST(the_daemons_settings_are_read_from_its_own_section),
          TEST(an_old_daemon_has_a_fixed_watchdog_timeout),
          TEST(a_status_without_the_needed_lines_is_refused))
