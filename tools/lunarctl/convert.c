/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qemu-img for import and export.
 *
 * Happy path: `info` in the format that the operator named says how large the disk is and that no
 * other file belongs to it; `convert -p` runs in a child that dies with us, its progress is read
 * from its standard output and shown: a line that overwrites itself on a terminal, lines of JSON
 * under -o json.
 *
 * Failure modes: the image is not in that format, or its header names other files: refused (SAFETY
 * 17), because a header that somebody else wrote must not choose what is read here; an image named
 * raw that begins like another format is refused unless it is said twice, because a disk that holds
 * an image file is hardly ever what was meant; qemu-img fails: its last words; a signal: it is
 * killed and waited for, so that nothing is written behind our back.
 */
#include "convert.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/helper.h"
#include "output.h"

#define INFO_DEADLINE_MS 60000
#define INFO_BYTES       (1u << 20)
#define WORDS_BYTES      400
#define TEXT_STEP        10 /* hundredths of a percent: a terminal's line shows tenths */
#define JSON_STEP        100
#define CONVERT_WHOLE    10000

static const char *const formats[] = {"raw", "qcow2", "vmdk", "vhdx", "vpc", "vdi"};

bool convert_format_known(const char *format)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (strcmp(format, formats[i]) == 0)
            return true;
    return false;
}

/* ---- what the image is ---- */

static int refuse(struct error *err, const char *path, const char *why)
{
    return error_set(err, LUNAR_E_INVALID, "%s %s", path, why);
}

/* Every file that qemu-img opens for it must be the one that was named. */
static int check_files(const json_t *doc, const char *path, struct error *err)
{
    const json_t *data = json_object_get(json_object_get(doc, "format-specific"), "data");
    size_t i;
    json_t *x;

    if (json_object_get(doc, "backing-filename") || json_object_get(doc, "full-backing-filename"))
        return refuse(
            err, path,
            "stands on a backing file: merge them first (qemu-img convert, where both are "
            "trusted)");
    if (json_object_get(data, "data-file"))
        return refuse(err, path, "keeps its data in another file");
    json_array_foreach(json_object_get(data, "extents"), i, x)
    {
        if (strcmp(js_get_text(x, "filename"), path) != 0)
            return refuse(err, path,
                          "keeps its data in another file; of a flat VMDK, import the -flat.vmdk "
                          "file as raw");
    }
    json_array_foreach(json_object_get(doc, "children"), i, x)
    {
        if (strcmp(js_get_text(x, "name"), "file") != 0)
            return refuse(err, path, "needs another file");
    }
    return 0;
}

int convert_check(const char *json, const char *path, const char *format, uint64_t *ret_size,
                  struct error *err)
{
    const char *begin = strchr(json, '{'); /* warnings may come first */
    json_t *doc = begin ? json_loads(begin, JSON_DISABLE_EOF_CHECK, NULL) : NULL;
    const json_t *data = json_object_get(json_object_get(doc, "format-specific"), "data");
    int rc;

    *ret_size = js_get_u64(doc, "virtual-size");
    if (!doc || strcmp(js_get_text(doc, "format"), format) != 0)
        rc = refuse(err, path, "is not understood by qemu-img");
    else if (*ret_size == 0)
        rc = refuse(err, path, "has no size");
    else if (js_get_bool(doc, "encrypted"))
        rc = refuse(err, path, "is encrypted");
    else if (js_get_bool(data, "corrupt"))
        rc = refuse(err, path, "says that it is damaged: see qemu-img check");
    else
        rc = check_files(doc, path, err);
    json_decref(doc);
    return rc;
}

/* A disk may begin with these bytes if somebody wrote them there; an image always does. */
static int check_raw(const char *head, const char *path, struct error *err)
{
    static const struct {
        const char *magic, *format;
    } known[] = {{"QFI\xfb", "qcow2"}, {"KDMV", "vmdk"},    {"# Disk DescriptorFile", "vmdk"},
                 {"vhdxfile", "vhdx"}, {"conectix", "vpc"}, {"<<< ", "vdi"}};

    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (memcmp(head, known[i].magic, strlen(known[i].magic)) == 0)
            return error_set(err, LUNAR_E_INVALID,
                             "%s looks like %s and not like a disk: if the disk is to hold these "
                             "very bytes, say --force",
                             path, known[i].format);
    return 0;
}

/* qemu-img does not look at a VHD's type: of one that stands on a parent it would give us zeroes
 * for all that is in the parent alone (seen with 7.2). */
static int check_vhd(const char *head, const char *path, struct error *err)
{
    static const char differencing[] = {0, 0, 0, 4};

    if (memcmp(head, "conectix", 8) == 0 && memcmp(head + 60, differencing, 4) == 0)
        return refuse(err, path,
                      "stands on a backing file (a differencing VHD): coalesce it first");
    return 0;
}

static int check_head(const char *path, const char *format, bool raw_anyway, struct error *err)
{
    char head[64] = "";

    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, head, sizeof head);
    if (n < 0)
        error_set(err, -errno, "cannot read %s: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
    if (n < 0)
        return err->code;
    if (strcmp(format, "vpc") == 0)
        return check_vhd(head, path, err);
    return strcmp(format, "raw") == 0 && !raw_anyway ? check_raw(head, path, err) : 0;
}

int convert_inspect(const char *path, const char *format, bool raw_anyway, uint64_t *ret_size,
                    struct error *err)
{
    const char *const argv[] = {"qemu-img", "info", "--output=json", "-f", format, path, NULL};
    char *output = calloc(1, INFO_BYTES);

    if (!output)
        abort();
    int rc = check_head(path, format, raw_anyway, err);
    if (rc == 0)
        rc = helper_run(argv, INFO_DEADLINE_MS, output, INFO_BYTES, err);
    if (rc == 0)
        rc = convert_check(output, path, format, ret_size, err);
    free(output);
    return rc;
}

/* ---- signals ---- */

static sigset_t held_signals(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    return set;
}

void convert_hold_signals(void)
{
    sigset_t set = held_signals();
    sigprocmask(SIG_BLOCK, &set, NULL);
}

bool convert_stopped(void)
{
    sigset_t pending;

    sigpending(&pending);
    return sigismember(&pending, SIGINT) || sigismember(&pending, SIGTERM) ||
           sigismember(&pending, SIGHUP);
}

/* ---- progress ---- */

unsigned convert_parse(struct convert_parser *p, const char *bytes, size_t n, unsigned before)
{
    for (size_t i = 0; i < n; i++) {
        char c = bytes[i];
        if (c == '(') {
            p->n = 1;
        } else if (p->n && c == '/') {
            p->number[p->n - 1] = '\0';
            before = (unsigned)(strtod(p->number, NULL) * 100 + 0.5);
            p->n = 0;
        } else if (p->n && p->n < sizeof p->number && strchr("0123456789.", c) && c) {
            p->number[p->n++ - 1] = c;
        } else {
            p->n = 0;
        }
    }
    return before;
}

static void show(const struct cli *cli, unsigned now, unsigned *shown)
{
    unsigned step = cli_json(cli) ? JSON_STEP : TEXT_STEP;

    if (now == *shown || (now < *shown + step && now < CONVERT_WHOLE))
        return;
    *shown = now;
    if (cli_json(cli)) {
        json_t *doc = json_object();
        js_set(doc, "percent", json_real(now / 100.0));
        output_line(cli, doc, NULL);
    } else if (isatty(2)) {
        fprintf(stderr, "\r%5.1f %%", now / 100.0);
    }
}

/* ---- the child ---- */

struct converter {
    pid_t pid;
    int out, words; /* read ends of its standard output and error, -1 once closed */
    char said[WORDS_BYTES];
    size_t n_said;
    struct convert_parser parser;
    unsigned now, shown;
};

static void child_exec(const char *const *argv, int out, int words, pid_t parent)
{
    sigset_t none;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(127);
    int null = open("/dev/null", O_RDONLY);
    dup2(null, 0);
    dup2(out, 1);
    dup2(words, 2);
    helper_isolate(NULL, 0);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execvp(argv[0], (char *const *)(uintptr_t)argv);
    dprintf(2, "cannot run %s: %s", argv[0], strerror(errno));
    _exit(127);
}

static int start(const char *const *argv, struct converter *c, struct error *err)
{
    int out[2], words[2];
    pid_t parent = getpid();

    if (pipe2(out, O_CLOEXEC) < 0)
        return error_set(err, -errno, "cannot make a pipe: %s", strerror(errno));
    if (pipe2(words, O_CLOEXEC) < 0) {
        close(out[0]);
        close(out[1]);
        return error_set(err, -errno, "cannot make a pipe: %s", strerror(errno));
    }
    fflush(stdout);
    c->pid = fork();
    int code = errno;
    if (c->pid == 0)
        child_exec(argv, out[1], words[1], parent);
    close(out[1]);
    close(words[1]);
    c->out = out[0];
    c->words = words[0];
    return c->pid < 0 ? error_set(err, -code, "cannot start qemu-img: %s", strerror(code)) : 0;
}

static void take(const struct cli *cli, struct converter *c, int *fd)
{
    char bytes[4096];
    ssize_t n = read(*fd, bytes, sizeof bytes);

    if (n <= 0) {
        close(*fd);
        *fd = -1;
    } else if (fd == &c->out) {
        c->now = convert_parse(&c->parser, bytes, (size_t)n, c->now);
        show(cli, c->now, &c->shown);
    } else {
        size_t room = sizeof c->said - 1 - c->n_said;
        size_t more = (size_t)n < room ? (size_t)n : room;
        memcpy(c->said + c->n_said, bytes, more);
        c->n_said += more;
    }
}

/* Until both streams end, or a signal comes; the signal stays pending (convert_stopped). */
static bool listen_to(const struct cli *cli, struct converter *c)
{
    sigset_t set = held_signals();
    int signals = signalfd(-1, &set, SFD_CLOEXEC);
    bool stopped = false;

    while (!stopped && (c->out >= 0 || c->words >= 0)) {
        struct pollfd p[3] = {{.fd = c->out, .events = POLLIN},
                              {.fd = c->words, .events = POLLIN},
                              {.fd = signals, .events = POLLIN}};
        if (poll(p, 3, -1) < 0)
            continue;
        if (p[0].revents)
            take(cli, c, &c->out);
        if (p[1].revents)
            take(cli, c, &c->words);
        stopped = p[2].revents != 0;
    }
    if (stopped)
        kill(c->pid, SIGKILL);
    if (signals >= 0)
        close(signals);
    return stopped;
}

int convert_run(const struct cli *cli, const char *const *argv, struct error *err)
{
    struct converter c = {.pid = -1, .out = -1, .words = -1};
    int status = 0;

    if (convert_stopped())
        return error_set(err, -EINTR, "interrupted");
    int rc = start(argv, &c, err);
    bool stopped = rc == 0 && listen_to(cli, &c);
    while (rc == 0 && waitpid(c.pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (c.out >= 0)
        close(c.out);
    if (c.words >= 0)
        close(c.words);
    if (!cli_json(cli) && isatty(2) && c.shown)
        fprintf(stderr, "\n");
    c.said[strcspn(c.said, "\n")] = '\0';
    if (rc < 0)
        return rc;
    if (stopped)
        return error_set(err, -EINTR, "interrupted");
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    return error_set(err, LUNAR_E_EXEC, "qemu-img failed: %s", c.n_said ? c.said : "it was killed");
}

int convert_sync(const char *path, struct error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int rc = fd < 0 || fsync(fd) < 0
                 ? error_set(err, -errno, "cannot flush %s: %s", path, strerror(errno))
                 : 0;

    if (fd >= 0)
        close(fd);
    return rc;
}
