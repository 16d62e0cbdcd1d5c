/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guard's main thread: what comes in becomes events of guard_core.c, what that decides is
 * carried out here or handed to a thread (guard_work.c). It never blocks.
 *
 * Happy path: files and memory in place (guard_files.c), threads started, poll until it is over.
 * Failure modes: those of the start, told to whoever started us; the agent's connection closes: it
 * may come back, its pidfd stays, so that it can be killed even then; a client that hangs or does
 * not read: it is told nothing more, and one that sends nonsense is cut.
 */
#include "fencing/guard_run.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/helper.h"
#include "base/log.h"
#include "fencing/guard_files.h"
#include "fencing/guard_wire.h"

/* The agent, its successor, an operator, killpath; a few more for whoever hangs. */
#define CLIENTS 12

struct client {
    int fd; /* -1: free */
    bool is_agent;
};

struct guard_program {
    struct guard_options *options;
    struct guard_core core;
    struct guard_work work;
    struct guard_files files;
    int first_words;
    int agent_pidfd; /* of the agent seen last; -1: none yet */
    bool sanlock_watched, over;
    bool reset_logged;
    struct client clients[CLIENTS];
    struct error failure; /* why it never guarded */
};

/* Not on a stack and not on the heap: locked with the rest of the program. */
static struct guard_program program;

static void step(struct guard_program *p, struct guard_event event);

/* --- telling --- */

static void tell(struct guard_program *p, int fd, uint32_t refused, const char *reason)
{
    struct guard_answer answer = {.magic = GUARD_WIRE_MAGIC,
                                  .state = p->core.state,
                                  .host_id = p->options->host_id,
                                  .refused = refused,
                                  .generation = p->options->generation};
    snprintf(answer.reason, sizeof answer.reason, "%s", reason);
    ssize_t n = send(fd, &answer, sizeof answer, MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)n; /* one that does not read is told nothing more */
}

static struct client *agent_of(struct guard_program *p)
{
    for (int i = 0; i < CLIENTS; i++)
        if (p->clients[i].fd >= 0 && p->clients[i].is_agent)
            return &p->clients[i];
    return NULL;
}

static void tell_agent(struct guard_program *p, uint32_t refused, const char *reason)
{
    struct client *agent = agent_of(p);
    if (agent)
        tell(p, agent->fd, refused, reason);
}

/* --- actions --- */

static void lock_permits(struct guard_program *p)
{
    if (guard_permit_lock(p->files.permit_fd))
        step(p, (struct guard_event){.type = GUARD_EVENT_PERMITS_FREE});
}

static void check_empty(struct guard_program *p)
{
    if (guard_permit_say(p->files.permit_fd, GUARD_PERMIT_CLOSED) == 0 &&
        guard_permit_lock(p->files.permit_fd))
        guard_work_count(&p->work);
    else /* somebody is mapping something just now */
        step(p, (struct guard_event){.type = GUARD_EVENT_NOT_EMPTY});
}

static void open_permits(struct guard_program *p)
{
    int rv = guard_permit_say(p->files.permit_fd, GUARD_PERMIT_OPEN);
    guard_permit_unlock(p->files.permit_fd);
    if (rv < 0) /* no permit is given then, which is seen at the first attach */
        log_error("permits_not_opened code=%d", rv);
}

static void kill_agent(struct guard_program *p)
{
    if (p->agent_pidfd < 0)
        return;
    int rv = pidfd_send_signal(p->agent_pidfd, SIGKILL, NULL, 0);
    log_warn("agent_killed rv=%d text=\"it held a permit for too long\"", rv);
}

/* Nothing that could wait comes before it: no log, whose file may be anywhere. */
static void reset_machine(struct guard_program *p)
{
    if (p->options->reset)
        p->options->reset(p->core.reason);
    if (!p->reset_logged)
        log_error("not_reset text=\"%s\"",
                  p->options->reset ? "there is no proof, and no way to reset this machine "
                                      "works: reset it by hand"
                                    : "there is no proof: in a pool that is no test pool "
                                      "this machine would have been reset now");
    p->reset_logged = true;
}

static void run_actions(struct guard_program *p, unsigned actions)
{
    if (actions & GUARD_DO_RESET)
        reset_machine(p);
    /* The byte comes first: before the lock (guard_permit.c) and before anybody is told. */
    if (actions & GUARD_DO_OPEN_PERMITS)
        open_permits(p);
    if ((actions & GUARD_DO_LOCK_PERMITS) &&
        guard_permit_say(p->files.permit_fd, GUARD_PERMIT_FENCED) < 0)
        actions &= ~(unsigned)GUARD_DO_LOCK_PERMITS; /* it is asked for again */
    if ((actions & GUARD_DO_EXIT) && p->core.state == GUARD_STATE_OVER && p->core.reason[0])
        guard_permit_say(p->files.permit_fd,
                         GUARD_PERMIT_OVER); /* no successor starts over with it */
    if (actions & GUARD_DO_TELL) {
        log_info("state state=%s reason=\"%s\"", guard_state_name(p->core.state), p->core.reason);
        tell_agent(p, 0, p->core.reason);
    }
    if (actions & GUARD_DO_REFUSE_LEAVE)
        tell_agent(p, 1, "maps of volumes stand: detach them first");
    if (actions & GUARD_DO_KILL_AGENT)
        kill_agent(p);
    if (actions & GUARD_DO_STOP)
        guard_work_stop(&p->work);
    if (actions & GUARD_DO_WIPE)
        guard_work_wipe(&p->work);
    if (actions & GUARD_DO_RELEASE)
        guard_work_release(&p->work);
    if (actions & GUARD_DO_EXIT)
        p->over = true;
    if (actions & GUARD_DO_LOCK_PERMITS) /* these two may answer at once: last */
        lock_permits(p);
    if (actions & GUARD_DO_CHECK_EMPTY)
        check_empty(p);
}

static void step(struct guard_program *p, struct guard_event event)
{
    event.now_ms = clock_ms();
    unsigned actions = guard_core_step(&p->core, &event);
    run_actions(p, actions);
    if (p->core.state != GUARD_STATE_STARTING && p->first_words >= 0) {
        close(p->first_words); /* whoever started us goes on by the socket */
        p->first_words = -1;
    }
}

/* --- clients --- */

static void close_client(struct guard_program *p, struct client *client)
{
    bool was_agent = client->is_agent;
    close(client->fd);
    *client = (struct client){.fd = -1};
    if (was_agent)
        step(p, (struct guard_event){.type = GUARD_EVENT_AGENT_GONE});
}

/* Root's alone, as the run directory is; in a test pool the guard may be somebody else's. */
static bool peer_is_ours(int fd, struct ucred *ret)
{
    socklen_t len = sizeof *ret;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, ret, &len) == 0 &&
           (ret->uid == 0 || ret->uid == geteuid());
}

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* Linux 6.5 */
#endif

/* Of the process that connected; where the kernel cannot tell, of whoever has its number now. */
static int pidfd_of(int fd, pid_t pid)
{
    int pidfd = -1;
    socklen_t len = sizeof pidfd;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &len) == 0)
        return pidfd;
    /* Only a kernel that does not know the question: any other refusal may mean that the process
     * has gone, and its number may be another's by now. */
    return errno == ENOPROTOOPT ? pidfd_open(pid, 0) : -1;
}

static void become_agent(struct guard_program *p, struct client *client)
{
    struct ucred peer;
    struct client *former = agent_of(p);
    if (former && former != client)
        former->is_agent = false; /* its successor is here, although its socket lingers */
    client->is_agent = true;
    if (peer_is_ours(client->fd, &peer)) {
        int pidfd = pidfd_of(client->fd, peer.pid);
        if (pidfd >= 0 && p->agent_pidfd >= 0)
            close(p->agent_pidfd);
        if (pidfd >= 0)
            p->agent_pidfd = pidfd;
        log_info("agent_connected pid=%d", (int)peer.pid);
    }
    step(p, (struct guard_event){.type = GUARD_EVENT_AGENT_CONNECTED});
}

static void on_agent_request(struct guard_program *p, const struct guard_request *request)
{
    switch (request->type) {
    case GUARD_REQUEST_FENCE:
        step(p, (struct guard_event){.type = GUARD_EVENT_AGENT_FENCE, .reason = request->reason});
        break;
    case GUARD_REQUEST_DRAINED:
        step(p, (struct guard_event){.type = GUARD_EVENT_DRAINED});
        break;
    case GUARD_REQUEST_LEAVE:
        step(p, (struct guard_event){.type = GUARD_EVENT_LEAVE});
        break;
    default:
        break;
    }
}

static void on_client(struct guard_program *p, struct client *client)
{
    struct guard_request request;
    ssize_t n = recv(client->fd, &request, sizeof request, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n != (ssize_t)sizeof request || request.magic != GUARD_WIRE_MAGIC) {
        close_client(p, client);
        return;
    }
    request.reason[sizeof request.reason - 1] = '\0';
    if (request.type == GUARD_REQUEST_WAKE) {
        log_warn("killpath host_id=%" PRIu32 " generation=%" PRIu64, request.host_id,
                 request.generation);
        step(p, (struct guard_event){.type = GUARD_EVENT_KILLPATH,
                                     .host_id = request.host_id,
                                     .generation = request.generation});
    } else if (request.type == GUARD_REQUEST_HELLO) {
        if (request.host_id == p->options->host_id && request.generation == p->options->generation)
            become_agent(p, client);
        else
            tell(p, client->fd, 0, p->core.reason);
    } else if (client->is_agent) {
        on_agent_request(p, &request);
    }
}

static void accept_client(struct guard_program *p)
{
    struct ucred peer;
    int fd = accept4(p->files.listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    for (int i = 0; i < CLIENTS && peer_is_ours(fd, &peer); i++)
        if (p->clients[i].fd < 0) {
            p->clients[i] = (struct client){.fd = fd};
            return;
        }
    close(fd);
}

/* --- threads, signals, time --- */

static void on_started(struct guard_program *p, const struct guard_result *result)
{
    struct guard_event event = {.type = result->type, .reason = result->reason};
    event.flag = result->lost;
    if (result->type == GUARD_EVENT_START_FAILED) {
        log_error("no_lease code=%s reason=\"%s\"", error_name(result->code), result->reason);
        error_set(&p->failure, result->code, "%s", result->reason);
    }
    /* What becomes of the daemon is seen at its socket, also while fencing. */
    p->sanlock_watched = p->work.sanlock_fd >= 0;
    step(p, event);
}

static void on_result(struct guard_program *p)
{
    struct guard_result result;
    if (read(p->work.results[0], &result, sizeof result) != (ssize_t)sizeof result)
        return;
    result.reason[sizeof result.reason - 1] = '\0';
    if (result.type == GUARD_EVENT_ACQUIRED || result.type == GUARD_EVENT_START_FAILED)
        on_started(p, &result);
    else
        step(p, (struct guard_event){.type = result.type, .renewed_ms = result.renewed_ms});
}

static void on_signal(struct guard_program *p)
{
    struct signalfd_siginfo info;
    if (read(p->files.signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        log_warn("guard_signal number=%u", info.ssi_signo);
        step(p, (struct guard_event){.type = GUARD_EVENT_SIGTERM});
    }
}

static int wait_ms(const struct guard_core *core)
{
    int64_t deadline = guard_core_deadline(core);
    return deadline == INT64_MAX ? -1 : clock_left(deadline);
}

static void poll_once(struct guard_program *p)
{
    enum { SIGNAL, RESULT, SANLOCK, LISTEN, FIRST };
    struct pollfd fds[FIRST + CLIENTS] = {
        [SIGNAL] = {.fd = p->files.signal_fd, .events = POLLIN},
        [RESULT] = {.fd = p->work.results[0], .events = POLLIN},
        [SANLOCK] = {.fd = p->sanlock_watched ? p->work.sanlock_fd : -1},
        [LISTEN] = {.fd = p->files.listen_fd, .events = POLLIN},
    };
    for (int i = 0; i < CLIENTS; i++)
        fds[FIRST + i] = (struct pollfd){.fd = p->clients[i].fd, .events = POLLIN};
    int n = poll(fds, FIRST + CLIENTS, wait_ms(&p->core));
    if (n < 0)
        return;
    if (fds[SIGNAL].revents)
        on_signal(p);
    if (fds[SANLOCK].revents & (POLLHUP | POLLERR)) {
        p->sanlock_watched = false;
        step(p, (struct guard_event){.type = GUARD_EVENT_SANLOCK_GONE});
    }
    if (fds[RESULT].revents)
        on_result(p);
    for (int i = 0; i < CLIENTS; i++)
        if (fds[FIRST + i].revents && p->clients[i].fd == fds[FIRST + i].fd)
            on_client(p, &p->clients[i]);
    if (fds[LISTEN].revents)
        accept_client(p);
    if (wait_ms(&p->core) == 0)
        step(p, (struct guard_event){.type = GUARD_EVENT_TICK});
}

/* --- its life --- */

static int live(struct guard_program *p, struct error *err)
{
    struct guard_core_config config = {.host_id = p->options->host_id,
                                       .generation = p->options->generation};
    const struct superblock *sb = &p->options->sb;
    int rv = timeouts_compute((int)sb->io_timeout_s, (int)sb->watchdog_fire_timeout_s,
                              &config.timeouts, err);
    if (rv < 0)
        return rv;
    guard_core_init(&p->core, &config);
    p->work.resumed = p->files.said;
    rv = guard_work_start(&p->work, p->options, err);
    if (rv < 0)
        return rv;
    step(p, (struct guard_event){.type = GUARD_EVENT_STARTED, .resumed = p->files.said});
    while (!p->over)
        poll_once(p);
    *err = p->failure;
    return p->failure.code;
}

static void write_first_words(struct guard_program *p, const struct error *err)
{
    if (p->first_words >= 0 && err->code < 0)
        dprintf(p->first_words, "%d\t%s\n", err->code, err->text);
}

int guard_run(struct guard_options *options, int first_words, struct error *err)
{
    struct guard_program *p = &program;
    p->options = options;
    p->first_words = first_words;
    p->agent_pidfd = -1;
    for (int i = 0; i < CLIENTS; i++)
        p->clients[i].fd = -1;
    int rv = guard_files_open(options, &p->files, err);
    if (rv == 1)
        rv = live(p, err);
    if (rv < 0)
        write_first_words(p, err);
    if (p->files.listen_fd > 0)
        unlink(p->files.socket_path);
    return rv;
}

int guard_wake(const char *socket_path, uint32_t host_id, uint64_t generation, struct error *err)
{
    struct guard_request request = {.magic = GUARD_WIRE_MAGIC,
                                    .type = GUARD_REQUEST_WAKE,
                                    .host_id = host_id,
                                    .generation = generation};
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(socket_path) >= sizeof address.sun_path)
        return error_set(err, LUNAR_E_INVALID, "%s is no socket of a guard", socket_path);
    strcpy(address.sun_path, socket_path);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    int rv = fd < 0 ? -errno : 0;
    if (rv == 0 && connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        rv = -errno;
    if (rv == 0 && send(fd, &request, sizeof request, MSG_NOSIGNAL) < 0)
        rv = -errno;
    if (fd >= 0)
        close(fd);
    return rv < 0
               ? error_set(err, rv, "cannot wake the guard at %s: %s", socket_path, strerror(-rv))
               : 0;
}
