/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Membership and leadership against real sanlock daemons: several on this machine, each with its
 * own run directory and host name, on one file that is laid out like a lunar LUN. Without a
 * watchdog (-w 0), so the pool is a test pool. The cases build on each other, as the life of a pool
 * does; each says what it leaves behind.
 */
#include "fencing/membership.h"

#include <fcntl.h>
#include <pthread.h>
#include <pwd.h>
#include <grp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/io.h"
#include "base/le.h"
#include "fencing/leases.h"
#include "fencing/sanlock_daemon.h"
#include "fencing/timeouts.h"
#include "support/test.h"

/* A daemon per node; "twin" is another machine with the identity of node a. */
enum node { NODE_A, NODE_B, NODE_TWIN, NODES };

static struct {
    const char *name, *machine;
    char run_dir[64];
    pid_t pid;
} nodes[NODES] = {
    {.name = "node-a", .machine = "machine-a"},
    {.name = "node-b", .machine = "machine-b"},
    {.name = "node-a", .machine = "machine-a"},
};

static char dir[] = "/tmp/lunar-test-membership-XXXXXX";
static char device[64];
static struct superblock sb;
static struct membership *member_a, *member_b;
static struct leadership *leader_a, *leader_b;
static bool ready; /* daemons are up and the device is formatted */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* libsanlock finds the daemon by the environment, at every call that opens a connection. */
static void be(enum node n)
{
    setenv("SANLOCK_RUN_DIR", nodes[n].run_dir, 1);
    setenv("LUNAR_MACHINE_ID", nodes[n].machine, 1);
}

static void start_daemon(enum node n)
{
    char host_name[LEASES_NAME_SIZE], log[96];
    snprintf(nodes[n].run_dir, sizeof nodes[n].run_dir, "%s/%d", dir, (int)n);
    mkdir(nodes[n].run_dir, 0700);
    leases_host_name(nodes[n].name, nodes[n].machine, host_name);
    snprintf(log, sizeof log, "%s/log", nodes[n].run_dir);
    be(n);
    setenv("SANLOCK_PRIVILEGED", "0", 1);
    nodes[n].pid = fork();
    if (nodes[n].pid != 0)
        return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int fd = open(log, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    dup2(fd, 1);
    dup2(fd, 2);
    const char *user = getpwuid(getuid())->pw_name, *group = getgrgid(getgid())->gr_name;
    execlp("sanlock", "sanlock", "daemon", "-D", "-w", "0", "-h", "0", "-l", "0", "-U", user, "-G",
           group, "-e", host_name, (char *)NULL);
    execl("/usr/sbin/sanlock", "sanlock", "daemon", "-D", "-w", "0", "-h", "0", "-l", "0", "-U",
          user, "-G", group, "-e", host_name, (char *)NULL);
    _exit(127);
}

static int wait_daemon(enum node n)
{
    struct sanlock_daemon daemon;
    double end = now() + 10;
    be(n);
    while (now() < end) {
        if (sanlock_daemon_read(&daemon, NULL) == 0) {
            sb.watchdog_fire_timeout_s = (uint32_t)daemon.watchdog_fire_timeout_s;
            return 0;
        }
        usleep(50000);
    }
    return -1;
}

static void cleanup(void)
{
    char command[128];
    for (int n = 0; n < NODES; n++)
        if (nodes[n].pid > 0) {
            kill(nodes[n].pid, SIGKILL);
            waitpid(nodes[n].pid, NULL, 0);
        }
    snprintf(command, sizeof command, "rm -rf %s", dir);
    if (system(command) != 0)
        printf("# could not remove %s\n", dir);
}

static int make_device(void)
{
    snprintf(device, sizeof device, "%s/lun:1",
             dir); /* a colon, because sanlock's command splits at them */
    sb.state = SUPERBLOCK_FORMATTING;
    sb.flags = SUPERBLOCK_FLAG_TEST;
    sb.pool_id = uuid_random();
    strcpy(sb.pool_name, "test");
    sb.io_timeout_s = 2;
    sb.extent_size = 4 << 20;
    int fd = open(device, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || layout_compute(16, 512, &sb.layout, NULL) < 0)
        return -1;
    int rv = ftruncate(fd, (off_t)(sb.layout.area_start + sb.layout.area_size + MIB));
    close(fd);
    return rv;
}

static int write_superblock(enum superblock_state state)
{
    int fd = io_open(device, 1, NULL);
    sb.state = state;
    int rv = superblock_write(fd, &sb, NULL);
    close(fd);
    return rv;
}

static void a_lun_is_formatted_without_a_daemon_and_read_back(void)
{
    if (access("/usr/sbin/sanlock", X_OK) != 0 && access("/usr/bin/sanlock", X_OK) != 0)
        SKIP("sanlock is not installed");
    struct error err = ERROR_INIT;
    struct delta_lease leases[16];
    struct leader_record leader;
    char lockspace[48];
    CHECK(mkdtemp(dir) != NULL);
    atexit(cleanup);
    CHECK_EQ(make_device(), 0);
    sb.watchdog_fire_timeout_s = 60;
    CHECK_EQ(write_superblock(SUPERBLOCK_FORMATTING), 0);
    int rv = membership_format(device, &sb, &err);
    if (rv < 0)
        printf("# %s\n", err.text);
    CHECK_EQ(rv, 0);

    pool_lockspace(&sb.pool_id, lockspace);
    int fd = io_open(device, 0, NULL);
    CHECK_EQ(leases_read(fd, &sb.layout, lockspace, leases, NULL), 0);
    CHECK_EQ(leases[15].io_timeout_s, 2);
    CHECK_EQ(leader_read(fd, &sb.layout, LAYOUT_RESOURCE_MEMBER, lockspace, &leader, NULL), 0);
    CHECK_STR(leader.resource, "member");
    CHECK_EQ(leader_read(fd, &sb.layout, 7, lockspace, &leader, NULL), 0);
    CHECK_STR(leader.resource, "spare7");
    /* A fresh lockspace is nobody's: no waiting. */
    CHECK_EQ(membership_refuse_alive(fd, &sb.layout, 1000, NULL, NULL, NULL), 0);
    close(fd);
    ready = true;
}

static void a_finished_pool_is_not_formatted_again(void)
{
    if (!ready)
        SKIP("no formatted device");
    CHECK_EQ(write_superblock(SUPERBLOCK_READY), 0);
    CHECK_EQ(membership_format(device, &sb, NULL), LUNAR_E_INVALID);
    /* Nor by somebody who only believes that it is being formatted. */
    sb.state = SUPERBLOCK_FORMATTING;
    CHECK_EQ(membership_format(device, &sb, NULL), LUNAR_E_IN_USE);
    sb.state = SUPERBLOCK_READY;
}

static int join_as(enum node n, const char *node_name, struct membership **ret, struct error *err)
{
    struct membership_config config = {
        .device = device, .superblock = &sb, .node_name = node_name ? node_name : nodes[n].name};
    be(n);
    return membership_join(&config, ret, err);
}

static void joining_without_a_daemon_says_so(void)
{
    struct error err = ERROR_INIT;
    struct membership *m;
    if (!ready)
        SKIP("no formatted device");
    snprintf(nodes[NODE_A].run_dir, sizeof nodes[NODE_A].run_dir, "%s/nobody", dir);
    CHECK(join_as(NODE_A, NULL, &m, &err) < 0);
    CHECK(err.text[0] != '\0');
}

static void daemons_with_the_wrong_settings_are_refused(void)
{
    struct error err = ERROR_INIT;
    struct membership *m;
    if (!ready)
        SKIP("no formatted device");
    for (int n = 0; n < NODES; n++)
        start_daemon((enum node)n);
    for (int n = 0; n < NODES; n++)
        CHECK_EQ(wait_daemon((enum node)n), 0);

    CHECK_EQ(join_as(NODE_A, "another-node", &m, &err), LUNAR_E_INVALID);
    CHECK(strstr(err.text, "our_host_name = lunar-") != NULL);

    sb.watchdog_fire_timeout_s++;
    CHECK_EQ(join_as(NODE_A, NULL, &m, &err), LUNAR_E_INVALID);
    CHECK(strstr(err.text, "watchdog_fire_timeout") != NULL);
    sb.watchdog_fire_timeout_s--;

    sb.flags = 0;
    int rv = join_as(NODE_A, NULL, &m, &err);
    sb.flags = SUPERBLOCK_FLAG_TEST;
    /* Outside a test pool the override of the machine's identity does not count either. */
    CHECK(rv == LUNAR_E_INVALID || rv == LUNAR_E_NOT_FOUND || rv == LUNAR_E_PERMISSION);
}

/* Without the override the daemon's name is the real one's, and what is missing is the watchdog
 * (SAFETY 12). */
static void safety_12_no_watchdog_no_join(void)
{
    struct error err = ERROR_INIT;
    struct membership *m;
    char id[128];
    if (!ready || leases_machine_id(id, sizeof id, NULL) < 0)
        SKIP("no formatted device, or this machine has no identity");
    kill(nodes[NODE_B].pid, SIGKILL);
    waitpid(nodes[NODE_B].pid, NULL, 0);
    const char *machine = nodes[NODE_B].machine;
    nodes[NODE_B].machine = id;
    start_daemon(NODE_B);
    int up = wait_daemon(NODE_B);
    sb.flags = 0;
    int rv = join_as(NODE_B, NULL, &m, &err);
    sb.flags = SUPERBLOCK_FLAG_TEST;

    kill(nodes[NODE_B].pid, SIGKILL);
    waitpid(nodes[NODE_B].pid, NULL, 0);
    nodes[NODE_B].machine = machine;
    start_daemon(NODE_B);
    CHECK_EQ(up, 0);
    CHECK_EQ(wait_daemon(NODE_B), 0);
    CHECK_EQ(rv, LUNAR_E_NO_WATCHDOG);
    CHECK(strstr(err.text, "-w 0") != NULL);
}

static void nobody_leads_or_is_found_before_the_join(void)
{
    uint64_t term = 0, generation = 0;
    uint32_t host_id = 0;
    struct host_status *hosts = NULL;
    if (!ready)
        SKIP("no formatted device");
    be(NODE_A);
    CHECK_EQ(membership_find(&sb.pool_id, &host_id, &generation, NULL), LUNAR_E_NOT_JOINED);
    CHECK_EQ(membership_hosts(&sb.pool_id, &hosts, NULL), LUNAR_E_NOT_JOINED);
    CHECK_EQ(leadership_open(device, &sb, &leader_a, NULL), 0);
    CHECK_EQ(leadership_try(leader_a, &term, NULL), 0);
    CHECK_EQ(fcntl(leadership_fd(leader_a), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
}

/* What a delta lease on the device says. */
static struct delta_lease lease_of(uint32_t host_id)
{
    struct delta_lease leases[16] = {0};
    int fd = io_open(device, 0, NULL);
    leases_read(fd, &sb.layout, NULL, leases, NULL);
    close(fd);
    return leases[host_id - 1];
}

/* Whether sanlock has the lockspace of node `n` marked as used (SAFETY 9). */
static bool is_used(enum node n)
{
    be(n);
    FILE *f = popen("sanlock client status -D", "re");
    char line[256];
    bool used = false;
    while (f && fgets(line, sizeof line, f))
        used = used || strstr(line, "external_used=1");
    if (f)
        pclose(f);
    return used;
}

static void a_node_joins_and_is_alive(void)
{
    struct error err = ERROR_INIT;
    struct host_status *hosts = NULL;
    uint32_t host_id = 0;
    uint64_t generation = 0;
    if (!ready)
        SKIP("no formatted device");
    double start = now();
    int rv = join_as(NODE_A, NULL, &member_a, &err);
    if (rv < 0)
        printf("# %s\n", err.text);
    CHECK_EQ(rv, 0);
    printf("# joined as host %u in %.1f s\n", membership_host_id(member_a), now() - start);
    CHECK_EQ(membership_generation(member_a), 1);
    CHECK_EQ(membership_check(member_a, NULL), 0);
    CHECK_EQ(fcntl(membership_fd(member_a), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    CHECK_EQ(membership_find(&sb.pool_id, &host_id, &generation, NULL), 0);
    CHECK_EQ(host_id, membership_host_id(member_a));
    CHECK_EQ(generation, 1);
    CHECK_EQ(lease_of(host_id).generation, 1);
    CHECK(is_used(NODE_A));

    int n = membership_hosts(&sb.pool_id, &hosts, NULL);
    CHECK_EQ(n, 1);
    CHECK_EQ(hosts[0].host_id, host_id);
    CHECK_STR(host_state_name(hosts[0].state), "LIVE");
    free(hosts);
}

static void an_agent_that_crashed_is_a_member_again_at_once(void)
{
    struct error err = ERROR_INIT;
    if (!member_a)
        SKIP("node a is not a member");
    uint32_t host_id = membership_host_id(member_a);
    membership_abandon(member_a);
    member_a = NULL;
    /* The agent is gone, but not the guard: SAFETY 9. */
    CHECK(is_used(NODE_A));
    double start = now();
    int rv = join_as(NODE_A, NULL, &member_a, &err);
    if (rv < 0)
        printf("# %s\n", err.text);
    CHECK_EQ(rv, 0);
    printf("# joined again in %.2f s\n", now() - start);
    CHECK(now() - start < 4);
    CHECK_EQ(membership_host_id(member_a), host_id);
    CHECK_EQ(membership_generation(member_a), 1);
    CHECK_EQ(membership_check(member_a, NULL), 0);
}

static void another_path_to_the_pool_is_refused_while_joined(void)
{
    struct error err = ERROR_INIT;
    struct membership *m;
    char other[80], real[64];
    if (!member_a)
        SKIP("node a is not a member");
    strcpy(real, device);
    snprintf(other, sizeof other, "cp --sparse=always '%s' '%s/copy'", device, dir);
    CHECK_EQ(system(other), 0);
    snprintf(device, sizeof device, "%s/copy", dir);
    int rv = join_as(NODE_A, NULL, &m, &err);
    strcpy(device, real);
    CHECK_EQ(rv, LUNAR_E_INVALID);
    CHECK(strstr(err.text, "/copy") != NULL);
}

static void safety_7_a_second_machine_of_our_name_is_refused(void)
{
    struct error err = ERROR_INIT;
    struct membership *m;
    if (!member_a)
        SKIP("node a is not a member");
    struct delta_lease before = lease_of(membership_host_id(member_a));
    double start = now();
    CHECK_EQ(join_as(NODE_TWIN, NULL, &m, &err), LUNAR_E_ALIVE);
    CHECK(strstr(err.text, "another machine is alive") != NULL);
    CHECK(now() - start < 3 * 2 + 2);
    CHECK_EQ(lease_of(before.host_id).generation, before.generation);
    be(NODE_A);
    CHECK_EQ(membership_check(member_a, NULL), 0);
}

static void a_second_node_gets_an_id_of_its_own(void)
{
    struct error err = ERROR_INIT;
    if (!member_a)
        SKIP("node a is not a member");
    CHECK_EQ(join_as(NODE_B, NULL, &member_b, &err), 0);
    CHECK(membership_host_id(member_b) != membership_host_id(member_a));
    CHECK_EQ(membership_check(member_b, NULL), 0);
    be(NODE_A);
    CHECK_EQ(membership_check(member_a, NULL), 0);
}

static void one_leads_at_a_time_and_terms_rise(void)
{
    uint64_t term = 0, second = 0;
    struct leadership *same_node;
    if (!member_b || !leader_a)
        SKIP("there are no two members");
    be(NODE_B);
    CHECK_EQ(leadership_open(device, &sb, &leader_b, NULL), 0);
    be(NODE_A);
    CHECK_EQ(leadership_try(leader_a, &term, NULL), 1);
    CHECK_EQ(term, 1);
    CHECK_EQ(leadership_check(leader_a, 1, NULL), 0);
    CHECK_EQ(leadership_check(leader_a, 2, NULL), LUNAR_E_STALE);
    CHECK_EQ(leadership_open(device, &sb, &same_node, NULL), 0);
    CHECK_EQ(leadership_try(same_node, &second, NULL), 0);
    leadership_close(same_node);
    be(NODE_B);
    CHECK_EQ(leadership_try(leader_b, &second, NULL), 0);
    CHECK_EQ(leadership_check(leader_b, 1, NULL), LUNAR_E_STALE);

    be(NODE_A);
    CHECK_EQ(leadership_release(leader_a, NULL), 0);
    CHECK_EQ(leadership_check(leader_a, 1, NULL), LUNAR_E_STALE);
    be(NODE_B);
    CHECK_EQ(leadership_try(leader_b, &second, NULL), 1);
    CHECK_EQ(second, 2);
}

/* The first leader is a process that is killed while it leads. */
static void a_killed_leaders_lease_goes_to_the_standby(void)
{
    uint64_t term = 0;
    int up[2];
    char byte = 0;
    if (!leader_b)
        SKIP("nobody leads");
    be(NODE_B);
    CHECK_EQ(leadership_release(leader_b, NULL), 0);
    CHECK_EQ(pipe(up), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct leadership *l;
        be(NODE_A);
        if (leadership_open(device, &sb, &l, NULL) == 0 && leadership_try(l, &term, NULL) == 1 &&
            write(up[1], "x", 1) == 1)
            pause();
        _exit(1);
    }
    close(up[1]);
    CHECK_EQ(read(up[0], &byte, 1), 1);
    close(up[0]);
    CHECK_EQ(leadership_try(leader_b, &term, NULL), 0);
    kill(pid, SIGKILL);
    double start = now();
    waitpid(pid, NULL, 0);
    int rv = 0;
    while ((rv = leadership_try(leader_b, &term, NULL)) == 0 && now() - start < 10)
        usleep(50000);
    CHECK_EQ(rv, 1);
    printf("# taken over in %.2f s\n", now() - start);
    CHECK_EQ(term, 4);
    CHECK_EQ(leadership_check(leader_b, 4, NULL), 0);
}

/* SAFETY 1: the lease lives as long as any child has the socket. */
static void safety_1_a_lease_outlives_its_process_in_a_child_that_has_the_socket(void)
{
    uint64_t term = 0;
    char command[] = "sleep 30";
    if (!leader_b)
        SKIP("nobody leads");
    be(NODE_B);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(leadership_fd(leader_b), 0); /* dup2 clears close-on-exec on the copy */
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    /* Until the exec the child has every descriptor; afterwards only the one it was given. */
    char exe[64], target[64] = "";
    snprintf(exe, sizeof exe, "/proc/%d/exe", (int)pid);
    char self[64] = "";
    CHECK(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
    for (double end = now() + 5; now() < end; usleep(10000)) {
        memset(target, 0, sizeof target);
        if (readlink(exe, target, sizeof target - 1) > 0 && strcmp(self, target) != 0)
            break;
    }
    leadership_close(leader_b);
    leader_b = NULL;
    be(NODE_A);
    int held = 0;
    for (double end = now() + 2; now() < end && held == 0; usleep(100000))
        held = leadership_try(leader_a, &term, NULL);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    CHECK_EQ(held, 0);
    int rv = 0;
    for (double end = now() + 10; now() < end && rv == 0; usleep(50000))
        rv = leadership_try(leader_a, &term, NULL);
    CHECK_EQ(rv, 1);
    CHECK_EQ(term, 5);
}

static void a_leave_is_refused_while_a_coordinator_leads_here(void)
{
    struct error err = ERROR_INIT;
    if (!leader_a || !member_a)
        SKIP("nobody leads");
    be(NODE_A);
    CHECK_EQ(membership_leave(member_a, &err), LUNAR_E_IN_USE);
    CHECK_EQ(membership_check(member_a, NULL), 0);
    CHECK(is_used(NODE_A));
    CHECK_EQ(leadership_check(leader_a, 5, NULL), 0);
}

static void a_pool_with_living_members_is_not_overwritten(void)
{
    struct error err = ERROR_INIT;
    if (!member_a)
        SKIP("node a is not a member");
    int fd = io_open(device, 0, NULL);
    double start = now();
    int rv = membership_refuse_alive(fd, &sb.layout, 76, NULL, NULL, &err);
    close(fd);
    CHECK_EQ(rv, LUNAR_E_ALIVE);
    CHECK(strstr(err.text, "lunar-") != NULL);
    /* It does not wait for the end of the window once it knows. */
    CHECK(now() - start < 10);
}

static void a_clean_leave_frees_the_id_and_the_next_join_is_quick(void)
{
    struct error err = ERROR_INIT;
    if (!member_a || !member_b)
        SKIP("there are no two members");
    uint32_t host_id = membership_host_id(member_a);
    be(NODE_A);
    CHECK_EQ(leadership_release(leader_a, NULL), 0);
    int rv = membership_leave(member_a, &err);
    if (rv < 0)
        printf("# %s\n", err.text);
    CHECK_EQ(rv, 0);
    member_a = NULL;
    CHECK_EQ(lease_of(host_id).timestamp, 0);

    double start = now();
    CHECK_EQ(join_as(NODE_A, NULL, &member_a, NULL), 0);
    printf("# joined under the id it left in %.2f s\n", now() - start);
    CHECK_EQ(membership_host_id(member_a), host_id);
    CHECK_EQ(membership_generation(member_a), 2);
    uint32_t found = 0;
    uint64_t generation = 0;
    CHECK_EQ(membership_find(&sb.pool_id, &found, &generation, NULL), 0);
    CHECK_EQ(found, host_id);
    CHECK_EQ(generation, 2);
}

static void a_pool_that_everybody_left_may_be_overwritten_at_once(void)
{
    if (!member_a || !member_b)
        SKIP("there are no two members");
    be(NODE_A);
    CHECK_EQ(membership_leave(member_a, NULL), 0);
    be(NODE_B);
    CHECK_EQ(membership_leave(member_b, NULL), 0);
    member_a = member_b = NULL;
    int fd = io_open(device, 0, NULL);
    double start = now();
    CHECK_EQ(membership_refuse_alive(fd, &sb.layout, 76, NULL, NULL, NULL), 0);
    close(fd);
    CHECK(now() - start < 2);
}

/* A lease whose owner died long ago, with N = 0 so that the caller's window counts. */
static void a_dead_lockspace_is_watched_to_the_end_and_released(void)
{
    uint8_t *sector = io_alloc(4096);
    if (!ready) {
        free(sector);
        SKIP("no formatted device");
    }
    int fd = io_open(device, 1, NULL);
    int rv = io_read(fd, sector, 4096, sb.layout.lockspace, NULL);
    le64_put(sector + 152, 12345);
    memset(sector + 174, 0, 2);
    le32_put(sector + 168, ~crc32c_more(1, sector, 168));
    rv = rv < 0 ? rv : io_write(fd, sector, 4096, sb.layout.lockspace, NULL);
    double start = now();
    int alive = membership_refuse_alive(fd, &sb.layout, 2, NULL, NULL, NULL);
    double took = now() - start;
    close(fd);
    free(sector);
    CHECK_EQ(rv, 0);
    CHECK_EQ(alive, 0);
    CHECK(took >= 2 && took < 6);
}

TEST_MAIN(TEST(a_lun_is_formatted_without_a_daemon_and_read_back),
          TEST(a_finished_pool_is_not_formatted_again), TEST(joining_without_a_daemon_says_so),
          TEST(daemons_with_the_wrong_settings_are_refused), TEST(safety_12_no_watchdog_no_join),
          TEST(nobody_leads_or_is_found_before_the_join), TEST(a_node_joins_and_is_alive),
          TEST(an_agent_that_crashed_is_a_member_again_at_once),
          TEST(another_path_to_the_pool_is_refused_while_joined),
          TEST(safety_7_a_second_machine_of_our_name_is_refused),
          TEST(a_second_node_gets_an_id_of_its_own), TEST(one_leads_at_a_time_and_terms_rise),
          TEST(a_killed_leaders_lease_goes_to_the_standby),
          TEST(safety_1_a_lease_outlives_its_process_in_a_child_that_has_the_socket),
          TEST(a_leave_is_refused_while_a_coordinator_leads_here),
          TEST(a_pool_with_living_members_is_not_overwritten),
          TEST(a_clean_leave_frees_the_id_and_the_next_join_is_quick),
          TEST(a_pool_that_everybody_left_may_be_overwritten_at_once),
          TEST(a_dead_lockspace_is_watched_to_the_end_and_released))
