/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lunar-guard and its client against a real sanlock daemon of this test's own, on one file that is
 * laid out like a lunar LUN: a test pool, without a watchdog. This process is the agent; where an
 * agent is to be killed it is a child. The kernel here may lack device-mapper: what the guard does
 * to maps is tested in test_guard_dm.c and on virtual machines.
 */
#include "fencing/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/helper.h"
#include "base/io.h"
#include "fencing/guard_run.h"
#include "fencing/guard_wire.h"
#include "fencing/leases.h"
#include "fencing/membership.h"
#include "fencing/sanlock_calls.h"
#include "support/test.h"
#include "support/test_pool.h"

#define HOST 1u
#define POOL "test"

static char dir[] = "/tmp/lunar-test-guard-XXXXXX";
static char device[64], sanlock_dir[64], program[4096];
static struct superblock sb;
static char lockspace[48];
static pid_t daemon_pid;
static uint64_t generation; /* 0: not joined */
static struct guard *guard; /* the agent's */

/* --- the daemon and the device --- */

static int start_daemon(void)
{
    daemon_pid = test_pool_start_sanlock(sanlock_dir, "lunar-test-guard");
    uint32_t version, proto;
    for (int i = 0; i < 200; i++, usleep(50000))
        if (sanlock_version(0, &version, &proto) == 0)
            return 0;
    return -1;
}

static void stop_daemon(void)
{
    if (daemon_pid <= 0)
        return;
    kill(daemon_pid, SIGKILL);
    waitpid(daemon_pid, NULL, 0);
    daemon_pid = 0;
}

static int make_device(void)
{
    snprintf(device, sizeof device, "%s/lun", dir);
    int rv = test_pool_make(device, 16, 1, 10, &sb); /* joins take half as long as with N = 2 */
    if (!(sb.flags & SUPERBLOCK_FLAG_TEST))
        abort(); /* a guard of any other pool may reset this machine */
    pool_lockspace(&sb.pool_id, lockspace);
    return rv < 0 ? rv : membership_format(device, &sb, NULL);
}

static void fill_lockspace(struct sanlk_lockspace *ls)
{
    sanlock_fill_lockspace(ls, &sb, device, HOST);
}

/* Into the lockspace, under its next generation. */
static int join(void)
{
    struct sanlk_lockspace ls;
    struct delta_lease lease;
    fill_lockspace(&ls);
    int rv = sanlock_add_lockspace_timeout(&ls, 0, sb.io_timeout_s);
    int fd = io_open(device, 0, NULL);
    if (rv == 0)
        rv = lease_read(fd, &sb.layout, lockspace, HOST, &lease, NULL);
    close(fd);
    generation = rv == 0 ? lease.generation : 0;
    return rv;
}

static int leave(void)
{
    struct sanlk_lockspace ls;
    fill_lockspace(&ls);
    generation = 0;
    return sanlock_rem_lockspace(&ls, SANLK_REM_UNUSED);
}

static bool status_has(const char *word)
{
    char line[512];
    bool found = false;
    FILE *f = popen("PATH=$PATH:/usr/sbin:/sbin sanlock client status -D", "re");
    while (f && fgets(line, sizeof line, f))
        found = found || strstr(line, word);
    if (f)
        pclose(f);
    return found;
}

static bool is_used(void)
{
    return status_has("external_used=1");
}

static bool lease_is_held(void)
{
    char word[96];
    snprintf(word, sizeof word, "r %s:member:", lockspace);
    return status_has(word);
}

/* --- the agent --- */

static struct guard_config config_of(uint64_t g)
{
    return (struct guard_config){.device = device,
                                 .pool_name = POOL,
                                 .run_dir = dir,
                                 .superblock = &sb,
                                 .host_id = HOST,
                                 .generation = g};
}

static int open_guard_of(uint64_t g, struct guard **ret)
{
    struct error err = ERROR_INIT;
    struct guard_config config = config_of(g);
    int rv = guard_open(&config, ret, &err);
    if (rv < 0)
        printf("# %s: %s\n", error_name(rv), err.text);
    return rv;
}

static int open_guard(void)
{
    return open_guard_of(generation, &guard);
}

static pid_t guard_pid(const struct guard *of)
{
    struct ucred peer = {0};
    socklen_t len = sizeof peer;
    getsockopt(guard_fd(of), SOL_SOCKET, SO_PEERCRED, &peer, &len);
    return peer.pid;
}

/* The next news; 0 when there is none within ten seconds, -EPIPE when it has gone. */
static int next_state(void)
{
    char reason[GUARD_REASON_SIZE];
    enum guard_state state;
    struct pollfd p = {.fd = guard_fd(guard), .events = POLLIN};
    if (poll(&p, 1, 10000) <= 0)
        return 0;
    int rv = guard_read(guard, &state, reason, NULL);
    if (rv == 1)
        printf("# %s: %s\n", guard_state_name(state), reason);
    return rv == 1 ? (int)state : rv;
}

static void close_guard(void)
{
    guard_close(guard);
    guard = NULL;
}

static int take(int *permit)
{
    return guard_permit_take(dir, POOL, HOST, generation, permit, NULL);
}

static bool goes_away(pid_t pid)
{
    for (int ms = 0; ms < 10000; ms += 20, usleep(20000))
        if (kill(pid, 0) < 0 && errno == ESRCH)
            return true;
    return false;
}

static void cleanup(void)
{
    char command[128];
    pid_t pid = guard ? guard_pid(guard) : 0;
    stop_daemon(); /* which ends a guard that was left behind, too */
    if (pid > 0)
        goes_away(pid);
    snprintf(command, sizeof command, "rm -rf %s", dir);
    if (system(command) != 0)
        printf("# could not remove %s\n", dir);
}

/* --- guarding --- */

static void a_guard_is_started_and_holds_used_and_the_lease(void)
{
    if (!test_pool_has_sanlock())
        SKIP("sanlock is not installed");
    CHECK(mkdtemp(dir) != NULL);
    atexit(cleanup);
    snprintf(sanlock_dir, sizeof sanlock_dir, "%s/sanlock", dir);
    setenv("SANLOCK_RUN_DIR", sanlock_dir, 1);
    CHECK_EQ(make_device(), 0);
    CHECK_EQ(start_daemon(), 0);
    CHECK_EQ(join(), 0);
    CHECK(!is_used());

    int permit;
    CHECK_EQ(take(&permit), LUNAR_E_FENCED);
    int64_t begin = clock_ms();
    CHECK_EQ(open_guard(), 0);
    printf("# guarding after %d ms\n", (int)(clock_ms() - begin));
    CHECK(is_used());
    CHECK(lease_is_held());
    CHECK(getpgid(guard_pid(guard)) != getpgid(0)); /* a session of its own */
}

static void a_new_agent_finds_the_same_guard(void)
{
    if (!guard)
        SKIP("no guard");
    pid_t pid = guard_pid(guard);
    close_guard();
    CHECK_EQ(open_guard(), 0);
    CHECK_EQ(guard_pid(guard), pid);
}

static void a_permit_is_of_one_life(void)
{
    if (!guard)
        SKIP("no guard");
    int a, b, other;
    CHECK_EQ(take(&a), 0);
    CHECK_EQ(take(&b), 0); /* two threads at once */
    CHECK(fcntl(a, F_GETFD) & FD_CLOEXEC);
    CHECK_EQ(guard_permit_take(dir, POOL, HOST, generation + 1, &other, NULL), LUNAR_E_FENCED);
    CHECK_EQ(guard_permit_take(dir, "other", HOST, generation, &other, NULL), LUNAR_E_FENCED);
    guard_permit_give_back(a);
    guard_permit_give_back(b);
}

static void another_life_is_refused_while_this_one_is_guarded(void)
{
    struct guard *other = NULL;
    if (!guard)
        SKIP("no guard");
    CHECK_EQ(open_guard_of(generation + 1, &other), LUNAR_E_ALIVE);
}

static void safety_9_used_outlives_a_guard_that_is_killed_and_the_next_one_takes_over(void)
{
    int permit;
    if (!guard)
        SKIP("no guard");
    pid_t pid = guard_pid(guard);
    kill(pid, SIGKILL);
    CHECK_EQ(next_state(), -EPIPE);
    CHECK(is_used());
    close_guard();
    int64_t begin = clock_ms();
    CHECK_EQ(open_guard(), 0);
    printf("# guarding again after %d ms\n", (int)(clock_ms() - begin));
    CHECK(guard_pid(guard) != pid);
    CHECK(lease_is_held());
    CHECK_EQ(take(&permit), 0);
    guard_permit_give_back(permit);
}

/* --- leaving --- */

static void a_leave_is_refused_while_something_is_being_mapped(void)
{
    int permit, second;
    if (!guard)
        SKIP("no guard");
    CHECK_EQ(take(&permit), 0);
    CHECK_EQ(guard_leave(guard, NULL), LUNAR_E_IN_USE);
    CHECK_EQ(take(&second), 0); /* it goes on guarding */
    guard_permit_give_back(permit);
    guard_permit_give_back(second);
    CHECK(is_used() && lease_is_held());
}

static void after_a_leave_nothing_is_held_and_the_same_life_can_be_guarded_again(void)
{
    int permit;
    if (!guard)
        SKIP("no guard");
    pid_t pid = guard_pid(guard);
    CHECK_EQ(guard_leave(guard, NULL), 0);
    guard = NULL;
    CHECK(goes_away(pid));
    CHECK(!is_used() && !lease_is_held());
    CHECK_EQ(take(&permit), LUNAR_E_FENCED);
    CHECK_EQ(open_guard(), 0); /* the lockspace could not be left: it stays a member */
    CHECK(is_used() && lease_is_held());
    CHECK_EQ(take(&permit), 0);
    guard_permit_give_back(permit);
}

/* --- fencing --- */

static void safety_11_the_agents_word_fences_and_a_drained_node_is_released(void)
{
    int permit;
    struct guard *again = NULL;
    if (!guard)
        SKIP("no guard");
    pid_t pid = guard_pid(guard);
    CHECK_EQ(guard_fence(guard, "marked dead", NULL), 0);
    CHECK_EQ(next_state(), GUARD_STATE_FENCING);
    CHECK_EQ(take(&permit), LUNAR_E_FENCED);
    CHECK_EQ(next_state(), GUARD_STATE_PROVEN);
    CHECK(is_used() && lease_is_held());
    CHECK_EQ(guard_drained(guard, NULL), 0);
    CHECK_EQ(next_state(), GUARD_STATE_OVER);
    CHECK(goes_away(pid));
    CHECK_EQ(next_state(), -EPIPE);
    CHECK(!is_used() && !lease_is_held());
    CHECK_EQ(take(&permit), LUNAR_E_FENCED); /* by the file alone */
    close_guard();
    CHECK_EQ(open_guard_of(generation, &again), LUNAR_E_FENCED); /* that life is over */
    CHECK(!is_used());
}

/* The next life; what a test before it left behind is its. */
static int begin_life(void)
{
    if (guard)
        close_guard();
    /* sanlock may have given the lockspace up by itself, or be about to. */
    int rv = generation != 0 ? leave() : -ENOENT;
    for (int ms = 0; rv != 0 && rv != -ENOENT && ms < 20000; ms += 50, usleep(50000))
        rv = leave();
    return join() < 0 ? -1 : open_guard();
}

static void the_next_life_removes_the_permits_of_the_former_one(void)
{
    char path[GUARD_PATH_SIZE];
    uint64_t former = generation;
    if (former == 0)
        SKIP("no life before");
    guard_permit_path(dir, POOL, HOST, former, path, NULL);
    CHECK_EQ(access(path, F_OK), 0);
    CHECK_EQ(begin_life(), 0);
    CHECK_EQ(generation, former + 1);
    CHECK(access(path, F_OK) < 0);
}

static void sigterm_fences_and_an_agent_that_says_nothing_is_given_three_seconds(void)
{
    if (!guard)
        SKIP("no guard");
    kill(guard_pid(guard), SIGTERM);
    CHECK_EQ(next_state(), GUARD_STATE_FENCING);
    CHECK_EQ(next_state(), GUARD_STATE_PROVEN);
    int64_t begin = clock_ms();
    CHECK_EQ(next_state(), GUARD_STATE_OVER);
    int took = (int)(clock_ms() - begin);
    printf("# over %d ms after the proof\n", took);
    CHECK(took >= 2900 && took < 5000);
    CHECK_EQ(next_state(), -EPIPE);
    CHECK(!is_used());
}

/* A lockspace that is removed by force: sanlock ends whoever holds a lease in it, by killpath or by
 * SIGTERM as its grace time allows, and waits. */
static void safety_11_sanlock_wakes_the_guard_and_waits_for_its_end(void)
{
    struct sanlk_lockspace ls;
    char path[GUARD_PATH_SIZE];
    if (generation == 0)
        SKIP("no life before");
    CHECK_EQ(begin_life(), 0);
    guard_path(dir, POOL, "sock", path, NULL);
    CHECK_EQ(guard_wake(path, HOST, generation - 1, NULL), 0); /* a late one of the life before */
    CHECK_EQ(guard_wake(path, HOST + 1, generation, NULL), 0);
    fill_lockspace(&ls);
    int64_t begin = clock_ms();
    CHECK_EQ(sanlock_rem_lockspace(&ls, SANLK_REM_ASYNC), 0);
    CHECK_EQ(next_state(), GUARD_STATE_FENCING);
    CHECK_EQ(next_state(), GUARD_STATE_PROVEN);
    CHECK_EQ(guard_drained(guard, NULL), 0);
    CHECK_EQ(next_state(), GUARD_STATE_OVER);
    printf("# over %d ms after the lockspace was removed\n", (int)(clock_ms() - begin));
    CHECK_EQ(next_state(), -EPIPE);
    while (sanlock_inq_lockspace(&ls, 0) != -ENOENT && clock_ms() < begin + 20000)
        usleep(50000);
    CHECK_EQ(sanlock_inq_lockspace(&ls, 0), -ENOENT); /* it was taken for clean */
    generation = 0;
}

static void a_guard_killed_while_it_fences_is_succeeded_by_one_that_goes_on(void)
{
    int permit;
    struct guard *next = NULL;
    CHECK_EQ(begin_life(), 0);
    CHECK_EQ(take(&permit), 0); /* so that it stays fencing; for less than the second it allows */
    pid_t pid = guard_pid(guard);
    CHECK_EQ(guard_fence(guard, "test", NULL), 0);
    CHECK_EQ(next_state(), GUARD_STATE_FENCING);
    kill(pid, SIGKILL);
    guard_permit_give_back(permit);
    CHECK(goes_away(pid));
    CHECK(is_used());
    close_guard();
    CHECK_EQ(open_guard_of(generation, &next), LUNAR_E_FENCED);
    for (int ms = 0; ms < 10000 && is_used(); ms += 50)
        usleep(50000);
    CHECK(!is_used());
}

static void wait_for_ever(void)
{
    for (;;)
        pause();
}

/* A child that is the agent, and neither ends nor gives its permit back; nor does a child of its
 * own, which outlives it, if that is wanted. */
static pid_t start_stuck_agent(pid_t *ret_holder)
{
    int up[2];
    pid_t holder = 0;
    if (pipe2(up, O_CLOEXEC) < 0)
        abort();
    pid_t pid = fork();
    if (pid == 0) {
        int permit;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (open_guard() < 0 || take(&permit) < 0)
            _exit(1);
        if (ret_holder && (holder = fork()) == 0)
            wait_for_ever();
        if (write(up[1], &holder, sizeof holder) != (ssize_t)sizeof holder)
            _exit(1);
        wait_for_ever();
    }
    close(up[1]);
    if (read(up[0], &holder, sizeof holder) != (ssize_t)sizeof holder)
        pid = -1;
    close(up[0]);
    if (ret_holder)
        *ret_holder = holder;
    return pid;
}

static bool log_has(const char *event)
{
    char path[GUARD_PATH_SIZE], line[1024];
    bool found = false;
    guard_path(dir, POOL, "log", path, NULL);
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f))
        found = found || strstr(line, event);
    if (f)
        fclose(f);
    return found;
}

static void an_agent_that_does_not_give_its_permit_back_is_killed(void)
{
    int status = 0;
    CHECK_EQ(begin_life(), 0);
    pid_t pid = start_stuck_agent(NULL);
    CHECK(pid > 0);
    int64_t begin = clock_ms();
    kill(guard_pid(guard), SIGTERM);
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    int took = (int)(clock_ms() - begin);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    printf("# killed after %d ms\n", took);
    CHECK(took >= 1000 && took < 3000);
    CHECK(goes_away(guard_pid(guard)));
    CHECK(!is_used() && !lease_is_held());
}

/* Without a proof for 8N (N = 1): elsewhere this machine would be reset. */
static void safety_11_in_a_test_pool_the_reset_is_a_line_in_the_log(void)
{
    pid_t holder = 0;
    CHECK_EQ(begin_life(), 0);
    pid_t pid = start_stuck_agent(&holder);
    CHECK(pid > 0 && holder > 0);
    CHECK(!log_has(" reset_ways ") && !log_has(" no_reset ")); /* it has not even looked for one */
    int64_t begin = clock_ms();
    kill(guard_pid(guard), SIGTERM);
    waitpid(pid, NULL, 0);
    while (!log_has(" not_reset ") && clock_ms() < begin + 15000)
        usleep(20000);
    int took = (int)(clock_ms() - begin);
    printf("# given up after %d ms\n", took);
    CHECK(log_has(" stopped ")); /* at the begin, with the permit out */
    CHECK(!log_has("not_reset") || took >= 8000);
    CHECK(took < 10000);
    CHECK(is_used() && lease_is_held());
    kill(holder, SIGKILL);
    CHECK(goes_away(guard_pid(guard)));
    CHECK(!is_used() && !lease_is_held());
}

static void a_guard_started_for_a_life_that_ends_fences_at_once(void)
{
    struct guard *next = NULL;
    CHECK_EQ(begin_life(), 0);
    pid_t pid = guard_pid(guard);
    kill(pid, SIGKILL);
    CHECK(goes_away(pid));
    close_guard();
    struct guard_config config = config_of(generation);
    config.ending = true;
    int rv = guard_open(&config, &guard, NULL);
    if (rv == 0) { /* it is listened to, if it has not come and gone already */
        int state = next_state();
        CHECK(state == GUARD_STATE_FENCING || state == GUARD_STATE_PROVEN);
        guard_drained(guard, NULL);
        while ((state = next_state()) > 0)
            continue;
        CHECK_EQ(state, -EPIPE);
        close_guard();
    } else {
        CHECK_EQ(rv, LUNAR_E_FENCED);
    }
    CHECK(!is_used());
    CHECK_EQ(open_guard_of(generation, &next), LUNAR_E_FENCED);
}

static void a_second_guard_of_the_pool_says_nothing_and_goes(void)
{
    struct guard_config config;
    CHECK_EQ(begin_life(), 0);
    char command[4096 + 512];
    config = config_of(generation);
    snprintf(command, sizeof command,
             "%s --pool " POOL " --pool-id 11111111-1111-4111-8111-111111111111 --device %s "
             "--member 1048576 --host-id 1 --generation 99 --io-timeout 1 --watchdog-timeout 10 "
             "--run-dir %s --test-pool",
             program, config.device, config.run_dir);
    CHECK_EQ(system(command), 0);
    CHECK(lease_is_held());
}

/* N = 1, W = 10: the guard's own timer is up 11 s after the last renewal that it has seen. */
static void safety_11_the_timer_fences_although_the_sanlock_daemon_hangs(void)
{
    if (!guard)
        SKIP("no guard");
    pid_t pid = guard_pid(guard);
    kill(daemon_pid, SIGSTOP);
    int64_t begin = clock_ms();
    int state = next_state();
    state = state ? state : next_state();
    int took = (int)(clock_ms() - begin);
    int proven = state == GUARD_STATE_FENCING ? next_state() : 0;
    guard_drained(guard, NULL);
    struct pollfd p = {.fd = guard_fd(guard), .events = POLLIN};
    int released = poll(&p, 1, 500); /* nobody takes USED back */
    kill(daemon_pid, SIGCONT);
    printf("# fencing %d ms after sanlock was stopped\n", took);
    CHECK_EQ(state, GUARD_STATE_FENCING);
    CHECK(took > 6000 && took < 12000); /* up to a renewal, and its lag, before */
    CHECK_EQ(proven, GUARD_STATE_PROVEN);
    CHECK_EQ(released, 0);
    CHECK_EQ(next_state(), GUARD_STATE_OVER);
    CHECK(goes_away(pid));
}

static void a_sanlock_daemon_that_dies_is_the_end_of_that_life(void)
{
    if (!guard)
        SKIP("no guard");
    CHECK_EQ(begin_life(), 0);
    pid_t pid = guard_pid(guard);
    stop_daemon();
    CHECK_EQ(next_state(), GUARD_STATE_FENCING);
    CHECK_EQ(next_state(), GUARD_STATE_PROVEN);
    CHECK_EQ(guard_drained(guard, NULL), 0);
    CHECK_EQ(next_state(), GUARD_STATE_OVER);
    CHECK(goes_away(pid));
    close_guard();
}

static void a_guard_that_cannot_start_says_why(void)
{
    struct error err = ERROR_INIT;
    struct guard *none = NULL;
    if (!device[0])
        SKIP("no device");
    struct guard_config config = config_of(77);
    CHECK_EQ(guard_open(&config, &none, &err), -ECONNREFUSED); /* the daemon is dead */
    CHECK(strstr(err.text, "start it") != NULL);
    config.program = "/nonexistent/lunar-guard";
    CHECK_EQ(guard_open(&config, &none, &err), -ENOENT);
    CHECK(strstr(err.text, "cannot run /nonexistent/lunar-guard") != NULL);
    char deep[200];
    memset(deep, 'x', sizeof deep);
    deep[0] = '/';
    deep[sizeof deep - 1] = '\0';
    config.run_dir = deep;
    CHECK_EQ(guard_open(&config, &none, &err), LUNAR_E_TOO_BIG);
}

static void find_program(void)
{
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 16);
    program[n < 0 ? 0 : n] = '\0';
    char *slash = strrchr(program, '/');
    if (slash)
        strcpy(slash + 1, "lunar-guard");
}

static void the_program_lies_beside_the_test(void)
{
    find_program();
    CHECK_EQ(access(program, X_OK), 0);
}

TEST_MAIN(TEST(the_program_lies_beside_the_test),
          TEST(a_guard_is_started_and_holds_used_and_the_lease),
          TEST(a_new_agent_finds_the_same_guard), TEST(a_permit_is_of_one_life),
          TEST(another_life_is_refused_while_this_one_is_guarded),
          TEST(safety_9_used_outlives_a_guard_that_is_killed_and_the_next_one_takes_over),
          TEST(a_leave_is_refused_while_something_is_being_mapped),
          TEST(after_a_leave_nothing_is_held_and_the_same_life_can_be_guarded_again),
          TEST(safety_11_the_agents_word_fences_and_a_drained_node_is_released),
          TEST(the_next_life_removes_the_permits_of_the_former_one),
          TEST(sigterm_fences_and_an_agent_that_says_nothing_is_given_three_seconds),
          TEST(safety_11_sanlock_wakes_the_guard_and_waits_for_its_end),
          TEST(a_guard_killed_while_it_fences_is_succeeded_by_one_that_goes_on),
          TEST(an_agent_that_does_not_give_its_permit_back_is_killed),
          TEST(safety_11_in_a_test_pool_the_reset_is_a_line_in_the_log),
          TEST(a_guard_started_for_a_life_that_ends_fences_at_once),
          TEST(a_second_guard_of_the_pool_says_nothing_and_goes),
          TEST(safety_11_the_timer_fences_although_the_sanlock_daemon_hangs),
          TEST(a_sanlock_daemon_that_dies_is_the_end_of_that_life),
          TEST(a_guard_that_cannot_start_says_why))
