/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Helper programs of fencing (the sanlock command); see child.h.
 *
 * Happy path: fork, close everything but the standard descriptors, exec, collect the output until
 * the child has ended. The child dies with the thread that started it, and it inherits no socket of
 * sanlock: a helper that outlived us would otherwise hold our lease (SAFETY 1). Failure modes: no
 * program; a non-zero exit; a child that hangs (on a dead LUN it may not even die of SIGKILL),
 * which is left behind after a second because waiting for it would hang us too.
 */
#include "fencing/child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PATH_DEFAULT "/usr/sbin:/usr/bin:/sbin:/bin"
#define PATH_BYTES   4096
#define KILL_WAIT_MS 1000

struct child {
    pid_t pid;
    int pidfd;
    int out; /* read end of its standard output and error; -1 after its end */
};

static long now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000L + t.tv_nsec / 1000000;
}

static bool find_in(const char *path, const char *name, char ret[PATH_BYTES])
{
    while (path && *path) {
        size_t len = strcspn(path, ":");
        int n = snprintf(ret, PATH_BYTES, "%.*s/%s", (int)len, path, name);
        if (len > 0 && n > 0 && n < PATH_BYTES && access(ret, X_OK) == 0)
            return true;
        path += len + (path[len] == ':');
    }
    return false;
}

/* In the child, between fork and exec: only calls that are safe there. */
static void child_exec(const char *program, const char *const argv[], char *const envp[], int out,
                       pid_t parent)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) /* it died before the line above */
        _exit(127);
    int null = open("/dev/null", O_RDWR);
    dup2(null, 0);
    dup2(out, 1);
    dup2(out, 2);
    close_range(3, ~0u, 0);
    execve(program, (char *const *)(uintptr_t)argv, envp);
    _exit(127);
}

static int child_start(const char *const argv[], struct child *ret, struct error *err)
{
    char program[PATH_BYTES], run_dir[PATH_BYTES];
    if (!find_in(getenv("PATH"), argv[0], program) && !find_in(PATH_DEFAULT, argv[0], program))
        return error_set(err, LUNAR_E_NOT_FOUND, "the program '%s' is not installed", argv[0]);

    /* sanlock finds its daemon's socket by this variable; nothing else of ours is its business. */
    const char *dir = getenv("SANLOCK_RUN_DIR");
    snprintf(run_dir, sizeof run_dir, "SANLOCK_RUN_DIR=%s", dir ? dir : "");
    char path[] = "PATH=" PATH_DEFAULT, locale[] = "LC_ALL=C";
    char *envp[] = {path, locale, dir ? run_dir : NULL, NULL};

    int pipefd[2];
    if (pipe2(pipefd, O_CLOEXEC) < 0)
        return error_set(err, -errno, "cannot make a pipe: %s", strerror(errno));
    pid_t parent = getpid(), pid = fork();
    if (pid == 0)
        child_exec(program, argv, envp, pipefd[1], parent);
    int saved = errno;
    close(pipefd[1]);
    if (pid < 0) {
        close(pipefd[0]);
        return error_set(err, -saved, "cannot start %s: %s", program, strerror(saved));
    }
    *ret = (struct child){.pid = pid, .pidfd = pidfd_open(pid, 0), .out = pipefd[0]};
    return 0;
}

/* Takes what the child wrote; what does not fit is dropped, so that the child never waits for us.
 */
static void child_collect(struct child *child, char *output, size_t size, size_t *used)
{
    char chunk[4096];
    ssize_t n = read(child->out, chunk, sizeof chunk);
    if (n < 0 && errno == EINTR)
        return;
    if (n <= 0) {
        close(child->out);
        child->out = -1;
        return;
    }
    size_t keep = (size_t)n < size - 1 - *used ? (size_t)n : size - 1 - *used;
    memcpy(output + *used, chunk, keep);
    *used += keep;
    output[*used] = '\0';
}

/* True when the child has ended and all it wrote is read; false at the deadline. */
static bool child_wait(struct child *child, long deadline, char *output, size_t size)
{
    size_t used = 0;
    bool ended = false;
    output[0] = '\0';
    while (!ended || child->out >= 0) {
        long left = deadline - now_ms();
        if (left <= 0)
            return ended; /* a grandchild that keeps the pipe open does not count */
        struct pollfd p[2] = {{.fd = child->out, .events = POLLIN},
                              {.fd = ended ? -1 : child->pidfd, .events = POLLIN}};
        if (poll(p, 2, (int)left) < 0)
            continue;
        if (p[0].revents)
            child_collect(child, output, size, &used);
        if (p[1].revents)
            ended = true;
    }
    return true;
}

static const char *last_line(char *text)
{
    size_t len = strlen(text);
    while (len > 0 && text[len - 1] == '\n')
        text[--len] = '\0';
    char *newline = strrchr(text, '\n');
    return newline ? newline + 1 : text;
}

int child_run(const char *const argv[], int limit_ms, char *output, size_t size, struct error *err)
{
    struct child child;
    int rv = child_start(argv, &child, err);
    if (rv < 0)
        return rv;

    int status = 0;
    bool ended = child_wait(&child, now_ms() + limit_ms, output, size);
    if (!ended) {
        kill(child.pid, SIGKILL);
        struct pollfd p = {.fd = child.pidfd, .events = POLLIN};
        poll(&p, 1, KILL_WAIT_MS);
    }
    waitpid(child.pid, &status, ended ? 0 : WNOHANG);
    close(child.pidfd);
    if (child.out >= 0)
        close(child.out);

    if (!ended)
        return error_set(err, LUNAR_E_INDETERMINATE, "%s %s did not end within %d s", argv[0],
                         argv[1], limit_ms / 1000);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return error_set(err, LUNAR_E_EXEC, "%s %s %s failed: %s", argv[0], argv[1], argv[2],
                         *output ? last_line(output) : "it said nothing");
    return 0;
}
