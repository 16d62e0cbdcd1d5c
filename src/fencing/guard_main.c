/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lunar-guard: options and exit statuses; the rest is guard_run.c. The agent starts it with
 * everything it needs on the command line, so that one that takes over from a killed guard reads
 * nothing from a LUN that may hang.
 */
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "fencing/guard_reset.h"
#include "fencing/guard_run.h"
#include "fencing/guard_wire.h"
#include "fencing/sanlock_calls.h"

/* A log that is longer when a guard starts begins anew: the run directory is memory. */
#define LOG_BYTES (1 << 20)

static const char usage[] =
    "usage: lunar-guard --pool NAME --pool-id UUID --device DEVICE --member OFFSET\n"
    "                   --host-id ID --generation N --io-timeout S --watchdog-timeout S\n"
    "                   [--run-dir DIR] [--killpath PATH] [--test-pool] [--fence] [--started]\n"
    "       lunar-guard --wake SOCKET ID GENERATION\n"
    "\n"
    "lunar-agent starts it; see lunar-guard(8).\n";

enum option_id {
    OPTION_POOL = 1,
    OPTION_POOL_ID,
    OPTION_DEVICE,
    OPTION_MEMBER,
    OPTION_HOST_ID,
    OPTION_GENERATION,
    OPTION_IO_TIMEOUT,
    OPTION_WATCHDOG,
    OPTION_RUN_DIR,
    OPTION_KILLPATH,
    OPTION_TEST_POOL,
    OPTION_FENCE,
    OPTION_STARTED,
    OPTION_WAKE,
    OPTION_HELP,
    OPTION_VERSION,
};

static const struct option long_options[] = {
    {"pool", required_argument, NULL, OPTION_POOL},
    {"pool-id", required_argument, NULL, OPTION_POOL_ID},
    {"device", required_argument, NULL, OPTION_DEVICE},
    {"member", required_argument, NULL, OPTION_MEMBER},
    {"host-id", required_argument, NULL, OPTION_HOST_ID},
    {"generation", required_argument, NULL, OPTION_GENERATION},
    {"io-timeout", required_argument, NULL, OPTION_IO_TIMEOUT},
    {"watchdog-timeout", required_argument, NULL, OPTION_WATCHDOG},
    {"run-dir", required_argument, NULL, OPTION_RUN_DIR},
    {"killpath", required_argument, NULL, OPTION_KILLPATH},
    {"test-pool", no_argument, NULL, OPTION_TEST_POOL},
    {"fence", no_argument, NULL, OPTION_FENCE},
    {"started", no_argument, NULL, OPTION_STARTED},
    {"wake", required_argument, NULL, OPTION_WAKE},
    {"help", no_argument, NULL, OPTION_HELP},
    {"version", no_argument, NULL, OPTION_VERSION},
    {NULL, 0, NULL, 0}};

struct arguments {
    struct guard_options guard;
    const char *wake;
    bool started;
};

static uint64_t number(const char *text, const char *option)
{
    char *end;
    uint64_t value = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0') {
        fprintf(stderr, "lunar-guard: --%s needs a number, not '%s'\n", option, text);
        exit(2);
    }
    return value;
}

static void print_and_exit(const char *text)
{
    fputs(text, stdout);
    exit(0);
}

static void take_option(struct arguments *a, int option, const char *name)
{
    struct guard_options *g = &a->guard;
    switch (option) {
    case OPTION_POOL:
        g->pool = optarg;
        break;
    case OPTION_POOL_ID:
        if (uuid_parse(optarg, &g->sb.pool_id) < 0) {
            fprintf(stderr, "lunar-guard: '%s' is not a pool id\n", optarg);
            exit(2);
        }
        break;
    case OPTION_DEVICE:
        g->device = optarg;
        break;
    case OPTION_MEMBER:
        /* layout_resource counts from here; with lease areas of no size all of them are here. */
        g->sb.layout.resources = number(optarg, name);
        break;
    case OPTION_HOST_ID:
        g->host_id = (uint32_t)number(optarg, name);
        break;
    case OPTION_GENERATION:
        g->generation = number(optarg, name);
        break;
    case OPTION_IO_TIMEOUT:
        g->sb.io_timeout_s = (uint32_t)number(optarg, name);
        break;
    case OPTION_WATCHDOG:
        g->sb.watchdog_fire_timeout_s = (uint32_t)number(optarg, name);
        break;
    case OPTION_RUN_DIR:
        g->run_dir = optarg;
        break;
    case OPTION_KILLPATH:
        g->killpath = optarg;
        break;
    case OPTION_TEST_POOL:
        g->sb.flags |= SUPERBLOCK_FLAG_TEST;
        break;
    case OPTION_FENCE:
        g->fence = true;
        break;
    case OPTION_STARTED:
        a->started = true;
        break;
    case OPTION_WAKE:
        a->wake = optarg;
        break;
    case OPTION_HELP:
        print_and_exit(usage);
        break;
    case OPTION_VERSION:
        print_and_exit("lunar-guard " LUNAR_VERSION "\n");
        break;
    default:
        fputs(usage, stderr);
        exit(2);
    }
}

static void check(const struct guard_options *g)
{
    struct error err = ERROR_INIT;
    if (!g->pool || !g->device || uuid_is_zero(&g->sb.pool_id) || g->sb.layout.resources == 0 ||
        g->host_id == 0 || g->generation == 0) {
        fputs(usage, stderr);
        exit(2);
    }
    if (pool_name_check(g->pool, &err) < 0 || sanlock_check_device(g->device, &err) < 0) {
        fprintf(stderr, "lunar-guard: %s\n", err.text);
        exit(2);
    }
}

static void open_log(const struct guard_options *g)
{
    char path[GUARD_PATH_SIZE];
    struct stat st;
    if (guard_path(g->run_dir, g->pool, "log", path, NULL) < 0)
        return; /* the start says so */
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0)
        return;
    if (fstat(fd, &st) == 0 && st.st_size > LOG_BYTES && ftruncate(fd, 0) < 0)
        log_debug("log_not_shortened");
    dup2(fd, STDERR_FILENO);
    close(fd);
    char tag[POOL_NAME_SIZE + 64];
    snprintf(tag, sizeof tag, "guard pool=%s host_id=%" PRIu32 " generation=%" PRIu64, g->pool,
             g->host_id, g->generation);
    log_set_tag(tag);
}

/* Standard input and output to nowhere; what was standard output, if it is wanted. */
static int detach(bool keep)
{
    int first_words = keep ? fcntl(1, F_DUPFD_CLOEXEC, 3) : -1;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null >= 0) {
        dup2(null, 0);
        dup2(null, 1);
        close(null);
    }
    return first_words;
}

static int wake(const struct arguments *a, char **rest, int n)
{
    struct error err = ERROR_INIT;
    if (n != 2) {
        fputs(usage, stderr);
        return 2;
    }
    int rv = guard_wake(a->wake, (uint32_t)number(rest[0], "wake"), number(rest[1], "wake"), &err);
    if (rv < 0)
        fprintf(stderr, "lunar-guard: %s\n", err.text);
    return rv < 0;
}

int main(int argc, char **argv)
{
    static struct arguments a = {.guard = {.run_dir = "/run/lunar"}};
    struct error err = ERROR_INIT;
    int option, index = 0;

    while ((option = getopt_long(argc, argv, "", long_options, &index)) != -1)
        take_option(&a, option, option == '?' ? "" : long_options[index].name);
    if (a.wake)
        return wake(&a, argv + optind, argc - optind);
    check(&a.guard);
    mallopt(M_ARENA_MAX, 1); /* one heap, locked; not one of 64 MiB for each thread */
    open_log(&a.guard);
    if (!(a.guard.sb.flags & SUPERBLOCK_FLAG_TEST)) {
        guard_reset_prepare();
        a.guard.reset = guard_reset_now;
    }
    int rv = guard_run(&a.guard, detach(a.started), &err);
    if (rv < 0)
        log_error("guard_ends code=%s reason=\"%s\"", error_name(rv), err.text);
    return rv < 0;
}
