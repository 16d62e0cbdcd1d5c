/* SPDX-License-Identifier: Apache-2.0 */
/* lunar-coordinator: options and exit statuses; the rest is coordinator.c. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "coordinator/coordinator.h"

static const char usage[] =
    "usage: lunar-coordinator --device DEVICE [options]\n"
    "\n"
    "A candidate for the coordinator of the pool on DEVICE. It needs the node's lunar-agent to "
    "have joined the pool;\n"
    "several candidates may run, one leads, the others relay their clients to it.\n"
    "\n"
    "  -d, --device DEVICE      the LUN\n"
    "  -r, --run-dir DIR        sockets and private state (default /run/lunar)\n"
    "  -s, --socket PATH        listen here (default DIR/coordinator-POOL.sock)\n"
    "  -a, --agent-socket PATH  the node's agent (default DIR/agent-POOL.sock)\n"
    "      --hint WHERE         where the leader may be told by UDP to look at a page: auto, "
    "ADDRESS[:PORT], [IPV6]:PORT,\n"
    "                           :PORT, or off (default auto)\n"
    "  -v, --verbose            log what is of use to developers\n"
    "  -V, --version            print the version\n"
    "  -h, --help               print this\n"
    "\n"
    "Exit status: 0 resigned (SIGTERM, lunarctl coordinator resign), 1 could not start, 2 usage, "
    "75 lost the lease:\n"
    "start it again.\n";

enum { OPTION_HINT = 256 }; /* options without a letter */

static const struct option options[] = {{"device", required_argument, NULL, 'd'},
                                        {"run-dir", required_argument, NULL, 'r'},
                                        {"socket", required_argument, NULL, 's'},
                                        {"agent-socket", required_argument, NULL, 'a'},
                                        {"hint", required_argument, NULL, OPTION_HINT},
                                        {"verbose", no_argument, NULL, 'v'},
                                        {"version", no_argument, NULL, 'V'},
                                        {"help", no_argument, NULL, 'h'},
                                        {NULL, 0, NULL, 0}};

static void parse_hint(const char *text, struct hint_option *ret)
{
    struct error err = ERROR_INIT;
    if (hint_option_parse(text, ret, &err) == 0)
        return;
    fprintf(stderr, "lunar-coordinator: --hint: %s\n", err.text);
    exit(2);
}

static void parse(int argc, char **argv, struct coordinator_config *config)
{
    int c;
    while ((c = getopt_long(argc, argv, "d:r:s:a:vVh", options, NULL)) != -1) {
        switch (c) {
        case 'd':
            config->device = optarg;
            break;
        case 'r':
            config->run_dir = optarg;
            break;
        case 's':
            config->socket = optarg;
            break;
        case 'a':
            config->agent_socket = optarg;
            break;
        case OPTION_HINT:
            parse_hint(optarg, &config->hint);
            break;
        case 'v':
            log_set_level(LOG_LEVEL_DEBUG);
            break;
        case 'V':
            puts("lunar-coordinator " LUNAR_VERSION);
            exit(0);
        case 'h':
            fputs(usage, stdout);
            exit(0);
        default:
            exit(2);
        }
    }
    if (!config->device || optind != argc) {
        fputs(usage, stderr);
        exit(2);
    }
}

int main(int argc, char **argv)
{
    struct coordinator_config config = {.run_dir = "/run/lunar", .hint = {.on = true}};
    struct error err = ERROR_INIT;

    parse(argc, argv, &config);
    signal(SIGPIPE, SIG_IGN);
    log_set_tag("coordinator");
    if (coordinator_run(&config, &err) < 0) {
        fprintf(stderr, "lunar-coordinator: %s (%s)\n", err.text, error_name(err.code));
        return 1;
    }
    return 0;
}
