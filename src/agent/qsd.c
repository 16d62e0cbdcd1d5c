/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a qemu-storage-daemon. Happy path: two listening sockets are made in the run folder
 * and inherited as descriptors 3 and 4, one for commands, one for events (a monitor serves one
 * client at a time); the child, in a session of its own, writes its pid and start time to
 * qsd.process *before* it execs, so that no daemon runs unknown to the next agent; the graph is
 * built over QMP; on stop the export goes first, then `quit`.
 *
 * Failure modes: the program is missing or dies at once: its log's last words are in the error; a
 * graph that cannot be built: the daemon is killed, nothing was exported; it does not end: SIGKILL,
 * which loses nothing, because the export answers writes only when they are on the LUN; the kernel
 * does not let it die (a hung LUN): LUNAR_E_INDETERMINATE, and the volume stays claimed. The agent
 * dies: the daemon lives on, nothing ties it to us but the pid file.
 *
 * TMPDIR is the run folder, because QEMU keeps its log of requests in flight as
 * TMPDIR/vduse-blk-NAME (measured on 10.0.13): a successor needs it to answer what its predecessor
 * had taken, so it must outlive containers and cleaners of /tmp, and a log of a former disk must
 * not be replayed into a new one.
 */
#include "agent/qsd.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/helper.h"
#include "agent/qsd_graph.h"
#include "base/log.h"

#define QMP_OPEN_DEADLINE_MS 20000 /* covers the daemon's start on a busy node; 60 ms is usual */
#define STOP_DEADLINE_MS     20000
#define KILL_DEADLINE_MS     10000
#define SERIAL_MAX           20 /* virtio-blk's, and VDUSE names fit too */

static void path_in(const struct qsd_config *config, const char *file, char *ret, size_t size)
{
    snprintf(ret, size, "%s/%s", config->run_dir, file);
}

void qsd_socket_path(const struct qsd_config *config, char *ret, size_t size)
{
    path_in(config, "qmp.sock", ret, size);
}

void qsd_events_path(const struct qsd_config *config, char *ret, size_t size)
{
    path_in(config, "events.sock", ret, size);
}

static void inflight_log_path(const struct qsd_config *config, char *ret, size_t size)
{
    snprintf(ret, size, "%s/vduse-blk-%s", config->run_dir, config->name);
}

/* ---- who runs ---- */

/* Field 22 of a stat line, the start time in ticks since boot; 0 if it is none. The command name
 * may hold anything, so the count begins behind its last parenthesis, at field 3. */
static uint64_t stat_start_time(const char *line)
{
    const char *p = strrchr(line, ')');

    for (int field = 2; p && field < 22; field++) {
        p = strchr(p, ' ');
        if (p)
            p++;
    }
    return p ? strtoull(p, NULL, 10) : 0;
}

static ssize_t read_file(const char *path, char *buffer, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    ssize_t n = read(fd, buffer, size - 1);
    close(fd);
    if (n < 0)
        return -errno;
    buffer[n] = '\0';
    return n;
}

static uint64_t process_start_time(pid_t pid)
{
    char path[64], line[1024];

    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    return read_file(path, line, sizeof line) > 0 ? stat_start_time(line) : 0;
}

bool qsd_alive(const struct qsd *qsd)
{
    struct pollfd p = {.fd = qsd->pidfd, .events = POLLIN};

    return qsd->pidfd >= 0 && poll(&p, 1, 0) == 0;
}

/* The pidfd is opened before the start time is compared: a pid that is reused in between is then
 * noticed. */
int qsd_adopt(const struct qsd_config *config, struct qsd *ret, struct error *err)
{
    char path[512], line[1024];

    *ret = (struct qsd){.pidfd = -1};
    path_in(config, "qsd.process", path, sizeof path);
    if (read_file(path, line, sizeof line) <= 0)
        return error_set(err, LUNAR_E_NOT_FOUND, "no daemon was started for %s", config->name);
    pid_t pid = (pid_t)strtol(line, NULL, 10);
    uint64_t start_time = stat_start_time(line);
    int pidfd = pid > 1 && start_time > 0 ? pidfd_open(pid, 0) : -1;
    *ret = (struct qsd){.pid = pid, .start_time = start_time, .pidfd = pidfd};
    if (pidfd >= 0 && process_start_time(pid) == start_time && qsd_alive(ret))
        return 0;
    if (pidfd >= 0)
        close(pidfd);
    *ret = (struct qsd){.pidfd = -1};
    return error_set(err, LUNAR_E_NOT_FOUND, "the daemon of %s is gone", config->name);
}

/* ---- start ---- */

static int listen_on(const char *path, struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof address.sun_path)
        return error_set(err, LUNAR_E_INVALID, "the socket path %s is longer than %zu bytes", path,
                         sizeof address.sun_path - 1);
    memcpy(address.sun_path, path, strlen(path) + 1);
    unlink(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && bind(fd, (const struct sockaddr *)&address, sizeof address) == 0 &&
        chmod(path, 0600) == 0 && listen(fd, 4) == 0)
        return fd;
    int code = errno;
    if (fd >= 0)
        close(fd);
    return error_set(err, -code, "cannot listen on %s: %s", path, strerror(code));
}

/* Copies this process's stat line, pid and start time in it, to the pid file. System calls only:
 * the parent has threads. */
static bool child_write_pid(const char *path)
{
    char line[1024];
    int in = open("/proc/self/stat", O_RDONLY);
    int out = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    if (in < 0 || out < 0)
        return false;
    ssize_t n = read(in, line, sizeof line);
    return n > 0 && write(out, line, (size_t)n) == n;
}

static const char *const program[] = {"qemu-storage-daemon",
                                      "--chardev",
                                      "socket,id=qmp,fd=3,server=on,wait=off",
                                      "--chardev",
                                      "socket,id=events,fd=4,server=on,wait=off",
                                      "--monitor",
                                      "chardev=qmp",
                                      "--monitor",
                                      "chardev=events",
                                      NULL};

struct launch {
    char pid_path[512], log_path[512];
    char tmpdir[512]; /* "TMPDIR=..." */
    char **environment;
    int listen_fds[2];
    pid_t dies_with; /* 0: it outlives us */
};

static void child_exec(const struct launch *launch)
{
    setsid();
    if (launch->dies_with) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != launch->dies_with)
            _exit(127);
    }
    int null = open("/dev/null", O_RDONLY);
    int out = open(launch->log_path, O_WRONLY | O_CREAT | O_APPEND, 0600);
    dup2(null, 0);
    dup2(out >= 0 ? out : null, 1);
    dup2(out >= 0 ? out : null, 2);
    if (!child_write_pid(launch->pid_path))
        _exit(127);
    helper_isolate(launch->listen_fds, 2);
    execvpe(program[0], (char *const *)(uintptr_t)program, launch->environment);
    dprintf(2, "cannot run %s: %s\n", program[0], strerror(errno));
    _exit(127);
}

/* The environment of the agent with TMPDIR replaced; the array alone is allocated. */
static char **environment_with(char *tmpdir)
{
    size_t n = 0, kept = 0;

    while (environ[n])
        n++;
    char **copy = calloc(n + 2, sizeof *copy);
    if (!copy)
        abort();
    for (size_t i = 0; i < n; i++)
        if (strncmp(environ[i], "TMPDIR=", 7) != 0)
            copy[kept++] = environ[i];
    copy[kept] = tmpdir;
    return copy;
}

static int launch_run(struct launch *launch, struct qsd *ret, struct error *err)
{
    pid_t pid = fork();

    if (pid < 0)
        return error_set(err, -errno, "cannot fork: %s", strerror(errno));
    if (pid == 0)
        child_exec(launch);
    ret->pid = pid;
    ret->pidfd = pidfd_open(pid, 0);
    ret->start_time = process_start_time(pid);
    if (ret->pidfd >= 0)
        return 0;
    int code = errno;
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    return error_set(err, -code, "cannot watch the daemon: %s", strerror(code));
}

static int launch_daemon(const struct qsd_config *config, const char *socket_path, struct qsd *ret,
                         struct error *err)
{
    struct launch launch;
    char events_path[512];

    path_in(config, "qsd.process", launch.pid_path, sizeof launch.pid_path);
    path_in(config, "qsd.log", launch.log_path, sizeof launch.log_path);
    snprintf(launch.tmpdir, sizeof launch.tmpdir, "TMPDIR=%s", config->run_dir);
    qsd_events_path(config, events_path, sizeof events_path);
    launch.listen_fds[0] = listen_on(socket_path, err);
    if (launch.listen_fds[0] < 0)
        return launch.listen_fds[0];
    int rc = launch.listen_fds[1] = listen_on(events_path, err);
    if (rc >= 0) {
        launch.environment = environment_with(launch.tmpdir);
        launch.dies_with = config->job ? getpid() : 0;
        rc = launch_run(&launch, ret, err);
        free(launch.environment);
        close(launch.listen_fds[1]);
    }
    close(launch.listen_fds[0]);
    return rc;
}

/* Puts the log's last words behind the error when the daemon died of its own. */
static void explain_death(const struct qsd_config *config, const struct qsd *qsd, struct error *err)
{
    char path[512], log[512] = "";
    struct stat st;

    if (!err || qsd_alive(qsd))
        return;
    path_in(config, "qsd.log", path, sizeof path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (fstat(fd, &st) == 0) {
        off_t from = st.st_size > (off_t)sizeof log - 1 ? st.st_size - (off_t)sizeof log + 1 : 0;
        ssize_t n = pread(fd, log, sizeof log - 1, from);
        while (n > 0 && log[n - 1] == '\n')
            log[--n] = '\0';
    }
    close(fd);
    error_prefix(err, "qemu-storage-daemon ended (its log ends \"%s\")", log);
}

static int build(const struct qsd_config *config, const char *socket_path,
                 int (*graph)(struct qmp *, const struct qsd_config *, struct error *),
                 struct error *err)
{
    struct qmp *qmp;
    int rc = qmp_open(socket_path, QMP_OPEN_DEADLINE_MS, &qmp, err);

    if (rc < 0)
        return rc;
    rc = graph(qmp, config, err);
    qmp_close(qmp);
    return rc;
}

/* A first start finds no vdpa device: a VDUSE device or a log left by a dead daemon then belongs to
 * a disk that is gone, and its requests in flight must not be replayed into this one. */
static int clean_leftovers(const struct qsd_config *config, struct error *err)
{
    char path[512];

    if (config->job || vdpa_present(config->name))
        return 0;
    inflight_log_path(config, path, sizeof path);
    unlink(path);
    return vduse_destroy(config->name, err);
}

static int start(const struct qsd_config *config, struct qsd *ret,
                 int (*graph)(struct qmp *, const struct qsd_config *, struct error *),
                 struct error *err)
{
    char socket_path[512];

    assert(strlen(config->name) > 0 && strlen(config->name) <= SERIAL_MAX);
    int rc = config->job ? 0 : vduse_check(err);
    if (rc < 0)
        return rc;
    if (qsd_adopt(config, ret, NULL) == 0) {
        close(ret->pidfd);
        *ret = (struct qsd){.pidfd = -1};
        return error_set(err, LUNAR_E_IN_USE, "a daemon for %s is running", config->name);
    }
    rc = clean_leftovers(config, err);
    if (rc < 0)
        return rc;
    qsd_socket_path(config, socket_path, sizeof socket_path);
    rc = launch_daemon(config, socket_path, ret, err);
    if (rc < 0)
        return rc;
    rc = build(config, socket_path, graph, err);
    if (rc == 0)
        return 0;
    explain_death(config, ret, err);
    if (qsd_kill(ret, NULL) < 0) /* the caller must not take it for gone */
        return error_set(err, LUNAR_E_INDETERMINATE, "the daemon of %s cannot be ended",
                         config->name);
    return rc;
}

int qsd_start(const struct qsd_config *config, struct qsd *ret, struct error *err)
{
    assert(config->n_layers > 0);
    return start(config, ret, qsd_graph_build, err);
}

int qsd_start_job(const struct qsd_config *config, struct qsd *ret, struct error *err)
{
    assert(config->job && config->n_layers > 0);
    return start(config, ret, qsd_graph_build_chain, err);
}

int qsd_start_failing(const struct qsd_config *config, struct qsd *ret, struct error *err)
{
    return start(config, ret, qsd_graph_build_failing, err);
}

/* ---- end ---- */

static void forget(struct qsd *qsd)
{
    close(qsd->pidfd);
    *qsd = (struct qsd){.pidfd = -1};
}

int qsd_kill(struct qsd *qsd, struct error *err)
{
    if (qsd->pidfd < 0)
        return 0;
    pidfd_send_signal(qsd->pidfd, SIGKILL, NULL, 0);
    if (helper_wait_pidfd(qsd->pidfd, KILL_DEADLINE_MS) < 0)
        return error_set(err, LUNAR_E_INDETERMINATE,
                         "qemu-storage-daemon %d was killed and does not die: its I/O hangs in the "
                         "kernel; look at the LUN's paths",
                         (int)qsd->pid);
    forget(qsd);
    return 0;
}

/* The polite end: the export is deleted and its event awaited, so that QCOW2 closes after the last
 * request. */
static int ask_to_quit(struct qmp *qmp, struct error *err)
{
    int64_t deadline = clock_ms() + STOP_DEADLINE_MS;
    int rc = qmp_execute(qmp, "block-export-del", json_pack("{s:s}", "id", "e0"), NULL,
                         STOP_DEADLINE_MS, err);
    bool deleted = rc == LUNAR_E_QMP; /* there was none: a start that got no further */

    while (rc == 0 && !deleted) {
        json_t *event = NULL;
        int n = qmp_event(qmp, clock_left(deadline), &event, err);
        if (n <= 0)
            return n < 0 ? n : LUNAR_E_TIMEOUT;
        const char *name = json_string_value(json_object_get(event, "event"));
        deleted = name && strcmp(name, "BLOCK_EXPORT_DELETED") == 0;
        json_decref(event);
    }
    if (!deleted)
        return rc;
    rc = qmp_execute(qmp, "quit", NULL, NULL, clock_left(deadline), err);
    return rc == LUNAR_E_INDETERMINATE ? 0 : rc; /* it may hang up before it answers */
}

static int quit(const struct qsd_config *config, struct qsd *qsd, struct error *err)
{
    char socket_path[512];
    struct qmp *qmp;

    qsd_socket_path(config, socket_path, sizeof socket_path);
    int rc = qmp_open(socket_path, QMP_OPEN_DEADLINE_MS, &qmp, err);
    if (rc < 0)
        return rc;
    rc = ask_to_quit(qmp, err);
    qmp_close(qmp);
    return rc < 0 ? rc : helper_wait_pidfd(qsd->pidfd, STOP_DEADLINE_MS);
}

int qsd_check_export(const struct qsd_config *config, struct error *err)
{
    struct qmp *qmp;
    json_t *exports = NULL, *one;
    char path[512];
    size_t i;

    path_in(config, "qmp.sock", path, sizeof path);
    int rc = qmp_open(path, QMP_OPEN_DEADLINE_MS, &qmp, err);
    if (rc < 0)
        return rc;
    rc = qmp_execute(qmp, "query-block-exports", NULL, &exports, QMP_OPEN_DEADLINE_MS, err);
    qmp_close(qmp);
    if (rc < 0)
        return rc;
    rc = LUNAR_E_NOT_FOUND;
    json_array_foreach(exports, i, one)
    {
        const char *id = json_string_value(json_object_get(one, "id"));
        if (id && strcmp(id, "e0") == 0)
            rc = 0;
    }
    json_decref(exports);
    return rc < 0 ? error_set(err, rc, "the daemon of %s exports nothing", config->name) : 0;
}

int qsd_stop(const struct qsd_config *config, struct qsd *qsd, struct error *err)
{
    static const char *const files[] = {"qmp.sock", "events.sock", "qsd.process"};
    char path[512];

    if (vdpa_present(config->name))
        return error_set(err, LUNAR_E_IN_USE, "%s is still on the vdpa bus", config->name);
    if (qsd_alive(qsd)) {
        struct error why = ERROR_INIT;
        if (quit(config, qsd, &why) < 0) {
            log_warn("qsd_killed name=%s pid=%d reason=\"%s\"", config->name, (int)qsd->pid,
                     why.text);
            int rc = qsd_kill(qsd, err);
            if (rc < 0)
                return rc;
        }
    }
    if (qsd->pidfd >= 0) {
        helper_wait_pidfd(qsd->pidfd, 0);
        forget(qsd);
    }
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        path_in(config, files[i], path, sizeof path);
        unlink(path);
    }
    inflight_log_path(config, path, sizeof path);
    unlink(path);
    return vduse_destroy(config->name, err);
}
