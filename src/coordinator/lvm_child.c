/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One child process: fork, exec, collect both outputs until it ends or its time is over.
 *
 * Happy path: the child asks for SIGKILL at our death, looks whether we died before it asked, gets
 * its three standard descriptors and nothing else, and execs. We poll the two pipes and a pidfd;
 * when the pidfd turns readable the pipes are drained without waiting (a grandchild could hold them
 * open) and the child is reaped. Failure modes: the program cannot be run: it says so on its
 * standard error and exits 127. Time over: SIGKILL and a grace; a child that sits in an
 * uninterruptible I/O even then is reported as stuck and never waited for here.
 */
#include "coordinator/lvm_child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "coordinator/mem.h"

/* A killed process ends in milliseconds unless the kernel holds it in an I/O; then seconds more
 * change nothing. */
#define CHILD_KILL_GRACE_MS 2000
#define CHILD_EXIT_NOT_RUN  127

struct stream {
    int fd; /* -1: ended */
    char *data;
    size_t len, room, max;
    bool cut;
};

struct pipes {
    int out[2], err[2];
};

static int64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void stream_end(struct stream *s)
{
    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
}

static void stream_add(struct stream *s, const char *bytes, size_t n)
{
    if (n > s->max - s->len) {
        n = s->max - s->len;
        s->cut = true;
    }
    if (s->len + n + 1 > s->room) {
        s->room = 2 * (s->len + n + 1);
        s->data = mem_must(realloc(s->data, s->room));
    }
    memcpy(s->data + s->len, bytes, n);
    s->len += n;
    s->data[s->len] = 0;
}

/* Takes what is there now; the descriptor does not block. */
static void stream_drain(struct stream *s)
{
    char bytes[65536];
    while (s->fd >= 0) {
        ssize_t n = read(s->fd, bytes, sizeof bytes);
        if (n > 0)
            stream_add(s, bytes, (size_t)n);
        else if (n == 0 || (errno != EINTR && errno != EAGAIN))
            stream_end(s);
        else if (errno == EAGAIN)
            return;
    }
}

/* Between fork and exec: async-signal-safe calls alone, because the process has other threads. */
__attribute__((noreturn)) static void child_exec(const struct lvm_child_config *config,
                                                 pid_t parent, const struct pipes *pipes)
{
    static const char sentence[] = "cannot run the program\n";
    sigset_t none;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(CHILD_EXIT_NOT_RUN);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    int in = config->stdin_fd >= 0 ? config->stdin_fd : open("/dev/null", O_RDONLY);
    /* First above the standard three, so that no dup2 below overwrites what a later one needs. */
    in = fcntl(in, F_DUPFD, 3);
    int out = fcntl(pipes->out[1], F_DUPFD, 3);
    int err = fcntl(pipes->err[1], F_DUPFD, 3);
    if (dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0 || close_range(3, ~0u, 0) < 0)
        _exit(CHILD_EXIT_NOT_RUN);
    execve(config->path, config->argv, config->envp);
    ssize_t ignored = write(2, sentence, sizeof sentence - 1);
    (void)ignored;
    _exit(CHILD_EXIT_NOT_RUN);
}

static int pipes_open(struct pipes *p)
{
    if (pipe2(p->out, O_CLOEXEC) < 0)
        return -errno;
    if (pipe2(p->err, O_CLOEXEC) < 0) {
        int code = -errno;
        close(p->out[0]);
        close(p->out[1]);
        return code;
    }
    return 0;
}

/* Until the child has ended (true) or the deadline is past (false). */
static bool child_collect(int pidfd, struct stream *out, struct stream *err, int64_t deadline_ms)
{
    for (;;) {
        int64_t left = deadline_ms - now_ms();
        struct pollfd fds[3] = {{.fd = out->fd, .events = POLLIN},
                                {.fd = err->fd, .events = POLLIN},
                                {.fd = pidfd, .events = POLLIN}};
        int n = poll(fds, 3, left > 0 ? (int)left : 0);
        if (n < 0 && errno != EINTR)
            return false;
        if (n > 0) {
            stream_drain(out);
            stream_drain(err);
            if (fds[2].revents)
                return true;
        }
        if (left <= 0)
            return false;
    }
}

static int child_watch(const struct lvm_child_config *config, pid_t pid, struct stream *out,
                       struct stream *err, int *ret_status, pid_t *ret_stuck, struct error *error)
{
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    bool ended = pidfd >= 0 && child_collect(pidfd, out, err, now_ms() + config->timeout_ms);
    bool killed = !ended;

    if (killed) {
        kill(pid, SIGKILL); /* ours and not reaped: the pid cannot belong to anybody else */
        ended = pidfd >= 0 && child_collect(pidfd, out, err, now_ms() + CHILD_KILL_GRACE_MS);
    }
    if (pidfd >= 0)
        close(pidfd);
    if (!ended) {
        *ret_stuck = pid;
        return error_set(error, LUNAR_E_INDETERMINATE,
                         "%s (pid %d) did not end in %d ms and does not even die: its I/O hangs",
                         config->path, (int)pid, config->timeout_ms);
    }
    while (waitpid(pid, ret_status, 0) < 0 && errno == EINTR)
        ;
    if (killed)
        return error_set(error, LUNAR_E_INDETERMINATE, "%s did not end in %d ms and was killed",
                         config->path, config->timeout_ms);
    return 0;
}

int lvm_child_run(const struct lvm_child_config *config, struct lvm_child_output *ret,
                  pid_t *ret_stuck, struct error *err)
{
    struct pipes pipes;
    memset(ret, 0, sizeof *ret);
    *ret_stuck = 0;
    int rc = pipes_open(&pipes);
    if (rc < 0)
        return error_set(err, LUNAR_E_EXEC, "cannot make pipes for %s: %s", config->path,
                         strerror(-rc));

    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid == 0)
        child_exec(config, parent, &pipes);
    int fork_errno = errno;
    close(pipes.out[1]);
    close(pipes.err[1]);
    struct stream out = {.fd = pipes.out[0], .max = config->out_max};
    struct stream errs = {.fd = pipes.err[0], .max = config->err_max};
    fcntl(out.fd, F_SETFL, O_NONBLOCK);
    fcntl(errs.fd, F_SETFL, O_NONBLOCK);
    stream_add(&out, "", 0);
    stream_add(&errs, "", 0);
    if (pid < 0)
        rc = error_set(err, LUNAR_E_EXEC, "cannot fork for %s: %s", config->path,
                       strerror(fork_errno));
    else
        rc = child_watch(config, pid, &out, &errs, &ret->wait_status, ret_stuck, err);
    stream_end(&out);
    stream_end(&errs);
    ret->out = out.data;
    ret->out_len = out.len;
    ret->out_cut = out.cut;
    ret->err = errs.data;
    ret->err_len = errs.len;
    return rc;
}

void lvm_child_output_free(struct lvm_child_output *output)
{
    free(output->out);
    free(output->err);
    memset(output, 0, sizeof *output);
}
