/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vm-execd: runs commands in a test-bed node for `tools/vmcluster exec`. It is the node's PID 1.
 *
 * Happy path: main listens on a TCP port inside the management network namespace (so that the
 * node's own namespace shows nothing of it) and forks one session process per connection. The
 * client sends the 32-byte cluster token, then frames (type u8, length u32 little-endian, data):
 *     A argv, NUL-separated   I stdin bytes   E stdin ends   K signal number (u8)
 * and receives H (heartbeat, also the greeting), O stdout, R stderr, X exit code (u8).
 * A command that ends is reported at once, even when something it left in the background still
 * holds its pipes.
 *
 * Failure modes: a wrong token closes the connection without a word. A client that goes away has
 * its command's process group terminated, then killed; a command stuck in the kernel is left
 * behind, and only its own session waits for it. A command that cannot be started exits 127 or
 * 126 like a shell's. If this process dies the kernel panics and the node powers off, which the
 * host sees; it never lives on unreachable.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TOKEN_BYTES = 32, FRAME_BYTES_MAX = 65536, ARGS_MAX = 1024, HEARTBEAT_MS = 2000 };

struct session {
    int sock;
    int to_child; /* stdin of the command, -1 once closed */
    int from_out; /* its stdout, -1 at end of file */
    int from_err;
    int pidfd;
    pid_t pid;
    char in[FRAME_BYTES_MAX]; /* stdin bytes not yet written to the command */
    size_t in_off, in_len;
};

static void die(const char *what)
{
    fprintf(stderr, "vm-execd: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int send_frame(int sock, char type, const void *data, uint32_t len)
{
    char head[5] = {type, (char)len, (char)(len >> 8), (char)(len >> 16), (char)(len >> 24)};
    const char *p = data;

    if (send(sock, head, sizeof head, MSG_NOSIGNAL | (len ? MSG_MORE : 0)) != sizeof head)
        return -1;
    while (len > 0) {
        ssize_t n = send(sock, p, len, MSG_NOSIGNAL);
        if (n <= 0)
            return -1;
        p += n;
        len -= (uint32_t)n;
    }
    return 0;
}

static int recv_all(int sock, void *data, size_t len)
{
    char *p = data;

    while (len > 0) {
        ssize_t n = recv(sock, p, len, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        p += n;
        len -= (size_t)n;
    }
    return 0;
}

/* Reads one frame into buf (FRAME_BYTES_MAX + 1 bytes). Returns its type, or -1. */
static int recv_frame(int sock, char *buf, uint32_t *ret_len)
{
    unsigned char head[5];

    if (recv_all(sock, head, sizeof head) < 0)
        return -1;
    *ret_len = head[1] | (uint32_t)head[2] << 8 | (uint32_t)head[3] << 16 | (uint32_t)head[4] << 24;
    if (*ret_len > FRAME_BYTES_MAX || recv_all(sock, buf, *ret_len) < 0)
        return -1;
    buf[*ret_len] = '\0';
    return head[0];
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void run_command(char **argv, int in, int out, int err)
{
    int oom = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

    if (oom >= 0 && write(oom, "0", 1) < 0)
        perror("oom_score_adj");
    signal(SIGCHLD, SIG_DFL);
    setsid();
    dup2(in, 0);
    dup2(out, 1);
    dup2(err, 2);
    if (chdir("/root") < 0)
        perror("/root");
    execvp(argv[0], argv);
    dprintf(2, "%s: %s\n", argv[0], strerror(errno));
    _exit(errno == ENOENT ? 127 : 126);
}

/* Splits the argv frame in place; returns the number of words, 0 when it is malformed. */
static int split_args(char *data, uint32_t len, char **argv)
{
    int argc = 0;

    for (char *p = data; p < data + len && argc < ARGS_MAX; p += strlen(p) + 1)
        argv[argc++] = p;
    argv[argc] = NULL;
    return argc;
}

static int start_command(struct session *s, char **argv)
{
    int in[2], out[2], err[2];

    if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0 || pipe2(err, O_CLOEXEC) < 0)
        return -1;
    s->pid = fork();
    if (s->pid < 0)
        return -1;
    if (s->pid == 0)
        run_command(argv, in[0], out[1], err[1]);
    close(in[0]);
    close(out[1]);
    close(err[1]);
    s->to_child = in[1];
    s->from_out = out[0];
    s->from_err = err[0];
    fcntl(s->to_child, F_SETFL, O_NONBLOCK);
    fcntl(s->from_out, F_SETFL, O_NONBLOCK);
    fcntl(s->from_err, F_SETFL, O_NONBLOCK);
    s->pidfd = (int)syscall(SYS_pidfd_open, s->pid, 0);
    return s->pidfd;
}

/* Passes on what one pipe holds now. Returns -1 only when the client is gone. */
static int forward_output(struct session *s, int *fd, char type)
{
    char buf[FRAME_BYTES_MAX];

    while (*fd >= 0) {
        ssize_t n = read(*fd, buf, sizeof buf);
        if (n > 0 && send_frame(s->sock, type, buf, (uint32_t)n) < 0)
            return -1;
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
            close_fd(fd);
        if (n < (ssize_t)sizeof buf)
            break;
    }
    return 0;
}

static void feed_stdin(struct session *s)
{
    ssize_t n = write(s->to_child, s->in + s->in_off, s->in_len);

    if (n > 0) {
        s->in_off += (size_t)n;
        s->in_len -= (size_t)n;
    } else if (n < 0 && errno != EAGAIN && errno != EINTR) {
        s->in_len = 0; /* the command closed its stdin: what follows is dropped */
        close_fd(&s->to_child);
    }
}

static int take_frame(struct session *s)
{
    static char buf[FRAME_BYTES_MAX + 1];
    uint32_t len;

    switch (recv_frame(s->sock, buf, &len)) {
    case 'I':
        if (s->to_child >= 0) {
            memcpy(s->in, buf, len);
            s->in_off = 0;
            s->in_len = len;
        }
        return 0;
    case 'E':
        close_fd(&s->to_child);
        return 0;
    case 'K':
        if (len == 1)
            kill(-s->pid, buf[0]);
        return 0;
    default:
        return -1;
    }
}

static void abandon_command(struct session *s)
{
    struct pollfd p = {.fd = s->pidfd, .events = POLLIN};

    kill(-s->pid, SIGTERM);
    poll(&p, 1, 1000);
    kill(-s->pid, SIGKILL);
    exit(0);
}

static void finish_command(struct session *s)
{
    int status = 0;
    unsigned char code;

    waitpid(s->pid, &status, 0);
    code = (unsigned char)(WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
    if (forward_output(s, &s->from_out, 'O') < 0 || forward_output(s, &s->from_err, 'R') < 0)
        exit(0);
    send_frame(s->sock, 'X', &code, 1);
    /* Closing with unread bytes would reset the connection and may lose the exit code on its way.
     */
    shutdown(s->sock, SHUT_WR);
    while (recv(s->sock, s->in, sizeof s->in, 0) > 0)
        ;
    exit(0);
}

/* One round of the session: returns -1 when the client is gone. */
static int session_step(struct session *s)
{
    struct pollfd p[5] = {
        {.fd = s->sock, .events = (short)(POLLRDHUP | (s->in_len == 0 ? POLLIN : 0))},
        {.fd = s->in_len > 0 ? s->to_child : -1, .events = POLLOUT},
        {.fd = s->from_out, .events = POLLIN},
        {.fd = s->from_err, .events = POLLIN},
        {.fd = s->pidfd, .events = POLLIN},
    };
    int n = poll(p, 5, HEARTBEAT_MS);

    if (n == 0)
        return send_frame(s->sock, 'H', NULL, 0);
    if (p[1].revents)
        feed_stdin(s);
    if (p[2].revents && forward_output(s, &s->from_out, 'O') < 0)
        return -1;
    if (p[3].revents && forward_output(s, &s->from_err, 'R') < 0)
        return -1;
    if (p[4].revents)
        finish_command(s);
    if (p[0].revents & (POLLRDHUP | POLLHUP | POLLERR))
        return -1;
    return p[0].revents & POLLIN ? take_frame(s) : 0;
}

static void serve(int sock, const char *token)
{
    static struct session s;
    static char buf[FRAME_BYTES_MAX + 1];
    static char *argv[ARGS_MAX + 1];
    char given[TOKEN_BYTES];
    uint32_t len;
    struct timeval limit = {.tv_sec = 30};

    signal(SIGCHLD, SIG_DFL);
    s.sock = sock;
    setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (recv_all(sock, given, sizeof given) < 0 || memcmp(given, token, TOKEN_BYTES) != 0)
        exit(1);
    if (send_frame(sock, 'H', NULL, 0) < 0 || recv_frame(sock, buf, &len) != 'A')
        exit(1);
    if (split_args(buf, len, argv) == 0 || start_command(&s, argv) < 0)
        exit(1);
    while (session_step(&s) == 0)
        ;
    abandon_command(&s);
}

/* A listening socket that lives in the given network namespace; this process stays in its own. */
static int listen_in_namespace(const char *path, uint16_t port)
{
    struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons(port)};
    int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    int away = open(path, O_RDONLY | O_CLOEXEC);
    int one = 1, sock;

    if (home < 0 || away < 0 || setns(away, CLONE_NEWNET) < 0)
        die(path);
    sock = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (sock < 0 || setns(home, CLONE_NEWNET) < 0)
        die("socket");
    setsockopt(sock, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(sock, (struct sockaddr *)&sin, sizeof sin) < 0 || listen(sock, 128) < 0)
        die("listen");
    close(home);
    close(away);
    return sock;
}

static void read_token(const char *path, char *ret_token)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || read(fd, ret_token, TOKEN_BYTES) != TOKEN_BYTES)
        die(path);
    close(fd);
}

static void announce(void)
{
    char up[64] = "";
    int fd = open("/proc/uptime", O_RDONLY | O_CLOEXEC);

    if (fd >= 0 && read(fd, up, sizeof up - 1) > 0)
        up[strcspn(up, " ")] = '\0';
    close(fd);
    printf("NODE-READY uptime=%s\n", up);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    char token[TOKEN_BYTES];
    int sock;

    if (argc != 4) {
        fprintf(stderr, "usage: vm-execd NETNS-PATH PORT TOKEN-FILE\n");
        return 2;
    }
    read_token(argv[3], token);
    sock = listen_in_namespace(argv[1], (uint16_t)atoi(argv[2]));
    signal(SIGCHLD, SIG_IGN); /* as PID 1: orphans are reaped by the kernel */
    announce();
    for (;;) {
        int conn = accept4(sock, NULL, NULL, SOCK_CLOEXEC);
        pid_t pid = conn < 0 ? -1 : fork();
        if (pid == 0) {
            close(sock);
            serve(conn, token);
        }
        if (conn >= 0)
            close(conn);
        else
            usleep(10000);
    }
}
