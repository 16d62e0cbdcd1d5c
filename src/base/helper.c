/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Children with a deadline. Happy path: fork, isolate, exec; the parent polls the child's pidfd and
 * its output until both have ended, then reaps it. Failure modes: the program is missing or fails:
 * LUNAR_E_EXEC with what it said; the deadline passes: SIGKILL, a second to die,
 * LUNAR_E_INDETERMINATE whether it died or not; the parent dies: PDEATHSIG kills the child, and a
 * parent that died before PDEATHSIG was set is noticed by getppid.
 */
#include "base/helper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* How long a killed child may take to disappear before it is left to itself; one that is not stuck
 * takes milliseconds. */
#define KILL_WAIT_MS 1000

void helper_isolate(const int *keep, unsigned n)
{
    int high[HELPER_KEEP_MAX];
    sigset_t none;

    for (int i = 1; i < NSIG; i++)
        signal(i, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    /* Out of each other's way first: one may stand where another is to go. */
    for (unsigned i = 0; i < n; i++)
        high[i] = fcntl(keep[i], F_DUPFD, 3 + (int)n);
    for (unsigned i = 0; i < n; i++)
        dup2(high[i], 3 + (int)i); /* and without close-on-exec */
    close_range(3 + n, ~0U, 0);
}

int helper_wait_pidfd(int pidfd, int deadline_ms)
{
    struct pollfd p = {.fd = pidfd, .events = POLLIN};
    int64_t deadline = clock_ms() + deadline_ms;
    siginfo_t info;
    int n;

    do
        n = poll(&p, 1, clock_left(deadline));
    while (n < 0 && errno == EINTR);
    if (n <= 0)
        return LUNAR_E_TIMEOUT;
    waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED | WNOHANG); /* ECHILD: not ours, init reaps it */
    return 0;
}

struct child {
    pid_t pid;
    int pidfd;
    int out; /* read end of its output, -1 once closed */
};

#define PATH_DEFAULT "/usr/sbin:/usr/bin:/sbin:/bin"
#define PATH_BYTES   4096
#define ENV_MAX      256 /* variables passed on; more are dropped */

/* What an exec needs, found before the fork: after it only system calls are safe. */
struct program {
    char path[PATH_BYTES];
    char *env[ENV_MAX];
};

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

static int program_find(const char *name, struct program *ret, struct error *err)
{
    static char locale[] = "LC_ALL=C";
    size_t n = 0;

    ret->env[n++] = locale;
    for (char **e = environ; *e && n + 1 < ENV_MAX; e++)
        if (strncmp(*e, "LC_ALL=", 7) != 0)
            ret->env[n++] = *e;
    ret->env[n] = NULL;
    if (find_in(getenv("PATH"), name, ret->path) || find_in(PATH_DEFAULT, name, ret->path))
        return 0;
    return error_set(err, LUNAR_E_NOT_FOUND, "the program '%s' is not installed", name);
}

/* The child's side up to exec. `parent` tells a parent that died before PDEATHSIG was in place. */
static void child_enter(int out, pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(127);
    int null = open("/dev/null", O_RDONLY);
    dup2(null, 0);
    dup2(out, 1);
    dup2(out, 2);
    helper_isolate(NULL, 0);
}

/* Runs `program` with argv, or `call` with `path`. */
static int child_start(struct child *ret, const struct program *program, const char *const *argv,
                       int (*call)(const char *), const char *path, struct error *err)
{
    int out[2];
    pid_t parent = getpid();

    if (pipe2(out, O_CLOEXEC) < 0)
        return error_set(err, -errno, "cannot make a pipe: %s", strerror(errno));
    ret->pid = fork();
    if (ret->pid == 0) {
        child_enter(out[1], parent);
        if (call)
            _exit(-call(path) & 0xff);
        execve(program->path, (char *const *)(uintptr_t)argv, program->env);
        dprintf(2, "cannot run %s: %s", program->path, strerror(errno));
        _exit(127);
    }
    int code = errno;
    close(out[1]);
    ret->out = out[0];
    ret->pidfd = ret->pid > 0 ? pidfd_open(ret->pid, 0) : -1;
    if (ret->pidfd >= 0)
        return 0;
    close(out[0]);
    if (ret->pid > 0) {
        code = errno;
        kill(ret->pid, SIGKILL);
        waitpid(ret->pid, NULL, 0);
    }
    return error_set(err, -code, "cannot start a child process: %s", strerror(code));
}

/* Takes what the pipe holds; the bytes that do not fit are dropped. */
static void child_read(struct child *child, char *output, size_t size, size_t *len)
{
    char buffer[4096];
    ssize_t n = read(child->out, buffer, sizeof buffer);

    if (n <= 0) {
        if (n == 0 || errno != EINTR) {
            close(child->out);
            child->out = -1;
        }
        return;
    }
    size_t room = size - 1 - *len;
    size_t take = (size_t)n < room ? (size_t)n : room;
    memcpy(output + *len, buffer, take);
    *len += take;
}

/* Until it has exited and its output is drained: 0 and the wait status, or LUNAR_E_INDETERMINATE
 * after the kill. A grandchild that keeps the pipe open does not hold us: after the exit only what
 * is there already is read. */
static int child_finish(struct child *child, int64_t deadline, char *output, size_t size,
                        int *ret_status)
{
    size_t len = 0;
    bool gone = false;

    while (!gone || child->out >= 0) {
        struct pollfd p[2] = {{.fd = gone ? -1 : child->pidfd, .events = POLLIN},
                              {.fd = child->out, .events = POLLIN}};
        int n = poll(p, 2, gone ? 0 : clock_left(deadline));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        if (p[1].revents)
            child_read(child, output, size, &len);
        gone |= p[0].revents != 0;
    }
    output[len] = '\0';
    if (gone)
        return waitpid(child->pid, ret_status, 0) == child->pid ? 0 : LUNAR_E_INDETERMINATE;
    kill(child->pid, SIGKILL);
    helper_wait_pidfd(child->pidfd, KILL_WAIT_MS);
    return LUNAR_E_INDETERMINATE;
}

static void child_close(struct child *child)
{
    if (child->out >= 0)
        close(child->out);
    close(child->pidfd);
}

/* Puts a program's words on one line, cut, for a sentence. */
static const char *last_words(char *output)
{
    for (char *p = output; *p; p++)
        if ((unsigned char)*p < ' ')
            *p = ' ';
    size_t len = strlen(output);
    while (len > 0 && output[len - 1] == ' ')
        output[--len] = '\0';
    return len > 400 ? output + len - 400 : output;
}

int helper_run(const char *const *argv, int deadline_ms, char *output, size_t output_size,
               struct error *err)
{
    char own[2048];
    struct child child;
    int64_t deadline = clock_ms() + deadline_ms;
    int status = 0;

    if (!output) {
        output = own;
        output_size = sizeof own;
    }
    struct program *program = malloc(sizeof *program);
    if (!program)
        abort();
    int rc = program_find(argv[0], program, err);
    if (rc == 0)
        rc = child_start(&child, program, argv, NULL, NULL, err);
    free(program);
    if (rc < 0)
        return rc;
    rc = child_finish(&child, deadline, output, output_size, &status);
    child_close(&child);
    if (rc < 0)
        return error_set(err, rc,
                         "%s did not end within %d ms and was killed: look at the node's "
                         "storage, then try again",
                         argv[0], deadline_ms);
    if (WIFSIGNALED(status))
        return error_set(err, LUNAR_E_EXEC, "%s was killed by signal %d: %s", argv[0],
                         WTERMSIG(status), last_words(output));
    if (WEXITSTATUS(status) != 0)
        return error_set(err, LUNAR_E_EXEC, "%s failed with code %d: %s", argv[0],
                         WEXITSTATUS(status), last_words(output));
    return 0;
}

int helper_call(int (*call)(const char *path), const char *path, int deadline_ms, struct error *err)
{
    char output[256];
    struct child child;
    int64_t deadline = clock_ms() + deadline_ms;
    int status = 0;

    int rc = child_start(&child, NULL, NULL, call, path, err);
    if (rc < 0)
        return rc;
    rc = child_finish(&child, deadline, output, sizeof output, &status);
    child_close(&child);
    if (rc < 0 || WIFSIGNALED(status))
        return error_set(err, LUNAR_E_INDETERMINATE,
                         "the kernel did not finish with %s within %d ms", path, deadline_ms);
    if (WEXITSTATUS(status) != 0)
        return error_set(err, -WEXITSTATUS(status), "%s: %s", path, strerror(WEXITSTATUS(status)));
    return 0;
}
