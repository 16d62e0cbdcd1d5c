/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Membership and leadership against real sanlock daemons: several on this machine, each with its
 * own run directory and host name, on one file that is laid out like a lunar LUN. Without a
 * watchdog (-w 0), so the pool is a test pool.
 *
 * libsanlock remembers the first daemon it met, so each agent and each coordinator is a process of
 * its own, as in real life: an actor, forked from this one, that runs the functions it is sent and
 * answers what came out. The cases build on each other, as the life of a pool does.
 */
#include "fencing/membership.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/io.h"
#include "base/le.h"
#include "fencing/leases.h"
#include "fencing/sanlock_calls.h"
#include "fencing/sanlock_daemon.h"
#include "support/test.h"
#include "support/test_pool.h"

/* A daemon per node; "twin" is another machine with the identity of node a. */
enum node { NODE_A, NODE_B, NODE_TWIN, NODE_NOBODY, NODES };

static struct {
    const char *name, *machine;
    char run_dir[64];
    pid_t pid;
} nodes[NODES] = {
    {.name = "node-a", .machine = "machine-a"},
    {.name = "node-b", .machine = "machine-b"},
    {.name = "node-a", .machine = "machine-a"},
    {.name = "node-x", .machine = "machine-x"}, /* never started */
};

static char dir[] = "/tmp/lunar-test-membership-XXXXXX";
static char device[64];
static struct superblock sb;
static bool ready; /* the device is formatted */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* --- actors --- */

struct reply {
    int rv;
    uint32_t host_id;
    uint64_t generation, term;
    int count; /* of hosts */
    int state; /* of the first host */
    int watchdog_fire_timeout_s;
    bool cloexec;
    double seconds;
    char text[256];
};

typedef void action(struct reply *reply, uint64_t argument);

struct order {
    action *run;
    uint64_t argument;
};

struct actor {
    pid_t pid;
    int fd;
};

static struct actor agent_a, agent_b, candidate_a, candidate_a2, candidate_b;

/* What an actor has; in the parent both stay NULL. */
static struct membership *own_membership;
static struct leadership *own_leadership;

static void be(enum node n)
{
    setenv("SANLOCK_RUN_DIR", nodes[n].run_dir, 1);
    setenv("LUNAR_MACHINE_ID", nodes[n].machine, 1);
}

static struct actor start_actor(enum node n)
{
    int fds[2];
    struct order order;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
        abort();
    struct actor actor = {.pid = fork(), .fd = fds[0]};
    if (actor.pid != 0) {
        close(fds[1]);
        return actor;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    be(n);
    close(fds[0]);
    while (recv(fds[1], &order, sizeof order, 0) == (ssize_t)sizeof order) {
        struct reply reply = {0};
        double start = now();
        order.run(&reply, order.argument);
        reply.seconds = now() - start;
        if (send(fds[1], &reply, sizeof reply, 0) != (ssize_t)sizeof reply)
            break;
    }
    _exit(0);
}

/* Sends without waiting for the answer, for two actors at once. */
static void tell(struct actor *actor, action *run, uint64_t argument)
{
    struct order order = {run, argument};
    if (send(actor->fd, &order, sizeof order, MSG_NOSIGNAL) != (ssize_t)sizeof order)
        printf("# an actor is gone\n");
}

static struct reply answer(struct actor *actor)
{
    struct reply reply = {.rv = -EPIPE};
    if (recv(actor->fd, &reply, sizeof reply, 0) != (ssize_t)sizeof reply)
        printf("# an actor died\n");
    if (reply.rv < 0)
        printf("# %s\n", reply.text);
    return reply;
}

static struct reply ask(struct actor *actor, action *run, uint64_t argument)
{
    tell(actor, run, argument);
    return answer(actor);
}

static void end_actor(struct actor *actor)
{
    if (actor->pid <= 0)
        return;
    kill(actor->pid, SIGKILL);
    waitpid(actor->pid, NULL, 0);
    close(actor->fd);
    actor->pid = 0;
}

/* --- what actors do --- */

static void finish(struct reply *reply, int rv, const struct error *err)
{
    reply->rv = rv;
    snprintf(reply->text, sizeof reply->text, "%s", rv < 0 ? err->text : "");
}

static void act_join(struct reply *reply, uint64_t node)
{
    struct error err = ERROR_INIT;
    struct membership_config config = {
        .device = device, .superblock = &sb, .node_name = nodes[node].name};
    int rv = membership_join(&config, &own_membership, &err);
    finish(reply, rv, &err);
    if (rv == 0) {
        reply->host_id = membership_host_id(own_membership);
        reply->generation = membership_generation(own_membership);
        reply->cloexec = fcntl(membership_fd(own_membership), F_GETFD) & FD_CLOEXEC;
    }
}

static void act_check(struct reply *reply, uint64_t unused)
{
    struct error err = ERROR_INIT;
    (void)unused;
    finish(reply, membership_check(own_membership, &err), &err);
}

static void act_leave(struct reply *reply, uint64_t unused)
{
    struct error err = ERROR_INIT;
    (void)unused;
    finish(reply, membership_leave(own_membership, &err), &err);
}

static void act_end(struct reply *reply, uint64_t unused)
{
    char lockspace[48];
    struct error err = ERROR_INIT;
    (void)unused;
    pool_lockspace(&sb.pool_id, lockspace);
    sanlock_set_config(lockspace, 0, SANLK_CONFIG_USED, NULL); /* as a killed guard leaves it */
    finish(reply, membership_end(&sb.pool_id, &err), &err);
}

static void act_find(struct reply *reply, uint64_t unused)
{
    struct error err = ERROR_INIT;
    (void)unused;
    finish(reply, membership_find(&sb.pool_id, &reply->host_id, &reply->generation, &err), &err);
}

static void act_hosts(struct reply *reply, uint64_t unused)
{
    struct error err = ERROR_INIT;
    struct host_status *hosts = NULL;
    (void)unused;
    int n = membership_hosts(&sb.pool_id, NULL, 0, &hosts, &err);
    finish(reply, n, &err);
    if (n > 0) {
        reply->count = n;
        reply->host_id = hosts[0].host_id;
        reply->state = (int)hosts[0].state;
    }
    free(hosts);
}

/* What becomes of that one host, in the list or asked for by its id. */
static void act_host(struct reply *reply, uint64_t host_id)
{
    struct error err = ERROR_INIT;
    struct host_status *hosts = NULL;
    const uint32_t also = (uint32_t)host_id;
    int n = membership_hosts(&sb.pool_id, &also, 1, &hosts, &err);
    finish(reply, n < 0 ? n : 0, &err);
    for (int i = 0; i < n; i++)
        if (hosts[i].host_id == host_id) {
            reply->count++;
            reply->state = (int)hosts[i].state;
            reply->generation = hosts[i].generation;
        }
    free(hosts);
}

/* Opens on the first call; tries until it leads or `limit_ms` is over. */
static void act_lead(struct reply *reply, uint64_t limit_ms)
{
    struct error err = ERROR_INIT;
    double end = now() + (double)limit_ms / 1000;
    int rv = own_leadership ? 0 : leadership_open(device, &sb, &own_leadership, &err);
    if (rv == 0)
        reply->cloexec = fcntl(leadership_fd(own_leadership), F_GETFD) & FD_CLOEXEC;
    while (rv == 0) {
        rv = leadership_try(own_leadership, &reply->term, &err);
        if (rv != 0 || now() >= end)
            break;
        usleep(50000);
    }
    finish(reply, rv, &err);
}

static void act_lead_check(struct reply *reply, uint64_t term)
{
    struct error err = ERROR_INIT;
    finish(reply, leadership_check(own_leadership, term, &err), &err);
}

static void act_lead_release(struct reply *reply, uint64_t unused)
{
    struct error err = ERROR_INIT;
    (void)unused;
    finish(reply, leadership_release(own_leadership, &err), &err);
}

/* A child that may write the LUN: it has the socket as its standard input. The reply's host_id is
 * its pid. */
static void act_force(struct reply *reply, uint64_t term)
{
    struct error err = ERROR_INIT;
    if (!own_leadership && leadership_open(device, &sb, &own_leadership, &err) < 0)
        return finish(reply, err.code, &err);
    finish(reply, leadership_force(own_leadership, term, &err), &err);
}

static void act_start_writer(struct reply *reply, uint64_t unused)
{
    int up[2];
    char byte;
    (void)unused;
    if (pipe2(up, O_CLOEXEC) < 0)
        abort();
    pid_t pid = fork();
    if (pid == 0) {
        dup2(leadership_fd(own_leadership), 0);
        execl("/bin/sleep", "sleep", "60", (char *)NULL);
        _exit(127);
    }
    close(up[1]);
    reply->rv = read(up[0], &byte, 1) == 0 ? 0 : -EIO; /* closed by the exec */
    close(up[0]);
    reply->host_id = (uint32_t)pid;
}

/* --- daemons and the device --- */

static void start_daemon(enum node n)
{
    char host_name[LEASES_NAME_SIZE];
    leases_host_name(nodes[n].name, nodes[n].machine, host_name);
    nodes[n].pid = test_pool_start_sanlock(nodes[n].run_dir, host_name);
}

static void stop_daemon(enum node n)
{
    if (nodes[n].pid <= 0)
        return;
    kill(nodes[n].pid, SIGKILL);
    waitpid(nodes[n].pid, NULL, 0);
    nodes[n].pid = 0;
}

static void act_wait_daemon(struct reply *reply, uint64_t unused)
{
    struct error err = ERROR_INIT;
    struct sanlock_daemon daemon;
    int rv = -EAGAIN;
    (void)unused;
    for (double end = now() + 10; now() < end && rv < 0; usleep(50000))
        rv = sanlock_daemon_read(&daemon, &err);
    finish(reply, rv, &err);
    reply->watchdog_fire_timeout_s = rv < 0 ? 0 : daemon.watchdog_fire_timeout_s;
}

/* This process asks no daemon by itself: libsanlock would remember it, and its actors would inherit
 * that. */
static int wait_daemon(enum node n)
{
    struct actor actor = start_actor(n);
    struct reply reply = ask(&actor, act_wait_daemon, 0);
    end_actor(&actor);
    sb.watchdog_fire_timeout_s = (uint32_t)reply.watchdog_fire_timeout_s;
    return reply.rv;
}

static void cleanup(void)
{
    char command[128];
    struct actor *actors[] = {&agent_a, &agent_b, &candidate_a, &candidate_a2, &candidate_b};
    for (size_t i = 0; i < sizeof actors / sizeof *actors; i++)
        end_actor(actors[i]);
    for (int n = 0; n < NODES; n++)
        stop_daemon((enum node)n);
    snprintf(command, sizeof command, "rm -rf %s", dir);
    if (system(command) != 0)
        printf("# could not remove %s\n", dir);
}

static struct delta_lease lease_of(uint32_t host_id)
{
    struct delta_lease lease = {0};
    int fd = io_open(device, 0, NULL);
    lease_read(fd, &sb.layout, NULL, host_id, &lease, NULL);
    close(fd);
    return lease;
}

/* --- formatting --- */

static void a_lun_is_formatted_without_a_daemon_and_read_back(void)
{
    if (!test_pool_has_sanlock())
        SKIP("sanlock is not installed");
    struct error err = ERROR_INIT;
    struct delta_lease leases[16];
    struct leader_record leader;
    char lockspace[48];
    CHECK(mkdtemp(dir) != NULL);
    atexit(cleanup);
    for (int n = 0; n < NODES; n++)
        snprintf(nodes[n].run_dir, sizeof nodes[n].run_dir, "%s/%d", dir, n);
    /* A colon in the path, because sanlock's command splits its arguments there. */
    snprintf(device, sizeof device, "%s/lun:1", dir);
    CHECK_EQ(test_pool_make(device, 16, 2, 60, &sb), 0);
    be(NODE_NOBODY);
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
    CHECK_EQ(test_pool_set_state(device, &sb, SUPERBLOCK_READY), 0);
    CHECK_EQ(membership_format(device, &sb, NULL), LUNAR_E_INVALID);
    /* Nor by somebody who only believes that it is being formatted. */
    sb.state = SUPERBLOCK_FORMATTING;
    int rv = membership_format(device, &sb, NULL);
    sb.state = SUPERBLOCK_READY;
    CHECK_EQ(rv, LUNAR_E_IN_USE);
}

/* --- refusals --- */

/* A join by a process of its own, with the superblock as it is now. */
static struct reply join_once(enum node daemon, enum node name)
{
    struct actor actor = start_actor(daemon);
    struct reply reply = ask(&actor, act_join, name);
    end_actor(&actor);
    return reply;
}

static void joining_without_a_daemon_says_so(void)
{
    if (!ready)
        SKIP("no formatted device");
    struct reply reply = join_once(NODE_NOBODY, NODE_NOBODY);
    CHECK_EQ(reply.rv, -ECONNREFUSED);
    CHECK(strstr(reply.text, "start it") != NULL);
}

static void daemons_with_the_wrong_settings_are_refused(void)
{
    if (!ready)
        SKIP("no formatted device");
    for (int n = 0; n < NODE_NOBODY; n++)
        start_daemon((enum node)n);
    for (int n = 0; n < NODE_NOBODY; n++)
        CHECK_EQ(wait_daemon((enum node)n), 0);

    struct reply reply = join_once(NODE_A, NODE_B);
    CHECK_EQ(reply.rv, LUNAR_E_INVALID);
    CHECK(strstr(reply.text, "our_host_name = lunar-") != NULL);

    sb.watchdog_fire_timeout_s++;
    reply = join_once(NODE_A, NODE_A);
    sb.watchdog_fire_timeout_s--;
    CHECK_EQ(reply.rv, LUNAR_E_INVALID);
    CHECK(strstr(reply.text, "watchdog_fire_timeout") != NULL);
}

static void outside_a_test_pool_the_machines_identity_cannot_be_overridden(void)
{
    if (!ready)
        SKIP("no formatted device");
    sb.flags = 0;
    struct reply reply = join_once(NODE_A, NODE_A);
    sb.flags = SUPERBLOCK_FLAG_TEST;
    CHECK(reply.rv == LUNAR_E_INVALID || reply.rv == LUNAR_E_NOT_FOUND ||
          reply.rv == LUNAR_E_PERMISSION);
}

/* Here the daemon has the machine's real identity, and what is missing is the watchdog. */
static void safety_12_no_watchdog_no_join(void)
{
    char id[128];
    const char *machine = nodes[NODE_B].machine;
    if (!ready || leases_machine_id(id, sizeof id, NULL) < 0)
        SKIP("no formatted device, or this machine has no identity");
    stop_daemon(NODE_B);
    nodes[NODE_B].machine = id;
    start_daemon(NODE_B);
    int up = wait_daemon(NODE_B);
    sb.flags = 0;
    struct reply reply = join_once(NODE_B, NODE_B);
    sb.flags = SUPERBLOCK_FLAG_TEST;

    stop_daemon(NODE_B);
    nodes[NODE_B].machine = machine;
    start_daemon(NODE_B);
    CHECK_EQ(up, 0);
    CHECK_EQ(wait_daemon(NODE_B), 0);
    CHECK_EQ(reply.rv, LUNAR_E_NO_WATCHDOG);
    CHECK(strstr(reply.text, "-w 0") != NULL);
}

/* --- membership --- */

static void nobody_leads_or_is_found_before_the_join(void)
{
    if (!ready)
        SKIP("no formatted device");
    candidate_a = start_actor(NODE_A);
    CHECK_EQ(ask(&candidate_a, act_find, 0).rv, LUNAR_E_NOT_JOINED);
    CHECK_EQ(ask(&candidate_a, act_hosts, 0).rv, LUNAR_E_NOT_JOINED);
    struct reply reply = ask(&candidate_a, act_lead, 0);
    CHECK_EQ(reply.rv, 0);
    CHECK(reply.cloexec);
}

static void two_nodes_join_at_once_and_get_ids_of_their_own(void)
{
    if (!ready)
        SKIP("no formatted device");
    agent_a = start_actor(NODE_A);
    agent_b = start_actor(NODE_B);
    tell(&agent_a, act_join, NODE_A);
    tell(&agent_b, act_join, NODE_B);
    struct reply a = answer(&agent_a), b = answer(&agent_b);
    CHECK(a.rv == 0 && b.rv == 0);
    printf("# joined as host %u in %.1f s and as host %u in %.1f s\n", a.host_id, a.seconds,
           b.host_id, b.seconds);
    CHECK(a.host_id != b.host_id);
    CHECK_EQ(a.generation, 1);
    CHECK(a.cloexec);
    CHECK(ask(&agent_a, act_check, 0).rv == 0 && ask(&agent_b, act_check, 0).rv == 0);
    CHECK_EQ(lease_of(a.host_id).generation, 1);
    CHECK(lease_of(a.host_id).timestamp != 0);
}

static void a_member_is_found_at_once_and_seen_alive_soon(void)
{
    if (agent_b.pid == 0)
        SKIP("nobody joined");
    struct reply found = ask(&candidate_a, act_find, 0);
    CHECK_EQ(found.rv, 0);
    CHECK_EQ(found.generation, 1);
    CHECK_EQ(lease_of(found.host_id).owner_id, found.host_id);
    struct reply hosts = {0};
    for (double end = now() + 15;
         now() < end && (hosts.count < 2 || hosts.state != HOST_STATE_LIVE); usleep(100000))
        hosts = ask(&candidate_a, act_hosts, 0);
    CHECK_EQ(hosts.count, 2);
    CHECK_STR(host_state_name((enum host_state)hosts.state), "LIVE");
}

static void an_agent_that_was_killed_is_a_member_again_at_once(void)
{
    if (agent_a.pid == 0)
        SKIP("nobody joined");
    uint32_t host_id = ask(&candidate_a, act_find, 0).host_id;
    end_actor(&agent_a);
    agent_a = start_actor(NODE_A);
    struct reply reply = ask(&agent_a, act_join, NODE_A);
    CHECK_EQ(reply.rv, 0);
    printf("# a member again in %.2f s\n", reply.seconds);
    CHECK_EQ(reply.host_id, host_id);
    CHECK_EQ(reply.generation, 1);
    CHECK(reply.seconds < 4);
    CHECK_EQ(ask(&agent_a, act_check, 0).rv, 0);
}

static void another_device_under_the_same_pool_is_refused_while_joined(void)
{
    char real[sizeof device], command[256];
    if (agent_a.pid == 0)
        SKIP("nobody joined");
    strcpy(real, device);
    snprintf(command, sizeof command, "cp --sparse=always '%s' '%s/copy'", device, dir);
    CHECK_EQ(system(command), 0);
    snprintf(device, sizeof device, "%s/copy", dir);
    struct reply reply = join_once(NODE_A, NODE_A);
    strcpy(device, real);
    CHECK_EQ(reply.rv, LUNAR_E_INVALID);
    CHECK(strstr(reply.text, "/copy") != NULL);
}

static void safety_7_a_second_machine_of_our_name_is_refused(void)
{
    if (agent_a.pid == 0)
        SKIP("nobody joined");
    struct delta_lease before = lease_of(ask(&candidate_a, act_find, 0).host_id);
    struct reply reply = join_once(NODE_TWIN, NODE_TWIN);
    CHECK_EQ(reply.rv, LUNAR_E_ALIVE);
    CHECK(strstr(reply.text, "another machine is alive") != NULL);
    CHECK(reply.seconds < 3 * 2 + 2);
    CHECK_EQ(lease_of(before.host_id).generation, before.generation);
    CHECK_EQ(ask(&agent_a, act_check, 0).rv, 0);
}

/* --- leadership --- */

static void one_leads_at_a_time_and_terms_rise(void)
{
    if (agent_b.pid == 0)
        SKIP("there are no two members");
    candidate_a2 = start_actor(NODE_A);
    candidate_b = start_actor(NODE_B);
    struct reply reply = ask(&candidate_a, act_lead, 0);
    CHECK_EQ(reply.rv, 1);
    CHECK_EQ(reply.term, 1);
    CHECK_EQ(ask(&candidate_a, act_lead_check, 1).rv, 0);
    CHECK_EQ(ask(&candidate_a, act_lead_check, 2).rv, LUNAR_E_STALE);
    CHECK_EQ(ask(&candidate_a2, act_lead, 0).rv, 0);
    CHECK_EQ(ask(&candidate_b, act_lead, 0).rv, 0);
    CHECK_EQ(ask(&candidate_b, act_lead_check, 1).rv, LUNAR_E_STALE);

    CHECK_EQ(ask(&candidate_a, act_lead_release, 0).rv, 0);
    CHECK_EQ(ask(&candidate_a, act_lead_check, 1).rv, LUNAR_E_STALE);
    reply = ask(&candidate_b, act_lead, 5000);
    CHECK_EQ(reply.rv, 1);
    CHECK_EQ(reply.term, 2);
}

static void a_killed_leaders_lease_goes_to_the_standby(void)
{
    if (candidate_b.pid == 0)
        SKIP("nobody leads");
    tell(&candidate_a, act_lead, 10000);
    end_actor(&candidate_b);
    struct reply reply = answer(&candidate_a);
    CHECK_EQ(reply.rv, 1);
    CHECK_EQ(reply.term, 3);
    printf("# taken over %.2f s after the kill\n", reply.seconds);
    CHECK(reply.seconds < 3);
}

static void safety_1_the_lease_outlives_its_process_in_a_child_that_has_the_socket(void)
{
    if (candidate_a.pid == 0 || agent_b.pid == 0)
        SKIP("nobody leads");
    struct reply writer = ask(&candidate_a, act_start_writer, 0);
    CHECK_EQ(writer.rv, 0);
    end_actor(&candidate_a);
    candidate_b = start_actor(NODE_B);
    struct reply while_it_lives = ask(&candidate_b, act_lead, 2000);
    kill((pid_t)writer.host_id, SIGKILL);
    struct reply after = ask(&candidate_b, act_lead, 5000);
    CHECK_EQ(while_it_lives.rv, 0);
    CHECK_EQ(after.rv, 1);
    CHECK_EQ(after.term, 4);
}

/* candidate_b leads, term 4. Stopped, it keeps its lease; forced out, it dies although stopped. */
static void a_stopped_leader_is_forced_out_of_its_term_alone(void)
{
    if (candidate_b.pid == 0)
        SKIP("nobody leads");
    candidate_a = start_actor(NODE_A);
    kill(candidate_b.pid, SIGSTOP);
    CHECK_EQ(ask(&candidate_a, act_force, 3).rv, LUNAR_E_STALE); /* late: meant for term 3 */
    CHECK_EQ(ask(&candidate_a, act_lead, 1000).rv, 0);
    CHECK_EQ(ask(&candidate_a, act_force, 4).rv, 0);
    struct reply reply = ask(&candidate_a, act_lead, 12000);
    printf("# taken over %.2f s after the request\n", reply.seconds);
    CHECK_EQ(reply.rv, 1);
    CHECK_EQ(reply.term, 5);
    CHECK_EQ(waitpid(candidate_b.pid, NULL, WNOHANG), candidate_b.pid); /* before that */
    close(candidate_b.fd);
    CHECK_EQ(ask(&candidate_a, act_lead_release, 0).rv, 0);
    candidate_b = start_actor(NODE_B);
    CHECK_EQ(ask(&candidate_b, act_lead, 5000).term, 6);
}

/* --- leaving --- */

static void a_leave_is_refused_while_a_coordinator_leads_here(void)
{
    if (candidate_b.pid == 0)
        SKIP("nobody leads");
    CHECK_EQ(ask(&agent_b, act_leave, 0).rv, LUNAR_E_IN_USE);
    CHECK_EQ(ask(&agent_b, act_check, 0).rv, 0);
    CHECK_EQ(ask(&candidate_b, act_lead_check, 6).rv, 0);
    CHECK_EQ(ask(&candidate_b, act_lead_release, 0).rv, 0);
}

static void a_pool_with_living_members_is_not_overwritten(void)
{
    struct error err = ERROR_INIT;
    if (agent_a.pid == 0)
        SKIP("nobody joined");
    int fd = io_open(device, 0, NULL);
    double start = now();
    int rv = membership_refuse_alive(fd, &sb.layout, 76, NULL, NULL, &err);
    close(fd);
    CHECK_EQ(rv, LUNAR_E_ALIVE);
    CHECK(strstr(err.text, "lunar-") != NULL);
    CHECK(now() - start < 10); /* it does not wait for the end of the window once it knows */
}

static void a_clean_leave_frees_the_id_and_the_next_join_is_quick(void)
{
    if (agent_a.pid == 0)
        SKIP("nobody joined");
    uint32_t host_id = ask(&agent_a, act_find, 0).host_id;
    CHECK_EQ(ask(&agent_a, act_leave, 0).rv, 0);
    CHECK_EQ(lease_of(host_id).timestamp, 0);
    CHECK_EQ(ask(&agent_a, act_find, 0).rv, LUNAR_E_NOT_JOINED);
    struct reply seen = {0};
    if (agent_b.pid != 0) { /* at its sanlock's next look at the leases */
        for (double end = now() + 15; now() < end && seen.state != HOST_STATE_FREE; usleep(100000))
            seen = ask(&agent_b, act_host, host_id);
        CHECK_EQ(seen.count, 1);
        CHECK_EQ(seen.state, HOST_STATE_FREE);
        CHECK_EQ(seen.generation, 1);
        CHECK_EQ(ask(&agent_b, act_host, 9).count, 0); /* nobody ever had it */
    }

    struct reply reply = ask(&agent_a, act_join, NODE_A);
    CHECK_EQ(reply.rv, 0);
    printf("# joined under the id it left in %.2f s\n", reply.seconds);
    CHECK_EQ(reply.host_id, host_id);
    CHECK_EQ(reply.generation, 2);
    struct reply found = ask(&agent_a, act_find, 0);
    CHECK(found.host_id == host_id && found.generation == 2);
}

/* After a fence: what USED a killed guard left is cleared, and who leads under that life goes. */
static void a_life_that_was_fenced_off_is_given_up_with_its_coordinator(void)
{
    if (agent_b.pid == 0)
        SKIP("nobody joined");
    struct reply lead = ask(&candidate_b, act_lead, 5000);
    struct reply end = ask(&agent_b, act_end, 0);
    pid_t gone = 0;
    for (double limit = now() + 15; now() < limit && gone == 0; usleep(50000))
        gone = waitpid(candidate_b.pid, NULL, WNOHANG);
    CHECK(lead.rv == 1 && end.rv == 0 && gone != 0);
    candidate_b.pid = 0;
    CHECK_EQ(ask(&agent_b, act_find, 0).rv, LUNAR_E_NOT_JOINED);
    struct reply again = ask(&agent_b, act_join, NODE_B);
    CHECK(again.rv == 0 && again.generation == 2);
}

/* sanlock is killed: the agent's descriptor tells, and the check does not claim a membership. */
static void a_daemon_that_dies_ends_the_membership(void)
{
    if (agent_b.pid == 0)
        SKIP("nobody joined");
    CHECK_EQ(ask(&agent_b, act_leave, 0).rv, 0);
    stop_daemon(NODE_A);
    CHECK_EQ(ask(&agent_a, act_check, 0).rv, LUNAR_E_NOT_JOINED);
    CHECK(ask(&agent_a, act_leave, 0).rv < 0);
    /* Nor does a candidate's dead socket kill it by SIGPIPE. */
    struct reply reply = ask(&candidate_a2, act_lead_release, 0);
    CHECK(reply.rv < 0 && reply.text[0] != '\0');
}

/* A lease whose owner died long ago, with N = 0 so that the caller's window counts. */
static void a_dead_lockspace_is_watched_to_the_end_and_released(void)
{
    if (!ready)
        SKIP("no formatted device");
    uint8_t *sector = io_alloc(4096);
    int fd = io_open(device, 1, NULL);
    struct layout one = sb.layout;
    one.max_nodes = 1; /* node a's lease is dead, too, but would take 16 s */
    int rv = io_read(fd, sector, 4096, one.lockspace, NULL);
    le64_put(sector + 152, 12345);
    le16_put(sector + 174, 0);
    le32_put(sector + 168, ~crc32c_more(1, sector, 168));
    rv = rv < 0 ? rv : io_write(fd, sector, 4096, one.lockspace, NULL);
    double start = now();
    int alive = membership_refuse_alive(fd, &one, 2, NULL, NULL, NULL);
    double took = now() - start;
    close(fd);
    free(sector);
    CHECK_EQ(rv, 0);
    CHECK_EQ(alive, 0);
    CHECK(took >= 2 && took < 6);
}

TEST_MAIN(TEST(a_lun_is_formatted_without_a_daemon_and_read_back),
          TEST(a_finished_pool_is_not_formatted_again), TEST(joining_without_a_daemon_says_so),
          TEST(daemons_with_the_wrong_settings_are_refused),
          TEST(outside_a_test_pool_the_machines_identity_cannot_be_overridden),
          TEST(safety_12_no_watchdog_no_join), TEST(nobody_leads_or_is_found_before_the_join),
          TEST(two_nodes_join_at_once_and_get_ids_of_their_own),
          TEST(a_member_is_found_at_once_and_seen_alive_soon),
          TEST(an_agent_that_was_killed_is_a_member_again_at_once),
          TEST(another_device_under_the_same_pool_is_refused_while_joined),
          TEST(safety_7_a_second_machine_of_our_name_is_refused),
          TEST(one_leads_at_a_time_and_terms_rise),
          TEST(a_killed_leaders_lease_goes_to_the_standby),
          TEST(safety_1_the_lease_outlives_its_process_in_a_child_that_has_the_socket),
          TEST(a_stopped_leader_is_forced_out_of_its_term_alone),
          TEST(a_leave_is_refused_while_a_coordinator_leads_here),
          TEST(a_pool_with_living_members_is_not_overwritten),
          TEST(a_clean_leave_frees_the_id_and_the_next_join_is_quick),
          TEST(a_life_that_was_fenced_off_is_given_up_with_its_coordinator),
          TEST(a_daemon_that_dies_ends_the_membership),
          TEST(a_dead_lockspace_is_watched_to_the_end_and_released))
