/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent's end of its guard: finding or starting lunar-guard, hearing from it, telling it; see
 * guard.h.
 *
 * Happy path of guard_open: nobody listens on the socket, so the program is started in a session of
 * its own, with nothing of ours but a pipe for its first words; it says on the socket that it is
 * GUARDING. After a restart of the agent the socket answers at once. Failure modes: the program
 * cannot be started or gives up: its sentence comes through the pipe; the guard of another
 * generation answers: refused unless it is over; it is fencing already: LUNAR_E_FENCED; it says
 * nothing for OPEN_LIMIT_MS: an error that points at its log. A guard that goes away without OVER
 * was killed, and guard_open starts the next one.
 */
#include "fencing/guard.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/helper.h"
#include "fencing/guard_wire.h"

/* The guard itself tries for 30 s to get its lease from a crowd (guard_lease.c). */
#define OPEN_LIMIT_MS 40000
/* Two short calls to sanlock's daemon, which takes its time while it does I/O. */
#define LEAVE_LIMIT_MS 20000
#define RETRY_MS       100

struct guard {
    int fd;
    struct guard_answer last;
    bool unread; /* `last` was not yet told by guard_read */
};

/* --- the connection --- */

/* The descriptor, or -ENOENT or -ECONNREFUSED if nobody listens, or another error. */
static int connect_to(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    int saved = errno;
    close(fd);
    return -saved;
}

static int send_request(const struct guard *guard, uint32_t type, const char *reason,
                        struct error *err)
{
    struct guard_request request = {.magic = GUARD_WIRE_MAGIC, .type = type};
    snprintf(request.reason, sizeof request.reason, "%s", reason);
    if (send(guard->fd, &request, sizeof request, MSG_NOSIGNAL) == (ssize_t)sizeof request)
        return 0;
    int saved = errno;
    return error_set(err, -saved, "cannot tell the guard: %s", strerror(saved));
}

/* 1: guard->last is new; 0: nothing there; -EPIPE: it has gone. */
static int receive(struct guard *guard, struct error *err)
{
    struct guard_answer answer;
    ssize_t n = recv(guard->fd, &answer, sizeof answer, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n <= 0)
        return error_set(err, -EPIPE, "the guard has gone");
    if (n != (ssize_t)sizeof answer || answer.magic != GUARD_WIRE_MAGIC)
        return error_set(err, LUNAR_E_VERSION,
                         "the guard that runs is of another build of lunar: leave the pool with "
                         "the old agent, then start the new one");
    answer.reason[sizeof answer.reason - 1] = '\0';
    guard->last = answer;
    guard->unread = true;
    return 1;
}

/* The same, waiting until `deadline`; LUNAR_E_TIMEOUT. */
static int receive_until(struct guard *guard, int64_t deadline, struct error *err)
{
    for (;;) {
        struct pollfd p = {.fd = guard->fd, .events = POLLIN};
        int rv = receive(guard, err);
        if (rv != 0)
            return rv;
        if (clock_left(deadline) == 0)
            return error_set(err, LUNAR_E_TIMEOUT,
                             "the guard does not answer (it is %s): see its log in the run "
                             "directory, and sanlock's",
                             guard_state_name((enum guard_state)guard->last.state));
        poll(&p, 1, clock_left(deadline));
    }
}

/* --- starting the program --- */

struct launch {
    char path[4096];
    char device[1100], pool_id[64], host_id[32], generation[32], member[32], n[16], w[16];
    const char *argv[32];
};

static void find_program(const struct guard_config *config, char ret[4096])
{
    if (config->program) {
        snprintf(ret, 4096, "%s", config->program);
        return;
    }
    ssize_t n = readlink("/proc/self/exe", ret, 4000);
    ret[n < 0 ? 0 : n] = '\0';
    char *slash = strrchr(ret, '/');
    if (slash)
        strcpy(slash + 1, "lunar-guard");
    if (!slash || access(ret, X_OK) < 0)
        strcpy(ret, "lunar-guard"); /* execvp looks in PATH */
}

static void fill_launch(const struct guard_config *c, struct launch *l)
{
    const struct superblock *sb = c->superblock;
    char id[UUID_TEXT_SIZE];
    uint32_t n = 0;
    find_program(c, l->path);
    snprintf(l->pool_id, sizeof l->pool_id, "--pool-id=%s", uuid_format(&sb->pool_id, id));
    snprintf(l->device, sizeof l->device, "--device=%s", c->device);
    snprintf(l->host_id, sizeof l->host_id, "--host-id=%" PRIu32, c->host_id);
    snprintf(l->generation, sizeof l->generation, "--generation=%" PRIu64, c->generation);
    snprintf(l->member, sizeof l->member, "--member=%" PRIu64,
             layout_resource(&sb->layout, LAYOUT_RESOURCE_MEMBER));
    snprintf(l->n, sizeof l->n, "%" PRIu32, sb->io_timeout_s);
    snprintf(l->w, sizeof l->w, "%" PRIu32, sb->watchdog_fire_timeout_s);
    const char *const argv[] = {
        l->path,        "--pool",  c->pool_name,         "--run-dir",   c->run_dir,
        l->pool_id,     l->device, l->host_id,           l->generation, l->member,
        "--io-timeout", l->n,      "--watchdog-timeout", l->w,          "--started"};
    for (; n < sizeof argv / sizeof *argv; n++)
        l->argv[n] = argv[n];
    if (sb->flags & SUPERBLOCK_FLAG_TEST)
        l->argv[n++] = "--test-pool";
    if (c->ending)
        l->argv[n++] = "--fence";
    l->argv[n] = NULL;
}

/* In the child: system calls only. Never returns. */
static void become_guard(const struct launch *launch, int pipe_fd)
{
    setsid();
    if (fork() != 0) /* init's child: neither ours to reap nor to lose */
        _exit(0);
    helper_isolate(&pipe_fd, 1); /* it is 3 now, all else is closed: sanlock's sockets above all */
    dup2(3, 1);
    close(3);
    if (chdir("/") < 0)
        _exit(126);
    execvp(launch->argv[0], (char *const *)(uintptr_t)launch->argv);
    dprintf(1, "%d\tcannot run %s: error %d; install it beside this program or in PATH\n", -errno,
            launch->argv[0], errno);
    _exit(127);
}

/* What it says until it closes the pipe: nothing, or "CODE\tSENTENCE\n". */
static int read_first_words(int fd, int64_t deadline, struct error *err)
{
    char text[1100];
    size_t len = 0;
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int ready = poll(&p, 1, clock_left(deadline));
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready <= 0)
            return error_set(err, LUNAR_E_TIMEOUT,
                             "lunar-guard neither guards nor gives up; see its log in the run "
                             "directory, and sanlock's");
        ssize_t n = read(fd, text + len, sizeof text - 1 - len);
        if (n <= 0)
            break;
        len += (size_t)n;
    }
    text[len] = '\0';
    char *tab = strchr(text, '\t'), *end = strchr(text, '\n');
    int code = atoi(text);
    if (!tab || code >= 0)
        return 0;
    if (end)
        *end = '\0';
    return error_set(err, code, "%s", tab + 1);
}

static int start_program(const struct guard_config *config, int64_t deadline, struct error *err)
{
    int pipe_fds[2];
    struct launch *launch = calloc(1, sizeof *launch);
    if (!launch)
        abort();
    fill_launch(config, launch);
    if (pipe2(pipe_fds, O_CLOEXEC) < 0) {
        free(launch);
        return error_set(err, -errno, "cannot make a pipe: %s", strerror(errno));
    }
    pid_t pid = fork();
    if (pid == 0)
        become_guard(launch, pipe_fds[1]);
    int saved = errno;
    close(pipe_fds[1]);
    free(launch);
    int rv = pid < 0 ? error_set(err, -saved, "cannot fork: %s", strerror(saved)) : 0;
    while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
    if (rv == 0)
        rv = read_first_words(pipe_fds[0], deadline, err);
    close(pipe_fds[0]);
    return rv;
}

/* --- open --- */

static int refuse_other(const struct guard *guard, const struct guard_config *config,
                        struct error *err)
{
    const struct guard_answer *a = &guard->last;
    return error_set(err, LUNAR_E_ALIVE,
                     "the guard of host id %" PRIu32 ", generation %" PRIu64
                     " is %s still; this life is %" PRIu32 ", %" PRIu64 "%s%s",
                     a->host_id, a->generation, guard_state_name((enum guard_state)a->state),
                     config->host_id, config->generation, a->reason[0] ? ": " : "", a->reason);
}

/* 1: it guards us; 0: it is over or has gone, start another one; or an error. */
static int wait_guarding(struct guard *guard, const struct guard_config *config, int64_t deadline,
                         struct error *err)
{
    struct guard_request hello = {.magic = GUARD_WIRE_MAGIC,
                                  .type = GUARD_REQUEST_HELLO,
                                  .host_id = config->host_id,
                                  .generation = config->generation};
    if (send(guard->fd, &hello, sizeof hello, MSG_NOSIGNAL) != (ssize_t)sizeof hello)
        return 0; /* it is just going */
    int rv = 0;
    while (rv == 0) {
        rv = receive_until(guard, deadline, err);
        if (rv <= 0)
            break;
        const struct guard_answer *a = &guard->last;
        if (a->state == GUARD_STATE_OVER)
            return 0;
        if (a->host_id != config->host_id || a->generation != config->generation)
            return refuse_other(guard, config, err);
        if (a->state == GUARD_STATE_GUARDING ||
            (config->ending && a->state != GUARD_STATE_STARTING))
            return 1;
        rv = a->state == GUARD_STATE_STARTING
                 ? 0
                 : error_set(err, LUNAR_E_FENCED, "the guard of this generation is %s: %s",
                             guard_state_name((enum guard_state)a->state), a->reason);
    }
    return rv == -EPIPE || rv == -ECONNRESET ? 0 : rv;
}

static int try_open(struct guard *guard, const struct guard_config *config, const char *path,
                    int64_t deadline, struct error *err)
{
    guard->fd = connect_to(path);
    if (guard->fd == -ENOENT || guard->fd == -ECONNREFUSED) {
        int rv = start_program(config, deadline, err);
        if (rv < 0)
            return rv;
        guard->fd = connect_to(path);
    }
    if (guard->fd < 0)
        return guard->fd == -ENOENT || guard->fd == -ECONNREFUSED || guard->fd == -EAGAIN
                   ? 0
                   : error_set(err, guard->fd, "cannot connect to the guard's socket %s: %s", path,
                               strerror(-guard->fd));
    int rv = wait_guarding(guard, config, deadline, err);
    if (rv != 1)
        close(guard->fd);
    return rv;
}

int guard_open(const struct guard_config *config, struct guard **ret, struct error *err)
{
    char path[GUARD_PATH_SIZE];
    int64_t deadline = clock_ms() + OPEN_LIMIT_MS;
    int rv = guard_path(config->run_dir, config->pool_name, "sock", path, err);
    if (rv < 0)
        return rv;
    struct guard *guard = calloc(1, sizeof *guard);
    if (!guard)
        abort();
    while (rv == 0) {
        rv = try_open(guard, config, path, deadline, err);
        if (rv == 0 && clock_left(deadline) == 0)
            rv = error_set(err, LUNAR_E_TIMEOUT,
                           "the guard came and went for %d s; see its log in %s",
                           OPEN_LIMIT_MS / 1000, config->run_dir);
        if (rv == 0)
            poll(NULL, 0, RETRY_MS);
    }
    if (rv < 0) {
        free(guard);
        return rv;
    }
    guard->unread = guard->last.state != GUARD_STATE_GUARDING; /* which the caller knows */
    *ret = guard;
    return 0;
}

/* --- afterwards --- */

int guard_fd(const struct guard *guard)
{
    return guard->fd;
}

int guard_read(struct guard *guard, enum guard_state *ret_state, char ret_reason[GUARD_REASON_SIZE],
               struct error *err)
{
    int rv = guard->unread ? 1 : receive(guard, err);
    if (rv <= 0)
        return rv;
    guard->unread = false;
    *ret_state = (enum guard_state)guard->last.state;
    memcpy(ret_reason, guard->last.reason, GUARD_REASON_SIZE);
    return 1;
}

int guard_fence(struct guard *guard, const char *reason, struct error *err)
{
    return send_request(guard, GUARD_REQUEST_FENCE, reason, err);
}

int guard_drained(struct guard *guard, struct error *err)
{
    return send_request(guard, GUARD_REQUEST_DRAINED, "", err);
}

/* 1: over; 0: not yet; or why not. */
static int left(struct guard *guard, struct error *err)
{
    const struct guard_answer *a = &guard->last;
    switch (a->state) {
    case GUARD_STATE_OVER:
        return 1;
    case GUARD_STATE_FENCING:
    case GUARD_STATE_PROVEN:
        return error_set(err, LUNAR_E_FENCED, "the guard is fencing this node off: %s", a->reason);
    default:
        guard->unread = false; /* no news: what every guard says when it is asked */
        return !a->refused ? 0
                           : error_set(err, LUNAR_E_IN_USE, "the node cannot leave: %s", a->reason);
    }
}

int guard_leave(struct guard *guard, struct error *err)
{
    int64_t deadline = clock_ms() + LEAVE_LIMIT_MS;
    int rv = send_request(guard, GUARD_REQUEST_LEAVE, "", err);
    while (rv == 0) {
        rv = receive_until(guard, deadline, err);
        if (rv == 1)
            rv = left(guard, err);
    }
    if (rv < 0)
        return rv;
    /* Until the process is gone its socket could still be found by the next guard_open. */
    do
        rv = receive_until(guard, deadline, NULL);
    while (rv >= 0);
    guard_close(guard);
    return 0;
}

void guard_close(struct guard *guard)
{
    close(guard->fd);
    free(guard);
}
