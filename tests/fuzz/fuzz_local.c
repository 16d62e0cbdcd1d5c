/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames on a local socket, through the real server on a real socket and loop. The input's first
 * byte says in what pieces the rest is written to the socket; what follows is the stream itself.
 *
 * What must hold beyond "no crash": exactly those frames are delivered, in order and whole, that a
 * plain walk over the stream finds before the first one that is empty, too long or no valid
 * envelope; behind such a one nothing is delivered any more and the connection ends; whatever
 * happens, the server forgets the client exactly once.
 */
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/le.h"
#include "diskrpc/local.h"
#include "fuzz/fuzz.h"

static struct {
    uv_loop_t loop;
    struct local_server *server;
    char path[64];
    /* of the run */
    const uint8_t *expected; /* the stream from the next frame on */
    uint32_t delivered, gone;
} s;

static void on_message(void *data, uint64_t client, const Lunar__Envelope *envelope,
                       const uint8_t *bytes, uint32_t len)
{
    (void)data;
    MUST(envelope->body_case != LUNAR__ENVELOPE__BODY__NOT_SET, "an envelope with a body");
    MUST(le32_get(s.expected) == len && memcmp(s.expected + 4, bytes, len) == 0, "the next frame");
    s.expected += 4 + len;
    s.delivered++;
    local_send(s.server, client, bytes, len); /* an answer, so that sending is met too */
}

static void on_gone(void *data, uint64_t client)
{
    (void)data;
    (void)client;
    s.gone++;
}

static void forget_socket(void)
{
    unlink(s.path);
}

static void open_once(void)
{
    static const struct local_callbacks callbacks = {on_message, on_gone};
    if (s.server)
        return;
    snprintf(s.path, sizeof s.path, "/tmp/lunar-fuzz-%d.sock", (int)getpid());
    MUST(uv_loop_init(&s.loop) == 0, "a loop");
    MUST(local_open(&s.loop, s.path, &callbacks, NULL, &s.server, NULL) == 0, "a server");
    atexit(forget_socket);
}

static int connect_client(void)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    strcpy(addr.sun_path, s.path);
    MUST(fd >= 0 && connect(fd, (struct sockaddr *)&addr, sizeof addr) == 0, "a client");
    return fd;
}

static void turn(int times)
{
    while (times-- > 0)
        uv_run(&s.loop, UV_RUN_NOWAIT);
}

/* How many frames a plain walk finds. */
static uint32_t count_frames(const uint8_t *p, size_t left)
{
    uint32_t n = 0;
    while (left >= 4) {
        uint32_t len = le32_get(p);
        Lunar__Envelope *e;
        if (len == 0 || len > FRAME_MAX || left - 4 < len ||
            envelope_unpack(p + 4, len, &e, NULL) < 0)
            break;
        envelope_free(e);
        p += 4 + len;
        left -= 4 + len;
        n++;
    }
    return n;
}

static void write_pieces(int fd, const uint8_t *p, size_t left, uint8_t pieces)
{
    static const size_t sizes[] = {65536, 1, 3, 5, 64, 1000, 4096, 7};
    size_t step = sizes[pieces % 8];

    while (left > 0) {
        size_t n = left < step ? left : step;
        ssize_t done = send(fd, p, n, MSG_NOSIGNAL);
        if (done <= 0)
            return; /* hung up on us, or not read any more */
        p += done;
        left -= (size_t)done;
        if (step >= 64 || left % 4 == 0) /* libuv joins what lies there: seldom enough for speed */
            turn(1);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t sink[4096];

    if (size == 0)
        return 0;
    open_once();
    s.expected = data + 1;
    s.delivered = s.gone = 0;
    int fd = connect_client();
    turn(2);
    write_pieces(fd, data + 1, size - 1, data[0]);
    turn(3);
    MUST(s.delivered == count_frames(data + 1, size - 1), "every sound frame, and no other");
    while (recv(fd, sink, sizeof sink, 0) > 0)
        ;
    close(fd);
    for (int i = 0; i < 20 && s.gone == 0; i++)
        turn(1);
    MUST(s.gone == 1, "the client is forgotten once");
    return 0;
}
