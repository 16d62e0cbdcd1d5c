/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ten machines join one pool at the same moment: ten sanlock daemons on this machine, each with its
 * own run directory and host name, on one file that is laid out like a lunar LUN with room for ten.
 * The names are chosen so that all of them want the same host id first. Without a watchdog (-w 0),
 * so the pool is a test pool.
 *
 * A node is a process of its own, because libsanlock remembers the first daemon it met: it starts
 * its daemon, says so, waits for the word, joins, says what came out, and stays.
 */
#include "fencing/membership.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "diskrpc/beat.h"
#include "diskrpc/claim.h"
#include "diskrpc/table.h"
#include "fencing/host_id.h"
#include "fencing/leases.h"
#include "fencing/sanlock_daemon.h"
#include "support/test.h"
#include "support/test_pool.h"

enum { ROOM = 10, NODES = ROOM + 1 };
#define JOIN_LIMIT_S 15.0
/* What sanlock itself needs for a free id, 2N, and the claim's N/4. */
#define JOIN_LEAST_S 4.5

struct reply {
    int rv;
    int watchdog_fire_timeout_s;
    uint32_t host_id;
    uint64_t generation;
    double seconds;
    char text[256];
};

static struct node {
    pid_t pid;
    int life;         /* each has a run directory of its own: the last daemon may not be gone yet */
    uint32_t host_id; /* once it has joined */
    int fd;           /* to and from the process */
    char name[16];
} nodes[NODES];

static char dir[] = "/tmp/lunar-test-joining-XXXXXX";
static char device[64];
static struct superblock sb;
static bool ready;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* --- a node --- */

static void say(int fd, const struct reply *reply)
{
    if (send(fd, reply, sizeof *reply, MSG_NOSIGNAL) != (ssize_t)sizeof *reply)
        _exit(1);
}

static void wait_for_daemon(struct reply *reply)
{
    struct sanlock_daemon daemon;
    struct error err = ERROR_INIT;
    reply->rv = -EAGAIN;
    for (double end = now() + 30; now() < end && reply->rv < 0; usleep(50000))
        reply->rv = sanlock_daemon_read(&daemon, &err);
    snprintf(reply->text, sizeof reply->text, "%s", err.text);
    reply->watchdog_fire_timeout_s = reply->rv < 0 ? 0 : daemon.watchdog_fire_timeout_s;
}

static void join(const char *name, struct reply *reply)
{
    struct membership_config config = {.device = device, .superblock = &sb, .node_name = name};
    struct membership *m;
    struct error err = ERROR_INIT;
    double start = now();
    reply->rv = membership_join(&config, &m, &err);
    reply->seconds = now() - start;
    snprintf(reply->text, sizeof reply->text, "%s", err.text);
    if (reply->rv == 0) {
        reply->host_id = membership_host_id(m);
        reply->generation = membership_generation(m);
    }
}

static void live(int fd, int index)
{
    char run_dir[64], host_name[LEASES_NAME_SIZE];
    uint32_t watchdog_s;
    struct reply reply = {0};

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    snprintf(run_dir, sizeof run_dir, "%s/%d.%d", dir, index, nodes[index].life);
    setenv("SANLOCK_RUN_DIR", run_dir, 1);
    setenv("LUNAR_MACHINE_ID", "machine", 1);
    leases_host_name(nodes[index].name, "machine", host_name);
    test_pool_start_sanlock(run_dir, host_name);
    wait_for_daemon(&reply);
    say(fd, &reply);
    while (recv(fd, &watchdog_s, sizeof watchdog_s, 0) == (ssize_t)sizeof watchdog_s) {
        sb.watchdog_fire_timeout_s = watchdog_s;
        memset(&reply, 0, sizeof reply);
        join(nodes[index].name, &reply);
        say(fd, &reply);
    }
    _exit(0);
}

static void start_node(int index)
{
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
        abort();
    nodes[index].fd = fds[0];
    nodes[index].pid = fork();
    if (nodes[index].pid == 0)
        live(fds[1], index);
    close(fds[1]);
}

static struct reply hear(int index)
{
    struct reply reply = {.rv = -EPIPE};
    if (recv(nodes[index].fd, &reply, sizeof reply, 0) != (ssize_t)sizeof reply)
        printf("# %s died\n", nodes[index].name);
    if (reply.rv < 0)
        printf("# %s: %s\n", nodes[index].name, reply.text);
    return reply;
}

static void tell_to_join(int index)
{
    uint32_t watchdog_s = sb.watchdog_fire_timeout_s;
    if (send(nodes[index].fd, &watchdog_s, sizeof watchdog_s, MSG_NOSIGNAL) < 0)
        printf("# %s is gone\n", nodes[index].name);
}

/* --- the pool --- */

static void cleanup(void)
{
    char command[128];
    for (int i = 0; i < NODES; i++)
        if (nodes[i].pid > 0) {
            kill(nodes[i].pid, SIGKILL); /* its daemon dies with it */
            waitpid(nodes[i].pid, NULL, 0);
        }
    snprintf(command, sizeof command, "rm -rf %s", dir);
    if (system(command) != 0)
        printf("# could not remove %s\n", dir);
}

static int make_pool(void)
{
    snprintf(device, sizeof device, "%s/lun", dir);
    int rv = test_pool_make(device, ROOM, 2, 60, &sb);
    if (rv == 0)
        rv = membership_format(device, &sb, NULL);
    return rv < 0 ? rv : test_pool_set_state(device, &sb, SUPERBLOCK_READY);
}

/* Names that all begin their search for an id at the same place. */
static void name_nodes(void)
{
    struct delta_lease free_leases[ROOM] = {0};
    uint32_t wanted = 0;
    bool same;
    for (uint32_t i = 0; i < ROOM; i++)
        free_leases[i].host_id = i + 1;
    for (int n = 0, tried = 0; n < NODES; tried++) {
        char host_name[LEASES_NAME_SIZE];
        uint32_t id = 0;
        snprintf(nodes[n].name, sizeof nodes[n].name, "node-%d", tried);
        leases_host_name(nodes[n].name, "machine", host_name);
        leases_choose(free_leases, ROOM, host_name, NULL, &id, &same, NULL);
        wanted = wanted ? wanted : id;
        n += id == wanted;
    }
}

static void eleven_daemons_come_up(void)
{
    if (!test_pool_has_sanlock())
        SKIP("sanlock is not installed");
    CHECK(mkdtemp(dir) != NULL);
    atexit(cleanup);
    CHECK_EQ(make_pool(), 0);
    name_nodes();
    for (int i = 0; i < NODES; i++)
        start_node(i);
    for (int i = 0; i < NODES; i++) {
        struct reply reply = hear(i);
        CHECK_EQ(reply.rv, 0);
        sb.watchdog_fire_timeout_s = (uint32_t)reply.watchdog_fire_timeout_s;
    }
    ready = true;
}

/* --- claims one by one --- */

static struct host_id_claims claims_of(const char *node_name, char lockspace[48], int wait_ms)
{
    pool_lockspace(&sb.pool_id, lockspace);
    return (struct host_id_claims){.fd = io_open(device, 1, NULL),
                                   .superblock = &sb,
                                   .lockspace = lockspace,
                                   .node_name = node_name,
                                   .wait_ms = wait_ms};
}

static void write_claim_of(const char *node_name, const struct host_id_claims *claims, uint32_t id)
{
    struct claim claim = {.slot = id, .pool_id = sb.pool_id, .nonce = uuid_random()};
    uint8_t *page = io_alloc(PAGE_SIZE_BYTES);
    strcpy(claim.node_name, node_name);
    claim_out(&claim, page);
    io_write(claims->fd, page, PAGE_SIZE_BYTES, layout_up_page(&sb.layout, id), NULL);
    free(page);
}

/* Somebody else claims the id 100 ms after we did. */
static int contested_claim(struct host_id_claims *claims, const struct delta_lease *lease)
{
    pid_t other = fork();
    if (other == 0) {
        usleep(100000);
        write_claim_of("other", claims, lease->host_id);
        _exit(0);
    }
    int rv = host_id_claim(claims, lease, NULL);
    waitpid(other, NULL, 0);
    return rv;
}

/* What "other" leaves is a dead node's claim to those who join below: they need its id, too. */
static void a_claim_wins_alone_and_loses_at_once_to_a_later_one(void)
{
    char lockspace[48];
    if (!ready)
        SKIP("no pool");
    struct host_id_claims claims = claims_of("first", lockspace, 300);
    struct delta_lease lease;
    CHECK_EQ(lease_read(claims.fd, &sb.layout, lockspace, 3, &lease, NULL), 0);
    CHECK_EQ(host_id_claim(&claims, &lease, NULL), 1);
    claims.wait_ms = 5000;
    double start = now();
    CHECK_EQ(contested_claim(&claims, &lease), 0);
    CHECK(now() - start < 2);
    close(claims.fd);
}

/* --- all at once --- */

static void ten_nodes_that_join_at_once_are_all_in_within_15_seconds(void)
{
    bool taken[ROOM + 1] = {false};
    double slowest = 0, fastest = 1000;
    if (!ready)
        SKIP("no daemons");
    for (int i = 0; i < ROOM; i++)
        tell_to_join(i);
    ready = false;
    for (int i = 0; i < ROOM; i++) {
        struct reply reply = hear(i);
        CHECK_EQ(reply.rv, 0);
        CHECK(reply.host_id >= 1 && reply.host_id <= ROOM && !taken[reply.host_id]);
        CHECK_EQ(reply.generation, 1);
        taken[reply.host_id] = true;
        nodes[i].host_id = reply.host_id;
        slowest = reply.seconds > slowest ? reply.seconds : slowest;
        fastest = reply.seconds < fastest ? reply.seconds : fastest;
    }
    printf("# joined in %.1f to %.1f s\n", fastest, slowest);
    CHECK(fastest >= JOIN_LEAST_S);
    CHECK(slowest <= JOIN_LIMIT_S);
    ready = true;
}

static void nobodys_claim_is_left(void)
{
    struct claim claim;
    if (!ready)
        SKIP("nobody joined");
    uint8_t *page = io_alloc(PAGE_SIZE_BYTES);
    int fd = io_open(device, 0, NULL), left = 0, bad = 0;
    for (uint32_t h = 1; h <= ROOM; h++) {
        bad += io_read(fd, page, PAGE_SIZE_BYTES, layout_up_page(&sb.layout, h), NULL) < 0;
        left += claim_in(page, h, &sb.pool_id, &claim, NULL) == 0;
    }
    close(fd);
    free(page);
    CHECK_EQ(bad, 0);
    CHECK_EQ(left, 0);
}

static void an_eleventh_is_told_at_once_that_the_pool_is_full(void)
{
    if (!ready)
        SKIP("nobody joined");
    tell_to_join(ROOM);
    struct reply reply = hear(ROOM);
    CHECK_EQ(reply.rv, LUNAR_E_FULL);
    CHECK(strstr(reply.text, "all 10 host ids of the pool are taken") != NULL);
    CHECK(strstr(reply.text, "lunarctl node leave") != NULL);
    CHECK(reply.seconds < 5);
}

static void a_claim_loses_to_a_lease_that_was_taken_since_it_was_read(void)
{
    char lockspace[48];
    if (!ready)
        SKIP("nobody joined");
    struct host_id_claims claims = claims_of("late", lockspace, 300);
    struct delta_lease lease;
    CHECK_EQ(lease_read(claims.fd, &sb.layout, lockspace, 3, &lease, NULL), 0);
    CHECK(lease.timestamp != 0);
    lease.timestamp = 0;
    lease.generation--;
    CHECK_EQ(host_id_claim(&claims, &lease, NULL), 0);
    close(claims.fd);
}

/* --- back after a power cut --- */

static void mark_dead(uint32_t host_id, uint64_t generation)
{
    struct table grants;
    int fd = io_open(device, 1, NULL);
    table_init(&grants, TABLE_GRANTS, host_id, &sb.pool_id);
    grants.writer = (struct incarnation){.host_id = 1, .generation = 1, .run_or_term = 1};
    grants.term = grants.seq = 1;
    grants.node_dead = true;
    grants.dead_generation = generation;
    for (int copy = 0; copy < 2; copy++)
        if (table_write(fd, &sb.layout, &grants, copy, NULL) < 0)
            printf("# the mark could not be written\n");
    table_free(&grants);
    close(fd);
}

static void lose_power(int index)
{
    kill(nodes[index].pid, SIGKILL);
    waitpid(nodes[index].pid, NULL, 0);
    close(nodes[index].fd);
    nodes[index].life++;
}

static void come_back(int index)
{
    start_node(index);
    hear(index);
    tell_to_join(index);
}

/* What a coordinator says that has watched two leases for 3N: one as it is, one as it was. */
static void beat_about(uint32_t still, uint32_t moved_since)
{
    char lockspace[48];
    struct delta_lease lease;
    const uint32_t ids[2] = {still, moved_since};
    struct beat beat = {.pool_id = sb.pool_id,
                        .writer = {.host_id = 1, .generation = 1, .run_or_term = 1},
                        .count = 1,
                        .phase = BEAT_PHASE_LEADING,
                        .n_still = 2};
    int fd = io_open(device, 1, NULL);
    pool_lockspace(&sb.pool_id, lockspace);
    for (int i = 0; i < 2; i++) {
        if (lease_read(fd, &sb.layout, lockspace, ids[i], &lease, NULL) < 0)
            printf("# no lease\n");
        beat.still[i] =
            (struct beat_still){ids[i], lease.generation, lease.timestamp - (uint64_t)i};
    }
    if (beat_write(fd, &sb.layout, &beat, NULL) < 0)
        printf("# the beat could not be written\n");
    close(fd);
}

static void check_back(int index, double least_s, double most_s)
{
    struct reply reply = hear(index);
    CHECK_EQ(reply.rv, 0);
    CHECK_EQ(reply.host_id, nodes[index].host_id);
    CHECK_EQ(reply.generation, 2);
    printf("# back in %.1f s\n", reply.seconds);
    CHECK(reply.seconds >= least_s && reply.seconds < most_s);
}

/* 3N of watching, and sanlock's 2N and a bit; or that bit alone. */
static void a_node_whose_death_is_proved_or_was_watched_joins_again_at_once(void)
{
    enum { PROVED, OF_A_FORMER_LIFE, WATCHED, MOVED, ALL };
    if (!ready)
        SKIP("nobody joined");
    mark_dead(nodes[PROVED].host_id, 1);
    mark_dead(nodes[OF_A_FORMER_LIFE].host_id, 0); /* says nothing of this one */
    for (int i = 0; i < ALL; i++)
        lose_power(i);
    beat_about(nodes[WATCHED].host_id, nodes[MOVED].host_id);
    for (int i = 0; i < ALL; i++)
        come_back(i);
    check_back(PROVED, 0, 8);
    check_back(WATCHED, 0, 8);
    check_back(OF_A_FORMER_LIFE, 10, 30);
    check_back(MOVED, 10, 30);
}

static void claims_of_others_are_avoided_and_ones_own_is_not(void)
{
    char lockspace[48];
    struct delta_lease leases[ROOM] = {0};
    bool avoid[ROOM] = {false};
    if (!ready)
        SKIP("no pool");
    struct host_id_claims claims = claims_of("me", lockspace, 0);
    write_claim_of("me", &claims, 1);
    write_claim_of("other", &claims, 2);
    write_claim_of("other", &claims, 3);
    leases[2].timestamp = 77; /* whoever lives there is no question of claims */
    CHECK_EQ(host_id_avoid_claimed(&claims, leases, avoid, NULL), 0);
    CHECK(!avoid[0] && avoid[1] && !avoid[2] && !avoid[3]);
    CHECK_EQ(host_id_clear_claim(&claims, 2, NULL), 0);
    avoid[1] = false;
    CHECK_EQ(host_id_avoid_claimed(&claims, leases, avoid, NULL), 0);
    CHECK(!avoid[1]);
    close(claims.fd);
}

TEST_MAIN(TEST(eleven_daemons_come_up), TEST(a_claim_wins_alone_and_loses_at_once_to_a_later_one),
          TEST(ten_nodes_that_join_at_once_are_all_in_within_15_seconds),
          TEST(nobodys_claim_is_left), TEST(an_eleventh_is_told_at_once_that_the_pool_is_full),
          TEST(a_claim_loses_to_a_lease_that_was_taken_since_it_was_read),
          TEST(a_node_whose_death_is_proved_or_was_watched_joins_again_at_once),
          TEST(claims_of_others_are_avoided_and_ones_own_is_not))
