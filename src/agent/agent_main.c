/* SPDX-License-Identifier: Apache-2.0 */
/* lunar-agent: options, one agent per pool, exit statuses; the rest is agent.c. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/agent.h"
#include "agent/dm.h"
#include "base/log.h"
#include "diskrpc/page.h"

#define POOLS_MAX 16

enum { OPTION_HINT = 256 }; /* options without a letter */

static const char usage[] =
    "usage: lunar-agent --device DEVICE [--device DEVICE ...] [options]\n"
    "\n"
    "Makes this node a member of the pools on the given LUNs: joins them by sanlock, attaches "
    "their volumes as kernel\n"
    "block devices and relays local requests to the coordinators. Needs root, sanlock and wdmd "
    "running.\n"
    "\n"
    "  -d, --device DEVICE     a LUN; once per pool\n"
    "  -n, --node-name NAME    the node's name in Kubernetes (default: host name)\n"
    "  -r, --run-dir DIR       sockets and private state, must survive restarts of the agent "
    "(default /run/lunar)\n"
    "      --hint WHERE        where this node may be told by UDP to look at its page: auto, "
    "ADDRESS[:PORT],\n"
    "                          [IPV6]:PORT, :PORT, or off; further pools take the ports after PORT "
    "(default auto)\n"
    "  -v, --verbose           log what is of use to developers\n"
    "  -V, --version           print the version\n"
    "  -h, --help              print this\n"
    "\n"
    "It listens on DIR/agent-POOL.sock, and the first pool also on DIR/agent.sock. SIGTERM ends "
    "the agent, not the volumes: the\n"
    "next agent adopts them. To take the node out of a pool use `lunarctl node leave`.\n";

static const struct option options[] = {
    {"device", required_argument, NULL, 'd'},  {"node-name", required_argument, NULL, 'n'},
    {"run-dir", required_argument, NULL, 'r'}, {"hint", required_argument, NULL, OPTION_HINT},
    {"verbose", no_argument, NULL, 'v'},       {"version", no_argument, NULL, 'V'},
    {"help", no_argument, NULL, 'h'},          {NULL, 0, NULL, 0}};

struct arguments {
    const char *devices[POOLS_MAX];
    int n_devices;
    char host_name[PAGE_NAME_SIZE];
    const char *node_name, *run_dir;
    struct hint_option hint;
};

static void usage_error(void)
{
    fputs(usage, stderr);
    exit(2);
}

static void parse_hint(const char *text, struct hint_option *ret)
{
    struct error err = ERROR_INIT;
    if (hint_option_parse(text, ret, &err) == 0)
        return;
    fprintf(stderr, "lunar-agent: --hint: %s\n", err.text);
    exit(2);
}

/* A pool's socket is its own: the n-th one has the n-th port from the given one on. */
static struct hint_option hint_of_pool(const struct hint_option *option, int n)
{
    struct hint_option ret = *option;
    if (ret.bind.port != 0)
        ret.bind.port = (uint16_t)(ret.bind.port + n);
    return ret;
}

static void parse(int argc, char **argv, struct arguments *a)
{
    int c;
    while ((c = getopt_long(argc, argv, "d:n:r:vVh", options, NULL)) != -1) {
        switch (c) {
        case 'd':
            if (a->n_devices == POOLS_MAX)
                usage_error();
            a->devices[a->n_devices++] = optarg;
            break;
        case 'n':
            a->node_name = optarg;
            break;
        case 'r':
            a->run_dir = optarg;
            break;
        case OPTION_HINT:
            parse_hint(optarg, &a->hint);
            break;
        case 'v':
            log_set_level(LOG_LEVEL_DEBUG);
            break;
        case 'V':
            puts("lunar-agent " LUNAR_VERSION);
            exit(0);
        case 'h':
            fputs(usage, stdout);
            exit(0);
        default:
            exit(2);
        }
    }
    if (a->n_devices == 0 || optind != argc || strlen(a->node_name) >= PAGE_NAME_SIZE - 2)
        usage_error();
}

static struct agent *open_agents[POOLS_MAX];
static int n_open;

static void on_signal(uv_signal_t *handle, int signum)
{
    (void)handle;
    for (int i = 0; i < n_open; i++)
        agent_resume_consumers(open_agents[i]);
    log_info("agent_ends signal=%d text=\"volumes go on; the next agent adopts them\"", signum);
    _exit(0);
}

/* The default socket of lunarctl: a link to the first pool's. */
static void link_default(const char *run_dir, const char *socket)
{
    char path[300];
    snprintf(path, sizeof path, "%s/agent.sock", run_dir);
    unlink(path);
    if (symlink(socket, path) < 0)
        log_warn("no_default_socket path=%s text=\"%s\"", path, strerror(errno));
}

static int run(const struct arguments *arguments, struct error *err)
{
    uv_loop_t *loop = uv_default_loop();
    uv_signal_t sigterm, sigint;
    struct agent *agent;

    if (mkdir(arguments->run_dir, 0700) < 0 && errno != EEXIST)
        return error_set(err, -errno, "cannot make %s: %s", arguments->run_dir, strerror(errno));
    for (int i = 0; i < arguments->n_devices; i++) {
        struct agent_config config = {.device = arguments->devices[i],
                                      .node_name = arguments->node_name,
                                      .run_dir = arguments->run_dir,
                                      .hint = hint_of_pool(&arguments->hint, i)};
        int rc = agent_open(loop, &config, &agent, err);
        if (rc < 0)
            return rc;
        open_agents[n_open++] = agent;
        if (i == 0)
            link_default(arguments->run_dir, agent_socket(agent));
    }
    uv_signal_init(loop, &sigterm);
    uv_signal_init(loop, &sigint);
    uv_signal_start(&sigterm, on_signal, SIGTERM);
    uv_signal_start(&sigint, on_signal, SIGINT);
    uv_run(loop, UV_RUN_DEFAULT);
    return 0;
}

int main(int argc, char **argv)
{
    struct arguments arguments = {.run_dir = "/run/lunar", .hint = {.on = true}};
    struct error err = ERROR_INIT;

    gethostname(arguments.host_name, sizeof arguments.host_name - 1);
    arguments.node_name = arguments.host_name;
    parse(argc, argv, &arguments);
    signal(SIGPIPE, SIG_IGN);
    /* Tasks block for seconds each (QSD start, format): as many at once as a node attaches at once,
     * and enough that one hung LUN's do not hold up another pool's. */
    setenv("UV_THREADPOOL_SIZE", "64", 1);
    log_set_tag("agent");
    dm_setup();
    if (run(&arguments, &err) < 0) {
        fprintf(stderr, "lunar-agent: %s (%s)\n", err.text, error_name(err.code));
        return 1;
    }
    return 0;
}
