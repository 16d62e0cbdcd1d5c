/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fake agent for the tests of lunarctl: a thread that listens on a Unix socket, reads frames and
 * answers as the test's handler says; and a frame that runs one command against it. Included by
 * each test file behind the sources of lunarctl that it tests, so everything is static inline.
 */
#ifndef LUNAR_TESTS_SUPPORT_FAKE_AGENT_H
#define LUNAR_TESTS_SUPPORT_FAKE_AGENT_H

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "../../tools/lunarctl/cli.h"
#include "base/le.h"
#include "diskrpc/message.h"
#include "support/test.h"

/* --- the fake agent --- */

struct agent;
/* Answers one envelope; false: hang up. */
typedef bool (*agent_handler)(struct agent *agent, int fd, const Lunar__Envelope *e);

struct agent {
    char path[64];
    int listener;
    pthread_t thread;
    agent_handler handler;
    atomic_int connections, requests;
    Lunar__Envelope *last; /* the last request; read it after agent_stop */
    struct uuid first_id;
};

static inline void send_frame(int fd, const uint8_t *data, uint32_t len)
{
    uint8_t head[4];
    le32_put(head, len);
    if (send(fd, head, 4, MSG_NOSIGNAL) != 4 || send(fd, data, len, MSG_NOSIGNAL) != (ssize_t)len)
        perror("# fake agent: send");
}

static inline void send_envelope(int fd, const Lunar__Envelope *e)
{
    uint8_t *data;
    uint32_t len;
    if (envelope_pack(e, &data, &len, NULL) < 0)
        abort();
    send_frame(fd, data, len);
    free(data);
}

static inline void respond(int fd, ProtobufCBinaryData id, Lunar__Response *r)
{
    Lunar__Envelope e = LUNAR__ENVELOPE__INIT;
    e.body_case = LUNAR__ENVELOPE__BODY_RESPONSE;
    e.response = r;
    r->id = id;
    send_envelope(fd, &e);
}

static inline void serve(struct agent *a, int fd)
{
    bool go_on = true;
    while (go_on) {
        Lunar__Envelope *e = NULL;
        uint8_t head[4];
        if (recv(fd, head, 4, MSG_WAITALL) != 4)
            return;
        uint32_t len = le32_get(head);
        uint8_t *data = malloc(len);
        if (!data || recv(fd, data, len, MSG_WAITALL) != (ssize_t)len ||
            envelope_unpack(data, len, &e, NULL) < 0)
            abort(); /* lunarctl sent something that no agent would accept */
        free(data);
        envelope_free(a->last);
        a->last = e;
        if (a->requests++ == 0 && e->body_case == LUNAR__ENVELOPE__BODY_REQUEST)
            a->first_id = uuid_from_pb(e->request->id);
        go_on = a->handler(a, fd, e);
    }
}

static inline void *agent_thread(void *data)
{
    struct agent *a = data;
    int fd;
    while ((fd = accept(a->listener, NULL, NULL)) >= 0) {
        a->connections++;
        serve(a, fd);
        close(fd);
    }
    return NULL;
}

static inline void agent_start(struct agent *a, agent_handler handler)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memset(a, 0, sizeof *a);
    snprintf(a->path, sizeof a->path, "/tmp/lunar-test-cli-%d.sock", (int)getpid());
    snprintf(address.sun_path, sizeof address.sun_path, "%s", a->path);
    unlink(a->path);
    a->handler = handler;
    a->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(a->listener, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(a->listener, 8) < 0 || pthread_create(&a->thread, NULL, agent_thread, a) != 0)
        abort();
}

static inline void agent_stop(struct agent *a)
{
    shutdown(a->listener, SHUT_RDWR); /* accept returns */
    pthread_join(a->thread, NULL);
    close(a->listener);
    unlink(a->path);
}

static inline void agent_free(struct agent *a)
{
    envelope_free(a->last);
}

/* --- running a command, with its standard output in `out` and its standard error dropped --- */

static char out[65536];

static inline int run_command(struct agent *a, const char *timeout,
                              int (*run)(struct cli *, int, char **), const char *const *words)
{
    static const struct command command = {"volume", "test", "NAME", "A test", NULL, NULL};
    struct cli cli = {.command = &command, .format = "text", .timeout_s = 60};
    char *argv[16] = {(char *)(uintptr_t) "test", (char *)(uintptr_t) "--socket", a->path,
                      (char *)(uintptr_t) "--timeout", (char *)(uintptr_t)timeout};
    int argc = 5, old_out = dup(1), old_err = dup(2);
    FILE *file = tmpfile();

    for (; *words; words++)
        argv[argc++] = (char *)(uintptr_t)*words;
    fflush(stdout);
    fflush(stderr);
    dup2(fileno(file), 1);
    dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), 2);
    int rc = run(&cli, argc, argv);
    fflush(stdout);
    dup2(old_out, 1);
    dup2(old_err, 2);
    close(old_out);
    close(old_err);
    rewind(file);
    out[fread(out, 1, sizeof out - 1, file)] = '\0';
    fclose(file);
    return rc;
}

#define RUN(agent, timeout, command, ...)                                                          \
    run_command(agent, timeout, command, (const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})

#endif
